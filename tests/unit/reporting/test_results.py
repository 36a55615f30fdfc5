"""The frame reads its numbers from flags and refuses every record of another study."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from robustviews import artifacts
from robustviews.datasets import Digits
from robustviews.provenance import values
from robustviews.provenance.disk import Disk
from robustviews.reporting import results
from robustviews.reporting.results import ResultsError, frame
from robustviews.reporting.statistics import wilson
from robustviews.reporting.tables.values import row_values
from robustviews.study import cells, plan, specs
from robustviews.study.schema import Row, Table
from tests.unit.results_tree import (
    DEVICE,
    IMAGES,
    small_study,
    write_evaluation,
    write_pretraining,
    write_sanity,
    write_tree,
)

RUN = "emp-free3-digits-s0"
FLAGS = f"results/tiny/attack/{RUN}/rle/pgd20/flags.safetensors"
RECORD = FLAGS.replace("flags.safetensors", "record.json")


def row_of(rows, **values):
    (row,) = [row for row in rows if all(row[key] == value for key, value in values.items())]
    return row


def edit_record(root, path, **changes):
    record = artifacts.read_json(root / path)
    artifacts.write_json(root / path, record | changes)


def test_every_evaluation_has_a_row_for_clean_images_and_one_per_radius(study, root):
    rows = frame(study, root)
    keys = {(row["run"], row["attack"], row["eps"]) for row in rows}
    seeds = [f"emp-free3-digits-s{seed}" for seed in (0, 1, 2)]
    runs = [*seeds, "simclr-pgd5-digits-s0", "supervised-free3-digits-s0"]
    expected = {(run, "pgd20", eps) for run in runs for eps in (0, 4, 8)}
    expected |= {(run, "autoattack", eps) for run in seeds for eps in (0, 8)}
    assert keys == expected
    assert len(rows) == len(expected)


def test_numbers_come_from_flags_whatever_the_record_claims(study, root):
    edit_record(root, RECORD, result={"n": 1, "clean": 0.123, "eps": {"4": 0.123}})
    flags = load_file(root / FLAGS)
    row = row_of(frame(study, root), run=RUN, attack="pgd20", eps=4)
    assert (row["correct"], row["n"]) == (flags["eps_4"].sum(), IMAGES)
    assert row["accuracy"] == flags["eps_4"].mean()
    assert (row["low"], row["high"]) == wilson(row["correct"], IMAGES)
    clean = row_of(frame(study, root), run=RUN, attack="pgd20", eps=0)
    assert clean["correct"] == flags["clean"].sum()


def test_a_data_set_decides_how_its_accuracy_is_counted(study, root):
    """Frame, table and audit each compute the mean over classes from flags and labels."""
    flags = load_file(root / FLAGS)
    flags["labels"] = np.where(flags["eps_8"] == 1, 0, np.arange(IMAGES) % 7)  # unequal classes
    save_file(flags, root / FLAGS)
    outputs = artifacts.read_json(root / RECORD)["outputs"]
    outputs["flags.safetensors"] = artifacts.sha256(root / FLAGS)
    edit_record(root, RECORD, outputs=outputs)
    columns = ("digits/clean", "digits/pgd20/8", "digits/pgd20/retained", "digits/pgd20/e50")
    by_class = small_study(
        datasets={"digits": Digits(test=IMAGES, accuracy="mean_per_class")},
        tables={"table1": Table("By class", columns, {"free": Row("emp-free3", "rle")})},
        claims={},
    )
    assert specs.data_spec(by_class, "digits") == specs.data_spec(study, "digits")
    shares = [flags["eps_8"][flags["labels"] == one].mean() for one in range(7)]
    rows = frame(by_class, root)
    row = row_of(rows, run=RUN, attack="pgd20", eps=8)
    assert row["accuracy"] == pytest.approx(np.mean(shares))
    assert row["low"] < row["accuracy"] < row["high"]
    assert row["correct"] == flags["eps_8"].sum()
    plain = row_of(frame(study, root), run=RUN, attack="pgd20", eps=8)
    assert plain["accuracy"] == flags["eps_8"].mean() != row["accuracy"]
    (shown,) = row_values(by_class, by_class.tables["table1"], rows)
    ours = {cell.column.label: cell.ours for cell in shown.cells}
    audited = [
        values.value(Disk(by_class, root), cell)
        for address, cell in cells.every(by_class)
        if address.table == "table1"
    ]
    assert list(ours.values()) == pytest.approx(audited)
    top1 = dataclasses.replace(by_class, datasets=study.datasets)
    (plain,) = row_values(top1, top1.tables["table1"], frame(top1, root))
    assert all(cell.ours != ours[cell.column.label] for cell in plain.cells[1:])


def test_a_row_describes_how_its_number_was_computed(study, root):
    row = row_of(frame(study, root), run="emp-free3-digits-s2", attack="pgd20", eps=8)
    expected = {
        "study": "tiny",
        "entry": "emp-free3",
        "method": "emp_ssl",
        "regime": "free",
        "dataset": "digits",
        "seed": 2,
        "probe": "rle",
        "pretrain_minutes": (3 * 60 + 12) / 60,
        "device": DEVICE,
        "probe_epochs": 3,
        "attack_steps": 20,
        "record": RECORD.replace("-s0", "-s2"),
    }
    assert {key: row[key] for key in expected} == expected
    own = row_of(frame(study, root), entry="supervised-free3", eps=0)
    assert own["probe_epochs"] is None
    assert row_of(frame(study, root), run=RUN, attack="autoattack", eps=8)["attack_steps"] == 100


def test_a_pretraining_without_evaluation_has_a_row_with_its_minutes(tmp_path):
    table = Table("Cost", ("digits/minutes",), {"pgd": Row("simclr-pgd5", "rle")})
    study = small_study(tables={"cost": table}, figures={}, claims={})
    write_tree(tmp_path, study)
    (row,) = frame(study, tmp_path)
    assert (row["attack"], row["n"], row["accuracy"]) == ("", 0, None)
    assert row["pretrain_minutes"] == 6
    assert row["record"] == "results/tiny/pretrain/simclr-pgd5-digits-s0/record.json"


def test_a_block_needs_the_results_of_its_own_cells_only(study, root):
    shutil.rmtree(root / "results/tiny/attack/simclr-pgd5-digits-s0")
    shutil.rmtree(root / "results/tiny/pretrain/supervised-free3-digits-s0")
    rows = frame(study, root, blocks=[study.tables["aa"]])
    assert {row["attack"] for row in rows} == {"autoattack"}
    with pytest.raises(ResultsError):
        frame(study, root, blocks=[study.tables["aa"], study.figures["bars"]])


def test_csv_holds_each_value_with_all_its_digits(tmp_path):
    table = Table("Cost", ("digits/minutes",), {"pgd": Row("simclr-pgd5", "rle")})
    study = small_study(tables=small_study().tables | {"cost": table}, figures={})
    write_tree(tmp_path, study)
    rows = frame(study, tmp_path)
    read = list(csv.DictReader(io.StringIO(results.to_csv(rows))))
    texts = [{name: "" if one is None else str(one) for name, one in row.items()} for row in rows]
    assert read == texts


def test_a_missing_record_is_named_with_the_command_to_run(study, root):
    (root / RECORD).unlink()
    with pytest.raises(ResultsError) as error:
        frame(study, root)
    (problem,) = error.value.problems
    assert str(problem) == f"{RECORD}: missing; run it with: snakemake {FLAGS}"


def test_missing_flags_are_named_with_the_command_to_run(study, root):
    (root / FLAGS).unlink()
    with pytest.raises(ResultsError, match=f"{FLAGS}: missing; run it with: snakemake {FLAGS}"):
        frame(study, root)


def test_all_problems_are_reported_at_once_up_to_a_limit(study, root):
    shutil.rmtree(root / "results/tiny/attack")
    with pytest.raises(ResultsError) as error:
        frame(study, root)
    assert len(error.value.problems) == len(plan.evaluations(study)) == 8
    many = results.ResultsError([artifacts.ArtifactError("problem")] * 40)
    assert len(str(many).splitlines()) == 13


def test_a_record_of_another_spec_is_stale_and_the_message_names_the_difference(root):
    attacks = small_study().attacks
    attacks["pgd20"] = dataclasses.replace(attacks["pgd20"], steps=50)
    with pytest.raises(ResultsError, match=r"stale: attack\.steps was 20, the study now says 50"):
        frame(small_study(attacks=attacks), root)


def test_a_changed_pretraining_makes_the_evaluations_of_its_run_stale_and_no_others(root):
    runs = small_study().runs
    runs["simclr-pgd5"] = dataclasses.replace(runs["simclr-pgd5"], epochs=7)
    with pytest.raises(ResultsError) as error:
        frame(small_study(runs=runs), root)
    (problem,) = error.value.problems
    assert "pretrain/simclr-pgd5-digits-s0/record.json: stale: run.epochs was 6" in str(problem)


def test_a_changed_head_that_another_starts_from_makes_its_evaluations_stale(root):
    probes = small_study().probes
    probes["central"] = dataclasses.replace(probes["central"], epochs=9)
    with pytest.raises(ResultsError, match=r"central/record\.json: stale: probe\.epochs was 2"):
        frame(small_study(probes=probes), root)


def test_an_evaluation_of_an_encoder_that_was_retrained_since_is_stale(study, root):
    encoder = root / f"results/tiny/pretrain/{RUN}/encoder.safetensors"
    write_pretraining(root, study, RUN)
    assert frame(study, root)
    encoder.write_bytes(b"another")
    outputs = {"encoder.safetensors": artifacts.sha256(encoder)}
    edit_record(root, f"results/tiny/pretrain/{RUN}/record.json", outputs=outputs)
    with pytest.raises(
        ResultsError, match="stale: not made from the present results/tiny/pretrain"
    ):
        frame(study, root)


def test_a_record_copied_from_another_run_is_refused(study, root):
    source = root / RECORD.replace("emp-free3", "simclr-pgd5")
    for name in ("record.json", "flags.safetensors"):
        shutil.copy(source.with_name(name), (root / RECORD).with_name(name))
    with pytest.raises(ResultsError, match="foreign record: name is"):
        frame(study, root)


def test_a_record_of_another_study_is_foreign(study, root):
    edit_record(root, RECORD, study="other")
    with pytest.raises(ResultsError, match="foreign record: study is 'other', expected 'tiny'"):
        frame(study, root)


def test_flags_that_differ_from_the_record_are_refused(study, root):
    flags = load_file(root / FLAGS)
    save_file(flags | {"eps_8": np.ones_like(flags["eps_8"])}, root / FLAGS)
    with pytest.raises(ResultsError, match="differs from its record"):
        frame(study, root)


def test_an_invalid_record_is_refused(study, root):
    artifacts.write_json(root / RECORD, {"study": "tiny"})
    with pytest.raises(ResultsError, match=r"not a job record: it lacks .*inputs"):
        frame(study, root)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seconds", None, "not a job record: expected a number as seconds"),
        ("environment", None, "not a job record: expected a mapping as environment"),
    ],
)
def test_a_record_without_what_a_cell_needs_is_refused(study, root, key, value, message):
    path = root / RECORD
    artifacts.write_json(path, artifacts.read_json(path) | {key: value})
    with pytest.raises(ResultsError, match=message):
        frame(study, root)


def test_a_partial_frame_leaves_out_what_is_missing_or_stale(study, root):
    (root / RECORD).unlink()
    edit_record(root, RECORD.replace("-s0", "-s1"), spec={})
    rows = [row for row in frame(study, root, partial=True) if row["attack"] == "pgd20"]
    assert {row["run"] for row in rows if row["entry"] == "emp-free3"} == {"emp-free3-digits-s2"}
    assert {row["entry"] for row in rows} == set(study.runs)


def test_a_partial_frame_has_the_minutes_of_a_run_without_its_attack(study, root):
    shutil.rmtree(root / "results/tiny/attack/simclr-pgd5-digits-s0")
    rows = [row for row in frame(study, root, partial=True) if row["entry"] == "simclr-pgd5"]
    assert [(row["attack"], row["pretrain_minutes"]) for row in rows] == [("", 6)]


def sanities(rows, **of):
    chosen = [row for row in rows if all(row[key] == value for key, value in of.items())]
    return {row["sanity"] for row in chosen}


def test_attacked_rows_name_the_failed_checks_of_their_head_and_clean_rows_none(study, root):
    assert sanities(frame(study, root)) == {""}
    write_sanity(root, study, RUN, zero_gradients=3, repeat_difference=1.0)
    rows = frame(study, root)
    attacked = {row["eps"] for row in rows} - {0.0}
    assert {sanity for eps in attacked for sanity in sanities(rows, run=RUN, eps=eps)} == {
        "AS9 AS10"
    }
    assert sanities(rows, run=RUN, eps=0) == {""}
    assert sanities(rows, run=RUN.replace("s0", "s1")) == {""}


def test_verdicts_follow_from_flags_whatever_the_record_of_the_checks_claims(study, root):
    write_sanity(root, study, RUN)
    flags = root / f"results/tiny/sanity/{RUN}/flags.safetensors"
    worse = load_file(flags)
    worse["rle/pgd_64"][:] = 1
    save_file(worse, flags)
    edit_record(
        root,
        f"results/tiny/sanity/{RUN}/record.json",
        outputs={"flags.safetensors": artifacts.sha256(flags)},
    )
    assert sanities(frame(study, root), run=RUN, eps=4) == {"AS3"}


def test_a_head_without_checks_is_missing_or_in_a_partial_frame_not_checked(study, root):
    record = f"results/tiny/sanity/{RUN}/record.json"
    (root / record).unlink()
    with pytest.raises(ResultsError, match=f"{record}: missing; run it with: snakemake"):
        frame(study, root)
    rows = frame(study, root, partial=True)
    assert sanities(rows, run=RUN, eps=8) == {"not checked"}
    assert sanities(rows, run=RUN, eps=0) == {""}


def test_autoattack_that_leaves_images_right_which_pgd_fools_is_not_established(study, root):
    folder = root / f"results/tiny/attack/{RUN}/rle/autoattack"
    flags = load_file(folder / "flags.safetensors")
    flags["eps_8"][:] = 1
    save_file(flags, folder / "flags.safetensors")
    outputs = {"flags.safetensors": artifacts.sha256(folder / "flags.safetensors")}
    edit_record(root, (folder / "record.json").relative_to(root), outputs=outputs)
    rows = frame(study, root)
    assert sanities(rows, run=RUN, attack="autoattack", eps=8) == {"AS12"}
    assert sanities(rows, run=RUN, attack="pgd20") == {""}
    (alone,) = sanities(frame(study, root, blocks=[study.tables["aa"]]), run=RUN, eps=8)
    assert alone == "AS12"


def test_a_partial_frame_still_refuses_changed_flags(study, root):
    (root / FLAGS).write_bytes(b"changed")
    with pytest.raises(ResultsError, match="differs from its record"):
        frame(study, root, partial=True)


def test_records_and_histories_are_those_of_the_jobs_that_ran(study, root):
    assert set(results.histories(study, root)) == set(plan.pretrainings(study))
    records = results.records(study, root)
    jobs = len(plan.pretrainings(study)) + len(plan.heads(study)) + len(plan.evaluations(study))
    assert len(records) == jobs + len(plan.attacked(study))
    assert records[RECORD].seed == 0
    (root / RECORD).unlink()
    assert RECORD not in results.records(study, root)


def test_rewriting_the_same_evaluation_gives_the_same_frame(study, root):
    before = frame(study, root)
    shutil.rmtree((root / FLAGS).parent)
    write_evaluation(root, study, RUN, "rle", "pgd20")
    assert frame(study, root) == before
