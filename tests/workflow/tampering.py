"""Faults to inject into a finished study; most keep the times of files.

A function takes a project, or returns a function that does.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from robustviews import artifacts
from robustviews.study import folders, load_study
from robustviews.workflow.metadata import ProjectMetadata
from tests.workflow.project import TINY, Project

STUDY = load_study(TINY)
RESULTS = "results/tiny"
EMP, SIMCLR = "emp-free-digits-s0", "simclr-std-digits-s0"
DATA = folders.data_folder(STUDY, "digits").as_posix()
TRAINED, OTHER = f"{RESULTS}/pretrain/{EMP}", f"{RESULTS}/pretrain/{SIMCLR}"
HEAD, CENTRAL = f"{RESULTS}/probe/{EMP}/rle", f"{RESULTS}/probe/{EMP}/central"
ATTACK = f"{RESULTS}/attack/{EMP}/rle/pgd2"
ENCODER, FLAGS = f"{TRAINED}/encoder.safetensors", f"{ATTACK}/flags.safetensors"
CHECKS = f"{RESULTS}/sanity/{EMP}"
TABLE = f"{RESULTS}/tables/accuracies"

Injection = Callable[[Project], None]
Flags = dict[str, np.ndarray]


@contextlib.contextmanager
def unnoticed(path: Path) -> Iterator[None]:
    """Keep the times of a file that changes; replace a link by a copy of its file."""
    before, data = path.stat(), path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    yield
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip(name: str) -> Injection:
    """Change one bit."""

    def inject(project: Project) -> None:
        path = project.folder / name
        with unnoticed(path):
            data = bytearray(path.read_bytes())
            data[len(data) * 3 // 4] ^= 1
            path.write_bytes(data)

    return inject


def replace(name: str, old: str, new: str) -> Injection:
    """Replace a text wherever it stands in a file."""

    def inject(project: Project) -> None:
        path = project.folder / name
        with unnoticed(path):
            text = path.read_text(encoding="utf-8")
            assert old in text
            path.write_text(text.replace(old, new), encoding="utf-8")

    return inject


def number(name: str) -> Injection:
    """Replace the first accuracy of a table in Markdown or LaTeX."""

    def inject(project: Project) -> None:
        path = project.folder / name
        with unnoticed(path):
            text, count = re.subn(
                r"\d+(?:\.\d)? (±|\\pm)", r"99.9 \1", path.read_text(encoding="utf-8"), count=1
            )
            assert count
            path.write_text(text, encoding="utf-8")

    return inject


def field(name: str, column: str) -> Injection:
    """Replace what stands in a column of the first line of a CSV file."""

    def inject(project: Project) -> None:
        path = project.folder / name
        with unnoticed(path):
            lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
            lines[0][column] = "99.9"
            text = io.StringIO()
            writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
            path.write_text(text.getvalue(), encoding="utf-8")

    return inject


def metric(project: Project) -> None:
    """Replace an accuracy in metrics.json."""
    path = project.folder / RESULTS / "metrics.json"
    with unnoticed(path):
        metrics = artifacts.read_json(path)
        metrics["accuracies"]["emp"]["digits/clean"] = 99.9
        artifacts.write_json(path, metrics)


def truncate(name: str) -> Injection:
    """Cut the end of a file off."""

    def inject(project: Project) -> None:
        path = project.folder / name
        path.write_bytes(path.read_bytes()[:-100])

    return inject


def write(name: str, text: str) -> Injection:
    """Write a file."""
    return lambda project: artifacts.write_text(project.folder / name, text)


def remove(name: str) -> Injection:
    """Remove a file."""
    return lambda project: (project.folder / name).unlink()


def swap(one: str, other: str) -> Injection:
    """Swap two files or folders."""

    def inject(project: Project) -> None:
        first, second, aside = (project.folder / name for name in (one, other, "aside"))
        times = first.stat().st_mtime_ns, second.stat().st_mtime_ns
        first.rename(aside)
        second.rename(first)
        aside.rename(second)
        os.utime(first, ns=times[:1] * 2)
        os.utime(second, ns=times[1:] * 2)

    return inject


def record(folder: str, *keys: str, to: Any) -> Injection:
    """Set an entry of a record."""

    def inject(project: Project) -> None:
        path = project.folder / folder / "record.json"
        with unnoticed(path):
            content = section = artifacts.read_json(path)
            for key in keys[:-1]:
                section = section[key]
            assert section.get(keys[-1]) != to or to is None
            section[keys[-1]] = to
            artifacts.write_json(path, content)

    return inject


def without(folder: str, *keys: str) -> Injection:
    """Remove an entry of a record."""

    def inject(project: Project) -> None:
        path = project.folder / folder / "record.json"
        with unnoticed(path):
            content = section = artifacts.read_json(path)
            for key in keys[:-1]:
                section = section[key]
            del section[keys[-1]]
            artifacts.write_json(path, content)

    return inject


def fitting(first: Injection, name: str) -> Injection:
    """Make all records fit a file after it was changed."""

    def inject(project: Project) -> None:
        first(project)
        changed = project.folder / name
        digest = artifacts.sha256(changed)
        for path in (project.folder / RESULTS).rglob("record.json"):
            content = artifacts.read_json(path)
            if name in content["inputs"]:
                content["inputs"][name] = digest
            if path.parent == changed.parent:
                content["outputs"][changed.name] = digest
            with unnoticed(path):
                artifacts.write_json(path, content)

    return inject


def flags(change: Callable[[Flags], None], name: str = FLAGS) -> Injection:
    """Change flags, and make their record fit."""

    def inject(project: Project) -> None:
        path = project.folder / name
        with unnoticed(path):
            arrays = load_file(path)
            change(arrays)
            save_file(arrays, path)

    return fitting(inject, name)


def none_withstands(arrays: Flags) -> None:
    arrays["rle/pgd_0"][:] = 0


def all_right(arrays: Flags) -> None:
    arrays["eps_8"][:] = 1


def other_labels(arrays: Flags) -> None:
    arrays["labels"] = (arrays["labels"] + 1) % 10


def fewer(arrays: Flags) -> None:
    arrays.update({name: array[:20].copy() for name, array in arrays.items()})


def twice_the_same(arrays: Flags) -> None:
    for name in ("index", "labels"):
        arrays[name][1] = arrays[name][0]


def half_right(arrays: Flags) -> None:
    arrays["eps_8"][0] = 2


def no_radius(arrays: Flags) -> None:
    del arrays["eps_16"]


def metadata(output: str, change: Callable[[dict[str, Any]], None]) -> Injection:
    """Change Snakemake metadata of an output."""

    def inject(project: Project) -> None:
        path = metadata_of(project, output)
        with unnoticed(path):
            entry = json.loads(path.read_text(encoding="utf-8"))
            change(entry)
            path.write_text(json.dumps(entry), encoding="utf-8")

    return inject


def metadata_of(project: Project, output: str, kind: str = "metadata") -> Path:
    """Return where Snakemake keeps the metadata of an output."""
    return project.folder / ProjectMetadata(project.folder).path(Path(output), kind)


def other_checksum(entry: dict[str, Any]) -> None:
    entry["input_checksums"][ENCODER] = "sha256:" + 64 * "0"


def no_checksum(entry: dict[str, Any]) -> None:
    del entry["input_checksums"][ENCODER]


def other_parameters(entry: dict[str, Any]) -> None:
    entry["params"] = [text.replace('"epochs":1', '"epochs":9') for text in entry["params"]]


def fewer_inputs(entry: dict[str, Any]) -> None:
    entry["input"].remove(f"{DATA}/summary.json")


def other_rule(entry: dict[str, Any]) -> None:
    entry["rule"] = "examples"


def lose_metadata(project: Project) -> None:
    metadata_of(project, ENCODER).unlink()


def damage_metadata(project: Project) -> None:
    metadata_of(project, ENCODER).write_text("{", encoding="utf-8")


def interrupt(project: Project) -> None:
    artifacts.write_text(metadata_of(project, ENCODER, "incomplete"), "{}")


def name_another_commit(project: Project) -> None:
    """Let a record name an earlier commit with other losses."""
    losses = project.folder / "src/robustviews/losses.py"
    before = losses.read_text(encoding="utf-8")
    losses.write_text(before.replace("def nt_xent(", "def no_longer_nt_xent("), encoding="utf-8")
    commit = commit_at(project, "2020-01-01T00:00:00Z")
    losses.write_text(before, encoding="utf-8")
    project.commit("Have its name again")
    record(OTHER, "code", "commit", to=commit)(project)


def name_a_later_commit(project: Project) -> None:
    """Let a record name a commit that was made long after the run."""
    commit = commit_at(project, "2099-01-01T00:00:00Z")
    record(TRAINED, "code", "commit", to=commit)(project)


def commit_at(project: Project, time: str) -> str:
    """Commit everything as if at some time; return the commit."""
    environment = {**project.environment(), "GIT_COMMITTER_DATE": time}
    command = ["git", "commit", "--quiet", "--all", "--allow-empty", "--message", "Change"]
    subprocess.run(command, cwd=project.folder, env=environment, check=True)
    return project.git("rev-parse", "HEAD").strip()


def cached(project: Project, name: str) -> Path:
    """Return DVC's copy of a file."""
    with (project.folder / name).open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    return project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def tamper_with_cache(project: Project) -> None:
    path = cached(project, ENCODER)
    path.chmod(0o644)
    with unnoticed(path):
        path.write_bytes(path.read_bytes()[::-1])


