"""Compilation: equal numbers, no side effects of the trial, and a reason if it fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys

import pytest
import torch

from robustviews import augment, step
from robustviews.augment import Views
from robustviews.machine import compiler
from robustviews.methods import EmpSsl, SimClr
from robustviews.network import build_network
from robustviews.regimes import Free, Pgd, Standard
from tests.unit.tiny_models import SIZE, tiny_encoder, train

IMAGES = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def fresh_compiler():
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_forward_pass_is_one_graph(precision):
    encoder = tiny_encoder()
    encoder.precision = precision
    expected = encoder(IMAGES)
    encoder.compile(backend="eager", fullgraph=True)  # raises where a graph would break
    torch.testing.assert_close(encoder(IMAGES), expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_trial_changes_neither_statistics_nor_parameters_nor_gradients():
    encoder = tiny_encoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(IMAGES).sum().backward()  # changes statistics and leaves gradients
    encoder.load_state_dict(before)
    done = compiler.try_compiled(
        encoder, lambda: encoder(IMAGES).sum().backward(), backend="aot_eager"
    )
    assert done.outcome == "compiled"
    assert done.seconds > 0
    assert encoder._compiled_call_impl is not None
    assert all(parameter.grad is None for parameter in encoder.parameters())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_failed_compilation_keeps_the_encoder_and_reports_the_reason():
    def broken(*_):
        raise RuntimeError("no compiler here\n" + "and much more " * 100)

    encoder = tiny_encoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    expected = encoder(IMAGES)
    encoder.load_state_dict(before)
    done = compiler.try_compiled(encoder, lambda: encoder(IMAGES).sum().backward(), backend=broken)
    assert done.outcome.startswith("eager: BackendCompilerFailed: ")
    assert "no compiler here" in done.outcome
    assert len(done.outcome) < 250
    assert "\n" not in done.outcome
    assert torch.equal(encoder(IMAGES), expected)


@pytest.mark.parametrize(
    ("method", "views"), [(EmpSsl(), Views(count=3)), (SimClr(), Views(count=2))]
)
@pytest.mark.parametrize("regime", [Free(), Pgd(steps=1), Pgd(steps=1, pgd_weight_grads="final")])
def test_the_trial_has_the_shapes_of_the_training_and_updates_nothing(
    method, views, regime, monkeypatch
):
    shapes, rounded = [], set()

    def note(encoder, trial, **_):
        before = [parameter.detach().clone() for parameter in encoder.parameters()]
        encoder.register_forward_hook(lambda _, images, __: shapes.append(images[0].shape))
        allowed = torch.backends.cudnn
        encoder.register_forward_hook(lambda *_: rounded.add(allowed.allow_tf32))
        trial()
        assert all(
            torch.equal(old, new) for old, new in zip(before, encoder.parameters(), strict=True)
        )
        return compiler.Compilation("compiled", 1.0)

    monkeypatch.setattr(compiler, "try_compiled", note)
    encoder = tiny_encoder()
    # The parameters are on the CPU: only their reported device differs.
    monkeypatch.setattr(compiler, "EAGER_DEVICES", ())
    encoder.precision = "tf32"
    net = build_network(encoder, method).train()
    step.compile_encoder(net, method=method, regime=regime, views=views, size=SIZE, batch_size=4)
    encoder.precision = "fp32"
    assert rounded == {True}
    during = set(shapes)
    shapes.clear()
    train(encoder, method=method, regime=regime, views=views, epochs=1)
    assert during == set(shapes) != set()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler reads it
@pytest.mark.parametrize(
    ("regime", "precision"),
    [
        (Free(replays=2), "bf16"),
        (Pgd(steps=1, pgd_weight_grads="final", attack_batchnorm="eval"), "tf32"),
    ],
    ids=["free-bf16", "pgd-tf32"],
)
def test_nothing_is_compiled_after_the_trial_when_the_clock_runs(regime, precision, monkeypatch):
    original, strict = compiler.try_compiled, contextlib.ExitStack()

    def compiled(encoder, trial):
        done = original(encoder, trial, backend="eager")
        strict.enter_context(torch._dynamo.config.patch(error_on_recompile=True))
        return done

    monkeypatch.setattr(compiler, "try_compiled", compiled)
    monkeypatch.setattr(compiler, "EAGER_DEVICES", ())
    options = {"regime": regime, "precision": precision, "compiled": True}
    with strict:
        done = train(tiny_encoder(), method=EmpSsl(), **options)
        assert torch._dynamo.config.error_on_recompile
    assert done.compilation == "compiled"
    assert done.compile_seconds > 0


def test_on_a_cpu_a_training_is_not_compiled_and_its_record_states_it():
    done = train(tiny_encoder(), method=SimClr(), regime=Free(), compiled=True, epochs=1)
    assert done.compilation == compiler.ON_CPU
    assert done.compile_seconds == 0
    assert train(tiny_encoder(), method=SimClr(), regime=Free(), epochs=1).compilation == "eager"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="on a CPU the compiler needs g++")
def test_code_of_an_earlier_process_is_not_compiled_again(tmp_path):
    code = """
import torch
from torch._dynamo.utils import counters
from robustviews.machine import compiler

class Net(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x).relu()

net, x = Net(4, 2), torch.ones(3, 4)
assert compiler.try_compiled(net, lambda: net(x).sum().backward()).outcome == "compiled"
print(counters["inductor"]["fxgraph_cache_hit"] > 0)
"""
    env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    env["TORCHINDUCTOR_VEC_ISA_OK"] = "0"  # vector instructions are tried for half a minute
    hits = [
        subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert hits == ["False", "True"]


@pytest.mark.slow
@pytest.mark.parametrize("large", [True, False])
def test_changes_of_large_views_are_compiled_if_the_encoder_is(large, monkeypatch):
    original, asked = augment.make_views, []

    def noting(*arguments, compiled=False, **options):
        asked.append(compiled)
        return original(*arguments, compiled=compiled, **options)

    monkeypatch.setattr(augment, "make_views", noting)
    monkeypatch.setattr(augment, "LARGE", SIZE if large else SIZE + 1)
    monkeypatch.setattr(compiler, "EAGER_DEVICES", ())
    monkeypatch.setattr(compiler, "BACKEND", "aot_eager")
    compiler.compiled.cache_clear()
    views = Views(count=2, augmentation="emp_ssl")
    for compiled in (True, False):
        options = {"regime": Standard(), "compiled": compiled, "epochs": 1}
        train(tiny_encoder(), method=EmpSsl(), views=views, **options)
    trial = [False, True] if large else []
    assert asked == [*trial, *[large] * 3, *[False] * 3]


def test_compiled_views_are_the_same_but_for_rounding(monkeypatch):
    monkeypatch.setattr(compiler, "BACKEND", "aot_eager")
    compiler.compiled.cache_clear()
    options = {"size": SIZE, "key": 5, "counters": torch.arange(len(IMAGES))}
    views = Views(count=3, augmentation="emp_ssl")
    eager = augment.make_views(IMAGES, views, **options)
    compiled = augment.make_views(IMAGES, views, **options, compiled=True)
    compiler.compiled.cache_clear()
    torch.testing.assert_close(compiled, eager, rtol=0, atol=1e-6)
