"""Statistics of all radii: their values, their bootstrap, and cells, claims and audit of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from robustviews.attacks import PgdAttack, WorstOf
from robustviews.provenance.audit import audit
from robustviews.provenance.findings import State
from robustviews.reporting import accuracies, claims, results, small_radii
from robustviews.reporting.tables import TABLES, row_values, writers
from robustviews.study.cells import Address
from robustviews.study.schema import Claim, Row, Table
from tests.unit.results_tree import small_study, write_shown, write_tree

COLUMNS = (
    "digits/clean",
    "digits/worst/4",
    "digits/worst/8",
    "digits/worst/retained",
    "digits/worst/e50",
    "digits/l2/e50",
)
ROWS = {
    "free": Row("emp-free3", "rle"),
    "pgd": Row("simclr-pgd5", "rle"),
    "supervised": Row("supervised-free3", "own"),
}


def study_of(seeds=(0,)):
    return small_study(
        seeds=seeds,
        attacks={
            "pgd20": PgdAttack(eps=(4.0, 8.0)),
            "margin": PgdAttack(eps=(4.0, 8.0), loss="margin"),
            "worst": WorstOf(of=("pgd20", "margin"), eps=(4.0, 8.0)),
            "l2": PgdAttack(eps=(0.5, 1.0), relative_step=0.1, norm="l2"),
        },
        tables={"radii": Table("Radii", COLUMNS, ROWS)},
        figures={},
        claims={"R": Claim("retains", "radii", ("pgd > supervised on worst/retained",))},
    )


@pytest.fixture(scope="module")
def study():
    return study_of()


@pytest.fixture(scope="module")
def tree(study, tmp_path_factory):
    tree = tmp_path_factory.mktemp("tree")
    write_tree(tree, study)
    write_shown(tree, study)
    return tree


@pytest.fixture(scope="module")
def frame(study, tree):
    return results.frame(study, tree)


@pytest.mark.parametrize(
    ("accuracies", "halves_at"),
    [
        ((0.8, 0.6, 0.4, 0.1), 2),
        ((0.8, 0.6, 0.2, 0.1), math.sqrt(2)),  # half way between 1 and 2, on a logarithmic scale
        ((0.8, 0.2, 0.1, 0.0), 2 / 3),  # linear below the first radius
        ((0.8, 0.6, 0.3, 0.7), 2 ** (2 / 3)),  # the first time
        ((0.8, 0.7, 0.6, 0.5), 4),  # never: the largest radius
        ((0.8, 0.8, 0.8, 0.4), 4),
        ((0.0, 0.0, 0.0, 0.0), 0),
    ],
)
def test_the_radius_that_halves_accuracy_is_interpolated(accuracies, halves_at):
    radii = np.array([0, 1, 2, 4])
    both = small_radii.halving(np.array([accuracies, accuracies]), radii)
    assert both == pytest.approx([halves_at] * 2)


def test_what_is_retained_is_the_mean_share_of_clean_accuracy():
    accuracies = np.array([[0.8, 0.6, 0.2], [0.0, 0.0, 0.0]])
    assert small_radii.retained(accuracies, np.array([0, 1, 2])) == pytest.approx([0.5, 0.0])


def test_replicates_are_those_of_images_drawn_with_replacement():
    generator = np.random.default_rng(3)
    clean = generator.random(300) < 0.9
    flags = {0.0: clean, 1.0: clean & (generator.random(300) < 0.7)}
    value, replicates = small_radii.statistic("retained", flags)
    assert value == flags[1.0].sum() / clean.sum()
    assert replicates.shape == (accuracies.DRAWS,)
    share = value  # of the clean images, a proportion: its standard error is known
    known = math.sqrt(share * (1 - share) / clean.sum())
    assert replicates.std() == pytest.approx(known, rel=0.08)
    assert replicates.mean() == pytest.approx(value, abs=0.1 * known)
    low, high = small_radii.interval([value], replicates)
    assert (low, high) == pytest.approx((value - 1.96 * known, value + 1.96 * known), abs=0.01)
    again = small_radii.statistic("retained", flags)[1]
    assert np.array_equal(again, replicates)  # the same images for every row


def test_several_trainings_widen_the_interval_by_their_spread():
    replicates = np.full(10, 0.5)
    low, high = small_radii.interval([0.4, 0.6], replicates)
    assert (low, high) == pytest.approx((0.0, 0.5 + 12.706 * 0.1), abs=1e-3)  # t of 1 degree


def test_cells_of_all_radii_follow_from_the_flags(study, frame):
    row = row_values(study, study.tables["radii"], frame)[1]
    clean, at4, at8, retained, halves, l2 = row.cells
    assert retained.ours == pytest.approx((at4.ours + at8.ours) / 2 / clean.ours)
    assert retained.low < retained.ours < retained.high
    assert (retained.column.unit, halves.column.unit, l2.column.unit) == ("%", "1/255", "L2")
    assert (halves.at_bound, l2.at_bound) == (at8.ours > clean.ours / 2, True)
    text = writers.markdown(TABLES["comparison"](study, study.tables["radii"], frame))
    assert "digits worst retained | digits worst e50 | digits l2 e50" in text
    assert "≥ 1 ±0" in text
    assert "Unit of e50: 1/255, L2." in text
    assert "margin (PGD on the margin loss" in text  # a part of the worst case


def test_the_audit_computes_them_again(study, tree, frame):
    result = audit(study, tree)
    failed = [finding for finding in result.all_findings() if finding.state is State.FAILED]
    assert not failed
    for row in row_values(study, study.tables["radii"], frame):
        for name, cell in zip(COLUMNS, row.cells, strict=True):
            audited = result.cells[Address("radii", row.name, name)]
            assert audited.value == pytest.approx(cell.ours)
            assert audited.findings[0].state is State.VERIFIED


def test_the_audit_finds_a_worst_case_that_is_not_that_of_its_attacks(study, tmp_path):
    write_tree(tmp_path, study)
    write_shown(tmp_path, study)
    path = tmp_path / "results/tiny/attack/simclr-pgd5-digits-s0/rle/worst/flags.safetensors"
    flags = load_file(path)
    right = int(np.flatnonzero(flags["eps_4"])[0])
    flags["eps_4"][right] = 0
    save_file(flags, path)
    texts = [f.text for f in audit(study, tmp_path).all_findings() if f.check == "flags"]
    assert any("eps_4 is not the worst case of pgd20, margin" in text for text in texts)


def test_a_claim_on_one_seed_each_has_a_paired_interval_and_no_test(study, frame):
    [outcome] = claims.evaluate(study, frame)
    [part] = outcome.parts
    assert part.missing == claims.ONE_SEED
    assert outcome.state == "undecided"
    _, pgd, supervised = (row.cells[3] for row in row_values(study, study.tables["radii"], frame))
    draws = 100 * (pgd.replicates - supervised.replicates)
    assert part.interval == pytest.approx(tuple(np.quantile(draws, (0.025, 0.975))))
    assert part.interval.low < part.ours < part.interval.high


def test_a_claim_on_several_seeds_is_tested(tmp_path):
    study = study_of(seeds=(0, 1, 2))
    write_tree(tmp_path, study)
    [outcome] = claims.evaluate(study, results.frame(study, tmp_path))
    [part] = outcome.parts
    assert not part.missing
    assert part.interval is not None
    assert 0 < part.p_holds < 1
