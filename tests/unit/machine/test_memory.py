"""Memory: needs that are measured in advance, refusals with a fix, and work in small pieces."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustviews import step
from robustviews.augment import Views
from robustviews.machine import memory
from robustviews.machine.memory import ShortageError
from robustviews.methods import METHODS, Base, Batch, EmpSsl
from robustviews.network import build_network
from robustviews.probe import RobustLinearProbe
from robustviews.regimes import Free, Pgd, Standard
from tests.unit.tiny_models import (
    CLASSES,
    SIZE,
    inventory,
    labels_of,
    noise_images,
    probe_task,
    tiny_encoder,
)

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
GIB = 2**30


def needed(encoder, method=None, regime=None, views=None, **options):
    settings = {"size": SIZE, "batch_size": 8, "precision": "fp32"} | options
    return step.step_bytes(
        encoder, method or EmpSsl(), regime or Standard(), views or Views(), **settings
    )


# What a step needs


class Plain(nn.Module):
    """A network with known memory: it keeps x and exp(x), and no more.

    The exponential keeps its result, the product keeps both of its factors.
    """

    precision = "fp32"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1000))

    def forward(self, images):
        x = images.flatten(1)
        return (x.exp() * self.weight[: x.shape[1]]).sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Sum(Base):
    """A method whose loss keeps nothing of its own."""

    supervised = False
    divided = "images"

    def target(self, batch):
        return batch.views

    def train_loss(self, forward, batch, adversarial):
        return forward(adversarial.flatten(0, 1)).sum()


def test_a_step_needs_four_times_the_weights_the_pixels_and_the_kept_activations():
    images, views, pixels = 8, 3, 3 * SIZE**2
    actual = needed(Plain(), Sum(), Standard(), Views(count=views))
    floats = 4 * 1000 + images * pixels + images * views * pixels  # weights, images, views
    floats += images * views * pixels  # the exponential, which two operations keep: once
    assert actual == 4 * floats


def test_an_adversary_needs_three_copies_of_its_target():
    clean, free, pgd = (needed(Plain(), Sum(), regime) for regime in (Standard(), Free(), Pgd()))
    assert free == pgd == clean + 3 * 4 * 8 * 2 * 3 * SIZE**2


@pytest.mark.parametrize("name", METHODS)
def test_a_measurement_on_few_images_predicts_that_of_a_whole_minibatch(name):
    method = METHODS[name]()
    views = Views(count=1 if method.supervised else 2)
    encoder = tiny_encoder(supervised=method.supervised, width=8)
    batch_size = 30
    batch = Batch(
        images=torch.rand(batch_size, 3, 16, 16),
        views=torch.rand(views.count, batch_size, 3, 16, 16),
        labels=torch.arange(batch_size) % CLASSES,
    )
    net = build_network(encoder, method)
    parts = [*net.parameters(), *net.teacher.parameters()]
    weights = {parameter.data_ptr() for parameter in parts}
    kept = {}

    def keep(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = method.train_loss(net, batch, method.target(batch))
    truth = sum(kept.values())
    truth += 4 * sum(parameter.numel() * 4 for parameter in net.parameters())
    truth += sum(parameter.numel() * 4 for parameter in net.teacher.parameters())
    truth += batch.images.numel() * 4 + batch.views.numel() * 4
    assert loss.isfinite()
    actual = needed(encoder, method, views=views, size=16, batch_size=batch_size)
    assert actual == pytest.approx(truth, rel=0.02)


def test_bf16_needs_little_more_than_half():
    wide = tiny_encoder(width=8)
    full = needed(wide, size=32, batch_size=64)
    half = needed(wide, size=32, batch_size=64, precision="bf16")
    assert 0.45 < half / full < 0.7


def test_need_grows_with_the_minibatch_and_the_views():
    encoder = tiny_encoder()
    weights = 4 * sum(parameter.numel() * 4 for parameter in encoder.parameters())
    one, two = (needed(encoder, batch_size=count) - weights for count in (100, 200))
    assert two == pytest.approx(2 * one, rel=0.01)
    four = needed(encoder, views=Views(count=4), batch_size=100) - weights
    assert four == pytest.approx(2 * one, rel=0.05)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_measuring_has_no_side_effects(training, precision):
    encoder = tiny_encoder()
    encoder.train(training)
    for parameter in encoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.manual_seed(3)
    before, state = inventory(encoder), torch.get_rng_state()
    needed(encoder, precision=precision)
    assert inventory(encoder) == before
    assert encoder.precision == "fp32"
    assert torch.equal(torch.get_rng_state(), state)


def test_a_method_that_draws_random_numbers_leaves_them_as_they_were():
    @dataclass(frozen=True)
    class Drawing(Sum):
        def train_loss(self, forward, batch, adversarial):
            return forward((adversarial * torch.rand(())).flatten(0, 1)).sum()

    torch.manual_seed(3)
    state = torch.get_rng_state()
    needed(Plain(), Drawing())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_of_the_method_leaves_the_network_as_it_was():
    @dataclass(frozen=True)
    class Failing(Sum):
        def train_loss(self, forward, batch, adversarial):
            forward(adversarial.flatten(0, 1))
            raise KeyError("something")

    encoder = tiny_encoder().eval()
    before = inventory(encoder)
    with pytest.raises(KeyError, match="something"):
        needed(encoder, Failing(), precision="bf16")
    assert inventory(encoder) == before
    assert encoder.precision == "fp32"


# What a device has


def test_this_machine_has_memory_left():
    assert 2**20 < memory.available(CPU) < 2**60


def system_of(tmp_path, files):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


MACHINE = {"proc/meminfo": "MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable:    4000 kB\n"}


def limits(folder, limit, used, *, first=False, cache=0):
    """Return the files of a control group of the first or second version."""
    prefix = "total_" if first else ""
    names = ("limit_in_bytes", "usage_in_bytes") if first else ("max", "current")
    stat = f"anon 5\n{prefix}inactive_file {cache}\n{prefix}active_file 10\nfile 99\n"
    return {
        f"{folder}/memory.{names[0]}": f"{limit}\n",
        f"{folder}/memory.{names[1]}": f"{used}\n",
        f"{folder}/memory.stat": stat,
    }


SECOND = {"proc/self/cgroup": "0::/outer/inner\n"}
FIRST = {"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/job\n1:name=systemd:/\n0::/\n"}
SYSTEMS = {
    "no groups": (MACHINE, 4000 * 1024),
    "no limit": (MACHINE | SECOND | limits("sys/fs/cgroup/outer/inner", "max", 7), 4000 * 1024),
    "own limit": (
        MACHINE | SECOND | limits("sys/fs/cgroup/outer/inner", 9000, 3000, cache=500),
        9000 - 3000 + 510,
    ),
    "limit of an outer group": (
        MACHINE
        | SECOND
        | limits("sys/fs/cgroup/outer/inner", 9000, 3000)
        | limits("sys/fs/cgroup/outer", 5000, 4000),
        1010,
    ),
    "limit of a container that sees its own group as the root": (
        MACHINE | {"proc/self/cgroup": "0::/\n"} | limits("sys/fs/cgroup", 5000, 2000),
        3010,
    ),
    "limit above what the machine has": (
        MACHINE | SECOND | limits("sys/fs/cgroup/outer/inner", 10**9, 0),
        4000 * 1024,
    ),
    "more used than allowed": (
        MACHINE | SECOND | limits("sys/fs/cgroup/outer/inner", 1000, 3000),
        0,
    ),
    "first version": (
        MACHINE | FIRST | limits("sys/fs/cgroup/memory/job", 9000, 3000, first=True, cache=500),
        6510,
    ),
    "first version, no limit": (
        MACHINE | FIRST | limits("sys/fs/cgroup/memory/job", 2**63 - 4096, 3000, first=True),
        4000 * 1024,
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_available_memory_is_the_least_of_machine_and_control_groups(name, tmp_path):
    files, expected = SYSTEMS[name]
    assert memory.available(CPU, system=system_of(tmp_path, files)) == expected


def test_the_whole_memory_counts_if_the_system_reports_no_free_memory(tmp_path):
    assert memory.available(CPU, system=tmp_path) >= memory.available(CPU)


def test_on_a_gpu_memory_that_torch_reserves_unused_is_available(monkeypatch):
    device = torch.device("cuda", 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda which: {device: (1000, 9000)}[which])
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda which: {device: 500}[which])
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda which: {device: 200}[which])
    assert memory.available(device) == 1300


# Messages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": {"width": 10**8}}, "weights beyond counting, .*; lower encoder.width"),
        ({"encoder": {"width": 2, "hidden": 10**9}}, r"weights \S+ GiB, .*; lower encoder.width"),
        ({"views": 10**8}, r"pixels \S+ GiB; lower batch_size or views.count"),
        ({"batch_size": 10**9}, r"pixels \S+ GiB; lower batch_size or views.count"),
    ],
)
def test_what_cannot_fit_is_refused_without_taking_memory(options, message, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda _: GIB)
    usual = {"encoder": {"width": 2, "hidden": 16, "projection": 8}, "views": 2, "batch_size": 8}
    shape = {"size": 8, "classes": None, "device": CPU, "title": "x"}
    step.check_least(**usual, **shape)
    with pytest.raises(
        ShortageError, match=f"x: a training step needs more.* 1.0 GiB: .*{message}"
    ):
        step.check_least(**usual | options, **shape)


def test_a_step_that_does_not_fit_is_refused_with_a_fix(monkeypatch):
    encoder = tiny_encoder()
    weights = sum(parameter.numel() * 4 for parameter in encoder.parameters())
    monkeypatch.setattr(memory, "available", lambda _: 12 * GIB)
    step.check_step(12 * GIB + weights, encoder, title="my-run")
    expected = (
        r"^my-run: a training step needs 12\.5 GiB, cpu has 12\.0 GiB available; lower batch_size "
        r"or views\.count, or use precision: bf16; micro-batches would not help: batch norm"
    )
    with pytest.raises(ShortageError, match=expected):
        step.check_step(int(12.5 * GIB), encoder, title="my-run")
    with pytest.raises(ShortageError):
        step.check_step(12 * GIB + weights + 1, encoder, title="my-run")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines"),
        RuntimeError("[enforce fail at x.cpp] . DefaultCPUAllocator: can't allocate memory: you"),
    ],
    ids=["cuda", "cpu"],
)
def test_running_out_of_memory_reports_a_fix(error):
    with (
        pytest.raises(
            ShortageError, match=r"^my-run: out of memory \(.*\); lower batch_s"
        ) as caught,
        memory.explained("my-run", step.SMALLER_STEP),
    ):
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_an_allocation_that_torch_refuses_is_reported_as_a_shortage():
    with (
        pytest.raises(ShortageError, match=r"my-run: out of memory .*lower runtime\.evaluation_ba"),
        memory.explained("my-run", memory.SMALLER_BATCH),
    ):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_are_not_changed():
    with (
        pytest.raises(RuntimeError, match=r"^size mismatch$") as caught,
        memory.explained("my-run", step.SMALLER_STEP),
    ):
        raise RuntimeError("size mismatch")
    assert type(caught.value) is RuntimeError


# Micro-batches


@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_the_robust_probe_is_the_same_with_any_number_of_images_at_a_time(at_once):
    def head(batch):
        encoder = tiny_encoder().double().eval()
        encoder.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
        represent = encoder.represent
        encoder.represent = lambda images, *options, **more: represent(
            images.double(), *options, **more
        )
        start = nn.Linear(16, CLASSES, dtype=torch.float64)
        nn.init.eye_(start.weight)
        nn.init.zeros_(start.bias)
        observed.clear()
        encoder.backbone.register_forward_hook(
            lambda _, inputs, __: observed.append(len(inputs[0]))
        )
        probe = RobustLinearProbe(epochs=2, batch_size=6, lr=0.01, steps=3)
        task = probe_task(noise_images(), labels_of(), batch=batch)
        return probe.train(encoder, task, start=start)[0]

    observed = []
    whole = head(6)
    assert set(observed) == {6}
    pieces = head(at_once)
    assert max(observed) == at_once
    assert torch.equal(whole.weight.isfinite(), torch.ones_like(whole.weight, dtype=torch.bool))
    torch.testing.assert_close(pieces.weight, whole.weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(pieces.bias, whole.bias, rtol=0, atol=1e-12)


# A whole process

TRAINING = """
import json, sys
from pathlib import Path
import torch
from robustviews.augment import Views
from robustviews.datasets import open_split
from robustviews.encoder import build_encoder
from robustviews.machine.feed import Mapped, choose
from robustviews.methods import EmpSsl
from robustviews.network import build_network
from robustviews.pretrain import pretrain
from robustviews.regimes import Free

