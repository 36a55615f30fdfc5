"""DVC around Snakemake: what it locks, what a clone gets, and what happens when things go wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from robustviews import artifacts
from robustviews.workflow import locks
from tests.workflow.project import NOTHING, Project

EMP, SIMCLR = "emp-free-digits-s0", "simclr-std-digits-s0"
NUMBERS = [f"results/tiny/{name}.json" for name in ("metrics", "headline")]
ENCODER = f"results/tiny/pretrain/{SIMCLR}/encoder.safetensors"
TITLE = "Clean and robust accuracy"
PATIENCE = 120  # seconds that a process may take


@pytest.fixture(scope="module")
def clone(versioned, tmp_path_factory):
    """A fresh clone with pulled results: to be read and copied, never changed."""
    return versioned.clone(tmp_path_factory.mktemp("clone") / "clone")


@pytest.fixture
def copy(clone, tmp_path):
    return clone.copy(tmp_path / "copy")


def flip_a_byte(path):
    """Change one byte in place, so that size, inode and time stay as they were."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_git_keeps_metrics_and_notes_and_nothing_else_of_a_run(versioned):
    tracked = versioned.git("ls-files").splitlines()
    made = ("results/", "data/", "logs/", ".snakemake/", "dvc.lock")
    kept = {path for path in tracked if path.startswith(made)}
    notes = {path for path in kept if path.startswith(".snakemake/metadata/")}
    assert notes
    assert kept - notes == {*NUMBERS, "dvc.lock"}
    assert versioned.changed() == set()


def test_notes_hold_no_path_of_this_machine_and_have_names_for_every_file_system(versioned):
    notes = [path for path in versioned.folder.glob(".snakemake/metadata/**/*") if path.is_file()]
    ours = [str(versioned.folder.parent), sys.prefix, str(Path.home()), os.environ["PATH"]]
    for path in notes:
        text = path.read_text(encoding="utf-8")
        assert [each for each in ours if len(each) > 1 and each in text] == []
        name = path.relative_to(versioned.folder / ".snakemake" / "metadata").as_posix()
        assert re.fullmatch(r"(@?[A-Za-z0-9_=-]{1,255}/)*[A-Za-z0-9_=-]{1,255}", name)
    assert len({str(path).lower() for path in notes}) == len(notes)


def test_a_clone_with_pulled_results_has_nothing_to_do(clone):
    assert clone.dry_run() == set()
    assert clone.is_clean()
    assert clone.changed() == set()
    clone.robustviews("verify").said()


def test_a_clone_without_results_is_told_to_pull_them(versioned, tmp_path):
    versioned.git("clone", "--quiet", str(versioned.folder), str(tmp_path / "clone"))
    assert "type: dvc pull" in Project(tmp_path / "clone").snakemake("--dry-run").text


