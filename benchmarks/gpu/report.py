"""What a part found: one JSON line, and files of at most 16 MiB that leave the machine."""

from __future__ import annotations

import contextlib
import json
import math
import tarfile
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustviews import artifacts

PIECE = 16_000_000  # bytes of a file; rented machines often return at most 16 MiB a file
PIECES = 4  # of a part in the output folder, since a call often returns at most 64 MiB
LINE = "part.json"  # in the archive of a part, its first member


@dataclass
class Report:
    """What a part found.

    Attributes:
        part: name of the part.
        numbers: what was measured, plain JSON.
        bars: what each bar requires, what was found, and whether that meets the bar.
        folders: finished job folders, relative to the current folder.
        state: `done`, `cut` by its deadline, `failed`, or `skipped`.
        seconds: duration of the part.
        reason: why it failed or was skipped.
    """

    part: str
    numbers: dict[str, Any] = field(default_factory=dict)
    bars: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    state: str = "done"
    seconds: float = 0.0
    reason: str | None = None

    def hold(self, name: str, found: object, required: str, *, met: bool) -> None:
        """Compare a number with its bar; a missed bar is a result, not an error."""
        self.bars[name] = {"found": found, "required": required, "ok": bool(met)}

    def at_most(self, name: str, found: float, bar: float) -> None:
        """Compare a number with the largest value allowed; NaN misses every bar."""
        self.hold(name, found, f"<= {bar:g}", met=found <= bar)

    @contextlib.contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Turn an error of a block into a missed bar, so that the next check of the part runs."""
        try:
            yield
        except Exception as error:  # any error
            traceback.print_exc()
            self.hold(name, f"{type(error).__name__}: {error}"[:200], "no error", met=False)

    @property
    def ok(self) -> bool:
        """Whether the part ran to its end and met all its bars."""
        return self.state == "done" and all(bar["ok"] for bar in self.bars.values())

    def line(self) -> str:
        """Return the report as one line of JSON."""
        found = {
            "part": self.part,
            "state": self.state,
            "ok": self.ok,
            "seconds": self.seconds,
            "bars": self.bars,
            "numbers": self.numbers,
            "jobs": [folder.as_posix() for folder in self.folders],
        }
        if self.reason is not None:
            found["reason"] = self.reason
        return json.dumps(plain(found), allow_nan=False)

    def write(self, out: Path, rest: Path) -> list[Path]:
        """Write the files of this part: `<part>.json`, or an archive with its job folders.

        Args:
            out: output folder, which gets the line and the first `PIECES` pieces of the archive.
            rest: folder of the other pieces.

        Returns:
            The paths of the files.
        """
        if not self.folders:
            artifacts.write_text(out / f"{self.part}.json", f"{self.line()}\n")
            return [out / f"{self.part}.json"]
        with tempfile.TemporaryDirectory() as folder:
            line, archive = Path(folder) / LINE, Path(folder) / f"{self.part}.tar"
            line.write_text(f"{self.line()}\n", encoding="utf-8")
            with tarfile.open(archive, "w") as tar:
                tar.add(line, LINE)
                for job in self.folders:
                    for path in sorted(job.iterdir(), key=lambda path: path.stat().st_size):
                        if not path.name.startswith("."):
                            tar.add(path)
            return cut(archive, out, rest)


def cut(file: Path, out: Path, rest: Path) -> list[Path]:
    """Copy a file in pieces named `<file>.<number>of<count>`, or whole if one piece is enough."""
    count = max(1, math.ceil(file.stat().st_size / PIECE))
    paths = []
    with file.open("rb") as source:
        for number in range(1, count + 1):
            name = file.name if count == 1 else f"{file.name}.{number}of{count}"
            paths.append((out if number <= PIECES else rest) / name)
            artifacts.write_bytes(paths[-1], source.read(PIECE))
    return paths


def plain(value: Any) -> Any:  # noqa: ANN401  # JSON of any shape
    """Return JSON whose numbers have six digits, and in which NaN and infinity are texts."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value
