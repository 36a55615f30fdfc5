"""What a probe must offer, and what its head is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from robustviews.options import LazyModule, plan_only
from robustviews.tasks.classification import CLASSIFICATION
from robustviews.tasks.protocol import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustviews import augment
    from robustviews.augment import Views
    from robustviews.checkpoint import Checkpoint
    from robustviews.encoder import Encoder, Feature
    from robustviews.machine.feed import Feed
    from robustviews.probe import heads
    from robustviews.tasks.protocol import Maps
else:
    augment, heads = LazyModule("robustviews.augment"), LazyModule("robustviews.probe.heads")

History = list[dict[str, float]]


@dataclass(frozen=True)
class Training:
    """What a head is trained on, and how images are encoded.

    Attributes:
        images: (N, 3, H, W) uint8, the training set, or a feed of it.
        labels: of each image, on the device of the encoder: as the task has them, (N,) int64 for
            classification.
        classes: number of classes.
        views: views of the pretraining, from which the n-crop probe draws.
        size: side of images and views in pixels.
        seed: seed of heads, orders and views.
        batch: views that are encoded or attacked at a time.
        title: title of the progress bar and of log lines.
        checkpoint: saves the state of a fit, from which an interrupted fit resumes.
    """

    images: Tensor | Feed
    labels: Tensor
    classes: int
    views: Views
    size: int
    seed: int
    batch: int = 500
    title: str = "probe"
    checkpoint: Checkpoint | None = None


class Probe(Protocol):
    """What a probe must provide; its row in `PROBES` names it for study files.

    Attributes:
        task: what is asked about an image, and how answers are scored.
        trained: whether a head is trained and saved to a file.
        draws_views: whether the probe draws views like pretraining, and so depends on `views`.
    """

    task: ClassVar[Task]
    trained: ClassVar[bool]
    draws_views: ClassVar[bool]

    @property
    def network_updates(self) -> int:
        """Updates of the encoder's weights in all fits of a job; 0 if the encoder stays frozen.

        An encoder that is trained is saved beside its head, and attacks on the head read it.
        """

    @property
    def feature(self) -> Feature:
        """Which feature of the encoder the head reads."""

    @property
    def stack(self) -> int:
        """How many views of each image the encoder reads."""

    @property
    def starts_from(self) -> str | None:
        """Name of the probe whose head training starts from; None for a fresh head."""

    @property
    def epochs(self) -> int | None:
        """Passes over the training set; None if nothing is trained."""

    @property
    def batch_size(self) -> int | None:
        """Images in a minibatch; None if nothing is trained."""

    @property
    def steps(self) -> int:
        """Attack steps on each minibatch of training images; 0 for a standard probe."""

    def describe(self) -> str:
        """Return the protocol in a few words, such as `linear head, 20 epochs`."""

    def inputs(
        self, images: Tensor, counters: Tensor, views: Views, *, size: int, seed: int
    ) -> Tensor:
        """Return what is encoded and attacked: (B, 3, H, W) or (B, n, 3, H, W) in [0, 1]."""

    def features(self, encoder: Encoder, inputs: Tensor) -> Tensor | Maps:
        """Return what the head reads of such inputs: (B, F), or the maps of the encoder."""

    def train(
        self, encoder: Encoder, training: Training, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Return the trained head and one line of history per epoch."""

    def restore(
        self, weights: Mapping[str, Tensor], encoder: Encoder, *, classes: int
    ) -> nn.Module:
        """Return the head with these weights, on the encoder's device, or raise WeightsError."""


class _Reads(Protocol):
    @property
    def feature(self) -> Feature: ...


class Defaults:
    """What a probe is unless it says otherwise: it reads whole images of a frozen encoder once."""

    trained: ClassVar[bool] = True
    draws_views: ClassVar[bool] = False
    epochs: int | None = None
    batch_size: int | None = None
    steps: int = 0

    @property
    def stack(self) -> int:
        """One: the image."""
        return 1

    @property
    def starts_from(self) -> str | None:
        """None: training starts from a fresh head."""
        return None

    @property
    @plan_only
    def network_updates(self) -> int:
        """Zero: the encoder stays frozen."""
        return 0

    def inputs(
        self, images: Tensor, counters: Tensor, views: Views, *, size: int, seed: int
    ) -> Tensor:
        """Return whole images (B, 3, H, W)."""
        return augment.to_float(images, size)


class Classifying(Defaults):
    """What the probes of classification share; unless a probe says otherwise its head is linear."""

    task: ClassVar[Task] = CLASSIFICATION

    def features(self: _Reads, encoder: Encoder, inputs: Tensor) -> Tensor:
        """Return the features (B, F) of images (B, 3, H, W), or their mean over a stack of each."""
        return heads.represent(encoder, self.feature, inputs)

    def restore(
        self: _Reads, weights: Mapping[str, Tensor], encoder: Encoder, *, classes: int
    ) -> nn.Module:
        """Return the linear head with these weights."""
        return heads.restore_head(weights, encoder, self.feature, classes=classes)
