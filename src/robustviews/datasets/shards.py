"""Decode many image files by several processes, into several files, resumed after an interruption.

Each shard, a file of images in their order, is decoded by one process, which holds a few images at
a time. A journal beside the files has a line with the hash of each shard that is on the disk.
Whoever prepares the data set again keeps the shards that still have this hash and whose image files
did not change. The number of processes changes no byte.
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

from robustviews.datasets import framing, pictures, splits
from robustviews.datasets.splits import Create, DataError, Images, Labels, Rows
from robustviews.machine.humanize import some
from robustviews.machine.mapping import drop_pages

log = logging.getLogger(__name__)

JOURNALS = ".*_images.journal"
_LISTED = 3  # shards with damaged files that a message lists


@dataclass(frozen=True)
class Work:
    """A shard to decode.

    Attributes:
        number: which of the files of its split it is.
        rows: array to fill, or the file of the array.
        files: image files of its rows.
        folder: folder that a message names.
        frame: makes a square from a picture.
    """

    number: int
    rows: Images | Path
    files: tuple[Path, ...]
    folder: Path
    frame: pictures.Frame

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
        number: as in `Work`.
        state: of the files, as in `Work`, before they were read.
        sha256: hash of the file of the array; empty for an array in memory.
        source: hash of the names and contents of the files.
    """

    number: int
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
    count: int | None = None,
    frame: pictures.Frame = framing.centre,
    shard: int | None = None,
    processes: int | None = None,
) -> tuple[int, str]:
    """Write the images of some files and their labels.

    Args:
        create: creates the arrays; several processes decode if they are mapped files.
        split: `train` or `test`.
        files: N image files.
        labels: (N,) int64.
        folder: folder that a message names.
        size: height and width, in pixels.
        count: number of images to keep, in the proportions of the classes; None for all.
        frame: makes a square from a picture.
        shard: images in a file. None: as many as `splits.FILE_BYTES` holds; one process decodes a
            split that needs no second file.
        processes: that decode; None for one per core that this process may use.

    Returns:
        The number of images, and a hash of the names and contents of all files; with shards, of
        the hashes of their files.

    Raises:
        DataError: there are fewer images; or, at the end, with the files that are damaged or no
            images.
    """
    kept = splits.choose(labels, count, f"{folder}: {split}_images")
    files, labels = [files[number] for number in kept], labels[kept]
    in_file = shard or splits.images_in_file(size)
    if shard is None and len(files) <= in_file:
        source = hashlib.sha256()
        decoded = pictures.decoded(files, folder, size, source, frame=frame)
        return splits.fill(create, split, decoded, labels, size=size), source.hexdigest()
    works, found, images = list[Work](), dict[int, Done | str](), 0
    for number, first in enumerate(range(0, len(files), in_file)):
        chosen = tuple(files[first : first + in_file])
        name = splits.images_name(split, number)
        array = create(name, (len(chosen), 3, size, size), np.uint8)
        mapped = getattr(array, "filename", None)
        works.append(Work(number, Path(mapped) if mapped else array, chosen, folder, frame))
    create(f"{split}_labels", labels.shape, np.int64)[:] = labels
    for work, done in _decoded(works, processes or _cores()):
        found[work.number] = done
        images += len(work.files)
        log.info("split=%s images=%d/%d", split, images, len(files))
    return len(files), _source([found[work.number] for work in works])


def _source(found: Sequence[Done | str]) -> str:
    """Return a hash of the hashes of the files of shards.

    Raises:
        DataError: a shard has damaged files.
    """
    problems = [done for done in found if isinstance(done, str)]
    if problems:
        raise DataError(some(problems, _LISTED, between="\n"))
    sources = (done.source for done in found if isinstance(done, Done))
    return hashlib.sha256(bytes.fromhex("".join(sources))).hexdigest()


def copy(create: Create, split: str, images: Rows, chosen: Labels, *, labels: Labels) -> int:
    """Write some images of a prepared data set, and new labels, into the files that they need.

    Args:
        create: creates the arrays.
        split: `train` or `test`.
        images: (N, 3, size, size).
        chosen: (n,) positions of the images to write.
        labels: (n,) int64.

    Returns:
        The number of written images.
    """
    in_file = splits.images_in_file(images.shape[-1])
    for number, first in enumerate(range(0, len(chosen), in_file)):
        positions = chosen[first : first + in_file]
        name, shape = splits.images_name(split, number), (len(positions), *images.shape[1:])
        array = create(name, shape, np.uint8)
        for row, position in enumerate(positions):
            array[row] = images[position]
            if row % splits.PAGED == 0:
                drop_pages(array)
                drop_pages(images)
    create(f"{split}_labels", labels.shape, np.int64)[:] = labels
    return len(labels)


def discard_journals(folder: Path) -> None:
    """Remove the journals of a folder, whose arrays are finished."""
    for path in folder.glob(JOURNALS):
        path.unlink()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on a Mac
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _decoded(works: Sequence[Work], processes: int) -> Iterator[tuple[Work, Done | str]]:
    """Yield each shard, in any order, with its hashes, or with what is wrong with its files."""
    path = works[0].rows
    if not isinstance(path, Path):  # in memory
        yield from ((work, _decode(work)) for work in works)
        return
    journal = path.with_name(f".{path.stem}.journal")
    kept = {work.number: done for work, done in _kept(works, journal)}
    yield from ((works[number], done) for number, done in kept.items())
    waiting = [work for work in works if work.number not in kept]
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of threads
    with (
        journal.open("a", encoding="utf-8") as lines,
        ProcessPoolExecutor(processes, context, _end_with_parent) as pool,
    ):
        futures = {pool.submit(_decode, work): work for work in waiting}
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


def _kept(works: Sequence[Work], journal: Path) -> Iterator[tuple[Work, Done]]:
    """Yield the shards that are on the disk as the journal says."""
    noted = {done.number: done for done in _noted(journal)}
    for work in works:
        done, path = noted.get(work.number), work.rows
        assert isinstance(path, Path)
        if done and done.state == work.state() and done.sha256 == _hash(path):
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


def _decode(work: Work) -> Done | str:
    """Decode a shard into its array, and wait until it is on the disk."""
    path = work.rows if isinstance(work.rows, Path) else None
    rows: Any = work.rows if path is None else np.load(path, mmap_mode="r+")
    state, source = work.state(), hashlib.sha256()
    images = pictures.decoded(work.files, work.folder, rows.shape[-1], source, frame=work.frame)
    try:
        for number, image in enumerate(images):
            rows[number] = image
            if number % splits.PAGED == 0:
                drop_pages(rows)
    except DataError as error:
        return str(error)
    if path is None:
        return Done(work.number, state, "", source.hexdigest())
    rows.flush()
    return Done(work.number, state, _hash(path), source.hexdigest())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed."""
    parent: Any = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
