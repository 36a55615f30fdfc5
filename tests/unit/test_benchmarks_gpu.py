"""The script for a GPU: deadlines, failing parts, pieces, and what decides each bar."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from benchmarks import rounds, speed
from benchmarks.gpu import __main__ as script
from benchmarks.gpu import checks, join, reference, report, runner, studies, training
from benchmarks.gpu.report import Report
from benchmarks.gpu.runner import DeadlinePassed, Part, Setting
from benchmarks.recipe import Recipe, random_images
from robustviews import artifacts
from robustviews.study import load_study, plan, specs

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def setting(tmp_path):
    return Setting(
        device=CPU,
        small=True,
        study=studies.SMALL,
        reference=None,
        out=tmp_path / "out",
        rest=tmp_path / "rest",
        threads=1,
    )


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job folder in the current folder, with a file of 100 bytes and a record."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results/study/pretrain/run")
    folder.mkdir(parents=True)
    (folder / "encoder.safetensors").write_bytes(bytes(range(100)))
    (folder / "record.json").write_text("{}", encoding="utf-8")
    return folder


def part(run, *, expected=0.0, limit=60.0):
    return Part(run, expected=expected, limit=limit)


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# deadlines


def test_a_deadline_passes_code_that_catches_every_exception():
    def stubborn():
        for _ in range(3):
            with contextlib.suppress(Exception):
                time.sleep(0.2)

    with pytest.raises(DeadlinePassed), runner.deadline(0.05):
        stubborn()


def test_a_block_that_ends_in_time_leaves_no_alarm_and_no_handler():
    before = signal.getsignal(signal.SIGALRM)
    with runner.deadline(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_part_that_is_cut_keeps_what_it_found_and_the_next_one_runs(setting, capsys):
    def slow(_, found):
        found.numbers["first"] = 1
        time.sleep(5)

    cut, after = runner.run({"a0": part(slow, limit=0.05), "a1": part(lambda *_: None)}, setting)
    assert (cut.state, cut.ok, cut.numbers) == ("cut", False, {"first": 1})
    assert (after.state, after.ok) == ("done", True)
    assert [line["state"] for line in lines(capsys)] == ["cut", "done"]


def test_a_part_that_fails_prints_its_traceback_and_the_next_one_runs(setting, capsys):
    def wrong(*_):
        raise RuntimeError("no such kernel")

    failed, after = runner.run({"a0": part(wrong), "a1": part(lambda *_: None)}, setting)
    assert (failed.state, failed.reason) == ("failed", "RuntimeError: no such kernel")
    assert after.state == "done"
    assert "in wrong" in capsys.readouterr().err
    assert json.loads((setting.out / "a0.json").read_text())["state"] == "failed"


def test_the_file_of_a_part_is_complete_before_the_next_one_begins(setting):
    found = []

    def look(*_):
        found.append(json.loads((setting.out / "a0.json").read_text())["part"])

    runner.run({"a0": part(lambda *_: None), "a1": part(look)}, setting)
    assert found == ["a0"]


def test_a_part_is_skipped_if_less_than_half_of_its_time_is_left(setting):
    ran = []
    parts = {
        "c1": part(lambda *_: ran.append("c1"), expected=300, limit=480),
        "c4": part(lambda *_: ran.append("c4"), expected=40),
    }
    skipped, _ = runner.run(parts, setting, left=100)
    assert ran == ["c4"]
    assert (skipped.state, skipped.ok) == ("skipped", False)
    assert "expected 300 s" in skipped.reason


def test_the_time_that_is_left_limits_a_part(setting):
    def slow(*_):
        time.sleep(5)

    (cut,) = runner.run({"a0": part(slow)}, setting, left=runner.RESERVE + 0.1)
    assert cut.state == "cut"
    assert cut.seconds < 2


# bars


def test_a_missed_bar_is_a_result_and_nan_misses_every_bar():
    found = Report("a1")
    found.at_most("small", 1.0, 2.0)
    assert found.ok
    found.at_most("nan", math.nan, 2.0)
    line = json.loads(found.line())
    assert (line["state"], line["ok"]) == ("done", False)
    assert line["bars"]["nan"] == {"found": "nan", "required": "<= 2", "ok": False}


def test_an_error_in_one_check_is_a_missed_bar_and_the_next_check_runs(capsys):
    found = Report("a2")
    with found.trying("fab-t"):
        raise RuntimeError("cumsum is not deterministic")
    assert found.bars["fab-t"]["ok"] is False
    assert found.bars["fab-t"]["found"] == "RuntimeError: cumsum is not deterministic"
    assert "Traceback" in capsys.readouterr().err


def test_a_device_that_computes_something_else_is_found():
    results = iter([[torch.tensor([1.0, 300.0])], [torch.tensor([1.0, 303.0])]])
    assert checks.apart(lambda _: next(results), CPU) == pytest.approx(3 / 303)
    results = iter([[torch.tensor([0.1])], [torch.tensor([0.2])]])
    assert checks.apart(lambda _: next(results), CPU) == pytest.approx(0.1)


def test_one_flag_that_differs_misses_its_bar(setting, monkeypatch):
    flags = {"index": torch.arange(3), "labels": torch.arange(3)}
    sides = iter(
        [{**flags, "eps_8": torch.tensor([1, 1, 0])}, {**flags, "eps_8": torch.tensor([1, 0, 0])}]
    )
    monkeypatch.setattr(checks, "pgd_on_digits", lambda: lambda _: next(sides))
    found = Report("a1")
    checks.compare_flags(setting, found)
    assert found.bars["PGD-20 flags that differ"] == {"found": 1, "required": "0", "ok": False}


def test_networks_that_differ_in_one_tensor_miss_their_bar():
    one = {"a": torch.ones(2), "b": torch.zeros(2)}
    found = Report("a3")
    checks.hold_equal(found, "eager", one, {"a": torch.ones(2), "b": torch.full((2,), 1e-30)})
    assert not found.ok
    assert next(iter(found.bars.values()))["found"] == 1


def test_a_training_resumes_in_the_middle_and_ends_with_the_same_bytes(setting):
    memory = checks.Memory(at=checks.CUT)
    weights, _ = checks.trained(setting, compiled=False, memory=memory)
    tensors, position = memory.saved
    assert position["update"] == 2 * checks.CUT
    resumed, _ = checks.trained(setting, compiled=False, memory=memory)
    found = Report("a3")
    checks.hold_equal(found, "eager", weights, resumed)
    assert found.ok
    tensors["encoder.prefeature.0.bias"] += 1e-3
    changed, _ = checks.trained(setting, compiled=False, memory=memory)
    checks.hold_equal(found, "eager", weights, changed)
    assert not found.ok


@pytest.mark.parametrize("kind", list(checks.METHODS))
def test_the_least_number_of_views_is_accepted_by_its_method(kind):
    method = checks.METHODS[kind]()
    method.check_views(checks.fewest_views(method))


# rates


def test_the_idle_share_counts_time_in_which_no_kernel_runs_once():
    assert training.idle([(0, 4), (2, 6), (8, 10)]) == pytest.approx(0.2)
    assert training.idle([(8, 10), (0, 9)]) == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16", "convolution"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTN", "matrix product"),
        ("triton_red_fused__native_batch_norm_legit_relu_3", "fused by the compiler"),
        ("void potrf_blocked_kernel<double>", "factorisation"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel", "optimizer"),
        ("something_new", "other"),
    ],
)
def test_kernels_are_counted_by_their_kind(name, kind):
    assert training.kind_of(name) == kind


def test_rounds_that_are_cut_keep_those_before():
    calls = iter(range(10))

    def work():
        if next(calls) == 5:
            raise RuntimeError

    seconds = {}
    with contextlib.suppress(RuntimeError):
        for found in rounds.turns({"a": work}, rounds=9, device=CPU):
            seconds = found
    assert len(seconds["a"]) == 4  # after the warm-up


def test_a_row_states_milliseconds_an_update_and_its_share_of_the_matrix_rate():
    row = training.row([2.0, 3.0, 9.0], 6, tflop=1.0, peak=4.0)
    assert row["ms_per_update"] == 500
    assert row["tflop_per_second"] == 2
    assert row["share_of_matrix_rate"] == 0.5


# the published script

AUG = """
import torch
class ContrastiveLearningViewGenerator:
    def __init__(self, num_patch, scale_min, scale_max, ratio_min, ratio_max):
        self.count = num_patch
    def __call__(self, image):
        return [torch.ones(3, 8, 8) for _ in range(self.count)]
