"""The graph of an RO-Crate while it grows: every thing once, however often it is named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from robustviews.provenance.disk import Disk

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

Entity = dict[str, Any]  # JSON-LD of one thing, without its @id
Ref = dict[str, str]  # {"@id": ...}

METADATA = "ro-crate-metadata.json"
ROOT = "./"

_VERSION = "1.1"  # of RO-Crate
_RUN_TERMS = "https://w3id.org/ro/terms/workflow-run#"
# Terms that RO-Crate 1.1 lacks, spelled out so that nobody has to fetch another context.
_TERMS = {
    name: _RUN_TERMS + name
    for name in (
        "ContainerImage",
        "ParameterConnection",
        "connection",
        "containerImage",
        "registry",
        "resourceUsage",
        "sha256",
        "sourceParameter",
        "tag",
        "targetParameter",
    )
} | {"buildInstructions": "https://codemeta.github.io/terms/buildInstructions"}
# By suffix; Python's own table is another on each system.
_MEDIA_TYPES = {
    "": "text/x-python",  # the Snakefile
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".lock": "text/plain",
    ".md": "text/markdown",
    ".png": "image/png",
    ".sig": "text/plain",
    ".smk": "text/x-python",
    ".svg": "image/svg+xml",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}


class Graph:
    """What a crate will say.

    Attributes:
        disk: files of the study, with their hashes.
        entities: each thing by its @id, in the order in which it was first named.
        files: where each data entity's bytes lie, by its @id.
    """

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.entities: dict[str, Entity] = {}
        self.files: dict[str, Path] = {}

    def add(self, identifier: str, kind: str | list[str], /, **properties: Any) -> Ref:  # noqa: ANN401  # JSON-LD
        """Describe a thing, unless it is described already; None and empty lists say nothing."""
        said = {name: value for name, value in properties.items() if value not in (None, [])}
        self.entities.setdefault(identifier, {"@type": kind, **said})
        return {"@id": identifier}

    def file(self, path: Path, kind: str | list[str] = "File", **properties: Any) -> Ref:  # noqa: ANN401  # JSON-LD
        """Describe a file of the project, with hash and size.

        Args:
            path: relative to the project, and in the crate.
            kind: its @type.
            properties: more to say.
        """
        identifier = quote(path.as_posix())
        if identifier not in self.files:
            self.files[identifier] = self.disk.root / path
            digest = self.disk.sha256(path)
            assert digest is not None
            properties = {
                "name": path.name,
                "encodingFormat": _MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
                "contentSize": str((self.disk.root / path).stat().st_size),
                "sha256": digest.removeprefix("sha256:"),
            } | properties
        return self.add(identifier, kind, **properties)

    def append(self, to: Ref, name: str, refs: Iterable[Ref]) -> None:
        """Add references to a property of a thing, each once."""
        known: list[Ref] = self.entities[to["@id"]].setdefault(name, [])
        known += [ref for ref in {ref["@id"]: ref for ref in refs}.values() if ref not in known]

    def to_rocrate(self) -> ROCrate:
        """Return the crate as the library that writes it knows it."""
        from rocrate.model.contextentity import ContextEntity
        from rocrate.model.file import File
        from rocrate.rocrate import ROCrate

        crate = ROCrate(version=_VERSION)
        crate.metadata.extra_terms.update(_TERMS)
        for identifier, entity in self.entities.items():
            said = {name: _compact(value) for name, value in entity.items()}
            if identifier in (ROOT, METADATA):
                known = crate.dereference(identifier)
                for name, value in said.items():
                    if name != "@type":  # which the library gives them
                        known[name] = value
            elif identifier in self.files:
                crate.add(File(crate, self.files[identifier], unquote(identifier), properties=said))
            else:
                crate.add(ContextEntity(crate, identifier, properties=said))
        return crate


def local(kind: str, *names: str) -> str:
    """Return the @id of a thing that is described here alone, such as `#job/pretrain/a-s0`."""
    return "#" + "/".join(quote(name, safe="/=:@+,") for name in (kind, *names))


def _compact(value: Any) -> Any:  # noqa: ANN401  # JSON-LD
    """Write a list of one as RO-Crate recommends: without the list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
