"""What Snakemake, DVC and git wrote down, read without them and held against files on disk."""

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
from robustviews.provenance import dvc, history, notes
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from robustviews.provenance.history import History
from robustviews.study import jobs as pending
from robustviews.study import specs
from robustviews.workflow.metadata import Notes
from tests.unit.results_tree import small_study, write_shown, write_tree

RUN = "simclr-pgd5-digits-s0"
TRAINING = ("pretrain", RUN)
TRAINED = f"results/tiny/pretrain/{RUN}"
ENCODER = f"{TRAINED}/encoder.safetensors"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    tree = tmp_path_factory.mktemp("tree")
    write_tree(tree, small_study())
    write_shown(tree, small_study())
    return tree


@pytest.fixture
def root(tree, tmp_path):
    shutil.copytree(tree, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def disk(root):
    return Disk(small_study(), root)


def states(found):
    """Return state, subject and text of findings by job, without those that verify."""
    every = [each for findings in found.values() for each in findings]
    return [
        (each.state, each.subject, each.text) for each in every if each.state is not State.VERIFIED
    ]


# Snakemake


def write_notes(disk):
    """Write notes as Snakemake does after it has made everything."""
    for job in disk.jobs.values():
        read = [path.as_posix() for path in job.reads]
        for output in job.writes:
            note = {
                "rule": job.rule,
                "input": read,
                "params": [repr("digits"), repr(specs.to_json(job.spec))],
                "incomplete": False,
                "input_checksums": {name: disk.sha256(Path(name)) for name in read},
            }
            artifacts.write_json(disk.root / Notes(disk.root).path(output), note)


def noted(disk, jobs=None):
    disk = Disk(disk.study, disk.root)
    return notes.check(disk, Notes(disk.root), jobs or disk.jobs.values())


@pytest.mark.parametrize("length", [3, 180, 191, 192, 500, 900])
def test_notes_lie_where_snakemake_looks_for_them(length, tmp_path):
    from snakemake.persistence.file import FilePersistence

    output = "r" * length
    longest = SimpleNamespace(_fetch_max_len=lambda _subject: 255)
    expected = FilePersistence._record_path(longest, ".snakemake/metadata", output)
    assert str(Notes(tmp_path).path(Path(output))) == expected


def test_notes_that_fit_are_verified_for_every_job(disk):
    write_notes(disk)
    found = noted(disk)
    assert states(found) == []
    assert found.keys() == disk.jobs.keys()


def test_what_a_tables_note_says_of_a_record_is_told_of_the_job_that_left_it(disk):
    write_notes(disk)
    path = disk.root / TRAINED / "record.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    found = noted(disk)
    assert {key for key in found if states({key: found[key]})} == {TRAINING}
    (state, subject, text), *more = states(found)
    assert (state, subject, more) == (State.FAILED, f"{TRAINED}/record.json", [])
    assert "frame.csv and " in text


def test_an_input_that_is_gone_fails(disk):
    write_notes(disk)
    (disk.root / ENCODER).unlink()
    assert (State.FAILED, ENCODER) in [each[:2] for each in states(noted(disk))]


def test_outputs_without_notes_are_unknown_and_outputs_that_are_not_there_are_not_told(disk):
    (disk.root / TRAINED / "training.jsonl").unlink()
    found = noted(disk, [disk.jobs[TRAINING]])
    assert [(state, subject) for state, subject, _ in states(found)] == [(State.UNKNOWN, ENCODER)]
    assert "about encoder.safetensors, record.json" in states(found)[0][2]


def test_a_parameter_that_is_gone_is_told_from_one_that_is_null(disk):
    write_notes(disk)
    path = disk.root / Notes(disk.root).path(Path(ENCODER))
    note = artifacts.read_json(path)
    spec = {name: value for name, value in disk.jobs[TRAINING].spec.items() if name != "seed"}
    record = artifacts.read_json(disk.root / TRAINED / "record.json")
    record["spec"]["seed"] = None
    artifacts.write_json(disk.root / TRAINED / "record.json", record)
    artifacts.write_json(path, note | {"params": [repr(specs.to_json(spec))]})
    texts = [text for _, _, text in states(noted(disk, [disk.jobs[TRAINING]]))]
    assert any("seed was nothing, its record says None" in text for text in texts)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"params": 3, "input": 4, "rule": "pretrain"}'])
