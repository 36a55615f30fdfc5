"""The shipped studies: they load, and agree with the paper (arXiv 2501.03507v1) and its code.

The numbers below were typed from the paper's tables a second time, not copied from a study file.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from robustviews.attacks import ATTACKS
from robustviews.augment import Views
from robustviews.methods import METHODS
from robustviews.options import switches_of
from robustviews.probe import PROBES as PROBES_BY_KIND
from robustviews.regimes import REGIMES
from robustviews.study import Optimizer, Row, Run, Study, load_study, plan
from robustviews.study.switches import Setting, of_cell

ROOT = Path(__file__).parents[3]
SHIPPED = [ROOT / "params.yaml", *sorted((ROOT / "studies").glob("*.yaml"))]

CROP, QUARTER, THREE_QUARTERS = (0.08, 1.0), (0.25, 0.25), (0.75, 0.75)

PROBES = {
    "central": ("LinearProbe", None),
    "crops32": ("NcropProbe", 32),
    "crops64": ("NcropProbe", 64),
    "rle": ("RobustLinearProbe", None),
}

CLEAN_4_8_MINUTES = ["10 clean", "10 4", "10 8", "100 clean", "100 4", "100 8", "10 minutes"]
TABLE_1 = {
    "row1": "61     37.65  16.95  39.26  14.38  4.22   530",
    "row2": "76.55  53.3   28.49  51.71  33.88  19.35  530",
    "row3": "72.86  47.98  16.81  44.57  19.84  5.68   934",
    "row4": "65.44  41.85  17.19  43.71  21.87  8.33   934",
    "row5": "61.83  42.28  21.53  40.31  23.78  12.13  97",
    "row6": "70.25  48.34  24.5   47.64  26.53  11.7   157",
    "row7": "75.88  55.97  33.34  50.74  31.73  17.19  97",
}
# method, views, scale of a view, regime (replays of free training), epochs
ENCODERS_1 = {
    "row1": ("EmpSsl", 16, QUARTER, "Pgd", 30),
    "row2": ("EmpSsl", 16, CROP, "Pgd", 30),
    "row3": ("SimClr", 2, CROP, "Pgd", 500),
    "row4": ("SimClr", 2, THREE_QUARTERS, "Pgd", 500),
    "row5": ("EmpSsl", 16, QUARTER, "Free3", 10),
    "row6": ("SimClr", 2, CROP, "Free3", 167),
    "row7": ("EmpSsl", 16, CROP, "Free3", 10),
}

CLEAN_4_8_16 = [f"{data} {what}" for data in ("10", "100") for what in ("clean", "4", "8", "16")]
TABLE_2 = {
    "central-simclr": "86.65 0.13  0     0     62.5  0.74 0.53 0.45",
    "central-emp": "   75.02 0     -     0     44.31 0.02 0.02 0.02",
    "crops32-simclr": "86.68 0.02  0     0     65.21 0.18 0.12 0.07",
    "crops32-emp": "   92.85 0.04  0.01  0     71.82 0.46 0.15 0.08",
    "crops64-simclr": "89.31 0.01  0     0     66.3  0.17 0.12 0.12",
    "crops64-emp": "   93.29 0.02  0.03  0.01  72.3  0.5  0.2  0.09",
}
ENCODERS_2 = {
    name: ("EmpSsl", 64, QUARTER, "Standard", 30)
    if name.endswith("emp")
    else ("SimClr", 2, CROP, "Standard", 500)
    for name in TABLE_2
}

TABLE_3 = {
    "central-simclr": "84.24 25.68 1.97  0.07 55.91 3.58  0.18  0",
    "central-emp": "   80.72 33.62 8.95  0.92 51.83 19.3  6.85  1.73",
    "rle-simclr": "    72.86 47.98 16.81 0.33 44.57 19.84 5.68  0.26",
    "rle-emp": "       76.55 53.3  28.49 3.96 51.71 33.88 19.35 4.92",
}
ENCODERS_3 = {
    name: ("EmpSsl", 16, CROP, "Pgd", 30)
    if name.endswith("emp")
    else ("SimClr", 2, CROP, "Pgd", 500)
    for name in TABLE_3
}

TABLE_5 = {
    "emp-free7": "   73.43 56.81 38.31 11.03 47.4  32.19 19.9  6.21",
    "emp-free3": "   75.89 57.61 35.19 6.51  53.34 33.08 18.15 3.72",
    "simclr-free7": "49.49 39.09 28.88 12.76 25.49 18.36 12.51 5.51",
    "simclr-free3": "66.89 47.52 26.9  3.68  38.95 24.14 12.17 1.61",
}
ENCODERS_5 = {
    "emp-free7": ("EmpSsl", 16, CROP, "Free7", 9),
    "emp-free3": ("EmpSsl", 16, CROP, "Free3", 10),
    "simclr-free7": ("SimClr", 2, CROP, "Free7", 150),
    "simclr-free3": ("SimClr", 2, CROP, "Free3", 150),
}


class Transcribed(NamedTuple):
    """Expected tables of a study."""

    study: str
    tables: list[str]
    columns: list[str]
    values: dict[str, str]
    encoders: dict[str, tuple[Any, ...]]


TRANSCRIBED = [
    Transcribed(study, [f"table{number}"], columns, values, encoders)
    for study in ("as-trained", "cf-amc-ssl")
    for number, columns, values, encoders in (
        (1, CLEAN_4_8_MINUTES, TABLE_1, ENCODERS_1),
        (2, CLEAN_4_8_16, TABLE_2, ENCODERS_2),
        (3, CLEAN_4_8_16, TABLE_3, ENCODERS_3),
        (5, CLEAN_4_8_16, TABLE_5, ENCODERS_5),
    )
]
TRANSCRIBED += [  # whose scripts attack at 4/255 only; rows of r-LE in Table 3 are those of Table 1
    Transcribed(
        "reference-code",
        ["table1-emp", "table1-simclr-clean", "table1-simclr-attacked"],
        CLEAN_4_8_MINUTES,
        TABLE_1,
        ENCODERS_1,
    ),
    Transcribed(
        "reference-code", ["table2-emp", "table2-simclr"], CLEAN_4_8_16, TABLE_2, ENCODERS_2
    ),
    Transcribed(
        "reference-code", ["table3-emp", "table3-simclr"], CLEAN_4_8_16, TABLE_3, ENCODERS_3
    ),
]
transcribed = pytest.mark.parametrize(
    "paper", TRANSCRIBED, ids=lambda paper: f"{paper.study}-{paper.tables[0]}"
)
whole = pytest.mark.parametrize(
    "paper",
    [paper for paper in TRANSCRIBED if paper.study != "reference-code"],
    ids=lambda paper: f"{paper.study}-{paper.tables[0]}",
)

# Every place where paper and code disagree.
SWITCHES = sorted(
    {
        switch.name
        for table in (METHODS, REGIMES, PROBES_BY_KIND, ATTACKS)
        for cls in (*table.values(), Run, Views, Optimizer, Row)
        for switch in switches_of(cls).values()
    }
)


@pytest.fixture(scope="module")
def studies() -> dict[str, Study]:
    return {path.stem: load_study(path) for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_study_loads_and_its_slug_is_its_file_name(path: Path) -> None:
    study = load_study(path)
    assert study.study == ("digits-demo" if path.name == "params.yaml" else path.stem)
    assert plan.pretrainings(study)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # 30 runs on two CIFAR sets and 4 on ImageNet-100, three seeds, five in Table 1; Tables
        # 1-6, ImageNet-100; Figures 2-5 and three of ours
        ("cf-amc-ssl", {"runs": 34, "trainings": 220, "tables": 7, "figures": 7}),
        # Table 1 and another patch size, Tables 2 and 5, and one training attack of 64/255
        ("as-trained", {"runs": 15, "trainings": 115, "tables": 6, "figures": 0}),
        # the seven of Table 1 and two standard ones; Tables 1-3 once a script, and Table 6
        ("reference-code", {"runs": 9, "trainings": 18, "tables": 8, "figures": 0}),
    ],
)
def test_study_holds_every_run_table_and_figure(
    studies: dict[str, Study], name: str, counts: dict[str, int]
) -> None:
    study = studies[name]
    assert counts == {
        "runs": len(study.runs),
        "trainings": len(plan.pretrainings(study)),  # only of runs that a cell shows
        "tables": len(study.tables),
        "figures": len(study.figures),
    }


@pytest.mark.parametrize("name", ["as-trained", "cf-amc-ssl"])
def test_the_runs_of_table_1_have_five_seeds_and_the_others_three(
    studies: dict[str, Study], name: str
) -> None:
    study = studies[name]
    five = {row.run for row in study.tables["table1"].rows.values() if row.published}
    for run in study.runs:
        assert plan.seeds_of(study, run) == ((0, 1, 2, 3, 4) if run in five else (0, 1, 2)), run


@whole
def test_published_values_are_those_of_the_paper(
    studies: dict[str, Study], paper: Transcribed
) -> None:
    study = studies[paper.study]
    assert _printed(study, paper) == {
        row: dict(zip(paper.columns, map(_value, line.split()), strict=True))
        for row, line in paper.values.items()
    }


def test_published_values_at_4_255_are_those_of_the_paper_in_the_study_of_the_code(
    studies: dict[str, Study],
) -> None:
    for paper in TRANSCRIBED:
        if paper.study == "reference-code":
            printed = _printed(studies[paper.study], paper)
            for row, cells in printed.items():
                known = dict(
                    zip(paper.columns, map(_value, paper.values[row].split()), strict=True)
                )
                expected = {
                    name: known[name] for name in known if name.split()[1] not in ("8", "16")
                }
                assert cells == expected, row
            left_out = {name for name in paper.values if name not in printed}
            assert left_out in (set(), {"crops32-emp", "crops64-emp"}, {"rle-emp", "rle-simclr"})


@transcribed
def test_published_values_are_in_rows_of_the_encoder_that_the_paper_names(
    studies: dict[str, Study], paper: Transcribed
) -> None:
    study = studies[paper.study]
    rows = _published_rows(study, paper)
    encoders = {name: _encoder(study, row.run) for name, row in rows.items()}
    assert encoders == {name: paper.encoders[name] for name in rows}
    assert set(rows) == set(paper.encoders) or paper.study == "reference-code"
    backbone = "resnet50" if paper.tables == ["table5"] else "resnet18"
    assert {study.runs[row.run].encoder.backbone for row in rows.values()} == {backbone}


@whole
def test_published_values_are_in_rows_of_the_probe_that_the_paper_names(
    studies: dict[str, Study], paper: Transcribed
) -> None:
    study = studies[paper.study]
    for name, row in _published_rows(study, paper).items():
        # a row is named after its probe if that is not r-LE
        kind = next((probe for probe in PROBES if name.startswith(probe)), "rle")
        probe = study.probes[row.probe]
        assert (type(probe).__name__, getattr(probe, "n", None)) == PROBES[kind], name


@transcribed
def test_source_names_the_table_of_the_paper(studies: dict[str, Study], paper: Transcribed) -> None:
    for name in paper.tables:
        number = name.removeprefix("table")[0]
        assert studies[paper.study].tables[name].source == f"Table {number}"


@pytest.mark.parametrize("name", ["as-trained", "cf-amc-ssl", "reference-code"])
def test_only_tables_1_2_3_and_5_have_published_numbers(
    studies: dict[str, Study], name: str
) -> None:
    study = studies[name]
    for table_name, table in plan.blocks(study).items():
        numbers = {
            value
            for row in table.rows.values()
            for value in row.published
            if isinstance(value, float)
        }
        from_paper = ("table1", "table2", "table3", "table5")
        known = table_name.split("-")[0] in from_paper or table_name in ("tradeoff", "radii")
        assert bool(numbers) == known, table_name


def test_figures_of_our_own_show_the_rows_of_table_1(studies: dict[str, Study]) -> None:
    study = studies["cf-amc-ssl"]
    rows = study.tables["table1"].rows
    assert study.figures["tradeoff"].rows == rows
    assert study.figures["radii"].rows.items() <= rows.items()
    assert study.figures["cost"].rows == {
        name: dataclasses.replace(row, published=()) for name, row in rows.items()
    }


def test_every_published_table_and_figure_without_values_has_unavailable(
    studies: dict[str, Study],
) -> None:
    unread = ["table4", "table6", "imagenet100", "figure2", "figure3", "figure4", "figure5"]
    for name in unread:
        rows = plan.blocks(studies["cf-amc-ssl"])[name].rows.values()
        assert {value for row in rows for value in row.published} <= {"unavailable", None}
        assert any("unavailable" in row.published for row in rows), name


def test_supervised_rows_have_published_values_only_in_table_4(
    studies: dict[str, Study],
) -> None:
    study = studies["cf-amc-ssl"]
    with_values = {
        (name, row.run)
        for name, table in plan.blocks(study).items()
        for row in table.rows.values()
        if row.published and study.runs[row.run].method.supervised
    }
    assert with_values == {("table4", "supervised-free3")}


def test_supervised_baselines_cost_as_much_as_cf_amc_ssl(studies: dict[str, Study]) -> None:
    runs = studies["cf-amc-ssl"].runs
    ours = runs["emp-crop16-free3"]
    cost = {"emp-crop16-free3": ours.epochs * 16 * 3}
    for name, passes in (("supervised-pgd5", 6), ("supervised-free3", 3), ("supervised-free8", 8)):
        cost[name] = runs[name].epochs * passes
    assert set(cost.values()) == {480}


def test_as_trained_trains_differently_from_the_paper_study_in_the_switches_of_the_code(
    studies: dict[str, Study],
) -> None:
    ours, code = studies["cf-amc-ssl"].runs, studies["as-trained"].runs
    assert set(code) - set(ours) == {"emp-crop16-pgd5-eps64"}
    for name in set(code) & set(ours):
        expected = {"schedule_horizon": ("updates", "minibatches")}
        if "pgd5" in name:
            expected["pgd_weight_grads"] = ("final", "sum")
        assert _differences(ours[name], code[name]) == expected, name
    plain, wide = code["emp-crop16-pgd5"], code["emp-crop16-pgd5-eps64"]
    differences = _differences(plain, wide)
    assert differences.pop("eps") == (8, 64)
    assert set(differences) == {"datasets", "seeds", "label"}


def test_as_trained_evaluates_as_the_paper_study_but_for_the_length_of_the_n_crop_heads_of_simclr(
    studies: dict[str, Study],
) -> None:
    paper, ours = studies["cf-amc-ssl"], studies["as-trained"]
    longer = {name: f"{name}-simclr" for name in ("crops32", "crops64")}
    for name, probe in paper.probes.items():
        assert ours.probes[name] == probe
        if name in longer:
            expected = {"epochs": (100, 20)}
            assert _differences(probe, ours.probes[longer[name]]) == expected
    assert set(ours.probes) == {*paper.probes, *longer.values()}
    assert ours.attacks == {name: paper.attacks[name] for name in ("pgd20", "autoattack")}


def test_every_published_cell_of_as_trained_has_the_training_of_the_code_and_the_paper_s_evaluation(
    studies: dict[str, Study],
) -> None:
    for setting, cell in _settings(studies["as-trained"]):
        allowed = {"training": "code", "attack": "paper", "head": "paper"}[setting.part]
        decided = getattr(setting, allowed) or setting.code or setting.paper
        assert setting.ours in decided, f"{cell.row} {cell.column}: {setting}"


def test_every_published_cell_of_the_paper_study_has_values_of_paper_or_code(
    studies: dict[str, Study],
) -> None:
    other = {
        (setting.name, cell.row)
        for setting, cell in _settings(studies["cf-amc-ssl"])
        if setting.side in ("neither", "guess")
    }
    assert {name for name, _ in other} == {"npatch_epochs"}  # one value for all rows
    assert {row for _, row in other} == {"crops32-simclr", "crops64-simclr"}


def test_reference_code_trains_as_as_trained(studies: dict[str, Study]) -> None:
    code, ours = studies["reference-code"].runs, studies["as-trained"].runs
    assert set(code) < set(ours)
    for name in code:
        assert dataclasses.replace(code[name], seeds=ours[name].seeds) == ours[name]


def test_reference_code_evaluates_as_the_code(studies: dict[str, Study]) -> None:
    sides = {
        setting.name: setting
        for setting, _ in _settings(studies["reference-code"])
        if setting.ours not in setting.code
    }
    assert sides == {}


@pytest.mark.parametrize(
    ("ours", "code", "expected"),
    [
        ("central", "central-emp", {"epochs": (20, 2)}),
        ("central", "central-simclr", {}),
        (
            "rle",
            "rle-emp",
            {
                "epochs": (20, 2),
                "rle_start": ("fresh", "central-emp"),
                "rle_trailing_standard": (0, 2),
            },
        ),
        ("rle", "rle-simclr", {}),
        ("crops32", "crops32-simclr", {"epochs": (100, 20)}),
        ("crops64", "crops64-simclr", {"epochs": (100, 20)}),
        ("own", "own", {}),
    ],
)
def test_reference_code_probes_differently_in_its_switches_only(
    studies: dict[str, Study], ours: str, code: str, expected: dict[str, Any]
) -> None:
    probes = studies["cf-amc-ssl"].probes, studies["reference-code"].probes
    assert _differences(probes[0][ours], probes[1][code]) == expected
    assert len(probes[0]) == 5
    assert len(probes[1]) == 7


def test_reference_code_attacks_at_4_255_with_two_switches(studies: dict[str, Study]) -> None:
    ours, code = studies["cf-amc-ssl"].attacks, studies["reference-code"].attacks
    assert set(ours) == {"pgd20", "autoattack", "autoattack10"}
    assert set(code) == {"pgd2", "pgd20", "autoattack10"}
    at_4 = {name: dataclasses.replace(attack, eps=(4.0,)) for name, attack in ours.items()}
    assert at_4["pgd20"] == code["pgd20"]
    assert _differences(code["pgd20"], code["pgd2"]) == {"steps": (20, 2)}
    assert at_4["autoattack10"] == code["autoattack10"]


def test_each_script_of_the_reference_code_has_its_own_head_and_attack(
    studies: dict[str, Study],
) -> None:
    study = studies["reference-code"]
    for table in study.tables.values():
        for cell in plan.cells(study, table):
            script = "emp" if cell.entry.startswith("emp") else "simclr"
            assert cell.probe.endswith(script)
            if cell.eps is not None:
                assert cell.attack in ("autoattack10", {"emp": "pgd2", "simclr": "pgd20"}[script])
                # The EMP-SSL script has one head; the SimCLR script attacks no robust head.
                assert (cell.probe == "rle-emp") == (script == "emp")
                assert cell.probe != "rle-simclr"


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_has_a_comment_with_its_decision(switch: str) -> None:
    lines = (ROOT / "studies/cf-amc-ssl.yaml").read_text(encoding="utf-8").splitlines()
    text = " ".join(line.strip().removeprefix("#").strip() for line in lines)
    assert re.search(rf"\b{switch}: code [^;]+; (or|paper) [^:]+?; we take \w", text)


def _settings(study: Study) -> list[tuple[Setting, plan.Cell]]:
    """Return the switches of every cell that has a published number."""
    return [
        (setting, cell)
        for table in study.tables.values()
        for cell in plan.cells(study, table)
        if isinstance(cell.published, float)
        for setting in of_cell(study, cell)
    ]


def _printed(study: Study, paper: Transcribed) -> dict[str, dict[str, float | str | None]]:
    """Return the published values of the rows that have some, by column."""
    printed: dict[str, dict[str, float | str | None]] = {}
    for table in paper.tables:
        for cell in plan.cells(study, study.tables[table]):
            if study.tables[table].rows[cell.row].published:
                printed.setdefault(cell.row, {})[_column(cell)] = cell.published
    return printed


def _value(printed: str) -> float | str:
    return "unavailable" if printed == "-" else float(printed)


def _column(cell: plan.Cell) -> str:
    metric = cell.metric if cell.eps is None else f"{cell.eps:g}"
    return f"{cell.dataset.removeprefix('cifar')} {metric}"


def _published_rows(study: Study, paper: Transcribed) -> dict[str, Row]:
    return {
        name: row
        for table in paper.tables
        for name, row in study.tables[table].rows.items()
        if row.published
    }


def _encoder(study: Study, run_name: str) -> tuple[Any, ...]:
    run = study.runs[run_name]
    regime = type(run.regime).__name__ + str(getattr(run.regime, "replays", ""))
    return (type(run.method).__name__, run.views.count, run.views.scale, regime, run.epochs)


def _differences(ours: Any, theirs: Any) -> dict[str, tuple[Any, Any]]:
    """Return the options, by their own name, in which two dataclasses differ."""
    assert type(ours) is type(theirs)
    differing: dict[str, tuple[Any, Any]] = {}
    for field in dataclasses.fields(ours):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        if dataclasses.is_dataclass(a):
            differing.update(_differences(a, b))
        elif a != b:
            differing[field.name] = (a, b)
    return differing
