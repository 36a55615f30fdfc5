"""Attacks: the projected-gradient primitive, and the attacks of an evaluation.

All attacks perturb inputs x of shape (B, ...) in [0, 1] by at most eps in Linf. An attack changes
neither gradients of parameters nor the mode of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from robustviews.options import LazyModule, option, plan_only, switch

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

_STANDARD_APGD_STEPS, _STANDARD_QUERIES = 100, 5000  # Croce, Hein 2020
_TARGETED_CLASSES = 9  # that the targeted attacks of AutoAttack try
_FAB_PASSES = 150  # of the FAB attack per target class

_STEPS_OF_A_PIXEL = 255  # radii and step sizes of study files are given in 1/255

Loss = Callable[["Tensor"], "Tensor"]
Model = Callable[["Tensor"], "Tensor"]


def in_pixels(value: float) -> float:
    """Return a radius or step size of a study file, in 1/255, in pixel units."""
    return value / _STEPS_OF_A_PIXEL


def fraction(eps: float) -> str:
    """Return a radius of a study file as text: `8/255`."""
    return f"{eps:g}/{_STEPS_OF_A_PIXEL}"


def flag_name(eps: float) -> str:
    """Return the name of the flags at a radius of a study file; radius 0 is `clean`."""
    return f"eps_{eps:g}" if eps else "clean"


def pgd(
    loss: Loss,
    images: Tensor,
    *,
    eps: float,
    step_size: float,
    steps: int,
    generator: torch.Generator | None = None,
    random_start: bool = False,
    restarts: int = 1,
    parameter_grads: bool = False,
) -> Tensor:
    """Increase a loss by projected sign-gradient ascent, and return the last iterate.

    Args:
        loss: maps perturbed images to a scalar, or to one value per image (B,).
        images: (B, ...) in [0, 1]; any floating dtype and device.
        eps: radius of the Linf ball in pixel units, 8/255.
        step_size: size of one step, in pixel units.
        steps: gradient steps; 0 returns the start.
        generator: source of random starts.
        random_start: start at a uniform point in the ball; otherwise at the images.
        restarts: number of tries. For each image the try with the largest loss is kept, so with
            several tries `loss` must return (B,) and `random_start` must be True.
        parameter_grads: whether the steps add to the parameters' `.grad`, as in the reference code
            of arXiv 2501.03507.

    Returns:
        Perturbed images of the same shape, in the ball and in [0, 1].

    Raises:
        ValueError: restarts without a random start.

    Source: Madry et al. 2018; zero start and last iterate as in arXiv 2501.03507.
    """
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts={restarts} would repeat one attack; set random_start=True")
    best, best_loss = images, None
    for _ in range(restarts):
        delta = _start(images, eps, generator) if random_start else torch.zeros_like(images)
        for _ in range(steps):
            gradient = _input_gradient(loss, images, delta, accumulate=parameter_grads)
            delta = ascend(delta, images, gradient, eps=eps, step_size=step_size)
        adversarial = images + delta
        if restarts == 1:
            return adversarial
        with torch.no_grad():
            values = loss(adversarial)
        if best_loss is None:
            best, best_loss = adversarial, values
        else:
            better = values > best_loss
            best = torch.where(better.view(-1, *[1] * (images.dim() - 1)), adversarial, best)
            best_loss = torch.maximum(values, best_loss)
    return best


def ascend(
    delta: Tensor, images: Tensor, gradient: Tensor, *, eps: float, step_size: float
) -> Tensor:
    """Make one step of sign ascent; project into the ball, then into [0, 1].

    Args:
        delta: perturbation so far, of the shape of `images`.
        images: (B, ...) in [0, 1].
        gradient: gradient of the loss with respect to delta.
        eps: radius of the Linf ball in pixel units.
        step_size: in pixel units.

    Returns:
        The next perturbation.
    """
    delta = (delta + step_size * gradient.sign()).clamp(-eps, eps)
    return (images + delta).clamp(0, 1) - images


def _start(images: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    noise = torch.empty_like(images).uniform_(-eps, eps, generator=generator)
    return (images + noise).clamp(0, 1) - images


def _input_gradient(loss: Loss, images: Tensor, delta: Tensor, *, accumulate: bool) -> Tensor:
    delta = delta.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(images + delta).sum()
        if not accumulate:
            return torch.autograd.grad(value, delta)[0]
        value.backward()
    assert delta.grad is not None
    return delta.grad


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
        """Radii, in 1/255."""

    @property
    def images(self) -> int | None:
        """How many test images are attacked; None for all."""

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
    steps: int = switch(
        20, ge=1, name="test_pgd_steps", code={"emp_ssl": (2,), "simclr": (20,)}, paper=(20,)
    )
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


@dataclass(frozen=True)
class AutoAttack:
    """AutoAttack, the official code (package pyautoattack).

    Attributes:
        eps: radii, in 1/255.
        version: `standard` runs all four attacks, and papers compare it; `custom` runs only
            `attacks`.
        attacks: attacks of the custom version, in order.
        apgd_steps: iterations of APGD (switch `autoattack`): the official 100, or very probably 10
            (code; torchattacks since its version 3.3).
        square_queries: queries of the Square attack; the official number is 5000.
        images: number of test images to attack, a fixed choice; null attacks all.
    """

    eps: tuple[float, ...] = option(..., gt=0, le=255)
    version: Literal["standard", "custom"] = "standard"
    attacks: tuple[Literal["apgd-ce", "apgd-t", "fab-t", "square"], ...] = ()
    apgd_steps: int = switch(100, ge=1, name="autoattack", code=(10,), paper=(100,))
    square_queries: int = option(5000, ge=1)
    images: int | None = option(None, ge=1)
    whole_images: ClassVar[bool] = True
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
            "fab-t": _TARGETED_CLASSES * _FAB_PASSES,
            "square": self.square_queries / 3,  # forward passes only, a third of both
        }
        return float(sum(passes[name] for name in self.attacks or passes))

    @plan_only
    def describe(self) -> str:
        """Return the version and the iterations of APGD."""
        which = "standard" if self.version == "standard" else " + ".join(self.attacks)
        return f"AutoAttack, {which}, {self.apgd_steps} APGD steps"

    @plan_only
    def comparable(self) -> str:
        """Return whether this is the standard version on all images, which papers report."""
        full = (self.version, self.apgd_steps, self.square_queries, self.images)
        if full == ("standard", _STANDARD_APGD_STEPS, _STANDARD_QUERIES, None):
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
        attack = Official(model, norm="Linf", eps=eps, seed=seed, device=images.device)
        attack.verbose = False
        if self.version == "custom":
            attack.attacks_to_run = list(self.attacks)
        with torch.no_grad():
            classes = model(images[:1]).shape[1]
        if classes < 4 and "apgd-t" in attack.attacks_to_run:
            raise ValueError(
                f"autoattack: apgd-t needs 4 classes, found {classes}; write version: custom, "
                "attacks: [apgd-ce, fab-t, square]"
            )
        targets = min(9, classes - 1)  # officially 9, which fails with fewer than 10 classes
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
        attack.apgd.n_iter = attack.apgd_targeted.n_iter = self.apgd_steps
        attack.square.n_queries = self.square_queries
        with torch.random.fork_rng():  # the official code seeds the global generator
            adversarial: Tensor
            adversarial, _ = attack.run_standard_evaluation(images, labels, batch_size=len(images))
        return adversarial


ATTACKS: dict[str, type[Attack]] = {"pgd": PgdAttack, "autoattack": AutoAttack}
