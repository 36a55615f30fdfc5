"""How a cell was made, in words, and the commands that make it again."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
import sys

import pytest

from robustviews import artifacts
from robustviews.cli import _parser
from robustviews.provenance.explain import explain
from robustviews.reporting import results
from robustviews.reporting.tables import words
from robustviews.study import cells, folders, jobs
from robustviews.study.cells import CellError
from tests.unit.results_tree import DEVICE, small_study, write_shown, write_tree

CELL = "table1:free:digits/pgd20/4"
RUNS = [f"emp-free3-digits-s{seed}" for seed in (0, 1, 2)]
COMMIT, LATER = 40 * "a", 40 * "b"


@pytest.fixture(scope="module")
def study():
    return small_study()


@pytest.fixture(scope="module")
def tree(study, tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    write_tree(root, study)
    write_shown(root, study)
    return root


@pytest.fixture
def root(tree, tmp_path):
    return shutil.copytree(tree, tmp_path / "project")


@pytest.fixture(scope="module")
def text(study, tree):
    return explain(study, CELL, root=tree)


def edit(root, folder, change):
    path = root / folder / "record.json"
    record = artifacts.read_json(path)
    change(record)
    artifacts.write_json(path, record)


def plain(text):
    return " ".join(text.split())


def commands(text):
    """Return the commands of a text: with Snakemake, and by hand."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return [
        [line.strip() for line in lines]
        for title, *lines in blocks
        if title.startswith(("To make it again with Snakemake:", "Or by hand"))
    ]


def test_the_checks_say_what_other_attacks_take_from_pgd(text):
    left = "PGD-20: 12 of 20; PGD-40, random starts: 2: 12 of 20; PGD-20 and margin loss: 11 of 20"
    assert plain(text).count(f"images left at 8/255: {left}") == len(RUNS)


def test_the_value_is_given_with_its_source(text, study, tree):
    frame = [row for row in results.frame(study, tree) if row["run"] in RUNS and row["eps"] == 4]
    value = 100 * sum(row["accuracy"] for row in frame) / len(RUNS)
    assert f"mean over seeds [0, 1, 2]: {value:.6g} %, computed again" in plain(text)
    assert "the share of ones in `eps_4` in flags.safetensors of pgd20" in plain(text)
    minutes = plain(explain(study, "table1:pgd:digits/minutes", root=tree))
    assert "`seconds` of its record / 60; mean over seeds [0]: 6 minutes" in minutes
    assert "is attacked" not in minutes


def test_the_comparison_with_the_paper_is_put_in_words(text):
    block = text.partition("How it compares with the paper\n")[2].partition("\n\n")[0]
    for line in (
        "published: 55.97",
        "ours: 77.8 %, 95 % interval 74.96 to 80.70, 3 seeds",
        "spread between trainings: 1.15 points, 2 degrees of freedom",
        "verdict: not comparable: head switch probe_epochs is 3 (paper 20, code 2)",
        "switch: training switch free_step_size is 2.55 (paper 8, code 2.55)",
    ):
        assert line in plain(block)


def test_a_verdict_names_margin_state_and_what_would_decide_it(tree):
    study = small_study()
    alike = small_study(
        probes=study.probes | {"rle": dataclasses.replace(study.probes["rle"], epochs=20)}
    )
    frame = results.frame(study, tree)
    for row in frame:
        if row["entry"] == "emp-free3" and row["eps"] == 4:
            row["correct"] = 110 + 2 * row["seed"]
    alike.probes["rle"] = dataclasses.replace(alike.probes["rle"], rle_start="fresh")
    lines = list(words.describe(alike, "table1", cells.find(alike, CELL)[1], frame))
    assert "difference: +0.03 points; margin: 2 points" in lines
    assert any(line.startswith("verdict: reproduced: with 95 %") for line in lines)
    for row in frame:
        if row["entry"] == "emp-free3" and row["eps"] == 4:
            row["correct"] = 106 + 6 * row["seed"]
    lines = list(words.describe(alike, "table1", cells.find(alike, CELL)[1], frame))
    assert any(line.startswith("verdict: undecided: the difference is neither") for line in lines)
    assert any(line.startswith("to decide it: ") and "seeds" in line for line in lines)


def test_each_step_has_its_options_once_and_each_job_its_own_facts(text):
    titles = [block.splitlines()[0] for block in text.split("\n\n")][1:-3]
    head = "A head is trained on the frozen encoder"
    assert titles == [
        "The data set is prepared",
        "The encoder is pretrained",
        head,
        head,
        "The classifier is attacked",
        "The attack is checked",
        "How it compares with the paper",
    ]
    words = plain(text)
    assert words.count("regime: ") == 1
    for option in ("replays 3", "tcr_eps 0.2", "count 4", "epochs 3", "rle_start central"):
        assert option in words
    for run in RUNS:
        assert f"pretrain {run}: unknown code: made by the code as it is now, digest " in words
    assert "seed: seed 2 commit: " in words
    assert f"python 3.11.7, device {DEVICE}, threads 1, deterministic True" in words
    assert "times: started 2026-01-01T01:00:00Z, took 192 s" in words


