"""The worst case over several attacks: of each image, the answers of the lowest quality count.

A classified image is so right only if it is right under each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from robustviews.attacks.primitive import Norm
from robustviews.attacks.protocol import Precision
from robustviews.attacks.radii import flag_name
from robustviews.options import LazyModule, option, plan_only

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.attacks.protocol import Model
    from robustviews.tasks.protocol import Array, Task
else:
    torch = LazyModule("torch")


@dataclass(frozen=True)
class WorstOf:
    """The worst of several attacks on each image; it combines their flags and attacks nothing.

    Attributes:
        of: names of attacks of the study, two or more.
        eps: radii, which all of these attacks have, in their unit.
        images: smallest number of test images that they attack; null if all attack all.
        norm: of the attacks.
    """

    of: tuple[str, ...]
    eps: tuple[float, ...] = option(..., gt=0, le=255)
    images: int | None = option(None, ge=1)
    norm: Norm = "linf"
    craft_precision: ClassVar[Precision] = "fp32"
    steps: ClassVar[int] = 0
    passes: ClassVar[float] = 0.0
    whole_images: ClassVar[bool] = False
    fixed_batch: ClassVar[bool] = True

    @plan_only
    def describe(self) -> str:
        """Return the names of the attacks."""
        return f"the worst of {', '.join(self.of)} on each image"

    @plan_only
    def comparable(self) -> str:
        """Return that only the same attacks are comparable."""
        return "is at most the accuracy under each of its attacks; compare with the same ones only."

    def perturb(
        self, model: Model, images: Tensor, labels: Tensor, *, eps: float, seed: int
    ) -> Tensor:
        """Raise ValueError: a worst case has no examples of its own."""
        del model, images, labels, eps, seed
        raise ValueError("kind: worst_case combines flags; attack with each of its attacks")


def worst(answers: Sequence[Array], truth: Array, task: Task) -> Array:
    """Return, for each image, those answers (n, ...) whose quality is lowest, the first of equals.

    Args:
        answers: about the same images, one array per attack.
        truth: stored of their labels.
        task: what was asked.
    """
    chosen = np.argmin([task.quality(one, truth) for one in answers], axis=0)
    lowest: Array = np.stack(answers)[chosen, np.arange(len(chosen))]
    return lowest


def combine(
    parts: Sequence[Mapping[str, Tensor]], eps: Sequence[float], task: Task
) -> dict[str, Tensor]:
    """Return the flags of the worst case on the images that all attacks share.

    Args:
        parts: flags of each attack on one classifier, as `evaluate.evaluate` returns them; the
            images of one with fewer are among those of the others.
        eps: radii.
        task: of the classifier.

    Raises:
        ValueError: the attacks did not attack the same images.
    """
    index = min((part["index"] for part in parts), key=len)
    rows = [torch.isin(part["index"], index) for part in parts]
    for part, row in zip(parts, rows, strict=True):
        if not torch.equal(part["index"][row], index):
            raise ValueError("the attacks of a worst case have other images; run them again")
    labels = parts[0]["labels"][rows[0]]
    flags = {}
    for name in map(flag_name, (0.0, *eps)):
        answers = [part[name][row].numpy() for part, row in zip(parts, rows, strict=True)]
        flags[name] = torch.from_numpy(worst(answers, labels.numpy(), task))
    return {"index": index, "labels": labels, **flags}
