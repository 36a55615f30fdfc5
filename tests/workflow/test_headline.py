"""The headline: one command on a host that has only torch and torchvision, cut wherever it may be.

What takes `raw` runs CIFAR-10 and needs its official files.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors
import torch
import yaml

from benchmarks import headline, speed
from robustviews import artifacts
from robustviews.cli import main
from robustviews.study import load_study, plan, specs
from tests.workflow.project import REPOSITORY

RUN = "emp-crop4-free3-cifar10-s0"
FILES = headline.OFFICIAL["cifar10"][1]
PATIENCE = 240  # seconds that a process may take
FAST = (  # the rehearsal, smaller still
    ("train_images: 2000, test_images: 200", "train_images: 300, test_images: 40"),
    ("width: 8, hidden: 256", "width: 4, hidden: 64"),
    ("batch_size: 100", "batch_size: 50"),
    ("eps: [4, 8, 16], images: 100", "eps: [4, 8, 16], steps: 2, step_size: 8, images: 20"),
    ("images: 100, radii: [0, 1, 2, 4, 8, 16, 32, 64]", "images: 8, radii: [0, 8, 64]"),
    ("apgd_steps: 10", "apgd_steps: 3"),
    ("square_queries: 100", "square_queries: 5"),
    ("images: 32", "images: 8"),
)
REFUSED = ("yaml", "_yaml", "safetensors", "pyautoattack", "snakemake", "dvc", "sklearn", "scipy")
REFUSED += ("matplotlib", "jinja2", "robustviews")
BARE = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):  # finds in no installed folder what a bare host does not have
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if path is None and name in {REFUSED}:
            path = [folder for folder in sys.path if "-packages" not in folder]
            path = [folder for folder in path if not folder.startswith({str(REPOSITORY)!r})]
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A folder as `make bundle` makes it."""
    folder, caches = tmp_path_factory.mktemp("bundle"), shutil.ignore_patterns("*.pyc", "*.so")
    shutil.copytree(REPOSITORY / "src/robustviews", folder / "src/robustviews", ignore=caches)
    shutil.copytree(REPOSITORY / "benchmarks", folder / "benchmarks", ignore=caches)
    import pyautoattack

    for package in (pyautoattack, yaml):
        source = Path(package.__file__).parent
        shutil.copytree(source, folder / "site" / source.name / source.name, ignore=caches)
    source = Path(safetensors.__file__).parent
    shutil.copytree(source, folder / "site" / source.name / source.name)
    (folder / "bare").mkdir()
    (folder / "bare/sitecustomize.py").write_text(BARE, encoding="utf-8")
    return folder


@pytest.fixture
def project(tmp_path):
    """A working folder that holds a study."""
    return _write_study(tmp_path)


def _write_study(folder):
    text = (REPOSITORY / "studies/headline-small.yaml").read_text(encoding="utf-8")
    for old, new in FAST:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def uncut(raw, tmp_path_factory):
    """The same study by the verbs, in this process, in a folder of its own."""
    folder, threads = _write_study(tmp_path_factory.mktemp("uncut")), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ROBUSTVIEWS_DATA", str(raw))
        for stage in headline.stages(load_study("study.yaml")):
            words = headline.verb(load_study("study.yaml"), stage)
            assert main([*words, "--study", "study.yaml", "--device", "cpu"]) == 0
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")
    return folder


