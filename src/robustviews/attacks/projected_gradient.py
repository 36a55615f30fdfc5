"""Projected gradient descent (PGD) as an attack of an evaluation, and the table of all attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.attacks.autoattack import AutoAttack
from robustviews.attacks.primitive import Judged, pgd
from robustviews.attacks.protocol import Precision, crafted_in
from robustviews.attacks.radii import fraction, in_pixels
from robustviews.options import LazyModule, option, plan_only, remark, switch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.attacks.protocol import Attack, Model
else:
    torch = LazyModule("torch")


@dataclass(frozen=True)
class PgdAttack:
    """Projected gradient ascent on a loss of the logits.

    Attributes:
        eps: radii, in 1/255.
        steps: gradient steps (switch `test_pgd_steps`). Code: 2 for EMP-SSL by default, which
            cannot reach 8/255, and 20 for SimCLR; paper: 20.
        step_size: in 1/255; 2.55 is the paper's 0.01, for every radius.
        restarts: number of tries. An image counts as misclassified if any try fools the classifier.
        random_start: start at a uniform point in the ball.
        keep: result of a try. `last`: the last iterate (paper and code); `worst`: an iterate that
            fools the classifier if there is one, else the one with the largest loss.
        loss: `cross_entropy` (paper and code) or `margin`, see `margin`.
        images: number of test images to attack, a fixed choice; null attacks all.
        ncrop_images: the same for heads of n-crop probes, where an image costs n times as much;
            null attacks as many as of other heads.
        craft_precision: arithmetic of the encoder while examples are computed, as `precision` of a
            run; scores are always fp32.
        weak: why steps that cannot reach the surface of the ball are wanted.
    """

    eps: tuple[float, ...] = option(..., gt=0, le=255)
    steps: int = switch(
        20, ge=1, name="test_pgd_steps", code={"emp_ssl": (2,), "simclr": (20,)}, paper=(20,)
    )
    step_size: float = option(2.55, gt=0, le=255)
    restarts: int = option(1, ge=1)
    random_start: bool = False
    keep: Literal["last", "worst"] = "last"
    loss: Literal["cross_entropy", "margin"] = "cross_entropy"
    images: int | None = option(None, ge=1)
    ncrop_images: int | None = option(None, ge=1)
    craft_precision: Precision = "fp32"
    weak: str = remark()
    whole_images: ClassVar[bool] = False
    fixed_batch: ClassVar[bool] = True

    @property
    @plan_only
    def passes(self) -> float:
        """Return one pass per step."""
        return float(self.steps * self.restarts)

    @plan_only
    def describe(self) -> str:
        """Return steps, step size, start, and whatever is not the paper's."""
        loss = "" if self.loss == "cross_entropy" else f" on the {self.loss} loss"
        start = "random start" if self.random_start else "no random start"
        restarts = f", {self.restarts} restarts" if self.restarts > 1 else ""
        iterate = "" if self.keep == "last" else f", {self.keep} iterate"
        steps = f"{self.steps} steps of {fraction(self.step_size)}"
        weak = f" (weak: {self.weak})" if self.weak else ""
        crafted = crafted_in(self.craft_precision)
        return f"PGD{loss}, {steps}, {start}{restarts}{iterate}{crafted}{weak}"

    @plan_only
    def comparable(self) -> str:
        """Return that only the same PGD is comparable."""
        return (
            "compares only with PGD of the same steps, step size and start; AutoAttack is stronger."
        )

    def __post_init__(self) -> None:
        """Refuse restarts without a random start, which would all be the same."""
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts: {self.restarts} needs random_start: true")

    def perturb(
        self, model: Model, images: Tensor, labels: Tensor, *, eps: float, seed: int
    ) -> Tensor:
        """Return PGD examples for inputs (B, ...) in [0, 1] and labels (B,); eps in pixel units."""

        def judge(adversarial: Tensor) -> Judged:
            logits = model(adversarial)
            return Judged(_LOSSES[self.loss](logits, labels), logits.argmax(dim=1) != labels)

        return pgd(
            judge,
            images,
            eps=eps,
            step_size=in_pixels(self.step_size),
            steps=self.steps,
            generator=torch.Generator(images.device).manual_seed(seed),
            random_start=self.random_start,
            restarts=self.restarts,
            keep=self.keep,
        )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy (B,) of logits (B, classes) and labels (B,)."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest logit of another class less the logit of the label.

    Args:
        logits: (B, classes).
        labels: (B,) int64.

    Returns:
        (B,), positive where the image is misclassified. Unlike that of the cross-entropy, the
        gradient does not vanish when the classifier is confident.

    Source: Carlini, Wagner 2017, objective f6, untargeted and without its cut-off at zero.
    """
    label = labels.unsqueeze(1)  # (B, 1)
    others = logits.scatter(1, label, -torch.inf)  # (B, classes)
    return others.max(dim=1).values - logits.gather(1, label).squeeze(1)


_LOSSES = {"cross_entropy": cross_entropy, "margin": margin}

ATTACKS: dict[str, type[Attack]] = {"pgd": PgdAttack, "autoattack": AutoAttack}
