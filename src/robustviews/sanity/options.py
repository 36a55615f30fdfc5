"""Options of the checks: the block `sanity` of a study."""

from __future__ import annotations

from dataclasses import dataclass

from robustviews.options import option

_FEWEST = 64  # images: the checks on the 64 views of each then cost an eighth of all 512


@dataclass(frozen=True)
class Sanity:
    """How much is spent on the checks of a head.

    Attributes:
        images: test images to attack, at most; of a classifier, only those that it gets right. For
            a probe that sees n views of an image, images / n, but not fewer than 64 because of
            that.
        radii: radii of PGD-20 in check AS3, in 1/255, increasing from 0.
        eps: radius of the checks AS4, AS5, AS6 and AS8, one of `radii`.
        steps: steps of PGD in check AS5, where PGD-20 has 20.
        restarts: tries from random starts in check AS5.
        queries: queries of the Square attack in check AS6.
        pixels: pixels of each image in check AS13 whose derivative is computed numerically.
    """

    images: int = option(512, ge=2)
    radii: tuple[float, ...] = option((0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0), ge=0, le=255)
    eps: float = option(8.0, gt=0, le=255)
    steps: int = option(40, ge=20)
    restarts: int = option(2, ge=1)
    queries: int = option(500, ge=1)
    pixels: int = option(64, ge=2)

    def images_of(self, stack: int) -> int:
        """Return how many images of a probe that sees `stack` views of each are attacked."""
        return max(min(self.images, _FEWEST), self.images // stack)

    def __post_init__(self) -> None:
        """Refuse radii that do not begin at 0 and increase, or do not contain `eps`."""
        if self.radii[:1] != (0.0,) or list(self.radii) != sorted(set(self.radii)):
            raise ValueError("radii: expected increasing radii from 0, such as [0, 4, 8, 64]")
        if self.eps not in self.radii:
            shown = ", ".join(f"{radius:g}" for radius in self.radii)
            raise ValueError(f"eps: expected one of radii ({shown}), found {self.eps:g}")
