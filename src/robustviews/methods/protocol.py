"""What a method provides, what a loss sees of a training, and how ranks divide minibatches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustviews.encoder import Encoder

Loss = Callable[["Tensor"], "Tensor"]


class Batch(NamedTuple):
    """One minibatch as a method reads it."""

    images: Tensor  # (B, 3, H, W) in [0, 1], not augmented, at the size of the views
    views: Tensor  # (V, B, 3, H, W) in [0, 1]
    labels: Tensor  # (B,) int64; only the supervised method uses them


class Net(Protocol):
    """What a loss sees of a training: the student, its predictor and its teacher.

    Attributes:
        state: tensors of the method, such as a queue, by name. Only `after_step` changes them.
        outputs: values that the last training loss leaves for `after_step`, by name.
        epoch: finished passes.
        update: finished updates.
    """

    state: dict[str, Tensor]
    outputs: dict[str, Tensor]
    epoch: int
    update: int

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to projections z (N, D), not normalised, or logits."""

    def predict(self, z: Tensor) -> Tensor:
        """Map projections (N, D) to predictions, or to scores of prototypes (N, K)."""

    def target(self, views: Tensor) -> Tensor:
        """Map the first two of views (V, B, 3, H, W) to outputs of the teacher, without gradient.

        They are computed once for each minibatch, one pass per view: (2, B, D).
        """

    def follow(self, tau: float) -> None:
        """Move the teacher's parameters to tau x teacher + (1 - tau) x student."""


class Heads(NamedTuple):
    """Modules that a method adds to an encoder; None adds nothing."""

    projector: nn.Module | None = None  # from outputs of the encoder to projections
    predictor: nn.Module | None = None  # from projections to predictions or scores of prototypes


class DivisionError(ValueError):
    """Minibatches cannot be divided among ranks; the message says what to change."""


class Share(NamedTuple):
    """The share of one rank in every minibatch."""

    views: range  # of each image
    images: range  # of the minibatch


