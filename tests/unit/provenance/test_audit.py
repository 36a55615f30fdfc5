"""The audit on a results tree as jobs write it: states of findings, and of which cells."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from robustviews import artifacts, cli
from robustviews.attacks import PgdAttack
from robustviews.datasets import Digits
from robustviews.methods import SimClr
from robustviews.probe import LinearProbe
from robustviews.provenance import audit as audits
from robustviews.provenance import values
from robustviews.provenance.audit import audit, verified
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import State
from robustviews.regimes import Pgd
from robustviews.study import cells, folders
from robustviews.study import jobs as pending
from robustviews.study.schema import Run, Runtime
from tests.unit.results_tree import DEVICE, small_study, write_sanity, write_shown, write_tree

FREE, PGD = "emp-free3-digits-s1", "simclr-pgd5-digits-s0"


@pytest.fixture(scope="module")
def study():
    return small_study()


@pytest.fixture(scope="module")
def tree(study, tmp_path_factory):
    tree = tmp_path_factory.mktemp("tree")
    write_tree(tree, study)
    write_shown(tree, study)
    return tree


@pytest.fixture
def root(tree, tmp_path):
    shutil.copytree(tree, tmp_path, dirs_exist_ok=True)
    return tmp_path


def states(findings):
    """Return the checks that failed and those that remain unknown."""
    return tuple(
        {finding.check for finding in findings if finding.state is state}
        for state in (State.FAILED, State.UNKNOWN)
    )


def edit(root, folder, change):
    path = root / folder / "record.json"
    record = artifacts.read_json(path)
    change(record)
    artifacts.write_json(path, record)


def address(study, text):
    return cells.find(study, text)[0]


def test_what_no_tool_wrote_down_is_unknown_and_nothing_else_is(root, study):
    result = audit(study, root)
    assert states(result.all_findings()) == (set(), {"commit", "metadata"})
    assert result.state is State.UNKNOWN
    assert {result.state_of(address) for address in result.cells} == {State.UNKNOWN}


def test_every_cell_and_every_job_with_a_record_is_looked_at(root, study):
    result = audit(study, root)
    assert set(result.cells) == dict(cells.every(study)).keys()
    assert set(result.jobs) == {
        key for key, job in Disk(study, root).jobs.items() if job.folder is not None
    }


def test_values_are_means_over_seeds_of_flags_and_of_minutes(root, study):
    result = audit(study, root)
    runs = [f"emp-free3-digits-s{seed}" for seed in (0, 1, 2)]
    attacks = [root / folders.job_folder(study, "attack", f"{run}/rle/pgd20") for run in runs]
    right = [load_file(folder / "flags.safetensors")["eps_8"].mean() for folder in attacks]
    assert result.cells[address(study, "table1:free:digits/pgd20/8")].value == pytest.approx(
        np.mean(right)
    )
    # 3 epochs of a minute each, and 6 seconds more for each seed.
    assert result.cells[address(study, "table1:free:digits/minutes")].value == pytest.approx(3.1)


def test_a_failing_job_fails_the_cells_behind_which_it_stands_and_no_others(root, study):
    path = folders.job_folder(study, "pretrain", PGD) / "encoder.safetensors"
    (root / path).write_bytes(b"?")
    result = audit(study, root)
    failed = {cell for cell in result.cells if result.state_of(cell) is State.FAILED}
    assert failed == {cell for cell in result.cells if cell.row == "pgd"}
    assert result.jobs["pretrain", PGD].state is State.FAILED
    # Jobs that read the encoder fail too: they were made from other bytes.
    assert result.jobs["probe", f"{PGD}/rle"].state is State.FAILED


def test_one_seed_of_several_fails_a_cell(root, study):
    edit(root, folders.job_folder(study, "pretrain", FREE), lambda record: record.update(seed=5))
    assert audit(study, root).state_of(address(study, "table1:free:digits/clean")) is State.FAILED


def test_a_cell_alone_needs_its_own_chain_alone(root, study):
    requested = address(study, "table1:pgd:digits/minutes")
    result = audit(study, root, cells=[requested])
    assert list(result.cells) == [requested]
    assert {key[0] for key in result.jobs} == {"data", "pretrain"}


def test_a_study_that_was_never_run_is_unknown_and_its_values_too(study, tmp_path):
    result = audit(study, tmp_path)
    failed, _ = states(result.all_findings())
    assert not failed
    assert {cell.value for cell in result.cells.values()} == {None}


def test_records_of_before_what_is_installed_was_recorded_are_unknown_there(root, study):
    def forget(record):
        record["environment"] = {"python": "3.11.7", "device": DEVICE, "threads": 1}
        del record["resumed"]

    for folder in root.glob("results/tiny/*/**/record.json"):
        edit(root, folder.parent.relative_to(root), forget)
    failed, unknown = states(audit(study, root).all_findings())
    assert not failed
    assert unknown == {"commit", "metadata", "lock", "packages", "environment"}


def test_prepared_data_may_come_from_another_study(root, study):
    edit(root, folders.data_folder(study, "digits"), lambda record: record.update(study="other"))
    failed, _ = states(audit(study, root).all_findings())
    assert not failed


@pytest.mark.parametrize(
    "part", ["spec", "inputs", "outputs", "code", "environment", "seconds", "started"]
)
@pytest.mark.parametrize("value", [None, 3, "text", [], {}])
def test_a_record_of_any_shape_is_checked_and_never_raises(root, study, part, value):
    edit(
        root,
        folders.job_folder(study, "pretrain", PGD),
        lambda record: record.update({part: value}),
    )
    result = audit(study, root)
    assert result.jobs["pretrain", PGD].state is not State.VERIFIED
    verified(study, root, rules=("pretrain", "attack", "table", "frame"))


@pytest.mark.parametrize("damage", [b"", b"[1, 2]", b"\xff\xfe", b'{"study": '])
def test_a_damaged_record_is_named_with_the_fix(root, study, damage):
    folder = folders.job_folder(study, "pretrain", PGD)
    (root / folder / "record.json").write_bytes(damage)
    finding = audit(study, root).jobs["pretrain", PGD].findings[0]
    assert (finding.check, finding.state) == ("record", State.FAILED)
    assert finding.subject == f"{folder}/record.json"
    assert f"rm -r {folder} && snakemake {folder}/encoder.safetensors" in finding.text


def test_a_table_made_of_part_of_the_results_is_reported(root, study):
    path = root / "results/tiny/tables/table1.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("pgd")) + "\n", "utf-8")
    result = audit(study, root)
    assert result.state is State.FAILED
    finding = result.cells[address(study, "table1:pgd:digits/clean")].findings[0]
    assert finding.state is State.UNKNOWN
    assert "table1.csv does not have the cell" in finding.text


def test_metrics_of_a_cell_that_the_study_does_not_have_fail(root, study):
    path = root / "results/tiny/metrics.json"
    metrics = artifacts.read_json(path)
    metrics["table1"]["other"] = {"digits/clean": 100.0}
    artifacts.write_json(path, metrics)
    assert "metrics" in states(audit(study, root).findings)[0]


def test_metrics_leave_out_cells_exactly_where_an_attack_is_not_established(study, tmp_path):
    write_tree(tmp_path, study)
    write_sanity(tmp_path, study, PGD, zero_gradients=9)
    write_shown(tmp_path, study)
    assert states(audit(study, tmp_path).all_findings())[0] == set()
    path = tmp_path / "results/tiny/metrics.json"
    content = artifacts.read_json(path)
    assert set(content["table1"]["pgd"]) == {"digits/clean", "digits/minutes"}
    content["table1"]["pgd"]["digits/pgd20/8"] = 40.0
    del content["table1"]["free"]["digits/pgd20/8"]
    artifacts.write_json(path, content)
    texts = [f.text for f in audit(study, tmp_path).findings if f.state is State.FAILED]
    assert len(texts) == 2, texts
    assert any("pgd:digits/pgd20/8 is 40.0, the attack is not established" in t for t in texts)
    assert any("free:digits/pgd20/8 is None, flags and records give" in t for t in texts)


def test_a_claim_with_another_result_than_the_results_give_fails(root, study):
    path = root / "results/tiny/metrics.json"
    metrics = artifacts.read_json(path)
    metrics["claims"]["F2"] = "holds"
    artifacts.write_json(path, metrics)
    (finding,) = (one for one in audit(study, root).findings if one.check == "metrics")
    assert finding.state is State.FAILED
    assert "claim F2 is 'holds', the results give 'undecided'" in finding.text


def test_flags_are_compared_with_labels_even_if_every_hash_fits(root, study):
    folder = folders.job_folder(study, "attack", f"{PGD}/rle/pgd20")
    path = root / folder / "flags.safetensors"
    flags = load_file(path)
    flags["labels"] = flags["labels"][::-1].copy()
    save_file(flags, path)
    hashed = {"flags.safetensors": artifacts.sha256(path)}
    edit(root, folder, lambda record: record.update(outputs=hashed))
    disk = Disk(study, root)
    findings = values.check_flags(disk, disk.jobs["attack", f"{PGD}/rle/pgd20"])
    assert states(findings) == ({"flags"}, set())


def test_while_the_workflow_runs_files_written_last_are_not_checked(root, study):
    for name in ("frame.csv", "metrics.json", "report.html"):
        (root / "results/tiny" / name).write_text("of before\n", encoding="utf-8")
    (root / "dvc.lock").write_text("{}", encoding="utf-8")
    failed, _ = states(audit(study, root, settled=False).all_findings())
    assert not failed
    failed, _ = states(audit(study, root).all_findings())
    assert failed == {"frame", "metrics", "dvc"}


def test_metrics_of_cells_without_a_value_are_not_taken_for_verified(root, study):
    folder = folders.job_folder(study, "attack", f"{PGD}/rle/pgd20")
    (root / folder / "flags.safetensors").unlink()
    result = audit(study, root)
    (finding,) = (finding for finding in result.findings if finding.check == "metrics")
    lost = sum(cell.value is None for cell in result.cells.values())
    assert finding.state is State.UNKNOWN
    assert finding.text.startswith(
        f"{len(result.cells) - lost} cells as computed again, {lost} cannot"
    )


def test_verify_and_audit_agree_on_a_determinism_that_was_not(study, root):
    other = small_study(runtime=Runtime(deterministic=False))
    assert "environment" in states(audit(other, root).all_findings())[0]
    assert "environment" in states(verified(other, root, rules=["pretrain"]))[0]
    assert "environment" not in states(verified(study, root, rules=["pretrain"]))[0]


def test_suggested_commands_name_the_study_file(root, study):
    (root / folders.job_folder(study, "pretrain", PGD) / "record.json").unlink()
    (root / "results/tiny/frame.csv").unlink()
    texts = [
        finding.text
        for finding in audit(
            dataclasses.replace(study, file="my studies/a.yaml"), root
        ).all_findings()
    ]
    commands = [text for text in texts if "snakemake " in text]
    assert commands
    assert [text for text in commands if "--config 'study=my studies/a.yaml'" not in text] == []


def test_results_in_dvc_are_restored_rather_than_removed(root, study):
    folder = folders.job_folder(study, "pretrain", PGD)
    (root / folder / "encoder.safetensors").write_bytes(b"?")
    (root / "dvc.lock").write_text("stages: {}", encoding="utf-8")
    job = audit(study, root).jobs["pretrain", PGD]
    (finding,) = (finding for finding in job.findings if finding.check == "bytes")
    assert f"restore it: dvc checkout --force {folder}; or else rm -r {folder} && " in finding.text


def test_the_fix_of_a_wrong_seed_removes_nothing(root, study):
    edit(root, folders.job_folder(study, "pretrain", PGD), lambda record: record.update(seed=5))
    job = audit(study, root).jobs["pretrain", PGD]
    (finding,) = (finding for finding in job.findings if finding.check == "seed")
    assert "rm " not in finding.text
    assert "snakemake --force " in finding.text


def test_verifying_a_stage_leaves_the_others_alone(root, study):
    (root / folders.job_folder(study, "attack", f"{PGD}/rle/pgd20") / "flags.safetensors").unlink()
    assert not states(verified(study, root, rules=["data", "pretrain", "probe"]))[0]
    assert states(verified(study, root, rules=["attack"]))[0] == {"bytes"}


def test_a_stage_without_a_job_has_nothing_wrong(run_verb, study, monkeypatch):
    row = {"own": study.tables["table1"].rows["supervised"]}
    tables = {"table1": replace(study.tables["table1"], columns=("digits/minutes",), rows=row)}
    bare = replace(study, tables=tables, figures={})
    monkeypatch.setattr("robustviews.cli.audit.load_study", lambda _path: bare)
    assert run_verb("verify", "--stages", "probe", "attack")[0] == 0
    assert run_verb("verify", "--stages", "data")[0] == 2  # one job, without metadata


def test_entries_that_decide_no_cell_are_named():
    study = small_study()
    study.runs["spare"] = Run(SimClr(), Pgd(), ("digits",), epochs=1)
    study.probes["other"] = LinearProbe()
    study.attacks["weak"] = PgdAttack(eps=(1.0,))
    study.datasets["more"] = Digits(size=16)
    assert list(audits.unused(small_study())) == []
    assert [line.split("`")[1] for line in audits.unused(study)] == [
        "spare",
        "more",
        "other",
        "weak",
    ]


def test_json_holds_the_findings_and_no_path_of_this_machine(root, study):
    result = audit(study, root)
    parsed = json.loads(json.dumps(result.as_json()))
    assert parsed["state"] == "unknown"
    cell = parsed["cells"]["table1:pgd:digits/pgd20/8"]
    assert cell["jobs"][-2:] == [["attack", f"{PGD}/rle/pgd20"], ["sanity", PGD]]
    assert cell["value"] == result.cells[address(study, "table1:pgd:digits/pgd20/8")].value
    assert len(parsed["jobs"]) == len(result.jobs)
    assert str(root) not in json.dumps(parsed)


def test_states_of_nothing_are_unknown(study):
    requested = address(study, "table1:pgd:digits/minutes")
    empty = audits.CellAudit(requested, (), None, ())
    result = audits.Audit("tiny", {}, {requested: empty}, ())
    assert result.state is State.UNKNOWN
    assert result.state_of(requested) is State.UNKNOWN


@pytest.fixture
def run_verb(root, study, monkeypatch, capsys):
    """Return a function that runs a verb in the tree: exit status and what it printed."""
    monkeypatch.chdir(root)
    monkeypatch.setattr("robustviews.cli.audit.load_study", lambda _path: study)

    def run(*arguments):
        status = cli.main(list(arguments))
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def test_exit_status_distinguishes_unknown_from_failed(run_verb, root, study):
    assert run_verb("audit")[0] == 2
    (root / folders.job_folder(study, "pretrain", PGD) / "encoder.safetensors").write_bytes(b"?")
    assert run_verb("audit")[0] == 1
    assert run_verb("verify", "--stages", "pretrain")[0] == 1
    assert run_verb("verify", "--stages", "data")[0] == 2


@pytest.mark.parametrize("verb", ["audit", "verify"])
def test_a_crash_is_no_verdict(run_verb, monkeypatch, verb, caplog):
    def crash(*_arguments, **_options):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("robustviews.cli.audit.load_study", crash)
    status, text = run_verb(verb)
    assert status == 2
    assert "RuntimeError: a mistake of ours" in text
    assert any(record.exc_info for record in caplog.records)


def test_the_audit_prints_cells_then_problems_then_a_summary(run_verb):
    text = run_verb("audit")[1].splitlines()
    assert text[0].startswith("unknown   table1:free:digits/clean")
    assert text[0].endswith(" %")
    assert text[3].endswith("3.1 minutes")
    assert text[13].startswith("unknown: ")
    assert text[-1].startswith("tiny: ")
    assert text[-1].endswith(": unknown")


def test_of_many_findings_of_a_kind_the_first_are_shown_and_the_others_counted(run_verb):
    text = run_verb("audit")[1]
    jobs = sum(job.folder is not None for job in pending.jobs(small_study()).values())
    assert text.count("unknown: commit: ") == 4
    assert f"unknown: commit: and {jobs - 3} more; see: robustviews audit --json" in text


def test_a_cell_alone_is_printed_with_every_check(run_verb):
    text = run_verb("audit", "--cell", "table1:pgd:digits/pgd20/8")[1]
    for check in ("record", "spec", "code", "seed", "bytes", "inputs", "flags", "lock", "times"):
        assert f"  verified  {check}: " in text
    assert f"attack {PGD}/rle/pgd20: unknown" in text


def test_an_unknown_stage_or_cell_is_a_mistake_of_the_user(run_verb):
    status, text = run_verb("verify", "--stages", "pretraining")
    assert status == 2
    assert "no stage `pretraining`" in text
    assert "pretrain" in text
    assert run_verb("audit", "--cell", "table1:pgd")[0] == 2


def test_a_changed_label_of_a_row_shows_in_its_table(root, study):
    row = replace(study.tables["table1"].rows["pgd"], label="Another name")
    rows = study.tables["table1"].rows | {"pgd": row}
    table = replace(study.tables["table1"], rows=rows)
    other = small_study(tables=study.tables | {"table1": table})
    failed = {
        finding.subject for finding in audit(other, root).findings if finding.state is State.FAILED
    }
    assert failed == {f"results/tiny/tables/table1.{kind}" for kind in ("md", "csv", "tex")}
