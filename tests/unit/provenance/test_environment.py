"""What a job ran with and when, by its record, compared with lock, study and Snakemake."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime

import pytest

from robustviews import artifacts
from robustviews.provenance import environment, times
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from robustviews.provenance.history import History
from robustviews.study import folders
from robustviews.study.schema import Runtime
from robustviews.workflow.metadata import ProjectMetadata
from tests.unit.results_tree import DEVICE, LOCK, PACKAGES, small_study

RUN = "simclr-pgd5-digits-s0"
TRAINING = ("pretrain", RUN)
HOUR = 3600.0
STARTED = datetime(2026, 1, 1, 1, tzinfo=UTC).timestamp()  # of the training


def edit(root, key=TRAINING, part=None, **changes):
    """Change a record, or a part of it; None removes an entry."""
    disk = Disk(small_study(), root)
    path = root / disk.jobs[key].record
    record = artifacts.read_json(path)
    section = record if part is None else record[part]
    for name, value in changes.items():
        if value is None:
            del section[name]
        else:
            section[name] = value
    artifacts.write_json(path, record)


def ran_with(root, key=TRAINING, study=None):
    """Return state and text of each check of a job's environment."""
    disk = Disk(study or small_study(), root)
    findings = environment.check(disk, History(root), disk.jobs[key])
    return {finding.check: (finding.state, finding.text) for finding in findings}


def write_metadata(root, key, start, end):
    """Write metadata of a job that ran from `start` to `end`."""
    disk = Disk(small_study(), root)
    output = disk.jobs[key].record.with_name(
        {"pretrain": "encoder.safetensors", "data": "summary.json"}[key[0]]
    )
    artifacts.write_json(
        root / ProjectMetadata(root).path(output),
        {"rule": key[0], "starttime": start, "endtime": end},
    )


def when(root, key=TRAINING):
    """Return states and texts of the check of a job's times."""
    disk = Disk(small_study(), root)
    findings = times.check(disk, ProjectMetadata(root), disk.jobs[key])
    assert {finding.check for finding in findings} == {"times"}
    return [(finding.state, finding.text) for finding in findings]


def test_the_environment_of_a_job_is_reported(root):
    checks = ran_with(root)
    assert {state for state, _ in checks.values()} == {State.VERIFIED}
    pinned = ", ".join(f"{name} {pin}" for name, pin in PACKAGES.items())
    assert checks["packages"][1] == f"as pinned: {pinned}"
    assert DEVICE in checks["environment"][1]
    assert "threads 1, deterministic True" in checks["environment"][1]
    assert "no image" in checks["environment"][1]


def test_an_image_is_reported(root):
    edit(root, part="environment", image="robustviews@sha256:12")
    assert "image robustviews@sha256:12" in ran_with(root)["environment"][1]


def test_an_image_without_a_digest_is_unknown(root):
    edit(root, part="environment", image="robustviews:latest")
    state, text = ran_with(root)["environment"]
    assert state is State.UNKNOWN
    assert "holds no sha256:" in text


def test_a_package_that_a_record_does_not_name_is_unknown(root):
    packages = {name: pin for name, pin in PACKAGES.items() if name != "pillow"}
    edit(root, part="environment", packages=packages)
    state, text = ran_with(root)["packages"]
    assert state is State.UNKNOWN
    assert "which pillow" in text


@pytest.mark.parametrize(
    ("committed", "edited", "lock", "packages"),
    [
        (True, False, State.VERIFIED, State.VERIFIED),
        (True, True, State.FAILED, State.FAILED),
        (False, True, State.FAILED, State.FAILED),
    ],
)
def test_a_newer_lock_is_right_only_where_it_was_committed(root, committed, edited, lock, packages):
    package = root / "src/robustviews/code.py"
    package.parent.mkdir(parents=True)
    package.write_text("", encoding="utf-8")
    head = commit(root)
    edit(root, part="code", commit=head)
    newer = LOCK.replace("numpy==2.4.6", "numpy==2.5.0")
    (root / "requirements.lock").write_text(newer, encoding="utf-8")
    if committed:
        commit(root)
    if edited:
        (root / "requirements.lock").write_text(f"{newer}# edited", encoding="utf-8")
    checks = ran_with(root)
    assert (checks["lock"][0], checks["packages"][0]) == (lock, packages)
    assert ("the lock here is newer" in checks["lock"][1]) == (lock is State.VERIFIED)


