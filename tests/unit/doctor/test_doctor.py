"""The doctor reports what works and suggests commands, whatever is broken."""

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


def symptom_of(name, study=None):
    (symptom,) = (candidate for candidate in doctor.examine(study) if candidate.name == name)
    return symptom


version_of = functools.cache(installed._version)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Start a process that does not train, and look up each package's version once."""
    monkeypatch.setattr(installed, "_SMALLEST_STEP", "print('no step')")
    monkeypatch.setattr(installed, "_version", version_of)


@pytest.fixture
def tools(monkeypatch):
    """Let a test define each tool: its output, an exit status with an error, or an exception."""
    answers: dict[str, object] = {}

    def run(command, *, text=False, **_):
        answer = answers.get(" ".join(command[:2]), answers.get(command[0], FileNotFoundError()))
        if isinstance(answer, Exception):
            raise answer
        status, line = answer if isinstance(answer, tuple) else (0, answer)
        outputs = ("", f"{line}\nmore\n") if status else (f"{line}\nmore\n", "")
        outputs = outputs if text else map(str.encode, outputs)
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


def test_every_component_is_checked_once():
    names = [symptom.name for symptom in doctor.examine(None)]
    assert len(names) == len(set(names)) == len(doctor.CHECKS)
    expected = {"Python", "code", "image", "packages", "torch", "CUDA", "folder", "disk", "PATH"}
    assert set(names) == expected | {
        "convolution",
        "git",
        "Snakemake",
        "DVC",
        "DVC remotes",
        "Docker",
        "Apptainer",
        "Slurm",
    }


@pytest.mark.usefixtures("tools")
def test_every_bad_symptom_has_a_hint():
    for result in doctor.examine(None):
        if result.health is Health.BAD:
            assert result.hint, result


def test_a_convolution_that_writes_outside_its_memory_is_bad(tools):
    tools[sys.executable] = "a training step of a narrow network runs"
    assert symptom_of("convolution").health is Health.GOOD
    tools[sys.executable] = (-11, "")
    assert symptom_of("convolution").health is Health.BAD
    assert symptom_of("convolution").hint
    tools[sys.executable] = subprocess.TimeoutExpired("x", 20)
    assert symptom_of("convolution").health is Health.ABSENT


def test_versions_are_those_that_the_tools_print(tools):
    tools["git"] = "git version 2.39.5"
    tools["docker"] = "20.10.24 20.10.25"
    tools["apptainer"] = "apptainer version 1.3.1"
    tools["sinfo"] = "main* 1 nodes, gpu:2"
    assert symptom_of("git").found == "2.39.5"
    assert symptom_of("Docker").found == "20.10.25"
    assert symptom_of("Apptainer").found == "1.3.1"
    assert symptom_of("Slurm").found == "main* 1 nodes, gpu:2"
    assert {symptom_of(name).health for name in ("git", "Docker", "Apptainer", "Slurm")} == {
        Health.GOOD
    }


@pytest.mark.usefixtures("tools")
def test_a_missing_tool_is_not_bad():
    for name in ("git", "Docker", "Apptainer", "Slurm"):
        assert symptom_of(name).health is Health.ABSENT


@pytest.mark.parametrize(
    "trouble",
    [subprocess.TimeoutExpired("x", 20), (1, "no contact"), PermissionError()],
    ids=["hangs", "fails", "forbidden"],
)
def test_a_tool_that_does_not_answer_is_distinguished_from_a_missing_one(tools, trouble):
    tools["docker"] = tools["sinfo"] = trouble
    assert symptom_of("Docker").found == "installed, but its daemon does not answer"
    assert symptom_of("Slurm").found.startswith("installed, but does not answer: ")
    assert {symptom_of(name).health for name in ("Docker", "Slurm")} == {Health.ABSENT}


def test_each_reason_why_docker_cannot_build_has_its_hint(tools):
    tools["docker"] = (1, "permission denied while trying to connect to the daemon")
    assert "usermod -aG docker" in symptom_of("Docker").hint
    tools["docker"], tools["docker buildx"] = "28.2.2 20.10.24", (1, "not a docker command")
    assert symptom_of("Docker").hint == "sudo apt-get install docker-buildx"
    tools["docker buildx"] = "buildx 0.24"
    assert symptom_of("Docker").health is Health.GOOD


def test_podman_and_singularity_are_accepted(tools):
    tools["podman"], tools["singularity"] = "podman version 4.3.1", "singularity-ce version 4.1"
    assert "DOCKER=podman" in symptom_of("Docker").hint
    assert symptom_of("Apptainer").found == "singularity-ce version 4.1"


@pytest.mark.usefixtures("tools")
def test_in_an_image_no_hint_needs_the_host(monkeypatch):
    monkeypatch.setenv("ROBUSTVIEWS_IMAGE", "unknown")
    assert symptom_of("Docker").hint == ""
    assert "--gpus all" in symptom_of("CUDA").hint
    monkeypatch.setenv("APPTAINER_CONTAINER", "robustviews.sif")
    assert "apptainer run --nv" in symptom_of("CUDA").hint
    assert "docker" not in symptom_of("image").hint


