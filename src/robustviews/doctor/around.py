"""The environment: the folder, its disk, and optional tools that run or version a study."""

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
from robustviews.workflow import dvc

_LEAST = 2**30  # bytes: for the demonstration
_ENOUGH = 20 * 2**30  # bytes: for data, checkpoints and an environment
_BUILDX = 23  # first release of Docker that ships BuildKit as a separate package
_FOLDERS = ("data", "results", "logs", ".snakemake")  # folders that a study writes to


def folder() -> Symptom:
    """Report whether a study can write its folders, including those that another user created."""
    path = next((path for path in _output_folders() if not _is_accessible(path)), None)
    if path is None:
        return Symptom("folder", Health.GOOD, f"results go to {Path('results').resolve()}")
    if not path.is_dir():
        link = f" links to {path.readlink()}, which" if path.is_symlink() else ""
        finding = f"{path}{link} is not a folder"
        hint = shlex.join(["mv", str(path), f"{path}.old"])
    elif os.statvfs(path).f_flag & os.ST_RDONLY:
        finding = f"{path.absolute()} is not writable: its disk is read-only"
        hint = "cd to a copy of the checkout on another disk"
    else:
        finding = f"{path.absolute()} is not writable by user {os.geteuid()}"
        hint = f"sudo chown -R $(id -u):$(id -g) {shlex.quote(str(path.absolute()))}"
    if in_image():
        hint = 'docker run --user $(id -u):$(id -g) --volume "$PWD:/study" ...'
        if in_apptainer():
            hint = 'apptainer run --bind "$PWD:/study" ...'
    return Symptom("folder", Health.BAD, finding, hint)


def _output_folders() -> Iterator[Path]:
    """Yield the folders that a study writes, two levels deep; for a missing one its parent."""
    for top in map(Path, _FOLDERS):
        if not (top.is_symlink() or top.exists()):
            yield Path()
        else:
            yield top
            yield from (path for path in (*top.glob("*"), *top.glob("*/*")) if path.is_dir())


def _is_accessible(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.R_OK | os.W_OK | os.X_OK)


def disk() -> Symptom:
    """Report the free disk space for results."""
    results = Path("results")  # may link to another disk, as in an image
    free = shutil.disk_usage(results if results.is_dir() else Path()).free
    finding = f"{humanize.size(free)} free here"
    if free < _LEAST:
        return Symptom("disk", Health.BAD, finding, "du -sh data results; and free some space")
    if free < _ENOUGH:
        finding += ": enough for the demonstration, not for larger studies"
        return Symptom("disk", Health.ABSENT, finding, "robustviews estimate")
    return Symptom("disk", Health.GOOD, finding)


def path() -> Symptom:
    """Report whether a shell finds the commands of this environment first."""
    folder = Path(sys.executable).parent
    for name in ("robustviews", "snakemake", "dvc"):
        executable = shutil.which(name)
        if (folder / name).exists() and executable != str(folder / name):
            finding = f"finds {'another' if executable else 'no'} `{name}`"
            hint = f"export PATH={shlex.quote(str(folder))}:$PATH"
            return Symptom("PATH", Health.ABSENT, finding, hint)
    return Symptom("PATH", Health.GOOD, f"finds the commands in {folder}")


def git() -> Symptom:
    """Report the version of git."""
    works, output = ask("git", "--version")
    if works:
        return Symptom("git", Health.GOOD, output.removeprefix("git version "))
    if artifacts.commit()[0] is not None:
        return Symptom("git", Health.ABSENT, "not needed: a file names the commit")
    finding = "not installed: records cannot name the commit of the code"
    return Symptom("git", Health.ABSENT, finding, "sudo apt-get install git")


def docker() -> Symptom:
    """Report whether Docker can run `make image`."""
    if in_image():
        return Symptom("Docker", Health.ABSENT, "not needed in an image")
    if shutil.which("docker") is None:
        works, output = ask("podman", "--version")
        if works:
            hint = "make demo-in-image DOCKER=podman DOCKER_ARGS=--userns=keep-id"
            return Symptom("Docker", Health.ABSENT, f"not installed, but {output}", hint)
        finding = "not installed; only needed for `make image`"
        return Symptom("Docker", Health.ABSENT, finding, "sudo apt-get install docker.io")
    return _daemon()


def _daemon() -> Symptom:
    works, output = ask("docker", "version", "--format", "{{.Client.Version}} {{.Server.Version}}")
    if "permission denied" in output:
        finding = f"installed, but user {os.geteuid()} may not connect to its daemon"
        hint = "sudo usermod -aG docker $USER; and log in again"
        return Symptom("Docker", Health.ABSENT, finding, hint)
    if not works:
        finding = "installed, but its daemon does not answer"
        return Symptom(
            "Docker", Health.ABSENT, finding, "sudo systemctl start docker, or: dockerd &"
        )
    client, _, server = output.partition(" ")
    major = re.match(r"\d+", client)
    if major and int(major[0]) >= _BUILDX and not ask("docker", "buildx", "version")[0]:
        finding = f"{server}, without buildx, which `make image` needs"
        return Symptom("Docker", Health.ABSENT, finding, "sudo apt-get install docker-buildx")
    return Symptom("Docker", Health.GOOD, server)


def apptainer() -> Symptom:
    """Report the version of Apptainer, or of Singularity, which Snakemake accepts as well."""
    for name in ("apptainer", "singularity"):
        works, output = ask(name, "--version")
        if works:
            return Symptom("Apptainer", Health.GOOD, output.removeprefix("apptainer version "))
    finding = "not installed; only needed to run a study's jobs in an image"
    return Symptom("Apptainer", Health.ABSENT, finding)


def slurm() -> Symptom:
    """Report the partitions of Slurm."""
    if shutil.which("sinfo") is None:
        return Symptom("Slurm", Health.ABSENT, "not installed; only needed on a cluster")
    works, output = ask("sinfo", "--noheader", "--format=%P %D nodes, %G")
    if works and output:
        return Symptom("Slurm", Health.GOOD, output)
    finding = f"installed, but does not answer: {output or 'it has no partition'}"
    return Symptom("Slurm", Health.ABSENT, finding, "on a cluster, type: scontrol ping")


def remotes() -> Symptom:
    """Report a remote of DVC by SSH: DVC's SSH client accepts any server that answers."""
    urls = dvc.remotes(Path())
    unchecked = [name for name, url in urls.items() if url.startswith("ssh:")]
    if not unchecked:
        return Symptom("DVC remotes", Health.GOOD, ", ".join(urls) or "none")
    name = shlex.quote(unchecked[0])
    finding = f"{', '.join(unchecked)}: DVC's SSH client checks no host key"
    hint = f"sshfs SERVER:FOLDER MOUNT && dvc remote modify {name} url MOUNT"
    return Symptom("DVC remotes", Health.BAD, finding, hint)