def commit(root):
    """Commit the package and the lock, and return the commit."""
    git = ["git", "-C", str(root), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "src", "requirements.lock"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "Change"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def test_another_lock_fails_and_both_are_named(root):
    before = artifacts.sha256(root / "requirements.lock")
    (root / "requirements.lock").write_text("numpy==2.4.6\ntorch==2.11.0\n", encoding="utf-8")
    state, text = ran_with(root)["lock"]
    assert state is State.FAILED
    assert before[:19] in text
    assert artifacts.sha256(root / "requirements.lock")[:19] in text


def test_without_a_lock_nothing_is_known_of_it(root, monkeypatch):
    (root / "requirements.lock").unlink()
    monkeypatch.setattr(artifacts, "lock_file", lambda: None)
    checks = ran_with(root)
    assert checks["lock"][0] is checks["packages"][0] is State.UNKNOWN


@pytest.mark.parametrize(
    ("name", "version", "state"),
    [
        ("torch", "2.11.0+cu130", State.VERIFIED),
        ("torch", "2.11.1", State.FAILED),
        ("numpy", "2.4", State.FAILED),
        ("unheard-of", "1.0", State.UNKNOWN),
    ],
)
def test_versions_are_those_that_the_lock_pins(root, name, version, state):
    packages = PACKAGES | {name: version}
    edit(root, part="environment", packages=packages)
    assert ran_with(root)["packages"][0] is state


def test_any_of_several_pins_of_a_package_will_do(root):
    lock = f"numpy==1.0 ; python_version < '3.12'\n{LOCK}"
    (root / "requirements.lock").write_text(lock, encoding="utf-8")
    assert ran_with(root)["packages"][0] is State.VERIFIED


def test_torch_that_ran_must_be_torch_that_was_installed(root):
    edit(root, part="environment", torch="2.10.0")
    assert ran_with(root)["packages"][0] is State.FAILED


@pytest.mark.parametrize("name", ["python", "device", "threads", "deterministic", "cpu_capability"])
def test_what_a_record_does_not_say_is_printed_as_unknown(root, name):
    edit(root, part="environment", **{name: None})
    state, text = ran_with(root)["environment"]
    assert state is State.UNKNOWN
    assert f"{name} unknown" in text


def test_of_a_gpu_the_driver_has_to_be_known(root):
    edit(root, part="environment", device="cuda: H100", cuda="13.0")
    state, text = ran_with(root)["environment"]
    assert state is State.UNKNOWN
    assert "cuda 13.0, driver unknown" in text
    edit(root, part="environment", driver="580.1")
    assert ran_with(root)["environment"][0] is State.VERIFIED


def test_another_determinism_than_the_study_asks_for_fails(root):
    study = small_study(runtime=Runtime(deterministic=False))
    assert ran_with(root, study=study)["environment"][0] is State.FAILED


def test_times_are_printed(root):
    assert when(root) == [(State.VERIFIED, "started 2026-01-01T01:00:00Z, took 360 s")]
    edit(root, resumed=2)
    assert when(root)[0][1].endswith("took 360 s, resumed 2 times")


def test_a_job_must_run_when_its_metadata_says(root):
    write_metadata(root, TRAINING, STARTED - 5, STARTED + 400)
    assert when(root)[0][0] is State.VERIFIED
    write_metadata(root, TRAINING, STARTED + HOUR, STARTED + 2 * HOUR)
    ((state, text),) = when(root)
    assert state is State.FAILED
    assert "Snakemake metadata says from" in text


def test_a_job_takes_no_longer_than_its_metadata_says_unless_it_was_resumed(root):
    write_metadata(root, TRAINING, STARTED - 5, STARTED + 10)
    assert when(root)[0][0] is State.FAILED
    edit(root, resumed=1)
    assert when(root)[0][0] is State.VERIFIED


def test_a_record_older_than_its_input_is_unknown_unless_snakemake_made_the_input_again(root):
    prepared = ("data", folders.data_folder(small_study(), "digits").name)
    edit(root, prepared, started="2026-01-01T01:00:30Z")  # clocks may differ by a minute
    assert when(root)[0][0] is State.VERIFIED
    edit(root, prepared, started="2026-01-01T09:00:00Z")
    ((state, text),) = when(root)
    assert state is State.UNKNOWN
    assert "before its input, 2026-01-01T09:00:00Z (data/" in text
    write_metadata(root, prepared, STARTED + 8 * HOUR, STARTED + 8 * HOUR + 60)
    assert when(root)[0][0] is State.VERIFIED
