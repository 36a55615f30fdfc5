"""How a cell was made, in words, and the commands that make it again."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys

import pytest

from robustviews import artifacts
from robustviews.cli import _parser
from robustviews.provenance.explain import explain
from robustviews.reporting import results
from robustviews.reporting.statistics import over_seeds
from robustviews.study import cells, folders, jobs
from robustviews.study.cells import CellError
from tests.unit.results_tree import DEVICE, IMAGES, small_study, write_tree

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
    return root


@pytest.fixture
def root(tree, tmp_path):
    return shutil.copytree(tree, tmp_path / "project")


@pytest.fixture(scope="module")
def told(study, tree):
    return explain(study, CELL, file="params.yaml", root=tree)


def edit(root, folder, change):
    path = root / folder / "record.json"
    record = artifacts.read_json(path)
    change(record)
    artifacts.write_json(path, record)


def commit_all(root, study, commit):
    for path in results.records(study, root):
        edit(root, path.removesuffix("/record.json"), lambda each: each["code"].update(commit))
    data = folders.data_folder(study, "digits")
    edit(root, data, lambda each: each["code"].update(commit))


def plain(text):
    return " ".join(text.split())


def commands(text):
    """Return the commands of a text: with Snakemake, and by hand."""
    blocks = text.split("\n\n")
    found = []
    for title in ("To make it again with Snakemake:\n", "Or by hand, in this order"):
        (block,) = [block for block in blocks if block.startswith(title)]
        found.append([line.strip() for line in block.splitlines()[1:]])
    return found


def test_the_value_is_told_with_its_interval_and_how_it_comes_of_images_and_seeds(
    told, study, tree
):
    frame = [row for row in results.frame(study, tree) if row["run"] in RUNS and row["eps"] == 4]
    value = over_seeds([(row["correct"], row["n"]) for row in frame])
    low, high = (f"{100 * end:.1f}" for end in (value.low, value.high))
    text = plain(told)
    assert f"Value: {100 * value.mean:.1f} %, 95 % interval {low} to {high} %" in text
    assert "CF-AMC-SSL: accuracy, attack pgd20 at 4/255, on digits, seeds 0, 1, 2" in text
    assert f"share of ones among `eps_4` in flags.safetensors of pgd20, {IMAGES} test" in text
    assert "mean over 3 of 3 runs; interval: Student's t over seeds" in text
    assert "Published: 55.97" in text


def test_minutes_and_a_single_seed_are_told_as_what_they_are(study, tree):
    text = plain(explain(study, "table1:pgd:digits/minutes", file="params.yaml", root=tree))
    assert "minutes of pretraining, on digits, seed 0 Value: 6.0 minutes" in text
    assert "`seconds` in the record of the pretraining / 60; one run" in text
    assert "is attacked" not in text
    text = plain(explain(study, "table1:pgd:digits/clean", file="params.yaml", root=tree))
    assert "share of ones among `clean` in flags.safetensors of pgd20" in text
    assert "one run; interval: Wilson's over test images" in text


def test_each_step_says_its_options_once_and_each_job_its_own_facts(told):
    titles = [line for line in told.splitlines() if line[:1].isdigit()]
    assert titles == [
        "1. The data set is prepared",
        "2. The encoder is pretrained",
        "3. A head is trained on the frozen encoder",
        "4. A head is trained on the frozen encoder",
        "5. The classifier is attacked",
    ]
    text = plain(told)
    assert text.count("regime free (") == 1
    for option in ("replays 3", "tcr_eps 0.2", "count 4", "epochs 3", "rle_start central"):
        assert option in text
    for seed, run in enumerate(RUNS):
        assert f"{run}: seed {seed}, started 2026-01-01T" in text
        assert f"record results/tiny/attack/{run}/rle/pgd20/record.json" in text
    assert f"on {DEVICE}, torch 2.11.0+cpu, python 3.11.7, threads 1, deterministic true" in text
    assert "commit abc1234 (sources as in it)" in text


def test_what_no_record_says_is_unknown(study, root):
    def forget(record):
        record["environment"] = {}
        record["code"] = {"digest": None}
        record["seconds"] = record["resumed"] = record["started"] = record["seed"] = None

    edit(root, folders.pretrain_folder(study, "supervised-free3-digits-s0"), forget)
    text = explain(study, "table1:supervised:digits/clean", file="params.yaml", root=root)
    line, on, by, *_ = text.partition("   supervised-free3-digits-s0: ")[2].splitlines()[0:3]
    assert line == "seed unknown, started unknown, took unknown, resumed unknown times"
    parts = ("torch", "python", "threads", "deterministic", "image", "lock")
    assert on.strip() == "on unknown, " + ", ".join(f"{part} unknown" for part in parts)
    assert by.strip() == "by code of digest unknown, commit unknown"
    assert "Value: unknown" in text  # a record without times is none
    assert "The commit of some jobs is unknown" in text


def test_a_cell_that_was_never_run_is_explained_all_the_same(study, tmp_path):
    text = explain(study, CELL, file="params.yaml", root=tmp_path)
    assert "Value: unknown: not run yet" in text
    assert text.count(": unknown: not run yet (") == 1 + 3 * 4
    assert "regime       free (" in text
    by_snakemake, by_hand = commands(text)
    assert by_snakemake[0] == " ".join(
        [
            "snakemake --forceall",
            *(f"results/tiny/attack/{run}/rle/pgd20/flags.safetensors" for run in RUNS),
        ]
    )
    assert len(by_hand) == 1 + 3 * 4 + 1


def test_a_stale_record_says_where_it_parts_from_the_study(study, root):
    def change(record):
        record["spec"]["run"]["epochs"] = 9
        record["spec"]["code"] = "c0de"

    edit(root, folders.pretrain_folder(study, RUNS[1]), change)
    text = explain(study, CELL, file="params.yaml", root=root)
    assert "stale: run.epochs was 9, the study says 3" in text
    assert "stale: code was c0de, the code that is here is " in text
    assert "mean over 2 of 3 runs" in plain(text)


def test_interruptions_and_changed_sources_are_told(study, root):
    def change(record):
        record["resumed"] = 1
        record["code"]["dirty"] = True

    edit(root, folders.pretrain_folder(study, RUNS[0]), change)
    text = explain(study, CELL, file="params.yaml", root=root)
    assert ", resumed once\n" in text
    assert "(sources had changes that no commit holds)" in text
    assert "Some jobs ran on sources with changes that no commit holds" in text


def test_commands_by_hand_are_whole_in_order_and_understood(told):
    _, by_hand = commands(told)
    words = [shlex.split(line) for line in by_hand]
    verbs = [each[1] for each in words if each[0] == "robustviews"]
    assert verbs == ["data", *["pretrain"] * 3, *["probe"] * 6, *["attack"] * 3, "table"]
    for each in words:
        if each[0] == "robustviews":
            assert _parser().parse_args(each[1:]).name == each[1]
    heads = [line for line in by_hand if " probe " in line]
    for run in RUNS:  # the robust head starts from the central one
        of_run = [line.split("--probe ")[1].split()[0] for line in heads if f" {run} " in line]
        assert of_run == ["central", "rle"]
    assert by_hand[-1] == "robustviews table --table table1 --partial"
    assert all(line.endswith("--device cpu") for line in by_hand if " --run " in line)


def test_commands_take_the_study_the_device_and_the_threads_of_then(study, root):
    for run in RUNS:
        edit(
            root,
            folders.pretrain_folder(study, run),
            lambda record: record["environment"].update(device="cuda: Loom", threads=8),
        )
    text = explain(study, CELL, file="my studies/a.yaml", root=root)
    by_snakemake, by_hand = commands(text)
    for line in by_snakemake:  # what follows --config is settings alone
        assert shlex.split(line)[-2:] == ["--config", "study=my studies/a.yaml"]
    training = next(line for line in by_hand if " pretrain " in line)
    assert training.endswith("--study 'my studies/a.yaml' --device cuda --threads 8")
    assert "The jobs ran on different devices" in text
    assert text.endswith(f"audit --cell {CELL} --study 'my studies/a.yaml'\n")


def test_snakemake_is_told_a_device_that_all_jobs_ran_on(told):
    assert all(line.endswith("--config device=cpu") for line in commands(told)[0])


def test_the_commit_of_then_is_checked_out_where_it_is_another(study, root, monkeypatch):
    monkeypatch.setattr("robustviews.provenance.history.History.head", COMMIT)
    commit_all(root, study, {"commit": COMMIT})
    text = explain(study, CELL, file="params.yaml", root=root)
    assert "git checkout" not in text
    commit_all(root, study, {"commit": LATER})
    text = explain(study, CELL, file="params.yaml", root=root)
    by_snakemake, by_hand = commands(text)
    assert (by_snakemake[0], by_hand[0]) == (f"git checkout {LATER}",) * 2
    assert text.count("git checkout") == 2
    monkeypatch.setattr("robustviews.provenance.history.History.head", None)
    text = explain(study, CELL, file="params.yaml", root=root)
    assert "git checkout" not in text
    assert f"No git repository is here to check {LATER} out from." in text


def test_code_that_did_not_change_since_needs_no_checkout(study, root, monkeypatch):
    monkeypatch.setattr("robustviews.provenance.history.History.head", COMMIT)
    commit_all(root, study, {"commit": LATER})
    text = explain(study, CELL, file="params.yaml", root=root)
    assert "The code that is here has the same digests: without the checkout it is as" in text
    edit(
        root, folders.pretrain_folder(study, RUNS[0]), lambda each: each["spec"].update(code="c0de")
    )
    assert "same digests" not in explain(study, CELL, file="params.yaml", root=root)


def test_of_several_commits_each_job_by_hand_has_its_own(study, root, monkeypatch):
    monkeypatch.setattr("robustviews.provenance.history.History.head", COMMIT)
    commit_all(root, study, {"commit": COMMIT})
    for run in RUNS:
        edit(
            root,
            folders.attack_folder(study, run, "rle", "pgd20"),
            lambda record: record["code"].update(commit=LATER),
        )
    text = explain(study, CELL, file="params.yaml", root=root)
    by_snakemake, by_hand = commands(text)
    assert by_snakemake[0] == f"git checkout {LATER}"
    assert by_hand.index(f"git checkout {LATER}") == len(by_hand) - 5
    assert "Several commits made it" in text


def test_a_cell_that_is_not_there_is_refused_with_what_is(study, tree):
    with pytest.raises(CellError, match=r"expected TABLE:ROW:COLUMN, such as table1:"):
        explain(study, "table1", file="params.yaml", root=tree)


def test_every_cell_can_be_explained(study, tree):
    for address, _ in cells.every(study):
        assert explain(study, str(address), file="params.yaml", root=tree).startswith(str(address))


def test_the_jobs_of_a_study_are_worked_out_once_however_many_cells_it_has(study):
    assert jobs.jobs(study) is jobs.jobs(study)


def test_explaining_comparing_and_pruning_need_no_torch(tmp_path):
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from robustviews.cli import explaining\n"
        "from robustviews.pages import audit\n"
        "from robustviews.provenance import difference, explain, orphans\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
