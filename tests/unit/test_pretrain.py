"""The training loop: the inputs of a regime, the schedule, and resuming as if uninterrupted.

Most tests run the loop with a regime that only records its inputs; they train a real network if
its state matters.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from robustviews import augment
from robustviews.augment import Views
from robustviews.machine import runtime
from robustviews.machine.compiler import Compilation
from robustviews.methods import METHODS, EmpSsl, SimClr
from robustviews.optim import Adam, Lars, Sgd, build_optimizer, learning_rate
from robustviews.pretrain import Progress, TrainingError
from robustviews.regimes import REGIMES, Free, Pgd, Standard, passes_over_data
from tests.unit.tiny_models import (
    SIZE,
    Noting,
    encoder_for,
    noise_images,
    note,
    small_method,
    tiny_encoder,
    train,
    weights_of,
)

# What a minibatch is


def test_each_pass_has_every_image_once_except_those_of_the_last_smaller_minibatch():
    progress, notes = note(count=13, epochs=3, batch_size=4)
    labels = [batch.labels for batch, _ in notes.given]
    assert [len(batch) for batch in labels] == [4] * 9
    passes = [torch.cat(labels[i : i + 3]).tolist() for i in (0, 3, 6)]
    assert all(len(set(images)) == 12 for images in passes)
    assert len({tuple(images) for images in passes}) == 3  # another order each time
    assert progress.update == 9
    assert progress.epoch == 3


def test_full_minibatches_leave_no_image_out():
    _, notes = note(count=12, epochs=1, batch_size=4)
    assert sorted(torch.cat([batch.labels for batch, _ in notes.given]).tolist()) == list(range(12))


def test_a_minibatch_holds_images_views_and_labels_of_the_same_samples():
    views = Views(count=3, crop="none", augmentation="geometry")
    images = noise_images(13)
    _, notes = note(views=views)
    for batch, _ in notes.given:
        expected = images[batch.labels] / 255
        assert torch.equal(batch.images, expected)
        assert batch.views.shape == (3, 4, 3, SIZE, SIZE)
        for view in batch.views:
            mirrored = (view == expected.flip(-1)).flatten(1).all(dim=1)
            assert (mirrored | (view == expected).flatten(1).all(dim=1)).all()


def test_views_and_images_have_the_requested_size():
    _, notes = note(size=12)
    batch, _ = notes.given[0]
    assert batch.views.shape[-2:] == batch.images.shape[-2:] == (12, 12)


def test_views_of_an_image_depend_only_on_seed_pass_and_image():
    def views_of_image_5(**options):
        _, notes = note(**options)
        shown = [
            batch.views[:, batch.labels.tolist().index(5)]
            for batch, _ in notes.given
            if 5 in batch.labels
        ]
        assert len(shown) == 2
        return shown

    first, second = views_of_image_5(count=12)
    assert not torch.equal(first, second)
    key = runtime.counter_key(0, "views", 0)
    five = noise_images(12)[5:6]
    alone = augment.make_views(five, Views(), size=SIZE, key=key, counters=torch.tensor([5]))
    torch.testing.assert_close(first, alone[:, 0], rtol=0, atol=1e-6)
    in_another_batch, _ = views_of_image_5(count=12, batch_size=6)
    torch.testing.assert_close(first, in_another_batch, rtol=0, atol=1e-6)
    other, _ = views_of_image_5(count=12, seed=1)
    assert not torch.equal(first, other)


def test_a_perturbation_is_carried_from_minibatch_to_minibatch_and_over_passes():
    _, notes = note()
    assert [delta if delta is None else delta.item() for _, delta in notes.given] == [
        None,
        1,
        2,
        3,
        4,
        5,
    ]


def test_random_starts_depend_on_seed_pass_and_minibatch():
    draws = [torch.stack(note(seed=seed)[1].draws) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert len(torch.cat([draws[0], draws[2]]).unique(dim=0)) == 12


def test_the_global_generator_is_not_used():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    train(tiny_encoder(), method=EmpSsl(), regime=Free(delta_start="uniform"))
    assert torch.equal(torch.get_rng_state(), state)


# Length and learning rate


@pytest.mark.parametrize(("regime", "updates"), [(Standard(), 6), (Pgd(steps=2), 6), (Free(), 18)])
@pytest.mark.parametrize("name", METHODS)
def test_updates_are_passes_by_minibatches_by_replays(name, regime, updates):
    method = METHODS[name]()
    encoder = tiny_encoder(supervised=method.supervised)
    before = weights_of(encoder)
    progress = train(
        encoder, method=method, regime=regime, views=Views(count=1 if method.supervised else 2)
    )
    assert (progress.update, progress.epoch, progress.position) == (updates, 2, 0)
    assert len(progress.history) == 2
    after = weights_of(encoder)
    # A bias before batch norm or before the normalisation has no gradient but rounding.
    idle = {"prefeature.0.bias", "projector.0.bias", "projector.3.bias"}
    assert {name for name in after if after[name] == before[name]} <= idle
    passes = progress.update * (3 if isinstance(regime, Pgd) else 1)
    tracked = int(encoder.state_dict()["backbone.bn1.num_batches_tracked"])
    if method.evaluated == "teacher":  # it sees each view of a minibatch once
        assert tracked == 2 * 6
    else:
        assert tracked == passes * (1 if name in ("emp_ssl", "supervised") else 2)


@pytest.mark.parametrize("replays", [1, 3])
def test_the_rate_of_each_update_falls_from_the_base_to_one_step_before_zero(replays):
    progress, notes = note(Noting(replays), optimizer={"lr": 0.3})
    updates = 6 * replays
    expected = [0.15 * (1 + math.cos(math.pi * step / updates)) for step in range(updates)]
    assert notes.rates == pytest.approx(expected)
    assert notes.rates[0] == pytest.approx(0.3)
    assert notes.rates[-1] < 0.3 / updates
    assert [row["lr"] for row in progress.history] == pytest.approx(
        [expected[updates // 2 - 1], expected[-1]]
    )


def test_a_constant_rate_stays():
    _, notes = note(Noting(2), optimizer={"schedule": "constant", "lr": 0.2})
    assert notes.rates == pytest.approx([0.2] * 12)


def test_a_warm_up_rises_linearly_and_leaves_the_other_passes_to_the_schedule():
    options = {"lr": 0.3, "warmup_epochs": 1, "warmup_lr": 0.03}
    _, notes = note(Noting(2), optimizer=options, epochs=3)
    rise = [0.03 + 0.27 * step / 6 for step in range(6)]
    fall = [0.15 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert notes.rates == pytest.approx(rise + fall)


def test_a_triangular_rate_rises_from_zero_to_the_half_and_falls_again():
    _, notes = note(Noting(2), optimizer={"schedule": "triangular", "lr": 0.6})
    expected = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert notes.rates == pytest.approx(expected)
    short = {"schedule": "triangular", "lr": 0.6, "schedule_horizon": "minibatches"}
    _, notes = note(Noting(2), optimizer=short)
    assert notes.rates == pytest.approx([0, 0.2, 0.4, 0.6, 0.4, 0.2] * 2)


@pytest.mark.parametrize(
    ("horizon", "updates_per_batch", "zero_at"),
    [("updates", 1, 10), ("updates", 3, 30), ("minibatches", 1, 10), ("minibatches", 3, 10)],
)
def test_the_cosine_reaches_zero_at_its_horizon(horizon, updates_per_batch, zero_at):
    rate = learning_rate(
        0.3,
        schedule="cosine",
        horizon=horizon,
        minibatches=10,
        updates_per_batch=updates_per_batch,
    )
    assert rate(0) == 0.3
    assert rate(zero_at) == pytest.approx(0)
    assert rate(zero_at - 1) > 0.0005


@pytest.mark.parametrize(
    ("meaning", "epochs", "replays", "views", "passes"),
    [
        ("passes", 10, 3, 16, 10),
        ("replays", 30, 3, 16, 10),
        ("replays", 10, 3, 16, 3),
        ("replays", 10, 1, 16, 10),
        ("views", 480, 3, 16, 10),
        ("views", 10, 3, 16, 1),  # never none
        ("views", 72, 3, 16, 2),  # one and a half
    ],
)
def test_passes_over_the_data(meaning, epochs, replays, views, passes):
    assert passes_over_data(epochs, meaning, replays, views) == passes


# What comes out


def test_a_network_is_left_in_eval_mode_without_gradients_in_the_precision_of_training():
    encoder = tiny_encoder()
    train(encoder, method=SimClr(), regime=Standard(), precision="bf16", epochs=1)
    assert not encoder.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert encoder.precision == "bf16"


@pytest.mark.parametrize(
    ("precision", "allowed"), [("fp32", False), ("tf32", True), ("bf16", False)]
)
def test_tf32_is_allowed_while_a_minibatch_is_trained_and_at_no_other_time(
    precision, allowed, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    encoder, actual = tiny_encoder(), []

    def note(*_):
        actual.append(torch.backends.cudnn.allow_tf32)

    encoder.register_forward_hook(note)
    encoder.prefeature[0].weight.register_hook(note)
    train(encoder, method=SimClr(), regime=Free(), precision=precision, epochs=1)
    assert actual == [allowed] * len(actual) != []
    assert not torch.backends.cudnn.allow_tf32


def test_on_a_cpu_tf32_is_float32():
    weights = []
    for precision in ("fp32", "tf32"):
        encoder = tiny_encoder()
        train(encoder, method=SimClr(), regime=Free(), precision=precision, epochs=1)
        weights.append(encoder.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_history_has_the_mean_loss_of_each_pass():
    progress, _ = note(Noting(2, losses=lambda number: float(number**2)))
    assert [row["loss"] for row in progress.history] == pytest.approx(
        [(1 + 4 + 9) / 3, (16 + 25 + 36) / 3]
    )
    assert [row["epoch"] for row in progress.history] == [1, 2]
    assert all(
        set(row) == {"epoch", "loss", "lr", "seconds", "images_per_second"}
        for row in progress.history
    )
    assert 0 < progress.history[0]["seconds"] <= progress.history[1]["seconds"]
    json.dumps(progress.history, allow_nan=False)  # as it is written


def test_images_per_second_count_only_trained_images(monkeypatch):
    clock = SimpleNamespace(
        monotonic=itertools.count(step=5).__next__
    )  # 5 s between readings of the clock
    monkeypatch.setattr("robustviews.pretrain.time", clock)
    progress, _ = note(count=13)
    assert [row["images_per_second"] for row in progress.history] == [12 / 5] * 2


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    def trained(seed):
        encoder = tiny_encoder()
        train(encoder, method=EmpSsl(), regime=Pgd(steps=1), seed=seed)
        return weights_of(encoder)

    assert trained(3) == trained(3)
    assert trained(3) != trained(4)


def test_a_minibatch_of_more_images_than_there_are_is_refused():
    with pytest.raises(TrainingError, match=r"^my-run: batch_size 14 is more than the 13 training"):
        note(batch_size=14, title="my-run")
    note(batch_size=13)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_after_its_pass(loss):
    notes = Noting(losses=lambda number: loss if number == 2 else 1.0)
    with pytest.raises(TrainingError, match=f"^my-run: the loss is {loss} after pass 1; lower opt"):
        note(notes, title="my-run")
    assert len(notes.given) == 3


def test_a_diverging_network_ends_the_training():
    optimizer = {"name": "sgd", "lr": 1e30}
    with pytest.raises(TrainingError, match=r"the loss is nan after pass 1; lower optimizer\.lr"):
        train(tiny_encoder(), method=SimClr(), regime=Standard(), optimizer=optimizer)


# The optimizer


def test_each_optimizer_gets_the_options_of_the_study():
    encoder = tiny_encoder()
    options = {"lr": 0.2, "momentum": 0.7, "weight_decay": 0.01, "eta": 0.02}
    lars, sgd, adam = (
        build_optimizer(encoder, name=name, **options) for name in ("lars", "sgd", "adam")
    )
    assert [type(optimizer) for optimizer in (lars, sgd, adam)] == [Lars, Sgd, Adam]
    assert lars.defaults | options == lars.defaults
    del options["eta"]
    assert sgd.defaults | options == sgd.defaults
    assert sgd.defaults["nesterov"]
    del options["momentum"]
    assert adam.defaults | options == adam.defaults
    for optimizer in (lars, sgd, adam):
        [group] = optimizer.param_groups
        assert len(group["params"]) == len(list(encoder.parameters()))


def test_sgd_without_momentum_is_no_error():
    options = {"lr": 0.2, "momentum": 0.0, "weight_decay": 0.0, "eta": 0.0}
    assert not build_optimizer(tiny_encoder(), name="sgd", **options).defaults["nesterov"]


def descend(optimizer, *, steps=4):
    """Return a weight after steps whose gradients are 1, 2, 3, ... times itself."""
    weight = nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64))
    stepper = optimizer([weight])
    for step in range(1, steps + 1):
        stepper.zero_grad()
        (0.5 * step * weight**2).sum().backward()
        stepper.step()
    return weight.detach()


def test_sgd_is_nesterov_s_with_weight_decay():
    expected, velocity = torch.linspace(-1, 1, 5, dtype=torch.float64), 0.0
    for step in range(1, 5):
        gradient = step * expected + 0.1 * expected
        velocity = 0.9 * velocity + gradient
        expected = expected - 0.05 * (gradient + 0.9 * velocity)
    actual = descend(lambda p: Sgd(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("optimizer", [Sgd, Lars])
def test_heavy_ball_momentum_does_not_look_ahead(optimizer):
    expected, velocity = torch.linspace(-1, 1, 5, dtype=torch.float64), 0.0
    for step in range(1, 5):
        velocity = 0.9 * velocity + step * expected
        expected = expected - 0.05 * velocity
    options = {"momentum": 0.9, "nesterov": False, "weight_decay": 0.0}
    torch.testing.assert_close(descend(lambda p: optimizer(p, 0.05, **options)), expected)


def test_adam_is_that_of_kingma_and_ba_with_weight_decay():
    expected, mean, square = torch.linspace(-1, 1, 5, dtype=torch.float64), 0.0, 0.0
    for step in range(1, 5):
        gradient = step * expected + 0.1 * expected
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        root = (square / (1 - 0.999**step)).sqrt() + 1e-8
        expected = expected - 0.05 * mean / (1 - 0.9**step) / root
    actual = descend(lambda p: Adam(p, 0.05, weight_decay=0.1))
    torch.testing.assert_close(actual, expected)


# Interruptions


class InterruptedTraining(Exception):  # noqa: N818  # it is no error
    """The error that ends a training in these tests."""


class Memory:
    """Keeps state as a file would, as bytes.

    Args:
        every: minibatches from one saved state to the next; 0 saves none.
        dies_after: minibatches after which the training is interrupted.
    """

    def __init__(self, *, every=1, dies_after=None):
        self.every, self.dies_after = every, dies_after
        self.minibatches = 0
        self.saved = []

    def load(self):
        if not self.saved:
            return None
        tensors, position = self.saved[-1]
        return load_tensors(tensors), json.loads(position)

    def due(self):
        self.minibatches += 1
        if self.minibatches == self.dies_after:
            raise InterruptedTraining
        return self.every and self.minibatches % self.every == 0

    def save(self, tensors, position):
        plain = {name: value.detach().contiguous() for name, value in tensors.items()}
        self.saved.append((save_tensors(plain), json.dumps(position)))


@dataclass(frozen=True)
class Case:
    """A training whose state is more than the weights."""

    optimizer: dict
    method: object = EmpSsl()
    regime: object = Free(replays=2)
    precision: str = "fp32"

    def train(self, checkpoint=None):
        names = {cls: name for name, cls in METHODS.items()}
        encoder = encoder_for(names[type(self.method)])
        progress = train(
            encoder,
            method=self.method,
            regime=self.regime,
            optimizer=self.optimizer,
            precision=self.precision,
            checkpoint=checkpoint,
        )
        return weights_of(encoder), progress


CASES = {
    "free, lars": Case({"name": "lars"}),
    "free, sgd": Case({"name": "sgd", "lr": 0.05}),
    "free, adam": Case({"name": "adam", "lr": 0.01}),
    "free, uniform": Case(
        {"name": "lars"}, SimClr(), Free(2, delta_lifetime="minibatch", delta_start="uniform")
    ),
    "pgd, bf16": Case({"name": "lars"}, SimClr(), Pgd(steps=1), "bf16"),
}
SHORT = {"standard": Standard(), "pgd": Pgd(steps=1), "free": Free(2)}
PAIRS = {f"{method}, {regime}": (method, regime) for method in METHODS for regime in REGIMES}
CASES |= {
    name: Case({"name": "lars"}, small_method(method), SHORT[regime])
    for name, (method, regime) in PAIRS.items()
}
# Each method once, with the regimes in turn; the other pairs only in the slow tier.
QUICK = {f"{method}, {regime}" for method, regime in zip(METHODS, itertools.cycle(REGIMES))}
OTHERS = PAIRS.keys() - QUICK
quick_cases = pytest.mark.parametrize("case", [name for name in CASES if name not in OTHERS])
cases = pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=pytest.mark.slow if name in OTHERS else ()) for name in CASES],
)


@pytest.fixture(scope="module")
def uninterrupted():
    """Return weights and progress of a case that was neither interrupted nor saved."""
    return functools.cache(lambda case: CASES[case].train())


def of_training(progress: Progress):
    """Return the progress without times, which is the same for equal trainings."""
    kept = ("epoch", "loss", "lr")
    rows = [tuple(row[name] for name in kept) for row in progress.history]
    return progress.epoch, progress.position, progress.update, rows


@cases
def test_a_training_resumes_from_any_minibatch_as_if_never_interrupted(case, uninterrupted):
    weights, progress = uninterrupted(case)
    memory = Memory()
    saving, _ = CASES[case].train(memory)
    assert saving == weights
    assert len(memory.saved) == 6
    last, _ = memory.load()
    for minibatches in (2, 3) if case in OTHERS else range(1, 7):
        again = Memory()
        again.saved = memory.saved[:minibatches]
        resumed, resumed_progress = CASES[case].train(again)
        assert resumed == weights
        assert of_training(resumed_progress) == of_training(progress)
        assert resumed_progress.resumed == 1
        assert again.minibatches == 6 - minibatches
        state, _ = again.load()  # with heads, teacher and state of the method
        assert state.keys() == last.keys()
        assert all(torch.equal(state[name], last[name]) for name in last)


@quick_cases
def test_the_interval_of_saved_states_decides_nothing(case, uninterrupted):
    weights, progress = uninterrupted(case)
    memory = Memory(every=4)
    saving, saving_progress = CASES[case].train(memory)
    assert len(memory.saved) == 1
    assert saving == weights
    assert of_training(saving_progress) == of_training(progress)
    assert saving_progress.resumed == 0


# Number of resumes from a state that a process saved before it was interrupted.
@pytest.mark.parametrize(("every", "resumed"), [(1, 2), (2, 1), (0, 0)])
def test_a_training_that_is_interrupted_repeatedly_has_the_same_result(
    every, resumed, uninterrupted
):
    case = CASES["free, lars"]
    memory = Memory(every=every, dies_after=4)
    with pytest.raises(InterruptedTraining):
        case.train(memory)
    for dies_after in (2, 1):
        memory.minibatches, memory.dies_after = 0, dies_after
        with pytest.raises(InterruptedTraining):
            case.train(memory)
    memory.dies_after = None
    weights, progress = case.train(memory)
    expected, of_expected = uninterrupted("free, lars")
    assert weights == expected
    assert of_training(progress) == of_training(of_expected)
    assert progress.resumed == resumed


def test_seconds_of_all_processes_are_added_up():
    case = CASES["pgd, bf16"]
    memory = Memory()
    case.train(memory)
    tensors, position = memory.saved[2]
    memory.saved = [(tensors, json.dumps(json.loads(position) | {"seconds": 1000.0}))]
    _, progress = case.train(memory)
    assert 1000 < progress.seconds < 1100
    assert progress.history[-1]["seconds"] > 1000


@pytest.mark.parametrize(
    ("was", "now", "resumed"),
    [
        ("compiled", "eager: no compiler", 0),
        ("eager: no compiler", "compiled", 0),
        ("eager: no compiler", "eager: it failed at 0x7f", 1),
    ],
)
def test_a_training_resumes_neither_a_compiled_state_uncompiled_nor_the_reverse(
    was, now, resumed, monkeypatch, caplog
):
    memory, case = Memory(dies_after=4), CASES["free, lars"]
    outcome = {"outcome": was}
    monkeypatch.setattr("robustviews.pretrain.Compilation", lambda _: Compilation(**outcome))
    with pytest.raises(InterruptedTraining):
        case.train(memory)
    memory.dies_after = None
    outcome["outcome"] = now
    _, progress = case.train(memory)
    assert (progress.resumed, progress.compilation) == (resumed, now)
    assert (f"computed with {was}, here is {now}" in caplog.text) == (not resumed)


def test_a_saved_state_of_another_network_is_refused():
    memory = Memory()
    CASES["free, lars"].train(memory)
    with pytest.raises(RuntimeError, match="size mismatch"):
        train(tiny_encoder(hidden=12), method=EmpSsl(), regime=Free(), checkpoint=memory)


def test_state_holds_the_carried_perturbation_and_every_buffer_of_the_optimizer():
    memory = Memory()
    CASES["free, adam"].train(memory)
    tensors, position = memory.load()
    kinds = {name.partition(".")[0] for name in tensors}
    assert kinds == {"encoder", "optimizer", "delta", "loss_sum"}
    slots = {name.rpartition(".")[2] for name in tensors if name.startswith("optimizer")}
    assert slots == {"step", "exp_avg", "exp_avg_sq"}
    assert tensors["delta"].shape == (2, 4, 3, SIZE, SIZE)
    assert position["update"] == 12