def test_a_note_of_any_shape_is_judged_and_never_raises(disk, damage):
    write_notes(disk)
    (disk.root / Notes(disk.root).path(Path(ENCODER))).write_text(damage, encoding="utf-8")
    assert states(noted(disk))


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


def kept(root):
    """Return what the check of DVC's lock and cache says that is not verified."""
    disk = Disk(small_study(), root)
    found = dvc.locked(disk)
    told = states(dvc.check(disk, found, disk.jobs.values()))
    return told + [(each.state, each.subject, each.text) for each in found.problems]


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
    assert kept(root) == []
    disk = Disk(small_study(), root)
    found = dvc.check(disk, dvc.locked(disk), disk.jobs.values())
    assert {key[0] for key in found} == {"pretrain", "frame"}


def test_a_file_that_is_not_as_locked_fails_by_name(root):
    lock(root, "results/tiny/pretrain")
    (root / ENCODER).write_bytes(b"?")
    assert [each[:2] for each in kept(root)] == [(State.FAILED, ENCODER)]


def test_without_the_list_of_a_folder_the_folder_fails(root):
    lock(root, "results/tiny/pretrain", cached=False)
    (root / ENCODER).write_bytes(b"?")
    assert [each[:2] for each in kept(root)] == [(State.FAILED, "results/tiny/pretrain")]


def test_without_its_list_a_folder_with_files_of_others_remains_unknown(root):
    lock(root, "results/tiny/pretrain", cached=False)
    (root / ENCODER).write_bytes(b"?")
    (root / "results/tiny/pretrain/notes.txt").write_text("?", encoding="utf-8")
    assert [each[:2] for each in kept(root)] == [(State.UNKNOWN, "results/tiny/pretrain")]


def test_a_file_that_is_gone_fails(root):
    lock(root, "results/tiny/pretrain")
    (root / ENCODER).unlink()
    ((state, subject, text),) = kept(root)
    assert (state, subject) == (State.FAILED, ENCODER)
    assert f"dvc checkout {ENCODER}" in text


def test_a_file_that_the_lock_does_not_know_fails(root):
    path = root / TRAINED / "training.jsonl"
    data = path.read_bytes()
    path.unlink()
    lock(root, "results/tiny/pretrain")
    path.write_bytes(data)
    ((state, subject, text),) = kept(root)
    assert (state, subject) == (State.FAILED, f"{TRAINED}/training.jsonl")
    assert "does not know it" in text


def test_a_changed_copy_in_the_cache_fails_though_the_file_is_right(root):
    lock(root, "results/tiny/pretrain")
    md5 = hashlib.md5((root / ENCODER).read_bytes()).hexdigest()
    path = write_object(root, md5, b"?")
    ((state, subject, text),) = kept(root)
    assert (state, subject) == (State.FAILED, str(path.relative_to(root)))
    assert f"dvc fetch {ENCODER} && dvc checkout {ENCODER}" in text
    assert "robustviews verify && dvc commit --force STAGE" in text


def test_a_file_that_is_a_link_into_the_cache_is_read_once_and_right(root):
    lock(root, "results/tiny/pretrain")
    md5 = hashlib.md5((root / ENCODER).read_bytes()).hexdigest()
    (root / ENCODER).unlink()
    (root / ENCODER).symlink_to(root / ".dvc/cache/files/md5" / md5[:2] / md5[2:])
    assert kept(root) == []


