"""The image: built from nothing, sealed, and a place in which a study gives the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from ci.image.machine import BASE, CALLER, DOCKER, IMAGE, REPOSITORY
from robustviews import artifacts
from tests.workflow.project import NOTHING, TINY, Project

MADE = "data", "results", "logs", ".snakemake"
C_MODULE = """
from triton.runtime.build import compile_module_from_src as compile
text = '''
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "compiled", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_compiled(void) { return PyModule_Create(&module); }
'''
print(compile(text, "compiled").__name__)
"""


def records(folder):
    """Return all records of jobs below a folder, by path."""
    paths = [*folder.glob("data/*/record.json"), *folder.glob("results/**/record.json")]
    assert paths
    return {path.relative_to(folder).as_posix(): artifacts.read_json(path) for path in paths}


def outputs(folder):
    """Return the hash of every file that a record names."""
    return {
        f"{path}: {name}": digest
        for path, record in records(folder).items()
        for name, digest in record["outputs"].items()
        if name != "training.jsonl"  # holds times
    }


def user():
    """Return how a container is told to run as the caller."""
    return "--user", "{}:{}".format(*CALLER)


def wait_until(holds, seconds=120):
    """Wait until a condition holds, which it must soon."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.2)


def test_its_labels_say_which_commit_and_which_lock(image):
    text = image.machine.docker("image", "inspect", "--format", "{{json .Config.Labels}}", IMAGE)
    labels = json.loads(text)
    lock = artifacts.sha256(image.machine.checkout / "requirements.lock")
    assert labels["org.opencontainers.image.revision"] == image.commit
    assert labels["org.opencontainers.image.base.name"] == BASE
    assert labels["robustviews.requirements.lock"] == lock


def test_a_lock_that_is_not_the_one_inside_becomes_no_label(image):
    done = image.machine.make("image", image="--build-arg LOCK=00 --tag wrong", check=False)
    assert done.returncode != 0
    assert "expected a lock 00, found" in done.stdout + done.stderr


def test_sources_that_no_commit_holds_are_called_so(image):
    study = image.machine.checkout / "params.yaml"
    committed = study.read_bytes()
    study.write_bytes(committed + b"# changed\n")
    image.machine.make("image", "IMAGE=changed")
    study.write_bytes(committed)
    done = image.machine.start("changed", "cat", "COMMIT")
    assert done.stdout == f"{image.commit}-dirty\n"


def test_the_doctor_inside_says_what_it_is(image):
    told = ["--env", f"ROBUSTVIEWS_IMAGE={image.digest}"]
    volume = ["--volume", f"{image.folder('examined')}:/study", *user()]
    done = image.machine.start(*told, *volume, IMAGE, "robustviews", "doctor", "--json")
    found = {row["name"]: row["found"] for row in json.loads(done.stdout)}
    lock = artifacts.sha256(image.machine.checkout / "requirements.lock")
    assert found["code"] == f"commit {image.commit[:12]}"
    assert found["image"] == image.digest
    assert found["packages"] == f"as locked: requirements.lock {lock[:19]}"
    assert {"Python", "torch", "CUDA", "Snakemake", "DVC"} <= found.keys()


def test_without_a_command_it_says_what_it_is_and_what_its_records_would_lack(image):
    done = image.machine.start(IMAGE, check=False)
    assert done.returncode != 0
    assert f"commit {image.commit[:12]}" in done.stdout
    assert "ROBUSTVIEWS_IMAGE=$(docker image inspect" in done.stdout
    assert '--volume "$PWD:/study"' in done.stdout
    assert done.stdout.count("\n!!") == 2


def test_nothing_is_inside_that_only_the_checkout_should_have(image):
    names = ["-name", ".git", "-o", "-name", "*planted*", "-o", "-name", "tests"]
    where = ["/robustviews", "/study", "/tmp", "/root", "/home", "/build"]
    done = image.machine.start(
        "--user", "0", IMAGE, "find", *where, "(", *names, ")", "-print", check=False
    )
    assert done.stdout == ""
    done = image.machine.start("--user", "0", IMAGE, "find", "/study", "/tmp", "-type", "f")
    assert done.stdout == ""
    history = image.machine.docker("history", "--no-trunc", IMAGE).lower()
    assert "planted" not in history
    assert "index-url" not in history


def test_its_user_is_not_root_and_changes_nothing_inside(image):
    assert image.machine.start(IMAGE, "id", "-u").stdout == "1000\n"
    owned = ["find", "/robustviews", "/opt/venv", "-not", "-user", "root", "-print", "-quit"]
    assert image.machine.start(IMAGE, *owned).stdout == ""


def test_a_study_without_a_folder_for_its_results_says_what_to_type(image):
    by_hand = "robustviews data --dataset digits"
    for command in ("demo", "reproduce", "snakemake", by_hand, "robustviews estimate"):
        done = image.machine.start(IMAGE, *command.split(), check=False)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert 'type: docker run --user $(id -u):$(id -g) --volume "$PWD:/study"' in done.stderr