@pytest.mark.parametrize(
    ("name", "health"),
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
def test_an_image_is_known_by_its_digest_alone(name, health, monkeypatch):
    monkeypatch.delenv("ROBUSTVIEWS_IMAGE", raising=False)
    if name is not None:
        monkeypatch.setenv("ROBUSTVIEWS_IMAGE", name)
    result = symptom_of("image")
    assert result.health is health
    assert ("docker image inspect" in result.hint) == (health is Health.BAD)
    if name:
        assert name in result.found


@pytest.mark.usefixtures("tools")
def test_git_is_not_needed_if_a_file_names_the_commit(monkeypatch):
    monkeypatch.setattr(artifacts, "commit", lambda: ("0a" * 20, False))
    assert symptom_of("git").hint == ""
    assert symptom_of("code").found == "commit 0a0a0a0a0a0a"
    monkeypatch.setattr(artifacts, "commit", lambda: (None, None))
    assert "install git" in symptom_of("git").hint


@pytest.mark.parametrize(
    ("answer", "found", "hint"),
    [
        (FileNotFoundError(), "git is not installed", ""),
        ((128, "fatal: detected dubious ownership in /x"), "dubious", "git config --global --add"),
        ((128, "fatal: Needed a single revision"), "single revision", ""),
        ("0a" * 20, "not in any commit", "git -C"),
    ],
    ids=["no git", "not mine", "no commit", "not added"],
)
def test_an_unknown_commit_has_a_reason(tools, monkeypatch, answer, found, hint):
    monkeypatch.setattr(artifacts, "commit", lambda: (None, None))
    tools["git"] = answer
    assert found in symptom_of("code").found
    assert symptom_of("code").hint.startswith(hint)
    assert bool(symptom_of("code").hint) == bool(hint)


def test_a_folder_in_which_nothing_was_run_is_good(empty):
    assert symptom_of("folder") == Symptom("folder", Health.GOOD, f"results go to {empty}/results")


def test_only_a_missing_folder_needs_a_writable_parent(empty, monkeypatch):
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != Path() and allowed(path, mode))
    assert symptom_of("folder").health is Health.BAD
    for name in ("data", "results", "logs", ".snakemake"):  # links, as in an image
        (empty / "study" / name).mkdir(parents=True)
        (empty / name).symlink_to(empty / "study" / name)
    assert symptom_of("folder").found == f"results go to {empty}/study/results"


@pytest.mark.usefixtures("tools")
def test_a_dangling_results_link_is_reported(empty, monkeypatch):
    (empty / "results").symlink_to("/nowhere/at/all")
    result = symptom_of("folder")
    assert result.health is Health.BAD
    assert result.found == "results links to /nowhere/at/all, which is not a folder"
    assert result.hint == "mv results results.old"
    monkeypatch.setenv("ROBUSTVIEWS_IMAGE", "unknown")
    assert '--volume "$PWD:/study"' in symptom_of("folder").hint


def test_results_of_another_user_are_reported(empty, monkeypatch):
    theirs = Path("results/digits-demo/pretrain")
    theirs.mkdir(parents=True)
    allowed = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: path != theirs and allowed(path, mode))
    result = symptom_of("folder")
    assert result.health is Health.BAD
    assert str(empty / theirs) in result.found
    assert result.hint == f"sudo chown -R $(id -u):$(id -g) {empty / theirs}"


def test_a_shell_that_finds_other_commands_is_reported(monkeypatch):
    own = Path(sys.executable).parent
    monkeypatch.setattr(around.shutil, "which", lambda name: str(own / name))
    assert symptom_of("PATH").health is Health.GOOD
    monkeypatch.setattr(around.shutil, "which", lambda name: f"/elsewhere/{name}")
    assert symptom_of("PATH").found == "finds another `robustviews`"
    monkeypatch.setattr(around.shutil, "which", lambda _: None)
    assert symptom_of("PATH").found == "finds no `robustviews`"
    assert symptom_of("PATH").hint == f"export PATH={own}:$PATH"


def test_the_disk_is_that_of_the_results(monkeypatch, tmp_path):
    paths = []
    usage = around.shutil.disk_usage(".")
    monkeypatch.setattr(around.shutil, "disk_usage", lambda path: paths.append(path) or usage)
    monkeypatch.chdir(tmp_path)
    symptom_of("disk")
    (tmp_path / "results").mkdir()
    symptom_of("disk")
    assert paths == [Path(), Path("results")]


def test_packages_that_differ_from_the_lock_are_named(monkeypatch, tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "numpy==0.0.1 \\\n    --hash=sha256:00\nnot-installed==1 \\\n", encoding="utf-8"
    )
    monkeypatch.setattr(artifacts, "lock_file", lambda: lock)
    result = symptom_of("packages")
    assert result.health is Health.BAD
    assert result.found.startswith("numpy ")
    assert result.found.endswith(", locked 0.0.1")
    assert result.hint == "make setup"


