"""Claims of a paper, tested on our results and evaluated on the published numbers.

A claim holds if all of its inequalities are significant (an intersection-union test); it fails if
one of them is significant in the other direction, at a level divided by their number. Exactly one
of the two is wrong, so that the smaller p-value of both decides after Holm's correction over the
claims of the study. Minutes and passes are compared as they are, without a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from robustviews.reporting import statistics
from robustviews.reporting.statistics import Interval
from robustviews.reporting.tables.values import CellValue, RowValues, row_values
from robustviews.reporting.verdicts import ALPHA, NOT_ESTABLISHED, NOT_RUN
from robustviews.study import claims
from robustviews.study.claims import PASSES, Inequality
from robustviews.study.work import passes_per_image

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.study.schema import Claim, Study

State = Literal["holds", "fails", "undecided", "not attempted", "not even on the published numbers"]
Published = Literal["holds", "fails", "unavailable", "not published"]
ONE_SEED = "one seed"
DEVICES = "minutes of different devices"
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Part:
    """One inequality in one column; numbers are percentage points, minutes or a ratio of passes.

    Attributes:
        text: the inequality with its column.
        ours: left side minus the right side without its offset; None without results.
        interval: 95 % interval of `ours`; None without a test.
        published: the same of the published values; None unless the paper has both.
        unavailable: whether the paper has a value that could not be read.
        is_published: whether the inequality is true of the published values; None if unknown.
        p_holds: p-value of the test that the inequality is true.
        p_fails: p-value of the test that it is false.
        missing: why there is no test.
    """

    text: str
    ours: float | None = None
    interval: Interval | None = None
    published: float | None = None
    unavailable: bool = False
    is_published: bool | None = None
    p_holds: float = 1.0
    p_fails: float = 1.0
    missing: str = ""

    def __str__(self) -> str:
        """Return the inequality with the numbers on both of its sides."""
        numbers = []
        if self.ours is not None:
            spread = ""
            if self.interval is not None:
                spread = f" ({self.interval.low:+.3g} to {self.interval.high:+.3g})"
            numbers.append(f"difference {self.ours:+.3g}{spread}")
        if self.missing:
            numbers.append(self.missing)
        if self.published is not None:
            numbers.append(f"published {self.published:+.2f}")
        return f"{self.text}: {', '.join(numbers)}" if numbers else self.text


@dataclass(frozen=True)
class Outcome:
    """What is known of one claim.

    Attributes:
        name: of the claim.
        says: the claim in words.
        state: result of the test on our results.
        published: whether the published numbers themselves agree.
        parts: its inequalities, one per column.
        p: p-value of the decision, adjusted for the claims of the study.
    """

    name: str
    says: str
    state: State
    published: Published
    parts: tuple[Part, ...]
    p: float = 1.0

    @property
    def is_incomplete(self) -> bool:
        """Whether some of its cells have no result."""
        return any(part.missing == NOT_RUN for part in self.parts)

    @property
    def decisive(self) -> Part:
        """The inequality on which the state rests."""
        if self.state == "not even on the published numbers":
            return next(part for part in self.parts if part.is_published is False)
        if self.state == "not attempted":
            return next(part for part in self.parts if _is_missing(part))
        if self.state == "fails":
            return min(self.parts, key=lambda part: part.p_fails)
        return max(self.parts, key=lambda part: part.p_holds)


def evaluate(study: Study, frame: list[Result]) -> list[Outcome]:
    """Test every claim of a study.

    Args:
        study: study of the claims.
        frame: results; may be incomplete.

    Returns:
        One outcome per claim, in the order of the study.
    """
    outcomes = [_outcome(study, name, claim, frame) for name, claim in study.claims.items()]
    tested = [number for number, one in enumerate(outcomes) if one.state == "undecided"]
    adjusted = statistics.holm([outcomes[number].p for number in tested])
    for number, p in zip(tested, adjusted, strict=True):
        outcomes[number] = _decided(replace(outcomes[number], p=p))
    return [_against_paper(outcome) for outcome in outcomes]


LEGEND = (
    "Holds: every inequality of the claim is significant; fails: one is significant in the other "
    f"direction ({ALPHA:.0%} over all claims of the study, one-sided, after Holm). The tests cover "
    "the spread between trainings and the choice of test images. One seed: no test. Minutes and "
    "passes are compared as they are. So are the published numbers, without the rows that the "
    "paper does not have."
)


def _outcome(study: Study, name: str, claim: Claim, frame: list[Result]) -> Outcome:
    """Evaluate a claim; one that can be tested is `undecided` with its p-value, not adjusted."""
    table = claims.block(study, claim)
    rows = {row.name: row for row in row_values(study, table, frame)}
    parts = []
    for inequality in map(Inequality.parse, claim.holds):
        for column in inequality.columns(table.columns):
            if column == PASSES:
                parts.append(_passes(study, rows, inequality))
            else:
                number = table.columns.index(column)
                parts.append(_compare(inequality, column, *_sides(rows, inequality, number)))
    is_missing = any(map(_is_missing, parts))
    return Outcome(
        name,
        claim.says,
        "not attempted" if is_missing else "undecided",
        _published(parts),
        tuple(parts),
        min(_p_holds(parts), _p_fails(parts)),
    )


def _decided(outcome: Outcome) -> Outcome:
    if outcome.p >= ALPHA:
        return outcome
    is_true = _p_holds(outcome.parts) < _p_fails(outcome.parts)
    return replace(outcome, state="holds" if is_true else "fails")


def _against_paper(outcome: Outcome) -> Outcome:
    if outcome.published == "fails" and outcome.state != "holds":
        return replace(outcome, state="not even on the published numbers")
    return outcome


def _p_holds(parts: Sequence[Part]) -> float:
    return max(part.p_holds for part in parts)


def _p_fails(parts: Sequence[Part]) -> float:
    return min(1.0, len(parts) * min(part.p_fails for part in parts))


def _is_missing(part: Part) -> bool:
    return part.missing.startswith((NOT_RUN, NOT_ESTABLISHED))


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
    difference = statistics.welch(
        first,
        second,
        images=min(run.n for cell in (left, right) for run in cell.evidence),
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