def tamper_with_listing(project: Project) -> None:
    """Change the list of a folder in DVC's cache."""
    for path in (project.folder / ".dvc/cache/files/md5").rglob("*.dir"):
        text = path.read_text(encoding="utf-8")
        if "encoder.safetensors" in text:
            path.chmod(0o644)
            path.write_text(text.replace("encoder", "decoder"), encoding="utf-8")


def tamper_with_lock(project: Project) -> None:
    """Let dvc.lock state another md5 of the frame."""
    path = project.folder / "dvc.lock"
    text, count = re.subn(
        r"(path: results/tiny/frame\.csv\n\s+hash: md5\n\s+md5: )\w+",
        lambda match: match[1] + 32 * "a",
        path.read_text(encoding="utf-8"),
    )
    assert count == 1
    path.write_text(text, encoding="utf-8")


def tamper_with_folder_in_lock(project: Project) -> None:
    """Let dvc.lock state another md5 of the folder of encoders, whose list is not in the cache."""
    path = project.folder / "dvc.lock"
    text, count = re.subn(
        r"(outs:\n\s+- path: results/tiny/pretrain\n\s+hash: md5\n\s+md5: )\w+",
        lambda match: match[1] + 32 * "a",
        path.read_text(encoding="utf-8"),
    )
    assert count == 1
    path.write_text(text, encoding="utf-8")
