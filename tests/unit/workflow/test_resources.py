"""What jobs ask a cluster for: enough by what is measured and published, and torch is not asked."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustviews import step
from robustviews.attacks.segmentation import SegmentationPgd
from robustviews.datasets.scenes import ScenesSegmentation
from robustviews.encoder import build_encoder
from robustviews.estimating import measure
from robustviews.probe.dense import SegmentationProbe
from robustviews.study import load_study, plan
from robustviews.study.schema import Row, Runtime, Table
from robustviews.study.shapes import shape_of
from robustviews.workflow.resources import LONGEST, allocation

STUDIES = Path(__file__).parents[3] / "studies"
GPU = "cuda"
DENSE = "simclr-crop-std"  # a run
PYTHON_MB = 2_000  # and torch, without data and network


@pytest.fixture(scope="module")
def paper():
    return load_study(STUDIES / "cf-amc-ssl.yaml")


def changed(study, entry, **options):
    """Return a study with other options of a run."""
    run = dataclasses.replace(study.runs[entry], **options)
    return dataclasses.replace(study, runs=study.runs | {entry: run})


def test_a_training_asks_for_several_times_the_minutes_that_the_paper_took(paper):
    rows = [row for row in paper.tables["table1"].rows.values() if row.published]
    assert len(rows) == 7
    for row in rows:
        asked = allocation(paper, "pretrain", f"{row.run}-cifar10-s0", device=GPU).runtime
        published = row.published[-1]
        assert min(2 * published, LONGEST) <= asked <= 5 * published, row.run


@pytest.mark.slow
def test_a_training_on_the_cpu_asks_for_the_memory_that_its_step_takes(paper):
    images = shape_of(paper, "cifar10")
    data = (images.train + images.test) * images.image / 1e6
    for entry in ("simclr-crop-pgd5", "emp-crop16-free3-resnet50"):
        run = paper.runs[entry]
        encoder = build_encoder(**dataclasses.asdict(run.encoder), seed=0)
        options = {"size": 32, "batch_size": run.batch_size, "precision": run.precision}
        measured = step.step_bytes(encoder, run.method, run.regime, run.views, **options) / 1e6
        asked = allocation(paper, "pretrain", f"{entry}-cifar10-s0", device="cpu").mem_mb
        assert 1.05 * measured <= asked - PYTHON_MB - data <= 2 * measured, entry


def test_a_job_on_a_gpu_asks_for_memory_of_the_host_for_its_images_but_not_for_its_step(paper):
    few, many = (
        allocation(paper, "pretrain", f"emp-crop{views}-pgd5-cifar10-s0", device=GPU).mem_mb
        for views in (4, 32)
    )
    large = allocation(paper, "pretrain", "emp-crop16-pgd5-stem7-imagenet100-s0", device=GPU)
    assert few == many < 10_000
    assert large.mem_mb > 130_000 * 3 * 224**2 / 1e6


@pytest.mark.parametrize(
    ("shorter", "longer", "ratio"),
    [
        ("emp-crop16-free3-cifar10-s0/rle/pgd20", "emp-crop16-free3-cifar10-s0/rle/autoattack", 4),
        # 64 views of a tenth of the images
        ("simclr-crop-std-cifar10-s0/central/pgd20", "simclr-crop-std-cifar10-s0/crops64/pgd20", 1),
    ],
)
def test_an_attack_of_more_steps_or_on_more_views_asks_for_more_time(paper, shorter, longer, ratio):
    few, many = (allocation(paper, "attack", name, device=GPU) for name in (shorter, longer))
    assert many.runtime > ratio * few.runtime


def test_a_robust_probe_asks_for_more_time_than_one_on_features(paper):
    run = "emp-crop16-pgd5-stem7-imagenet100-s0"
    plain, robust = (
        allocation(paper, "probe", f"{run}/{name}", device=GPU) for name in ("central", "rle")
    )
    assert robust.runtime > 4 * plain.runtime


def test_epochs_are_counted_as_the_training_counts_them(paper):
    from robustviews.regimes import passes_over_data

    name, entry = "emp-crop16-free3-cifar10-s0", "emp-crop16-free3"
    run = paper.runs[entry]
    for meaning in ("passes", "replays", "views"):
        passes = passes_over_data(480, meaning, run.regime.updates_per_batch, run.views.count)
        other = changed(paper, entry, epochs=480, epochs_meaning=meaning)
        same = changed(paper, entry, epochs=passes, epochs_meaning="passes")
        assert allocation(other, "pretrain", name, device=GPU) == allocation(
            same, "pretrain", name, device=GPU
        )


def test_two_processes_ask_for_half_the_time_and_twice_the_memory_of_one(paper):
    name = "emp-crop16-free3-cifar10-s0"
    alone = allocation(paper, "pretrain", name, device=GPU)
    runtime = dataclasses.replace(paper.runtime, ranks=2)
    study = dataclasses.replace(paper, runtime=runtime)
    both = allocation(study, "pretrain", name, device=GPU)
    assert 0.5 * alone.runtime < both.runtime < 0.6 * alone.runtime
    assert 1.8 * alone.mem_mb < both.mem_mb < 2 * alone.mem_mb
    probe = f"{name}/rle"
    assert allocation(study, "probe", probe, device=GPU) == allocation(
        paper, "probe", probe, device=GPU
    )


def test_on_a_cpu_each_process_holds_the_images(paper):
    runtime = dataclasses.replace(paper.runtime, ranks=2)
    study = dataclasses.replace(paper, runtime=runtime)
    name = "emp-crop16-free3-stem7-imagenet100-s0"
    alone, both = (
        allocation(each, "pretrain", name, device="cpu").mem_mb for each in (paper, study)
    )
    images = 140_000 * 3 * 224**2 / 1e6
    assert both - alone == pytest.approx(2_000 + images, abs=500)  # 2 GB for Python and torch


def jobs_of(study):
    """Return rule and name of every job that is asked for by its study."""
    yield from (("data", name) for name in study.datasets)
    yield from (("pretrain", name) for name in plan.pretrainings(study))
    yield from (("probe", "/".join(names)) for names in plan.heads(study))
    yield from (("attack", "/".join(names)) for names in plan.evaluations(study))


@pytest.mark.parametrize("attempt", [1, 4])
def test_no_job_asks_for_more_than_a_day_however_often_it_was_tried(paper, attempt):
    asked = [allocation(paper, *job, device=GPU, attempt=attempt) for job in jobs_of(paper)]
    assert max(each.runtime for each in asked) == LONGEST


def test_a_job_that_is_tried_again_asks_for_twice_as_much(paper):
    for rule, name in jobs_of(paper):
        first, second = (
            allocation(paper, rule, name, device=GPU, attempt=attempt) for attempt in (1, 2)
        )
        assert second.mem_mb - 2 * first.mem_mb in (0, -500), name  # each is rounded up for itself
        longer = second.runtime - min(2 * first.runtime, LONGEST)
        assert longer in (0, -10), name


def test_a_preparation_asks_for_a_core_per_file_of_images_and_not_for_the_memory_of_all(paper):
    folder, cores, memory = paper.datasets["imagenet100"], [], []
    for shard in (None, 50_000, 200_000):  # of 130,000 images, as is supposed
        one = dataclasses.replace(folder, shard_images=shard)
        study = dataclasses.replace(paper, datasets=paper.datasets | {"imagenet100": one})
        asked = allocation(study, "data", "imagenet100", device=GPU)
        cores.append(asked.cores)
        memory.append(asked.mem_mb)
    assert cores == [16, 3, paper.runtime.threads]
    assert PYTHON_MB + 1_600 <= memory[0] < 5_000
    assert memory[2] > 20_000


def test_a_training_asks_for_no_more_memory_than_machines_have_however_large_its_data_set(paper):
    name, asked = "emp-crop16-free3-stem7-imagenet100-s0", []
    for count in (130_000, 1_281_167):
        large = dataclasses.replace(
            paper.datasets["imagenet100"],
            classes=("a", "b"),
            class_list="",
            train_images=count,
            test_images=5_000,
        )
        study = dataclasses.replace(paper, datasets=paper.datasets | {"imagenet100": large})
        asked.append(allocation(study, "pretrain", name, device=GPU).mem_mb)
    assert 20_000 < asked[0] < 30_000
    assert 64_000 < asked[1] < 75_000


def test_a_preparation_asks_for_what_decoding_its_images_takes(paper):
    small, large = (
        allocation(paper, "data", name, device=GPU) for name in ("cifar10", "imagenet100")
    )
    assert small.cores == paper.runtime.threads
    assert small.runtime < large.cores * large.runtime


def told(minutes):
    """Return a time as docs/cluster.md tells it."""
    return f"{minutes} min" if minutes < 100 else f"{round(minutes / 30) / 2:g} h"


@pytest.mark.parametrize(
    ("words", "rule", "belongs"),
    [
        ("preparing {}", "data", ""),
        ("trainings{}", "pretrain", ""),
        ("probes{}", "probe", ""),
        ("PGD-20{}", "attack", "pgd20"),
        ("AutoAttack{}", "attack", "autoattack"),
    ],
)
def test_the_page_tells_what_the_paper_asks_for(paper, words, rule, belongs):
    page = (STUDIES.parent / "docs" / "cluster.md").read_text(encoding="utf-8")
    jobs = [name for each, name in jobs_of(paper) if each == rule and belongs in name]
    large = {name for name in jobs if "imagenet100" in name}
    for names, *called in ((large, "ImageNet-100", " on it"), ({*jobs} - large, "CIFAR", "")):
        if not names:
            continue
        asked = [allocation(paper, rule, name, device=GPU) for name in names]
        times = sorted({each.runtime for each in asked})
        span = " to ".join(told(minutes) for minutes in dict.fromkeys((times[0], times[-1])))
        (megabytes,) = {each.mem_mb for each in asked}
        words_here = words.format(called[rule != "data"])
        assert f"\n| {words_here} | {len(names)} | {span} | {megabytes / 1000} GB |\n" in page


@pytest.mark.parametrize(
    ("compiles", "ranks", "device", "cores"),
    [(True, 1, GPU, 8), (True, 2, GPU, 16), (True, 1, "cpu", 3), (False, 2, GPU, 6)],
)
def test_a_training_that_is_compiled_asks_for_cores_to_compile(
    compiles, ranks, device, cores, paper
):
    study = changed(paper, "emp-crop16-free3", compile=compiles)
    study = dataclasses.replace(study, runtime=Runtime(threads=3, ranks=ranks))
    name = "emp-crop16-free3-cifar10-s0"
    assert allocation(study, "pretrain", name, device=device).cores == cores
    assert allocation(study, "probe", f"{name}/rle", device=device).cores == 3


@pytest.fixture
def dense(paper):
    """Return a function that makes a study of 5,000 scenes and one probe."""

    def study_of(size=128, **options):
        scenes = ScenesSegmentation(size=size, train=5000, classes=tuple(range(10)))
        row = Row(DENSE, "dense", pretrained_on="cifar10")
        return dataclasses.replace(
            paper,
            datasets=paper.datasets | {"scenes": scenes},
            probes={"dense": SegmentationProbe(**options)},
            attacks={"pgd": SegmentationPgd(eps=(8.0,))},
            tables={"one": Table("One", ("scenes/pgd/8",), {"a": row})},
            figures={},
            claims={},
            runtime=Runtime(evaluation_batch=4),
        )

    return study_of


def test_a_frozen_dense_probe_asks_for_its_maps_or_the_time_to_compute_them_again(dense):
    name = f"{DENSE}-cifar10-s0-on-scenes/dense"
    kept, again, flipped, tuned = (
        allocation(
            dense(**({"updates": 500, "images": 130} | options)), "probe", name, device="cpu"
        )
        for options in ({}, {"images": 140}, {"flip": True}, {"tuned": True})
    )  # a GiB is 136 images
    maps = 130 * 7.5 * 64 * 128**2
    assert kept.mem_mb - again.mem_mb == pytest.approx(2 * maps / 1e6, abs=500)
    assert flipped.mem_mb == again.mem_mb
    assert flipped.runtime > 2 * kept.runtime
    assert 2 * kept.runtime < again.runtime < tuned.runtime / 2


def test_a_dense_attack_asks_for_the_logits_of_all_pixels(dense):
    study, name = dense(size=32), f"{DENSE}-cifar10-s0-on-scenes/dense/pgd"
    batch = {1: 0, 1001: 0}
    for size in batch:
        one = dataclasses.replace(study, runtime=Runtime(evaluation_batch=size))
        batch[size] = allocation(one, "attack", name, device="cpu").mem_mb
    about = {"encoder": study.runs[DENSE].encoder, "task": "segmentation", "classes": 11}
    about |= {"size": 32}
    view = measure._view_bytes(measure._classifier(about, torch.device("cpu")), about)
    asked = 1e6 * (batch[1001] - batch[1]) / 1000
    assert view < asked < 2 * view


def test_torch_is_not_asked():
    code = "import sys; import robustviews.workflow.resources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_checks_ask_for_the_time_of_all_heads_and_of_all_their_views(paper):
    def asked(study, run):
        return allocation(study, "sanity", f"{run}-cifar10-s0", device=GPU)

    plain, crops = asked(paper, "emp-crop16-free3"), asked(paper, "simclr-crop-std")
    assert "crops64" in plan.attacked(paper)["simclr-crop-std-cifar10-s0"]
    assert crops.runtime > 1.5 * plain.runtime
    longer = dataclasses.replace(paper, sanity=dataclasses.replace(paper.sanity, restarts=500))
    assert asked(longer, "emp-crop16-free3").runtime > 2 * plain.runtime
