"""What a probe must offer, and what its head is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robustviews.augment import Views
    from robustviews.checkpoint import Checkpoint
    from robustviews.encoder import Encoder, Feature
    from robustviews.machine.feed import Feed

History = list[dict[str, float]]


@dataclass(frozen=True)
class Task:
    """What a head is trained on, and how images are encoded.

    Attributes:
        images: (N, 3, H, W) uint8, the training set, or a feed of it.
        labels: (N,) int64, class of each image, on the device of the encoder.
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
        trained: whether a head is trained and saved to a file.
        draws_views: whether the probe draws views like pretraining, and so depends on `views`.
    """

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

    def train(
        self, encoder: Encoder, task: Task, *, start: nn.Module | None = None
    ) -> tuple[nn.Module, History]:
        """Return the trained head and one line of history per epoch."""

    def restore(
        self, weights: Mapping[str, Tensor], encoder: Encoder, *, classes: int
    ) -> nn.Module:
        """Return the head with these weights, on the encoder's device, or raise WeightsError."""
