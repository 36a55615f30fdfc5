"""Decode many image files in shards: by several processes, and resumed after an interruption.

A shard is a range of rows of the array of a split, which is mapped from its file, so that no
process holds more than a shard. A journal beside the array has a line with the hash of each shard
that is on the disk. Whoever prepares the array again keeps the shards that still have this hash and
whose image files did not change. The number of processes changes no byte.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustviews.datasets import pictures, splits
from robustviews.datasets.splits import Create, DataError, Images, Labels

log = logging.getLogger(__name__)

_JOURNAL = ".{}.journal"
_LISTED = 3  # shards with damaged files that a message lists


@dataclass(frozen=True)
class Work:
    """A shard to decode.

    Attributes:
        first: its first row.
        files: image files of its rows.
        folder: folder that a message names.
        frame: makes a square from a picture.
    """

    first: int
    files: tuple[Path, ...]
    folder: Path
    frame: pictures.Frame

    @property
    def rows(self) -> slice:
        """Rows of the array."""
        return slice(self.first, self.first + len(self.files))

    def state(self) -> str:
        """Return a hash of the names, lengths and times of the files."""
        state = hashlib.sha256()
        for path in self.files:
            found = path.stat()
            text = f"{path}:{found.st_size}:{found.st_mtime_ns}\n"
            state.update(text.encode(errors="surrogateescape"))
        return state.hexdigest()


@dataclass(frozen=True)
class Done:
    """A decoded shard, a line of the journal.

    Attributes:
        first: its first row.
        state: of the files, as in `Work`, before they were read.
        sha256: hash of the rows.
        source: hash of the names and contents of the files.
    """

    first: int
    state: str
    sha256: str
    source: str


def fill(
    create: Create,
    split: str,
    files: Sequence[Path],
    labels: Labels,
    *,
    folder: Path,
    size: int,
    frame: pictures.Frame,
    shard: int | None,
    processes: int | None = None,
) -> tuple[int, str]:
    """Write the images of some files and their labels.

    Args:
        create: creates the arrays; several processes decode if that of images is a mapped file.
        split: `train` or `test`.
        files: image files.
        labels: (N,) int64.
        folder: folder that a message names.
        size: height and width, in pixels.
        frame: makes a square from a picture.
        shard: images in a shard; None for one process without shards.
        processes: that decode; None for one per core that this process may use.

    Returns:
        The number of images, and a hash of the names and contents of all files; with shards, of
        the hashes of their files.

    Raises:
        DataError: at the end, with the files that are damaged or no images.
    """
    if shard is None:
        source = hashlib.sha256()
        decoded = pictures.decoded(files, folder, size, source, frame=frame)
        return splits.fill(create, split, decoded, labels, size=size), source.hexdigest()
    array = create(f"{split}_images", (len(files), 3, size, size), np.uint8)
    create(f"{split}_labels", labels.shape, np.int64)[:] = labels
    starts = range(0, len(files), shard)
    works = [Work(one, tuple(files[one : one + shard]), folder, frame) for one in starts]
    sources, problems, images = dict[int, str](), dict[int, str](), 0
    for work, done in _decoded(array, works, processes or _cores()):
        images += len(work.files)
        log.info("split=%s images=%d/%d", split, images, len(files))
        if isinstance(done, Done):
            sources[work.first] = done.source
        else:
            problems[work.first] = done
    if problems:
        listed = [problems[first] for first in sorted(problems)]
        more = f"\nand in {len(listed) - _LISTED} more shards" if listed[_LISTED:] else ""
        raise DataError("\n".join(listed[:_LISTED]) + more)
    joined = "".join(sources[start] for start in starts)
    return len(files), hashlib.sha256(bytes.fromhex(joined)).hexdigest()


def discard_journals(folder: Path) -> None:
    """Remove the journals of a folder, whose arrays are finished."""
    for path in folder.glob(_JOURNAL.format("*")):
        path.unlink()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on a Mac
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _decoded(
    array: Images, works: Sequence[Work], processes: int
) -> Iterator[tuple[Work, Done | str]]:
    """Yield each shard, in any order, with its hashes, or with what is wrong with its files."""
    name = getattr(array, "filename", None)
    if name is None:  # in memory
        yield from ((work, _decode(array[work.rows], work)) for work in works)
        return
    path = Path(name)
    journal = path.with_name(_JOURNAL.format(path.stem))
    kept = dict(_kept(path, works, journal))
    yield from kept.items()
    waiting = [work for work in works if work not in kept]
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of threads
    with (
        journal.open("a", encoding="utf-8") as lines,
        ProcessPoolExecutor(processes, context, _end_with_parent) as pool,
    ):
        futures = {pool.submit(_decode, path, work): work for work in waiting}
        try:
            for future in as_completed(futures):
                done = future.result()
                if isinstance(done, Done):
                    lines.write("\n" + json.dumps(asdict(done)))  # the last line may be cut off
                    lines.flush()
                    os.fsync(lines.fileno())
                yield futures[future], done
        finally:
            pool.shutdown(cancel_futures=True)


def _kept(path: Path, works: Sequence[Work], journal: Path) -> Iterator[tuple[Work, Done]]:
    """Yield the shards that are on the disk as the journal says."""
    noted = {done.first: done for done in _noted(journal)}
    for work in works:
        done = noted.get(work.first)
        if done and done.state == work.state() and done.sha256 == _hash(_rows(path, work)):
            yield work, done


def _noted(journal: Path) -> Iterator[Done]:
    """Yield the whole lines of a journal."""
    if not journal.is_file():
        return
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield Done(**json.loads(line))
        except (ValueError, TypeError):  # cut off by a power cut
            continue


def _rows(path: Path, work: Work) -> Images:
    """Return the rows of a shard, mapped from their part of the file of an array."""
    whole: Any = np.load(path, mmap_mode="r")
    shape = (len(work.files), *whole.shape[1:])
    offset = whole.offset + work.first * whole[0].nbytes
    return np.memmap(path, dtype=np.uint8, mode="r+", offset=offset, shape=shape)


def _decode(rows: Images | Path, work: Work) -> Done | str:
    """Decode a shard into its rows, or those in a file, and wait until they are on the disk."""
    rows = _rows(rows, work) if isinstance(rows, Path) else rows
    state, source = work.state(), hashlib.sha256()
    images = pictures.decoded(work.files, work.folder, rows.shape[-1], source, frame=work.frame)
    try:
        for number, image in enumerate(images):
            rows[number] = image
    except DataError as error:
        return str(error)
    if isinstance(rows, np.memmap):
        rows.flush()
    return Done(work.first, state, _hash(rows), source.hexdigest())


def _hash(rows: Images) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed."""
    parent: Any = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
