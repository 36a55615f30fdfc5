"""Synthetic checkpoints in the layouts of published programs, with narrow networks."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from robustviews.resnet import BACKBONES, ResNet

WIDTH, CLASSES = 4, 10
FEATURES = 8 * WIDTH
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SWAV = [0.485, 0.456, 0.406], [0.228, 0.224, 0.225]
CIFAR10 = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LIGHTNING = {"epoch": 3, "global_step": 90, "pytorch-lightning_version": "2.6.6", "loops": {}}

State = dict[str, Tensor]


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Draw every weight and statistic of a network anew, so that no default can hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.fill_(7)
        elif value.dim() > 1:
            nn.init.kaiming_normal_(value, generator=generator)
        elif name.endswith(("running_var", "weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.normal_(generator=generator).mul_(0.2)
    return network.eval()


def source(seed: int = 1, **options: Any) -> nn.Module:
    """Return a narrow network of other weights than any other seed."""
    options = {"width": WIDTH, "stem": "imagenet", **options}
    return randomise(ResNet(*BACKBONES[options.pop("backbone", "resnet18")], **options), seed)


def under(prefix: str, state: State) -> State:
    """Put a prefix before every name."""
    return {prefix + name: value for name, value in state.items()}


def layers(prefix: str, *shapes: tuple[int, ...]) -> State:
    """Return further layers, which no import may keep."""
    return {f"{prefix}{number}.weight": torch.ones(shape) for number, shape in enumerate(shapes)}


def linear(seed: int = 5) -> State:
    """Return a classifier named as torchvision's."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(CLASSES, FEATURES, generator=generator)
    return {"fc.weight": weight, "fc.bias": torch.randn(CLASSES, generator=generator)}


def run(**entries: Any) -> dict[str, Any]:
    """Return what a training script saves beside weights."""
    momenta = {number: {"momentum_buffer": torch.ones(2)} for number in range(2)}
    groups = [{"lr": 0.1, "params": [0, 1]}]
    return {
        "epoch": 7,
        "arch": "resnet50",
        "optimizer": {"state": momenta, "param_groups": groups},
    } | entries


def dual(adversarial: State, clean: State) -> State:
    """Return two networks that share all but batch norm, as ACL names them."""
    state = {}
    for name, value in adversarial.items():
        layer, _, part = name.rpartition(".")
        if layer.endswith(".downsample.1"):
            layer = layer.removesuffix("1") + "bn"
        layer = layer.replace(".downsample.0", ".downsample.conv")
        if "bn" in layer.rpartition(".")[2]:
            state[f"{layer}.bn_list.0.{part}"] = clean[name]
            layer += ".bn_list.1"
        state[f"{layer}.{part}"] = value
    return state


def inside(prefix: str = "") -> State:
    """Return the normalisation of a network that normalises itself."""
    return under(
        prefix,
        {"normalize.mean": torch.tensor(IMAGENET[0]), "normalize.std": torch.tensor(IMAGENET[1])},
    )


def single(state: State) -> State:
    """Name the shortcuts as DynACL does."""
    names = {".downsample.0.": ".downsample.conv.", ".downsample.1.": ".downsample.bn."}
    renamed = {}
    for name, value in state.items():
        for old, new in names.items():
            name = name.replace(old, new)  # noqa: PLW2901
        renamed[name] = value
    return renamed