"""
MAIN = """
import argparse, sys
import torch
import matplotlib.pyplot as plt
from dataset.datasets import load_dataset
from func import chunk_avg
from tqdm import tqdm
parser = argparse.ArgumentParser()
for name in ("bs", "num_patches", "m", "epoch"):
    parser.add_argument("--" + name, type=int)
args = parser.parse_args()
args.scale_min = args.scale_max = args.ratio_min = args.ratio_max = 1.0
images = load_dataset(args, "cifar10", train=True, num_patch=args.num_patches)
loader = torch.utils.data.DataLoader(images, batch_size=args.bs, num_workers=16)
seen = []
def main():
    for step, (crops, _) in tqdm(enumerate(loader)):
        seen.append([tuple(crop.cuda().shape) for crop in crops])
"""


@pytest.fixture
def published(tmp_path):
    """A folder with a script of the published one's form."""
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/aug.py").write_text(AUG, encoding="utf-8")
    (tmp_path / "dataset/datasets.py").write_text("def load_dataset(): ...", encoding="utf-8")
    (tmp_path / reference.SCRIPT).write_text(MAIN, encoding="utf-8")
    recipe = Recipe(batch=2, crops=3, size=8)
    return reference.PublishedScript(tmp_path, random_images(4, 8), recipe, device=CPU, workers=0)


