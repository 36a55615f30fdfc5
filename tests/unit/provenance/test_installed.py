"""Installed libraries: Python files that were edited after the installation."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata

import pytest

from robustviews.provenance import installed
from robustviews.provenance.findings import State


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `torch` with two Python files, and no other library."""
    folder = tmp_path / "torch"
    folder.mkdir()
    lines = []
    for name in ("__init__.py", "functional.py"):
        content = f"NAME = {name!r}\n".encode()
        (folder / name).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"torch/{name},sha256={digest},{len(content)}")
    metadata = tmp_path / "torch-2.11.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.11.0\n")
    (metadata / "RECORD").write_text("\n".join([*lines, "torch/data.bin,sha256=0,1"]) + "\n")
    (folder / "data.bin").write_bytes(b"?")

    def distribution(name):
        if name != "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.Distribution.at(metadata)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: distribution(name).version)
    return folder


@pytest.mark.usefixtures("package")
def test_files_as_installed_are_verified():
    assert installed.check().state is State.VERIFIED


@pytest.mark.parametrize("edit", ["append", "remove"])
def test_a_patched_library_is_a_doubt_and_its_file_is_named(edit, package):
    path = package / "functional.py"
    if edit == "append":
        path.write_bytes(path.read_bytes() + b"# patched\n")
    else:
        path.unlink()
    finding = installed.check()
    assert finding.state is State.DOUBT
    assert "changed since the installation: torch/functional.py" in finding.text
    assert "uv pip install --reinstall --no-deps torch==2.11.0" in finding.text


def test_the_libraries_here_are_as_installed():
    finding = installed.check()
    assert finding.state is State.VERIFIED, finding.text
    for name in ("torch", "torchvision", "pyautoattack"):
        assert name in finding.text
