"""Losses and teachers of other programs, on the outputs of our network.

lightly is imported as it is. The packages of solo-learn and MMPretrain import trainers that need
versions of 2022, so that only the modules with their losses are loaded, and other names of those
packages are replaced: MMPretrain's communication between processes by that of a single process, its
base class by torch's. solo-learn's release on PyPI and lightly have no MoCo v3.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from torch import Tensor, nn

from robustviews.methods import Batch, Method
from robustviews.network import Network

LIGHTLY, SOLO, MMPRETRAIN = "lightly", "solo-learn", "mmpretrain"
INSTALL = "uv pip install --no-deps lightly lightly_utils solo-learn mmpretrain"
_MODULES = {LIGHTLY: "lightly", SOLO: "solo", MMPRETRAIN: "mmpretrain"}
Loss = Callable[[Network, Batch], Tensor]
Follow = Callable[[nn.Module, nn.Module, float], object]


class Rival(NamedTuple):
    """What another program does in a step.

    Attributes:
        loss: of our network for a minibatch.
        follow: moves a teacher's module towards that of the student, with a momentum; None if the
            program has no such function, and ours does it.
    """

    loss: Loss
    follow: Follow | None


def rivals(name: str, method: Method) -> tuple[dict[str, Rival], list[tuple[str, str]]]:
    """Return the sides of other programs for a method, and which are missing, and why."""
    found: dict[str, Rival] = {}
    missing = []
    loaders: dict[str, Callable[[str, Any], Rival | None]] = {LIGHTLY: of_lightly, SOLO: of_solo}
    if name == "moco_v3":
        loaders[MMPRETRAIN] = of_mmpretrain
    for program, load in loaders.items():
        if importlib.util.find_spec(_MODULES[program]) is None:
            missing.append((program, f"not installed: {INSTALL}"))
            continue
        rival = load(name, method)
        if rival is None:
            missing.append((program, "has no such loss"))
        else:
            found[program] = rival
    return found, missing


def of_lightly(name: str, method: Any) -> Rival | None:  # noqa: ANN401  # options differ
    """Return lightly's side; None if it has no such loss."""
    from lightly import loss as them
    from lightly.models.utils import update_momentum

    cosine = them.NegativeCosineSimilarity()
    losses: dict[str, Callable[[], Loss]] = {
        "simclr": lambda: _projected(them.NTXentLoss(temperature=method.simclr_temperature)),
        "barlow_twins": lambda: _projected(
            them.BarlowTwinsLoss(lambda_param=method.off_diagonal), scale=method.loss_scale
        ),
        "vicreg": lambda: _projected(them.VICRegLoss()),
        "simsiam": lambda: _predicted(lambda p, z: cosine(p, z) / 2),
        "byol": lambda: _predicted(lambda p, z: 2 + 2 * cosine(p, z)),
        "swav": lambda: _swav_of_lightly(them, method),
        "dino": lambda: _dino_of_lightly(them, method),
    }
    return Rival(losses[name](), update_momentum) if name in losses else None


def of_solo(name: str, method: Any) -> Rival | None:  # noqa: ANN401  # options differ
    """Return solo-learn's side; None if it has no such loss."""
    them, sinkhorn, momentum = solo()
    losses: dict[str, Callable[[], Loss]] = {
        "simclr": lambda: _projected(
            functools.partial(them.simclr_loss_func, temperature=method.simclr_temperature)
        ),
        "barlow_twins": lambda: _projected(
            lambda a, b: them.barlow_loss_func(a, b, method.off_diagonal, method.loss_scale)
        ),
        "vicreg": lambda: _projected(  # half, since solo-learn sums the variances of both views
            functools.partial(them.vicreg_loss_func, var_loss_weight=method.variance / 2)
        ),
        "simsiam": lambda: _predicted(lambda p, z: them.simsiam_loss_func(p, z) / 2),
        "byol": lambda: _predicted(them.byol_loss_func),
        "swav": lambda: _swav_of_solo(them, sinkhorn, method),
        "dino": lambda: _dino_of_solo(them, method),
    }

    def follow(student: nn.Module, teacher: nn.Module, tau: float) -> None:
        momentum.MomentumUpdater(tau).update(student, teacher)

    return Rival(losses[name](), follow) if name in losses else None


def of_mmpretrain(_: str, method: Any) -> Rival | None:  # noqa: ANN401  # options differ
    """Return MMPretrain's side of MoCo v3, the method for which no other program is there."""
    entropy, temperature = nn.CrossEntropyLoss(), method.temperature

    def contrast(net: Network, batch: Batch) -> Tensor:
        head = mmpretrain_head()(lambda z: [net.predict(z[0])], entropy, temperature)
        k1, k2 = net.target(batch.views)
        q1, q2 = _projections(net, batch)
        loss: Tensor = 2 * temperature * (head.loss(q1, k2) + head.loss(q2, k1))
        return loss

    return Rival(contrast, None)