def test_what_is_missing_or_stale_is_named_with_what_to_type(study, root):
    edit(
        root,
        folders.job_folder(study, "pretrain", RUNS[1]),
        lambda record: record["spec"]["run"].update(epochs=9),
    )
    (root / folders.job_folder(study, "probe", f"{RUNS[0]}/rle") / "record.json").unlink()
    words = plain(explain(study, CELL, root=root))
    assert "stale: run.epochs was 9, the study now says 3; run it again: snakemake " in words
    assert "record: missing, though outputs exist" in words


def test_a_cell_that_was_never_run_is_explained_all_the_same(study, tmp_path):
    text = explain(study, CELL, root=tmp_path)
    assert "cannot be computed" in text
    assert text.count("not run yet") == 1 + 3 * 5
    assert "regime: " in text
    by_snakemake, by_hand = commands(text)
    flags = [f"results/tiny/attack/{run}/rle/pgd20/flags.safetensors" for run in RUNS]
    checks = [f"results/tiny/sanity/{run}/flags.safetensors" for run in RUNS]
    assert by_snakemake == [
        f"snakemake --forceall {' '.join((*flags, *checks))}",
        "snakemake results/tiny/tables/table1.md",
    ]
    assert len(by_hand) == 1 + 3 * 5 + 1


def test_commands_by_hand_are_whole_in_order_and_understood(text):
    by_snakemake, by_hand = commands(text)
    words = [shlex.split(line) for line in by_hand]
    verbs = ["data", *["pretrain"] * 3, *["probe"] * 6, *["attack"] * 3, *["sanity"] * 3, "table"]
    assert [_parser().parse_args(line[1:]).name for line in words] == verbs
    heads = [line for line in by_hand if " probe " in line]
    for run in RUNS:  # the robust head starts from the central one
        of_run = [line.split("--probe ")[1].split()[0] for line in heads if f" {run} " in line]
        assert of_run == ["central", "rle"]
    assert by_hand[0].startswith("robustviews data --dataset digits")
    assert by_hand[-1] == "robustviews table --table table1 --partial"
    assert all(line.endswith("--device cpu --threads 1") for line in by_hand if " --run " in line)
    assert all(line.endswith("--config device=cpu") for line in by_snakemake)


def test_commands_name_the_study_and_the_device_and_threads_of_each_job(study, root):
    for run in RUNS:
        edit(
            root,
            folders.job_folder(study, "pretrain", run),
            lambda record: record["environment"].update(device="cuda: Loom", threads=8),
        )
    text = explain(dataclasses.replace(study, file="my studies/a.yaml"), CELL, root=root)
    by_snakemake, by_hand = commands(text)
    for line in by_snakemake:  # what follows --config is settings alone
        assert shlex.split(line)[-2:] == ["--config", "study=my studies/a.yaml"]
    training = next(line for line in by_hand if " pretrain " in line)
    assert training.endswith("--device cuda --threads 8 --study 'my studies/a.yaml'")
    assert text.endswith(f"audit --cell {CELL} --study 'my studies/a.yaml'\n")


def test_each_job_has_the_commit_that_it_ran_from_where_git_is_in_use(study, root, monkeypatch):
    for path in root.rglob("record.json"):
        edit(root, path.parent, lambda record: record["code"].update(commit=COMMIT))
    for run in RUNS:
        attacked = folders.job_folder(study, "attack", f"{run}/rle/pgd20")
        for folder in (attacked, folders.job_folder(study, "sanity", run)):
            edit(root, folder, lambda record: record["code"].update(commit=LATER))
    assert "git checkout" not in explain(study, CELL, root=root)
    monkeypatch.setattr("robustviews.provenance.history.History.head", COMMIT)
    by_snakemake, by_hand = commands(explain(study, CELL, root=root))
    assert by_snakemake[0] == f"git checkout {LATER}"
    assert [line for line in by_hand if line.startswith("git ")] == [f"git checkout {LATER}"]
    assert by_hand.index(f"git checkout {LATER}") == len(by_hand) - 8


def test_a_cell_that_is_not_there_is_refused_with_what_is(study, tree):
    with pytest.raises(CellError, match=r"expected TABLE:ROW:COLUMN, such as table1:"):
        explain(study, "table1", root=tree)


def test_every_cell_can_be_explained(study, tree):
    for address, _ in cells.every(study):
        assert explain(study, str(address), root=tree).startswith(str(address))


def test_the_jobs_of_a_study_are_worked_out_once_however_many_cells_it_has(study):
    assert jobs.jobs(study) is jobs.jobs(study)


def test_explaining_comparing_and_pruning_need_no_torch(tmp_path):
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from robustviews.cli import provenance\n"
        "from robustviews.pages import audit\n"
        "from robustviews.provenance import difference, explain, orphans\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