class Method(Protocol):
    """What a method must provide; its row in `METHODS` names it for study files.

    Attributes:
        supervised: whether the method uses labels.
        divided: what is divided among ranks. `views`: each rank has all images and some of their
            views; `images`: each rank has some images and all their views.
        own_projector: whether the method can add a projector to a backbone alone.
        teacher: parts of the network that the teacher copies and follows, in order.
        evaluated: whose encoder is the result of the training.
        static_lr: parts of the network that train at the initial learning rate.
    """

    supervised: ClassVar[bool]
    divided: ClassVar[Literal["views", "images"]]
    own_projector: ClassVar[bool]
    teacher: ClassVar[tuple[str, ...]]
    evaluated: ClassVar[Literal["student", "teacher"]]
    static_lr: ClassVar[tuple[str, ...]]

    def check_views(self, count: int) -> None:
        """Raise ValueError if the method cannot use this number of views."""

    def heads(self, encoder: Encoder) -> Heads:
        """Return the new modules that the method adds to an encoder."""

    def init_state(self, encoder: Encoder) -> dict[str, Tensor]:
        """Return the tensors of the method before the training of an encoder, by name."""

    def target(self, batch: Batch) -> Tensor:
        """Return the images that a perturbation is added to: (..., 3, H, W)."""

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the scalar loss that the encoder minimises, given the perturbed target."""

    def attack_loss(self, net: Net, batch: Batch) -> Loss:
        """Return the loss that an adversary maximises, as a function of the perturbed target."""

    def after_step(self, net: Net, batch: Batch, progress: float) -> None:
        """Change teacher and state after an update; `progress` is the fraction of all updates."""

    def frozen(self, epoch: int) -> tuple[str, ...]:
        """Return the parts of the network that are not updated in a pass, counted from 0."""


class Base:
    """Defaults of a method: no heads, teacher or state; everything is trained alike."""

    own_projector: ClassVar[bool] = False
    teacher: ClassVar[tuple[str, ...]] = ()
    evaluated: ClassVar[Literal["student", "teacher"]] = "student"
    static_lr: ClassVar[tuple[str, ...]] = ()

    def heads(self, encoder: Encoder) -> Heads:
        """Return no heads."""
        return Heads()

    def init_state(self, encoder: Encoder) -> dict[str, Tensor]:
        """Return no state."""
        return {}

    def after_step(self, net: Net, batch: Batch, progress: float) -> None:
        """Change nothing."""

    def frozen(self, epoch: int) -> tuple[str, ...]:
        """Return no part."""
        return ()


class TwoViews(Base):
    """Defaults of a method that compares views of an image; the second view is perturbed.

    The adversary maximises the training loss. Teachers and their targets see clean views.
    """

    supervised: ClassVar[bool] = False
    divided: ClassVar[Literal["views", "images"]] = "images"
    own_projector: ClassVar[bool] = True

    def check_views(self, count: int) -> None:
        """Raise ValueError unless there are exactly two views."""
        if count != 2:
            raise ValueError(f"this method takes exactly 2 views, found count: {count}")

    def target(self, batch: Batch) -> Tensor:
        """Return the view that is perturbed: (B, 3, H, W)."""
        return batch.views[1]

    def train_loss(self, net: Net, batch: Batch, adversarial: Tensor) -> Tensor:
        """Return the loss of the first view and the perturbed second one."""
        raise NotImplementedError

    def attack_loss(self, net: Net, batch: Batch) -> Loss:
        """Return the training loss itself."""
        return lambda adversarial: self.train_loss(net, batch, adversarial)


class ManyViews(TwoViews):
    """Defaults of a method that compares pairs of two or more views; the second is perturbed."""

    def check_views(self, count: int) -> None:
        """Raise ValueError for fewer than two views."""
        if count < 2:
            raise ValueError(f"this method needs at least 2 views, found count: {count}")

    def student_views(self, batch: Batch, adversarial: Tensor) -> list[Tensor]:
        """Return the views that the student encodes, each (B, 3, H, W), the second perturbed."""
        return [batch.views[0], adversarial, *batch.views[2:]]


def across(
    targets: Iterable[Tensor],
    predictions: Sequence[Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return the mean loss of each view's target and each other view's prediction.

    Args:
        targets: of the first views.
        predictions: of all views.
        loss: maps a target and a prediction to a scalar.
    """
    pairs = [
        loss(target, prediction)
        for number, target in enumerate(targets)
        for view, prediction in enumerate(predictions)
        if view != number
    ]
    return sum(pairs[1:], pairs[0]) / len(pairs)


def momentum(tau: float, progress: float) -> float:
    """Return the momentum of a teacher, which rises from `tau` to 1 along a cosine.

    Args:
        tau: momentum at the first update.
        progress: fraction of all updates, from 0 at the first one.

    Source: Grill et al. 2020 (BYOL), section 3.2.
    """
    return 1 - (1 - tau) * (math.cos(math.pi * progress) + 1) / 2


def divide(method: Method, *, views: int, batch_size: int, ranks: int) -> list[Share]:
    """Divide minibatches evenly among ranks, and return the share of each rank.

    Args:
        method: decides whether views or images are divided.
        views: views per image.
        batch_size: images in a minibatch.
        ranks: processes that train together.

    Raises:
        DivisionError: the views or images cannot be divided evenly.
    """
    key, count = ("views.count", views) if method.divided == "views" else ("batch_size", batch_size)
    if count % ranks:
        raise DivisionError(
            f"{key}: {count} cannot be divided evenly among {ranks} ranks; make it a multiple of "
            f"{ranks}, or the number of ranks a divisor of {count}"
        )
    parts = [range(rank * count // ranks, (rank + 1) * count // ranks) for rank in range(ranks)]
    if method.divided == "views":
        return [Share(part, range(batch_size)) for part in parts]
    return [Share(range(views), part) for part in parts]
