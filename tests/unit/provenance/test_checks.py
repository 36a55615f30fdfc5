"""Checks with Snakemake metadata, DVC and git, which are read without these tools."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from robustviews import artifacts
from robustviews.provenance import dvc, history, metadata
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from robustviews.provenance.history import History
from robustviews.study import jobs as pending
from robustviews.study import specs
from robustviews.workflow.metadata import ProjectMetadata
from tests.unit.results_tree import edit, small_study

RUN = "simclr-pgd5-digits-s0"
TRAINING = ("pretrain", RUN)
TRAINED = f"results/tiny/pretrain/{RUN}"
ENCODER = f"{TRAINED}/encoder.safetensors"


@pytest.fixture
def disk(root):
    return Disk(small_study(), root)


def states(by_job):
    """Return state, subject and text of the findings that are not verified."""
    return [
        (finding.state, finding.subject, finding.text)
        for findings in by_job.values()
        for finding in findings
        if finding.state is not State.VERIFIED
    ]


# Snakemake


def write_metadata(disk):
    """Write metadata as Snakemake does after a complete run."""
    for job in disk.jobs.values():
        read = [path.as_posix() for path in job.reads]
        for output in job.writes:
            entry = {
                "rule": job.rule,
                "input": read,
                "params": [repr("digits"), repr(specs.to_json(job.spec))],
                "incomplete": False,
                "input_checksums": {name: disk.sha256(Path(name)) for name in read},
            }
            artifacts.write_json(disk.root / ProjectMetadata(disk.root).path(output), entry)


def check_metadata(disk, jobs=None):
    disk = Disk(disk.study, disk.root)
    return metadata.check(disk, ProjectMetadata(disk.root), jobs or disk.jobs.values())


@pytest.mark.parametrize("length", [3, 180, 191, 192, 500, 900])
def test_metadata_paths_are_those_of_snakemake(length, tmp_path):
    from snakemake.persistence.file import FilePersistence

    output = "r" * length
    longest = SimpleNamespace(_fetch_max_len=lambda _subject: 255)
    expected = FilePersistence._record_path(longest, ".snakemake/metadata", output)
    assert str(ProjectMetadata(tmp_path).path(Path(output))) == expected


def test_right_metadata_is_verified_for_every_job(disk):
    write_metadata(disk)
    findings = check_metadata(disk)
    assert states(findings) == []
    assert findings.keys() == disk.jobs.keys()


def test_a_record_that_a_tables_metadata_contradicts_fails_the_job_that_wrote_it(disk):
    write_metadata(disk)
    path = disk.root / TRAINED / "record.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    findings = check_metadata(disk)
    assert {key for key in findings if states({key: findings[key]})} == {TRAINING}
    (state, subject, text), *more = states(findings)
    assert (state, subject, more) == (State.FAILED, f"{TRAINED}/record.json", [])
    assert "frame.csv and " in text


def test_a_missing_input_fails(disk):
    write_metadata(disk)
    (disk.root / ENCODER).unlink()
    assert (State.FAILED, ENCODER) in [finding[:2] for finding in states(check_metadata(disk))]


def test_outputs_without_metadata_are_unknown_and_missing_outputs_are_not_reported(disk):
    (disk.root / TRAINED / "training.jsonl").unlink()
    findings = check_metadata(disk, [disk.jobs[TRAINING]])
    assert [(state, subject) for state, subject, _ in states(findings)] == [
        (State.UNKNOWN, ENCODER)
    ]
    assert "metadata of encoder.safetensors, record.json" in states(findings)[0][2]


def test_a_missing_parameter_differs_from_one_that_is_null(disk):
    write_metadata(disk)
    path = disk.root / ProjectMetadata(disk.root).path(Path(ENCODER))
    entry = artifacts.read_json(path)
    spec = {name: value for name, value in disk.jobs[TRAINING].spec.items() if name != "seed"}
    edit(disk.root, TRAINED, lambda record: record["spec"].update(seed=None))
    artifacts.write_json(path, entry | {"params": [repr(specs.to_json(spec))]})
    texts = [text for _, _, text in states(check_metadata(disk, [disk.jobs[TRAINING]]))]
    assert any("seed was nothing, its record says None" in text for text in texts)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"params": 3, "input": 4, "rule": "pretrain"}'])
def test_metadata_of_any_shape_is_checked_and_never_raises(disk, damage):
    write_metadata(disk)
    (disk.root / ProjectMetadata(disk.root).path(Path(ENCODER))).write_text(
        damage, encoding="utf-8"
    )
    assert states(check_metadata(disk))


# DVC


def lock(root, *outs, cached=True):
    """Write dvc.lock for files and folders, and DVC's cache, as DVC does."""
    listed = []
    for out in outs:
        if (root / out).is_dir():
            names = sorted(path for path in (root / out).rglob("*") if path.is_file())
            entries = [
                {
                    "md5": keep(root, path, cached=cached),
                    "relpath": str(path.relative_to(root / out)),
                }
                for path in names
            ]
            entries.sort(key=lambda entry: entry["relpath"])
            data = json.dumps(entries, sort_keys=True).encode()
            md5 = f"{hashlib.md5(data).hexdigest()}.dir"
            if cached:
                write_object(root, md5, data)
        else:
            md5 = keep(root, root / out, cached=cached)
        listed.append({"path": out, "hash": "md5", "md5": md5})
    text = yaml.safe_dump({"schema": "2.0", "stages": {"all": {"cmd": "x", "outs": listed}}})
    (root / "dvc.lock").write_text(text, encoding="utf-8")


