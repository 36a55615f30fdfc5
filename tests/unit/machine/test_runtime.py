"""Random numbers that are a function of their purpose, and the settings of the process."""

from __future__ import annotations

import hashlib
import io
import math
import sys

import pytest
import torch
from torch import nn

from robustviews.machine import runtime

KEY = runtime.counter_key(0, "views", 1)
WORD = 2**64 - 1


def splitmix(key: int, counter: int, draw: int) -> float:
    """Return a draw in plain integers: SplitMix64's finaliser of a counter, then of a position."""
    golden = 0x9E3779B97F4A7C15

    def mix(state: int) -> int:
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD
        return state ^ (state >> 31)

    stream = mix((counter * golden + key) & WORD)
    return (mix((stream + (draw + 1) * golden) & WORD) >> 40) / 2**24


def test_the_finaliser_is_that_of_splitmix64():
    """Its first two numbers from seed 1234567 are published, for example by Rosetta Code."""
    golden, states = 0x9E3779B97F4A7C15, []
    for step in (1, 2):
        state = (1234567 + step * golden) & WORD
        states.append(state - 2**64 if state >= 2**63 else state)
    mixed = [value & WORD for value in runtime._mix(torch.tensor(states)).tolist()]
    assert mixed == [6457827717110365317, 3203168211198807973]


@pytest.mark.parametrize("key", [0, 1, -1, KEY, 2**63 - 1, -(2**63)])
def test_draws_equal_a_reference_in_plain_integers(key):
    counters = [0, 1, 2, 49_999, 2**31, 2**62, -5]
    actual = runtime.counter_uniform(key, torch.tensor(counters), 4)
    assert actual.dtype == torch.float32
    expected = [[splitmix(key, counter, draw) for draw in range(4)] for counter in counters]
    assert actual.tolist() == expected


def test_the_streams_never_change():
    """If these numbers change, no earlier result can be repeated."""
    assert runtime.counter_key(0, "views", 1) == -5103457511390675845
    draws = runtime.counter_uniform(KEY, torch.tensor([0, 1, 4999]), 2) * 2**24
    assert draws.tolist() == [[5964789, 3773993], [12281918, 13803085], [16575790, 5481240]]
    assert runtime.permutation(8, 3, "order", 0).tolist() == [6, 7, 0, 5, 2, 4, 3, 1]
    numbers = torch.randint(100, (5,), generator=runtime.generator("cpu", 3, "x"))
    assert numbers.tolist() == [7, 26, 63, 6, 47]


def test_a_draw_does_not_depend_on_its_batch_or_the_number_of_draws():
    counters = torch.arange(1000)
    whole = runtime.counter_uniform(KEY, counters, 8)
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(runtime.counter_uniform(KEY, counters[shuffled], 8), whole[shuffled])
    assert torch.equal(runtime.counter_uniform(KEY, counters[[7]], 8), whole[[7]])
    assert torch.equal(runtime.counter_uniform(KEY, counters, 3), whole[:, :3])
    assert torch.equal(runtime.counter_uniform(KEY, torch.tensor([5, 5]), 8), whole[[5, 5]])


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    runtime.counter_uniform(KEY, torch.arange(3), 2)
    runtime.permutation(5, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_are_uniform_on_the_half_open_interval():
    draws = runtime.counter_uniform(KEY, torch.arange(20_000), 10).double()
    assert 0 <= draws.min() < 1e-4
    assert 1 - 1e-4 < draws.max() < 1
    count = draws.numel()
    assert abs(draws.mean() - 0.5) < 4 * math.sqrt(1 / 12 / count)
    bins = torch.histc(draws, 64, 0, 1)
    chi_squared = ((bins - count / 64) ** 2 / (count / 64)).sum()
    assert abs(chi_squared - 63) < 4 * math.sqrt(2 * 63)


def test_draws_counters_and_streams_are_independent():
    counters, columns = torch.arange(20_000), 10
    draws = runtime.counter_uniform(KEY, counters, columns).double()
    others = [
        runtime.counter_uniform(runtime.counter_key(*parts), counters, columns).double()
        for parts in ((0, "views", 2), (1, "views", 1), (0, "order", 1))
    ]
    following = draws.roll(1, dims=0)
    numbers = torch.cat((draws, following, *others), dim=1)  # (20000, 50)
    correlation = torch.corrcoef(numbers.T) - torch.eye(numbers.shape[1])
    assert correlation.abs().max() < 5 / math.sqrt(len(counters))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), (12,)),
        ((1, 2), (2, 1)),
        ((1,), ("1",)),
        (("a", "b"), ("ab",)),
        ((0, "views", 1), (0, "views", 10)),
        ((), (0,)),
    ],
)
def test_different_purposes_have_different_keys(one, other):
    assert runtime.counter_key(*one) != runtime.counter_key(*other)


