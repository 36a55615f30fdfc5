"""Measuring: counts are exact, times are plausible, and time limits hold."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time

import pytest
import torch

from robustviews.attacks import AutoAttack, PgdAttack
from robustviews.attacks.detection import DetectionPgd
from robustviews.attacks.segmentation import Sea, SegmentationPgd
from robustviews.augment import Views
from robustviews.cli import main
from robustviews.datasets.scenes import ScenesDetection
from robustviews.estimating import calibrate, estimate, measure, start_up, tally, timing
from robustviews.estimating.question import Question
from robustviews.machine import memory, runtime
from robustviews.methods import METHODS, EmpSsl, Supervised
from robustviews.probe import (
    FinetuneProbe,
    KnnProbe,
    LinearProbe,
    LogisticProbe,
    NcropProbe,
    RobustLinearProbe,
)
from robustviews.probe.dense import DenseProbe, DetectionProbe, SegmentationProbe
from robustviews.regimes import REGIMES, Free
from robustviews.study import fingerprint, load_study
from robustviews.study import jobs as pending
from robustviews.study.schema import Encoder, Optimizer
from tests.unit.tiny_models import VIEWS

CPU = torch.device("cpu")
SHAPE = Encoder(width=2, hidden=16, projection=8)
STUDY = """
study: tiny
title: Tiny
datasets: {digits: {kind: digits, size: 8, test: 997}}
runs:
  emp-free:
    method: emp_ssl
    regime: free
    datasets: [digits]
    epochs: 3
    encoder: {width: 2, hidden: 16, projection: 8}
    views: {count: 2}
probes: {central: {kind: linear, epochs: 3}}
attacks: {pgd: {kind: pgd, eps: [8], steps: 2, step_size: 5, images: 20}}
tables:
  one:
    title: One
    columns: [digits/clean, digits/pgd/8]
    rows: {a: {run: emp-free, probe: central}}