def keep(root, path, *, cached):
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    if cached:
        write_object(root, md5, path.read_bytes())
    return md5


def write_object(root, md5, data, cache=".dvc/cache"):
    path = root / cache / "files/md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def check_dvc(root):
    """Return the findings of dvc.lock and cache that are not verified."""
    disk = Disk(small_study(), root)
    locked = dvc.locked(disk)
    findings = dvc.check(disk, locked, disk.jobs.values())
    return states(findings | {"lock": locked.problems})


def test_without_a_lock_dvc_is_not_in_use(disk):
    assert dvc.locked(disk) is None


def test_a_lock_of_other_files_does_not_cover_the_study(disk):
    (disk.root / "other").mkdir()
    (disk.root / "other/file").write_text("?", encoding="utf-8")
    lock(disk.root, "other")
    assert not dvc.covers(disk, dvc.locked(disk))
    lock(disk.root, "results/tiny/frame.csv")
    assert dvc.covers(disk, dvc.locked(disk))


@pytest.mark.parametrize("cached", [True, False])
def test_files_and_folders_as_locked_are_verified_with_or_without_a_cache(root, cached):
    lock(root, "results/tiny/pretrain", "results/tiny/frame.csv", cached=cached)
    (root / TRAINED / ".hidden").write_text("?", encoding="utf-8")
    assert check_dvc(root) == []
    disk = Disk(small_study(), root)
    findings = dvc.check(disk, dvc.locked(disk), disk.jobs.values())
    assert {key[0] for key in findings} == {"pretrain", "frame"}


def test_a_file_that_is_not_as_locked_fails_by_name(root):
    lock(root, "results/tiny/pretrain")
    (root / ENCODER).write_bytes(b"?")
    assert [finding[:2] for finding in check_dvc(root)] == [(State.FAILED, ENCODER)]


def test_without_the_list_of_a_folder_the_folder_fails(root):
    lock(root, "results/tiny/pretrain", cached=False)
    (root / ENCODER).write_bytes(b"?")
    assert [finding[:2] for finding in check_dvc(root)] == [(State.FAILED, "results/tiny/pretrain")]


