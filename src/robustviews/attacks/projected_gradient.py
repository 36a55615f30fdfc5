"""Projected gradient descent (PGD) as an attack of an evaluation, and the table of all attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from robustviews.attacks.autoattack import AutoAttack
from robustviews.attacks.primitive import pgd
from robustviews.attacks.radii import fraction, in_pixels
from robustviews.options import LazyModule, option, plan_only

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.attacks.protocol import Attack, Model
else:
    torch = LazyModule("torch")


@dataclass(frozen=True)
class PgdAttack:
    """Projected gradient ascent on the cross-entropy.

    Attributes:
        eps: radii, in 1/255.
        steps: gradient steps (switch `test_pgd_steps`). Code: 2 for EMP-SSL by default, which
            cannot reach 8/255, and 20 for SimCLR; paper: 20.
        step_size: in 1/255; 2.55 is the paper's 0.01, for every radius.
        restarts: number of tries; the try with the largest loss counts.
        random_start: start at a uniform point in the ball.
        images: number of test images to attack, a fixed choice; null attacks all.
    """

    eps: tuple[float, ...] = option(..., gt=0, le=255)
    steps: int = option(20, ge=1)
    step_size: float = option(2.55, gt=0, le=255)
    restarts: int = option(1, ge=1)
    random_start: bool = False
    images: int | None = option(None, ge=1)
    whole_images: ClassVar[bool] = False
    fixed_batch: ClassVar[bool] = True

    @property
    @plan_only
    def passes(self) -> float:
        """Return one pass per step."""
        return float(self.steps * self.restarts)

    @plan_only
    def describe(self) -> str:
        """Return steps, step size, start and restarts."""
        start = "random start" if self.random_start else "no random start"
        restarts = f", {self.restarts} restarts" if self.restarts > 1 else ""
        return f"PGD, {self.steps} steps of {fraction(self.step_size)}, {start}{restarts}"

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

        def loss(adversarial: Tensor) -> Tensor:
            return torch.nn.functional.cross_entropy(model(adversarial), labels, reduction="none")

        return pgd(
            loss,
            images,
            eps=eps,
            step_size=in_pixels(self.step_size),
            steps=self.steps,
            generator=torch.Generator(images.device).manual_seed(seed),
            random_start=self.random_start,
            restarts=self.restarts,
        )


ATTACKS: dict[str, type[Attack]] = {"pgd": PgdAttack, "autoattack": AutoAttack}
