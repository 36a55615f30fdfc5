"""What tests train, probe and attack in milliseconds: noise, a tiny network, one that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustviews.augment import Views
from robustviews.encoder import Encoder, build_encoder
from robustviews.methods import METHODS, Batch, Method, SimClr
from robustviews.pretrain import Progress, pretrain
from robustviews.probe.protocol import Training

SIZE = 8  # pixels
CLASSES = 4
WIDTH, HIDDEN, PROJECTION = 2, 16, 8
OPTIMIZER = {
    "name": "lars",
    "lr": 0.003,  # with more, so small a network collapses at once
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "eta": 0.005,
    "schedule": "cosine",
    "schedule_horizon": "updates",
}

# Options with which the heads of a method are as small; every state is used from the second pass.
SMALL: dict[str, dict[str, Any]] = {
    "barlow_twins": {"projector": (16, 8)},
    "vicreg": {"projector": (16, 8)},
    "simsiam": {"projector": (16, 8), "predictor": 4},
    "byol": {"projector": (16, 8), "predictor": 16},
    "moco_v3": {"projector": (16, 8), "predictor": 16},
    "swav": {
        "projector": (16, 8),
        "prototypes": 6,
        "queue": 12,
        "queue_epochs": 1,
        "frozen_epochs": 1,
    },
    "dino": {"projector": (16, 8), "prototypes": 6},
}
_MANY = ("emp_ssl", "barlow_twins", "byol")
VIEWS = {name: 1 if name == "supervised" else 2 + (name in _MANY) for name in METHODS}


def small_method(name: str) -> Method:
    """Return a method with small heads."""
    return METHODS[name](**SMALL.get(name, {}))


def encoder_for(name: str, **options: Any) -> Encoder:
    """Return a tiny encoder, a backbone alone if the method can add a projector of its own."""
    method = METHODS[name]
    shape = {"hidden": None} if name in SMALL else {}
    return tiny_encoder(supervised=method.supervised, **shape | options)


def noise_images(count: int = 12, *, size: int = SIZE, seed: int = 0) -> Tensor:
    """Return noise as images (count, 3, size, size) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def labels_of(count: int = 12) -> Tensor:
    """Return labels (count,) in which every class comes in turn."""
    return torch.arange(count) % CLASSES


def tiny_encoder(*, supervised: bool = False, seed: int = 0, **options: Any) -> Encoder:
    """Return a ResNet-18 of width 2 in train mode."""
    shape = {"width": WIDTH, "hidden": HIDDEN, "projection": PROJECTION} | options
    return build_encoder(**shape, classes=CLASSES if supervised else None, seed=seed)


def train(encoder: Encoder, *, optimizer: dict[str, Any] | None = None, **options: Any) -> Progress:
    """Pretrain on twelve images of noise: two passes of three minibatches unless told otherwise."""
    settings: dict[str, Any] = {"views": Views(), "epochs": 2, "batch_size": 4, "size": SIZE}
    settings |= {"images": noise_images(), "labels": labels_of()} | options
    return pretrain(encoder, optimizer=OPTIMIZER | (optimizer or {}), **settings)


@dataclass
class Noting:
    """A regime that computes nothing, and notes what it is given.

    Attributes:
        updates_per_batch: updates that it makes of each minibatch.
        losses: loss of the minibatch of a number, counted from 1.
        given: minibatches, each with the perturbation handed on to it.
        rates: learning rate of every update.
        draws: of the generator of each minibatch.
    """

    updates_per_batch: int = 1
    losses: Callable[[int], float] = float
    given: list[tuple[Batch, Tensor | None]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    draws: list[Tensor] = field(default_factory=list)

    def train_batch(self, net, method, batch, delta, update, generator):
        """Note the minibatch; hand on its number as the perturbation."""
        assert net.training
        self.given.append((batch, delta))
        self.draws.append(torch.rand(3, generator=generator))
        for _ in range(self.updates_per_batch):
            weight = net.encoder.weight
            before = weight.item()
            weight.grad = torch.ones_like(weight)
            update()
            self.rates.append(before - weight.item())
        number = len(self.given)
        losses = [torch.tensor(self.losses(number))] * self.updates_per_batch
        return losses, torch.tensor(float(number))


class _Nothing(nn.Module):
    """A network of one parameter."""

    precision, projects = "unset", True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))


def note(
    regime: Noting | None = None,
    *,
    count: int = 13,
    optimizer: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Progress, Noting]:
    """Train nothing on images whose label is their position; return progress and notes."""
    regime = regime or Noting()
    settings = {"method": SimClr(), "images": noise_images(count), "labels": torch.arange(count)}
    plain = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}  # a step is the rate itself
    progress = train(
        _Nothing(), regime=regime, optimizer=plain | (optimizer or {}), **settings | options
    )
    return progress, regime


def probe_task(images: Tensor, labels: Tensor, **options: Any) -> Training:
    """Return the training of a head on images (N, 3, S, S) uint8."""
    settings: dict[str, Any] = {"classes": CLASSES, "views": Views(), "seed": 0} | options
    return Training(images, labels, size=images.shape[-1], **settings)


class Pixels(nn.Module):
    """An encoder whose features are the pixels less 1/2: heads and attacks have known answers.

    Attributes:
        seen: the images of every call of `represent`.
        precisions: what each call asked for, and whether TF32 was allowed.
        gain: its one parameter; 1.
        steady: a batch norm that is never used, for its buffers and its mode.
    """

    classifier = None

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        self.features = 3 * size**2
        self.gain = nn.Parameter(torch.ones(()))
        self.steady = nn.BatchNorm1d(2)
        self.seen: list[Tensor] = []
        self.precisions: list[tuple[str, bool]] = []

    def represent(
        self, images: Tensor, feature: str = "prefeature", *, precision: str = "fp32"
    ) -> Tensor:
        """Map images (N, 3, S, S) to their pixels (N, 3 S S) less 1/2."""
        self.seen.append(images.detach().clone())
        self.precisions.append((precision, torch.backends.cudnn.allow_tf32))
        return (images.flatten(1) - 0.5) * self.gain

    def width_of(self, feature: str) -> int:
        """Return 3 S S."""
        return self.features


@dataclass(frozen=True)
class Inventory:
    """Bytes and flags of a module, to tell whether anything of it changed."""

    values: dict[str, bytes]
    gradients: dict[str, bytes | None]
    asked: dict[str, bool]
    training: dict[str, bool]


def inventory(module: nn.Module) -> Inventory:
    """Note parameters, buffers, gradients, `requires_grad` and the modes of a module."""
    gradients = {name: p.grad for name, p in module.named_parameters()}
    return Inventory(
        values={name: bytes_of(value) for name, value in module.state_dict().items()},
        gradients={k: None if grad is None else bytes_of(grad) for k, grad in gradients.items()},
        asked={name: p.requires_grad for name, p in module.named_parameters()},
        training={name: part.training for name, part in module.named_modules()},
    )


def bytes_of(value: Tensor) -> bytes:
    """Return the bytes of a tensor, whatever its layout."""
    return value.detach().contiguous().numpy().tobytes()


def weights_of(module: nn.Module) -> dict[str, bytes]:
    """Return the bytes of all parameters and buffers."""
    return inventory(module).values