"""


@pytest.fixture
def hasty(monkeypatch):
    """Accept short, imprecise measurements; their answers have the same form."""
    monkeypatch.setattr(timing, "ENOUGH", 0.05)


def training(method=EmpSsl(), regime=Free(), count=4, **changes):  # noqa: B008  # both are frozen
    about = {
        "method": method,
        "regime": regime,
        "views": Views(count=count),
        "encoder": SHAPE,
        "optimizer": Optimizer(),
        "batch_size": 8,
        "classes": 10 if method.supervised else 0,
        "precision": "fp32",
        "size": 8,
    }
    return about | changes


def options(**changes):
    about = {"encoder": SHAPE, "supervised": False, "feature": "prefeature", "size": 8}
    return about | {"classes": 10, "batch": 16, "threads": 1} | changes


def last(answers):
    *_, answer = answers
    return answer


# A training


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_in_every_regime_can_be_measured(method, regime):
    count = VIEWS[method]
    about = training(METHODS[method](), REGIMES[regime](), count)
    answer = last(measure.training_step(about, CPU, 0.1))
    assert answer["seconds"] > 0
    assert answer["step_bytes"] > answer["disk"] > 0


def test_sizes_begin_with_two_images_and_end_with_the_full_minibatch():
    assert list(measure._sizes(training(count=8))) == [
        (2, 2),
        (2, 8),
        (8, 8),
    ]
    assert list(measure._sizes(training(Supervised(), count=1, batch_size=5)))[-1] == (5, 1)


def test_a_step_has_a_fixed_cost_and_a_cost_per_crop(monkeypatch):
    def took(_encoder, _about, images, views):
        return 2.0 + 0.25 * images * views.count  # an optimizer, and crops

    monkeypatch.setattr(measure, "_minibatch_seconds", took)
    answer = last(measure.training_step(training(batch_size=100), CPU, 100.0))
    assert answer["seconds"] == pytest.approx(2 + 0.25 * 400)


def test_the_time_limit_holds_after_two_sizes(monkeypatch):
    sizes = []

    def took(_encoder, _about, images, views):
        sizes.append(images * views.count)
        return 0.2 * images * views.count

    monkeypatch.setattr(measure, "_minibatch_seconds", took)
    assert len(list(measure.training_step(training(batch_size=4096), CPU, 0.0))) == 1
    assert sizes == [4, 8]  # only two, which separate an update from its crops


def test_a_step_too_long_for_a_second_size_has_no_answer(monkeypatch):
    monkeypatch.setattr(measure, "_minibatch_seconds", lambda *_: 100.0)
    assert list(measure.training_step(training(), CPU, 1.0)) == []
    assert len(list(measure.training_step(training(batch_size=2, count=2), CPU, 1.0))) == 1


# A head and a network


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "probe",
    [
        LinearProbe(),
        RobustLinearProbe(steps=2),
        NcropProbe(n=3),
        KnnProbe(k=2),
        LogisticProbe(),
        FinetuneProbe(lr=(1e20, 0.1)),
        SegmentationProbe(batch_size=8),
        DetectionProbe(batch_size=8, tuned=True),
    ],
    ids=type,
)
def test_every_probe_can_be_measured(probe):
    about = options(probe=probe, views=Views(), task=probe.task.name)
    answer = last(measure.head(about, CPU, 1.0))
    assert answer["image_seconds"] >= 0
    by_updates = probe.epochs or probe.network_updates or isinstance(probe, DenseProbe)
    assert answer["update_seconds"] > 0 if by_updates else answer["update_seconds"] == 0
    maps = 2 * 8**2 + 4 * 4**2 + 8 * 2**2 + 16  # of a frozen encoder
    width = {SegmentationProbe: maps, DetectionProbe: 0}.get(type(probe), 16)
    assert answer["width"] == width
    assert answer["disk"] > 0


def test_an_update_and_one_time_work_are_separated(monkeypatch):
    epochs = []

    def took(work, _device):
        work()
        return 0.1 * epochs[-1][0] + 0.02 * epochs[-1][1]

    class Slow(LinearProbe):
        def train(self, encoder, task, *, start=None):
            epochs.append((self.epochs, len(task.images)))
            return torch.nn.Identity(), []

    monkeypatch.setattr(timing, "seconds_of", took)
    answer = last(measure.head(options(probe=Slow(batch_size=16)), CPU, 100.0))
    assert answer["update_seconds"] == pytest.approx(0.1)
    assert answer["image_seconds"] == pytest.approx(0.02)


def test_a_network_costs_more_backward_and_leaves_no_gradient():
    answer = last(measure.network(options(), CPU, 1.0))
    # On a busy machine the line through two points may be flat.
    assert answer["forward_call_seconds"] + answer["forward_image_seconds"] > 0
    assert answer["view_bytes"] > 4 * 4 * 3 * 8**2


def test_a_segmented_image_takes_memory_for_its_logits_their_softmax_and_their_gradient():
    few, many = (
        last(measure.network(options(task="segmentation", size=32, classes=classes), CPU, 0.0))
        for classes in (10, 20)
    )
    assert many["view_bytes"] - few["view_bytes"] == 3 * 4 * 10 * 32**2


def test_scenes_are_composed_until_there_are_enough():
    answer = last(measure.scenes({"dataset": ScenesDetection(train=3)}, CPU, 1.0))
    assert answer["image_seconds"] > 0


def test_a_start_is_measured_in_a_separate_process():
    answer = start_up._start({"kind": "table", "threads": 1}, CPU, 60.0)
    assert 0 < answer["seconds"] < 60
    assert 2**20 < answer["bytes"] < 2**30


@pytest.mark.parametrize(("kinds", "at_once"), [(4, 2), (4, 3), (1, 3), (2, 5), (0, 2)])
def test_as_many_starts_run_at_a_time_as_jobs(kinds, at_once, monkeypatch):
    together = threading.Barrier(at_once)
    begun = []

    def start(about, _device, _seconds):
        begun.append(about["kind"])
        together.wait(10)  # raises unless `at_once` starts run at the same time
        return {"seconds": float(about["kind"])}

    monkeypatch.setattr(start_up, "_start", start)
    abouts = [{"kind": number} for number in range(kinds)]
    answers = start_up.starts(abouts, CPU, 60.0, at_once=at_once)
    assert answers == [{"seconds": float(number)} for number in range(kinds)]
    assert len(begun) % at_once == 0
    assert set(begun) == set(range(kinds))


@pytest.mark.parametrize("gain", [2.0, 0.5])
def test_the_gain_of_compiling_is_that_of_one_size(gain, monkeypatch):
    def took(_encoder, _about, images, views, *, compiling=None):
        if compiling is not None:
            compiling.append(40.0)
        return 1e-3 * images * views.count / (1.0 if compiling is None else gain)

    monkeypatch.setattr(measure, "_minibatch_seconds", took)
    *_, eager, compiled = measure.training_step(training(batch_size=100, compile=True), CPU, 9.0)
    assert "compiling" not in eager
    assert compiled["compiling"] == 40
    assert compiled["seconds"] == pytest.approx(eager["seconds"] / max(gain, 1.0))


# Passes of an attack


def passes(attack, label, images=3, probe=None, **more):
    about = {"attack": attack, "classes": 10, "size": 8, "batch": 64, **more}
    if probe is not None:
        about |= {"probe": probe, "views": Views()}
    return tally.evaluation(about, CPU, images=images, label=label)[1]


@pytest.mark.parametrize("label", [0, 1])
def test_pgd_passes_are_its_steps_and_two_evaluations_for_any_label(label):
    counted = passes(PgdAttack(eps=(8.0,), steps=7), label)
    assert counted.calls == {"forward": 9, "backward": 7}
    assert counted.images == {"forward": 27, "backward": 21}


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(
    ("attack", "probe", "outputs", "calls"),
    [
        (SegmentationPgd(eps=(8.0,), steps=7), SegmentationProbe(), (10, 8, 8), (9, 7)),
        (Sea(eps=(8.0,), steps=10), SegmentationProbe(), (10, 8, 8), (4 * 13 + 2, 4 * 13)),
        (DetectionPgd(eps=(8.0,), steps=7), DetectionProbe(), (4, 15), (10, 7)),
    ],
)
def test_a_dense_attack_makes_the_passes_that_it_states(attack, probe, outputs, calls, label):
    counted = passes(attack, label, probe=probe, outputs=outputs)
    assert tuple(counted.calls.values()) == calls
    assert counted.calls["backward"] == attack.passes


def test_an_attack_on_pixels_begins_no_further_try_once_all_are_wrong():
    attack = SegmentationPgd(eps=(8.0,), steps=3, restarts=5)
    alive, fallen = (
        passes(attack, label, probe=SegmentationProbe(), outputs=(10, 8, 8)).calls["backward"]
        for label in (0, 1)
    )
    assert (alive, fallen) == (15, 3)


def test_stored_answers_are_those_of_the_task():
    about = {"attack": SegmentationPgd(eps=(8.0,), steps=1), "classes": 10, "size": 8, "batch": 8}
    about |= {"probe": SegmentationProbe(), "outputs": (10, 8, 8)}
    answer = last(tally.attack(about, CPU, 1.0))
    answers = 10 * 2 * 4  # pixels that are right and found, of each class
    assert answer["stored_per_radius"] == answers
    assert answer["stored_once"] == 8 + 10 * 4 + answers  # index, labels and clean


def test_stacks_of_views_are_counted_as_images():
    counted = passes(PgdAttack(eps=(8.0,), steps=2), 0, probe=NcropProbe(n=5))
    assert counted.images == {"forward": 12, "backward": 6}


def test_autoattack_continues_with_survivors_only():
    attack = AutoAttack(eps=(8.0,), version="custom", attacks=("apgd-ce",), apgd_steps=5)
    alive, fallen = passes(attack, 0), passes(attack, 1)
    assert alive.calls["backward"] >= 5
    assert fallen.calls["backward"] == 0
    assert alive.images["forward"] > fallen.images["forward"]


def test_the_answer_of_an_attack_is_per_image():
    about = {"attack": PgdAttack(eps=(8.0,), steps=4), "classes": 10, "size": 8, "batch": 8}
    answer = last(tally.attack(about, CPU, 1.0))
    assert answer["alive_image_forwards"] == answer["alive_call_forwards"] == 6
    assert answer["alive_image_backwards"] == answer["fallen_image_backwards"] == 4


# Lines


def test_a_line_separates_calls_from_images():
    fixed, slope = timing.line([(2, 3.4), (4, 3.9), (8, 4.6)])
    assert fixed + 8 * slope == pytest.approx(4.6)
    assert (fixed, slope) == pytest.approx((3.0, 0.2))


def test_one_size_has_no_cost_per_call_and_costs_are_never_negative():
    assert timing.line([(4, 2.0)]) == (0.0, 0.5)
    assert timing.line([(2, 3.0), (4, 2.5)]) == (2.5, 0.0)
    fixed, slope = timing.line([(2, 1.0), (4, 4.0)])
    assert fixed == 0
    assert slope > 0


# Processes, and the file


def ask(questions, **options):
    settings = {"threads": 1, "at_once": 2, "deterministic": True} | options
    return calibrate.answer(questions, CPU, **settings)


@pytest.mark.slow
def test_several_processes_continue_after_a_question_that_fails():
    failing = [Question("network", {}), Question("probe", {})]
    valid = [Question("network", options(size=size)) for size in (8, 16, 24)]
    before = time.monotonic()
    answers = ask([*failing, *valid])  # each of the two processes gets a wrong one first
    assert time.monotonic() - before < calibrate.SECONDS  # they end before the time limit
    assert set(answers) == {question.key for question in valid}
    assert all(answers[q.key]["weight"] == q.weight for q in valid)


@pytest.mark.slow
def test_the_time_limit_holds():
    attack = AutoAttack(eps=(8.0,))  # takes minutes at 64 x 64
    long = Question("attack", {"attack": attack, "classes": 10, "size": 64, "batch": 8})
    before = time.monotonic()
    assert ask([long], seconds=4.0) == {}
    assert time.monotonic() - before < 20


def test_a_calibration_is_for_one_device_one_torch_and_one_code(tmp_path):
    fresh = calibrate.load(CPU, tmp_path)
    assert fresh.answers == {}
    fresh.add({"key": {"seconds": 1.0}})
    calibrate.save(fresh, CPU, tmp_path)
    assert calibrate.load(CPU, tmp_path) == fresh
    assert fresh.date
    for name in ("device", "torch", "code"):
        saved = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
        path = tmp_path / name
        path.mkdir()
        (path / "cpu.json").write_text(json.dumps(saved | {name: "other"}), encoding="utf-8")
        assert calibrate.load(CPU, path).answers == {}


@pytest.fixture(scope="module")
def digest():
    """The digest of the code that is here."""
    return calibrate.code_digest()


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("losses", "def total_coding_rate("),
        ("attacks/autoattack", "class AutoAttack(Bounded):"),
        ("regimes", "class Free:"),
        ("probe/probes", "class NcropProbe("),
        ("machine/runtime", "def configure("),
        ("machine/feed", "class Mapped:"),
        ("estimating/tally", "def evaluation("),
        ("estimating/start_up", "def _figure("),
        ("estimating/timing", "def line("),
    ],
)
def test_a_change_of_any_measured_code_makes_a_calibration_stale(module, line, digest, tmp_path):
    copy = tmp_path / "robustviews"
    shutil.copytree(fingerprint.SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / f"{module}.py"
    text = path.read_text(encoding="utf-8")
    assert f"\n{line}" in text
    path.write_text(text.replace(f"\n{line}", f"\n@staticmethod\n{line}"), encoding="utf-8")
    assert calibrate.code_digest(copy) != digest


def test_a_change_of_other_code_keeps_a_calibration(digest, tmp_path):
    copy = tmp_path / "robustviews"
    shutil.copytree(fingerprint.SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "report.py").write_text("", encoding="utf-8")
    assert calibrate.code_digest(copy) == digest


def test_cuda_searches_for_algorithms_only_where_jobs_do(monkeypatch):
    tasks = [(Question(stage, {}), 1.0) for stage in calibrate.STAGES]
    tuned, sent = {}, []

    class Pipe:
        def recv(self):
            return tasks.pop(0) if tasks else None

        def send(self, answer):
            sent.append(answer)

    def stub(stage):
        def answers(_about, _device, _seconds):
            tuned[stage] = configured[-1]["tuned"]
            yield {}

        return answers

    configured = []
    monkeypatch.setattr(runtime, "configure", lambda **options: configured.append(options))
    monkeypatch.setattr(calibrate, "STAGES", {stage: stub(stage) for stage in calibrate.STAGES})
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    calibrate.serve(Pipe(), "cpu", 1, False)
    assert {stage for stage in tuned if tuned[stage]} == {"pretrain", "probe", "network"}
    assert all(settings["deterministic"] is False for settings in configured)
    assert len(sent) == 2 * len(calibrate.STAGES)


def test_the_search_for_algorithms_is_not_timed(monkeypatch):
    clock = [0.0]

    def work():
        clock[0] += 9.0 if clock[0] == 0 else 1.0

    monkeypatch.setattr(timing, "now", lambda _device: clock[0])
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    assert timing.seconds_of(work, torch.device("cuda")) == 1.0


# The verb


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Work in a folder with a tiny study, answer without measuring, and return the questions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(STUDY, encoding="utf-8")
    rounds = []

    def answered(questions, _device, **_how):
        rounds.append([question.stage for question in questions])
        numbers = dict.fromkeys(("seconds", "bytes", "step_bytes", "disk", "width"), 1.0)
        numbers |= dict.fromkeys(("image_seconds", "update_seconds", "work_bytes"), 0.01)
        units = [f"{way}_{unit}" for way in ("forward", "backward") for unit in ("call", "image")]
        numbers |= {f"{unit}_seconds": 0.1 for unit in units} | {"view_bytes": 1.0}
        numbers |= {"stored_once": 17.0, "stored_per_radius": 1.0}
        for part in ("alive", "fallen"):
            for unit in ("call", "image"):
                names = ("seconds", "forwards", "backwards")
                numbers |= {f"{part}_{unit}_{name}": 0.0 for name in names}
        return {q.key: numbers | {"weight": q.weight} for q in questions}

    monkeypatch.setattr(calibrate, "answer", answered)
    monkeypatch.delenv("ROBUSTVIEWS_DEVICE", raising=False)
    return rounds


def test_the_verb_reports_each_rule_and_the_total_and_measures_once(project, capsys):
    assert main(["estimate", "--device", "cpu", "--jobs", "1"]) == 0
    output = capsys.readouterr()
    assert "at most 60 s" in output.err
    for rule in ("data", "pretrain", "probe", "attack", "table", "report"):
        assert any(line.startswith(f"{rule} ") for line in output.out.splitlines()), rule
    assert "whole study: " in output.out
    assert "11 of 11 jobs to do, 1 at a time" in output.out
    assert main(["estimate", "--device", "cpu", "--jobs", "1"]) == 0
    again = capsys.readouterr()
    assert again.out == output.out
    assert again.err == ""
    assert len(project) == 1
    assert main(["estimate", "--device", "cpu", "--jobs", "1", "--recalibrate"]) == 0
    assert project[0] == project[1]


@pytest.mark.usefixtures("project")
def test_the_verb_lists_every_job_on_request(capsys):
    assert main(["estimate", "--device", "cpu", "--each"]) == 0
    output = capsys.readouterr().out
    for rule, name in pending.jobs(load_study("params.yaml")):
        assert f"{rule} {name}".strip() in output


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("left", "line"),
    [(10**4, " needs "), (370_000, "- jobs need "), (10**9, "")],
    ids=["one job", "jobs together", "enough"],
)
def test_the_verb_says_what_to_change_if_memory_is_too_small(left, line, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda _: left)
    assert main(["estimate", "--device", "cpu", "--jobs", "2"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("- ") == bool(line), last
    assert line in last


@pytest.mark.usefixtures("project")
def test_the_verb_writes_json_with_every_job(capsys):
    assert main(["estimate", "--device", "cpu", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["jobs"]) == 11
    assert report["unknown"] == 0
    assert report["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "--device tpu: expected auto, cpu, cuda"),
        (["--study", "none.yaml"], "none.yaml:1: there is no such file"),
    ],
)
def test_the_verb_refuses_what_does_not_exist(project, arguments, message, capsys):
    assert main(["estimate", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert project == []


@pytest.mark.usefixtures("hasty")
def test_measured_answers_are_enough_for_every_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(STUDY, encoding="utf-8")
    study = load_study("params.yaml")
    jobs = pending.jobs(study).values()
    context = {"device": "cpu", "threads": 1, "at_once": 1, "deterministic": True}
    measured = {}
    for question in estimate.questions(study, jobs, context):
        answer = {"seconds": 1.0, "bytes": 1.0}
        if question.stage != "start":
            answer = last(calibrate.STAGES[question.stage](question.about, CPU, 0.5))
        measured[question.key] = answer | {"weight": 1.0}
    results = estimate.estimates(study, jobs, context, measured)
    assert all(result.amount is not None and result.amount.seconds > 0 for result in results)
    assert not any(result.rough for result in results)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