def test_a_key_is_a_hash_of_its_parts_and_fits_a_tensor():
    digest = hashlib.sha256(b"int:0\x1fstr:views").digest()
    key = runtime.counter_key(0, "views")
    assert key == int.from_bytes(digest[:8], "little", signed=True)
    assert torch.tensor(key).item() == key


def test_permutations_and_generators_depend_only_on_their_purpose():
    one, again = runtime.permutation(100, 0, "order", 1), runtime.permutation(100, 0, "order", 1)
    assert torch.equal(one, again)
    assert sorted(one.tolist()) == list(range(100))
    assert (one.dtype, one.device.type) == (torch.int64, "cpu")
    assert not torch.equal(one, runtime.permutation(100, 0, "order", 2))
    numbers = torch.rand(3, generator=runtime.generator("cpu", 0, "delta"))
    assert torch.equal(numbers, torch.rand(3, generator=runtime.generator("cpu", 0, "delta")))
    assert not torch.equal(numbers, torch.rand(3, generator=runtime.generator("cpu", 1, "delta")))


def network() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    net[0].bias.requires_grad_(False)
    return net


def test_frozen_parameters_get_no_gradient_and_inputs_do():
    net = network()
    x = torch.ones(2, 3, requires_grad=True)
    with runtime.frozen(net):
        net(x).sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_frozen_restores_requires_grad_even_after_an_error(error):
    net = network()
    net[2].weight.grad = torch.ones(2, 3)
    before = [parameter.requires_grad for parameter in net.parameters()]
    try:
        with runtime.frozen(net):
            assert not any(parameter.requires_grad for parameter in net.parameters())
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert [parameter.requires_grad for parameter in net.parameters()] == before
    assert before.count(False) == 1
    assert torch.equal(net[2].weight.grad, torch.ones(2, 3))


def test_the_cpu_is_always_available():
    assert runtime.choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (2, "cuda")])