def test_the_published_script_trains_on_the_images_in_memory(published):
    published()
    assert published.space["seen"] == [[(2, 3, 8, 8)] * 3] * 2


def test_the_published_script_leaves_no_module_and_no_argument_behind(request, monkeypatch):
    own = types.ModuleType("tqdm")
    monkeypatch.setitem(sys.modules, "tqdm", own)
    monkeypatch.setattr(sys, "argv", ["own"])
    paths = list(sys.path)
    request.getfixturevalue("published")
    assert not {"dataset", "dataset.aug", "func"} & set(sys.modules)
    assert sys.modules["tqdm"] is own
    assert (sys.path, sys.argv) == (paths, ["own"])


def test_the_start_of_workers_is_what_two_short_turns_take_more_than_a_long_one(
    published, monkeypatch
):
    counts = []

    def once(work, _):
        work()
        counts.append(len(published.space["seen"]))
        return 5.0

    monkeypatch.setattr(reference.rounds, "once", once)
    assert reference.start_up(published, [3.0, 3.0, 9.0], CPU) == 1
    assert counts == [4]  # minibatches, of twice as many images
    assert len(published.images) == 4


# files


def test_job_folders_come_back_in_pieces_of_which_the_first_four_are_in_the_output_folder(
    setting, job, monkeypatch, tmp_path
):
    monkeypatch.setattr(report, "PIECE", 2500)
    found = Report("c1", folders=[job])
    paths = found.write(setting.out, setting.rest)
    assert [path.parent for path in paths] == [setting.out] * 4 + [setting.rest]
    assert max(path.stat().st_size for path in paths) <= 2500
    assert paths[0].name == "c1.tar.1of5"

    line = join.restore("c1", paths, tmp_path / "home")
    assert line["jobs"] == [job.as_posix()]
    restored = tmp_path / "home" / job
    assert (restored / "encoder.safetensors").read_bytes() == bytes(range(100))
    assert (restored / "record.json").exists()


@pytest.mark.parametrize("size", [0, 7, 8, 9])
def test_pieces_make_the_file_again(setting, tmp_path, monkeypatch, size):
    monkeypatch.setattr(report, "PIECE", 4)
    (tmp_path / "file").write_bytes(bytes(range(size)))
    paths = report.cut(tmp_path / "file", setting.out, setting.rest)
    assert b"".join(path.read_bytes() for path in paths) == bytes(range(size))
    assert len(paths) == max(1, math.ceil(size / 4))


def test_a_missing_piece_is_named_and_the_other_parts_are_joined(
    setting, job, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(report, "PIECE", 2500)
    Report("c1", folders=[job]).write(setting.out, setting.rest)
    Report("c2").write(setting.out, setting.rest)
    (setting.out / "c1.tar.2of5").unlink()
    kept = tmp_path / "kept"
    words = [str(setting.out), "--into", str(tmp_path / "home"), "--out", str(kept)]
    assert join.main(words) == 1
    printed = capsys.readouterr()
    assert "c1.tar: found 3 of 5 pieces, missing 2, 5; name their folders, too" in printed.err
    assert "| c2 | done |" in printed.out
    assert [line["part"] for line in artifacts.read_json(kept / "gpu.json")] == ["c2"]
    assert not (tmp_path / "home").exists()
    assert join.main([str(tmp_path / "none"), *words]) == 2


def test_joining_replaces_no_results_of_another_computation(setting, job, tmp_path):
    paths = Report("c1", folders=[job]).write(setting.out, setting.rest)
    home = tmp_path / "home"
    join.restore("c1", paths, home)
    join.restore("c1", paths, home)  # the same results again
    (home / job / "record.json").write_text('{"other": 1}', encoding="utf-8")
    with pytest.raises(join.JoinError, match="holds other results; keep one of them: rm -r"):
        join.restore("c1", paths, home)


def test_a_missed_bar_is_shown_in_the_table():
    found = Report("b2")
    found.hold("ratio", 7.5, ">= 8", met=False)
    assert "| b2 | ratio | 7.5 | >= 8 | no |" in join.markdown([json.loads(found.line())])


# the command line


def test_parts_run_in_their_order_however_they_are_named():
    assert script.parse(["--only", "c1,a0,b2,a0"]).only == ["c1", "a0", "b2"]
    assert script.parse([]).only == list(script.PARTS)


def test_an_unknown_part_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        script.parse(["--only", "a0,d1"])
    assert "no part d1; choose of a0, a1" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(script.PARTS))
