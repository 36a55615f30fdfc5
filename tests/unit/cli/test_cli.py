"""The command line: a whole study by hand, and the messages for errors."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from robustviews import artifacts
from robustviews.artifacts.resume import Resume
from robustviews.cli import VERBS, main
from robustviews.study import folders, load_study, plan
from robustviews.study.jobs import jobs
from tests.unit.study.mistakes import BASE

# Every kind of job, each shorter than a second.
TINY = """\
study: tiny
title: A tiny study
seeds: [0]
datasets:
  digits: {kind: digits, size: 8, test: 1000}
defaults:
  all:
    datasets: [digits]
    encoder: {width: 2, hidden: 16, projection: 8}
    epochs: 1
    batch_size: 100
runs:
  emp-free:
    label: "EMP-SSL, free"
    method: emp_ssl
    views: {count: 2}
    regime: {kind: free, replays: 2}
    optimizer: {lr: 0.003}
  simclr-std: {label: SimCLR, method: simclr, regime: standard}
  supervised-std: {label: Supervised, method: supervised, views: {count: 1}, regime: standard}
probes:
  central: {kind: linear, epochs: 2}
  rle: {kind: robust_linear, epochs: 1, steps: 1, step_size: 8, rle_start: central}
  crops: {kind: ncrop, n: 2, epochs: 2}
attacks:
  pgd2: {kind: pgd, eps: [8, 16], steps: 2, step_size: 8, images: 40}
  aa: {kind: autoattack, eps: [8], version: custom, attacks: [apgd-ce], apgd_steps: 2, images: 10}
sanity: {images: 12, radii: [0, 8, 64], steps: 20, restarts: 1, queries: 10, pixels: 4}
tables:
  accuracies:
    title: Clean and robust accuracy
    columns: [digits/clean, digits/pgd2/8, digits/pgd2/16, digits/minutes]
    rows:
      emp: {run: emp-free, probe: rle}
      simclr: {run: simclr-std, probe: crops}
      supervised: {run: supervised-std, probe: own}
figures:
  strong:
    title: A stronger attack
    columns: [digits/clean, digits/aa/8]
    rows:
      emp: {run: emp-free, probe: rle}
  tradeoff:
    kind: tradeoff
    title: Clean against robust accuracy
    columns: [digits/clean, digits/pgd2/8]
    rows:
      emp: {run: emp-free, probe: rle}
