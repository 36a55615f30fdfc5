"""Switches of a cell: what paper, code and study set, and whose value the study has."""

from __future__ import annotations

import dataclasses
import re

import pytest

from robustviews.attacks import PgdAttack
from robustviews.methods import EmpSsl, SimClr, Supervised
from robustviews.options import Switch, option, switch, switches_of
from robustviews.probe import OWN_HEAD, LinearProbe, NcropProbe, RobustLinearProbe
from robustviews.regimes import Free, Pgd, Standard
from robustviews.study import Run, Study, plan
from robustviews.study.schema import Row, Table
from robustviews.study.switches import Setting, of_cell, text


def settings(run, probe, *, steps=20, column="digits/pgd/8"):
    """Return the switches of a cell with some run and probe, by name."""
    attacks = {"pgd": PgdAttack(eps=(8.0,), steps=steps)}
    table = Table("-", (column,), {"row": Row("run", "probe")})
    study = Study("s", "-", {}, {"run": run}, {"probe": probe}, attacks, {"main": table})
    [cell] = plan.cells_of(study)
    found = of_cell(study, cell)
    assert len({setting.name for setting in found}) == len(found)
    return {setting.name: setting for setting in found}


def a_run(method, regime, **options):
    return Run(method, regime, ("digits",), 1, **options)


def side(found, name):
    return found[name].side


def test_a_side_is_the_source_that_has_the_value_of_the_study():
    def of(ours, code=(), paper=()):
        return Setting("x", "training", code, paper, ours).side

    assert of(1, code=(1,), paper=(2,)) == "code"
    assert of(2, code=(1,), paper=(2,)) == "paper"
    assert of(1, code=(1, 2), paper=(1,)) == "paper and code"
    assert of(3, code=(1,), paper=(2,)) == "neither"
    assert of(3, code=(1,)) == "neither"
    assert of(3) == "guess"


def test_a_switch_of_one_method_or_regime_decides_only_its_runs():
    found = Switch("x", code={"simclr/free": (1,), "simclr": (2,)}, paper={"free": (3,)})
    assert found.values(frozenset({"simclr", "free"})) == ((1,), (3,))
    assert found.values(frozenset({"simclr", "pgd"})) == ((2,), ())
    assert found.values(frozenset({"emp_ssl", "free"})) == ((), (3,))
    assert found.values(frozenset({"emp_ssl", "pgd"})) is None
    assert Switch("x", code={"emp_ssl": ()}).values(frozenset({"emp_ssl", "pgd"})) == ((), ())


def test_a_switch_has_the_name_of_its_field_or_another_and_keeps_the_range():
    @dataclasses.dataclass(frozen=True)
    class Options:
        eps: float = switch(..., gt=0, name="radius", paper=(8.0,))
        steps: int = switch(2, ge=1, code=(2,))
        plain: int = option(1)

    assert {name: found.name for name, found in switches_of(Options).items()} == {
        "eps": "radius",
        "steps": "steps",
    }
    eps, steps, _ = dataclasses.fields(Options)
    assert (steps.default, steps.metadata["bounds"]) == (2, {"ge": 1})
    assert (eps.default, eps.metadata["bounds"]) == (dataclasses.MISSING, {"gt": 0})


def test_the_switches_of_a_cell_are_those_of_its_training_head_and_attack():
    found = settings(a_run(SimClr(), Pgd()), RobustLinearProbe())
    parts = {name: setting.part for name, setting in found.items()}
    assert parts["pgd_weight_grads"] == parts["simclr_temperature"] == "training"
    assert parts["batch_size"] == parts["simclr_augmentation"] == "training"
    assert parts["rle_start"] == parts["probe_epochs"] == "head"
    assert parts["test_pgd_steps"] == "attack"
    assert not {"emp_scale", "free_step_size", "schedule_horizon", "npatch_views"} & set(found)


@pytest.mark.parametrize(
    ("column", "parts"), [("clean", {"training", "head"}), ("minutes", {"training"})]
)
def test_a_cell_without_attack_has_no_switches_of_what_does_not_decide_it(column, parts):
    found = settings(a_run(EmpSsl(), Pgd()), LinearProbe(), column=f"digits/{column}")
    assert {setting.part for setting in found.values()} == parts


def test_values_of_the_code_depend_on_the_method_and_the_regime():
    for method, regime, batch_size in [
        (EmpSsl(), Free(), 100),
        (EmpSsl(), Pgd(), 128),
        (EmpSsl(), Standard(), 128),
        (SimClr(), Free(), 512),
    ]:
        found = settings(a_run(method, regime), NcropProbe())
        assert found["batch_size"].code == (batch_size,)
    simclr, emp = (
        settings(a_run(each, Pgd()), RobustLinearProbe()) for each in (SimClr(), EmpSsl())
    )
    assert (simclr["test_pgd_steps"].code, emp["test_pgd_steps"].code) == ((20,), (2,))
    assert (side(simclr, "probe_epochs"), side(emp, "probe_epochs")) == ("paper and code", "paper")
    assert (side(simclr, "rle_start"), side(emp, "rle_start")) == ("paper and code", "paper")
    from_standard = RobustLinearProbe(rle_start="some-head")
    emp = settings(a_run(EmpSsl(), Pgd()), from_standard)
    assert (emp["rle_start"].ours, side(emp, "rle_start")) == ("standard head", "code")