@dataclass(frozen=True)
class Case:
    """A layout.

    Attributes:
        tree: from the state of the network that counts and of another one.
        layout: name of the layout.
        outside: mean and std that its training applies before the network; None for none.
        needed: settings that the file does not tell.
        options: of the network.
        kept: whether a classifier comes along.
    """

    tree: Callable[[State, State], Any]
    layout: str
    outside: tuple[list[float], list[float]] | None = IMAGENET
    needed: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    kept: bool = False

    def features(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the features as the network's own program computes them."""
        with torch.no_grad():
            features: Tensor = network(normalize(images, *self.outside) if self.outside else images)
            return features


def _counterless(state: State) -> State:
    return {name: value for name, value in state.items() if not name.endswith("tracked")}


def _pair(first: str, second: str, **more: State) -> Callable[[State, State], State]:
    def build(good: State, other: State) -> State:
        extra = {name: value for state in more.values() for name, value in state.items()}
        return under(first, good) | under(second, other) | extra

    return build


_PROJECTOR = layers("module.projector.", (4, FEATURES), (4, 4))
_CIFAR = {"stem": "cifar"}
_PADDED = {"stem": "cifar", "padding": 2}
_IMAGENET = {"normalise": "imagenet"}
_MOCO_FC = layers("module.encoder_q.fc.", (FEATURES, FEATURES), (4, FEATURES))
_MOCO_V3 = _pair(
    "module.base_encoder.",
    "module.momentum_encoder.",
    fc=layers("module.base_encoder.fc.", (4, FEATURES)),
    predictor=layers("module.predictor.", (4, 4)),
)
_LIGHTLY = layers("projection_head.layers.", (4, FEATURES))
_SOLO = layers("projector.", (4, FEATURES)) | under(
    "classifier.", {"weight": torch.ones(10, FEATURES)}
)

CASES: dict[str, Case] = {
    "torchvision": Case(
        lambda good, _: OrderedDict(good | linear()),
        "plain state dict",
        needed=_IMAGENET,
        kept=True,
    ),
    "barlow-twins": Case(lambda good, _: good, "plain state dict", needed=_IMAGENET),
    "byol": Case(
        lambda good, _: _counterless(good) | linear(),
        "plain state dict",
        needed=_IMAGENET,
        kept=True,
    ),
    "simclr-1x": Case(
        lambda good, _: {"state_dict": good | linear()},
        "plain state dict",
        None,
        needed={"normalise": "none"},
        kept=True,
    ),
    "barlow-twins-full": Case(
        lambda good, _: run(model=under("module.backbone.", good) | _PROJECTOR),
        "Barlow Twins or VICReg",
    ),
    "swav": Case(
        lambda good, _: (
            under("module.", good)
            | layers("module.projection_head.", (4, FEATURES))
            | {"module.prototypes.weight": torch.ones(3, 4)}
        ),
        "SwAV or DeepCluster v2",
        SWAV,
    ),
    "swav-run": Case(
        lambda good, _: run(
            state_dict=under("module.", good)
            | {"module.prototypes.prototypes0.weight": torch.ones(3, 4)}
        ),
        "SwAV or DeepCluster v2",
        SWAV,
    ),
    "moco-v3": Case(
        lambda good, other: run(state_dict=_MOCO_V3(good, other)),
        "MoCo v3",
        needed={"weights": "base"},
    ),
    "moco-v2": Case(
        lambda good, other: run(
            state_dict=_pair("module.encoder_q.", "module.encoder_k.", fc=_MOCO_FC)(good, other)
            | {"module.queue": torch.ones(4, 8), "module.queue_ptr": torch.zeros(1)}
        ),
        "MoCo v1 or v2",
        needed={"weights": "q"},
    ),
    "moco-v1": Case(
        lambda good, _: run(state_dict=under("module.encoder_q.", good | linear())), "MoCo v1 or v2"
    ),
    "simsiam": Case(
        lambda good, _: run(
            state_dict=under("module.encoder.", good | layers("fc.", (4, FEATURES)))
            | layers("module.predictor.", (4, 4))
        ),
        "SimSiam",
    ),
    "dino-full": Case(
        lambda good, other: run(
            student=under("module.backbone.", other) | layers("module.head.mlp.", (4, FEATURES)),
            teacher=under("module.backbone.", good) | layers("module.head.mlp.", (4, FEATURES)),
            args=argparse.Namespace(lr=np.float64(0.3), epochs=np.int64(800)),
            dino_loss={"center": torch.zeros(1, 4)},
        ),
        "DINO",
        needed={"weights": "teacher"},
    ),
    "vissl": Case(
        lambda good, _: {
            "phase": 99,
            "classy_state_dict": {
                "base_model": {
                    "model": {
                        "trunk": under("_feature_blocks.", good),
                        "heads": layers("0.clf.", (4, FEATURES)),
                    }
                }
            },
        },
        "VISSL",
    ),
    "lightly": Case(
        lambda good, _: LIGHTNING | {"state_dict": under("backbone.", good) | _LIGHTLY}, "lightly"
    ),
    "lightly-dino": Case(
        lambda good, other: (
            LIGHTNING
            | {"state_dict": _pair("backbone.", "student_backbone.", head=_LIGHTLY)(good, other)}
        ),
        "lightly",
        needed={"weights": "teacher"},
    ),
    "lightly-byol": Case(
        lambda good, other: (
            LIGHTNING
            | {"state_dict": _pair("backbone.", "teacher_backbone.", head=_LIGHTLY)(good, other)}
        ),
        "lightly",
        needed={"weights": "student"},
    ),
    "lightly-moco-v2": Case(
        lambda good, other: (
            LIGHTNING
            | {"state_dict": _pair("backbone.", "key_backbone.", head=_LIGHTLY)(good, other)}
        ),
        "lightly",
        needed={"weights": "q"},
    ),
    "solo-learn": Case(
        lambda good, other: (
            LIGHTNING
            | {"state_dict": _pair("backbone.", "momentum_backbone.", heads=_SOLO)(good, other)}
        ),
        "solo-learn",
        CIFAR10,
        needed={"weights": "online", "normalise": "cifar10"},
        options=_PADDED,
    ),
    "solo-learn-older": Case(
        lambda good, _: LIGHTNING | {"state_dict": under("encoder.", good) | _SOLO},
        "solo-learn",
        CIFAR10,
        needed={"normalise": "cifar10"},
        options=_PADDED,
    ),
    "acl": Case(
        lambda good, other: run(
            state_dict=dual(good, other) | inside() | layers("fc.fc1.", (4, FEATURES))
        ),
        "ACL or DynACL, adversarial route",
        options=_CIFAR,
    ),
    "dynacl++": Case(
        lambda good, _: run(state_dict=single(good) | inside()), "DynACL++", options=_CIFAR
    ),
    "advcl": Case(
        lambda good, other: {"model": under("module.", dual(good, other))},
        "AdvCL, adversarial route",
        None,
        options=_CIFAR,
    ),
    "deacl": Case(
        lambda good, _: LIGHTNING | {"state_dict": under("backbone.", good) | inside("backbone.")},
        "DeACL",
        options=_PADDED,
    ),
    "model-and-average": Case(
        lambda good, other: {"model": other | linear(6), "model_ema": good | linear()},
        "plain state dict",
        needed={"weights": "model_ema"} | _IMAGENET,
        kept=True,
    ),
    "own-program": Case(
        lambda good, _: {"net": under("model.", good | linear())},
        "plain state dict",
        CIFAR10,
        needed={"normalise": "cifar10", "padding": 2},
        options=_PADDED,
        kept=True,
    ),
}
AMBIGUOUS = [name for name, case in CASES.items() if "weights" in case.needed]
