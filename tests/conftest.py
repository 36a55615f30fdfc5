"""What all tests share: one thread per process, and folders that are filled once per session."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

# Before torch is imported, and for every process that a test starts: the workers of pytest-xdist
# already share the cores, and threads that wait for each other take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """Return a function that fills a folder once for all workers of pytest-xdist.

    It takes the name of the folder and what fills it, a function of the path, which does not exist
    yet. The folder belongs to all tests of the session: to be read and copied, never changed.
    """
    base = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        base = base.parent

    def fill_once(name, fill):
        folder, filled = base / name, base / f"{name}.filled"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                fill(folder)
                filled.touch()
        return folder

    return fill_once


@pytest.fixture(scope="module")
def settings_of_torch():
    """Restore the process-wide settings that a job changes, at the end of a module."""
    import torch

    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    environment = dict(os.environ)
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = cudnn
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="session")
def raw(once):
    """The official files of CIFAR-10, where a folder with their packs and unpack.py is named."""
    packs = os.environ.get("ROBUSTVIEWS_CIFAR_PACKS")
    if not packs:
        pytest.skip("ROBUSTVIEWS_CIFAR_PACKS names no folder with the packs of CIFAR-10")

    def unpack(folder):
        folder.mkdir()
        tars = sorted(Path(packs).glob("cifar10_exact_*.tar"))
        subprocess.run([sys.executable, Path(packs) / "unpack.py", folder, *tars], check=True)

    return once("raw", unpack)


@pytest.fixture(scope="session")
def photographs(once):
    """Folders of real photographs, `clothing` and `sign-digits`, where their packs are named."""
    return _unpacked(once, "photographs", ("clothing", "sign"))


@pytest.fixture(scope="session")
def dense_photographs(once):
    """Real photographs with masks, `camvid`, and with boxes, `BCCD`, where packs are named."""
    return _unpacked(once, "dense-photographs", ("camvid", "bccd"))


def _unpacked(once, name, packs):
    folder = os.environ.get("ROBUSTVIEWS_CIFAR_PACKS")
    tars = sorted(Path(folder or os.devnull).glob("*.tar"))
    tars = [tar for tar in tars if tar.name.startswith(packs)]
    if len(tars) < len(packs):
        pytest.skip(f"ROBUSTVIEWS_CIFAR_PACKS names no folder with packs of {' and '.join(packs)}")

    def unpack(into):
        for tar in tars:
            with tarfile.open(tar) as file:
                file.extractall(into, filter="data")

    return once(name, unpack)