def test_no_source_decides_how_a_supervised_network_is_trained():
    found = settings(a_run(Supervised(), Pgd()), OWN_HEAD)
    training = [setting for setting in found.values() if setting.part == "training"]
    assert {setting.side for setting in training} == {"guess"}
    assert {"pgd_weight_grads", "batch_size"} <= {setting.name for setting in training}
    assert side(found, "test_pgd_steps") == "paper"


def test_a_value_of_neither_source_is_named():
    found = settings(a_run(EmpSsl(), Standard(), batch_size=50), LinearProbe(epochs=7), steps=3)
    sides = {name: setting.side for name, setting in found.items()}
    assert sides["batch_size"] == sides["probe_epochs"] == sides["test_pgd_steps"] == "neither"


def test_a_study_differs_if_a_source_decides_otherwise_or_neither_decides():
    def differs(ours, code=(), paper=()):
        return Setting("x", "training", code, paper, ours).differs

    assert differs(1)
    assert differs(1, code=(2,))
    assert differs(1, code=(1,), paper=(2,))
    assert not differs(1, code=(1,))
    assert not differs(1, code=(1, 2), paper=(1,))


def printed(runs, probe):
    """Return the lines of the text of a study, and their columns by switch."""
    rows = {run: Row(run, "probe") for run in runs}
    attacks, table = {"pgd": PgdAttack(eps=(8.0,))}, Table("-", ("digits/pgd/8",), rows)
    lines = text(Study("s", "-", {}, runs, {"probe": probe}, attacks, {"main": table})).splitlines()
    columns = {}
    for line in lines[1:]:
        cells = re.split(" {2,}", line.strip())
        if line.startswith("  ") and line[2] != " ":
            name = cells.pop(0)
        if len(cells) > 1:
            columns.setdefault(name, []).append(cells)
    return lines, columns


def test_the_text_names_what_differs_from_paper_or_code():
    runs = {
        "final": a_run(EmpSsl(), Pgd(pgd_weight_grads="final"), batch_size=128),
        "sum": a_run(EmpSsl(), Pgd(), batch_size=50),
    }
    _, columns = printed(runs, LinearProbe())
    assert columns["pgd_weight_grads"] == [
        ["final", "sum", "final", "paper", "final"],
        ["final", "sum", "sum", "code", "sum"],
    ]
    assert columns["batch_size"] == [
        ["-", "128", "128", "code"],
        ["-", "128", "50", "neither", "sum"],
    ]
    assert columns["pgd_eps"] == [["8", "8 or 64", "8", "paper and code"]]
    assert columns["probe_epochs"] == [["20", "2", "20", "paper", "probe"]]


def test_the_text_names_the_guesses_for_supervised_runs():
    _, columns = printed({"plain": a_run(Supervised(), Standard())}, OWN_HEAD)
    assert columns["batch_size"] == [["-", "-", "100", "guess", "plain"]]


def test_the_text_counts_where_many_differ_and_names_the_method_where_it_decides():
    runs = {f"emp{number}": a_run(EmpSsl(), Pgd()) for number in range(6)}
    runs["simclr"] = a_run(SimClr(), Pgd())
    runs["final"] = a_run(EmpSsl(), Pgd(pgd_weight_grads="final"))
    _, columns = printed(runs, RobustLinearProbe())
    assert [cells[-1] for cells in columns["pgd_weight_grads"]] == ["all 8 but final", "final"]
    assert columns["emp_invariance"][0][-1] == "all 7"
    assert columns["probe_epochs"] == [
        ["20", "2", "20", "paper", "probe (emp_ssl)"],
        ["20", "20", "20", "paper and code"],
    ]


def test_the_columns_of_the_text_are_aligned_and_long_lists_are_wrapped():
    runs = {f"a-run-with-a-long-name-{number}": a_run(EmpSsl(), Pgd()) for number in range(4)}
    final = Pgd(pgd_weight_grads="final")
    runs |= {f"other-{number}": a_run(EmpSsl(), final) for number in range(4)}
    lines, _ = printed(runs, RobustLinearProbe())
    start = lines[0].index("where")
    listed = [line[start:] for line in lines if "a-run-with" in line]
    assert len(listed) > 1
    assert all(len(part) <= 60 and part[0] != " " for part in listed)
    assert all(line[start - 2 : start] == "  " for line in lines if len(line) > start)
