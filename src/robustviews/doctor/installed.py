"""The installation: Python, the code, the packages, torch and its devices."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from robustviews import artifacts
from robustviews.doctor.symptom import Health, Symptom, ask, in_apptainer, in_image
from robustviews.machine import humanize
from robustviews.provenance import installed as libraries

_DIGEST = re.compile(r"(^(sha256:)?|@sha256:)[0-9a-f]{64}$")  # Podman omits the prefix
_SMALLEST_STEP = """
import torch
from robustviews.encoder import build_encoder
network = build_encoder(width=8, hidden=8, projection=4)
for _ in range(2):
    network(torch.rand(20, 3, 48, 48)).sum().backward()
print("a training step of a narrow network runs")
"""
_ON_CPU = "snakemake --config device=cpu, robustviews ... --device cpu"


def python() -> Symptom:
    """Report the Python interpreter."""
    finding = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    return Symptom("Python", Health.GOOD, finding)


def code() -> Symptom:
    """Report the commit of this code, or why it is unknown."""
    commit, changed = artifacts.commit()
    if commit is not None:
        changes = ", with changes" if changed else ""
        return Symptom("code", Health.GOOD, f"commit {commit[:12]}{changes}")
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        finding = "its commit is unknown: neither a git checkout nor an image built from one"
        return Symptom("code", Health.ABSENT, finding)
    works, output = ask("git", "-C", str(root), "rev-parse", "--verify", "HEAD")
    finding = f"its commit is unknown: {output or 'git is not installed'}"
    hint = ""
    if works:
        finding, hint = "not in any commit", shlex.join(["git", "-C", str(root), "add", "src"])
    elif "dubious ownership" in output:
        hint = shlex.join(["git", "config", "--global", "--add", "safe.directory", str(root)])
    return Symptom("code", Health.ABSENT, finding, hint)


def image() -> Symptom:
    """Report the image's name as records will store it."""
    if not in_image():
        return Symptom("image", Health.ABSENT, "none: jobs use the packages installed here")
    name = os.environ["ROBUSTVIEWS_IMAGE"]
    if _DIGEST.search(name):
        return Symptom("image", Health.GOOD, name)
    finding = f"records will name it {name!r}, which is not a digest"
    if in_apptainer():
        hint = "export ROBUSTVIEWS_IMAGE=REGISTRY/NAME@sha256:..., before you run apptainer"
    else:
        digest = "$(docker image inspect --format '{{.Id}}' robustviews)"
        hint = f"docker run --env ROBUSTVIEWS_IMAGE={digest} ..."
    return Symptom("image", Health.BAD, finding, hint)


def packages() -> Symptom:
    """Compare the installed versions with requirements.lock."""
    lock = artifacts.lock_file()
    if lock is None:
        return Symptom("packages", Health.ABSENT, "no requirements.lock beside the sources")
    needed, differences = _needed(), []
    for name, pinned in pins(lock.read_text(encoding="utf-8")).items():
        version = _version(name)
        if version is not None and version.partition("+")[0] != pinned:
            differences.append(f"{name} {version}, locked {pinned}")
        elif version is None and name in needed:
            differences.append(f"no {name}, locked {pinned}")
    if differences:
        finding = humanize.some(differences, 3, between="; ")
        return Symptom("packages", Health.BAD, finding, "make setup")
    edited = libraries.edited()
    if edited:
        return Symptom("packages", Health.BAD, edited, libraries.command())
    finding = f"as locked: requirements.lock {artifacts.sha256(lock)[:19]}"
    return Symptom("packages", Health.GOOD, finding)


def pins(lock: str) -> dict[str, str]:
    """Return the version that a lock pins for each package with a single one.

    Args:
        lock: text of requirements.lock.
    """
    entries = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", lock, re.M)
    names = [name for name, _ in entries]
    return {name: version for name, version in entries if names.count(name) == 1}


def package(name: str, title: str, without: str) -> Callable[[], Symptom]:
    """Return a check of a package; `without` states what happens if it is missing."""

    def check() -> Symptom:
        version = _version(name)
        if version is None:
            return Symptom(title, Health.ABSENT, f"not installed: {without}", "make setup")
        return Symptom(title, Health.GOOD, version)

    return check


def torch() -> Symptom:
    """Report whether torch computes."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        return Symptom("torch", Health.BAD, f"cannot be imported: {error}", "make setup")
    torch.zeros(1).add_(1)
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    return Symptom("torch", Health.GOOD, f"{torch.__version__}, {threads} CPU thread{plural}")


def convolution() -> Symptom:
    """Report whether a training step of the smallest network stays inside its memory.

    In torch 2.11 a strided 1x1 convolution does not on some CPUs; see `resnet.Shortcut`. A write
    outside its memory ends the process, so the step runs in a separate process.
    """
    works, output = ask(sys.executable, "-W", "ignore", "-c", _SMALLEST_STEP)
    if works:
        return Symptom("convolution", Health.GOOD, output)
    if "No module" in output or output.startswith("no answer"):
        return Symptom("convolution", Health.ABSENT, f"not tried: {output}")
    finding = f"a training step of a narrow network fails: {output or 'its process crashed'}"
    hint = "export ONEDNN_MAX_CPU_ISA=AVX2, or encoder: {layout: contiguous} in the study"
    return Symptom("convolution", Health.BAD, finding, hint)


def cuda() -> Symptom:
    """Report which GPUs compute."""
    _, driver = ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        import torch

        devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
        names = [torch.cuda.get_device_name(device) for device in devices]
        for device in devices:  # a device without torch kernels fails here
            torch.zeros(1, device=device).add_(1)
    except (ImportError, OSError, RuntimeError) as error:
        finding = str(error).partition("\n")[0]
        return Symptom("CUDA", Health.BAD, finding, f"nvidia-smi; without a GPU: {_ON_CPU}")
    if names:
        return Symptom("CUDA", Health.GOOD, f"{', '.join(names)}; driver {driver or 'unknown'}")
    if driver:
        finding = f"driver {driver}, but torch {torch.__version__} sees no device"
        hint = "make setup, which installs a torch with CUDA"
        if torch.version.cuda:
            hint = f"nvidia-smi, which must report CUDA {torch.version.cuda} or newer"
        return Symptom("CUDA", Health.BAD, finding, f"{hint}; without a GPU: {_ON_CPU}")
    if in_image():
        command = "apptainer run --nv" if in_apptainer() else "docker run --gpus all"
        hint = f"if the host has one: {command} ..."
        return Symptom("CUDA", Health.ABSENT, "no GPU in this image: studies run on the CPU", hint)
    return Symptom("CUDA", Health.ABSENT, "no GPU here: studies run on the CPU")


def _needed() -> set[str]:
    """Return the packages that every job needs; none if this package is not installed."""
    try:
        requirements = importlib.metadata.requires("robustviews") or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {
        re.split(r"[^A-Za-z0-9._-]", requirement)[0]
        for requirement in requirements
        if "extra ==" not in requirement
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
