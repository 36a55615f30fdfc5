"""Image files in one folder per class: which files are data, and what each of them shows.

What tools leave in a folder is no data, and what is not data but might be meant as such is an
error: a data set that is not all here must not be taken for a smaller one.
"""

from __future__ import annotations

import difflib
import io
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from robustviews.datasets import framing
from robustviews.datasets.splits import DataError, Hash, Images, Labels, text_lines
from robustviews.machine.humanize import some

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
Frame = Callable[["Image", int], "Image"]  # makes a square of a size from a picture

# What tools for files leave beside the data, in lower case; hidden files are left out as well.
_LITTER = {"$recycle.bin", "@eadir", "__macosx", "__pycache__", "lost+found"}
_LITTER |= {"desktop.ini", "ehthumbs.db", "thumbs.db"}
# Formats that Pillow reads by itself: for .eps it would start Ghostscript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_DEEP = ("I", "F")  # modes of more than 8 bits, such as I;16, which Pillow clips to 255
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # right-to-left and back


def class_names(class_list: str, train: Path, test: Path) -> Sequence[str]:
    """Return the classes in a list file; without a file, the folders of the training split.

    Raises:
        DataError: the list cannot be read, there are fewer than two classes, or the splits have
            other class folders.
    """
    if class_list:
        names = read_list(Path(class_list).expanduser(), "no such class list; correct `class_list`")
        check_names(names, class_list)
        return names
    names = _class_folders(train)
    check_names(names, str(train))
    extra = [name for name in _class_folders(test) if name not in names]
    if extra:
        raise DataError(
            f"{test}: has class folders that {train} lacks: {some(extra)}; add them there, "
            "remove them, or name the classes in `classes`"
        )
    return names


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse fewer than two classes, which no classifier gets wrong, and a repeated class."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or len(names) < 2:
        found = f"only `{names[0]}`" if names else "none"
        found = f"`{repeated[0]}` twice" if repeated else found
        raise DataError(f"{where}: expected class folders, each once, at least 2, found {found}")


def find_images(folder: Path, names: Sequence[str]) -> tuple[list[Path], Labels]:
    """Return the files of the named classes, without hidden files and litter, and their labels.

    Raises:
        DataError: a class or its images are missing, or some files cannot be used.
    """
    folders, files, labels = _class_folders(folder), [], []
    for name in names:
        if name not in folders:
            raise DataError(f"{folder / name}: no such class folder; {_nearest(name, folders)}")
    problems: dict[str, list[str]] = {}
    for label, name in enumerate(names):
        images = sorted(_walk(folder / name, problems))
        files += images
        labels += [label] * len(images)
        if not images and not problems:
            raise DataError(f"{folder / name}: no image in it; add some or leave the class out")
    _refuse(folder, problems)
    return files, np.array(labels, dtype=np.int64)


def decoded(
    files: Iterable[Path],
    folder: Path,
    size: int,
    source: Hash,
    *,
    frame: Frame = framing.centre,
) -> Iterator[Images]:
    """Yield a square of each image file, (3, size, size), and hash the files.

    Args:
        files: image files.
        folder: folder that a message names.
        size: height and width, in pixels.
        source: hash, which is given the names and contents of the files.
        frame: makes the square, by default the central one.

    Raises:
        DataError: at the end, with all files that are damaged or no images.
    """
    problems = []
    for path in files:
        try:
            pixels = frame(read(path, source), size)
            image = np.asarray(pixels).transpose(2, 0, 1)
        except DataError as error:
            problems.append(str(error))
            image = np.zeros((3, size, size), dtype=np.uint8)
        yield image
    if problems:
        shown = some(problems, between="\n  ")
        raise DataError(f"{folder}: replace or remove, found {len(problems)}:\n  {shown}")


def read(path: Path, source: Hash) -> Image:
    """Return an image file as RGB, and add its name and content to a hash.

    Raises:
        DataError: it is damaged, no image, has more than 8 bits per value, or is transparent.
    """
    mode, image, alpha = load(path, source, _opaque)
    if mode.startswith(_DEEP):
        raise DataError(f"{path}: more than 8 bits per value (mode {mode}); convert it to 8")
    if alpha is not None and min(alpha.tobytes()) < 255:
        text = "transparent pixels, which look as their background does"
        raise DataError(f"{path}: {text}; give it one: magick mogrify -background white -flatten")
    return image


