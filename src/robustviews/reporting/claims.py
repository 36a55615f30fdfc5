"""Claims of a paper, tested on our results and evaluated on the published numbers.

A claim holds if all of its inequalities are significant (an intersection-union test); it fails if
one of them is significant in the other direction, at a level divided by their number. Exactly one
of the two is wrong, so that the smaller p-value of both decides after Holm's correction over the
claims of the study. Minutes and passes are compared as they are, without a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from robustviews.reporting import contrasts, robustness, statistics
from robustviews.reporting.outcomes import (
    FAILS,
    HOLDS,
    NOT_ATTEMPTED,
    NOT_EVEN,
    UNDECIDED,
    Outcome,
    Part,
    Published,
)
from robustviews.reporting.statistics import Interval
from robustviews.reporting.tables.values import CellValue, RowValues, row_values
from robustviews.reporting.verdicts import ALPHA, NOT_ESTABLISHED, NOT_RUN
from robustviews.study import plan
from robustviews.study.claims import PASSES, Inequality
from robustviews.study.work import passes_per_image

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.study.schema import Claim, Study

ONE_SEED = "one seed"
DEVICES = "minutes of different devices"
_ROUNDING = 1e-9


def evaluate(study: Study, frame: list[Result]) -> list[Outcome]:
    """Test every claim of a study.

    Args:
        study: study of the claims.
        frame: results; may be incomplete.

    Returns:
        One outcome per claim, in the order of the study.
    """
    outcomes = [_outcome(study, name, claim, frame) for name, claim in study.claims.items()]
    tested = [number for number, one in enumerate(outcomes) if one.state == UNDECIDED]
    adjusted = statistics.holm([outcomes[number].smallest for number in tested])
    for number, p in zip(tested, adjusted, strict=True):
        outcomes[number] = outcomes[number].decided(p, len(tested))
    return [_against_paper(outcome) for outcome in outcomes]


LEGEND = (
    "Holds: every inequality of the claim is significant; fails: one is significant in the other "
    f"direction ({ALPHA:.0%} over all claims of the study, one-sided, after Holm). The tests cover "
    "the spread between trainings and the choice of test images. One seed: no test. Minutes and "
    "passes are compared as they are. So are the published numbers, without the rows that the "
    "paper does not have. States that end in `for these networks` rest on one training each, and "
    "say nothing about methods."
)


def _outcome(study: Study, name: str, claim: Claim, frame: list[Result]) -> Outcome:
    """Evaluate a claim; one that can be tested is `undecided` with its p-value, not adjusted."""
    if not claim.holds:
        return robustness.outcome(study, name, claim, frame)
    table = plan.blocks(study)[claim.table]
    rows = {row.name: row for row in row_values(study, table, frame)}
    parts = []
    for inequality in map(Inequality.parse, claim.holds):
        for column in inequality.columns(table.columns):
            if column == PASSES:
                parts.append(_passes(study, rows, inequality))
            else:
                number = table.columns.index(column)
                parts.append(_compare(inequality, column, *_sides(rows, inequality, number)))
    is_missing = any(part.is_missing for part in parts)
    return Outcome(
        name,
        claim.says,
        NOT_ATTEMPTED if is_missing else UNDECIDED,
        _published(parts),
        tuple(parts),
        ((HOLDS, _p_holds(parts)), (FAILS, _p_fails(parts))),
    )


def _against_paper(outcome: Outcome) -> Outcome:
    if outcome.published == "fails" and outcome.state != HOLDS:
        return replace(outcome, state=NOT_EVEN)
    return outcome


def _p_holds(parts: Sequence[Part]) -> float:
    return max(part.p_holds for part in parts)


def _p_fails(parts: Sequence[Part]) -> float:
    return min(1.0, len(parts) * min(part.p_fails for part in parts))


def _published(parts: Sequence[Part]) -> Published:
    """Return whether the published numbers agree, without rows that the paper does not have."""
    known = [part.is_published for part in parts if part.is_published is not None]
    if not all(known):
        return "fails"
    if any(part.unavailable for part in parts):
        return "unavailable"
    return "holds" if known else "not published"


def _sides(
    rows: Mapping[str, RowValues], inequality: Inequality, number: int
) -> tuple[CellValue, CellValue]:
    return rows[inequality.left].cells[number], rows[inequality.right].cells[number]


def _passes(study: Study, rows: Mapping[str, RowValues], inequality: Inequality) -> Part:
    left, right = (
        passes_per_image(study.runs[rows[name].entry])
        for name in (inequality.left, inequality.right)
    )
    part = Part(_text(inequality, PASSES), ours=left - inequality.factor * right)
    return _exact(part, inequality)


def _compare(inequality: Inequality, column: str, left: CellValue, right: CellValue) -> Part:
    """Compare two cells of a column."""
    part = Part(_text(inequality, column))
    scale = left.column.scale
    sides = (left.published, right.published)
    if isinstance(sides[0], int | float) and isinstance(sides[1], int | float):
        published = scale * (sides[0] - inequality.factor * sides[1])
        is_true = _is_true(inequality, published)
        part = replace(part, published=published, is_published=is_true)
    part = replace(part, unavailable="unavailable" in sides)
    missing = next(_missing(left, right), "")
    if missing or left.ours is None or right.ours is None:
        return replace(part, missing=missing)
    part = replace(part, ours=scale * (left.ours - inequality.factor * right.ours))
    if left.column.is_minutes:
        machines = {run.device for cell in (left, right) for run in cell.evidence}
        return replace(part, missing=DEVICES) if len(machines) > 1 else _exact(part, inequality)
    return _tested(part, inequality, left, right)


def _missing(*cells: CellValue) -> Iterator[str]:
    """Yield why cells cannot be compared."""
    for cell in cells:
        if cell.ours is None:
            yield NOT_RUN
        elif cell.struck:
            yield f"{NOT_ESTABLISHED}: {cell.struck}"


def _exact(part: Part, inequality: Inequality) -> Part:
    """Compare numbers that no test needs."""
    assert part.ours is not None
    is_true = _is_true(inequality, part.ours)
    return replace(part, p_holds=float(not is_true), p_fails=float(is_true))


def _tested(part: Part, inequality: Inequality, left: CellValue, right: CellValue) -> Part:
    """Test an inequality of accuracies, each averaged over seeds."""
    first, second = ([run.value for run in cell.evidence] for cell in (left, right))
    if min(len(first), len(second)) < 2:
        return replace(part, missing=ONE_SEED, interval=_of_networks(inequality, left, right))
    for cell in (left, right):
        done = len(cell.evidence)
        if done < cell.planned:  # whoever stops at the first favourable seeds tests nothing
            return replace(part, missing=f"{done} of {cell.planned} seeds")
    difference = contrasts.welch(
        first,
        second,
        images=min(run.weighs for cell in (left, right) for run in cell.evidence),
        image_variance=_of_images(left, right, inequality.factor),
        factor=inequality.factor,
    )
    scale = left.column.scale
    bound = inequality.offset / scale
    low, high = difference.interval()
    above, below = difference.above(bound), difference.below(bound)
    return replace(
        part,
        interval=Interval(scale * low, scale * high),
        p_holds=above if inequality.is_greater else below,
        p_fails=below if inequality.is_greater else above,
    )


def _of_networks(inequality: Inequality, left: CellValue, right: CellValue) -> Interval | None:
    """Return the paired bootstrap interval over images: of these networks, not of trainings."""
    if left.replicates is None:
        return None
    draws = left.column.scale * (left.replicates - inequality.factor * right.replicates)
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(float(low), float(high))


def _of_images(left: CellValue, right: CellValue, factor: float) -> float:
    """Return the variance over images of the difference of a statistic, by paired bootstrap.

    For single radii return an upper bound of the variance of the difference of correctness: the
    counts of results do not say which images are right. The bound is the variance of two rows that
    err independently; rows that tend to err on the same images have less.
    """
    if left.replicates is not None:
        images = min(run.n for cell in (left, right) for run in cell.evidence)
        return float((left.replicates - factor * right.replicates).var()) * images
    assert left.ours is not None
    assert right.ours is not None
    return left.ours * (1 - left.ours) + factor**2 * right.ours * (1 - right.ours)


def _is_true(inequality: Inequality, difference: float) -> bool:
    """Return whether numbers fulfil an inequality, given left minus factor * right."""
    slack = difference - inequality.offset
    slack = slack if inequality.is_greater else -slack
    return slack >= -_ROUNDING if "=" in inequality.sign else slack > _ROUNDING


def _text(inequality: Inequality, column: str) -> str:
    return f"{inequality.text.partition(' on ')[0]} on {column}"
