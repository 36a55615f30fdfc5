"""The layout of Pascal VOC: names of classes, lists of images, annotations in XML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from robustviews.datasets import dense, pictures, splits
from robustviews.datasets.dense import Annotated
from robustviews.datasets.sources import ENVIRONMENT, source_folder
from robustviews.datasets.splits import DataError, Hash

_CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)
CLASSES = tuple(_CLASSES.split())
_LARGEST = 10_000_000  # bytes of an annotation; 1,000 objects take about 300,000
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Layout:
    """A data set in this layout, and the images of a part.

    Attributes:
        folder: holds `JPEGImages`, `ImageSets`, and `Annotations` or `SegmentationClass`.
        listed: file that names the images of the part.
        names: of the images, without endings.
    """

    folder: Path
    listed: Path
    names: tuple[str, ...]

    @classmethod
    def find(cls, root: str, folder: str, task: str, part: str) -> Layout:
        """Return the layout, downloaded if it is an official one and no folder is named.

        Args:
            root: folder that holds `folder`; empty as in `sources.source_folder`.
            folder: such as `VOCdevkit/VOC2007`.
            task: folder of lists, `Main` or `Segmentation`.
            part: name of a list, without ending.
        """
        source, downloads = source_folder(root)
        assert source is not None
        path = source / folder / "ImageSets" / task / f"{part}.txt"
        reason = _download(source, folder, part) if downloads and not path.is_file() else ""
        bring = "bring the archives of http://host.robots.ox.ac.uk/pascal/VOC, unpacked in "
        bring += f"{source}, or set {ENVIRONMENT} to the folder that has {folder}"
        bring = f"no such list{reason}; correct root, folder, train or test, or {bring}"
        names = pictures.read_list(path, bring)
        if len(set(names)) < len(names):
            twice = next(name for number, name in enumerate(names) if name in names[:number])
            raise DataError(f"{path}: {twice!r} occurs twice; remove one of both lines")
        return cls(source / folder, path, tuple(names))

    def files(self, kind: str) -> list[Path]:
        """Return the file of each image in a folder such as `Annotations`."""
        folder = self.folder / kind
        files = pictures.by_stem(dense.present(folder, f"correct `folder`, {self.folder.name}"))
        lacking = [name for name in self.names if name not in files]
        if lacking:
            more = f", and {len(lacking) - 1} more" if lacking[1:] else ""
            text = f"no such file, but {self.listed} names it{more}"
            raise DataError(f"{folder / lacking[0]}.*: {text}; add it or remove the line")
        return [files[name] for name in self.names]


def _download(source: Path, folder: str, part: str) -> str:
    """Download an official data set with torchvision; return what went wrong, for a message."""
    from torchvision.datasets import VOCDetection

    year = folder.removeprefix("VOCdevkit/VOC")
    try:
        VOCDetection(source, year=year, image_set=part, download=True)
    except (OSError, RuntimeError, ValueError) as error:
        return f" ({error})"
    return ""


def annotated(image: Path, path: Path, source: Hash, *, difficult: bool) -> Annotated:
    """Return the objects that an XML file states.

    Args:
        image: file of the image.
        path: the XML file.
        source: hash, which is given the name and content of the XML file.
        difficult: keep objects that are marked as difficult.
    """
    root = _parse(path, source)
    width, height = (_side(root.findtext(f"size/{name}", "")) for name in ("width", "height"))
    found = root.findall("object")
    kept = [one for one in found if difficult or one.findtext("difficult", "").strip() != "1"]
    objects = [(one.findtext("name", "").strip(), *_corners(path, one)) for one in kept]
    sides = (width, height) if width and height else None
    return Annotated(image, path, sides, objects, len(found) - len(kept))


def _side(text: str) -> int:
    """Return a stated number of pixels; 0 if it is none, as some tools write."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _parse(path: Path, source: Hash) -> ElementTree.Element:
    """Return the root of an XML file, and add its name and content to a hash.

    A document type is refused: only it can define entities, which make a small file a huge one.
    """
    content = splits.content(path, "see: ls -l")
    if len(content) > _LARGEST:
        raise DataError(f"{path}: expected at most {_LARGEST} bytes, found {len(content)}")
    source.update(f"{path.name}:{len(content)}:".encode() + content)
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(content)
        root: ElementTree.Element = parser.close()
    except _DocumentTypeError:
        raise DataError(f"{path}: has a document type; remove <!DOCTYPE ...>") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path}: no XML ({error}); correct the file") from None
    return root


class _DocumentTypeError(Exception):
    """An XML file has a document type."""


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, *declared: str | None) -> None:
        raise _DocumentTypeError(*declared)


def _corners(path: Path, item: ElementTree.Element) -> tuple[float, ...]:
    """Return x1, y1, x2, y2 of an object, from 0: VOC counts pixels from 1, both ends included.

    A box that ends where it begins is not one pixel wide, but a slip of a tool: it stays empty.

    Raises:
        DataError: the object has no box.
    """
    texts = [item.findtext(f"bndbox/{name}", "").strip() for name in _CORNERS]
    try:
        left, top, right, bottom = (float(text) for text in texts)
    except ValueError:
        left = top = right = bottom = math.nan
    if not all(math.isfinite(value) for value in (left, top, right, bottom)):
        expected = f"expected a bndbox with numbers {', '.join(_CORNERS)}"
        raise DataError(f"{path}: {item.findtext('name')}: {expected}, found {texts}; correct it")
    first = 1 if right > left and bottom > top else 0
    return left - first, top - first, right, bottom
