"""Plans: which jobs the cells of a study need, and what decides each job."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from robustviews.attacks import AutoAttack, PgdAttack
from robustviews.augment import Views
from robustviews.datasets import Digits
from robustviews.methods import EmpSsl, SimClr, Supervised
from robustviews.probe import OWN_HEAD, FinetuneProbe, LinearProbe, NcropProbe, RobustLinearProbe
from robustviews.regimes import Free, Pgd
from robustviews.sanity import Sanity
from robustviews.study import (
    Encoder,
    Figure,
    Optimizer,
    Row,
    Run,
    Runtime,
    Study,
    Table,
    cells,
    folders,
    jobs,
    networks,
    plan,
    specs,
)
from robustviews.study.columns import Column
from robustviews.study.schema import Claim, Verdicts

RUNS = {
    "emp": Run(EmpSsl(), Free(), ("digits", "other"), epochs=3, seeds=(3, 5)),
    "simclr": Run(SimClr(), Pgd(), ("digits",), epochs=6, label="SimCLR"),
    "supervised": Run(Supervised(), Pgd(), ("digits",), epochs=6, views=Views(count=1)),
    "unused": Run(EmpSsl(), Free(), ("digits",), epochs=1),
}
PROBES = {
    "central": LinearProbe(),
    "rle": RobustLinearProbe(rle_start="central"),
    "fresh-rle": RobustLinearProbe(),
    "crops": NcropProbe(),
    "own": OWN_HEAD,
}
ATTACKS = {"aa": AutoAttack(eps=(8.0,)), "pgd": PgdAttack(eps=(4.0, 8.0))}
TABLE = Table(
    "A table",
    ("digits/clean", "digits/pgd/4", "digits/aa/8", "digits/minutes"),
    {
        "first": Row("emp", "rle", published=(75.9, None, "unavailable", 97.0)),
        "second": Row("supervised", "own", label="Supervised"),
    },
)
FIGURE = Figure("A figure", ("other/clean", "digits/clean"), {"only": Row("emp", "crops")})


def test_an_attack_on_an_ncrop_head_may_have_fewer_images():
    fewer = study(attacks={**ATTACKS, "pgd": PgdAttack(eps=(8.0,), images=50, ncrop_images=7)})
    images = {
        probe: specs.spec(fewer, "attack", f"emp-digits-s3/{probe}/pgd")["attack"]["images"]
        for probe in PROBES
    }
    assert images == dict.fromkeys(PROBES, 50) | {"crops": 7}
    same = plan.attack_on(fewer, "rle", "pgd"), plan.attack_on(fewer, "own", "aa")
    assert same == (PgdAttack(eps=(8.0,), images=50), ATTACKS["aa"])


def test_only_folded_batch_norms_are_a_part_of_a_spec():
    folded = study(runtime=Runtime(fold_batchnorm=True))
    for attacked, value in ((study(), None), (folded, True)):
        assert specs.spec(attacked, "attack", "emp-digits-s3/rle/pgd").get("fold") is value
        assert specs.spec(attacked, "probe", "emp-digits-s3/rle").get("fold") is value
        arguments = specs.arguments(attacked, "attack", "emp-digits-s3/rle/pgd")
        assert arguments["fold"] is bool(value)


def study(**changes: Any) -> Study:
    options: dict[str, Any] = {
        "study": "small",
        "title": "A small study",
        "datasets": {"digits": Digits(), "other": Digits(test=100)},
        "runs": RUNS,
        "probes": PROBES,
        "attacks": ATTACKS,
        "tables": {"one": TABLE},
        "figures": {"two": FIGURE},
        "seeds": (0, 1),
    }
    return Study(**{**options, **changes})


def with_run(name: str, **changes: Any) -> Study:
    """Return the study with some options of a run changed."""
    return study(runs={**RUNS, name: dataclasses.replace(RUNS[name], **changes)})


def all_specs(of: Study) -> dict[str, str]:
    """Return the spec of every job as text, by a readable name."""
    by_name = {f"data {name}": specs.data_spec(of, name) for name in of.datasets}
    runs = [(run,) for run in plan.pretrainings(of)]
    jobs_of = {"pretrain": runs, "probe": plan.heads(of), "attack": plan.evaluations(of)}
    for rule, every in jobs_of.items():
        for names in every:
            by_name[" ".join((rule, *names))] = specs.spec(of, rule, "/".join(names))
    return {name: specs.to_json(spec) for name, spec in by_name.items()}


def changed(of: Study) -> set[str]:
    """Return the jobs whose specs differ from those of the study above; new jobs do not count."""
    before = all_specs(study())
    return {name for name, spec in all_specs(of).items() if before.get(name, spec) != spec}


def test_the_cells_decide_which_encoders_are_trained():
    assert list(plan.pretrainings(study())) == [
        "emp-digits-s3",
        "emp-digits-s5",
        "supervised-digits-s0",
        "supervised-digits-s1",
        "emp-other-s3",
        "emp-other-s5",
    ]
    job = plan.pretrainings(study())["emp-other-s5"]
    assert (job.entry, job.dataset, job.seed) == ("emp", "other", 5)


def test_a_robust_head_brings_the_linear_head_that_it_starts_from():
    only = study(tables={"one": TABLE}, figures={})
    assert plan.heads(only) == [
        ("emp-digits-s3", "central"),
        ("emp-digits-s3", "rle"),
        ("emp-digits-s5", "central"),
        ("emp-digits-s5", "rle"),
    ]
    assert only.probes["rle"].starts_from == "central"
    fresh = dataclasses.replace(TABLE, rows={"first": Row("emp", "fresh-rle")})
    assert plan.heads(study(tables={"one": fresh}, figures={})) == [
        ("emp-digits-s3", "fresh-rle"),
        ("emp-digits-s5", "fresh-rle"),
    ]


def test_a_tuned_encoder_is_what_attacks_and_checks_read():
    probes = {"tuned": FinetuneProbe(), "central": LinearProbe()}
    rows = {name: Row("simclr", name) for name in probes}
    table = Table("Two", ("digits/clean", "digits/pgd/8"), rows)
    of = study(probes=probes, tables={"one": table}, figures={}, seeds=(0,))
    run, every = "simclr-digits-s0", jobs.jobs(of)
    folder = folders.job_folder(of, "probe", f"{run}/tuned")
    own, pretrained = folder / "encoder.safetensors", folders.job_folder(of, "pretrain", run)
    assert own in every["probe", f"{run}/tuned"].writes
    for key in (("attack", f"{run}/tuned/pgd"), ("sanity", f"{run}--tuned")):
        encoders = {path for path in every[key].reads if path.name == "encoder.safetensors"}
        assert encoders == {own}
        assert every[key].needs[0] == ("probe", f"{run}/tuned")
    assert every["sanity", f"{run}--tuned"].spec["probes"].keys() == {"tuned"}
    assert every["sanity", run].spec["probes"].keys() == {"central"}
    for key in (("probe", f"{run}/tuned"), ("attack", f"{run}/central/pgd"), ("sanity", run)):
        assert pretrained / "encoder.safetensors" in every[key].reads
    _, cell = cells.find(of, "one:tuned:digits/pgd/8")
    chain = {job.key for job in cells.chain(of, cell)}
    assert ("sanity", f"{run}--tuned") in chain
    assert ("sanity", run) not in chain


def test_batch_norms_that_a_probe_trains_are_folded_for_attacks_alone():
    probes = {"tuned": FinetuneProbe(), "central": LinearProbe()}
    of = study(
        probes=probes,
        runtime=Runtime(fold_batchnorm=True),
        tables={
            "one": Table("Two", ("digits/pgd/8",), {name: Row("simclr", name) for name in probes})
        },
        figures={},
        seeds=(0,),
    )
    every, run = jobs.jobs(of), "simclr-digits-s0"
    folds = {key: job.arguments["fold"] for key, job in every.items() if "fold" in job.arguments}
    assert [key for key in folds if not folds[key]] == [("probe", f"{run}/tuned")]


def test_no_job_that_trains_or_chooses_reads_a_test_image():
    for job in jobs.jobs(study()).values():
        if job.rule in ("pretrain", "probe"):
            assert not [path for path in job.reads if path.name.startswith("test_")]


def test_a_supervised_network_has_no_head_to_train():
    assert not [head for head in plan.heads(study()) if head[0].startswith("supervised")]


def test_the_cells_decide_which_attacks_are_run_and_each_once():
    evaluations = plan.evaluations(study(figures={}))
    assert len(evaluations) == len(set(evaluations))
    assert set(evaluations) == {
        (f"{run}-digits-s{seed}", probe, attack)
        for run, probe, seeds in (("emp", "rle", (3, 5)), ("supervised", "own", (0, 1)))
        for seed in seeds
        for attack in ("pgd", "aa")
    }


def test_minutes_alone_need_a_training_but_no_head_of_a_supervised_network_and_no_attack():
    table = Table("Cost", ("digits/minutes",), {"one": Row("supervised", "own")})
    only = study(tables={"one": table}, figures={})
    assert list(plan.pretrainings(only)) == ["supervised-digits-s0", "supervised-digits-s1"]
    assert plan.heads(only) == []
    assert plan.evaluations(only) == []


def test_cells_come_row_by_row_with_all_their_fields():
    cells = plan.cells(study(), TABLE)
    assert [(cell.row, cell.column) for cell in cells] == [
        (row, column) for row in ("first", "second") for column in TABLE.columns
    ]
    assert cells[1] == plan.Cell(
        row="first",
        column="digits/pgd/4",
        measure=Column("digits", "pgd", 4.0),
        label="emp",
        entry="emp",
        probe="rle",
        seeds=(3, 5),
        networks=tuple(
            networks.Network("emp", "digits", seed, networks.Pretraining("emp", "digits", seed))
            for seed in (3, 5)
        ),
        attack="pgd",
        published=None,
        options=TABLE.rows["first"],
    )
    assert cells[1].runs == ("emp-digits-s3", "emp-digits-s5")
    assert [cell.published for cell in cells[:4]] == [75.9, None, "unavailable", 97.0]
    assert [cell.published for cell in cells[4:]] == [None] * 4
    assert [cell.eps for cell in cells[:4]] == [None, 4.0, 8.0, None]


@pytest.mark.parametrize(
    ("columns", "attack"),
    [
        (("digits/clean", "digits/minutes", "digits/pgd/4", "digits/aa/8"), "pgd"),
        (("digits/aa/8", "digits/clean", "digits/pgd/4"), "aa"),
        (("other/pgd/4", "digits/clean", "digits/aa/8"), "aa"),
        (("digits/clean", "digits/minutes"), "aa"),  # the first of the study
    ],
)
def test_clean_accuracy_uses_the_images_of_the_first_attack_on_its_data_set(columns, attack):
    table = Table("A table", columns, {"one": Row("emp", "rle")})
    [clean] = [cell for cell in plan.cells(study(), table) if cell.column == "digits/clean"]
    assert (clean.attack, clean.eps) == (attack, None)


def test_the_label_of_a_cell_is_that_of_its_row_else_its_run_else_the_run_name():
    rows = {"a": Row("simclr", "rle", label="A"), "b": Row("simclr", "rle"), "c": Row("emp", "rle")}
    table = Table("A table", ("digits/minutes",), rows)
    assert [cell.label for cell in plan.cells(study(), table)] == ["A", "SimCLR", "emp"]


def test_the_adversarial_images_are_those_of_the_middle_attacked_column_of_the_main_table():
    columns = ("digits/clean", "digits/pgd/4", "digits/pgd/8", "digits/minutes", "other/pgd/4")
    rows = {"first": Row("emp", "rle"), "second": Row("simclr", "rle")}
    shown = plan.example_attacks(study(tables={"one": Table("A table", columns, rows)}))
    assert [(cell.row, cell.column) for cell in shown] == [
        ("first", "digits/pgd/8"),
        ("second", "digits/pgd/8"),
    ]
    made = jobs.jobs(study())["examples", ""]
    assert ("probe", "emp-digits-s3/rle") in made.needs
    assert ("probe", "emp-digits-s5/rle") not in made.needs, "the first seed alone"


def test_a_study_without_attacked_columns_has_no_adversarial_images():
    plain = study(tables={"one": Table("A table", ("digits/clean",), {"a": Row("emp", "rle")})})
    for without in (plain, study(tables={})):
        assert plan.example_attacks(without) == ()
        names = {path.name for path in jobs.jobs(without)["examples", ""].writes}
        assert names == {"views.svg", "views.png"}


def test_a_run_has_its_own_seeds_or_those_of_the_study():
    assert plan.seeds_of(study(), "emp") == (3, 5)
    assert plan.seeds_of(study(), "supervised") == (0, 1)


def test_results_are_in_folders_that_name_them():
    of = study()
    assert folders.job_folder(of, "pretrain", "r") == Path("results/small/pretrain/r")
    assert folders.job_folder(of, "probe", "r/p") == Path("results/small/probe/r/p")
    assert folders.job_folder(of, "attack", "r/p/a") == Path("results/small/attack/r/p/a")
    assert folders.results_folder(of) == Path("results/small")


def test_the_folder_of_a_data_set_names_it_and_follows_its_options():
    folder = folders.data_folder(study(), "digits")
    assert folder.parent == Path("data")
    assert folder.name.startswith("digits-")
    assert folder == folders.data_folder(study(title="Another"), "digits")
    other = study(datasets={"digits": Digits(test=99), "other": Digits(test=100)})
    assert folder != folders.data_folder(other, "digits")
    assert folders.data_folder(study(), "other") == folders.data_folder(other, "other")


def test_specs_are_plain_json_on_one_sorted_line():
    of = study()
    one_per_stage = [
        specs.data_spec(of, "digits"),
        specs.spec(of, "pretrain", "emp-digits-s3"),
        specs.spec(of, "probe", "emp-digits-s3/crops"),
        specs.spec(of, "attack", "emp-digits-s3/crops/pgd"),
    ]
    for spec in one_per_stage:
        text = specs.to_json(spec)
        assert json.loads(text) == spec
        assert "\n" not in text
        assert list(spec) == sorted(spec)
        assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text


def test_a_spec_holds_every_option_of_its_run_resolved():
    spec = specs.spec(study(), "pretrain", "emp-digits-s3")
    assert spec["seed"] == 3
    assert spec["dataset"] == specs.data_spec(study(), "digits")
    assert spec["run"]["method"] == {"kind": "emp_ssl", **dataclasses.asdict(EmpSsl())}
    assert spec["run"]["regime"] == {"kind": "free", **dataclasses.asdict(Free())}
    assert spec["run"]["views"]["scale"] == [0.08, 1.0]
    options = {field.name for field in dataclasses.fields(Run)}
    assert spec["run"].keys() == options - {"label", "seeds", "datasets"}
    attack = specs.spec(study(), "attack", "emp-digits-s3/rle/pgd")
    decides = dataclasses.asdict(PgdAttack(eps=(4.0, 8.0))) | {"eps": [4.0, 8.0]}
    del decides["weak"]
    assert attack["attack"] == {"kind": "pgd", **decides}
    assert attack["probe"]["kind"] == "robust_linear"


SAME = {
    "words": study(title="Another title", demonstration="Only a demonstration"),
    "seeds of others": study(seeds=(1, 0, 2)),
    "runtime": study(runtime=Runtime(threads=8, deterministic=False, checkpoint_minutes=1.0)),
    "order": study(runs={name: RUNS[name] for name in reversed(RUNS)}),
    "another attack": study(attacks={**ATTACKS, "more": PgdAttack(eps=(1.0,))}),
    "why an attack is weak": study(
        attacks={**ATTACKS, "pgd": PgdAttack(eps=(4.0, 8.0), weak="as published")},
        probes={**PROBES, "rle": RobustLinearProbe(rle_start="central", weak="as published")},
    ),
    "another probe": study(probes={**PROBES, "more": LinearProbe(epochs=1)}),
    "words of a table": study(tables={"one": dataclasses.replace(TABLE, title="T", note="N")}),
    "label": with_run("emp", label="Another label"),
    "seeds of the run": with_run("emp", seeds=(5, 3, 1)),
    "data sets": with_run("emp", datasets=("other", "digits")),
    "unused run": with_run("unused", epochs=9),
}


@pytest.mark.parametrize("what", SAME)
def test_changes_that_decide_no_number_change_no_spec(what):
    assert changed(SAME[what]) == set()


PRETRAIN = {f"pretrain emp-{data}-s{seed}" for data in ("digits", "other") for seed in (3, 5)}
VIEWED = {f"probe emp-{data}-s{seed} crops" for data in ("digits", "other") for seed in (3, 5)}


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 4},
        {"method": EmpSsl(tcr_eps=0.04)},
        {"regime": Free(replays=4)},
        {"encoder": Encoder(width=8)},
        {"optimizer": Optimizer(lr=0.1)},
        {"batch_size": 50},
        {"epochs_meaning": "replays"},
        {"precision": "bf16"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_option_of_a_run_changes_the_specs_of_its_trainings_and_no_others(changes):
    assert changed(with_run("emp", **changes)) == PRETRAIN


def test_views_change_the_specs_of_trainings_and_of_heads_that_draw_from_them():
    attacks = {
        f"attack emp-{data}-s{seed} crops aa" for data in ("digits", "other") for seed in (3, 5)
    }
    assert changed(with_run("emp", views=Views(count=3))) == PRETRAIN | VIEWED | attacks


def test_an_option_of_a_probe_changes_the_specs_of_its_heads_and_of_their_attacks():
    actual = changed(study(probes={**PROBES, "central": LinearProbe(lr=0.1)}))
    assert actual == {"probe emp-digits-s3 central", "probe emp-digits-s5 central"}
    actual = changed(study(probes={**PROBES, "crops": NcropProbe(n=4)}))
    assert {name for name in actual if name.startswith("probe")} == VIEWED
    assert {name.split()[2] for name in actual} == {"crops"}


def test_an_option_of_an_attack_changes_its_specs_only():
    actual = changed(study(attacks={**ATTACKS, "pgd": PgdAttack(eps=(4.0, 8.0), steps=10)}))
    assert actual
    assert all(name.startswith("attack") and name.endswith(" pgd") for name in actual)


def test_the_checks_of_a_run_depend_on_its_attacked_heads_and_on_their_own_options():
    of = study()
    assert plan.attacked(of) == {
        "emp-digits-s3": ["rle"],
        "emp-digits-s5": ["rle"],
        "supervised-digits-s0": ["own"],
        "supervised-digits-s1": ["own"],
    }
    before = specs.spec(of, "sanity", "emp-digits-s3")
    assert before["probes"] == {"rle": specs.spec(of, "probe", "emp-digits-s3/rle")["probe"]}
    for change in (
        {"sanity": Sanity(restarts=3)},
        {"probes": {**PROBES, "rle": RobustLinearProbe(lr=0.1)}},
    ):
        assert specs.spec(study(**change), "sanity", "emp-digits-s3") != before
    for change in (
        {"attacks": {**ATTACKS, "pgd": PgdAttack(eps=(4.0, 8.0), steps=10)}},
        {"probes": {**PROBES, "crops": NcropProbe(n=4)}},
    ):
        assert specs.spec(study(**change), "sanity", "emp-digits-s3") == before


def test_results_need_the_checks_of_attacked_heads_and_pgd_beside_autoattack():
    figure = dataclasses.replace(FIGURE, columns=("digits/aa/8",), rows={"only": Row("emp", "rle")})
    of = study(figures={"two": figure})
    every = jobs.jobs(of)
    checks = {("sanity", f"emp-digits-s{seed}") for seed in (3, 5)}
    attacks = {
        ("attack", f"emp-digits-s{seed}/rle/{name}") for seed in (3, 5) for name in ("aa", "pgd")
    }
    assert checks | attacks <= set(every["figure", "two"].needs)
    for rule in ("frame", "metrics", "report"):
        assert {key for key in every if key[0] == "sanity"} <= set(every[rule, ""].needs)
    attacking = [job for job in every.values() if job.rule == "attack"]
    assert not [job for job in attacking if "sanity" in {rule for rule, _ in job.needs}]
    clean = jobs.jobs(study(figures={"two": FIGURE}, tables={}))
    assert not [key for key in clean if key[0] == "sanity"]


def test_an_option_of_a_data_set_changes_the_specs_of_its_trainings():
    actual = changed(study(datasets={"digits": Digits(test=99), "other": Digits(test=100)}))
    assert actual == {"data digits"} | {
        f"pretrain {run}" for run in plan.pretrainings(study()) if "digits" in run
    }


def test_the_order_of_keys_in_a_study_changes_no_spec():
    options = Views(count=4, augmentation="emp_ssl")
    assert specs.to_json(dataclasses.asdict(options)) == specs.to_json(
        dict(reversed(dataclasses.asdict(options).items()))
    )


def test_the_specs_of_three_hundred_trainings_take_less_than_two_seconds():
    many = {f"run{number}": RUNS["emp"] for number in range(75)}
    rows = {name: Row(name, "rle") for name in many}
    columns = ("digits/clean", "digits/pgd/4", "digits/aa/8", "other/aa/8")
    big = study(runs=many, tables={"one": Table("Big", columns, rows)}, figures={})
    start = time.process_time()
    specs = all_specs(big)
    assert time.process_time() - start < 2
    assert len([name for name in specs if name.startswith("pretrain")]) == 300
    assert len(specs) == 2 + 300 + 600 + 450


def test_a_table_is_rebuilt_when_its_text_changes_and_not_when_a_figure_does():
    def spec(of: Study, block: str) -> str:
        return specs.to_json(specs.report_spec(of, block))

    words = study(tables={"one": dataclasses.replace(TABLE, note="A note")})
    label = with_run("simclr", label="Another label")
    figure = study(figures={"two": dataclasses.replace(FIGURE, title="Another")})
    assert spec(words, "one") != spec(study(), "one")
    assert spec(label, "one") != spec(study(), "one")
    assert spec(figure, "one") == spec(study(), "one")
    assert spec(figure, "two") != spec(study(), "two")
    assert spec(study(runtime=Runtime(threads=8)), "one") == spec(study(), "one")


def test_margins_decide_tables_and_claims_decide_metrics_and_report():
    def spec(of: Study, block: str = "", rule: str = "report") -> str:
        return specs.to_json(specs.report_spec(of, block, rule=rule))

    margins = study(verdicts=Verdicts(margin=3))
    assert spec(margins, "one", "table") != spec(study(), "one", "table")
    assert spec(margins) != spec(study())
    assert spec(margins, rule="curves") == spec(study(), rule="curves")
    row, other = TABLE.rows
    claimed = study(claims={"F1": Claim("words", "one", (f"{row} > {other}",))})
    for rule, changes in (("metrics", True), ("report", True), ("frame", False)):
        assert (spec(claimed, rule=rule) != spec(study(), rule=rule)) == changes
    assert spec(claimed, "one", "table") == spec(study(), "one", "table")
    worded = {"one": dataclasses.replace(TABLE, title="Another title", note="A note")}
    other = study(tables=worded, claims=claimed.claims)
    assert spec(other, rule="metrics") == spec(claimed, rule="metrics")


def test_what_is_known_of_the_paper_decides_tables_and_retrains_nothing(monkeypatch):
    before = study()
    table = specs.report_spec(before, "one")
    training = specs.spec(before, "pretrain", "emp-digits-s3")
    monkeypatch.setattr(specs.comparable, "incomparable", lambda *_: "another head")
    assert specs.report_spec(before, "one") != table
    assert specs.spec(before, "pretrain", "emp-digits-s3") == training


def test_only_the_report_is_rebuilt_when_the_code_of_the_audit_changes(monkeypatch):
    monkeypatch.setattr(specs.fingerprint, "files", lambda *parts: " ".join(parts))
    for part in ("provenance", "study", "machine/humanize"):
        assert part in specs.report_spec(study(), rule="report")["code"].split()
        for rule in ("frame", "metrics", "curves", "examples"):
            assert part not in specs.report_spec(study(), rule=rule)["code"].split()
        assert part not in specs.report_spec(study(), "one", rule="table")["code"].split()


@pytest.mark.parametrize("rule", ["frame", "table", "metrics", "report"])
def test_the_code_of_metrics_decides_what_shows_them(rule, monkeypatch):
    monkeypatch.setattr(specs.fingerprint, "files", lambda *parts: " ".join(parts))
    block = "one" if rule == "table" else ""
    assert "tasks" in specs.report_spec(study(), block, rule=rule)["code"].split()


def test_the_needs_of_some_tables_are_a_part_of_the_needs_of_the_study():
    of = study()
    assert list(plan.networks_of(of, FIGURE)) == [
        "emp-other-s3",
        "emp-other-s5",
        "emp-digits-s3",
        "emp-digits-s5",
    ]
    assert set(plan.networks_of(of)) == set(plan.pretrainings(of))
    assert set(plan.evaluations(of, TABLE)) < set(plan.evaluations(of))
    assert set(plan.evaluations(of, TABLE, FIGURE)) == set(plan.evaluations(of))


def test_metrics_are_made_again_when_two_rows_are_swapped():
    first, second = TABLE.rows.values()
    swapped = dataclasses.replace(TABLE, rows={"first": second, "second": first})
    specs_of = [
        specs.report_spec(study(tables={"one": table}), rule="metrics")
        for table in (TABLE, swapped)
    ]
    assert specs_of[0] != specs_of[1]
