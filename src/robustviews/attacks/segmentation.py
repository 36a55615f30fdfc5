"""Attacks on segmentation: projected gradients on a loss of the pixels, and SEA.

Labels are (B, H, W), `VOID` for pixels that do not count; a model maps images (B, 3, H, W) in
[0, 1] to logits (B, K, H, W). Of several adversarial images, the one with the most wrong pixels is
taken. No result depends on void pixels, nor, but for random starts and rounding, on the other
images of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.attacks import apgd, pixel_losses
from robustviews.attacks.bounded import Bounded, ProjectedGradient
from robustviews.attacks.primitive import Judged, Norm
from robustviews.options import LazyModule, option, plan_only
from robustviews.tasks.protocol import VOID

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.attacks.protocol import Model
else:
    torch = LazyModule("torch")

_REACH = 2.5  # radii that all steps cover together by default, as in Madry et al. 2018
_LARGEST_STEP = 2.0  # radii: the way through the ball
_ROUNDING = 1e-9  # relative
_SEA_LOSSES: tuple[pixel_losses.Name, ...] = (
    "masked_cross_entropy",
    "segpgd",
    "jensen_shannon",
    "masked_spherical",
)
_PUBLISHED_STEPS = 300  # of SEA, per loss
_TITLES = {"cross_entropy": "PGD on pixels", "segpgd": "SegPGD", "cospgd": "CosPGD"}


@dataclass(frozen=True, kw_only=True)
class SegmentationPgd(ProjectedGradient):
    """Projected gradient ascent on a loss of the pixels: PGD, SegPGD or CosPGD.

    Attributes:
        relative_step: size of a step as a fraction of each radius; null for 2.5 / `steps`, and 2
            for one step.
        random_start: start at a uniform point in the ball, as the authors' code of CosPGD does.
        keep: result of a try. `last`: the last iterate; `worst`: the first iterate with the most
            wrong pixels. Of several tries, the one with the most.
        loss: `cross_entropy`; `segpgd` weighs right and wrong pixels by the step (Gu et al. 2022),
            `cospgd` by the softmax (Agnihotri et al. 2024).
        norm: of the ball, `linf` or `l2`.
    """

    relative_step: float | None = option(None, gt=0, le=2)
    keep: Literal["last", "worst"] = "last"
    loss: Literal["cross_entropy", "segpgd", "cospgd"] = "cross_entropy"
    norm: Norm = "linf"
    task: ClassVar[str] = "segmentation"

    @plan_only
    def describe(self) -> str:
        """Return loss, norm, steps, their size, the start, and which iterate is taken."""
        norm = "" if self.norm == "linf" else f" ({self.norm.upper()})"
        name = f"{_TITLES[self.loss]}{norm}"
        return self.described(name, size=f"{self.step:g} eps", keep=self.keep)

    @property
    def step(self) -> float:
        """Return the size of a step as a fraction of the radius."""
        return self.relative_step or min(_REACH / self.steps, _LARGEST_STEP)

    @plan_only
    def comparable(self) -> str:
        """Return that only the same attack is comparable."""
        return "compares only with the same loss, steps, step size and start."

    def __post_init__(self) -> None:
        """Refuse restarts that repeat one attack, and steps that cannot reach the surface."""
        super().__post_init__()
        reach = self.steps * (self.relative_step or _REACH)
        if reach < 1 - _ROUNDING:
            raise ValueError(
                f"relative_step: {self.steps} steps reach only {reach:g} of the radius; "
                f"write {1 / self.steps:.2g} or more, or leave it out"
            )

    def perturb(
        self, model: Model, images: Tensor, labels: Tensor, *, eps: float, seed: int
    ) -> Tensor:
        """Return adversarial images (B, 3, H, W) for labels (B, H, W); eps in pixel units."""
        _check(images, labels)
        return self.ascend(
            _PixelAscent(model, labels, self.loss, self.steps),
            images,
            eps=eps,
            step_size=eps * self.step,
            seed=seed,
            keep=self.keep,
            norm=self.norm,
        )


class _PixelAscent:
    """A loss for `pgd` that depends on the step.

    In each try, `pgd` calls its loss once per step, and at the end once more if it has to choose;
    without a choice there is one try. So the number of a call gives that of the step.
    """

    def __init__(self, model: Model, labels: Tensor, loss: pixel_losses.Name, steps: int) -> None:
        self._model, self._labels, self._loss, self._steps = model, labels, loss, steps
        self._calls = 0

    def __call__(self, adversarial: Tensor) -> Judged:
        """Return the number of wrong pixels, by which `pgd` chooses, with the loss's gradient."""
        progress = self._calls % (self._steps + 1) / self._steps
        self._calls += 1
        logits = self._model(adversarial)
        loss = pixel_losses.image_loss(self._loss, logits, self._labels, progress=progress)
        wrong = pixel_losses.wrong_pixels(logits, self._labels)
        counted = self._labels.ne(VOID).sum(dim=(1, 2))
        return Judged(wrong + (loss - loss.detach()), wrong == counted)


@dataclass(frozen=True, kw_only=True)
class Sea(Bounded):
    """The segmentation ensemble attack (SEA): APGD on four losses, the worst case of each image.

    Attributes:
        steps: iterations for each loss; published with 300.
        random_start: start at a uniform point in the first ball, as published.
    """

    steps: int = option(100, ge=1)
    random_start: bool = True
    norm: ClassVar[Norm] = "linf"
    task: ClassVar[str] = "segmentation"

    @property
    @plan_only
    def passes(self) -> float:
        """Return one pass per step and one per start, of which each loss has three."""
        return float(len(_SEA_LOSSES) * (self.steps + 3))

    @plan_only
    def describe(self) -> str:
        """Return the name, the iterations, and the start if it is not the published one."""
        start = "" if self.random_start else ", no random start"
        return f"SEA, {self.steps} steps for each loss{start}{self.crafted}"

    @plan_only
    def comparable(self) -> str:
        """Return whether this is the published version."""
        if (self.steps, self.random_start, self.images) == (_PUBLISHED_STEPS, True, None):
            return "has the published number of steps, comparable with SEA in other papers."
        return "is a reduced version: do not compare it with published SEA."

    def perturb(
        self, model: Model, images: Tensor, labels: Tensor, *, eps: float, seed: int
    ) -> Tensor:
        """Return, for each image, the adversarial image with the most wrong pixels of `parts`."""
        worst, *others = self.parts(model, images, labels, eps=eps, seed=seed).values()
        for part in others:
            worst = apgd.choose(worst, part, part.wrong > worst.wrong)
        return worst.images

    def parts(
        self, model: Model, images: Tensor, labels: Tensor, *, eps: float, seed: int
    ) -> dict[str, apgd.Point]:
        """Return the result of each loss by its name; arguments as in `perturb`."""
        _check(images, labels)
        generator = torch.Generator(images.device).manual_seed(seed)
        found: dict[str, apgd.Point] = {}
        for loss in _SEA_LOSSES:
            start = images
            if self.random_start:
                noise = torch.empty_like(images).uniform_(-2 * eps, 2 * eps, generator=generator)
                start = images + noise
            look = apgd.look_with(model, labels, loss)
            found[loss] = apgd.shrinking(look, images, start, eps=eps, steps=self.steps)
        return found


def _check(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError for labels that are not those of the pixels of whole images."""
    if images.dim() != 4 or labels.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            "attack on segmentation: expected images (B, 3, H, W) and labels (B, H, W), found "
            f"{tuple(images.shape)} and {tuple(labels.shape)}; write kind: pgd for labels of images"
        )
