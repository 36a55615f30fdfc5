"""The verb that turns a checkpoint of another program into an encoder of this project."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustviews import artifacts
from robustviews.artifacts import RECORD, ArtifactError, Record
from robustviews.cli.names import UsageError
from robustviews.datasets.sources import DOWNLOADS
from robustviews.study import folders
from robustviews.study.problems import nearest

if TYPE_CHECKING:
    from robustviews.checkpoints import Imported, Published

IMPORTED = Path("imported")
_GIVEN = ("name", "normalise", "weights", "padding")


def import_(options: argparse.Namespace) -> None:
    """Import a file, or a published checkpoint by its name."""
    import torch

    from robustviews import checkpoints
    from robustviews.machine import runtime

    started, path = artifacts.Start(), Path(options.source)
    settings = {name: getattr(options, name) for name in _GIVEN[1:]}
    published = None if path.is_file() else _published(options.source)
    if published is not None:
        path = _downloaded(options.source, published)
        known = {"normalise": published.normalise, "weights": published.weights}
        settings |= {key: value for key, value in known.items() if settings[key] is None}
        settings["classifier"] = published.classifier
    imported = checkpoints.bring(path, sha256=options.sha256, **settings)
    name = options.name or (
        re.sub(r"\W+", "-", path.name.split(".")[0]) if published is None else options.source
    )
    folder = _folder(name, imported.sha256)
    with artifacts.atomic_folder(folder) as into:
        artifacts.write_tensors(into / folders.ENCODER, imported.weights, imported.metadata)
        artifacts.write_record(
            into,
            stage="import",
            name=name,
            study="",
            spec=imported.summary(path.name),
            inputs=[],  # the file may lie anywhere; `source` names and hashes it
            environment=runtime.environment(torch.device("cpu")),
            started=started,
            result={"classes": imported.classes, "matched": imported.found.matched},
        )
    sys.stdout.write(_summary(imported, path, folder, options, settings))
    if published is not None and published.top1 is not None:
        sys.stdout.write(f"published      {published.top1:g} % top-1 on ImageNet\n")


def _published(name: str) -> Published:
    from robustviews.checkpoints import CATALOGUE

    if name not in CATALOGUE:
        raise UsageError(
            f"{name}: no such file, and no published checkpoint; {nearest(name, CATALOGUE)}"
        )
    return CATALOGUE[name]


def _downloaded(name: str, published: Published) -> Path:
    """Return the path of a published file, downloaded if its address is known, and pinned."""
    from robustviews.checkpoints import check, download, recognise

    path = DOWNLOADS / "checkpoints" / name / Path(published.file).name
    terms = published.licence or "none stated"
    if not path.is_file():
        if not published.address:
            raise UsageError(
                f"{name}: no address is known; see {published.page} (licence: {terms}), save "
                f"{published.file} as {path}, and run the same command again"
            )
        sys.stderr.write(f"{published.address} (licence: {terms})\n")
        download(published.address, path)
    recognise(path)  # what is no checkpoint must not be pinned
    check(path, published.sha256 or None, pin=True)
    return path


def _folder(name: str, sha256: str) -> Path:
    """Return the folder of an encoder; one of another file under this name is never replaced."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"--name: expected letters, digits, '.', '_' and '-', found {name!r}")
    folder = IMPORTED / name
    if (folder / RECORD).is_file():
        record = Record.read(folder / RECORD)
        if record.spec.get("source", {}).get("sha256") != f"sha256:{sha256}":
            raise ArtifactError(
                f"{folder}: imported from another file; choose another --name, or remove {folder}"
            )
    return folder


def _summary(
    imported: Imported,
    path: Path,
    folder: Path,
    given: argparse.Namespace,
    settings: dict[str, Any],
) -> str:
    from robustviews.checkpoints import name_of, shown

    found, options, origins = imported.found, imported.options, imported.origins
    total = len(found.weights)
    counters = f"; {total - found.matched} counters set to 0" if found.matched < total else ""
    head = "none" if imported.classes is None else f"{imported.classes} classes, from the file"
    details = f"stem {found.stem}" if found.heads is None else f"{found.heads} attention heads"
    lines = {
        "encoder": f"{folder}: {found.backbone}, width {found.width}, {details}",
        "container": imported.container,
        "layout": f"{found.layout.name}, at {shown(found.place)}",
        "matched": f"{found.matched} of {total} names{counters}",
        "dropped": ", ".join(imported.dropped) or "nothing",
        "normalisation": f"{name_of(options['normalise'])} ({origins['normalise']})",
    }
    if "padding" in origins:
        lines["padding"] = f"{options['padding']} ({origins['padding']})"
    lines |= {"classifier": head, "SHA-256": imported.sha256}
    text = "".join(f"{name:<14} {line}\n" for name, line in lines.items())
    words = [f"--{key}={value}" for key in _GIVEN if (value := getattr(given, key)) is not None]
    again = ["robustviews", "import", given.source, *words, f"--sha256={imported.sha256}"]
    key = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    entry = {"kind": "imported", "file": str(path), "sha256": imported.sha256}
    entry |= {one: value for one in _GIVEN[1:] if (value := settings[one]) is not None}
    line = ", ".join(f"{name}: {value}" for name, value in entry.items())
    return (
        f"{text}\nPin the file with: {shlex.join(again)}\n"
        f"Or name it in a study:\n\nencoders:\n  {key}: {{{line}}}\n"
    )