def load(
    path: Path,
    source: Hash,
    decode: Callable[[Image], T],
    formats: tuple[str, ...] = _FORMATS,
) -> T:
    """Return what a function makes of an opened image file, and hash its name and content."""
    from PIL import Image, UnidentifiedImageError

    try:
        content = path.read_bytes()
        source.update(f"{path.parent.name}/{path.name}:{len(content)}:".encode() + content)
        with Image.open(io.BytesIO(content), formats=formats) as file:
            return decode(file)
    except UnidentifiedImageError:  # its message names the object in memory
        reason = f"none of {', '.join(formats)}"
        raise DataError(f"{path}: damaged, or no image ({reason})") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: damaged, or no image ({error})") from None


def _opaque(file: Image) -> tuple[str, Image, Image | None]:
    """Return the mode of a file, its RGB image, and its alpha channel if it has transparency."""
    mode, image = file.mode, file.convert("RGB")
    alpha = file.convert("RGBA").getchannel("A") if file.has_transparency_data else None
    return mode, image, alpha


def read_list(path: Path, missing: str) -> list[str]:
    """Return the lines of a text file, without comments and blank lines.

    Args:
        path: the file.
        missing: what a message says if there is no such file.
    """
    if not path.is_file():
        raise DataError(f"{path}: {missing}")
    lines = [line.strip() for line in text_lines(path, path.read_bytes())]
    return [line for line in lines if line and not line.startswith("#")]


def by_stem(folder: Path) -> dict[str, Path]:
    """Return the files in a folder by their names without endings, sorted."""
    files, problems = dict[str, Path](), dict[str, list[str]]()
    for path in _entries(folder):
        _check(path, problems)
        if path.stem in files:
            text = "names that differ in their endings only; remove one of both"
            problems.setdefault(text, []).append(path.name)
        if path.is_file():
            files[path.stem] = path
    _refuse(folder, problems)
    return files


def _class_folders(folder: Path) -> list[str]:
    """Return the names of a split's class folders, sorted."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; correct `root`, `train` or `test`")
    names: list[str] = []
    problems: dict[str, list[str]] = {}
    for path in _entries(folder):
        _check(path, problems)
        if path.is_dir():
            names.append(path.name)
    looks = [_look(name) for name in names]
    alike = [name for name in names if looks.count(_look(name)) > 1]
    if alike:
        problems["names that look the same; rename one of them"] = [ascii(name) for name in alike]
    _refuse(folder, problems)
    if not names:
        raise DataError(f"{folder}: expected a folder for each class, found none; correct `root`")
    return names


def _walk(folder: Path, problems: dict[str, list[str]]) -> Iterator[Path]:
    """Yield the files in a class folder, on every level; add those that cannot be used."""
    for path in _entries(folder):
        _check(path, problems)
        if path.is_dir() and path.is_symlink():
            text = "links to folders, which are not followed; replace them by the folders"
            problems.setdefault(text, []).append(str(path))
        elif path.is_dir():
            yield from _walk(path, problems)
        elif path.is_file():
            yield path


def _entries(folder: Path) -> list[Path]:
    """Return what a folder holds, without hidden files and litter."""
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}; see: ls -ld") from None
    return sorted(
        path for path in paths if path.name[0] != "." and path.name.lower() not in _LITTER
    )


def _check(path: Path, problems: dict[str, list[str]]) -> None:
    """Add a path that leads to no file, or whose name cannot be written or shown as text."""
    if path.is_symlink() and not path.exists():
        text = "links that lead nowhere; fetch their files (git annex get, dvc checkout) or remove "
        problems.setdefault(f"{text}the links", []).append(str(path))
    try:
        path.name.encode()
    except UnicodeEncodeError:
        text = "names that are not UTF-8; rename them"
        problems.setdefault(text, []).append(repr(os.fsencode(path.name)))
    if any(unicodedata.category(char) == "Cc" or char in _TURNING for char in path.name):
        text = "names with control characters, which may hide what they say; rename them"
        problems.setdefault(text, []).append(ascii(path.name))


def _refuse(folder: Path, problems: dict[str, list[str]]) -> None:
    """Raise DataError with the number of each kind of problem, and the first paths of it."""
    if problems:
        texts = (f"{len(paths)} {kind}: {some(paths)}" for kind, paths in problems.items())
        raise DataError(f"{folder}: " + "; ".join(texts))


def _look(name: str) -> str:
    """Return what a reader sees of a name: composed characters, no invisible ones."""
    seen = unicodedata.normalize("NFKC", name).strip()
    return "".join(char for char in seen if unicodedata.category(char) != "Cf")


def _nearest(name: str, folders: Sequence[str]) -> str:
    """Return the folder that was probably meant, as the end of a message."""
    for folder in folders:
        if _look(folder) == _look(name):
            return f"{folder!a} looks the same as {name!a}; rename it"
    (close,) = difflib.get_close_matches(name, folders, n=1, cutoff=0)
    return f"the nearest is `{close}`"