def test_unfinished_files_of_jobs_that_were_ended_disturb_nothing(copy):
    for path in (
        f"data/.digits-x.{'a' * 8}/train_images.npy",
        f"results/tiny/pretrain/.{EMP}.{'a' * 8}/encoder.safetensors",
        f"results/tiny/pretrain/.{EMP}.lock",
        f"results/tiny/pretrain/{EMP}/.encoder.safetensors.{'a' * 8}",
        f"results/tiny/figures/.cost.svg.{'a' * 8}",
        f"results/.state/tiny/{EMP}-0123456789abcdef/state.safetensors",
    ):
        (copy.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (copy.folder / path).write_bytes(b"half")
    assert copy.is_clean()
    assert copy.changed() == set()
    assert copy.dry_run() == set()
    copy.robustviews("verify").said()


def test_nothing_is_locked_when_the_check_after_a_stage_fails(copy):
    locked = (copy.folder / "dvc.lock").read_bytes()
    assert copy.is_clean()
    flip_a_byte(copy.folder / ENCODER)
    assert copy.is_clean()  # DVC looks at times
    for path in (copy.folder / "results/tiny/sanity").rglob("*.*"):
        path.touch()  # newer than the encoder, so that Snakemake looks at times only
    copy.edit("params.yaml", f"title: {TITLE}", "title: Accuracy")
    # Only the last stage has something to do, and has to notice what is wrong with an earlier one.
    done = copy.dvc("repro", "--single-item", "report")
    assert done.status != 0
    assert re.search(rf"^failed: .*{ENCODER}", done.text, re.M), done.text
    assert (copy.folder / "dvc.lock").read_bytes() == locked


def test_a_mistyped_parameter_is_no_experiment(copy):
    done = copy.dvc("exp", "run", "--set-param", "+runs.simclr-std.epoch=2")
    assert done.status != 0
    assert "runs.simclr-std.epoch: unknown key" in done.text
    assert done.jobs_of_stages() == set()
    assert copy.git("diff", "--name-only").split() == ["params.yaml"]


def test_an_experiment_runs_what_it_changes_and_is_shown_beside_the_commit(copy):
    done = copy.dvc("exp", "run", "--name", "worded", "-S", "tables.accuracies.title=Accuracy")
    assert done.jobs_of_stages() == {"table accuracies", "report"}
    assert copy.is_clean()
    (shown,) = [entry for entry in copy.dvc("exp", "show", "--json").json() if entry["experiments"]]
    (experiment,) = shown["experiments"][0]["revs"]
    assert experiment["name"] == "worded"
    assert title_of(experiment) == "Accuracy"
    assert title_of(shown) == TITLE
    (metrics,) = experiment["data"]["metrics"].values()
    assert metrics["data"] == artifacts.read_json(copy.folder / NUMBERS[1])


def title_of(entry):
    return entry["data"]["params"]["params.yaml"]["data"]["tables"]["accuracies"]["title"]


def test_plots_are_the_figures_and_the_accuracies_by_radius(copy):
    copy.dvc("plots", "show", "--out", "plots").said()
    page = (copy.folder / "plots" / "index.html").read_text(encoding="utf-8")
    images = {path.name for path in (copy.folder / "plots" / "static").iterdir()}
    for name in ("figures_strong", "figures_tradeoff", "figures_cost", "training_curves"):
        assert f"workspace_results_tiny_{name}.png" in images
    assert not re.search(r'(src|href) *= *"(?!static/)', page), "the page loads nothing"
    assert "function vegaEmbed(" in page
    (text,) = re.findall(r"var spec = (\{.*\});$", page, re.M)
    spec = json.loads(text)
    assert "<DVC_METRIC" not in text
    rows = [row for row in spec["data"]["values"] if row["run"] == EMP and row["attack"] == "pgd2"]
    assert [float(row["eps"]) for row in rows] == [0, 8, 16]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx(
        [int(row["correct"]) / int(row["n"]) for row in rows]
    )
    drawn = spec["spec"]["encoding"]
    assert {drawn["x"]["field"], spec["facet"]["column"]["field"]} <= set(rows[0])


def test_a_study_without_heads_attacks_and_figures_is_locked_and_had_back(tmp_path):
    project = Project.create(tmp_path / "project", Path(__file__).with_name("bare.yaml"))
    project.dvc("remote", "add", "--default", "folder", str(tmp_path / "remote")).said()
    project.dvc("repro").said()
    assert project.is_clean()
    project.commit("Run the study")
    project.dvc("push").said()
    clone = project.clone(tmp_path / "clone")
    for empty in ("probe", "attack", "figures"):
        assert list((clone.folder / "results/bare" / empty).iterdir()) == []
    assert clone.dry_run() == set()
    assert clone.is_clean()
    assert clone.robustviews("audit").said().endswith(" verified: verified\n")


def test_a_stage_that_does_not_exist_is_told(copy):
    done = copy.run("workflow/stage", "everything")
    assert done.status == 2
    assert (
        "expected data, pretrain, probe, attack, sanity or report, found 'everything'" in done.text
    )


def test_a_stage_without_snakemake_says_how_to_get_it(tmp_path):
    project = Project.create(tmp_path / "project")
    done = project.run("env", "PATH=/usr/bin:/bin", "workflow/stage", "data")
    assert done.status == 2
    assert "type: make setup" in done.text


@contextmanager
def long_repro(project):
    """Start `dvc repro` of a run that takes long, and wait until it trains."""
    project.edit("params.yaml", "method: emp_ssl,", "method: emp_ssl, epochs: 5000,")
    command = [sys.executable, "-m", "dvc", "repro"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        command, cwd=project.folder, env=project.environment(), start_new_session=True, **pipes
    )
    lock = locks.lock_of(project.folder / "results/tiny/pretrain" / EMP)
    deadline = time.monotonic() + PATIENCE
    try:
        while (training := locks.owner(lock)) is None:
            assert process.poll() is None
            assert time.monotonic() < deadline, f"no training after {PATIENCE} s"
            time.sleep(0.1)
        os.kill(training.pid, signal.SIGSTOP)  # a process still, which takes no time of others
        yield process, training
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while locks.owner(lock) is not None:
            assert time.monotonic() < deadline, "a training cannot be ended"
            time.sleep(0.1)


def refused(finished, *texts):
    """Whether a command failed and said all of these."""
    assert finished.status != 0, finished.text
    assert [text for text in texts if text not in finished.text] == [], finished.text
    return True


def test_a_killed_repro_is_told_and_everything_before_it_can_be_had_back(copy):
    old = (copy.folder / "results/tiny/pretrain" / EMP / "encoder.safetensors").read_bytes()
    with long_repro(copy) as (repro, training):
        (announced,) = (copy.folder / ".snakemake").glob("running-*.lock")
        snakemake = locks.owner(announced)
        refused(
            copy.snakemake(),
            f"Running here: Snakemake of tiny (PID {snakemake.pid} on ",
            f"pretrain {EMP} (PID {training.pid} on ",
            f"kill {snakemake.pid} ",
        )
        refused(copy.dvc("repro"), "is busy", f"(PID {repro.pid})")

        for process in (repro.pid, snakemake.pid):
            os.kill(process, signal.SIGKILL)
        repro.wait(PATIENCE)
        orphan = f"pretrain {EMP} (PID {training.pid} on "
        way_out = [f"kill {training.pid} ", "snakemake --unlock"]
        refused(copy.dvc("repro"), f"still run: {orphan}", *way_out)
        assert orphan in copy.snakemake("--unlock").said()
        refused(copy.robustviews("pretrain", "--run", EMP), orphan, "already runs")
        os.kill(training.pid, signal.SIGTERM)
        os.kill(training.pid, signal.SIGCONT)

    assert not (copy.folder / "results/tiny/pretrain" / EMP / "encoder.safetensors").exists()
    copy.git("checkout", "--", ".")
    copy.dvc("checkout").said()
    assert (copy.folder / "results/tiny/pretrain" / EMP / "encoder.safetensors").read_bytes() == old
    said = copy.snakemake("--dry-run").said()
    assert f"results/tiny/pretrain/{EMP} is complete; to keep it" in said
    shutil.rmtree(copy.folder / ".snakemake" / "incomplete")
    assert NOTHING in copy.snakemake("--dry-run").said()
    assert copy.is_clean()

    copy.edit("params.yaml", f"title: {TITLE}", "title: Accuracy")
    assert copy.dvc("repro").jobs_of_stages() == {"table accuracies", "report"}
    assert copy.is_clean()
