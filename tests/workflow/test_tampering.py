"""Faults that the audit reports in copies of a finished study, and benign copies without alarm."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from robustviews import cli
from robustviews.provenance import history
from tests.workflow import tampering as t
from tests.workflow.project import Project
from tests.workflow.tampering import (
    ATTACK,
    CENTRAL,
    CHECKS,
    DATA,
    ENCODER,
    FLAGS,
    HEAD,
    OTHER,
    RESULTS,
    TABLE,
    TRAINED,
)


class Case(NamedTuple):
    """An injected fault and the expected finding: check, file, words of its text, and state."""

    inject: t.Injection
    check: str
    file: str
    words: str
    state: str = "failed"


def changed(file: str) -> Case:
    return Case(t.flip(file), "bytes", file, "changed bytes: its record states")


def of_record(
    inject: t.Injection, check: str, folder: str, words: str, state: str = "failed"
) -> Case:
    return Case(inject, check, f"{folder}/record.json", words, state)


CASES = {
    "a bit of the training images": changed(f"{DATA}/train_images.npy"),
    "a bit of the test labels": changed(f"{DATA}/test_labels.npy"),
    "a bit of the summary of the data": changed(f"{DATA}/summary.json"),
    "a bit of an encoder": changed(ENCODER),
    "a bit of a head": changed(f"{HEAD}/head.safetensors"),
    "a bit of a head that another started from": changed(f"{CENTRAL}/head.safetensors"),
    "a bit of the flags": changed(FLAGS),
    "a bit of a training curve": changed(f"{TRAINED}/training.jsonl"),
    "truncated flags": Case(t.truncate(FLAGS), "flags", FLAGS, "cannot be read"),
    "better flags, their record made to fit": Case(
        t.flags(t.all_right), "metadata", FLAGS, "differs from Snakemake metadata"
    ),
    "better flags than their record repeats": Case(
        t.flags(t.all_right), "flags", FLAGS, "record.json says that eps_8 is"
    ),
    "flags of checks, their record made to fit": Case(
        t.flags(t.none_withstands, f"{CHECKS}/flags.safetensors"),
        "sanity",
        f"{CHECKS}/flags.safetensors",
        f"rle: {CHECKS}/record.json says that pgd_0 is 12, its flags give 0",
    ),
    "a check that failed": Case(
        t.record(CHECKS, "result", "rle", "failed", to={"AS5": "no longer"}),
        "sanity",
        f"{CHECKS}/flags.safetensors",
        f"rle: {CHECKS}/record.json says that AS5 failed, its measures give",
    ),
    "flags with other labels": Case(
        t.flags(t.other_labels),
        "flags",
        FLAGS,
        f"its labels differ from {DATA}/test_labels.npy",
    ),
    "flags of fewer images": Case(
        t.flags(t.fewer), "flags", FLAGS, "has 20 images, the study attacks 40"
    ),
    "flags that count an image twice": Case(
        t.flags(t.twice_the_same),
        "flags",
        FLAGS,
        "list test images in order, each once, below 1000",
    ),
    "flags that are neither 0 nor 1": Case(
        t.flags(t.half_right), "flags", FLAGS, "eps_8 holds values other than 0 and 1"
    ),
    "flags without a radius": Case(t.flags(t.no_radius), "flags", FLAGS, "expected clean, eps_16"),
    "another encoder, all records made to fit": Case(
        t.fitting(t.flip(ENCODER), ENCODER), "metadata", ENCODER, "differs from Snakemake metadata"
    ),
    "encoders of two runs swapped": Case(
        t.swap(ENCODER, f"{OTHER}/encoder.safetensors"), "bytes", ENCODER, "changed bytes"
    ),
    "folders of two runs swapped": of_record(
        t.swap(TRAINED, OTHER), "record", TRAINED, f"foreign record: name is '{t.SIMCLR}'"
    ),
    "a record of another study": of_record(
        t.record(TRAINED, "study", to="cf-amc-ssl"),
        "record",
        TRAINED,
        "foreign record: study is 'cf-amc-ssl', expected 'tiny'",
    ),
    "a record of another stage": of_record(
        t.record(HEAD, "stage", to="pretrain"), "record", HEAD, "foreign record: stage is"
    ),
    "no record": of_record(
        t.remove(f"{TRAINED}/record.json"), "record", TRAINED, "missing, though outputs exist"
    ),
    "a record that is none": of_record(
        t.write(f"{TRAINED}/record.json", "{}"),
        "record",
        TRAINED,
        "not a job record: it lacks",
    ),
    "a truncated record": of_record(
        t.truncate(f"{TRAINED}/record.json"), "record", TRAINED, "damaged"
    ),
    "a seed that is null": of_record(
        t.record(TRAINED, "seed", to=None), "seed", TRAINED, "missing seed, expected 0"
    ),
    "no seed": of_record(t.without(TRAINED, "seed"), "record", TRAINED, "it lacks seed"),
    "another seed": of_record(
        t.record(TRAINED, "seed", to=7), "seed", TRAINED, "seed is 7, expected 0"
    ),
    "another length in a record": of_record(
        t.record(TRAINED, "spec", "run", "epochs", to=9),
        "spec",
        TRAINED,
        "stale: run.epochs was 9, the study now says 1",
    ),
    "another digest of the code": of_record(
        t.record(DATA, "code", "digest", to=16 * "0"), "code", DATA, "edited: code.digest is 0"
    ),
    "an input that a record does not name": Case(
        t.without(TRAINED, "inputs", f"{DATA}/train_labels.npy"),
        "inputs",
        f"{DATA}/train_labels.npy",
        f"{TRAINED}/record.json does not say that it was read",
    ),
    "an input that was not to be read": Case(
        t.record(TRAINED, "inputs", f"{DATA}/test_labels.npy", to="sha256:0"),
        "inputs",
        f"{DATA}/test_labels.npy",
        f"{TRAINED}/record.json says it was read, but it should not be",
    ),
    "another input hash": Case(
        t.record(HEAD, "inputs", ENCODER, to="sha256:0"),
        "upstream",
        ENCODER,
        f"{HEAD}/record.json was made from sha256:0",
    ),
    "fewer seconds": of_record(
        t.record(TRAINED, "seconds", to=0.001),
        "metadata",
        TRAINED,
        "differs from Snakemake metadata",
    ),
    "far more seconds": of_record(
        t.record(TRAINED, "seconds", to=6e4),
        "times",
        TRAINED,
        "it took 60000 s, Snakemake metadata",
    ),
    "seconds that are no number": of_record(
        t.record(TRAINED, "seconds", to="fast"), "record", TRAINED, "a number as seconds"
    ),
    "an attack before its encoder": of_record(
        t.record(ATTACK, "started", to="2020-01-01T00:00:00Z"),
        "times",
        ATTACK,
        "it started 2020-01-01T00:00:00Z, Snakemake metadata says from",
    ),
    "another device": of_record(
        t.record(TRAINED, "environment", "device", to="cuda: fast"),
        "metadata",
        TRAINED,
        "differs from Snakemake metadata",
    ),
    "no device": of_record(
        t.without(TRAINED, "environment", "device"),
        "environment",
        TRAINED,
        "device unknown",
        "unknown",
    ),
    "another lock in a record": of_record(
        t.record(CENTRAL, "environment", "lock", to="sha256:0123"),
        "lock",
        CENTRAL,
        "ran with sha256:0123, requirements.lock here is sha256:",
    ),
    "another version in a record": of_record(
        t.record(CENTRAL, "environment", "packages", "numpy", to="1.0"),
        "packages",
        CENTRAL,
        "ran with numpy 1.0, requirements.lock pins 2",
    ),
    "another determinism": of_record(
        t.record(CENTRAL, "environment", "deterministic", to=False),
        "environment",
        CENTRAL,
        "ran with deterministic False, the study asks for True",
    ),
    "a commit that does not exist": of_record(
        t.record(CENTRAL, "code", "commit", to="0123456789abcdef" + 24 * "0"),
        "commit",
        CENTRAL,
        "0123456 is not in this repository",
        "unknown",
    ),
    "a commit that is none": of_record(
        t.record(CENTRAL, "code", "commit", to="main"),
        "commit",
        CENTRAL,
        "'main' is not a commit",
    ),
    "a commit with other code": of_record(
        t.name_another_commit, "commit", OTHER, "the job did not run from that clean commit"
    ),
    "a commit of later": of_record(
        t.name_a_later_commit, "commit", TRAINED, "was made after the job had ended"
    ),
    "uncommitted sources": of_record(
        t.record(CENTRAL, "code", "dirty", to=True),
        "commit",
        CENTRAL,
        "sources had unknown uncommitted changes",
        "unknown",
    ),
    "a removed encoder": Case(t.remove(ENCODER), "bytes", ENCODER, "missing; make it again"),
    "a removed figure": Case(
        t.remove(f"{RESULTS}/figures/cost.png"), "figure", f"{RESULTS}/figures/cost.png", "missing"
    ),
    "an extra file": Case(
        t.write(f"{TRAINED}/other.safetensors", "?"),
        "bytes",
        f"{TRAINED}/other.safetensors",
        "extra file that the record does not name",
    ),
    "metrics": Case(
        t.metric,
        "metrics",
        f"{RESULTS}/metrics.json",
        "accuracies:emp:digits/clean is 99.9, flags and records give",
    ),
    "the headline": Case(
        t.write(f"{RESULTS}/headline.json", "{}"),
        "metrics",
        f"{RESULTS}/headline.json",
        "{} is stated, the results give",
    ),
    "the frame": Case(
        t.field(f"{RESULTS}/frame.csv", "accuracy"),
        "frame",
        f"{RESULTS}/frame.csv",
        "differs from the results, first in line 2",
    ),
    "a table in Markdown": Case(
        t.number(f"{TABLE}.md"), "table", f"{TABLE}.md", "differs from the results"
    ),
    "a table in LaTeX": Case(
        t.number(f"{TABLE}.tex"), "table", f"{TABLE}.tex", "differs from the results"
    ),
    "a table in CSV": Case(
        t.field(f"{TABLE}.csv", "ours"),
        "value",
        "accuracies:emp:digits/clean",
        f"{TABLE}.csv says 99.9, flags and records give",
    ),
    "a figure": Case(
        t.flip(f"{RESULTS}/figures/cost.svg"),
        "metadata",
        f"{RESULTS}/figures/cost.svg",
        f"differs from Snakemake metadata: {RESULTS}/report.html",
    ),
    "a checksum in metadata": Case(
        t.metadata(f"{HEAD}/head.safetensors", t.other_checksum),
        "metadata",
        ENCODER,
        f"{HEAD}/head.safetensors was made from sha256:000000000000",
    ),
    "a checksum missing in metadata": Case(
        t.metadata(f"{HEAD}/head.safetensors", t.no_checksum),
        "metadata",
        f"{HEAD}/head.safetensors",
        f"has no checksum of {ENCODER}",
        "unknown",
    ),
    "parameters in metadata": Case(
        t.metadata(ENCODER, t.other_parameters),
        "metadata",
        ENCODER,
        "other parameters: run.epochs was 9, its record says 1",
    ),
    "inputs in metadata": Case(
        t.metadata(ENCODER, t.fewer_inputs),
        "metadata",
        ENCODER,
        f"other inputs than expected: {DATA}/sum",
    ),
    "the rule in metadata": Case(
        t.metadata(ENCODER, t.other_rule),
        "metadata",
        ENCODER,
        "names the rule 'examples', expected 'pretrain'",
    ),
    "lost metadata": Case(t.lose_metadata, "metadata", ENCODER, "no Snakemake metadata", "unknown"),
    "damaged metadata": Case(t.damage_metadata, "metadata", ENCODER, "is damaged"),
    "an interrupted job": Case(t.interrupt, "metadata", ENCODER, "Snakemake was interrupted"),
    "the lock": of_record(
        t.replace("requirements.lock", "numpy==", "numpy==1"),
        "lock",
        HEAD,
        "requirements.lock here",
    ),
    "a parameter of a run": of_record(
        t.replace("params.yaml", "method: simclr,", "method: simclr, batch_size: 50,"),
        "spec",
        OTHER,
        "stale: run.batch_size was 100, the study now says 50",
    ),
    "the report": Case(
        t.replace(f"{RESULTS}/report.html", "tiny", "tidy"),
        "seal",
        f"{RESULTS}/report.html",
        "changed text: it does not have the checksum at its end",
    ),
    "the page of the audit": Case(
        t.replace(f"{RESULTS}/audit.html", "tiny", "tidy"),
        "seal",
        f"{RESULTS}/audit.html",
        "changed text: it does not have the checksum at its end",
    ),
    "the title of a table": Case(
        t.replace("params.yaml", "Clean and robust accuracy", "Robust accuracy"),
        "metadata",
        f"{TABLE}.md",
        "block.title was Clean and robust accuracy, the study now says Robust accuracy",
    ),
}
# The same with the results locked by DVC.
LOCKED = {
    "DVC's copy of an encoder": Case(
        t.tamper_with_cache,
        "cache",
        ".dvc/cache/files/md5/",
        f"its copy of {ENCODER}: its name says",
    ),
    "DVC's list of a folder": Case(
        t.tamper_with_listing, "dvc", ".dvc/cache/files/md5/", "changed bytes in DVC's cache"
    ),
    "the report": Case(
        t.replace(f"{RESULTS}/report.html", "tiny", "tidy"),
        "dvc",
        f"{RESULTS}/report.html",
        "dvc.lock states md5",
    ),
    "the record of a data set": Case(
        t.record(DATA, "seconds", to=1.0), "dvc", f"{DATA}/record.json", "dvc.lock states md5"
    ),
    "an md5 in dvc.lock": Case(
        t.tamper_with_lock, "dvc", f"{RESULTS}/frame.csv", "dvc.lock states md5 aaaaaaaa, found"
    ),
    "the md5 of a folder in dvc.lock": Case(
        t.tamper_with_folder_in_lock, "dvc", f"{RESULTS}/pretrain", "differs from dvc.lock"
    ),
    "no dvc.lock": Case(t.remove("dvc.lock"), "dvc", "dvc.lock", "git has it, but it is not here"),
    "damaged dvc.lock": Case(
        t.write("dvc.lock", "stages: ["), "dvc", "dvc.lock", "expected stages with outs"
    ),
}


@pytest.fixture(scope="module")
def study(finished, tmp_path_factory):
    """The finished study, committed as the documentation asks."""
    project = finished.copy(tmp_path_factory.mktemp("study") / "project")
    project.commit("Run the study")
    return project


@pytest.fixture(scope="module")
def locked(study, tmp_path_factory):
    """The same with all results in DVC."""
    project = study.copy(tmp_path_factory.mktemp("locked") / "project")
    project.dvc("commit", "--force", "--quiet")
    project.commit("Lock the results")
    return project


@pytest.fixture
def audited(monkeypatch, capsys):
    """Return a function that audits a project whose own package is the one that runs."""

    def audit(folder: Path, *arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(history, "SOURCE", folder / "src" / "robustviews")
        status = cli.main(list(arguments) or ["audit"])
        return status, capsys.readouterr().out

    return audit


def lines(text: str, case: Case) -> list[str]:
    """Return the lines that report the injected fault."""
    begin = f"{case.state}: {case.check}: {case.file}"
    return [line for line in text.splitlines() if line.startswith(begin) and case.words in line]


@pytest.mark.parametrize("name", CASES)
def test_tampering_is_reported(name, study, audited, tmp_path):
    case, copy = CASES[name], study.copy(tmp_path / "project")
    case.inject(copy)
    status, text = audited(copy.folder)
    assert lines(text, case), text
    assert status in ({1} if case.state == "failed" else {1, 2}), text


@pytest.mark.parametrize("name", LOCKED)
def test_tampering_with_files_of_dvc_is_reported(name, locked, audited, tmp_path):
    case, copy = LOCKED[name], locked.copy(tmp_path / "project")
    case.inject(copy)
    status, text = audited(copy.folder)
    assert lines(text, case), text
    assert status == 1


def touch(project: Project, _folder: Path) -> Project:
    """Touch every file."""
    for path in project.folder.rglob("*"):
        if ".git" not in path.parts and path.is_file():
            path.touch()
    return project


def copy_backwards(project: Project, _folder: Path) -> Project:
    """Let later files have earlier times."""
    files = sorted((project.folder / "results").rglob("*"), key=lambda path: path.stat().st_mtime)
    for number, path in enumerate(reversed(files)):
        os.utime(path, (1e9 + number, 1e9 + number))
    return project


def link_hard(project: Project, folder: Path) -> Project:
    """Let every result be a second name of the same file elsewhere."""
    for path in [path for path in results_of(project) if path.is_file()]:
        aside = folder / path.relative_to(project.folder)
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, aside)
    return project


def link_symbolically(project: Project, folder: Path) -> Project:
    """Let every result be a link to a file elsewhere."""
    for path in [path for path in results_of(project) if path.is_file()]:
        aside = folder / path.relative_to(project.folder)
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.rename(aside)
        path.symlink_to(aside)
    return project


def link_folders(project: Project, folder: Path) -> Project:
    """Let data and results lie on another disk."""
    for name in ("data", "results"):
        shutil.move(project.folder / name, folder / name)
        (project.folder / name).symlink_to(folder / name)
    return project


def forbid_writing(project: Project, _folder: Path) -> Project:
    for path in results_of(project):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return project


def keep_private(project: Project, _folder: Path) -> Project:
    for path in results_of(project):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return project


def clone(project: Project, folder: Path) -> Project:
    """Clone with git, and carry data and results over."""
    copy = folder / "clone"
    project.run("git", "clone", "--quiet", "--no-hardlinks", str(project.folder), str(copy)).said()
    for name in ("data", "results"):
        shutil.copytree(project.folder / name, copy / name, dirs_exist_ok=True)
    return Project(copy)


def pack(project: Project, folder: Path) -> Project:
    """Carry everything through a tar archive."""
    with tarfile.open(folder / "project.tar", "w") as tar:
        tar.add(project.folder, "packed")
    with tarfile.open(folder / "project.tar") as tar:
        tar.extractall(folder, filter="data")
    return Project(folder / "packed")


def move(project: Project, folder: Path) -> Project:
    return Project(Path(shutil.move(project.folder, folder / "another place, same files")))


def enter_by_link(project: Project, folder: Path) -> Project:
    (folder / "link").symlink_to(project.folder)
    return Project(folder / "link")


def go_on_committing(project: Project, _folder: Path) -> Project:
    """Change what decides no number, and commit it."""
    (project.folder / "README.md").write_text("What this is.\n", encoding="utf-8")
    losses = project.folder / "src/robustviews/losses.py"
    losses.write_text("# Losses.\n" + losses.read_text(encoding="utf-8"), encoding="utf-8")
    project.commit("Say what this is")
    return project


def leave_files_of_tools(project: Project, _folder: Path) -> Project:
    for name in (f"{TRAINED}/.DS_Store", f"{DATA}/.encoder.safetensors.x1", "notes.txt"):
        (project.folder / name).write_text("?", encoding="utf-8")
    return project


BENIGN = {
    "as it is": lambda project, _folder: project,
    "moved": move,
    "touched": touch,
    "with times in disorder": copy_backwards,
    "linked hard": link_hard,
    "linked symbolically": link_symbolically,
    "with folders elsewhere": link_folders,
    "not writable": forbid_writing,
    "private": keep_private,
    "cloned": clone,
    "through tar": pack,
    "entered by a link": enter_by_link,
    "with comments and commits since": go_on_committing,
    "with hidden files of tools": leave_files_of_tools,
}


def results_of(project: Project) -> list[Path]:
    """Return folders and files below data and results."""
    return [path for name in ("data", "results") for path in (project.folder / name).rglob("*")]


@pytest.mark.parametrize("base", ["study", "locked"])
@pytest.mark.parametrize("name", BENIGN)
def test_a_benign_copy_raises_no_alarm(name, base, audited, tmp_path, request):
    copy = request.getfixturevalue(base).copy(tmp_path / "project")
    (tmp_path / "elsewhere").mkdir()
    project = BENIGN[name](copy, tmp_path / "elsewhere")
    for verb in ("audit", "verify"):
        status, text = audited(project.folder, verb)
        assert status == 0, text
        assert not [line for line in text.splitlines() if line.startswith(("failed", "unknown"))]


def test_a_study_that_was_just_run_from_a_clean_clone_is_verified(finished, audited):
    status, text = audited(finished.folder)
    assert status == 0, text
    assert "not used: DVC" in text


def test_an_edited_source_is_caught_where_it_decides_and_nowhere_else(study, tmp_path):
    copy = study.copy(tmp_path / "project")
    copy.edit("src/robustviews/losses.py", "def nt_xent(", "OFFSET = 0.0\n\n\ndef nt_xent(")
    result = copy.robustviews("audit")
    assert result.status == 0, result.text
    assert "sources differ from it: src/robustviews/losses.py" in result.text
    path = copy.folder / "src/robustviews/losses.py"
    text = path.read_text(encoding="utf-8")
    begin = text.index("    return", text.index("def nt_xent("))
    path.write_text(f"{text[:begin]}    OFFSET + 1\n{text[begin:]}", encoding="utf-8")
    result = copy.robustviews("audit")
    assert result.status == 1, result.text
    record = f"{OTHER}/record.json"
    assert (
        f"failed: code: {record}: stale: the code that decides it has changed since" in result.text
    )
    assert f"failed: code: {TRAINED}/record.json" not in result.text
    # The commit is still the one that it ran from.
    assert f"failed: commit: {record}" not in result.text


def test_data_that_were_lost_and_prepared_again_raise_no_alarm(study, tmp_path):
    copy = study.copy(tmp_path / "project")
    lost = f"{DATA}/test_labels.npy"
    (copy.folder / lost).unlink()
    assert copy.snakemake(lost).jobs() == {f"data {Path(DATA).name}"}
    result = copy.robustviews("audit")
    assert result.status == 0, result.text


def test_verify_looks_at_the_stages_asked_for_alone(study, audited, tmp_path):
    copy = study.copy(tmp_path / "project")
    t.flip(FLAGS)(copy)
    assert audited(copy.folder, "verify", "--stages", "data", "pretrain", "probe")[0] == 0
    for stage in ("attack", "report"):
        status, text = audited(copy.folder, "verify", "--stages", stage)
        assert status == 1, text
        assert FLAGS in text


def test_verify_does_not_read_dvc_lock_which_is_not_written_yet(locked, audited, tmp_path):
    copy = locked.copy(tmp_path / "project")
    t.tamper_with_lock(copy)
    assert audited(copy.folder, "verify")[0] == 0


def test_a_cell_alone_is_checked_by_its_own_chain(study, audited, tmp_path):
    copy = study.copy(tmp_path / "project")
    t.flip(ENCODER)(copy)
    assert audited(copy.folder, "audit", "--cell", "accuracies:simclr:digits/clean")[0] == 0
    status, text = audited(copy.folder, "audit", "--cell", "accuracies:emp:digits/clean")
    assert status == 1
    assert f"pretrain {t.EMP}: failed" in text


def test_the_audit_needs_neither_torch_nor_matplotlib_nor_the_tools_that_it_checks(study):
    heavy = "{'torch', 'matplotlib', 'snakemake', 'dvc'}"
    code = "import sys; from robustviews import cli; cli.main(['audit']); "
    code += f"assert not {heavy} & {{*sys.modules}}"
    result = study.run(sys.executable, "-c", code)
    assert result.status == 0, result.text