def test_results_are_not_left_in_a_container_that_vanishes_with_them(image):
    unsealed = [DOCKER, "run", "--rm", "--network", "none", IMAGE, "demo"]
    done = image.machine.run(*unsealed, check=False)
    assert done.returncode == 2
    assert "expected a folder mounted at /study" in done.stderr


def test_begun_in_another_folder_it_finds_its_checkout_as_under_apptainer(image):
    there = ["--workdir", "/", "--env", "APPTAINER_CONTAINER=robustviews.sif"]
    done = image.machine.start(*there, IMAGE, "demo", check=False)
    assert 'type: apptainer run --bind "$PWD:/study"' in done.stderr
    volume = ["--volume", f"{image.folder('elsewhere')}:/study", *user()]
    done = image.machine.start("--workdir", "/", *volume, IMAGE, "snakemake", "--dry-run")
    assert "Job 1: " in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "signal", "init"),
    [("demo", "INT", ["--init"]), ("snakemake", "TERM", ["--init"]), ("demo", "TERM", [])],
)
def test_a_container_that_is_stopped_ends_its_jobs_and_leaves_no_lock(image, command, signal, init):
    machine, folder = image.machine, image.folder(f"stopped-{command}-{signal}")
    text = TINY.read_text(encoding="utf-8").replace("epochs: 1\n", "epochs: 99999\n", 1)
    assert "99999" in text
    (folder / "long.yaml").write_text(text, encoding="utf-8")
    sealed = ["--detach", "--network", "none", "--read-only", "--tmpfs", "/tmp:exec", *init]
    volume = ["--volume", f"{folder}:/study", *user()]
    study = ["all_pretrain", "--config", "study=/study/long.yaml"]
    name = machine.docker("run", *sealed, *volume, IMAGE, command, *study).strip()
    try:
        logs = folder / "logs/tiny/pretrain"
        wait_until(lambda: any("epoch=1 " in log.read_text() for log in logs.glob("*.log")))
        machine.docker("kill", "--signal", signal, name)
        running = ["inspect", "--format", "{{.State.Running}}", name]
        wait_until(lambda: machine.docker(*running) == "false\n")
        status = machine.docker("inspect", "--format", "{{.State.ExitCode}}", name)
    finally:
        machine.docker("rm", "--force", name)
    assert status == "1\n"  # Snakemake's own: nothing was killed
    assert [*folder.glob(".snakemake/locks/*"), *folder.glob(".snakemake/incomplete/*")] == []


def test_the_compiler_that_torch_calls_on_a_gpu_is_inside(image):
    done = image.machine.start("--tmpfs", "/tmp:exec", IMAGE, "python", "-c", C_MODULE)
    assert done.stdout == "compiled\n"


def test_the_demonstration_ends_with_its_table(demo):
    assert "steps (100%) done" in demo.said
    assert "Clean and robust accuracy (digits)\n" in demo.said


def test_results_belong_to_the_user_who_called(demo):
    made = [path for name in MADE for path in (demo.folder / name).rglob("*")]
    assert len(made) > 100
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in made} == {CALLER}


def test_records_name_the_digest_the_commit_and_the_lock(demo):
    lock = artifacts.sha256(demo.folder / "requirements.lock")
    for record in records(demo.folder).values():
        assert record["environment"]["image"] == demo.image.digest
        assert record["environment"]["lock"] == lock
        assert record["code"]["commit"] == demo.image.commit
        assert record["code"]["dirty"] is False


def test_the_same_seed_gives_the_same_bytes_as_on_the_host(demo, host):
    assert outputs(demo.folder) == outputs(host.folder)


def test_a_second_demonstration_finds_nothing_to_do(demo):
    done = demo.image.machine.make("demo-in-image")
    assert NOTHING in done.stdout + done.stderr


def test_the_host_goes_on_where_the_image_left_off(demo, tmp_path):
    project = Project(demo.folder).copy(tmp_path / "copy")
    assert project.dry_run() == set()


def test_the_audit_on_the_host_vouches_for_what_the_image_made(demo, tmp_path):
    project = Project(demo.folder).copy(tmp_path / "copy")
    audit = project.robustviews("audit")
    assert audit.status == 0, audit.text


def test_the_shipped_demonstration_gives_the_bytes_that_the_host_has(image, timed):
    verify = [sys.executable, "-m", "robustviews", "verify"]
    done = subprocess.run(verify, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no finished demonstration on the host to compare with; type: make demo")
    study = image.machine.checkout / "params.yaml"
    tiny = study.read_bytes()
    study.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    timed("demonstration in the image", image.machine.make, "demo-in-image", "FOLDER=shipped")
    study.write_bytes(tiny)
    mine, here = outputs(image.machine.checkout / "shipped"), outputs(REPOSITORY)
    assert mine == {name: here.get(name) for name in mine}