@contextlib.contextmanager
def command(project, bundle, raw, *arguments):
    """Give the command on the bare host."""
    strange = ("ROBUSTVIEWS", "PYTHON")
    env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    env |= {"PYTHONPATH": str(bundle / "bare"), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, str(bundle / "benchmarks/headline.py"), "--data", str(raw)]
    call += ["--study", "study.yaml", "--device", "cpu", *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(call, cwd=project, env=env, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(project, bundle, raw, *arguments, status=0):
    """Give the command, wait for it, and return what it said."""
    with command(project, bundle, raw, *arguments) as process:
        out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, out + errors
    return out + errors


def kill_when(ready, project, bundle, raw):
    """Kill the command as soon as something is true."""
    deadline = time.monotonic() + PATIENCE
    with command(project, bundle, raw) as process:
        while not ready():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    time.sleep(0.2)
    assert not _working_in(project), "a stage outlived the command"


def _working_in(folder):
    """Return the processes whose working folder is this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
            found += [path.parent.name] * (path.readlink() == folder)
    return found


def test_on_a_bare_host_a_headline_killed_twice_ends_with_the_bytes_of_one_that_was_not(
    project, bundle, raw, uncut
):
    shutil.copytree(uncut / "data", project / "data")
    results = Path("results/headline-small")
    encoder = project / results / "pretrain" / RUN / "encoder.safetensors"

    def training():
        return any(project.glob(f"results/.state/headline-small/{RUN}-*/state-*.safetensors"))

    kill_when(training, project, bundle, raw)
    assert not encoder.exists()

    kill_when(encoder.with_name("record.json").exists, project, bundle, raw)
    text = said(project, bundle, raw, "--out", "out")

    (data,) = (path.name for path in (project / "data").iterdir())
    assert f"[1/7] data {data}: was done before\n[2/7] pretrain {RUN}: was done before\n" in text
    for path in sorted((uncut / results).rglob("*.safetensors")):
        found = project / path.relative_to(uncut)
        assert found.read_bytes() == path.read_bytes(), found
    _look_at(json.loads((project / "out/headline.json").read_text(encoding="utf-8")), uncut)
    table = (project / "out/headline.md").read_text(encoding="utf-8")
    assert table in text
    assert "| Robust linear probe (r-LE) | rle |" in table
    assert "A training's seconds leave out start-up and compiling; all others include" in table


def _look_at(summary, uncut):
    """Check the numbers of a finished headline against the records of one that was not cut."""
    (trained,) = summary["speed"]
    assert summary["commit"] is None  # neither a bundle's file nor a repository
    assert trained["crop_passes"] == 6 * 3 * 50 * 4
    assert trained["resumed"] == 1
    assert trained["compilation"].startswith("eager")
    rate = trained["crop_passes"] / summary["seconds"][f"pretrain {RUN}"]
    assert trained["crop_passes_per_second"] == pytest.approx(rate)
    share = rate * trained["gflop_per_crop_pass"] / 1e3 / trained["matrix"]["tflop_per_second"]
    assert trained["share"] == pytest.approx(share)
    attack = uncut / f"results/headline-small/attack/{RUN}/rle/pgd20/record.json"
    expected = artifacts.read_json(attack)["result"]
    ours = {
        cell["column"]: cell["ours"] for cell in summary["accuracies"] if cell["probe"] == "rle"
    }
    assert ours["cifar10 pgd20 8/255"] == pytest.approx(expected["eps"]["8"])
    assert ours.keys() >= {"cifar10 clean", "cifar10 pgd20 16/255", "cifar10 autoattack 8/255"}
    record = summary["records"][f"pretrain {RUN}"]
    assert record["code"]["commit"] is None  # of the bundle's own sources


def test_a_finished_stage_counts_only_with_its_spec_and_the_bytes_it_was_made_from(
    project, uncut, monkeypatch
):
    monkeypatch.chdir(project)
    for part in ("data", "results"):
        shutil.copytree(uncut / part, project / part)

    def done():
        study = load_study("study.yaml")
        found = headline.stages(study)
        return [headline.title(stage) for stage in found if headline.is_done(study, stage)]

    assert len(done()) == 7
    head = Path(f"results/headline-small/probe/{RUN}/rle/head.safetensors")
    head.write_bytes(head.read_bytes()[:-1] + b"?")
    assert not {f"{verb} {RUN}/rle{rest}" for verb, rest in _OF_RLE} & set(done())
    assert len(done()) == 4
    text = (project / "study.yaml").read_text(encoding="utf-8")
    (project / "study.yaml").write_text(
        text.replace("epochs: 1\n", "epochs: 2\n"), encoding="utf-8"
    )
    assert f"pretrain {RUN}" not in done()


_OF_RLE = (("probe", ""), ("attack", "/pgd20"), ("attack", "/autoattack"))


def test_no_time_left_is_said_with_status_75_and_nothing_begins(project, bundle, tmp_path):
    folder = tmp_path / "raw/cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).touch()
    text = said(project, bundle, folder.parent, "--minutes", "0", status=headline.AGAIN)
    assert re.search(r"\[1/7\] data cifar10-\w+: cut: the 0 minutes are used up\nCall again", text)
    assert not (project / "logs").exists()


def test_unpacking_counts_among_the_minutes(project, bundle, tmp_path):
    packs = tmp_path / "packs"
    packs.mkdir()
    (packs / "cifar10_exact_test.tar").touch()
    slow = "import pathlib, sys, time; time.sleep(1.5); "
    slow += "folder = pathlib.Path(sys.argv[1], 'cifar-10-batches-py'); folder.mkdir(); "
    slow += f"[(folder / name).touch() for name in {FILES}]"
    (packs / "unpack.py").write_text(slow, encoding="utf-8")
    arguments = ("--packs", str(packs), "--minutes", "0.02")
    text = said(project, bundle, tmp_path / "raw", *arguments, status=headline.AGAIN)
    assert "unpacked 1 packs, cut" in text
    assert not (project / "logs").exists()


def test_prepared_data_is_neither_unpacked_nor_looked_for_again(project, bundle, tmp_path):
    data = headline.stages(load_study(project / "study.yaml"))[0]
    record = {"spec": data.spec, "inputs": {}, "outputs": {}}
    artifacts.write_json(project / data.record, record)
    for path in data.writes:
        (project / path).touch()
    arguments = ("--packs", str(tmp_path / "none"), "--minutes", "0")
    text = said(project, bundle, tmp_path / "none", *arguments, status=headline.AGAIN)
    assert f"{headline.title(data)}: was done before\n[2/7] pretrain {RUN}: cut" in text


def test_a_study_of_digits_alone_needs_no_files_of_cifar(project, monkeypatch, capsys):
    monkeypatch.delenv("ROBUSTVIEWS_DATA", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    study, verbs = REPOSITORY / "params.yaml", []

    def execute(words, *_, **__):
        verbs.append(words)
        return int(words[0] != "data")

    monkeypatch.setattr(headline, "execute", execute)
    monkeypatch.setattr(headline, "_end_of", str)
    monkeypatch.chdir(project)
    assert headline.main(["--study", str(study)]) == headline.FAILED
    assert verbs[0] == ["data", "--dataset", "digits"]
    assert verbs[1][:2] == ["pretrain", "--run"]
    assert "failed with status 1" in capsys.readouterr().out


def test_cifar_without_a_folder_of_its_files_is_refused(project, monkeypatch, capsys):
    monkeypatch.delenv("ROBUSTVIEWS_DATA", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(project)
    assert headline.main(["--study", "study.yaml"]) == headline.WRONG
    assert (
        "name the folder that holds cifar-10-batches-py: --data FOLDER" in capsys.readouterr().err
    )


def test_an_older_python_is_refused_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 14, "final", 0))
    assert headline.main([]) == headline.WRONG
    expected = f"expected Python 3.11 or newer, found 3.10.14: {sys.executable}\n"
    assert capsys.readouterr().err == expected
    source = Path(headline.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 8))  # what an older one has to read before it can say so


def test_what_a_headline_plans_with_needs_neither_torch_nor_snakemake():
    code = "import sys, robustviews.study.jobs; print(*{'torch', 'snakemake'} & set(sys.modules))"
    call = [sys.executable, "-c", code]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout == "\n"


def test_the_commit_is_the_bundle_s_or_else_the_one_of_the_records(tmp_path, monkeypatch):
    monkeypatch.setattr(headline, "ROOT", tmp_path)
    commits = {"data": "0ld", "pretrain": "1234abc", "probe": "1234abc"}
    records = {name: {"stage": name, "code": {"commit": told}} for name, told in commits.items()}
    assert headline.commit_of(records) == "1234abc"
    other = {"attack": {"stage": "attack", "code": {"commit": None}}}
    assert headline.commit_of(records | other) is None
    (tmp_path / "COMMIT").write_text("5678def-dirty\n", encoding="utf-8")
    assert headline.commit_of(records) == "5678def-dirty"


def test_a_stage_that_is_cut_is_ended(project, bundle, raw):
    started = time.monotonic()
    text = said(project, bundle, raw, "--minutes", "0.02", status=headline.AGAIN)
    assert time.monotonic() - started < 30
    assert "Call again: this stage begins anew" in text


RULES = ("data", "pretrain", "probe", "attack")


@pytest.mark.parametrize("rule", RULES)
def test_what_is_cut_goes_on_from_its_state_unless_it_prepared_data(
    rule, tmp_path, monkeypatch, capsys
):
    def cut(*_, **__):
        raise headline.CutError

    before = RULES[: RULES.index(rule)]
    monkeypatch.setattr(headline, "is_done", lambda _, job: job.rule in before)
    monkeypatch.setattr(headline, "provide", lambda *_: None)
    monkeypatch.setattr(headline, "execute", cut)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    study = str(REPOSITORY / "studies/headline-small.yaml")
    assert headline.main(["--study", study, "--minutes", "9"]) == headline.AGAIN
    begins = "begins anew" if rule == "data" else "goes on from its state"
    assert f"Call again: this stage {begins}, and those before" in capsys.readouterr().out


def test_a_failed_stage_is_told_with_the_end_of_its_log(project, bundle, tmp_path):
    folder = tmp_path / "raw/cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(b"other bytes")
    text = said(project, bundle, folder.parent, status=headline.FAILED)
    assert re.search(r"logs/headline-small/data/cifar10-\w+.log:\n", text)
    assert "expected md5" in text


def test_missing_files_of_cifar_are_named_before_anything_runs(project, bundle, tmp_path):
    folder = tmp_path / "raw/cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in FILES[:-1]:
        (folder / name).touch()
    text = said(project, bundle, folder.parent, status=headline.WRONG)
    assert f"{folder}: expected the official files of cifar10, found none of test_batch" in text
    assert "Traceback" not in text
    assert not (project / "logs").exists()


def test_a_folder_without_packs_is_refused(project, bundle, tmp_path):
    text = said(project, bundle, tmp_path, "--packs", str(tmp_path), status=headline.WRONG)
    assert f"{tmp_path}: expected unpack.py and cifar10_exact_*.tar" in text


def test_what_the_host_has_comes_before_what_the_bundle_brings(tmp_path):
    for name in ("yaml", "nowhere_else"):
        (tmp_path / "site" / f"{name}-package" / name).mkdir(parents=True)
        (tmp_path / "site" / f"{name}-package" / f"{name}-1.0.dist-info").mkdir()
    found = headline.importable(tmp_path)
    assert found == [str(tmp_path / "src"), str(tmp_path / "site/nowhere_else-package")]


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
            "spec": specs.pretrain_spec(study, name),
            "environment": {"device": speed.runtime.environment(torch.device("cpu"))["device"]},
            "result": {"updates": 10, "size": 8, "classes": 10},
            "seconds": 2.0,
            "resumed": 0,
        }
        found = speed.of_training(study, name, record, "cpu")
        return found, speed.in_words(found)

    for run in ("emp-crop4-std", "emp-crop4-free3"):
        known, text = found(run)
        assert (known["crop_passes"], known["crop_passes_per_second"]) == (2000, 1000)
        assert known["share"] > 0
        assert "2,000 crop-passes in 2.0 s, 1,000 a second" in text
    unknown, text = found("emp-crop4-pgd5")
    empty = {name for name, value in unknown.items() if value is None}
    assert empty >= {"crop_passes", "crop_passes_per_second", "tflop_per_second", "share"}
    assert "Crop-passes are not counted: its regime sends its attacks through" in text


def test_the_rate_of_matrix_products_is_within_what_a_cpu_can_do(monkeypatch):
    monkeypatch.setitem(speed.SIDES, "cpu", 256)
    assert 1e-4 < speed.matrix_rate(torch.device("cpu"))["tflop_per_second"] < 100


def test_the_headline_is_the_paper_s_run_but_for_what_decides_its_speed():
    ours = load_study(REPOSITORY / "studies/headline.yaml")
    paper = load_study(REPOSITORY / "studies/cf-amc-ssl.yaml")
    ((name, run),) = ours.runs.items()
    full = {"precision": "fp32", "compile": False, "datasets": ("cifar10", "cifar100")}
    assert dataclasses.replace(run, **full, seeds=(0, 1, 2, 3, 4)) == paper.runs[name]
    assert (run.precision, run.compile) == ("bf16", True)
    exact = {**ours.probes, "rle": dataclasses.replace(ours.probes["rle"], craft_precision="fp32")}
    assert {name: paper.probes[name] for name in ours.probes} == exact
    assert ours.probes["rle"].craft_precision == "bf16"
    assert ours.attacks["pgd20"] == paper.attacks["pgd20"]
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