def test_without_its_list_a_folder_with_files_of_others_remains_unknown(root):
    lock(root, "results/tiny/pretrain", cached=False)
    (root / ENCODER).write_bytes(b"?")
    (root / "results/tiny/pretrain/notes.txt").write_text("?", encoding="utf-8")
    assert [finding[:2] for finding in check_dvc(root)] == [
        (State.UNKNOWN, "results/tiny/pretrain")
    ]


def test_a_missing_file_fails(root):
    lock(root, "results/tiny/pretrain")
    (root / ENCODER).unlink()
    ((state, subject, text),) = check_dvc(root)
    assert (state, subject) == (State.FAILED, ENCODER)
    assert f"dvc checkout {ENCODER}" in text


def test_a_file_that_the_lock_does_not_list_fails(root):
    path = root / TRAINED / "training.jsonl"
    data = path.read_bytes()
    path.unlink()
    lock(root, "results/tiny/pretrain")
    path.write_bytes(data)
    ((state, subject, text),) = check_dvc(root)
    assert (state, subject) == (State.FAILED, f"{TRAINED}/training.jsonl")
    assert "dvc.lock does not list it" in text


def test_a_changed_copy_in_the_cache_fails_though_the_file_is_right(root):
    lock(root, "results/tiny/pretrain")
    md5 = hashlib.md5((root / ENCODER).read_bytes()).hexdigest()
    path = write_object(root, md5, b"?")
    ((state, subject, text),) = check_dvc(root)
    assert (state, subject) == (State.FAILED, str(path.relative_to(root)))
    assert f"dvc fetch {ENCODER} && dvc checkout {ENCODER}" in text
    assert "robustviews verify && dvc commit --force STAGE" in text


def test_a_file_that_is_a_link_into_the_cache_is_verified(root):
    lock(root, "results/tiny/pretrain")
    md5 = hashlib.md5((root / ENCODER).read_bytes()).hexdigest()
    (root / ENCODER).unlink()
    (root / ENCODER).symlink_to(root / ".dvc/cache/files/md5" / md5[:2] / md5[2:])
    assert check_dvc(root) == []