class Stop(Exception):
    pass

def stop_after(minibatches):
    def watch(done):
        if done == minibatches:
            raise Stop
    return watch

def peak(feed, minibatches):
    try:
        pretrain(encoder, feed, torch.tensor(labels), method=EmpSsl(), regime=Free(),
                 views=Views(count=views, augmentation="emp_ssl"), size=32, epochs=1,
                 batch_size=batch_size, optimizer=optimizer, watch=stop_after(minibatches))
    except Stop:
        # Not getrusage, whose peak begins with that of the process that started this one.
        status = Path("/proc/self/status").read_text().split()
        return int(status[status.index("VmHWM:") + 1]) * 1024

torch.set_num_threads(1)
batch_size, views = map(int, sys.argv[2:])
images, labels = open_split(Path(sys.argv[1]), "train")
encoder = build_encoder(width=8, hidden=256, projection=64)
optimizer = {"name": "lars", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "eta": 0.005}
optimizer |= {"schedule": "cosine", "schedule_horizon": "updates"}
device = torch.device("cpu")
mapped = peak(Mapped(images, device), 1)
resident = peak(choose(images, device), 1)
print(json.dumps({"mapped": mapped, "resident": resident}))
"""


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads a process's peak from /proc")


def peaks(folder, batch_size, views):
    """Return the peak memory of a pretraining from a file and, after it, from memory."""
    command = [sys.executable, "-c", TRAINING, str(folder), str(batch_size), str(views)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout)


def write_split(folder, count):
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    np.save(folder / "train_images.npy", images)
    np.save(folder / "train_labels.npy", np.zeros(count, dtype=np.int64))
    return images.nbytes


@linux
@pytest.mark.slow
def test_pretraining_on_as_much_as_cifar_10_stays_below_three_gigabytes(tmp_path):
    size = write_split(tmp_path, 50_000)
    assert size < max(peaks(tmp_path, 100, 16).values()) < 3e9


@linux
@pytest.mark.slow
def test_pretraining_from_a_file_does_not_take_the_memory_of_the_images(tmp_path):
    size = write_split(tmp_path, 130_000)
    actual = peaks(tmp_path, 2, 2)
    assert actual["resident"] - actual["mapped"] == pytest.approx(size, rel=0.15)
