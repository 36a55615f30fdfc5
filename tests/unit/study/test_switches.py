"""Switches of a cell: what paper, code and study set, and whose value the study has."""

from __future__ import annotations

import dataclasses

import pytest

from robustviews.attacks import PgdAttack
from robustviews.methods import EmpSsl, SimClr, Supervised
from robustviews.options import Switch, option, switch, switches_of
from robustviews.probe import OWN_HEAD, LinearProbe, NcropProbe, RobustLinearProbe
from robustviews.regimes import Free, Pgd, Standard
from robustviews.study import Run, Study, plan
from robustviews.study.schema import Row, Table
from robustviews.study.switches import Setting, of_cell


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