def test_join_knows_the_files_of_every_part(name):
    assert join.NAME.fullmatch(f"{name}.json")
    assert join.NAME.fullmatch(f"{name}.tar.2of9")["part"] == name


def test_a_part_may_take_at_least_what_is_expected_of_it():
    assert all(part.expected <= part.limit for part in script.PARTS.values())


def test_every_job_of_the_headline_has_a_part(setting):
    headline = dataclasses.replace(setting, study=studies.HEADLINE)
    parts = [
        *(studies._chosen(headline, rule) for rule in ("data", "pretrain", "probe", "sanity")),
        *(studies._attacks(headline, official=official) for official in (True, False)),
    ]
    found = sorted(job.key for jobs in parts for job in jobs)
    assert found == sorted(job.key for job in studies.jobs(studies.HEADLINE))


def test_robust_heads_come_first(setting):
    headline = dataclasses.replace(setting, study=studies.HEADLINE)
    assert studies._attacks(headline, official=False)[0].parts[1] == "rle"


def test_a_job_that_its_verb_refuses_raises(setting, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (job,) = studies._chosen(setting, "pretrain")
    with pytest.raises(studies.JobError, match=r"robustviews pretrain --run emp-crop4.*status 2"):
        studies.do(job, studies.SMALL, setting)


# the headline


def test_a_crop_pass_of_the_paper_s_network_has_the_operations_that_were_counted_by_hand():
    # 1.157 GFLOP forward, as much for each of the gradients of weights and of inputs.
    encoder = {"backbone": "resnet18", "width": 64, "hidden": 4096, "projection": 1024}
    assert speed.crop_pass_flop(encoder, size=32) == pytest.approx(3 * 1.157e9, rel=1e-3)


def test_crop_passes_are_counted_only_where_each_belongs_to_an_update(monkeypatch):
    monkeypatch.setattr(speed.runtime, "configure", lambda **_: None)
    monkeypatch.setitem(speed.SIDES, "cpu", 64)
    study = load_study(REPOSITORY / "params.yaml")

    def found(run):
        name = f"{run}-digits-s0"
        record = {
            "spec": specs.spec(study, "pretrain", name),
            "environment": {"device": speed.runtime.environment(torch.device("cpu"))["device"]},
            "result": {"updates": 10, "size": 8, "classes": 10},
            "seconds": 2.0,
            "resumed": 0,
        }
        return speed.of_training(study, name, record, "cpu")

    for run in ("emp-crop4-std", "emp-crop4-free3"):
        known = found(run)
        assert (known["crop_passes"], known["crop_passes_per_second"]) == (2000, 1000)
        assert known["share"] > 0
    unknown = found("emp-crop4-pgd5")
    empty = {name for name, value in unknown.items() if value is None}
    assert empty >= {"crop_passes", "crop_passes_per_second", "tflop_per_second", "share"}


def test_the_rate_of_matrix_products_is_within_what_a_cpu_can_do(monkeypatch):
    monkeypatch.setitem(speed.SIDES, "cpu", 256)
    assert 1e-4 < speed.matrix_rate(torch.device("cpu"))["tflop_per_second"] < 100


def test_the_headline_is_the_paper_s_run_but_for_what_decides_its_speed():
    ours = load_study(REPOSITORY / "studies/headline.yaml")
    paper = load_study(REPOSITORY / "studies/cf-amc-ssl.yaml")
    ((name, run),) = ours.runs.items()
    full = {"precision": "tf32", "compile": False, "datasets": ("cifar10", "cifar100")}
    assert dataclasses.replace(run, **full, seeds=(0, 1, 2, 3, 4)) == paper.runs[name]
    assert (run.precision, run.compile) == ("bf16", True)
    exact = {**ours.probes, "rle": dataclasses.replace(ours.probes["rle"], craft_precision="fp32")}
    assert {name: paper.probes[name] for name in ours.probes} == exact
    assert ours.probes["rle"].craft_precision == "bf16"
    assert ours.attacks["pgd20"] == dataclasses.replace(paper.attacks["pgd20"], ncrop_images=None)
    official = dataclasses.replace(paper.attacks["autoattack"], eps=(8.0,), images=1000)
    assert ours.attacks["autoattack"] == official
    assert ours.runtime.evaluation_batch == paper.runtime.evaluation_batch


def test_the_headline_invents_no_published_value():
    ours = load_study(REPOSITORY / "studies/headline.yaml")
    paper = load_study(REPOSITORY / "studies/cf-amc-ssl.yaml")
    table = paper.tables["table1"]
    known = dict(zip(table.columns, table.rows["row7"].published, strict=True))
    for block in ours.tables.values():
        for cell in plan.cells(ours, block):
            if cell.probe == "rle" and block is ours.tables["headline"]:
                assert cell.published == known.get(cell.column)
            else:
                assert cell.published in ("unavailable", None)
