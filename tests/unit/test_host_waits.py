"""Nothing inside a training step waits for the device."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from robustviews import step as step_of
from robustviews.augment import Views
from robustviews.machine import feed, runtime
from robustviews.methods import METHODS as METHODS_OF_STUDIES
from robustviews.methods import EmpSsl
from robustviews.network import build_network
from robustviews.optim import Adam, Lars, Sgd
from robustviews.regimes import REGIMES, Free, Pgd, Standard
from tests.unit.tiny_models import (
    SIZE,
    SMALL,
    VIEWS,
    encoder_for,
    labels_of,
    noise_images,
    small_method,
    tiny_encoder,
)

# Operators that make the host wait for a GPU.
WAITS = (
    "_local_scalar_dense",  # .item(), bool(), float(), if tensor
    "nonzero",  # boolean masks as an index, where() with one argument
    "masked_select",
    "unique",
    "repeat_interleave.Tensor",
    "equal",
    "is_nonzero",
    "_linalg_check_errors",  # cholesky and inverse without _ex
)
METHODS = {
    name: (small_method(name), Views(count=VIEWS[name], augmentation=augmentation))
    for name in METHODS_OF_STUDIES
    for augmentation in ["emp_ssl" if name == "emp_ssl" else "simclr"]
}


class Watch(TorchDispatchMode):
    """Records operators that wait for values on the device.

    Adam counts its steps on the host for every device: `counters` are those tensors.
    """

    def __init__(self, counters=frozenset) -> None:
        super().__init__()
        self.found: list[str] = []
        self._counters = counters

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).removeprefix("aten.")
        on_host = bool(args) and id(args[0]) in self._counters()
        if (name.startswith(WAITS) or _masks(name, args)) and not on_host:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def _masks(name, args):
    """Return whether an index is a boolean mask, whose size only the device knows."""
    indices = args[1] if name.startswith("index") and isinstance(args[1], list | tuple) else ()
    return any(index is not None and index.dtype == torch.bool for index in indices)


def step(encoder, regime, method, views, optimizer):
    """Return two minibatches' training from bytes to updates, and Adam's counters."""
    net = build_network(encoder, method).train()
    update = optimizer(net.parameters(), 0.01)
    images, labels = feed.Resident(noise_images()), labels_of()
    orders = torch.randperm(12)[:8].split(4)
    delta, loss_sum = None, torch.zeros(())

    def run() -> None:
        nonlocal delta, loss_sum
        for number, (index, chosen) in enumerate(images.batches(orders)):
            batch = step_of.make_batch(
                chosen,
                labels[index],
                index,
                views=views,
                size=SIZE,
                seed=0,
                epoch=0,
            )
            starts = runtime.generator("cpu", 0, number)

            def after(batch=batch) -> None:
                update.step()
                with torch.no_grad():
                    method.after_step(net, batch, 0.5)
                net.update += 1

            net.update, net.epoch = 100, 1
            losses, delta = regime.train_batch(net, method, batch, delta, after, starts)
            loss_sum = loss_sum + torch.stack(losses).mean()

    def counters() -> set[int]:
        return {id(slots["step"]) for slots in update.state.values() if "step" in slots}

    return run, counters


CASES = {
    "standard": (Standard(), "emp_ssl", Lars),
    "pgd-sum": (Pgd(steps=2), "simclr", Lars),
    "pgd-final": (
        Pgd(steps=2, pgd_weight_grads="final", attack_batchnorm="frozen"),
        "emp_ssl",
        Sgd,
    ),
    "free": (Free(replays=2), "emp_ssl", Lars),
    "free-uniform": (Free(delta_start="uniform", delta_first_clip=True), "simclr", Lars),
    "supervised": (Free(replays=2), "supervised", Adam),
} | {name: (Pgd(steps=1), name, Lars) for name in SMALL}


@pytest.mark.parametrize(("regime", "method", "optimizer"), CASES.values(), ids=CASES)
def test_a_training_step_never_waits_for_the_device(regime, method, optimizer):
    run, counters = step(encoder_for(method), regime, *METHODS[method], optimizer)
    with Watch(counters) as watch:
        run()
    assert watch.found == []


def test_every_regime_and_method_is_watched():
    assert {type(regime) for regime, _, _ in CASES.values()} == set(REGIMES.values())
    assert {method for _, method, _ in CASES.values()} == set(METHODS_OF_STUDIES)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).all()),
        torch.linalg.cholesky,
    ],
    ids=["item", "mask", "bool", "cholesky"],
)
def test_the_watch_detects_a_wait(wait):
    with Watch() as watch:
        wait(torch.eye(2))
    assert watch.found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="counts the waits of a CUDA device")
@pytest.mark.parametrize("regime", [Standard(), Pgd(), Free()], ids=["standard", "pgd", "free"])
def test_a_training_step_on_cuda_does_not_synchronise(regime):
    encoder = tiny_encoder().cuda()
    update = Lars(encoder.parameters(), 0.01)
    images, labels = noise_images().cuda(), labels_of().cuda()
    order = torch.randperm(12).cuda()
    views, delta = METHODS["emp_ssl"][1], None
    from torch.profiler import ProfilerActivity, profile

    def run(number, delta):
        chosen = order[4 * number : 4 * number + 4]
        batch = step_of.make_batch(
            images[chosen], labels[chosen], chosen, views=views, size=SIZE, seed=0, epoch=0
        )
        starts = runtime.generator("cuda", 0, number)
        return regime.train_batch(encoder, EmpSsl(), batch, delta, update.step, starts)[1]

    delta = run(0, delta)  # libraries are loaded at the first call, which waits
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as caught:
        run(1, delta)
    names = {event.key for event in caught.key_averages()}
    assert any("LaunchKernel" in name for name in names), "the profiler saw no call of CUDA"
    assert not {name for name in names if "Synchronize" in name} - {"cudaDeviceSynchronize"}
