"""The doctor tells what works here and what to type next, whatever is broken."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustviews import artifacts, doctor
from robustviews.cli import main
from robustviews.datasets import Cifar10, Cifar100, Digits, Folder
from robustviews.doctor import Health, Symptom, around, data, installed, symptom
from tests.unit.results_tree import small_study


def seen(name, study=None):
    (found,) = (each for each in doctor.examine(study) if each.name == name)
    return found


version_of = functools.cache(installed._version)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Start a process that trains nothing, and look up the version of each package once."""
    monkeypatch.setattr(installed, "_SMALLEST_STEP", "print('no step')")
    monkeypatch.setattr(installed, "_version", version_of)


@pytest.fixture
def tools(monkeypatch):
    """Let tools be what a test says: a line, a complaint, an error, or nothing at all."""
    answers: dict[str, object] = {}

    def run(command, **_):
        answer = answers.get(" ".join(command[:2]), answers.get(command[0], FileNotFoundError()))
        if isinstance(answer, Exception):
            raise answer
        status, said = answer if isinstance(answer, tuple) else (0, answer)
        outputs = ("", f"{said}\nmore\n") if status else (f"{said}\nmore\n", "")
        return subprocess.CompletedProcess(command, status, *outputs)

    monkeypatch.setattr(symptom.subprocess, "run", run)
    monkeypatch.setattr(around.shutil, "which", lambda name: name if name in answers else None)
    monkeypatch.delenv("ROBUSTVIEWS_IMAGE", raising=False)
    return answers


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """A folder in which nothing was ever run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_everything_that_a_study_may_want_is_looked_at_once():
    names = [each.name for each in doctor.examine(None)]
    assert len(names) == len(set(names)) == len(doctor.LOOKS)
    wanted = {"Python", "code", "image", "packages", "torch", "CUDA", "folder", "disk", "PATH"}
    assert set(names) == wanted | {
        "convolution",
        "git",
        "Snakemake",
        "DVC",
        "Docker",
        "Apptainer",
        "Slurm",
    }


@pytest.mark.usefixtures("tools")
def test_whatever_does_not_work_says_what_to_type_next():
    for each in doctor.examine(None):
        if each.health is Health.BAD:
            assert each.hint, each


def test_a_convolution_that_writes_outside_its_memory_is_a_fault(tools):
    tools[sys.executable] = "a training step of a narrow network runs"
    assert seen("convolution").health is Health.GOOD
    tools[sys.executable] = (-11, "")
    assert seen("convolution").health is Health.BAD
    assert seen("convolution").hint
    tools[sys.executable] = subprocess.TimeoutExpired("x", 20)
    assert seen("convolution").health is Health.ABSENT


def test_versions_are_those_that_the_tools_say(tools):
    tools["git"] = "git version 2.39.5"
    tools["docker"] = "20.10.24 20.10.25"
    tools["apptainer"] = "apptainer version 1.3.1"
    tools["sinfo"] = "main* 1 nodes, gpu:2"
    assert seen("git").found == "2.39.5"
    assert seen("Docker").found == "20.10.25"
    assert seen("Apptainer").found == "1.3.1"
    assert seen("Slurm").found == "main* 1 nodes, gpu:2"
    assert {seen(name).health for name in ("git", "Docker", "Apptainer", "Slurm")} == {Health.GOOD}


@pytest.mark.usefixtures("tools")
def test_a_tool_that_is_absent_is_no_fault():
    for name in ("git", "Docker", "Apptainer", "Slurm"):
        assert seen(name).health is Health.ABSENT


@pytest.mark.parametrize(
    "trouble",
    [subprocess.TimeoutExpired("x", 20), (1, "no contact"), PermissionError()],
    ids=["hangs", "fails", "forbidden"],
)
def test_a_tool_that_does_not_answer_is_told_from_one_that_is_absent(tools, trouble):
    tools["docker"] = tools["sinfo"] = trouble
    assert seen("Docker").found == "here, but its daemon does not answer"
    assert seen("Slurm").found.startswith("here, but does not answer: ")
    assert {seen(name).health for name in ("Docker", "Slurm")} == {Health.ABSENT}


def test_what_keeps_docker_from_building_is_told_apart(tools):
    tools["docker"] = (1, "permission denied while trying to connect to the daemon")
    assert "usermod -aG docker" in seen("Docker").hint
    tools["docker"], tools["docker buildx"] = "28.2.2 20.10.24", (1, "not a docker command")
    assert seen("Docker").hint == "sudo apt-get install docker-buildx"
    tools["docker buildx"] = "buildx 0.24"
    assert seen("Docker").health is Health.GOOD


def test_podman_and_singularity_do_as_well(tools):
    tools["podman"], tools["singularity"] = "podman version 4.3.1", "singularity-ce version 4.1"
    assert "DOCKER=podman" in seen("Docker").hint
    assert seen("Apptainer").found == "singularity-ce version 4.1"


@pytest.mark.usefixtures("tools")
def test_in_an_image_nothing_is_asked_for_that_only_the_host_can_have(monkeypatch):
    monkeypatch.setenv("ROBUSTVIEWS_IMAGE", "unknown")
    assert seen("Docker").hint == ""
    assert "--gpus all" in seen("CUDA").hint
    monkeypatch.setenv("APPTAINER_CONTAINER", "robustviews.sif")
    assert "apptainer run --nv" in seen("CUDA").hint
    assert "docker" not in seen("image").hint


@pytest.mark.parametrize(
    ("told", "health"),
    [
        (None, Health.ABSENT),
        ("", Health.ABSENT),
        ("unknown", Health.BAD),
        ("sha256:12", Health.BAD),
        (f"sha256:{'0a' * 32}", Health.GOOD),
        (f"host/name@sha256:{'0a' * 32}", Health.GOOD),
        ("0a" * 32, Health.GOOD),  # as Podman writes it
        (f"host/name@{'0a' * 32}", Health.BAD),
    ],
)
def test_an_image_is_known_by_its_digest_alone(told, health, monkeypatch):
    monkeypatch.delenv("ROBUSTVIEWS_IMAGE", raising=False)
    if told is not None:
        monkeypatch.setenv("ROBUSTVIEWS_IMAGE", told)
    found = seen("image")
    assert found.health is health
    assert ("docker image inspect" in found.hint) == (health is Health.BAD)
    if told:
        assert told in found.found


@pytest.mark.usefixtures("tools")
def test_git_is_not_missed_where_a_file_names_the_commit(monkeypatch):
    monkeypatch.setattr(artifacts, "commit", lambda: ("0a" * 20, False))
    assert seen("git").hint == ""
    assert seen("code").found == "commit 0a0a0a0a0a0a"
    monkeypatch.setattr(artifacts, "commit", lambda: (None, None))
    assert "install git" in seen("git").hint


@pytest.mark.parametrize(
    ("answer", "found", "hint"),
    [
        (FileNotFoundError(), "git is not here", ""),
        ((128, "fatal: detected dubious ownership in /x"), "dubious", "git config --global --add"),
        ((128, "fatal: Needed a single revision"), "single revision", ""),
        ("0a" * 20, "in no commit", "git -C"),
    ],
    ids=["no git", "not mine", "no commit", "not added"],
)
def test_a_commit_that_git_does_not_tell_has_a_reason(tools, monkeypatch, answer, found, hint):
    monkeypatch.setattr(artifacts, "commit", lambda: (None, None))
    tools["git"] = answer
    assert found in seen("code").found
    assert seen("code").hint.startswith(hint)
    assert bool(seen("code").hint) == bool(hint)


def test_a_folder_in_which_nothing_was_run_is_good(empty):
    assert seen("folder") == Symptom("folder", Health.GOOD, f"results go to {empty}/results")


def test_only_folders_that_are_to_be_made_need_one_that_can_be_written_to(empty, monkeypatch):
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != Path() and allowed(path, mode))
    assert seen("folder").health is Health.BAD
    for name in ("data", "results", "logs", ".snakemake"):  # as in an image, links to elsewhere
        (empty / "study" / name).mkdir(parents=True)
        (empty / name).symlink_to(empty / "study" / name)
    assert seen("folder").found == f"results go to {empty}/study/results"


@pytest.mark.usefixtures("tools")
def test_results_that_lead_nowhere_are_told(empty, monkeypatch):
    (empty / "results").symlink_to("/nowhere/at/all")
    found = seen("folder")
    assert found.health is Health.BAD
    assert found.found == "results leads to /nowhere/at/all, which is no folder"
    assert found.hint == "mv results results.old"
    monkeypatch.setenv("ROBUSTVIEWS_IMAGE", "unknown")
    assert '--volume "$PWD:/study"' in seen("folder").hint


def test_results_that_somebody_else_began_are_told(empty, monkeypatch):
    theirs = Path("results/digits-demo/pretrain")
    theirs.mkdir(parents=True)
    allowed = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: path != theirs and allowed(path, mode))
    found = seen("folder")
    assert found.health is Health.BAD
    assert str(empty / theirs) in found.found
    assert found.hint == f"sudo chown -R $(id -u):$(id -g) {empty / theirs}"


def test_a_shell_that_finds_other_commands_is_told(monkeypatch):
    own = Path(sys.executable).parent
    monkeypatch.setattr(around.shutil, "which", lambda name: str(own / name))
    assert seen("PATH").health is Health.GOOD
    monkeypatch.setattr(around.shutil, "which", lambda name: f"/elsewhere/{name}")
    assert seen("PATH").found == "finds another `robustviews`"
    monkeypatch.setattr(around.shutil, "which", lambda _: None)
    assert seen("PATH").found == "finds no `robustviews`"
    assert seen("PATH").hint == f"export PATH={own}:$PATH"


def test_the_disk_is_that_of_the_results(monkeypatch, tmp_path):
    asked = []
    usage = around.shutil.disk_usage(".")
    monkeypatch.setattr(around.shutil, "disk_usage", lambda path: asked.append(path) or usage)
    monkeypatch.chdir(tmp_path)
    seen("disk")
    (tmp_path / "results").mkdir()
    seen("disk")
    assert asked == [Path(), Path("results")]


def test_packages_that_are_not_those_of_the_lock_are_named(monkeypatch, tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "numpy==0.0.1 \\\n    --hash=sha256:00\nnot-installed==1 \\\n", encoding="utf-8"
    )
    monkeypatch.setattr(artifacts, "lock_file", lambda: lock)
    found = seen("packages")
    assert found.health is Health.BAD
    assert found.found.startswith("numpy ")
    assert found.found.endswith(", locked 0.0.1")
    assert found.hint == "make setup"


def test_a_package_that_every_job_needs_is_missed(monkeypatch, tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("pyyaml==6.0 \\\nkornia==0.8 \\\n", encoding="utf-8")
    monkeypatch.setattr(artifacts, "lock_file", lambda: lock)
    monkeypatch.setattr(installed, "_version", lambda _: None)
    assert seen("packages").found == "no pyyaml, locked 6.0"


def test_packages_as_locked_are_good():
    assert seen("packages").health is Health.GOOD
    assert artifacts.sha256(Path("requirements.lock"))[:19] in seen("packages").found


def test_a_package_with_several_versions_in_the_lock_is_left_out():
    lock = "a==1 ; sys_platform == 'linux' \\\na==2 ; sys_platform == 'darwin' \\\nb==3\n"
    assert installed.pins(lock) == {"b": "3"}


def test_a_full_disk_is_told(monkeypatch):
    usage = around.shutil.disk_usage(".")._replace(free=2**30 - 2**20)
    monkeypatch.setattr(around.shutil, "disk_usage", lambda _: usage)
    assert seen("disk").health is Health.BAD
    assert seen("disk").found == "1023 MiB free here"
    monkeypatch.setattr(around.shutil, "disk_usage", lambda _: usage._replace(free=5 * 2**30))
    assert seen("disk").health is Health.ABSENT


def test_data_are_told_by_where_they_are(empty, monkeypatch):
    monkeypatch.delenv("ROBUSTVIEWS_DATA", raising=False)
    here = str(empty)
    for name in ("cifar-10-batches-py", "pictures/train", "pictures/val", "half/train"):
        (empty / name).mkdir(parents=True)
    study = small_study(
        datasets={
            "digits": Digits(),
            "cifar10": Cifar10(),
            "mine": Cifar10(root=here),
            "other": Cifar100(root=here),
            "pictures": Folder(root=f"{here}/pictures"),
            "half": Folder(root=f"{here}/half"),
            "lost": Folder(root=f"{here}/lost"),
        }
    )

    def told():
        return {
            each.name.removeprefix("data: "): each
            for each in data.look(dataclasses.replace(study, file="x.yaml"))
        }

    assert told()["digits"].found == "comes with what is installed"
    assert told()["cifar10"].health is Health.ABSENT
    assert "ROBUSTVIEWS_DATA=FOLDER, which has cifar-10-batches-py" in told()["cifar10"].hint
    assert told()["mine"].found == told()["pictures"].found.removesuffix("/pictures")
    assert told()["mine"].health is told()["pictures"].health is Health.GOOD
    assert told()["other"].found == f"{here} has no cifar-100-python"
    assert told()["half"].found == f"{here}/half has no val"
    assert told()["lost"].found == f"{here}/lost: no such folder"
    for name in ("other", "half", "lost"):
        assert told()[name].health is Health.BAD
        assert told()[name].hint == f"set datasets.{name}.root in x.yaml"
    monkeypatch.setenv("ROBUSTVIEWS_DATA", here)
    assert told()["cifar10"].found == f"to be read from {here}"
    monkeypatch.setenv("ROBUSTVIEWS_DATA", f"{here}/half")
    assert told()["cifar10"].health is Health.BAD
    assert "export ROBUSTVIEWS_DATA=FOLDER" in told()["cifar10"].hint


def test_the_page_says_all_and_its_status_whether_something_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "LOOKS", (around.git,))
    assert main(["doctor", "--study", "params.yaml"]) == 0
    said = capsys.readouterr().out
    assert "ok  study " in said
    assert "ok  data: digits " in said
    assert said.endswith("Next: snakemake --dry-run\n")
    assert main(["doctor", "--study", "nowhere.yaml"]) == 2
    said = capsys.readouterr().out
    assert "!!  study " in said
    assert f"-> cd {Path.cwd()}, or name another" in said
    assert "data:" not in said
    assert "Mend what has !! before it, 1 in all" in said


def test_a_study_with_a_mistake_is_to_be_checked(capsys, monkeypatch, empty):
    monkeypatch.setattr(doctor, "LOOKS", ())
    (empty / "mine.yaml").write_text("study: mine\nruns: 3\n", encoding="utf-8")
    assert main(["doctor", "--study", "mine.yaml"]) == 2
    assert "-> robustviews check mine.yaml\n" in capsys.readouterr().out


def test_a_long_name_is_not_glued_to_what_was_found(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "LOOKS", ())
    main(["doctor", "--study", "studies/cf-amc-ssl.yaml"])
    assert "data: imagenet100 " in capsys.readouterr().out


def test_json_holds_what_the_page_says(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "LOOKS", (around.git,))
    assert main(["doctor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["study", "git", "data: digits"]
    assert {row["health"] for row in rows} == {"good"}
