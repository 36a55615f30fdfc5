"""What an attack of an evaluation must provide.

An attack perturbs inputs x of shape (B, ...) in [0, 1] by at most eps in its norm. An attack
changes neither gradients of parameters nor the mode of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from robustviews.attacks.primitive import Norm

Model = Callable[["Tensor"], "Tensor"]
Precision = Literal["fp32", "tf32", "bf16"]


class Attack(Protocol):
    """What an attack must provide; its row in `ATTACKS` names it for study files.

    Attributes:
        whole_images: whether the attack needs whole images, not stacks of views.
        fixed_batch: whether all calls of the network have the same batch size.
    """

    whole_images: ClassVar[bool]
    fixed_batch: ClassVar[bool]

    @property
    def eps(self) -> tuple[float, ...]:
        """Radii, in the unit of the norm: 1/255 for Linf, pixel units for L2."""

    @property
    def norm(self) -> Norm:
        """Norm of the ball, `linf` or `l2`."""

    @property
    def images(self) -> int | None:
        """How many test images are attacked; None for all."""

    @property
    def craft_precision(self) -> Precision:
        """Arithmetic of the encoder while examples are computed."""

    @property
    def steps(self) -> int:
        """Gradient steps of one try."""

    @property
    def passes(self) -> float:
        """Forward and backward passes per image at one radius, if no try succeeds."""

    def describe(self) -> str:
        """Return the protocol in a few words, such as `PGD, 20 steps of 2.55/255`."""

    def comparable(self) -> str:
        """Return which published numbers are comparable, as the end of a sentence."""

    def perturb(
        self, model: Model, images: Tensor, labels: Tensor, *, eps: float, seed: int
    ) -> Tensor:
        """Return perturbed inputs for a model in eval mode; eps in pixel units."""
