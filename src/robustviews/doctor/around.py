"""What is around: the folder, its disk, and the tools that a study may be run or kept with."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from robustviews import artifacts
from robustviews.doctor.symptom import Health, Symptom, ask, in_apptainer, in_image
from robustviews.machine import humanize

_LITTLE = 2**30  # bytes: the demonstration, and some
_ROOM = 20 * 2**30  # bytes: data, checkpoints and an environment beside
_BUILDX = 23  # release of Docker from which on BuildKit comes as a package of its own
_MADE = ("data", "results", "logs", ".snakemake")  # folders that a study writes to


def folder() -> Symptom:
    """Tell whether a study can write where it has to, also what somebody else began."""
    path = next((path for path in _written() if not _is_open(path)), None)
    if path is None:
        return Symptom("folder", Health.GOOD, f"results go to {Path('results').resolve()}")
    if not path.is_dir():
        leads = f" leads to {path.readlink()}, which" if path.is_symlink() else ""
        found = f"{path}{leads} is no folder"
        hint = shlex.join(["mv", str(path), f"{path}.old"])
    elif os.statvfs(path).f_flag & os.ST_RDONLY:
        found = f"{path.absolute()} cannot be written to: its disk is read-only"
        hint = "cd to a copy of the checkout on another disk"
    else:
        found = f"{path.absolute()} cannot be written to by user {os.geteuid()}"
        hint = f"sudo chown -R $(id -u):$(id -g) {shlex.quote(str(path.absolute()))}"
    if in_image():
        hint = 'docker run --user $(id -u):$(id -g) --volume "$PWD:/study" ...'
        if in_apptainer():
            hint = 'apptainer run --bind "$PWD:/study" ...'
    return Symptom("folder", Health.BAD, found, hint)


def _written() -> Iterator[Path]:
    """Yield the folders that a study writes to, two levels deep; for one to be made, this one."""
    for top in map(Path, _MADE):
        if not (top.is_symlink() or top.exists()):
            yield Path()
        else:
            yield top
            yield from (path for path in (*top.glob("*"), *top.glob("*/*")) if path.is_dir())


def _is_open(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.R_OK | os.W_OK | os.X_OK)


def disk() -> Symptom:
    """Tell how much room there is for results."""
    results = Path("results")  # may lead to another disk, as in an image
    free = shutil.disk_usage(results if results.is_dir() else Path()).free
    found = f"{humanize.size(free)} free here"
    if free < _LITTLE:
        return Symptom("disk", Health.BAD, found, "du -sh data results; and make room")
    if free < _ROOM:
        found += ": enough for the demonstration, little for larger studies"
        return Symptom("disk", Health.ABSENT, found, "robustviews estimate")
    return Symptom("disk", Health.GOOD, found)


def path() -> Symptom:
    """Tell whether a shell finds the commands of this environment, and not others before them."""
    own = Path(sys.executable).parent
    for name in ("robustviews", "snakemake", "dvc"):
        first = shutil.which(name)
        if (own / name).exists() and first != str(own / name):
            found = f"finds {'another' if first else 'no'} `{name}`"
            hint = f"export PATH={shlex.quote(str(own))}:$PATH"
            return Symptom("PATH", Health.ABSENT, found, hint)
    return Symptom("PATH", Health.GOOD, f"finds the commands in {own}")


def git() -> Symptom:
    """Tell git's version."""
    works, said = ask("git", "--version")
    if works:
        return Symptom("git", Health.GOOD, said.removeprefix("git version "))
    if artifacts.commit()[0] is not None:
        return Symptom("git", Health.ABSENT, "not here, nor needed: a file names the commit")
    found = "not here: no record can name the commit of its code"
    return Symptom("git", Health.ABSENT, found, "sudo apt-get install git")


def docker() -> Symptom:
    """Tell whether `make image` finds what it needs."""
    if in_image():
        return Symptom("Docker", Health.ABSENT, "not needed in an image")
    if shutil.which("docker") is None:
        works, said = ask("podman", "--version")
        if works:
            hint = "make demo-in-image DOCKER=podman DOCKER_ARGS=--userns=keep-id"
            return Symptom("Docker", Health.ABSENT, f"not here, but {said}", hint)
        found = "not here; only needed for `make image`"
        return Symptom("Docker", Health.ABSENT, found, "sudo apt-get install docker.io")
    return _daemon()


def _daemon() -> Symptom:
    works, said = ask("docker", "version", "--format", "{{.Client.Version}} {{.Server.Version}}")
    if "permission denied" in said:
        found = f"here, but user {os.geteuid()} may not talk to its daemon"
        hint = "sudo usermod -aG docker $USER; and log in again"
        return Symptom("Docker", Health.ABSENT, found, hint)
    if not works:
        found = "here, but its daemon does not answer"
        return Symptom("Docker", Health.ABSENT, found, "sudo systemctl start docker, or: dockerd &")
    client, _, server = said.partition(" ")
    major = re.match(r"\d+", client)
    if major and int(major[0]) >= _BUILDX and not ask("docker", "buildx", "version")[0]:
        found = f"{server}, without buildx, which `make image` needs"
        return Symptom("Docker", Health.ABSENT, found, "sudo apt-get install docker-buildx")
    return Symptom("Docker", Health.GOOD, server)


def apptainer() -> Symptom:
    """Tell the version of Apptainer, or of Singularity, which Snakemake takes as well."""
    for name in ("apptainer", "singularity"):
        works, said = ask(name, "--version")
        if works:
            return Symptom("Apptainer", Health.GOOD, said.removeprefix("apptainer version "))
    found = "not here; only needed to run a study's jobs in an image"
    return Symptom("Apptainer", Health.ABSENT, found)


def slurm() -> Symptom:
    """Tell what Slurm offers."""
    if shutil.which("sinfo") is None:
        return Symptom("Slurm", Health.ABSENT, "not here; only needed on a cluster")
    works, said = ask("sinfo", "--noheader", "--format=%P %D nodes, %G")
    if works and said:
        return Symptom("Slurm", Health.GOOD, said)
    found = f"here, but does not answer: {said or 'it has no partition'}"
    return Symptom("Slurm", Health.ABSENT, found, "only needed on a cluster; there: scontrol ping")
