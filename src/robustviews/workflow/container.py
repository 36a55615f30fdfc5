"""The image that jobs run in, as Snakemake's notes, which git keeps, may name it."""

from __future__ import annotations

import re
from pathlib import Path

from robustviews.artifacts import ArtifactError

_LOGIN = re.compile(r"(^|//)[^/]*@(?!sha256:)")  # `user:password@` before the registry


class ImageError(ArtifactError):
    """An image is named in a way that must not be noted; the message says how to name it."""


def named(image: str, root: Path = Path()) -> str:
    """Return how Snakemake is told of an image.

    Args:
        image: URL such as `docker://ghcr.io/lab/robustviews:1`, or a file.
        root: project folder.

    Returns:
        The URL; of a file its path relative to the project, which says nothing of where that lies.

    Raises:
        ImageError: it holds a password, or is a file outside of the project.
    """
    if "://" not in image and image.startswith(("/", ".", "~")):
        return _file(Path(image).expanduser(), root)
    if _LOGIN.search(image):
        bare = _LOGIN.sub(r"\1", image)
        raise ImageError(
            f"image={bare}: found user:password@ before the registry, which "
            "notes of results would keep; expected none: put them in the environment as "
            "APPTAINER_DOCKER_USERNAME and APPTAINER_DOCKER_PASSWORD"
        )
    return image


def _file(path: Path, root: Path) -> str:
    try:
        # Not resolved: a link in the project stands for the file, wherever that lies.
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise ImageError(
            f"image={path.name}: expected a file in the project folder, as notes of results keep "
            f"its path; link it there: ln -s {path} {path.name}   and name image=./{path.name}"
        ) from None
