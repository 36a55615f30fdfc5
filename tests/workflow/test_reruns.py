"""What runs again after an edit: the jobs whose numbers it may change, and no others.

Every case edits its own copy of the finished tiny study, then asks Snakemake what it would run.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import NamedTuple

import pytest

PACKAGE = "src/robustviews"
EMP, SIMCLR, SUPERVISED = "emp-free-digits-s0", "simclr-std-digits-s0", "supervised-std-digits-s0"

TABLE, STRONG, TRADEOFF, COST = (
    "table accuracies",
    "figure strong",
    "figure tradeoff",
    "figure cost",
)
REPORTING = {
    TABLE,
    STRONG,
    TRADEOFF,
    COST,
    "curves",
    "examples",
    "frame",
    "metrics",
    "report",
}
# What shows the rows of SimCLR: all but one figure.
SHOWS_SIMCLR = REPORTING - {STRONG}
SIMCLR_CHAIN = {
    f"pretrain {SIMCLR}",
    f"probe {SIMCLR}/crops2",
    f"attack {SIMCLR}/crops2/pgd2",
    f"sanity {SIMCLR}",
    *SHOWS_SIMCLR,
}
AUTOATTACK = f"attack {EMP}/rle/autoattack"
CHECKS = {f"sanity {run}" for run in (EMP, SIMCLR, SUPERVISED)}
PGD = {f"attack {EMP}/rle/pgd2", f"attack {SIMCLR}/crops2/pgd2", f"attack {SUPERVISED}/own/pgd2"}


class Case(NamedTuple):
    edits: list[tuple[str, str, str]]  # file, what stands there, what shall
    jobs: set[str]
    config: dict[str, str] = {}  # noqa: RUF012  # never changed


CASES = {
    "another length of one run": Case(
        [("params.yaml", "method: simclr,", "method: simclr, epochs: 2,")], SIMCLR_CHAIN
    ),
    "an option of a probe": Case(
        [("params.yaml", "ncrop, n: 2, epochs: 2", "ncrop, n: 2, epochs: 3")],
        SIMCLR_CHAIN - {f"pretrain {SIMCLR}", "curves"},
    ),
    "an option of a probe that another starts from": Case(
        [("params.yaml", "linear, epochs: 2", "linear, epochs: 3")],
        {
            f"probe {EMP}/central",
            f"probe {EMP}/rle",
            f"attack {EMP}/rle/pgd2",
            AUTOATTACK,
            f"sanity {EMP}",
            *REPORTING,
        }
        - {"curves"},
    ),
    "an option of an attack": Case(
        [("params.yaml", "steps: 2, step_size: 16", "steps: 3, step_size: 16")],
        {*PGD, TABLE, STRONG, TRADEOFF, COST, "examples", "frame", "metrics", "report"},
    ),
    "an option of the checks": Case(
        [("params.yaml", "queries: 10", "queries: 11")],
        {*CHECKS, *REPORTING} - {"curves", "examples"},
    ),
    "why an attack is weak": Case(
        [("params.yaml", "steps: 2, step_size: 16", "steps: 2, step_size: 16, weak: a test")],
        {TABLE, TRADEOFF, COST, "examples", "report"},
    ),
    "the title of a table": Case(
        [("params.yaml", "Clean and robust accuracy", "Accuracy")], {TABLE, "report"}
    ),
    "the label of a run": Case([("params.yaml", "SimCLR, standard", "Contrastive")], REPORTING),
    "one more seed of one run": Case(
        [("params.yaml", "method: simclr,", "method: simclr, seeds: [0, 1],")],
        {name.replace("-s0", "-s1") for name in SIMCLR_CHAIN - {"examples"}},
    ),
    "how jobs run, and a comment": Case(
        [
            ("params.yaml", "threads: 1", "threads: 2  # of four cores\n  deterministic: false"),
            ("params.yaml", "deterministic: false", "deterministic: false\n  ranks: 2"),
            ("params.yaml", "checkpoint_minutes: 1", "checkpoint_minutes: 5"),
        ],
        set(),
        {"device": "cuda"},
    ),
    "how many views are attacked together": Case(  # which decides their random draws
        [("params.yaml", "threads: 1", "threads: 1\n  evaluation_batch: 100")],
        {*PGD, *CHECKS, AUTOATTACK, *REPORTING} - {"curves"},
    ),
    "the code of a loss": Case(
        [
            (
                f"{PACKAGE}/losses.py",
                "logits = anchors @ others.T",
                "logits = 2 * anchors @ others.T",
            )
        ],
        SIMCLR_CHAIN,
    ),
    "the code of an attack": Case(
        [
            (
                f"{PACKAGE}/attacks/autoattack.py",
                "attack.verbose = False",
                "attack.verbose = bool(0)",
            )
        ],
        {AUTOATTACK, STRONG, "frame", "report"},
    ),
    "the code of a figure": Case(
        [(f"{PACKAGE}/reporting/figures/style.py", 'GREY = "', 'GREY = "" + "')], REPORTING
    ),
    "comments, docstrings and messages": Case(
        [
            (f"{PACKAGE}/losses.py", "nt_xent takes z of shape", "nt_xent wants z of shape"),
            (f"{PACKAGE}/losses.py", '"""Contrast the', '"""Another contrast the'),
            (
                f"{PACKAGE}/attacks/autoattack.py",
                "class AutoAttack(Bounded):",
                "class AutoAttack(Bounded):  # the official one",
            ),
            (f"{PACKAGE}/encoder.py", "def build_encoder(", "# Deep.\ndef build_encoder("),
            ("workflow/rules/pretrain.smk", "rule pretrain:", "# Long.\nrule pretrain:"),
        ],
        set(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_edit_reruns_the_jobs_whose_numbers_it_may_change(name, finished, tmp_path):
    case, project = CASES[name], finished.copy(tmp_path / "project")
    for edit in case.edits:
        project.edit(*edit)
    assert project.dry_run(**case.config) == case.jobs


def test_a_moved_project_with_all_files_new_has_nothing_to_do(finished, tmp_path):
    elsewhere = finished.copy(tmp_path / "another place" / "name", copy=shutil.copy)
    notes = [path for path in elsewhere.folder.glob(".snakemake/metadata/**/*") if path.is_file()]
    assert notes
    assert [path for path in notes if str(finished.folder) in path.read_text()] == []
    assert elsewhere.dry_run() == set()


@pytest.mark.parametrize(("part", "hours"), [("results/tiny/attack", -2), ("data", 1)])
def test_files_of_another_clock_are_no_reason_to_run(part, hours, finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    moment = time.time() + 3600 * hours
    for path in (project.folder / part, *(project.folder / part).rglob("*")):
        os.utime(path, (moment, moment))
    assert project.dry_run() == set()
    project.edit(*CASES["an option of an attack"].edits[0])
    assert project.dry_run() == CASES["an option of an attack"].jobs


def test_an_edit_in_a_fresh_clone_reruns_no_more(finished, tmp_path):
    clone = finished.copy(tmp_path / "clone", copy=shutil.copy)
    clone.edit(*CASES["another length of one run"].edits[0])
    assert clone.dry_run() == SIMCLR_CHAIN


def test_any_missing_artifact_is_noticed(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    for path in (
        f"pretrain/{SIMCLR}/encoder.safetensors",
        f"probe/{EMP}/central/head.safetensors",
        f"attack/{SUPERVISED}/own/pgd2/flags.safetensors",
    ):
        (project.folder / "results" / "tiny" / path).unlink()
    made = {f"pretrain {SIMCLR}", f"probe {EMP}/central", f"attack {SUPERVISED}/own/pgd2"}
    assert made <= project.dry_run()


def test_a_deleted_checkpoint_is_made_again_byte_for_byte(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    path = f"results/tiny/pretrain/{EMP}/encoder.safetensors"
    before = (project.folder / path).read_bytes()
    (project.folder / path).unlink()
    assert project.snakemake(path).jobs() == {f"pretrain {EMP}"}
    assert (project.folder / path).read_bytes() == before
    # Its times are others, and are told; its bytes are the same, and nothing was made from others.
    assert project.dry_run() == REPORTING - {"examples"}
