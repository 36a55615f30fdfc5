"""AutoAttack by its official code, the package pyautoattack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustviews.attacks.bounded import Bounded
from robustviews.attacks.primitive import Norm
from robustviews.options import LazyModule, option, plan_only, switch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustviews.attacks.protocol import Model
else:
    torch = LazyModule("torch")

_STANDARD_STEPS, _STANDARD_QUERIES = 100, 5000  # Croce, Hein 2020
_TARGETED_CLASSES = 9  # that the targeted attacks of AutoAttack try
_FEW_CLASSES = "write version: custom, attacks: [apgd-ce, fab-t, square]"  # what to do with few
_FAB_PASSES = 1.5  # of one FAB step per target class
_OFFICIAL: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Bounded):
    """AutoAttack, the official code (package pyautoattack).

    Attributes:
        version: `standard` runs all four attacks, and papers compare it; `custom` runs only
            `attacks`.
        attacks: attacks of the custom version, in order.
        apgd_steps: iterations of APGD (switch `autoattack`): the official 100, or 10 as
            torchattacks has it since its version 3.3 (very probably the code, whose repository
            names no version).
        fab_steps: iterations of FAB: the official 100, or 10 as torchattacks since the same
            version, whose one option `steps` is for both (very probably the code).
        square_queries: queries of the Square attack; the official number is 5000.
        norm: of the ball, `linf` or `l2`.
    """

    version: Literal["standard", "custom"] = "standard"
    attacks: tuple[Literal["apgd-ce", "apgd-t", "fab-t", "square"], ...] = ()
    apgd_steps: int = switch(100, ge=1, name="autoattack", code=(10,), paper=(100,))
    fab_steps: int = switch(100, ge=1, code=(10,), paper=(100,))
    square_queries: int = option(5000, ge=1)
    norm: Norm = "linf"
    fixed_batch: ClassVar[bool] = False  # it continues with images not yet misclassified

    @property
    @plan_only
    def steps(self) -> int:
        """Return the iterations of APGD."""
        return self.apgd_steps

    @property
    @plan_only
    def passes(self) -> float:
        """Return the passes of all attacks, for targeted attacks of all target classes."""
        passes = {
            "apgd-ce": self.apgd_steps,
            "apgd-t": _TARGETED_CLASSES * self.apgd_steps,
            "fab-t": _TARGETED_CLASSES * _FAB_PASSES * self.fab_steps,
            "square": self.square_queries / 3,  # forward passes only, a third of both
        }
        return float(sum(passes[name] for name in self.attacks or passes))

    @property
    @plan_only
    def needs_classes(self) -> tuple[int, str]:
        """Return the fewest classes for the attacks, and what to write for fewer."""
        least = 4 if "apgd-t" in (self.attacks or ("apgd-t",)) else 2
        return least, _FEW_CLASSES

    @plan_only
    def describe(self) -> str:
        """Return the version, the iterations of APGD, and those of FAB if not the official ones."""
        which = "standard" if self.version == "standard" else " + ".join(self.attacks)
        official = self.fab_steps == _STANDARD_STEPS or "fab-t" not in (self.attacks or ("fab-t",))
        fab = "" if official else f", {self.fab_steps} FAB steps"
        norm = "" if self.norm == "linf" else f" {self.norm.upper()}"
        return f"AutoAttack{norm}, {which}, {self.apgd_steps} APGD steps{fab}{self.crafted}"

    @plan_only
    def comparable(self) -> str:
        """Return whether this is the standard version on all images, which papers report."""
        full = (self.version, self.apgd_steps, self.fab_steps, self.square_queries, self.images)
        if full == ("standard", _STANDARD_STEPS, _STANDARD_STEPS, _STANDARD_QUERIES, None):
            return "is the standard version, comparable with other papers and RobustBench."
        return "is a reduced version: do not compare it with published AutoAttack accuracies."

    def __post_init__(self) -> None:
        """Refuse a custom version without `attacks`, and a standard version with them."""
        if (self.version == "custom") != bool(self.attacks):
            raise ValueError(
                "`attacks` is required with version: custom, and not allowed otherwise"
            )

    def perturb(
        self, model: Model, images: Tensor, labels: Tensor, *, eps: float, seed: int
    ) -> Tensor:
        """Return AutoAttack's examples for images (B, 3, H, W) in [0, 1].

        Raises:
            ValueError: the inputs are stacks of views (n-crop probe), not images; or there are too
                few classes for a targeted attack.
        """
        if images.dim() != 4:
            raise ValueError("autoattack needs whole images; attack an n-crop probe with kind: pgd")
        from pyautoattack import AutoAttack as Official

        # `custom` keeps the standard parameters of each attack, such as one restart.
        attack = Official(
            model, norm=_OFFICIAL[self.norm], eps=eps, seed=seed, device=images.device
        )
        attack.verbose = False
        if self.version == "custom":
            attack.attacks_to_run = list(self.attacks)
        with torch.no_grad():
            classes = model(images[:1]).shape[1]
        if classes < 4 and "apgd-t" in attack.attacks_to_run:
            raise ValueError(f"autoattack: apgd-t needs 4 classes, found {classes}; {_FEW_CLASSES}")
        targets = min(_TARGETED_CLASSES, classes - 1)  # officially always 9, which fails with fewer
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
        attack.apgd.n_iter = attack.apgd_targeted.n_iter = self.apgd_steps
        attack.fab.n_iter = self.fab_steps
        attack.square.n_queries = self.square_queries
        with torch.random.fork_rng():  # the official code seeds the global generator
            adversarial: Tensor
            adversarial, _ = attack.run_standard_evaluation(images, labels, batch_size=len(images))
        return adversarial