def test_a_cache_elsewhere_is_found(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("cache")
    lock(root, "results/tiny/pretrain")
    shutil.move(root / ".dvc/cache/files", elsewhere / "files")
    (root / ".dvc/config").write_text(f"[cache]\n    dir = {elsewhere}\n", encoding="utf-8")
    (root / ENCODER).write_bytes(b"?")
    # The list of the folder, which tells the file, is only there.
    assert [each[:2] for each in kept(root)] == [(State.FAILED, ENCODER)]


@pytest.mark.parametrize("text", ["", "[]", "stages: 3", "stages: {a: {outs: [3]}}", "a: [", "\0"])
def test_a_damaged_lock_fails(root, text):
    (root / "dvc.lock").write_text(text, encoding="utf-8")
    assert [each[:2] for each in kept(root)] == [(State.FAILED, "dvc.lock")]


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


def judged(root, *, made_at, dirty=False):
    """Return state and text of the check of a record that names a commit."""
    disk = Disk(small_study(), root)
    path = root / TRAINED / "record.json"
    record = artifacts.read_json(path)
    record["code"] |= {"commit": made_at, "dirty": dirty}
    artifacts.write_json(path, record)
    found = history.check(disk, History(root), Notes(root), disk.jobs[TRAINING])
    return found.state, found.text


def test_a_clean_commit_with_the_code_of_the_record_is_verified(repository):
    root, made_at = repository
    assert judged(root, made_at=made_at) == (
        State.VERIFIED,
        f"from the clean commit {made_at[:7]}",
    )


def test_what_changed_since_is_told_and_counts_only_where_it_decides(repository):
    root, made_at = repository
    (root / "src/robustviews/reporting/tables/writers.py").write_text("X = 1\n", encoding="utf-8")
    (root / "src/robustviews/news.py").write_text("X = 1\n", encoding="utf-8")
    state, text = judged(root, made_at=made_at)
    assert state is State.VERIFIED
    assert "tables/writers.py" in text
    assert "news.py" in text


def test_a_commit_with_other_code_fails(repository):
    root, made_at = repository
    path = root / "src/robustviews/losses.py"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("def nt_xent(", "def other("), encoding="utf-8")
    other = commit(root)
    path.write_text(before, encoding="utf-8")
    commit(root)
    assert judged(root, made_at=made_at)[0] is State.VERIFIED
    state, text = judged(root, made_at=other)
    assert state is State.FAILED
    assert "did not run from that commit, clean" in text


def test_an_edit_that_git_was_told_to_overlook_is_seen(repository):
    root, made_at = repository
    path = root / "src/robustviews/losses.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("def nt_xent(", "def other("), encoding="utf-8")
    other = commit(root)
    path.write_text(text, encoding="utf-8")
    git(root, "update-index", "--assume-unchanged", "src/robustviews/losses.py")
    assert judged(root, made_at=other)[0] is State.FAILED
    assert judged(root, made_at=made_at)[0] is State.VERIFIED
    assert any("sources differ" in line for line in History(root).remarks())


def test_a_diff_that_fails_is_no_sign_of_no_change(repository, monkeypatch):
    root, made_at = repository
    monkeypatch.setattr(History, "_plain", lambda *_: None)
    state, text = judged(root, made_at=made_at)
    assert state is State.VERIFIED
    assert text.endswith("git does not tell what changed since")


def test_a_package_that_is_not_the_projects_own_fails_unless_its_files_are_the_same(repository):
    root, _ = repository
    assert history.package(root) == []
    (root / "src/robustviews/losses.py").write_text("", encoding="utf-8")
    (found,) = history.package(root)
    assert (found.check, found.state) == ("package", State.FAILED)
    assert "PYTHONPATH=src python -m robustviews" in found.text


@pytest.mark.parametrize("dirty", [True, None])
def test_uncommitted_sources_are_unknown(repository, dirty):
    root, made_at = repository
    assert judged(root, made_at=made_at, dirty=dirty)[0] is State.UNKNOWN


def test_a_commit_that_is_not_there_is_unknown(repository):
    root, _ = repository
    state, text = judged(root, made_at=40 * "a")
    assert state is State.UNKNOWN
    assert "git fetch origin" in text


@pytest.mark.parametrize("name", ["main", "", "HEAD~1", "--help", 3])
def test_what_is_no_commit_fails(repository, name):
    root, _ = repository
    assert judged(root, made_at=name)[0] is State.FAILED


def test_without_a_repository_a_commit_is_unknown(root):
    state, text = judged(root, made_at=40 * "a")
    assert state is State.UNKNOWN
    assert "no git repository here" in text
    assert History(root).remarks() == ["no git repository here: what was committed is not compared"]


def test_what_differs_from_the_commit_is_remarked(repository):
    root, made_at = repository
    assert History(root).remarks() == [f"git: at {made_at[:7]}"]
    (root / "src/robustviews/losses.py").write_text("", encoding="utf-8")
    lock(root, "results/tiny/frame.csv")
    assert [line.split(":")[1].split()[0] for line in History(root).remarks()] == [
        "at",
        "sources",
        "dvc.lock",
    ]


def test_every_job_of_the_plan_has_its_code_looked_up_at_a_commit(repository):
    root, made_at = repository
    known = History(root)
    source = known.sources(made_at)
    disk = Disk(small_study(), root)
    for job in pending.jobs(small_study()).values():
        if job.folder is not None:
            assert history._spec_at(disk, job, source) == job.spec
