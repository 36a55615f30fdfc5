"""Short trainings of one process and of several, in float64, and their results.

As in the golden trajectories all float32 values are exact, so that trainings can be compared to the
last digits although adversaries take signs. The network is small: in a deep one, batch norm over a
few pixels would amplify the last digits.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as processes

from robustviews.artifacts.resume import Resume
from robustviews.artifacts.start import Start
from robustviews.augment import Views
from robustviews.machine import compiler, distributed
from robustviews.machine.batchnorm import synchronise
from robustviews.methods import EmpSsl, Method, SimClr, Supervised
from robustviews.pretrain import pretrain
from robustviews.regimes import Free, Pgd, Regime, Standard
from tests.golden.trajectories import Listening
from tests.reference.tiny_network import TinyNetwork
from tests.unit.tiny_models import (
    OPTIMIZER,
    SIZE,
    SMALL,
    labels_of,
    noise_images,
    small_method,
)

BATCH = 6  # of two ranks or three, as are the views of EMP-SSL
MINIBATCHES = 4  # two passes of two
METHODS: dict[str, Method] = {
    "emp": EmpSsl(),
    "emp-sum": EmpSsl(emp_scale="unit_sum"),
    "emp-trace": EmpSsl(emp_invariance="trace"),
    "emp-trace-sum": EmpSsl(emp_invariance="trace", emp_scale="unit_sum", tcr_eps=0.04),
    "simclr": SimClr(),
    "simclr-with-self": SimClr(simclr_denominator="with_self", simclr_temperature=0.5),
    "simclr-same-view": SimClr(simclr_train_pair="same_view", simclr_base_temperature=None),
    "simclr-raw": SimClr(simclr_train_pair="raw", simclr_attack_pair="train_pair"),
    "simclr-once": SimClr(simclr_clean_branch="once"),
    "supervised": Supervised(),
    **{name: small_method(name) for name in SMALL},
}
COUNTS = {"emp": 6, "supervised": 1}  # of views; 2 of other methods
REGIMES: dict[str, Regime] = {
    "standard": Standard(),
    "pgd": Pgd(steps=2),
    "pgd-sum-frozen": Pgd(steps=2, attack_batchnorm="frozen"),
    "pgd-sum-eval": Pgd(steps=2, attack_batchnorm="eval"),
    "pgd-final": Pgd(steps=2, pgd_weight_grads="final"),
    "pgd-final-frozen": Pgd(steps=2, pgd_weight_grads="final", attack_batchnorm="frozen"),
    "pgd-final-eval": Pgd(steps=2, pgd_weight_grads="final", attack_batchnorm="eval"),
    "free": Free(),
    "free-afresh": Free(replays=2, delta_lifetime="minibatch", delta_start="uniform"),
    "free-clipped": Free(replays=2, delta_start="uniform", delta_first_clip=True),
}


class Interruption(Exception):  # noqa: N818  # as people call it
    """Ends a training in the middle."""


class Cut(Listening):
    """A regime that records another one, and is interrupted.

    Attributes:
        left: minibatches until the interruption; None for none.
    """

    def __init__(self, regime: Regime, left: int | None) -> None:
        super().__init__(regime)
        self.left = left

    def train_batch(self, *arguments: Any) -> tuple[list[Tensor], Tensor | None]:
        """Train like the regime, unless it is interrupted."""
        if self.left is not None:
            if self.left == 0:
                raise Interruption
            self.left -= 1
        return super().train_batch(*arguments)


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        method: name in METHODS.
        regime: name in REGIMES.
        optimizer: name of the optimizer.
        folder: folder of its state, perhaps that of another training to resume.
        left: minibatches until it is interrupted; None for no interruption.
        compiled: whether the network is compiled, by a backend without rounding of its own.
    """

    method: str
    regime: str
    folder: Path
    optimizer: str = "lars"
    left: int | None = None
    compiled: bool = False

    def __call__(self, rank: int = 0) -> dict[str, Tensor]:
        """Train; return this rank's weights and its share of each loss. Rank 0 saves its state."""
        method, regime = METHODS[self.method], Cut(REGIMES[self.regime], self.left)
        net = tiny_network()
        net.projects = self.method not in SMALL
        # Rank 0 saves after every minibatch; the checkpoint of other ranks is never due.
        checkpoint = Resume(
            self.folder / "state", {}, [], 0 if rank == 0 else 60, environment={}, started=Start()
        )
        if self.compiled:
            compiler.EAGER_DEVICES = ()
            compiler.BACKEND = "aot_eager"
        try:
            progress = pretrain(
                net,
                noise_images(14, size=SIZE),
                labels_of(14),
                method=method,
                regime=regime,
                views=Views(
                    COUNTS.get(self.method.partition("-")[0], 2),
                    crop="padded",
                    padding=2,
                    augmentation="geometry",
                ),
                size=SIZE,
                epochs=2,
                batch_size=BATCH,
                optimizer=OPTIMIZER | {"name": self.optimizer},
                checkpoint=checkpoint,
                compiled=self.compiled,
            )
            assert progress.compilation == ("compiled" if self.compiled else "eager")
        except Interruption:
            assert self.left is not None
        losses = torch.tensor(regime.losses, dtype=torch.float64)
        return {**net.state_dict(), "losses": losses}

    def state(self) -> dict[str, Tensor]:
        """Return the last saved state, including the position."""
        saved = Resume(self.folder / "state", {}, [], 0, environment={}, started=Start()).load()
        assert saved is not None
        tensors, position = saved
        history = [[row["loss"], row["lr"]] for row in position["history"]]
        tensors["history"] = torch.tensor(history, dtype=torch.float64)
        for name in ("epoch", "position", "update"):
            tensors[name] = torch.tensor(position[name])
        return tensors


