"""Projected gradient descent (PGD) against a detector, with four goals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.attacks.bounded import ProjectedGradient
from robustviews.attacks.primitive import Judged, Loss, Norm
from robustviews.options import LazyModule, option, plan_only, remark

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.attacks.protocol import Model
    from robustviews.tasks import fcos
else:
    torch, fcos = LazyModule("torch"), LazyModule("robustviews.tasks.fcos")

Goal = Literal["untargeted", "vanishing", "fabrication", "mislabelling"]
_CONFIDENT = 0.3  # least score of a detection whose class `mislabelling` changes


@dataclass(frozen=True, kw_only=True)
class DetectionPgd(ProjectedGradient):
    """Projected gradient steps on the loss of a detector. Source: TOG, Chow et al. 2020.

    Attributes:
        goal: `untargeted` increases the loss of the true objects; `vanishing` decreases the loss
            of an image without objects; `fabrication` that of an object at each location;
            `mislabelling` that of the detector's own detections of the clean image, each with its
            most likely other class.
        losses: `all` parts of the loss, or `classification` alone, which can be the stronger one
            at small radii. `vanishing` has no other part, and `fabrication` needs no certain box.
        steps: gradient steps; 10 in TOG.
        relative_step: size of a step as a fraction of each radius; 0.25 in TOG, 2/255 of 8/255.
        random_start: start at a uniform point in the ball, as TOG.
        restarts: number of tries; the one with the largest loss counts, since no image of a
            detector is simply right or wrong.
        weak: why steps that cannot reach the surface of the ball are wanted.
    """

    goal: Goal = "untargeted"
    losses: Literal["all", "classification"] = "all"
    steps: int = option(10, ge=1)
    relative_step: float = option(0.25, gt=0, le=2)
    weak: str = remark()
    task: ClassVar[str] = "detection"
    norm: ClassVar[Norm] = "linf"
    step_size: ClassVar[float | None] = None

    @property
    @plan_only
    def needs_classes(self) -> tuple[int, str]:
        """Return how many classes the goal needs, and what to write where there are fewer."""
        return (2, "write goal: vanishing") if self.goal == "mislabelling" else (1, "")

    @plan_only
    def describe(self) -> str:
        """Return goal, losses, steps, step size and start."""
        losses = "" if self.losses == "all" else ", classification loss alone"
        name = f"{self.goal} PGD on a detector{losses}"
        return self.described(name, size=f"{self.relative_step:g} eps", weak=self.weak)

    @plan_only
    def comparable(self) -> str:
        """Return that only the same attack on the same kind of detector is comparable."""
        return "compares only with the same goal, losses, steps and start on an FCOS detector."

    def perturb(
        self, model: Model, images: Tensor, labels: Tensor, *, eps: float, seed: int
    ) -> Tensor:
        """Return examples for images (B, 3, S, S) in [0, 1] and labels (B, M, 5).

        Args:
            model: maps images to outputs (B, A, classes + 5) as those of `tasks.detection`.
            images: square, in [0, 1].
            labels: boxes in pixels and class; only `untargeted` reads them.
            eps: radius in pixel units.
            seed: of random starts.

        Raises:
            ValueError: `mislabelling` with a single class.
        """
        loss = self._objective(model, images, labels)
        return self.ascend(loss, images, eps=eps, step_size=eps * self.relative_step, seed=seed)

    def _objective(self, model: Model, images: Tensor, labels: Tensor) -> Loss:
        size = (images.shape[-2], images.shape[-1])
        sign = 1 if self.goal == "untargeted" else -1
        with torch.no_grad():
            targets = _targets(self.goal, model(images), labels, size)

        def judge(adversarial: Tensor) -> Judged:
            parts = fcos.losses(model(adversarial), targets, size)
            alone = self.losses == "classification" or self.goal == "fabrication"
            loss = parts.classification if alone else parts.total()
            return Judged(sign * loss, torch.zeros_like(loss, dtype=torch.bool))

        return judge


def _targets(goal: Goal, clean: Tensor, labels: Tensor, size: tuple[int, int]) -> fcos.Targets:
    """Return what the locations should answer, or for `untargeted` what they should not.

    Args:
        goal: of the attack.
        clean: outputs (B, A, classes + 5) for the unperturbed images.
        labels: (B, M, 5).
        size: of the images.
    """
    if goal == "untargeted":
        return fcos.assign(labels, clean, size)
    if goal == "mislabelling":
        return fcos.assign(_mislabelled(clean, size), clean, size)
    boxes = fcos.cells(clean, size).expand(len(clean), -1, -1)  # any boxes would do
    likely = clean[..., :-5].argmax(dim=2)
    return fcos.Targets(likely if goal == "fabrication" else likely.fill_(-1), boxes)


def _mislabelled(clean: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the confident detections as labels (B, 50, 5), with the most likely other class."""
    logits = clean[..., :-5]  # (B, A, K)
    if logits.shape[2] < 2:
        raise ValueError("goal: mislabelling needs 2 classes, found 1; write goal: vanishing")
    detections, locations = fcos.detect(clean, size)
    found = detections[..., 5:].long()  # (B, 50, 1)
    logits = logits.take_along_dim(locations[..., None], dim=1)  # (B, 50, K)
    other = logits.scatter(2, found.clamp_min(0), -torch.inf).argmax(dim=2, keepdim=True)
    known = (found >= 0) & (detections[..., 4:5] >= _CONFIDENT)
    return torch.cat([detections[..., :4], torch.where(known, other, -1)], dim=2)
