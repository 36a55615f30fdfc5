"""Options and steps that attacks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.attacks.primitive import Loss, Norm, pgd
from robustviews.attacks.protocol import Precision
from robustviews.options import LazyModule, option, plan_only

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """What attacks within a ball share.

    Attributes:
        eps: radii, in 1/255; in L2, lengths of the perturbation of an image in [0, 1].
        images: number of test images to attack, a fixed choice; null attacks all.
        craft_precision: arithmetic of the encoder while examples are computed, as `precision` of a
            run; scores are always fp32.
    """

    eps: tuple[float, ...] = option(..., gt=0, le=255)
    images: int | None = option(None, ge=1)
    craft_precision: Precision = "fp32"
    whole_images: ClassVar[bool] = True
    fixed_batch: ClassVar[bool] = True

    @property
    @plan_only
    def crafted(self) -> str:
        """Return the precision of examples as a part of a description; nothing for fp32."""
        return "" if self.craft_precision == "fp32" else f", crafted in {self.craft_precision}"


@dataclass(frozen=True, kw_only=True)
class ProjectedGradient(Bounded):
    """What attacks by projected gradient steps share.

    Attributes:
        steps: gradient steps.
        restarts: number of tries.
        random_start: start at a uniform point in the ball.
    """

    steps: int = option(20, ge=1)
    restarts: int = option(1, ge=1)
    random_start: bool = True

    def __post_init__(self) -> None:
        """Refuse tries that would all be the same."""
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts: {self.restarts} needs random_start: true")

    @property
    @plan_only
    def passes(self) -> float:
        """Return one pass per step."""
        return float(self.steps * self.restarts)

    @plan_only
    def described(self, name: str, *, size: str, keep: str = "last", weak: str = "") -> str:
        """Return a name, the steps and their size, the start, and whatever is not the default."""
        start = "random start" if self.random_start else "no random start"
        restarts = f", {self.restarts} restarts" if self.restarts > 1 else ""
        iterate = "" if keep == "last" else f", {keep} iterate"
        reason = f" (weak: {weak})" if weak else ""
        steps = f"{self.steps} steps of {size}"
        return f"{name}, {steps}, {start}{restarts}{iterate}{self.crafted}{reason}"

    def ascend(
        self,
        loss: Loss,
        images: Tensor,
        *,
        eps: float,
        step_size: float,
        seed: int,
        keep: Literal["last", "worst"] = "last",
        norm: Norm = "linf",
    ) -> Tensor:
        """Return what `pgd` makes of images; arguments as there, and the seed of random starts."""
        return pgd(
            loss,
            images,
            eps=eps,
            step_size=step_size,
            steps=self.steps,
            generator=torch.Generator(images.device).manual_seed(seed),
            random_start=self.random_start,
            restarts=self.restarts,
            keep=keep,
            norm=norm,
        )
