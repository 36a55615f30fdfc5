"""What is installed: Python, the code, the packages, torch and what it computes on."""

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

_DIGEST = re.compile(r"(^(sha256:)?|@sha256:)[0-9a-f]{64}$")  # Podman writes none before its own
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
    """Tell which interpreter this is."""
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    return Symptom("Python", Health.GOOD, found)


def code() -> Symptom:
    """Tell the commit of this code, or why nothing tells it."""
    commit, changed = artifacts.commit()
    if commit is not None:
        changes = ", with changes" if changed else ""
        return Symptom("code", Health.GOOD, f"commit {commit[:12]}{changes}")
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        found = "its commit is unknown: neither a git checkout nor an image made from one"
        return Symptom("code", Health.ABSENT, found)
    works, said = ask("git", "-C", str(root), "rev-parse", "--verify", "HEAD")
    found = f"its commit is unknown: {said or 'git is not here'}"
    hint = ""
    if works:
        found, hint = "in no commit", shlex.join(["git", "-C", str(root), "add", "src"])
    elif "dubious ownership" in said:
        hint = shlex.join(["git", "config", "--global", "--add", "safe.directory", str(root)])
    return Symptom("code", Health.ABSENT, found, hint)


def image() -> Symptom:
    """Tell which image this is, as records will."""
    if not in_image():
        return Symptom("image", Health.ABSENT, "not in one: what is installed here is used")
    told = os.environ["ROBUSTVIEWS_IMAGE"]
    if _DIGEST.search(told):
        return Symptom("image", Health.GOOD, told)
    found = f"in one that records will call {told!r}, which is no digest"
    if in_apptainer():
        hint = "export ROBUSTVIEWS_IMAGE=REGISTRY/NAME@sha256:..., before apptainer"
    else:
        digest = "$(docker image inspect --format '{{.Id}}' robustviews)"
        hint = f"docker run --env ROBUSTVIEWS_IMAGE={digest} ..."
    return Symptom("image", Health.BAD, found, hint)


def packages() -> Symptom:
    """Compare what is installed with what requirements.lock pins."""
    lock = artifacts.lock_file()
    if lock is None:
        return Symptom("packages", Health.ABSENT, "no requirements.lock beside the sources")
    needed, wrong = _needed(), []
    for name, wanted in pins(lock.read_text(encoding="utf-8")).items():
        found = _version(name)
        if found is not None and found.partition("+")[0] != wanted:
            wrong.append(f"{name} {found}, locked {wanted}")
        elif found is None and name in needed:
            wrong.append(f"no {name}, locked {wanted}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return Symptom("packages", Health.BAD, "; ".join(wrong[:3]) + more, "make setup")
    found = f"as locked: requirements.lock {artifacts.sha256(lock)[:19]}"
    return Symptom("packages", Health.GOOD, found)


def pins(lock: str) -> dict[str, str]:
    """Return the version that a lock pins of each package; without those with several.

    Args:
        lock: text of requirements.lock.
    """
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", lock, re.M)
    names = [name for name, _ in found]
    return {name: version for name, version in found if names.count(name) == 1}


def package(name: str, title: str, without: str) -> Callable[[], Symptom]:
    """Return a look at a package; `without` says what is to be done where it is missing."""

    def look() -> Symptom:
        found = _version(name)
        if found is None:
            return Symptom(title, Health.ABSENT, f"not installed: {without}", "make setup")
        return Symptom(title, Health.GOOD, found)

    return look


def torch() -> Symptom:
    """Tell whether torch computes."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of it is missing
        return Symptom("torch", Health.BAD, f"cannot be imported: {error}", "make setup")
    torch.zeros(1).add_(1)
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    return Symptom("torch", Health.GOOD, f"{torch.__version__}, {threads} CPU thread{plural}")


def convolution() -> Symptom:
    """Report whether a training step of the smallest network stays inside its memory.

    In torch 2.11 a strided 1x1 convolution does not, on some CPUs; see `encoder.Shortcut`. A write
    outside of memory ends a process, so another process takes the step.
    """
    works, answer = ask(sys.executable, "-W", "ignore", "-c", _SMALLEST_STEP)
    if works:
        return Symptom("convolution", Health.GOOD, answer)
    if "No module" in answer or answer.startswith("no answer"):
        return Symptom("convolution", Health.ABSENT, f"not tried: {answer}")
    found = f"a training step of a narrow network fails: {answer or 'its process crashed'}"
    hint = "export ONEDNN_MAX_CPU_ISA=AVX2, or encoder: {layout: contiguous} in the study"
    return Symptom("convolution", Health.BAD, found, hint)


def cuda() -> Symptom:
    """Tell which GPUs compute."""
    _, driver = ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        import torch

        devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
        names = [torch.cuda.get_device_name(device) for device in devices]
        for device in devices:  # one that torch has no kernels for is seen too
            torch.zeros(1, device=device).add_(1)
    except (ImportError, OSError, RuntimeError) as error:
        found = str(error).partition("\n")[0]
        return Symptom("CUDA", Health.BAD, found, f"nvidia-smi; without a GPU: {_ON_CPU}")
    if names:
        return Symptom("CUDA", Health.GOOD, f"{', '.join(names)}; driver {driver or 'unknown'}")
    if driver:
        found = f"driver {driver}, but torch {torch.__version__} sees no device"
        hint = "make setup, which installs a torch with CUDA"
        if torch.version.cuda:
            hint = f"nvidia-smi, which must name CUDA {torch.version.cuda} or newer"
        return Symptom("CUDA", Health.BAD, found, f"{hint}; without a GPU: {_ON_CPU}")
    if in_image():
        given = "apptainer run --nv" if in_apptainer() else "docker run --gpus all"
        hint = f"where the host has one: {given} ..."
        return Symptom("CUDA", Health.ABSENT, "no GPU in here: studies run on the CPU", hint)
    return Symptom("CUDA", Health.ABSENT, "no GPU here: studies run on the CPU")


def _needed() -> set[str]:
    """Return the packages that no job can do without; none where this one is not installed."""
    try:
        listed = importlib.metadata.requires("robustviews") or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {re.split(r"[^A-Za-z0-9._-]", each)[0] for each in listed if "extra ==" not in each}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
