"""Doctor: what works on this machine, what does not, and what to type next.

Nothing is installed, started or changed. Each question is answered on its own, so that one tool
that hangs or fails leaves the others' answers alone.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from robustviews import artifacts, plan, units
from robustviews.config.schema import Study
from robustviews.sources import source_folder

_SECONDS = 20  # that a tool has to answer
_DIGEST = re.compile(r"(^|@)sha256:[0-9a-f]{64}$")
_ROOM = 20 * 2**30  # bytes: the environment, the demonstration, and some checkpoints


class Health(Enum):
    """Whether something works."""

    GOOD = "ok"
    ABSENT = "-"  # not here, and not needed for the demonstration
    BAD = "!!"


@dataclass(frozen=True)
class Symptom:
    """What was seen of one thing.

    Attributes:
        name: of the thing.
        health: whether it works.
        found: version, size or trouble, in words.
        hint: what to type next, where it does not work.
    """

    name: str
    health: Health
    found: str
    hint: str = ""


def examine(study: Study | None) -> Iterator[Symptom]:
    """Yield what was seen of everything that a study may want.

    Args:
        study: whose data are looked for; None where its file does not load.
    """
    for look in LOOKS:
        yield look()
    if study is not None:
        yield from _data(study)


def _python() -> Symptom:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    return Symptom("Python", Health.GOOD, found)


def _code() -> Symptom:
    commit, changed = artifacts.commit()
    if commit is None:
        found = "its commit is unknown: neither a git checkout nor an image made from one"
        return Symptom("code", Health.ABSENT, found)
    return Symptom("code", Health.GOOD, f"commit {commit[:12]}{', with changes' * bool(changed)}")


def _image() -> Symptom:
    told = os.environ.get("ROBUSTVIEWS_IMAGE")
    if not told:
        return Symptom("image", Health.ABSENT, "not in one: what is installed here is used")
    if _DIGEST.search(told) is None:
        return Symptom(
            "image",
            Health.BAD,
            f"in one, but its digest, which records name, is {told!r}",
            "docker run -e ROBUSTVIEWS_IMAGE=$(docker image inspect --format '{{.Id}}' IMAGE) ...",
        )
    return Symptom("image", Health.GOOD, told)


def _lock() -> Symptom:
    """Compare what is installed with what requirements.lock pins."""
    lock = artifacts.lock_file()
    if lock is None:
        return Symptom("packages", Health.ABSENT, "no requirements.lock beside the sources")
    wrong = []
    for name, wanted in pins(lock.read_text(encoding="utf-8")).items():
        found = _version(name)
        if found is not None and found.partition("+")[0] != wanted:
            wrong.append(f"{name} {found}, locked {wanted}")
    said = f"requirements.lock {artifacts.sha256(lock)[:19]}"
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return Symptom("packages", Health.BAD, "; ".join(wrong[:3]) + more, "make setup")
    return Symptom("packages", Health.GOOD, f"as locked: {said}")


def pins(lock: str) -> dict[str, str]:
    """Return the version that a lock pins of each package; without those with several.

    Args:
        lock: text of requirements.lock.
    """
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", lock, re.M)
    names = [name for name, _ in found]
    return {name: version for name, version in found if names.count(name) == 1}


def _torch() -> Symptom:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of it is missing
        return Symptom("torch", Health.BAD, f"cannot be imported: {error}", "make setup")
    torch.zeros(1).add_(1)
    threads = torch.get_num_threads()
    return Symptom("torch", Health.GOOD, f"{torch.__version__}, {threads} CPU threads")


def _cuda() -> Symptom:
    driver = _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        import torch

        count = torch.cuda.device_count()
        names = [torch.cuda.get_device_name(number) for number in range(count)]
    except (ImportError, OSError, RuntimeError) as error:
        return Symptom("CUDA", Health.BAD, f"{error}", "robustviews ... --device cpu")
    if names:
        return Symptom("CUDA", Health.GOOD, f"{', '.join(names)}; driver {driver or 'unknown'}")
    if driver:
        found = f"driver {driver}, but torch sees no device"
        return Symptom("CUDA", Health.BAD, found, f"a driver for CUDA {torch.version.cuda}")
    return Symptom("CUDA", Health.ABSENT, "no GPU here: studies run on the CPU")


def _disk() -> Symptom:
    results = Path("results")  # may lead to another disk, as in an image
    free = shutil.disk_usage(results if results.is_dir() else Path()).free
    if free < _ROOM:
        return Symptom(
            "disk",
            Health.BAD,
            f"{units.size(free)} free here",
            "robustviews estimate; and make room",
        )
    return Symptom("disk", Health.GOOD, f"{units.size(free)} free here")


def _package(name: str, title: str) -> Callable[[], Symptom]:
    def look() -> Symptom:
        found = _version(name)
        if found is None:
            return Symptom(title, Health.ABSENT, "not installed: stages run by hand", "make setup")
        return Symptom(title, Health.GOOD, found)

    return look


def _git() -> Symptom:
    version = _first_line("git", "--version")
    if version is None:
        if artifacts.commit()[0] is not None:
            return Symptom("git", Health.ABSENT, "not here, nor needed: a file names the commit")
        found = "not here: no record can name the commit of its code"
        return Symptom("git", Health.ABSENT, found, "install git")
    return Symptom("git", Health.GOOD, version.removeprefix("git version "))


def _docker() -> Symptom:
    if shutil.which("docker") is None:
        return Symptom("Docker", Health.ABSENT, "not here", "install docker, for `make image`")
    version = _first_line("docker", "version", "--format", "{{.Server.Version}}")
    if not version:
        found = "here, but its daemon does not answer"
        return Symptom(
            "Docker", Health.ABSENT, found, "start it: dockerd, or systemctl start docker"
        )
    return Symptom("Docker", Health.GOOD, version)


def _apptainer() -> Symptom:
    version = _first_line("apptainer", "--version")
    if version is None:
        found = "not here; only needed to run a study's jobs in an image"
        return Symptom("Apptainer", Health.ABSENT, found)
    return Symptom("Apptainer", Health.GOOD, version.removeprefix("apptainer version "))


def _slurm() -> Symptom:
    if shutil.which("sinfo") is None:
        return Symptom("Slurm", Health.ABSENT, "not here; only needed on a cluster")
    answer = _first_line("sinfo", "--noheader", "--format=%P %D nodes, %G")
    if not answer:
        return Symptom("Slurm", Health.BAD, "here, but sinfo does not answer", "sinfo")
    return Symptom("Slurm", Health.GOOD, answer)


def _data(study: Study) -> Iterator[Symptom]:
    """Yield for each data set whether it is prepared, at hand, to be downloaded, or missing."""
    for name, options in study.datasets.items():
        title, folder = f"data: {name}", plan.data_folder(study, name)
        if (folder / "record.json").is_file():
            yield Symptom(title, Health.GOOD, f"prepared in {folder}")
            continue
        source, downloads = source_folder(options)
        if source is None:
            yield Symptom(title, Health.GOOD, "comes with what is installed")
        elif source.is_dir():
            yield Symptom(title, Health.GOOD, f"to be read from {source}")
        elif downloads:
            yield Symptom(
                title,
                Health.ABSENT,
                f"not at hand: the first run downloads it to {source}",
                "or name a folder that has it: export ROBUSTVIEWS_DATA=FOLDER",
            )
        else:
            hint = f"set datasets.{name}.root in {study.study}'s file"
            yield Symptom(title, Health.BAD, f"{source}: no such folder", hint)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(*command: str) -> str | None:
    """Return the first line that a tool says; None when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0]


LOOKS: tuple[Callable[[], Symptom], ...] = (
    _python,
    _code,
    _image,
    _lock,
    _torch,
    _cuda,
    _disk,
    _git,
    _package("snakemake", "Snakemake"),
    _package("dvc", "DVC"),
    _docker,
    _apptainer,
    _slurm,
)