def test_auto_takes_a_gpu_if_there_is_one(gpus, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert runtime.choose_device("auto") == torch.device(device)


@pytest.mark.parametrize(("name", "gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_a_missing_gpu_is_reported_with_a_fix(name, gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    expected = f"--device {name}: torch sees {gpus} CUDA devices here; use --device cpu"
    with pytest.raises(ValueError, match=f"^{expected}$"):
        runtime.choose_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "mps", "meta", "cuda:", "cuda:one", "cuda:-1", "cpu0"])
def test_an_unknown_device_is_reported_with_the_known_ones(name):
    with pytest.raises(ValueError, match=f"^--device {name}: expected auto, cpu, cuda, or cuda:1"):
        runtime.choose_device(name)


@pytest.fixture
def process():
    """Restore the settings of the process."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.usefixtures("process")
def test_the_process_is_configured_as_requested(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    runtime.configure(threads=2, deterministic=False)
    assert not torch.backends.cudnn.benchmark
    runtime.configure(threads=2, deterministic=False, tuned=True)
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert "CUBLAS_WORKSPACE_CONFIG" not in runtime.os.environ
    runtime.configure(threads=1, deterministic=True, tuned=True)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert runtime.os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_bf16_is_for_matrix_products_inside_the_context_only():
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    with runtime.autocast("bf16", torch.device("cpu")):
        assert layer(x).dtype == torch.bfloat16
    with runtime.autocast("fp32", torch.device("cpu")):
        assert layer(x).dtype == torch.float32
    assert layer(x).dtype == torch.float32


def test_the_environment_names_the_software_and_hardware_of_a_number():
    actual = runtime.environment(torch.device("cpu"))
    assert actual["python"] == sys.version.split()[0]
    assert actual["torch"] == torch.__version__
    assert actual["threads"] == torch.get_num_threads()
    assert actual["deterministic"] == torch.are_deterministic_algorithms_enabled()
    assert actual["driver"] is None
    assert actual["device"].startswith("cpu: ")
    assert len(actual["device"]) > len("cpu: ")
    assert actual["platform"]


def test_what_decides_bytes_is_told_from_what_does_not(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    actual = runtime.environment(torch.device("cpu"))
    decisive = runtime.decisive({**actual, "ranks": 2})
    assert actual["variables"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    for name in ("torch", "device", "cpu_capability", "threads", "deterministic"):
        assert decisive[name] == actual[name]
    assert (decisive["ranks"], decisive["ONEDNN_MAX_CPU_ISA"]) == (2, "AVX2")
    assert decisive.keys().isdisjoint({"python", "platform", "driver", "variables"})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(monkeypatch, screen: io.StringIO) -> str:
    """Return the bar of ten images at two seconds each; two were done by an earlier process."""
    now = 0.0
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(runtime.time, "monotonic", lambda: now)
    bar = runtime.ProgressBar(10, "image", "attack")
    bar.begin_at(2)
    for done in range(3, 11):
        now += 2
        bar.show(done)
        now += 0.01
        bar.show(done - 1)
    return screen.getvalue()


def test_progress_shows_rate_and_time_left_on_a_terminal(monkeypatch):
    lines = progress(monkeypatch, Terminal()).split("\r")[1:]
    assert len(lines) == 8, "no more than ten times a second"
    assert lines[5].rstrip() == "attack [###################.....] 8/10 0 image/s 0:04 left"
    assert lines[-1] == "attack [########################] 10/10 0 image/s 0:00 left\n"


def test_progress_is_silent_if_stderr_is_not_a_terminal(monkeypatch):
    assert progress(monkeypatch, io.StringIO()) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3_725, "1:02:05"), (math.inf, "?")]
)
def test_times_are_read_as_a_clock(seconds, text):
    assert runtime._clock(seconds) == text


def settings() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("process")
def test_tf32_is_allowed_in_convolutions_alone():
    runtime.configure(threads=1, deterministic=False)
    assert settings() == (False, False)
    with runtime.tf32(allowed=True):
        assert settings() == (False, True)
        with runtime.tf32(allowed=False):
            assert settings() == (False, False)
        assert settings() == (False, True)
    assert settings() == (False, False)
    with pytest.raises(ZeroDivisionError), runtime.tf32(allowed=True):
        _ = 1 / 0
    assert settings() == (False, False)


def test_losses_are_computed_in_float32_or_wider():
    assert runtime.widen(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    exact = torch.ones(1, dtype=torch.float64)
    assert runtime.widen(exact) is exact


@pytest.mark.usefixtures("process")
def test_no_algorithms_are_searched_for_shapes_that_are_computed_once():
    torch.backends.cudnn.benchmark = True
    with runtime.untuned():
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    ("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)]
)
def test_bf16_is_native_on_gpus_since_ampere(capability, native, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert runtime.native_bf16(torch.device("cuda")) is native


@pytest.mark.parametrize("feature", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_bf16_is_native_on_a_cpu_that_multiplies_it(feature, monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert runtime.native_bf16(torch.device("cpu")) is False
    monkeypatch.setattr(torch.cpu, feature, lambda: True)
    assert runtime.native_bf16(torch.device("cpu")) is True