@functools.cache
def solo() -> tuple[types.ModuleType, ...]:
    """Import the losses, Sinkhorn's algorithm and the teacher of solo-learn without its trainer."""
    folder = _folder("solo")
    stubs = {"solo": _stub("solo", folder), "solo.utils": _stub("solo.utils", folder / "utils")}
    names = ("solo.losses", "solo.utils.sinkhorn_knopp", "solo.utils.momentum")
    with mock.patch.dict("sys.modules", stubs):
        return tuple(importlib.import_module(name) for name in names)


@functools.cache
def mmpretrain_head() -> Any:  # noqa: ANN401  # a class of a module that may be missing
    """Import MMPretrain's head of MoCo v3 without its framework."""
    folder = _folder("mmpretrain")
    registry = types.SimpleNamespace(
        register_module=lambda: lambda kind: kind, build=lambda part: part
    )
    stubs = {
        "mmengine": _stub("mmengine"),
        "mmengine.dist": _stub("mmengine.dist", all_gather=lambda x: [x], get_rank=lambda: 0),
        "mmengine.model": _stub("mmengine.model", BaseModule=nn.Module),
        "mmpretrain": _stub("mmpretrain", folder),
        "mmpretrain.models": _stub("mmpretrain.models", folder / "models"),
        "mmpretrain.models.heads": _stub("mmpretrain.models.heads", folder / "models" / "heads"),
        "mmpretrain.registry": _stub("mmpretrain.registry", MODELS=registry),
    }
    with mock.patch.dict("sys.modules", stubs):
        return importlib.import_module("mmpretrain.models.heads.mocov3_head").MoCoV3Head


def _folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def _stub(name: str, folder: Path | None = None, **values: object) -> types.ModuleType:
    """Return a module with some values, and with the modules of a folder."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)] if folder else []
    vars(module).update(values)
    return module


def _swav_of_lightly(them: Any, method: Any) -> Loss:  # noqa: ANN401
    swav = them.SwaVLoss(
        temperature=method.temperature,
        sinkhorn_iterations=method.iterations,
        sinkhorn_epsilon=method.epsilon,
    )
    return lambda net, one: swav(_scores(net, one), [])


def _swav_of_solo(them: Any, sinkhorn: Any, method: Any) -> Loss:  # noqa: ANN401
    codes = sinkhorn.SinkhornKnopp(method.iterations, method.epsilon)

    def swav(net: Network, batch: Batch) -> Tensor:
        scores = _scores(net, batch)
        loss: Tensor = them.swav_loss_func(scores, [codes(x) for x in scores], method.temperature)
        return loss

    return swav


def _dino_of_lightly(them: Any, method: Any) -> Loss:  # noqa: ANN401
    dino = them.DINOLoss(
        output_dim=method.prototypes,
        teacher_temp=method.teacher_temperature,
        warmup_teacher_temp_epochs=0,
        center_momentum=method.center_momentum,
    )
    return lambda net, one: dino(list(net.target(one.views)), _scores(net, one))


def _dino_of_solo(them: Any, method: Any) -> Loss:  # noqa: ANN401
    import torch

    dino = them.DINOLoss(
        num_prototypes=method.prototypes,
        warmup_teacher_temp=method.teacher_temperature,
        teacher_temp=method.teacher_temperature,
        warmup_teacher_temp_epochs=0,
        num_epochs=1,
        center_momentum=method.center_momentum,
    )
    return lambda net, one: dino(torch.cat(_scores(net, one)), net.target(one.views).flatten(0, 1))


def _scores(net: Network, batch: Batch) -> list[Tensor]:
    return [net.predict(net(view)) for view in batch.views]


def _projections(net: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    return net(batch.views[0]), net(batch.views[1])


def _projected(loss: Callable[[Tensor, Tensor], Tensor], *, scale: float = 1.0) -> Loss:
    """Return a loss of the projections of both views."""
    return lambda net, batch: scale * loss(*_projections(net, batch))


def _predicted(loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Return a loss of predictions and the outputs of the other view, in both directions."""

    def both(net: Network, batch: Batch) -> Tensor:
        z1, z2 = _projections(net, batch)
        t1, t2 = net.target(batch.views) if net.teacher else (z1.detach(), z2.detach())
        return loss(net.predict(z1), t2) + loss(net.predict(z2), t1)

    return both