def test_a_missing_package_that_every_job_needs_is_named(monkeypatch, tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("pyyaml==6.0 \\\nkornia==0.8 \\\n", encoding="utf-8")
    monkeypatch.setattr(artifacts, "lock_file", lambda: lock)
    monkeypatch.setattr(installed, "_version", lambda _: None)
    assert symptom_of("packages").found == "no pyyaml, locked 6.0"


def test_a_library_that_was_edited_after_its_installation_is_named(monkeypatch):
    monkeypatch.setattr("robustviews.provenance.installed._edited", lambda _: ["torch/optim.py"])
    result = symptom_of("packages")
    assert result.health is Health.BAD
    assert "changed since the installation: torch/optim.py" in result.found


def test_packages_as_locked_are_good():
    assert symptom_of("packages").health is Health.GOOD
    assert artifacts.sha256(Path("requirements.lock"))[:19] in symptom_of("packages").found


def test_a_package_with_several_versions_in_the_lock_is_left_out():
    lock = "a==1 ; sys_platform == 'linux' \\\na==2 ; sys_platform == 'darwin' \\\nb==3\n"
    assert installed.pins(lock) == {"b": "3"}


def test_a_full_disk_is_reported(monkeypatch):
    usage = around.shutil.disk_usage(".")._replace(free=2**30 - 2**20)
    monkeypatch.setattr(around.shutil, "disk_usage", lambda _: usage)
    assert symptom_of("disk").health is Health.BAD
    assert symptom_of("disk").found == "1023 MiB free here"
    monkeypatch.setattr(around.shutil, "disk_usage", lambda _: usage._replace(free=5 * 2**30))
    assert symptom_of("disk").health is Health.ABSENT


def test_each_state_of_a_data_set_is_reported(empty, monkeypatch):
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

    def symptoms():
        return {
            symptom.name.removeprefix("data: "): symptom
            for symptom in data.check(dataclasses.replace(study, file="x.yaml"))
        }

    assert symptoms()["digits"].found == "comes with an installed package"
    assert symptoms()["cifar10"].health is Health.ABSENT
    assert (
        "ROBUSTVIEWS_DATA=FOLDER, a folder with cifar-10-batches-py" in symptoms()["cifar10"].hint
    )
    assert symptoms()["mine"].found == symptoms()["pictures"].found.removesuffix("/pictures")
    assert symptoms()["mine"].health is symptoms()["pictures"].health is Health.GOOD
    assert symptoms()["other"].found == f"{here} has no cifar-100-python"
    assert symptoms()["half"].found == f"{here}/half has no val"
    assert symptoms()["lost"].found == f"{here}/lost: no such folder"
    for name in ("other", "half", "lost"):
        assert symptoms()[name].health is Health.BAD
        assert symptoms()[name].hint == f"set datasets.{name}.root in x.yaml"
    monkeypatch.setenv("ROBUSTVIEWS_DATA", here)
    assert symptoms()["cifar10"].found == f"will be read from {here}"
    monkeypatch.setenv("ROBUSTVIEWS_DATA", f"{here}/half")
    assert symptoms()["cifar10"].health is Health.BAD
    assert "export ROBUSTVIEWS_DATA=FOLDER" in symptoms()["cifar10"].hint


def test_the_page_shows_every_symptom_and_the_exit_status_whether_one_is_bad(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", (around.git,))
    assert main(["doctor", "--study", "params.yaml"]) == 0
    output = capsys.readouterr().out
    assert "ok  study " in output
    assert "ok  data: digits " in output
    assert output.endswith("Next: snakemake --dry-run\n")
    assert main(["doctor", "--study", "nowhere.yaml"]) == 2
    output = capsys.readouterr().out
    assert "!!  study " in output
    assert f"-> cd {Path.cwd()}, or name another" in output
    assert "data:" not in output
    assert "Fix the lines marked !!, 1 in total" in output


def test_a_study_with_a_mistake_gets_the_hint_to_check_it(capsys, monkeypatch, empty):
    monkeypatch.setattr(doctor, "CHECKS", ())
    (empty / "mine.yaml").write_text("study: mine\nruns: 3\n", encoding="utf-8")
    assert main(["doctor", "--study", "mine.yaml"]) == 2
    assert "-> robustviews check mine.yaml\n" in capsys.readouterr().out


def test_a_long_name_is_separated_from_the_finding(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", ())
    main(["doctor", "--study", "studies/cf-amc-ssl.yaml"])
    assert "data: imagenet100 " in capsys.readouterr().out


def test_json_holds_the_symptoms_of_the_page(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", (around.git,))
    assert main(["doctor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["study", "git", "data: digits"]
    assert {row["health"] for row in rows} == {"good"}


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(("url", "checked"), [("ssh://server/study", False), ("/mnt/study", True)])
def test_a_remote_whose_host_key_nobody_checks_is_bad(url, checked):
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text(f"['remote \"store\"']\n    url = {url}\n", encoding="utf-8")
    result = around.remotes()
    assert (result.health is Health.GOOD) == checked
    assert ("dvc remote modify store url MOUNT" in result.hint) != checked