def normalise(rank: int, *, ranks: int, shape: tuple[int, ...], bf16: bool) -> dict[str, Tensor]:
    """Normalise a rank's share of noise, forward and backward; return the results by name.

    Args:
        rank: rank of the share, along the first dimension.
        ranks: number of shares; with 1 torch's own batch norm normalises all noise.
        shape: shape of all noise, (N, C) or (N, C, h, w).
        bf16: whether inputs are in bf16, or in float64.
    """
    generator = torch.Generator().manual_seed(0)
    noise = 3 + torch.randn((3, *shape), dtype=torch.float64, generator=generator)
    x, weights, y_weights = noise.to(torch.bfloat16) if bf16 else noise
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    net = nn.Sequential(kind(shape[1], momentum=0.3))
    if not bf16:
        net.double()
    with torch.no_grad():
        net[0].weight.copy_(weights[0].flatten(1)[:, 0] if len(shape) == 4 else weights[0])
    synchronise(net)
    own = x.tensor_split(ranks)[rank].clone().requires_grad_()
    if len(shape) == 4:
        own.data = own.data.contiguous(memory_format=torch.channels_last)
    y = net(own)
    (y * y_weights.tensor_split(ranks)[rank]).sum().backward()
    assert own.grad is not None
    actual = {"y": y.detach(), "gradient": own.grad, "eval": net.eval()(own.detach()).detach()}
    assert y.stride() == own.stride()
    actual |= {f"{name} gradient": value.grad for name, value in net.named_parameters()}
    return actual | net.state_dict()


def agree(rank: int) -> dict[str, Tensor]:
    """Return the broadcast values, and the message of a rank at another position than rank 0."""
    broadcast = [distributed.broadcast_first(value) for value in (rank, 7 - rank)]
    distributed.check_same(5, "minibatches done")
    refused = ""
    try:
        distributed.check_same(rank + 3, "minibatches done")
    except distributed.RankError as error:
        refused = str(error)
    return {"broadcast": torch.tensor(broadcast), "refused": torch.tensor(list(refused.encode()))}


def tiny_network() -> TinyNetwork:
    """Return a network in float64 for images in float32."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = TinyNetwork()
    net.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    return net


Work = Callable[[int], dict[str, Tensor]]


def together(ranks: int, work: Sequence[Work], folder: Path) -> list[list[dict[str, Tensor]]]:
    """Run functions one after the other in several processes, as the ranks of one training.

    Args:
        ranks: processes.
        work: functions of the rank, which can be pickled.
        folder: folder for their files.

    Returns:
        For each function the results of all ranks.
    """
    folder.mkdir()
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["robustviews.pretrain"])  # torch is imported once for all ranks
    hired = [
        server.Process(target=_work, args=(rank, ranks, work, folder), daemon=True)
        for rank in range(ranks)
    ]
    for process in hired:
        process.start()
    for process in hired:
        process.join(timeout=300)
    assert [process.exitcode for process in hired] == [0] * ranks
    return [
        [torch.load(folder / f"{number}-{rank}.pt") for rank in range(ranks)]
        for number in range(len(work))
    ]


def _work(rank: int, ranks: int, work: Sequence[Work], folder: Path) -> None:
    torch.set_num_threads(1)
    processes.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks
    )
    for number, job in enumerate(work):
        torch.save(job(rank), folder / f"{number}-{rank}.pt")
    processes.destroy_process_group()
