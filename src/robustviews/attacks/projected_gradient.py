"""Projected gradient descent (PGD) as an attack of an evaluation, and the table of all attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.attacks.autoattack import AutoAttack
from robustviews.attacks.bounded import ProjectedGradient
from robustviews.attacks.detection import DetectionPgd
from robustviews.attacks.objectives import DISTANCES, LOSSES, SAME, Name
from robustviews.attacks.primitive import Judged, Loss, Norm
from robustviews.attacks.radii import fraction, to_pixels
from robustviews.attacks.segmentation import Sea, SegmentationPgd
from robustviews.attacks.worst_case import WorstOf
from robustviews.options import LazyModule, option, plan_only, remark, switch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.attacks.protocol import Attack, Model
else:
    torch = LazyModule("torch")


@dataclass(frozen=True, kw_only=True)
class PgdAttack(ProjectedGradient):
    """Projected gradient ascent on a loss of the logits, or on a distance between features.

    Attributes:
        steps: gradient steps (switch `test_pgd_steps`). Code: 2 for EMP-SSL by default, which
            cannot reach 8/255, and 20 for SimCLR; paper: 20.
        step_size: in the unit of `eps`; 2.55 is the paper's 0.01, for every radius.
        relative_step: size of a step as a fraction of each radius, in place of `step_size`.
        restarts: number of tries. An image counts as misclassified if any try fools the classifier.
        keep: result of a try. `last`: the last iterate (paper and code); `worst`: an iterate that
            fools the classifier if there is one, else the one with the largest loss.
        loss: a name of `objectives`: `cross_entropy` or `ce` (paper and code), `margin` or `cw`,
            `dlr`; `feature_mse` and `feature_cosine` see no labels and need a random start, since
            their gradient is zero at the image. `restarts` and `keep` then take what is furthest.
        norm: of the ball, `linf` (paper and code) or `l2`; each view of a stack has its own ball.
        ncrop_images: the same for heads of n-crop probes, where an image costs n times as much;
            null attacks as many as of other heads.
        weak: why steps that cannot reach the surface of the ball are wanted.
    """

    steps: int = switch(
        20, ge=1, name="test_pgd_steps", code={"emp_ssl": (2,), "simclr": (20,)}, paper=(20,)
    )
    step_size: float | None = option(2.55, gt=0, le=255)
    relative_step: float | None = option(None, gt=0, le=2)
    random_start: bool = False
    keep: Literal["last", "worst"] = "last"
    loss: Name = "cross_entropy"
    norm: Norm = "linf"
    ncrop_images: int | None = option(None, ge=1)
    weak: str = remark()
    whole_images: ClassVar[bool] = False

    @plan_only
    def describe(self) -> str:
        """Return norm, steps, step size, start, and whatever is not the paper's."""
        name = "PGD" if self.norm == "linf" else f"{self.norm.upper()} PGD"
        loss = "" if self.loss == "cross_entropy" else f" on the {self.loss} loss"
        absolute = self.step_size
        size = fraction(absolute, self.norm) if absolute else f"{self.relative_step:g} eps"
        return self.described(f"{name}{loss}", size=size, keep=self.keep, weak=self.weak)

    @plan_only
    def comparable(self) -> str:
        """Return that only the same PGD is comparable."""
        return (
            "compares only with PGD of the same steps, step size and start; AutoAttack is stronger."
        )

    def __post_init__(self) -> None:
        """Take one of both step sizes and one name of each loss; refuse starts that cannot work."""
        default = type(self).step_size
        if self.relative_step is not None:
            if self.step_size not in (None, default):
                raise ValueError("relative_step: replaces step_size; remove one of both")
            object.__setattr__(self, "step_size", None)
        elif self.step_size is None:
            raise ValueError("step_size: write a size, or relative_step: 0.1 of each radius")
        object.__setattr__(self, "loss", SAME.get(self.loss, self.loss))
        super().__post_init__()
        if self.loss in DISTANCES and not self.random_start:
            raise ValueError(f"loss: {self.loss} needs random_start: true")

    def perturb(
        self, model: Model, images: Tensor, labels: Tensor, *, eps: float, seed: int
    ) -> Tensor:
        """Return PGD examples for inputs (B, ...) in [0, 1] and labels (B,); eps in pixel units."""
        relative, absolute = self.relative_step, self.step_size
        return self.ascend(
            self._objective(model, images, labels),
            images,
            eps=eps,
            step_size=eps * relative if relative else to_pixels(absolute or 0.0, self.norm),
            seed=seed,
            keep=self.keep,
            norm=self.norm,
        )

    def _objective(self, model: Model, images: Tensor, labels: Tensor) -> Loss:
        if self.loss in DISTANCES:
            return self._away(model, images)

        def judge(adversarial: Tensor) -> Judged:
            logits = model(adversarial)
            return Judged(LOSSES[self.loss](logits, labels), logits.argmax(dim=1) != labels)

        return judge

    def _away(self, model: Model, images: Tensor) -> Loss:
        """Return the distance of features from those of the images; it judges nothing as fooled."""
        features = getattr(model, "features", None)
        if features is None:
            raise ValueError(
                f"loss: {self.loss} needs a classifier with a method `features`, as those that "
                "robustviews.load_classifier returns; or write loss: cross_entropy"
            )
        with torch.no_grad():
            clean = features(images)

        def judge(adversarial: Tensor) -> Judged:
            distance = DISTANCES[self.loss](features(adversarial), clean)
            return Judged(distance, torch.zeros_like(distance, dtype=torch.bool))

        return judge


ATTACKS: dict[str, type[Attack]] = {
    "pgd": PgdAttack,
    "autoattack": AutoAttack,
    "worst_case": WorstOf,
    "segmentation_pgd": SegmentationPgd,
    "sea": Sea,
    "detection_pgd": DetectionPgd,
}