"""
NAMES = {"dataset": "digits", "run": "emp-free-digits-s0", "probe": "rle", "attack": "pgd2"}
NAMES |= {
    "encoder": "dino",
    "table": "accuracies",
    "figure": "strong",
    "to": "crate",
    "key": "key.pem",
}
STUDYLESS = ["import", "keys"]
_CELL = "accuracies:emp:digits/pgd2/8"
POSITIONAL = {"source": "none.pth", "cell": _CELL, "first": _CELL, "second": _CELL}


def command(verb, **names):
    """Return the arguments of a verb; names are those of the tiny study by default."""
    options = [option.removeprefix("--") for option in VERBS[verb][2]]
    values = {name: names.get(name, NAMES[name]) for name in options if name in NAMES}
    device = ["--device", "cpu"] if VERBS[verb][0] == "stages" else []
    places = [POSITIONAL[name] for name in VERBS[verb][2] if name in POSITIONAL]
    return [
        verb,
        *places,
        *[part for name in values for part in (f"--{name}", values[name])],
        *device,
    ]


pytestmark = pytest.mark.usefixtures("settings_of_torch")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project folder in which every verb was run, and the study."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        study = load_study("params.yaml")
        for name in study.datasets:
            assert main(command("data", dataset=name)) == 0
        for run in plan.pretrainings(study):
            assert main(command("pretrain", run=run)) == 0
        # A head that others start from is trained first.
        for run, probe in sorted(plan.heads(study), key=lambda head: head[1] != "central"):
            assert main(command("probe", run=run, probe=probe)) == 0
        for run, probe, attack in plan.evaluations(study):
            assert main(command("attack", run=run, probe=probe, attack=attack)) == 0
        for run in plan.attacked(study):
            assert main(command("sanity", run=run)) == 0
        for table in study.tables:
            assert main(command("table", table=table)) == 0
        for figure in study.figures:
            assert main(command("figure", figure=figure)) == 0
        for verb in ("examples", "frame", "curves", "report", "summary"):
            assert main(command(verb)) == 0
    return folder, study


def enter(folder, patch):
    """Work in a folder that holds the tiny study as its params.yaml."""
    (folder / "params.yaml").write_text(TINY, encoding="utf-8")
    patch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("ROBUSTVIEWS_")]:
        patch.delenv(name)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A project in which nothing was run."""
    enter(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of the finished project that a test may damage."""
    folder = shutil.copytree(finished[0], tmp_path / "project")
    enter(folder, monkeypatch)
    return folder


# A whole study by hand


def test_every_job_writes_its_files_and_a_record(finished):
    folder, study = finished
    computing = [job for job in jobs(study).values() if job.folder]
    assert {job.rule for job in computing} == {"data", "pretrain", "probe", "attack", "sanity"}
    for job in computing:
        record = artifacts.read_json(folder / job.record)
        assert (record["stage"], record["spec"]) == (job.rule, job.spec)
        outputs = {file.name for file in (folder / job.folder).iterdir()} - {"record.json"}
        assert set(record["outputs"]) == set(job.outputs) == outputs
        for name, digest in record["outputs"].items():
            assert artifacts.sha256(folder / job.folder / name) == digest
        assert set(record["inputs"]) == {path.as_posix() for path in job.reads}
        for name, digest in record["inputs"].items():
            assert artifacts.sha256(folder / name) == digest
    assert {path.name for path in (folder / "results").iterdir()} <= {".state", study.study}
    assert not list((folder / "results" / ".state").rglob("*.safetensors"))


def test_accuracies_in_records_and_tables_are_those_of_the_flags(finished):
    folder, study = finished
    names = ("emp-free-digits-s0", "rle", "pgd2")
    path = folder / folders.job_folder(study, "attack", "/".join(names))
    flags = load_file(path / "flags.safetensors")
    result = artifacts.read_json(path / "record.json")["result"]
    assert result["n"] == len(flags["index"]) == study.attacks["pgd2"].images
    assert result["clean"] == pytest.approx(flags["clean"].double().mean().item())
    assert result["eps"] == {
        "8": pytest.approx(flags["eps_8"].double().mean().item()),
        "16": pytest.approx(flags["eps_16"].double().mean().item()),
    }
    table = (folder / "results/tiny/tables/accuracies.md").read_text(encoding="utf-8")
    [row] = [line for line in table.splitlines() if "EMP-SSL, free" in line]
    for name in ("clean", "eps_8", "eps_16"):
        assert f"| {100 * flags[name].double().mean():.0f} ±" in row


def test_tables_figures_and_the_report_are_written_in_every_format(finished):
    folder, study = finished
    results = folder / folders.results_folder(study)
    expected = {f"tables/{name}.{kind}" for name in study.tables for kind in ("md", "csv", "tex")}
    pictures = [f"figures/{name}" for name in study.figures] + [
        "training/curves",
        "examples/views",
        "examples/adversarial",
    ]
    expected |= {f"{name}.{kind}" for name in pictures for kind in ("svg", "png")}
    expected |= {"frame.csv", "report.html", "audit.html"}
    files = {path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()}
    computed = ("data/", "pretrain/", "probe/", "attack/", "sanity/")
    assert {name for name in files if not name.startswith(computed)} == expected
    for name in pictures:
        with Image.open(results / f"{name}.png") as picture:
            assert picture.width > 100
    page = (results / "report.html").read_text(encoding="utf-8")
    assert all(table.title in page for table in study.tables.values())


@pytest.mark.usefixtures("project")
def test_a_rerun_gives_the_same_bytes():
    paths = [
        Path("results/tiny/pretrain/emp-free-digits-s0/encoder.safetensors"),
        Path("results/tiny/probe/emp-free-digits-s0/rle/head.safetensors"),
        Path("results/tiny/attack/emp-free-digits-s0/rle/pgd2/flags.safetensors"),
    ]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    for verb in ("pretrain", "probe", "attack"):
        assert main(command(verb)) == 0
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.usefixtures("project")
def test_images_that_do_not_fit_are_read_from_their_file_with_the_same_results(monkeypatch, caplog):
    paths = [Path(ENCODER), Path(HEAD), Path(FLAGS)]
    before = [path.read_bytes() for path in paths]
    monkeypatch.setattr("robustviews.machine.feed._SHARE", 0.0)
    caplog.set_level("INFO")
    for verb in ("pretrain", "probe", "attack"):
        assert main(command(verb)) == 0
    assert [path.read_bytes() for path in paths] == before
    assert len([line for line in caplog.messages if line.startswith("images=mapped 0.")]) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("verb", ["pretrain", "probe", "attack"])
def test_a_job_with_other_threads_starts_anew_and_its_record_holds_for_all_of_it(
    verb, monkeypatch, caplog
):
    path = Path({"pretrain": ENCODER, "probe": HEAD, "attack": FLAGS}[verb])
    record = path.parent / "record.json"
    save = Resume.save

    def save_and_stop(self, *state):
        save(self, *state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Resume, "due", lambda _: True)
        patch.setattr(Resume, "save", save_and_stop)
        assert main([*command(verb), "--threads", "1"]) == 130
    assert main([*command(verb), "--threads", "2"]) == 0
    assert "computed with threads 1, and here is threads 2" in caplog.text
    assert artifacts.read_json(record)["environment"]["threads"] == 2
    assert artifacts.read_json(record)["resumed"] == 0
    mixed = path.read_bytes()
    assert main([*command(verb), "--threads", "2"]) == 0
    assert path.read_bytes() == mixed


def test_the_record_of_a_training_states_its_length(finished):
    folder, study = finished
    path = folder / folders.job_folder(study, "pretrain", "emp-free-digits-s0")
    record, history = (
        artifacts.read_json(path / "record.json"),
        artifacts.read_jsonl(path / "training.jsonl"),
    )
    assert record["result"]["passes"] == len(history) == 1
    assert record["result"]["updates"] == 7 * 2  # 797 images in hundreds, each replayed twice
    assert record["result"]["loss"] == history[-1]["loss"]
    assert record["resumed"] == 0
    assert record["environment"]["threads"] == 1
    assert record["environment"]["deterministic"]


def test_the_summary_is_the_main_table_and_the_path_of_the_report(project, capsys):
    assert main(["summary"]) == 0
    output = capsys.readouterr().out
    lines = output.splitlines()
    header = next(line for line in lines if "pgd2 8/255" in line)
    (row,) = (line for line in lines if line.startswith("EMP-SSL, free"))
    assert lines[0] == "Clean and robust accuracy (digits)"
    assert len(header) == len(row), "columns are aligned"
    table = (project / "results/tiny/tables/accuracies.md").read_text(encoding="utf-8")
    (written,) = (line for line in table.splitlines() if line.startswith("| EMP-SSL, free"))
    assert row.split() == written.replace("|", " ").split()
    assert "\x1b" not in output
    assert output.endswith(f"\nReport: {project}/results/tiny/report.html\n")


@pytest.mark.usefixtures("empty")
def test_the_summary_prints_the_claims_of_a_study(capsys):
    study = Path(__file__).parents[3] / "studies/cf-amc-ssl.yaml"
    assert main(["summary", "--study", str(study)]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^F2 +not attempted +holds +better balance than SimCLR$", output, re.M)
    assert "cifar100/pgd20/4: not run, published -2.15\n" in output
    assert output.index("Claims") > output.index("Robust linear evaluation of robust encoders")


def test_a_strict_summary_names_each_shown_head_whose_attack_is_not_established(project, capsys):
    shown = {"rle": "emp-free-digits-s0", "own": "supervised-std-digits-s0"}
    assert main(["summary"]) == 0
    for probe, run in shown.items():
        path = project / f"results/tiny/sanity/{run}/record.json"
        record = artifacts.read_json(path)
        record["result"][probe]["measures"]["zero_gradients"] = 9
        artifacts.write_json(path, record)
    (project / "results/tiny/sanity/simclr-std-digits-s0/record.json").unlink()
    assert main(["summary", "--strict"]) == 1
    lines = capsys.readouterr().err.splitlines()
    failing = {line.partition(": attack not established: ")[0]: line for line in lines}
    assert set(failing) == {
        *(f"{run}/{probe}" for probe, run in shown.items()),
        "simclr-std-digits-s0/crops",
    }
    assert failing["simclr-std-digits-s0/crops"].endswith(": not checked")
    assert all("AS9" in failing[f"{run}/{probe}"] for probe, run in shown.items())


# Help


@pytest.mark.parametrize("verb", ["check", *VERBS])
@pytest.mark.usefixtures("empty")
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: robustviews {verb} ")
    if verb != "check":
        module, text, options = VERBS[verb]
        assert text in " ".join(output.split())
        assert len(options) == len(set(options))
        assert "--study" not in options
        assert ("study file (params.yaml)" in output) == (verb not in STUDYLESS)
        assert ("--device" in output) == (
            module in ("stages", "estimate", "examples") or verb == "audit"
        )
        assert ("--partial" in output) == (module == "report")


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert all(re.search(rf"^ +{verb}( |$)", output, re.M) for verb in ("check", *VERBS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: VERB"),
        (["trian"], "invalid choice: 'trian'"),
        (["pretrain"], "the following arguments are required: --run"),
        (["probe", "--run", "x"], "the following arguments are required: --probe"),
        ([*command("pretrain"), "--threads", "0"], "--threads: expected 1 or more, found 0"),
        (["check"], "the following arguments are required: FILE"),
    ],
)
@pytest.mark.usefixtures("empty")
def test_wrong_usage_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


# Check


@pytest.mark.usefixtures("empty")
def test_check_counts_the_jobs_of_a_study(capsys):
    assert main(["check", "params.yaml"]) == 0
    output = capsys.readouterr()
    study = load_study("params.yaml")
    assert output.out == (
        f"params.yaml: ok: {len(plan.pretrainings(study))} trainings, "
        f"{len(plan.heads(study))} probes, "
        f"{len(plan.evaluations(study))} attacks, {len(study.tables)} tables, "
        f"{len(study.figures)} figures\n"
    )
    assert output.err == ""


@pytest.mark.usefixtures("empty")
def test_check_reports_all_mistakes_of_all_files(capsys):
    Path("first.yaml").write_text(BASE.replace("epochs: 3", "epochs: 0"), encoding="utf-8")
    Path("second.yaml").write_text(BASE.replace("seeds:", "seed:"), encoding="utf-8")
    assert main(["check", "first.yaml", "params.yaml", "second.yaml", "third.yaml"]) == 2
    output = capsys.readouterr()
    assert output.out.startswith("params.yaml: ok: ")
    for line in (
        r"first\.yaml:\d+: runs\.emp-free\.epochs: must be at least 1",
        r"first\.yaml:\d+: runs\.supervised\.epochs: must be at least 1",
        r"2 mistakes found, nothing was run",
        r"second\.yaml:3: seed: unknown key; did you mean `seeds`\?",
        r"third\.yaml:1: there is no such file",
    ):
        assert re.search(f"^{line}", output.err, re.M), line


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in STUDYLESS])
@pytest.mark.usefixtures("empty")
def test_every_verb_accepts_another_study_file(verb, capsys):
    assert main([*command(verb), "--study", "studies/none.yaml"]) == 2
    assert "studies/none.yaml" in "".join(capsys.readouterr())


@pytest.mark.usefixtures("empty")
def test_the_environment_names_the_study(monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTVIEWS_STUDY", "other.yaml")
    assert main(["frame"]) == 2
    assert "other.yaml" in capsys.readouterr().err
    assert main(["frame", "--study", "params.yaml", "--partial"]) == 0


@pytest.mark.usefixtures("project")
def test_the_environment_names_the_device(monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTVIEWS_DEVICE", "abacus")
    assert main(["pretrain", "--run", NAMES["run"]]) == 2
    assert "--device abacus: expected auto, cpu, cuda" in capsys.readouterr().err
    assert main(command("pretrain")) == 0


@pytest.mark.usefixtures("project")
def test_compiled_code_is_kept_beside_the_results(monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert main(command("pretrain")) == 0
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    study = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(
        study.replace("    epochs: ", "    compile: true\n    epochs: "), encoding="utf-8"
    )
    assert main(command("pretrain")) == 0
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(Path("results/.compiled").resolve())


@pytest.mark.usefixtures("empty")
def test_test_images_that_are_training_images_are_reported_and_recorded(caplog):
    for split, name, shade in itertools.product(("train", "val"), ("dark", "light"), (0, 9)):
        folder = Path("pictures") / split / name
        folder.mkdir(parents=True, exist_ok=True)
        shades = {"dark": shade, "light": 255 - shade}
        Image.new("L", (8, 8), shades[name]).save(folder / f"{shade}.png")
    text = TINY.replace("{kind: digits, size: 8, test: 1000}", "{kind: folder, root: pictures}")
    text = re.sub("images: (40|10)", "images: 4", text.replace("batch_size: 100", "batch_size: 4"))
    Path("params.yaml").write_text(text, encoding="utf-8")
    assert main(command("data")) == 0
    assert "digits: 4 of 4 test images are also training images" in caplog.text
    (record,) = Path("data").glob("*/record.json")
    equal = artifacts.read_json(record)["result"]["equal_images"]
    assert equal == {"train": 0, "test": 0, "shared": 4}
    assert "equal_images" not in artifacts.read_json(record.parent / "summary.json")


# Names


@pytest.mark.parametrize(
    ("verb", "names", "message"),
    [
        ("data", {"dataset": "digit"}, "no data set `digit`; did you mean `digits`?"),
        (
            "pretrain",
            {"run": "emp-fre-digits-s0"},
            "no run `emp-fre-digits-s0`; did you mean `emp-free-digits-s0`?",
        ),
        ("pretrain", {"run": "zzz"}, "no run `zzz`; known: emp-free-digits-s0, simclr-std-"),
        ("probe", {"probe": "centrl"}, "no probe `centrl`; did you mean `central`?"),
        ("probe", {"run": "emp-free"}, "no run `emp-free`; did you mean `emp-free-digits-s0`?"),
        ("attack", {"attack": "pgd20"}, "no attack `pgd20`; did you mean `pgd2`?"),
        ("attack", {"probe": "rel"}, "no probe `rel`; did you mean `rle`?"),
        ("table", {"table": "acuracies"}, "no table `acuracies`; did you mean `accuracies`?"),
        ("figure", {"figure": "trade"}, "no figure `trade`; did you mean `tradeoff`?"),
    ],
)
@pytest.mark.usefixtures("empty")
def test_an_unknown_name_is_answered_with_the_nearest_one(verb, names, message, capsys):
    assert main(command(verb, **names)) == 2
    assert message in capsys.readouterr().err


# Inputs


@pytest.mark.parametrize("verb", ["pretrain", "probe", "attack", "examples"])
@pytest.mark.usefixtures("empty")
def test_the_message_for_missing_data_suggests_a_command(verb, capsys):
    assert main(command(verb)) == 2
    folder = folders.data_folder(load_study("params.yaml"), "digits")
    output = capsys.readouterr().err
    assert re.search(rf"{folder}/\S+: missing; make it with: snakemake {folder}/\S+$", output, re.M)
    assert "Traceback" not in output


ENCODER = "results/tiny/pretrain/emp-free-digits-s0/encoder.safetensors"
HEAD = "results/tiny/probe/emp-free-digits-s0/rle/head.safetensors"
STANDARD_HEAD = "results/tiny/probe/emp-free-digits-s0/central/head.safetensors"
FLAGS = "results/tiny/attack/emp-free-digits-s0/rle/pgd2/flags.safetensors"
RECORD = "results/tiny/attack/emp-free-digits-s0/rle/pgd2/record.json"
DIVERGING = "batch_size: 797, optimizer: {name: adam, lr: 1.0e+30}"
NEEDED = [
    ("probe", ENCODER),
    ("probe", STANDARD_HEAD),
    ("attack", ENCODER),
    ("attack", HEAD),
    ("examples", ENCODER),
    ("frame", FLAGS),
    ("table", FLAGS),
    ("table", RECORD),
    ("report", RECORD),
]


@pytest.mark.parametrize(("verb", "needed"), NEEDED)
@pytest.mark.usefixtures("project")
def test_a_missing_input_is_named_with_the_command_that_makes_it(verb, needed, capsys):
    Path(needed).unlink()
    assert main(command(verb)) == 2
    output = capsys.readouterr().err
    made_with = FLAGS if needed == RECORD else needed  # Snakemake is asked for outputs
    assert re.search(f"{needed}: missing; [a-z]+ it with: snakemake {made_with}$", output, re.M)
    assert "Traceback" not in output


@pytest.mark.parametrize(("verb", "needed"), [pair for pair in NEEDED if pair[1] != RECORD])
@pytest.mark.usefixtures("project")
def test_a_damaged_input_is_named(verb, needed, capsys):
    Path(needed).write_bytes(b"not what it was")
    assert main(command(verb)) == 2
    output = capsys.readouterr().err
    assert needed in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("verb", "needed"), [pair for pair in NEEDED if pair[1] in (ENCODER, HEAD, STANDARD_HEAD)]
)
@pytest.mark.usefixtures("project")
def test_weights_under_other_names_are_refused(verb, needed, capsys):
    wrong = {f"module.{name}": value for name, value in load_file(needed).items()}
    save_file(wrong, needed)
    assert main(command(verb)) == 2
    output = capsys.readouterr().err
    assert f"{needed}: does not fit the study's network" in output
    assert f"make it again with: snakemake {needed}" in output


@pytest.mark.parametrize(
    ("verb", "needed"), [("attack", ENCODER), ("table", FLAGS), ("report", RECORD)]
)
def test_the_suggested_command_names_a_study_other_than_the_default(verb, needed, project, capsys):
    (project / "params.yaml").rename(project / "mine.yaml")
    Path(needed).unlink()
    assert main([*command(verb), "--study", "mine.yaml"]) == 2
    command_line = f"snakemake {FLAGS if needed == RECORD else needed} --config study=mine.yaml"
    output = capsys.readouterr().err
    assert re.fullmatch(
        f"{needed}: missing; [a-z]+ it with: {command_line}", output.splitlines()[-1]
    )
    assert output.count("snakemake") == output.count("study=mine.yaml")


def test_the_command_for_weights_under_other_names_includes_the_study(project, capsys):
    (project / "params.yaml").rename(project / "mine.yaml")
    save_file({f"module.{name}": value for name, value in load_file(HEAD).items()}, HEAD)
    assert main([*command("attack"), "--study", "mine.yaml"]) == 2
    assert f"again with: snakemake {HEAD} --config study=mine.yaml\n" in capsys.readouterr().err


@pytest.mark.usefixtures("empty")
def test_results_that_were_not_run_are_left_out_on_request(capsys):
    for verb in ("frame", "table", "figure", "report"):
        assert main(command(verb)) == 2
        assert "snakemake" in capsys.readouterr().err
        assert main([*command(verb), "--partial"]) == 0
    assert main(command("summary")) == 0
    assert "not run" in capsys.readouterr().out


@pytest.mark.usefixtures("project")
def test_the_message_for_too_few_images_names_the_batch_size(capsys):
    changed = TINY.replace("batch_size: 100", "batch_size: 900")
    Path("params.yaml").write_text(changed, encoding="utf-8")
    assert main(command("pretrain")) == 2
    output = capsys.readouterr().err
    assert "runs.emp-free.batch_size: 900 is more than the 797 training images of `digi" in output


@pytest.mark.usefixtures("project")
def test_a_network_that_has_diverged_is_saved_by_no_verb(capsys):
    """Its last update breaks it: every prediction would be class 0, clean and at every radius."""
    run = "supervised-std-digits-s0"
    kept = {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}
    diverging = TINY.replace(
        "regime: standard}\nprobes", f"regime: standard, {DIVERGING}}}\nprobes"
    )
    Path("params.yaml").write_text(diverging, encoding="utf-8")
    assert main(command("pretrain", run=run)) == 2
    output = capsys.readouterr().err
    assert re.search(f"^{run}: not finite after training: .*; lower optimizer", output, re.M)
    assert {path: path.read_bytes() for path in kept} == kept
    Path("params.yaml").write_text(TINY, encoding="utf-8")
    encoder = load_file(ENCODER)
    encoder["backbone.conv1.weight"].fill_(1e30)
    encoder["backbone.bn1.weight"].fill_(1e30)
    save_file(encoder, ENCODER)
    kept[Path(ENCODER)] = Path(ENCODER).read_bytes()
    messages = {
        "probe": "emp-free-digits-s0/rle: the features of training images are not finite; train",
        "attack": "emp-free-digits-s0/rle/pgd2, clean: the logits of 40 of 40 images are not",
        "examples": "examples of emp-free-digits-s0: not finite: outputs; train the encoder",
    }
    for verb, message in messages.items():
        assert main(command(verb)) == 2
        output = capsys.readouterr().err
        assert output.splitlines()[-1].startswith(message)
        assert "Traceback" not in output
    assert {path: path.read_bytes() for path in kept} == kept


@pytest.mark.usefixtures("project")
def test_a_training_that_does_not_fit_is_refused_before_it_begins(monkeypatch, capsys):
    before = Path(ENCODER).stat()
    monkeypatch.setattr("robustviews.machine.memory.available", lambda _: 2**19)
    assert main(command("pretrain")) == 2
    output = capsys.readouterr().err
    assert re.search(
        r"^emp-free-digits-s0: a training step needs [\d.]+ MiB, cpu has [\d.]+ MiB available; low",
        output,
        re.M,
    )
    assert "Traceback" not in output
    assert Path(ENCODER).stat() == before


@pytest.mark.parametrize(
    ("verb", "where", "option"),
    [
        ("pretrain", "robustviews.regimes.Free.train_batch", "batch_size or views.count"),
        ("probe", "robustviews.probe.RobustLinearProbe.train", "runtime.evaluation_batch"),
        ("attack", "robustviews.attacks.PgdAttack.perturb", "runtime.evaluation_batch"),
    ],
)
@pytest.mark.usefixtures("project")
def test_the_message_for_too_little_memory_names_the_option_to_lower(
    verb, where, option, monkeypatch, capsys
):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(where, full)
    assert main(command(verb)) == 2
    output = capsys.readouterr().err
    assert (
        f"out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.); lower {option}" in output
    )
    assert "Traceback" not in output


@pytest.mark.usefixtures("project")
def test_a_self_supervised_run_is_not_evaluated_through_its_own_classifier(capsys):
    assert main(command("attack", probe="own")) == 2
    assert "no attack `emp-free-digits-s0/own/pgd2`; did you mean" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_a_supervised_run_is_never_evaluated_through_another_head_than_the_named_one(capsys):
    run = "supervised-std-digits-s0"
    assert main(command("attack", run=run, probe="central")) == 2
    assert f"no attack `{run}/central/pgd2`; did you mean" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_a_failed_job_keeps_the_old_files(monkeypatch):
    before = Path(ENCODER).read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("robustviews.artifacts.write_record", interrupted)
    assert main(command("pretrain")) == 130
    assert Path(ENCODER).read_bytes() == before
    assert sorted(path.name for path in Path(ENCODER).parent.iterdir()) == [
        "encoder.safetensors",
        "record.json",
        "training.jsonl",
    ]


def test_data_are_prepared_as_bytes(finished):
    folder, study = finished
    images = np.load(folder / folders.data_folder(study, "digits") / "train_images.npy")
    assert images.dtype == np.uint8
    assert images.shape == (797, 3, 8, 8)


def test_check_says_what_to_add_for_dvc(tmp_path, capsys):
    study = BASE.replace("seeds: [0, 1]\n", "", 1)
    (tmp_path / "params.yaml").write_text(study, encoding="utf-8")
    stages = "stages: {a: {params: [datasets, seeds, encoders]}}"
    (tmp_path / "dvc.yaml").write_text(stages, encoding="utf-8")
    assert main(["check", str(tmp_path / "params.yaml")]) == 2
    told = capsys.readouterr().err
    assert "dvc.yaml reads seeds; add: seeds: [0]\n" in told
    assert "dvc.yaml reads encoders; add: encoders: {}\n" in told
    assert "reads datasets" not in told
