"""The doctor tells what works here and what to type next, whatever is broken."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from robustviews import artifacts, doctor
from robustviews.cli import main
from robustviews.datasets import Cifar10, Digits, Folder
from robustviews.doctor import Health
from tests.unit.results_tree import small_study


def seen(name, study=None):
    (found,) = (each for each in doctor.examine(study) if each.name == name)
    return found


@pytest.fixture
def tools(monkeypatch):
    """Let tools be what a test says: a line, an error, or nothing at all."""
    answers: dict[str, object] = {}

    def run(command, **_):
        answer = answers.get(command[0], FileNotFoundError(command[0]))
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess(command, 0, f"{answer}\nmore\n", "")

    monkeypatch.setattr(doctor.subprocess, "run", run)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if name in answers else None)
    return answers


def test_everything_that_a_study_may_want_is_looked_at_once():
    names = [each.name for each in doctor.examine(None)]
    assert len(names) == len(set(names)) == len(doctor.LOOKS)
    wanted = {"Python", "code", "image", "packages", "torch", "CUDA", "disk", "git"}
    assert set(names) == wanted | {"Snakemake", "DVC", "Docker", "Apptainer", "Slurm"}


@pytest.mark.usefixtures("tools")
def test_whatever_does_not_work_says_what_to_type_next():
    for each in doctor.examine(None):
        if each.health is Health.BAD:
            assert each.hint, each


def test_versions_are_those_that_the_tools_say(tools):
    tools["git"] = "git version 2.39.5"
    tools["docker"] = "20.10.24"
    tools["apptainer"] = "apptainer version 1.3.1"
    tools["sinfo"] = "main* 1 nodes, gpu:2"
    assert seen("git").found == "2.39.5"
    assert seen("Docker").found == "20.10.24"
    assert seen("Apptainer").found == "1.3.1"
    assert seen("Slurm").found == "main* 1 nodes, gpu:2"
    assert {seen(name).health for name in ("git", "Docker", "Apptainer", "Slurm")} == {Health.GOOD}


@pytest.mark.usefixtures("tools")
def test_a_tool_that_is_absent_is_no_fault():
    for name in ("git", "Docker", "Apptainer", "Slurm"):
        assert seen(name).health is Health.ABSENT


@pytest.mark.parametrize(
    "trouble",
    [subprocess.TimeoutExpired("x", 20), subprocess.CalledProcessError(1, "x"), PermissionError()],
    ids=["hangs", "fails", "forbidden"],
)
def test_a_tool_that_does_not_answer_is_told_from_one_that_is_absent(tools, trouble):
    tools["docker"] = tools["sinfo"] = trouble
    assert seen("Docker").found == "here, but its daemon does not answer"
    assert seen("Slurm").health is Health.BAD


@pytest.mark.parametrize(
    ("told", "health"),
    [
        (None, Health.ABSENT),
        ("", Health.ABSENT),
        ("unknown", Health.BAD),
        ("sha256:12", Health.BAD),
        (f"sha256:{'0a' * 32}", Health.GOOD),
        (f"host/name@sha256:{'0a' * 32}", Health.GOOD),
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
    assert seen("git").hint == "install git"


def test_the_disk_is_that_of_the_results(monkeypatch, tmp_path):
    asked = []
    usage = doctor.shutil.disk_usage(".")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: asked.append(path) or usage)
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


def test_packages_as_locked_are_good():
    assert seen("packages").health is Health.GOOD
    assert artifacts.sha256(Path("requirements.lock"))[:19] in seen("packages").found


def test_a_package_with_several_versions_in_the_lock_is_left_out():
    lock = "a==1 ; sys_platform == 'linux' \\\na==2 ; sys_platform == 'darwin' \\\nb==3\n"
    assert doctor.pins(lock) == {"b": "3"}


def test_a_full_disk_is_told(monkeypatch):
    usage = doctor.shutil.disk_usage(".")._replace(free=2**30)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert seen("disk").health is Health.BAD
    assert seen("disk").found == "1.0 GiB free here"


def test_data_are_told_by_where_they_are(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTVIEWS_DATA", raising=False)
    here = str(tmp_path)
    study = small_study(
        datasets={
            "digits": Digits(),
            "cifar10": Cifar10(),
            "mine": Cifar10(root=here),
            "lost": Folder(root=f"{here}/lost"),
        }
    )
    assert seen("data: digits", study).found == "comes with what is installed"
    assert seen("data: cifar10", study).health is Health.ABSENT
    assert "ROBUSTVIEWS_DATA=FOLDER" in seen("data: cifar10", study).hint
    assert seen("data: mine", study).health is Health.GOOD
    assert seen("data: lost", study).health is Health.BAD
    assert "datasets.lost.root" in seen("data: lost", study).hint
    monkeypatch.setenv("ROBUSTVIEWS_DATA", here)
    assert seen("data: cifar10", study).found == f"to be read from {here}"


def test_the_page_says_all_and_its_status_whether_something_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "LOOKS", (doctor._git,))
    assert main(["doctor", "--study", "params.yaml"]) == 0
    said = capsys.readouterr().out
    assert "ok  study" in said
    assert "ok  data: digits" in said
    assert main(["doctor", "--study", "nowhere.yaml"]) == 2
    said = capsys.readouterr().out
    assert "!!  study" in said
    assert "-> robustviews check nowhere.yaml" in said
    assert "data:" not in said


def test_json_holds_what_the_page_says(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "LOOKS", (doctor._git,))
    assert main(["doctor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["study", "git", "data: digits"]
    assert {row["health"] for row in rows} == {"good"}
