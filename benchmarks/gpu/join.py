"""Put what came back into place: `python -m benchmarks.gpu.join FOLDER ...`, in the project folder.

Job folders go to `results/`, where the workflow and `robustviews audit` look for them; the lines of
all parts go to `benchmarks/results/gpu.json` and are printed as a table.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.gpu.report import LINE
from robustviews import artifacts

NAME = re.compile(r"(?P<part>[a-z]\d)\.(?:json|tar(?:\.(?P<number>\d+)of(?P<count>\d+))?)")


class JoinError(ValueError):
    """Pieces do not make a whole; the message says what is missing."""


def gather(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the files of each part, pieces in order.

    Raises:
        JoinError: a folder does not exist.
    """
    found: dict[str, dict[int, Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise JoinError(f"{folder}: no such folder")
        for path in sorted(folder.iterdir()):
            match = NAME.fullmatch(path.name)
            if match:
                found.setdefault(match["part"], {})[int(match["number"] or 0)] = path
    return {part: [files[key] for key in sorted(files)] for part, files in sorted(found.items())}


def restore(part: str, files: list[Path], into: Path) -> dict[str, Any]:
    """Put the job folders of a part into place, and return its line.

    Args:
        part: name of the part.
        files: its only file, or all its pieces in order.
        into: project folder.

    Raises:
        JoinError: a piece is missing, or a job was made in another way here.
    """
    if files[-1].suffix == ".json":
        line: dict[str, Any] = artifacts.read_json(files[-1])
        return line
    _check_whole(part, files)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "joined").open("wb") as joined:
            for file in files:
                with file.open("rb") as piece:
                    shutil.copyfileobj(piece, joined)
        with tarfile.open(folder / "joined") as tar:
            tar.extractall(folder / "jobs", filter="data")
        line = artifacts.read_json(folder / "jobs" / LINE)
        for job in line["jobs"]:
            _place(folder / "jobs" / job, into / job)
    return line


def _check_whole(part: str, files: list[Path]) -> None:
    numbers = [NAME.fullmatch(file.name) for file in files]
    counts = {match["count"] for match in numbers if match}
    have = [int(match["number"] or 1) for match in numbers if match]
    count = int(next(iter(counts)) or 1)
    missing = sorted(set(range(1, count + 1)) - set(have))
    if missing or len(counts) > 1:
        raise JoinError(
            f"{part}.tar: found {len(have)} of {count} pieces, missing "
            f"{', '.join(map(str, missing))}; name their folders, too"
        )


def _place(source: Path, target: Path) -> None:
    """Copy a job folder; refuse to replace the results of another computation."""
    record = target / artifacts.RECORD
    if record.exists() and record.read_bytes() != (source / artifacts.RECORD).read_bytes():
        raise JoinError(f"{target}: holds other results; keep one of them: rm -r {target}")
    with artifacts.atomic_folder(target) as into:
        for path in source.iterdir():
            shutil.copyfile(path, into / path.name)  # newer than its inputs, for Snakemake


def markdown(lines: list[dict[str, Any]]) -> str:
    """Return a table of the bars of all parts, and of how each part ended."""
    rows = []
    for line in lines:
        state = line["state"] if "reason" not in line else f"{line['state']}: {line['reason']}"
        rows.append([line["part"], state, f"{line['seconds']:.1f} s", "", ""])
        rows.extend(
            [line["part"], name, str(bar["found"]), bar["required"], "yes" if bar["ok"] else "no"]
            for name, bar in line["bars"].items()
        )
    return table.grid(["part", "what", "found", "required", "met"], rows, align="llrrl")


def main(argv: list[str] | None = None) -> int:
    """Join, keep the lines, print the table.

    Returns:
        0; 1 if a part could not be put into place, 2 if a folder does not exist.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.join", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of what came back")
    parser.add_argument("--into", type=Path, default=Path(), help="project folder (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=table.RESULTS, help="folder of gpu.json (%(default)s)"
    )
    options = parser.parse_args(argv)
    try:
        parts = gather(options.folders)
    except JoinError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    lines, status = [], 0
    for part, files in parts.items():
        try:
            lines.append(restore(part, files, options.into))
        except (JoinError, artifacts.ArtifactError, tarfile.TarError) as error:
            sys.stderr.write(f"{error}\n")
            status = 1
    artifacts.write_text(options.out / "gpu.json", json.dumps(lines, indent=1) + "\n")
    print(markdown(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
