"""Verdicts: whether the published value of a cell is reproduced.

The published value is one training, evaluated on the same test images as ours, so that only the
spread between trainings counts. `reproduced` means that the true difference is within the margin of
the study, `different` that it is not chance; both may be undecided.

- `reproduced`: |d| + t(95 %) s / sqrt(k) <= margin, with at least two seeds.
- `different`: |d| > margin, and d is outside the prediction interval of one more training,
  significant at 5 % after Holm's correction within the table.
- Ours below 1 % or above 99 %: the same with exact intervals on the counts of all seeds;
  `different` also needs a difference beyond the spread of the cell's own trainings.
- One seed: never reproduced. While no row of the column has two seeds, `different` rests on a
  spread that the study assumes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from robustviews.reporting import statistics
from robustviews.reporting.statistics import Interval, Spread

if TYPE_CHECKING:
    from robustviews.study.schema import Verdicts

State = Literal["reproduced", "different", "undecided", "not attempted", "not comparable"]
DIFFERENT = "different"
Covers = Literal["trainings", "counts", "images", "resampled"]
NOT_RUN = "not run"
UNAVAILABLE = "published value not available"
NOT_ESTABLISHED = "attack not established"

ALPHA = 0.05  # probability that a table without any true difference has a cell `different`
_END = 0.01  # accuracies closer to 0 or 1 have exact intervals
_ONE_SIDED = 1 - ALPHA
_POINT = 0.01  # one percentage point, as a fraction


@dataclass(frozen=True)
class Sample:
    """What is known of a cell before it is judged.

    Attributes:
        counts: (correct, n) of the training of each seed; of a mean over classes, as of so many
            images of equal weight.
        test_images: images of the test split; None if unknown.
        published: the paper's value, a fraction; None without a known one.
    """

    counts: tuple[tuple[float, int], ...]
    test_images: int | None = None
    published: float | None = None

    @property
    def accuracies(self) -> list[float]:
        """Accuracy of each training."""
        return [correct / n for correct, n in self.counts]

    @property
    def mean(self) -> float:
        """Accuracy, averaged over trainings."""
        return sum(self.accuracies) / len(self.counts)

    @property
    def is_extreme(self) -> bool:
        """Whether the accuracy is so near 0 or 1 that its spread is not that of other rows."""
        return bool(self.counts) and not _END <= self.mean <= 1 - _END

    @property
    def is_exact(self) -> bool:
        """Whether the counts of all trainings are compared, instead of the means of trainings."""
        return self.is_extreme and len(self.counts) > 1

    @property
    def distance(self) -> float:
        """Absolute difference from the published value; 0 without one."""
        return 0.0 if self.published is None else abs(self.mean - self.published)

    @property
    def pooled(self) -> tuple[float, int]:
        """Correct predictions and images of all trainings together."""
        return sum(correct for correct, _ in self.counts), sum(n for _, n in self.counts)

    @property
    def image_variance(self) -> float:
        """Variance of the accuracy because only some of the test images were attacked."""
        return statistics.of_images(self.mean, min(n for _, n in self.counts), self.test_images)


@dataclass(frozen=True)
class Verdict:
    """Whether a published value is reproduced.

    Attributes:
        state: the verdict.
        reason: why a cell was not attempted or is not comparable; otherwise empty.
        margin: largest difference that counts as reproduced, a fraction; None without a comparison.
        spread: spread between trainings that was used; None without a comparison, and where exact
            intervals on counts decide.
        p: two-sided p-value of the difference, adjusted for the cells of the table.
        seeds: number of seeds that would decide an undecided cell at the present difference; None
            if no number up to 100 would.
    """

    state: State
    reason: str = ""
    margin: float | None = None
    spread: Spread | None = None
    p: float = 1.0
    seeds: int | None = None

    def __str__(self) -> str:
        """Return the state, marked if it rests on an assumed spread."""
        is_assumed = self.state == "different" and self.spread and self.spread.assumed
        return f"{self.state}, assumed spread" if is_assumed else self.state


def spreads_of(
    column: Sequence[Sample], encoders: Sequence[Hashable] | None = None
) -> list[Spread | None]:
    """Return the measured spread between trainings of each cell of a column.

    Cells near 0 or 1 do not contribute; None for all if no row has two seeds. Heads of the same
    encoders vary together: the degrees of freedom count the trainings of encoders, not of heads.

    Args:
        column: the cells of a column that count, each once.
        encoders: which encoders each cell has; without it, all are different.
    """
    groups = [[] if sample.is_extreme else sample.accuracies for sample in column]
    images = [min((n for _, n in sample.counts), default=1) for sample in column]
    spreads = statistics.spreads(groups, [1 / n for n in images])
    trained: dict[Hashable, int] = {}
    for encoder, group in zip(encoders or range(len(groups)), groups, strict=True):
        trained[encoder] = max(trained.get(encoder, 0), len(group) - 1)
    freedom = sum(max(0, degrees) for degrees in trained.values())
    return [one and one._replace(freedom=min(one.freedom, freedom)) for one in spreads]


def covered(sample: Sample, spread: Spread | None) -> Covers:
    """Return what varies in the interval of a cell: trainings, or only the test images."""
    if sample.is_exact:
        return "counts"
    return "images" if sample.is_extreme or spread is None else "trainings"


def interval(sample: Sample, spread: Spread | None) -> Interval:
    """Return the 95 % interval of a cell that has a result, cut to [0, 1]."""
    covers = covered(sample, spread)
    if covers == "counts":
        return statistics.clopper_pearson(*sample.pooled)
    if covers == "images" or spread is None:
        return statistics.wilson(*sample.pooled)
    half = statistics.t_quantile(0.975, spread.freedom) * _error(sample, spread)
    return Interval(max(0.0, sample.mean - half), min(1.0, sample.mean + half))


def judge(
    columns: Sequence[Sequence[Sample]],
    spreads: Sequence[Sequence[Spread | None]],
    rules: Verdicts,
) -> list[list[Verdict | None]]:
    """Compare the cells of one table with their published values.

    Args:
        columns: cells by column; those without results or published value get no verdict.
        spreads: measured spread between trainings of each cell, from `spreads_of`.
        rules: margins and assumed spread of the study, in percentage points.

    Returns:
        `reproduced`, `different`, `undecided` or None for each cell.
    """
    assumed = Spread(rules.spread * _POINT, math.inf)
    compared = {
        (number, row): _compare(sample, spread or assumed, rules)
        for number, column in enumerate(columns)
        for row, (sample, spread) in enumerate(zip(column, spreads[number], strict=True))
        if sample.counts and sample.published is not None
    }
    verdicts: list[list[Verdict | None]] = [[None] * len(column) for column in columns]
    adjusted = statistics.holm([one.p for one in compared.values()])
    for ((number, row), verdict), p in zip(compared.items(), adjusted, strict=True):
        sample = columns[number][row]
        verdicts[number][row] = _decide(sample, replace(verdict, p=p), cells=len(compared))
    return verdicts


def _compare(sample: Sample, spread: Spread, rules: Verdicts) -> Verdict:
    """Return whether a cell is reproduced, and the p-value of its difference, not adjusted."""
    assert sample.published is not None
    is_low = sample.published < rules.low_below * _POINT or sample.is_extreme
    margin = (rules.low_margin if is_low else rules.margin) * _POINT
    verdict = Verdict("undecided", margin=margin, spread=spread)
    if sample.is_exact:
        is_within, p = _exact(*sample.pooled, published=sample.published, margin=margin)
        own = statistics.floored_spread(sample.accuracies, 1 / min(n for _, n in sample.counts))
        apart = sample.distance / (own.sd * math.sqrt(1 + 1 / len(sample.counts)))
        p = max(p, 2 * statistics.t_tail(apart, own.freedom))  # the counts do not know trainings
        state: State = "reproduced" if is_within else "undecided"
        return replace(verdict, p=p, state=state, spread=None)
    distance, seeds = sample.distance, len(sample.counts)
    predicted = math.sqrt(spread.sd**2 * (1 + 1 / seeds) + sample.image_variance)
    p = 2 * statistics.t_tail(distance / predicted, spread.freedom)
    reach = 0.0
    if seeds > 1:
        reach = statistics.t_quantile(_ONE_SIDED, spread.freedom) * _error(sample, spread)
    is_within = seeds > 1 and distance + reach <= margin
    return replace(verdict, p=p, state="reproduced" if is_within else "undecided")


def _exact(correct: float, n: int, *, published: float, margin: float) -> tuple[bool, float]:
    """Return whether counts show an accuracy within the margin, and the p-value that it is not."""
    low, high = published - margin, published + margin
    inner = statistics.clopper_pearson(correct, n, 1 - 2 * ALPHA)
    return low <= inner.low and inner.high <= high, statistics.beyond(
        correct, n, low=low, high=high
    )


def _decide(sample: Sample, verdict: Verdict, *, cells: int) -> Verdict:
    """Complete a verdict, given its adjusted p-value and the number of tested cells."""
    assert verdict.margin is not None
    if verdict.state == "reproduced":
        return verdict
    if sample.distance > verdict.margin and verdict.p < ALPHA:
        return replace(verdict, state="different")
    return replace(verdict, seeds=_deciding(sample, verdict, level=ALPHA / cells))


def _deciding(sample: Sample, verdict: Verdict, *, level: float) -> int | None:
    """Return the smallest number of seeds that decides a cell if its accuracy stays the same."""
    assert verdict.margin is not None
    assert sample.published is not None
    seeds = len(sample.counts)
    if sample.is_exact:
        correct, n = sample.pooled
        for k in range(seeds + 1, statistics.MOST_SEEDS + 1):
            is_within, p = _exact(
                round(correct * k / seeds),
                round(n * k / seeds),
                published=sample.published,
                margin=verdict.margin,
            )
            if is_within or p < level:
                return k
        return None
    assert verdict.spread is not None
    is_near = sample.distance <= verdict.margin
    return statistics.fewest_seeds(
        verdict.margin - sample.distance if is_near else sample.distance,
        verdict.spread,
        level=_ONE_SIDED if is_near else 1 - level / 2,
        seeds=seeds,
        fixed=sample.image_variance,
        others=0 if is_near else 1,
    )


def _error(sample: Sample, spread: Spread) -> float:
    """Return the standard error of a cell's mean."""
    return math.sqrt(spread.sd**2 / len(sample.counts) + sample.image_variance)