def test_a_cache_elsewhere_is_found(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("cache")
    lock(root, "results/tiny/pretrain")
    shutil.move(root / ".dvc/cache/files", elsewhere / "files")
    (root / ".dvc/config").write_text(f"[cache]\n    dir = {elsewhere}\n", encoding="utf-8")
    (root / ENCODER).write_bytes(b"?")
    # Only that cache holds the list of the folder, which names the file.
    assert [finding[:2] for finding in check_dvc(root)] == [(State.FAILED, ENCODER)]


@pytest.mark.parametrize("text", ["", "[]", "stages: 3", "stages: {a: {outs: [3]}}", "a: [", "\0"])
def test_a_damaged_lock_fails(root, text):
    (root / "dvc.lock").write_text(text, encoding="utf-8")
    assert [finding[:2] for finding in check_dvc(root)] == [(State.FAILED, "dvc.lock")]


# git


@pytest.fixture
def repository(root):
    """Return the tree as a repository with the package in it, and its commit."""
    package = root / "src/robustviews"
    shutil.copytree(history.SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text("results/\ndata/\n__pycache__/\n", encoding="utf-8")
    git(root, "init", "--quiet")
    return root, commit(root)


def git(root, *arguments):
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def commit(root):
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Change")
    return git(root, "rev-parse", "HEAD").strip()


def check_commit(root, *, named, dirty=False):
    """Return state and text of the check of a record that names a commit."""
    disk = Disk(small_study(), root)
    edit(root, TRAINED, lambda record: record["code"].update(commit=named, dirty=dirty))
    finding = history.check(disk, History(root), ProjectMetadata(root), disk.jobs[TRAINING])
    return finding.state, finding.text


def test_a_clean_commit_with_the_code_of_the_record_is_verified(repository):
    root, head = repository
    assert check_commit(root, named=head) == (
        State.VERIFIED,
        f"from the clean commit {head[:7]}",
    )


def test_changes_since_are_reported_and_count_only_where_they_decide(repository):
    root, head = repository
    (root / "src/robustviews/reporting/tables/writers.py").write_text("X = 1\n", encoding="utf-8")
    (root / "src/robustviews/news.py").write_text("X = 1\n", encoding="utf-8")
    state, text = check_commit(root, named=head)
    assert state is State.VERIFIED
    assert "tables/writers.py" in text
    assert "news.py" in text


def test_a_commit_with_other_code_fails(repository):
    root, head = repository
    path = root / "src/robustviews/losses.py"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("def nt_xent(", "def other("), encoding="utf-8")
    other = commit(root)
    path.write_text(before, encoding="utf-8")
    commit(root)
    assert check_commit(root, named=head)[0] is State.VERIFIED
    state, text = check_commit(root, named=other)
    assert state is State.FAILED
    assert "did not run from that clean commit" in text


def test_an_edit_that_git_assumes_unchanged_is_detected(repository):
    root, head = repository
    path = root / "src/robustviews/losses.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("def nt_xent(", "def other("), encoding="utf-8")
    other = commit(root)
    path.write_text(text, encoding="utf-8")
    git(root, "update-index", "--assume-unchanged", "src/robustviews/losses.py")
    assert check_commit(root, named=other)[0] is State.FAILED
    assert check_commit(root, named=head)[0] is State.VERIFIED
    assert any("sources differ" in line for line in History(root).remarks())


def test_a_diff_that_fails_does_not_count_as_no_change(repository, monkeypatch):
    root, head = repository
    monkeypatch.setattr(History, "_fresh", lambda *_: None)
    state, text = check_commit(root, named=head)
    assert state is State.VERIFIED
    assert text.endswith("git does not report what changed since")


def test_a_package_that_is_not_the_projects_own_fails_unless_its_files_are_the_same(repository):
    root, _ = repository
    assert history.package(root) == []
    (root / "src/robustviews/losses.py").write_text("", encoding="utf-8")
    (finding,) = history.package(root)
    assert (finding.check, finding.state) == ("package", State.FAILED)
    assert "PYTHONPATH=src python -m robustviews" in finding.text


@pytest.mark.parametrize("dirty", [True, None])
def test_uncommitted_sources_are_unknown(repository, dirty):
    root, head = repository
    assert check_commit(root, named=head, dirty=dirty)[0] is State.UNKNOWN


def test_a_missing_commit_is_unknown(repository):
    root, _ = repository
    state, text = check_commit(root, named=40 * "a")
    assert state is State.UNKNOWN
    assert "git fetch origin" in text


@pytest.mark.parametrize("name", ["main", "", "HEAD~1", "--help"])
def test_what_is_no_commit_fails(repository, name):
    root, _ = repository
    assert check_commit(root, named=name)[0] is State.FAILED


def test_without_a_repository_a_commit_is_unknown(root):
    state, text = check_commit(root, named=40 * "a")
    assert state is State.UNKNOWN
    assert "no git repository here" in text
    assert History(root).remarks() == ["no git repository here: nothing is compared with commits"]


def test_what_differs_from_the_commit_is_remarked(repository):
    root, head = repository
    assert History(root).remarks() == [f"git: at {head[:7]}"]
    (root / "src/robustviews/losses.py").write_text("", encoding="utf-8")
    lock(root, "results/tiny/frame.csv")
    assert [line.split(":")[1].split()[0] for line in History(root).remarks()] == [
        "at",
        "sources",
        "dvc.lock",
    ]


def test_every_job_of_the_plan_has_its_code_looked_up_at_a_commit(repository):
    root, head = repository
    commits = History(root)
    disk = Disk(small_study(), root)
    for job in pending.jobs(small_study()).values():
        if job.folder is not None:
            assert history._digest(disk, commits, head, job) == job.spec["code"]
