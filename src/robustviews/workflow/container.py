"""The image in which jobs run, named as Snakemake's metadata, which git tracks, may name it."""

from __future__ import annotations

from pathlib import Path

from robustviews.artifacts import ArtifactError
from robustviews.artifacts.records import without_login


class ImageError(ArtifactError):
    """An image name must not get into the metadata; the message says how to name the image."""


def named(image: str) -> str:
    """Return the name of an image for Snakemake.

    Args:
        image: URL such as `docker://ghcr.io/lab/robustviews:1`, or a file.

    Returns:
        The URL; or a file's path relative to the project, which does not reveal other folders.

    Raises:
        ImageError: the URL holds a password, or the file is outside the project.
    """
    if "://" not in image and image.startswith(("/", ".", "~")):
        return _file(Path(image).expanduser())
    bare = without_login(image)
    if bare != image:
        raise ImageError(
            f"image={bare}: found user:password@ before the registry, which "
            "Snakemake's metadata would store; expected none: set the environment variables "
            "APPTAINER_DOCKER_USERNAME and APPTAINER_DOCKER_PASSWORD"
        )
    return image


def _file(path: Path) -> str:
    try:
        # Not resolved: a link in the project may point to a file anywhere.
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except ValueError:
        raise ImageError(
            f"image={path.name}: expected a file in the project folder, as Snakemake's "
            f"metadata stores its path; link it there: ln -s {path} {path.name}   "
            f"and name image=./{path.name}"
        ) from None
