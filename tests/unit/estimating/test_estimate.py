"""Pending jobs, the questions to measure for them, and how answers become totals."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from robustviews import artifacts
from robustviews.attacks import AutoAttack, PgdAttack
from robustviews.attacks.segmentation import SegmentationPgd
from robustviews.datasets import Cifar10, Digits, Folder
from robustviews.datasets.scenes import ScenesSegmentation
from robustviews.estimating import amounts, estimate, operations
from robustviews.estimating.amounts import Amount
from robustviews.estimating.estimate import Estimate
from robustviews.estimating.question import Question, UnknownError
from robustviews.machine.humanize import duration, size
from robustviews.probe import FinetuneProbe
from robustviews.probe.dense import DetectionProbe, SegmentationProbe
from robustviews.sanity import dense
from robustviews.study import folders, plan, shapes
from robustviews.study import jobs as pending
from robustviews.study.jobs import Job
from robustviews.study.schema import Encoder, Imported, Row, Runtime, Table
from robustviews.workflow.resources import allocation
from tests.unit.results_tree import small_study

CONTEXT = {"device": "cpu", "threads": 1, "at_once": 2, "deterministic": True}


DIGITS = {"digits": Digits()}  # 1,200 training images and 597 test images


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def finish(job):
    """Write the files of a finished job."""
    for path in job.writes:
        artifacts.write_text(path, "made")
    if job.folder is None:
        return
    record = {"stage": job.rule, "name": job.name, "spec": job.spec, "inputs": {}, "outputs": {}}
    if job.rule == "data":
        summary = {"train": 1200, "test": 597, "classes": 10, "size": 32}
        artifacts.write_json(job.folder / "summary.json", summary)
    artifacts.write_json(job.folder / "record.json", record)


def finish_all(study):
    for job in pending.jobs(study).values():
        finish(job)


# Pending jobs


def test_jobs_are_those_of_the_workflow_each_after_its_inputs():
    study = small_study()
    jobs = pending.jobs(study)
    assert Counter(rule for rule, _ in jobs) == {
        "data": 1,
        "pretrain": len(plan.pretrainings(study)),
        "probe": len(plan.heads(study)),
        "attack": len(plan.evaluations(study)),
        "sanity": len(plan.attacked(study)),
        "table": len(study.tables),
        "figure": len(study.figures),
        **dict.fromkeys(("frame", "metrics", "curves", "examples", "report"), 1),
    }
    before = set()
    for key, job in jobs.items():
        assert set(job.needs) <= before, key
        before.add(key)


def test_all_jobs_of_a_new_study_are_pending_and_none_of_a_finished_one():
    study = small_study()
    assert pending.pending(study) == pending.jobs(study)
    finish_all(study)
    assert pending.pending(study) == {}


def test_another_spec_makes_a_job_and_its_dependents_pending_but_nothing_else():
    study = small_study()
    finish_all(study)
    changed = small_study(
        probes=study.probes | {"rle": replace(study.probes["rle"], epochs=99)},
    )
    jobs = pending.pending(changed)
    assert {key for key in jobs if key[0] in ("data", "pretrain")} == set()
    assert {name for rule, name in jobs if rule == "probe"} == {
        f"{run}/rle" for run, probe in plan.heads(study) if probe == "rle"
    }
    assert ("report", "") in jobs
    assert ("curves", "") not in jobs


@pytest.mark.parametrize("damage", ["missing", "damaged", "output", "list"])
def test_a_job_without_a_complete_record_and_its_files_is_pending(damage):
    study = small_study()
    finish_all(study)
    folder = folders.job_folder(study, "pretrain", "simclr-pgd5-digits-s0")
    if damage == "missing":
        (folder / "record.json").unlink()
    elif damage == "output":
        (folder / "encoder.safetensors").unlink()
    else:
        text = "[]" if damage == "list" else "{"
        (folder / "record.json").write_text(text, encoding="utf-8")
    jobs = pending.pending(study)
    assert ("pretrain", "simclr-pgd5-digits-s0") in jobs
    assert ("pretrain", "emp-free3-digits-s0") not in jobs
    assert ("attack", "simclr-pgd5-digits-s0/rle/pgd20") in jobs


def test_a_report_older_than_its_inputs_is_pending():
    study = small_study()
    finish_all(study)
    folder = folders.job_folder(study, "attack", "emp-free3-digits-s0/rle/pgd20")
    os.utime(folder / "record.json", (4e9, 4e9))
    rules = {rule for rule, _ in pending.pending(study)}
    assert {"frame", "report"} <= rules <= set(pending.REPORTING)
    assert "curves" not in rules


# The questions


def questions_of(study):
    return estimate.questions(study, pending.jobs(study).values(), CONTEXT)


def test_runs_that_differ_in_seed_radius_or_length_ask_the_same():
    study = small_study()
    run = study.runs["emp-free3"]
    other = replace(run, epochs=50, regime=replace(run.regime, eps=4.0), label="x", seeds=(7,))
    other = replace(other, compile=True)
    runs = study.runs | {"emp-free3": other}
    assert {q.key for q in questions_of(study)} == {
        q.key for q in questions_of(small_study(runs=runs))
    }
    assert sum(q.stage == "pretrain" for q in questions_of(study)) == 3


@pytest.mark.parametrize("change", [{"batch_size": 50}, {"precision": "bf16"}])
def test_runs_that_differ_in_work_ask_differently(change):
    study = small_study()
    runs = study.runs | {"emp-free3": replace(study.runs["emp-free3"], **change)}
    keys = {q.key for q in questions_of(study)}
    assert len(keys - {q.key for q in questions_of(small_study(runs=runs))}) == 1


def test_questions_begin_with_one_of_each_kind():
    questions = questions_of(small_study())
    kinds = [(q.stage, type(q.about.get("attack"))) for q in questions]
    assert len(kinds) > len(set(kinds)) == len(set(kinds[: len(set(kinds))]))
    assert ("attack", AutoAttack) in kinds


def test_the_nearest_answer_is_scaled_by_work():
    small = Question("pretrain", {"views": small_study().runs["emp-free3"].views, "batch_size": 10})
    large = replace(small, about=small.about | {"batch_size": 30})
    measured = {small.key: {"seconds": 2.0, "disk": 5.0, "weight": small.weight}}
    assert estimate.nearest(large, measured) == {
        "seconds": 6.0,
        "disk": 5.0,
        "weight": small.weight,
    }


@pytest.mark.parametrize(
    ("stage", "measured", "other"),
    [
        ("attack", {"attack": PgdAttack(eps=(8.0,))}, {"attack": AutoAttack(eps=(8.0,))}),
        ("network", {"task": "classification"}, {"task": "segmentation"}),
        ("probe", {"probe": DetectionProbe()}, {"probe": DetectionProbe(tuned=True)}),
    ],
)
def test_no_answer_is_scaled_from_another_kind_of_work(stage, measured, other):
    known = {Question(stage, measured).key: {"update_seconds": 20.0, "weight": 1.0}}
    with pytest.raises(UnknownError, match="no time was left to measure"):
        estimate.nearest(Question(stage, other), known)


# What jobs take


def answers(study, **changes):
    """Answer every question of a study with round numbers."""
    numbers = {
        "start": {"seconds": 3.0, "bytes": 100.0},
        "pretrain": {"seconds": 0.5, "step_bytes": 1000.0, "disk": 77.0},
        "probe": {
            "image_seconds": 0.01,
            "update_seconds": 0.1,
            "width": 8,
            "work_bytes": 50.0,
            "disk": 320.0,
        },
        "network": {
            "forward_call_seconds": 0.0,
            "forward_image_seconds": 0.01,
            "backward_call_seconds": 0.0,
            "backward_image_seconds": 0.02,
            "view_bytes": 10.0,
        },
        "attack": {
            f"{part}_{unit}_{what}": 0.0
            for part in ("alive", "fallen")
            for unit in ("call", "image")
            for what in ("seconds", "forwards", "backwards")
        }
        | {"alive_image_forwards": 20.0, "alive_image_backwards": 10.0}
        | {"stored_once": 17.0, "stored_per_radius": 1.0},
        "scenes": {"image_seconds": 0.001},
    }
    return {
        q.key: numbers[q.stage] | changes.get(q.stage, {}) | {"weight": 1.0}
        for q in questions_of(study)
    }


def amount_of(study, rule, name, **changes):
    jobs = [pending.jobs(study)[rule, name]]
    (result,) = estimate.estimates(study, jobs, CONTEXT, answers(study, **changes))
    return result.amount


def test_a_training_takes_its_start_and_every_minibatch_of_every_pass():
    taken = amount_of(
        small_study(datasets=DIGITS), "pretrain", "emp-free3-digits-s0"
    )  # 3 passes, 12 minibatches
    expected = Amount(3 + 3 * 12 * 0.5, 100 + 1200 * 3 * 32**2 + 1000, 77)
    assert replace(taken, passes=0, flop=0) == expected
    assert taken.passes == 3 * 12 * 100 * 4 * 3  # 100 images, 4 views, 3 replays


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_compiling_is_counted_where_it_is_measured_and_its_note_says_where_not(device):
    plain = divided(device, 2, ranks=1)
    unknown = divided(device, 2, ranks=1, compiles=True)
    assert unknown == replace(plain, note=unknown.note)
    assert ("no time was left to compile" in unknown.note) == (device == "cuda")
    if device == "cuda":
        known = divided(device, 2, ranks=1, compiles=True, compiling=40.0)
        assert known == replace(plain, seconds=plain.seconds + 40)


def divided(device, at_once, ranks=4, *, compiles=False, **more):
    """Return the amount of a training of 36 minibatches in several processes."""
    study = small_study(datasets=DIGITS, runtime=Runtime(ranks=ranks))
    run = replace(study.runs["emp-free3"], compile=compiles)
    study = replace(study, runs=study.runs | {"emp-free3": run})
    context = CONTEXT | {"device": device, "at_once": at_once}
    jobs = [pending.jobs(study)["pretrain", "emp-free3-digits-s0"]]
    start, step = {"seconds": 3.0, "bytes": 100.0}, {"seconds": 0.5, "step_bytes": 1e3, "disk": 7.0}
    questions = estimate.questions(study, jobs, context)
    measured = {q.key: start if q.stage == "start" else step | more for q in questions}
    (result,) = estimate.estimates(study, jobs, context, measured)
    return result.amount


def test_processes_that_share_cores_take_the_places_of_jobs_and_all_their_memory():
    taken = divided("cpu", at_once=2)
    assert taken.seconds == 3 + 36 * 0.5 / 2
    assert taken.memory == 4 * (100 + 1200 * 3 * 32**2) + 1000
    assert taken.places == 2
    assert "4 processes a training: they take the places of 2 of 2 jobs; waiting" in taken.note


def test_processes_with_a_gpu_each_are_faster_and_divide_what_a_step_needs():
    taken = divided("cuda", at_once=1)
    assert taken.seconds == 3 + 36 * 0.5 / 4
    assert taken.memory == 100 + 1200 * 3 * 32**2 + 1000 / 4
    assert taken.places == 1
    assert "each is taken to have a GPU of its own" in taken.note


def test_a_training_in_one_process_has_no_note_on_processes():
    assert divided("cpu", at_once=2, ranks=1) == replace(
        amount_of(small_study(datasets=DIGITS), "pretrain", "emp-free3-digits-s0"), disk=7
    )


def test_a_probe_takes_its_images_once_and_its_updates_in_every_epoch():
    taken = amount_of(
        small_study(datasets=DIGITS), "probe", "simclr-pgd5-digits-s0/rle"
    )  # 5 minibatches of 256
    assert taken.seconds == pytest.approx(3 + 1200 * 0.01 + 3 * 5 * 0.1)
    steps = small_study().probes["rle"].steps
    assert taken.passes == 3 * 1200 * (steps + 1)


def test_a_tuned_imported_encoder_takes_its_updates_and_its_checks():
    study = small_study(
        datasets=DIGITS,
        encoders={"brought": Imported("brought.pth", 64 * "a")},
        probes={"tuned": FinetuneProbe(updates=10, batch_size=50, weight_decay=(0.0,))},
        tables={"all": Table("All", ("digits/pgd20/8",), {"brought": Row("brought", "tuned")})},
        figures={},
        claims={},
    )
    taken = amount_of(study, "probe", "brought-digits/tuned", probe={"disk": 390.0})
    assert taken.seconds == pytest.approx(3 + 1200 * 0.01 + 40 * 0.1)  # three rates, then the best
    assert taken.passes == 40 * 50
    assert taken.disk == 390
    assert amount_of(study, "attack", "brought-digits/tuned/pgd20").passes > 0
    assert amount_of(study, "sanity", "brought-digits--tuned").passes > 0
    for rule, name in pending.jobs(study):
        if rule in ("encoder", "probe", "attack", "sanity"):
            assert allocation(study, rule, name, device="cpu").runtime >= 30, (rule, name)


def dense_study(**options):
    """Return a study of one imported encoder, 600 scenes of 32 x 32 pixels and 10 updates of 50."""
    return small_study(
        datasets={"scenes": ScenesSegmentation()},
        encoders={"brought": Imported("brought.pth", 64 * "a")},
        probes={"dense": SegmentationProbe(updates=10, batch_size=50, **options)},
        attacks={"pgd": SegmentationPgd(eps=(4.0, 8.0), steps=3)},
        tables={"all": Table("All", ("scenes/pgd/8",), {"brought": Row("brought", "dense")})},
        figures={},
        claims={},
    )


@pytest.mark.parametrize(
    ("options", "width", "once", "passes", "kept"),
    [
        ({}, 8, 600, (600, 0), 600 * 32),
        ({"images": 100}, 8, 100, (100, 0), 100 * 32),
        (
            {},
            2**20,
            500,
            (500, 0),
            500 * 2**22,
        ),  # more than 1 GiB
        ({"flip": True}, 0, 600, (500, 0), 0),
        ({"tuned": True}, 0, 600, (500, 1000), 0),
    ],
)
def test_a_dense_probe_keeps_the_maps_of_a_frozen_encoder_or_computes_them_again(
    options, width, once, passes, kept
):
    taken = amount_of(
        dense_study(**options), "probe", "brought-scenes/dense", probe={"width": width}
    )
    assert taken.seconds == pytest.approx(3 + once * 0.01 + 10 * 0.1)
    assert taken.memory == 100 + 600 * 4 * 32**2 + 2 * kept + 50
    forwards, more = passes
    assert taken.passes == forwards
    assumed = Encoder(backbone="resnet50", stem="imagenet")
    encoder = operations.forward_flop(assumed, size=32, feature="backbone")
    head = operations.dense_head(assumed, task="segmentation", size=32, classes=6).flop
    assert taken.flop == pytest.approx((forwards + more) * encoder + 3 * 500 * head)


def test_a_dense_attack_and_its_checks_take_their_passes_and_what_they_store():
    study, name = dense_study(), "brought-scenes/dense/pgd"
    stored = {"stored_once": 80.0, "stored_per_radius": 48.0}
    dropless = {
        f"fallen_image_{way}s": passes for way, passes in (("forward", 20.0), ("backward", 10.0))
    }
    taken = amount_of(study, "attack", name, attack=stored | dropless)
    assert taken.seconds == pytest.approx(3 + 2 * 200 * 0.4)  # 200 test scenes, two radii
    assert taken.disk == 200 * (80 + 2 * 48)
    checks = amount_of(study, "sanity", "brought-scenes")
    passes, forwards = dense.effort(study.sanity, images=200)
    assert checks.passes == pytest.approx(200 * (passes + forwards))
    assert checks.seconds == pytest.approx(3 + 200 * (passes * 0.03 + forwards * 0.01))


def test_scenes_take_the_time_to_compose_each_of_them():
    (job,) = (one for one in pending.jobs(dense_study()).values() if one.rule == "data")
    taken = amount_of(dense_study(), "data", job.name)
    assert taken.seconds == pytest.approx(3 + 800 * 0.001)
    assert taken.disk == 800 * 4 * 32**2  # images and masks


def test_an_attack_takes_every_radius_and_its_note_states_the_assumed_survivors():
    taken = amount_of(small_study(datasets=DIGITS), "attack", "emp-free3-digits-s0/rle/pgd20")
    whole = 2 * 597 * (20 * 0.01 + 10 * 0.02)
    assert taken.passes == pytest.approx(amounts.SURVIVORS * 2 * 597 * 20)
    assert taken.seconds == pytest.approx(3 + amounts.SURVIVORS * whole)
    assert "50% of images are taken to survive" in taken.note


def test_an_attack_that_drops_no_image_takes_its_whole_time_and_needs_no_note():
    dropless = {
        f"fallen_image_{way}s": passes for way, passes in (("forward", 20.0), ("backward", 10.0))
    }
    taken = amount_of(
        small_study(datasets=DIGITS), "attack", "emp-free3-digits-s0/rle/pgd20", attack=dropless
    )
    assert taken.seconds == pytest.approx(3 + 2 * 597 * 0.4)
    assert taken.note == ""


def test_an_attack_takes_only_its_own_images():
    taken = amount_of(small_study(datasets=DIGITS), "attack", "emp-free3-digits-s0/rle/autoattack")
    assert taken.seconds == pytest.approx(3 + amounts.SURVIVORS * 50 * 0.4)


def test_jobs_on_data_of_unknown_size_are_unknown_and_not_zero():
    folder = Folder(root="nowhere", size=64)
    study = small_study(datasets={"digits": folder})
    results = estimate.estimates(study, pending.jobs(study).values(), CONTEXT, answers(study))
    unknown = {result.job.rule for result in results if result.amount is None}
    assert unknown == {"data", "pretrain", "probe", "attack", "sanity"}
    assert {result.note for result in results if result.amount is None} == {
        "unknown until data set `digits` is prepared"
    }


def test_the_size_of_a_prepared_data_set_is_known():
    study = small_study(datasets={"digits": Folder(root="nowhere", size=64)})
    assert shapes.shape_of(study, "digits") is None
    finish(next(iter(pending.jobs(study).values())))
    assert shapes.shape_of(study, "digits") == shapes.Shape(1200, 597, 10, 32)


def test_the_size_of_cifar_is_known_before_it_is_prepared():
    study = small_study(datasets={"digits": Cifar10(train_images=300)})
    assert shapes.shape_of(study, "digits") == shapes.Shape(300, 10_000, 10, 32)


def test_an_estimate_from_a_scaled_answer_is_rough():
    study = small_study()
    measured = answers(study)
    removed = next(key for key in measured if json.loads(key)[0] == "pretrain")
    del measured[removed]
    results = estimate.estimates(study, pending.jobs(study).values(), CONTEXT, measured)
    assert 1 <= sum(result.rough for result in results) <= 3
    assert all(result.amount is not None for result in results)


# The schedule


def job(rule, name, *needs):
    return Job(rule, name, {Path(*key): key for key in needs}, (), {})


def jobs_of(*rows):
    return [
        Estimate(job(rule, name, *needs), Amount(seconds, memory, 0))
        for rule, name, needs, seconds, memory in rows
    ]


def test_independent_jobs_share_the_slots():
    jobs = jobs_of(*[("probe", str(n), (), 10, 5) for n in range(4)])
    assert estimate.schedule(jobs, at_once=1) == (40, 5)
    assert estimate.schedule(jobs, at_once=2) == (20, 10)
    assert estimate.schedule(jobs, at_once=9) == (10, 20)


def test_a_job_of_several_slots_waits_for_them_while_others_use_the_rest():
    small = jobs_of(("probe", "a", (), 4, 1), ("probe", "b", (), 6, 1))
    wide = [
        replace(job, amount=replace(job.amount, places=2))
        for job in jobs_of(("pretrain", "c", (), 10, 1), ("pretrain", "d", (), 10, 1))
    ]
    assert estimate.schedule([*wide, *small], at_once=3) == (20, 2)
    assert estimate.schedule([*wide, *small], at_once=2) == (26, 2)


def test_a_job_waits_for_its_unfinished_inputs():
    jobs = jobs_of(
        ("pretrain", "a", [("data", "done")], 10, 1), ("probe", "a", [("pretrain", "a")], 7, 1)
    )
    assert estimate.schedule(jobs, at_once=4) == (17, 1)


def test_trainings_go_first():
    # Probes first would leave the long training alone at the end: 20 s.
    jobs = jobs_of(("probe", "a", (), 5, 0), ("probe", "b", (), 5, 0), ("pretrain", "c", (), 10, 0))
    assert estimate.schedule(jobs, at_once=2) == (10, 0)


def test_an_unknown_job_takes_no_time_but_others_wait_for_it():
    unknown = Estimate(job("data", "x"), None)
    jobs = [unknown, *jobs_of(("pretrain", "a", [("data", "x")], 10, 1))]
    assert estimate.schedule(jobs, at_once=1) == (10, 1)


# Words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.1 s"),
        (4.24, "4.2 s"),
        (9.7, "10 s"),
        (59.6, "1 min 0 s"),
        (130, "2 min 10 s"),
        (3600 * 3.14, "3.1 h"),
        (86400 * 4.2, "4.2 days"),
    ],
)
def test_times_are_written_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 MiB"),
        (1, "0.1 MiB"),
        (5.3 * 2**20, "5.3 MiB"),
        (147 * 2**20, "147 MiB"),
        (2**30 - 1, "1024 MiB"),
        (18.44 * 2**30, "18.4 GiB"),
    ],
)
def test_sizes_are_written_for_people(count, text):
    assert size(count) == text
