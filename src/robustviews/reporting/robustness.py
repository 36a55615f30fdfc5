"""Claims about what rows retain under attack: the advantage of most, its narrowing, a factor.

Every comparison is a weighted sum of rows: g_m = R_m - R_over of one row, their mean G, the mean of
one table minus that of another, a slope over log2(level). Networks that are trained several times
are tested with the spread between trainings (`contrasts.contrast`). Networks of one training each
say nothing about methods: only the choice of test images varies, by paired bootstrap, and G is
tested by exchanging the signs of the g_m. The states of such claims end in `for these networks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from robustviews.reporting import contrasts, statistics
from robustviews.reporting.contrasts import Difference
from robustviews.reporting.outcomes import (
    DEPENDS,
    FAILS,
    HOLDS,
    INFLUENCES,
    NARROWS,
    NETWORKS,
    NO_INFLUENCE,
    NOT_ATTEMPTED,
    UNDECIDED,
    Outcome,
    Part,
)
from robustviews.reporting.tables.values import RowValues, row_values
from robustviews.reporting.verdicts import ALPHA
from robustviews.study import claims, factors
from robustviews.study.columns import HALVING, RETAINED

if TYPE_CHECKING:
    from robustviews.reporting.results import Result
    from robustviews.study.schema import Claim, Study

_MOST, _AGAINST = 5 / 7, 4 / 7  # shares of the rows that decide, of seven networks 5 and 4
_ONE_TRAINING = "one network per method"
_SHIFT = 37  # draws by which those of a further data set are moved: its images are others

Tests = list[tuple[str, float]]
Rows = Mapping[str, RowValues]
Weights = Mapping[tuple[int, str], float]  # by number of the table and name of the row


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of rows.

    Attributes:
        difference: the sum with its error; None if a cell is missing.
        networks: whether the error is that of images alone.
        missing: why there is no difference.
    """

    difference: Difference | None
    networks: bool = False
    missing: str = ""

    def part(self, text: str) -> Part:
        """Return the sum as a comparison of a claim."""
        if self.difference is None:
            return Part(text, missing=self.missing)
        return Part(text, ours=self.difference.mean, interval=self.difference.interval())


def outcome(study: Study, name: str, claim: Claim, frame: list[Result]) -> Outcome:
    """Evaluate a claim with `most` or `influences`; if it can be tested, it is undecided yet."""
    blocks = claims.compared(study, claim)
    tables = [{row.name: row for row in row_values(study, block, frame)} for block in blocks]
    if claim.influences is not None:
        parts, tests = _influence(tables, factors.comparisons(blocks[0]), claim.influences)
    elif claim.narrows:
        parts, tests = _narrowing(tables, claim)
    else:
        parts, tests = _advantage(tables, claim)
    state = NOT_ATTEMPTED if any(part.is_missing for part in parts) else UNDECIDED
    return Outcome(name, claim.says, state, "not published", tuple(parts), tuple(tests))


def advantages(study: Study, frame: list[Result]) -> dict[str, dict[str, Part]]:
    """Return what the rows of `most` retain more than their `over`, for each claim with `most`.

    Returns:
        By title of the table, with the label of `over`, and by label of the row.
    """
    found: dict[str, dict[str, Part]] = {}
    for claim in study.claims.values():
        for block in claims.compared(study, claim) if claim.most else ():
            rows = {row.name: row for row in row_values(study, block, frame)}
            parts = found.setdefault(f"{block.title}: over {rows[claim.over].label}", {})
            for name in claim.most:
                gap = estimate([rows], _gap([name], claim.over), RETAINED)
                parts.setdefault(rows[name].label, gap.part(rows[name].label))
    return found


def _advantage(tables: Sequence[Rows], claim: Claim) -> tuple[list[Part], Tests]:
    """Test that the mean of the rows and most of them retain more than another row."""
    gaps = {row: estimate(tables, _gap([row], claim.over), RETAINED) for row in claim.most}
    mean = estimate(tables, _gap(claim.most, claim.over), RETAINED)
    mean_part, above, below = _mean(mean, gaps, f"mean of {len(gaps)} rows - {claim.over}")
    parts = [mean_part]
    parts += [one.part(f"{row} - {claim.over} on {RETAINED}") for row, one in gaps.items()]
    halving = _of_halving(tables, claim)
    if halving is not None:
        parts.append(halving.part(f"mean of {len(gaps)} rows - {claim.over} on {HALVING}"))
    known = [one.difference for one in gaps.values() if one.difference is not None]
    if mean.difference is None or len(known) < len(gaps):
        return parts, []
    better = statistics.holm([one.above() for one in known])
    worse = statistics.holm([one.below() for one in known])
    most, against = (math.ceil(share * len(known)) for share in (_MOST, _AGAINST))
    enough = sum(p < ALPHA for p in better) >= most and min(worse) >= ALPHA
    p_fails = min(1.0, 2 * min(below, sorted(worse)[against - 1]))  # either of two tests
    tests = [(HOLDS, above if enough else 1.0), (FAILS, p_fails)]
    other = halving.difference if halving else None
    if other is not None and other.mean * mean.difference.mean < 0:
        tests = [(DEPENDS, min(p for _, p in tests))]
    return parts, _scoped(tests, networks=mean.networks)


def _narrowing(tables: Sequence[Rows], claim: Claim) -> tuple[list[Part], Tests]:
    """Test that the mean advantage in a second table is at most half of that in the first one."""
    rows, over = claim.most, claim.over

    def difference(factor: float, members: Sequence[str]) -> Estimate:
        second = {key: -factor * weight for key, weight in _gap(members, over, table=1).items()}
        return estimate(tables, {**_gap(members, over), **second}, RETAINED)

    halved, plain = ({row: difference(factor, [row]) for row in rows} for factor in (2, 1))
    first, second = f"mean advantage in {claim.table}", f"that in {claim.narrows}"
    half = difference(2, rows)
    half_part, by_half, _ = _mean(half, halved, f"{first} - 2 * {second}")
    plain_part, narrower, wider = _mean(difference(1, rows), plain, f"{first} - {second}")
    parts, before = _advantage(tables[:1], claim)
    found = [half_part, plain_part, *parts]
    if not before or half_part.ours is None:
        return found, []
    p_before = next((p for state, p in before if state.startswith(HOLDS)), 1.0)
    found_p = {HOLDS: by_half, NARROWS: narrower, FAILS: wider}
    tests = [(state, max(p, p_before)) for state, p in found_p.items()]  # there is an advantage
    return found, _scoped(tests, networks=half.networks)


def _influence(
    tables: Sequence[Rows], comparisons: Mapping[str, factors.Weights], margin: float
) -> tuple[list[Part], Tests]:
    """Test whether a factor changes what rows retain by more than a margin, or by less."""
    sums = {
        text: estimate(tables, {(0, row): weight for row, weight in weights.items()}, RETAINED)
        for text, weights in comparisons.items()
    }
    parts = [one.part(f"{text} on {RETAINED}, margin {margin:g}") for text, one in sums.items()]
    known = [one.difference for one in sums.values() if one.difference is not None]
    if len(known) < len(sums):
        return parts, []
    beyond = [2 * min(one.above(margin), one.below(-margin)) for one in known]
    within = [max(one.above(-margin), one.below(margin)) for one in known]
    tests = [(INFLUENCES, min(1.0, len(known) * min(beyond))), (NO_INFLUENCE, max(within))]
    return parts, _scoped(tests, networks=any(one.networks for one in sums.values()))


def estimate(tables: Sequence[Rows], weights: Weights, statistic: str) -> Estimate:
    """Return a weighted sum of what rows retain, averaged over data sets.

    Args:
        tables: rows by name.
        weights: by number of the table and name of the row.
        statistic: `retained` or `e50`.
    """
    runs: dict[str, dict[int, float]] = {}  # by entry and seed: rows of one network pair up
    draws, images, scale = np.zeros(1), math.inf, 1
    columns = (cell.column for rows in tables for cell in next(iter(rows.values())).cells)
    names = dict.fromkeys(column.dataset for column in columns)
    shifts = {dataset: _SHIFT * place for place, dataset in enumerate(names)}
    for (number, name), weight in weights.items():
        row = tables[number][name]
        cells = [cell for cell in row.cells if cell.column.statistic == statistic]
        missing = next(filter(None, (cell.missing or cell.unfinished for cell in cells)), "")
        if missing:
            return Estimate(None, missing=missing)
        for cell in cells:
            share, scale = weight / len(cells), cell.column.scale
            seeds = runs.setdefault(row.entry, {})
            for run in cell.evidence:
                seeds[run.seed] = seeds.get(run.seed, 0.0) + scale * share * run.value
                images = min(images, run.n)
            draws = draws + scale * share * np.roll(cell.replicates, shifts[cell.column.dataset])
    groups = [list(seeds.values()) for seeds in runs.values()]
    if min(map(len, groups)) < 2:
        total = sum(map(fmean, groups))
        return Estimate(Difference(total, float(draws.std()), math.inf), networks=True)
    variance = float(draws.var()) * images
    return Estimate(contrasts.contrast(groups, images=int(images), image_variance=variance))


def _gap(rows: Sequence[str], over: str, *, table: int = 0) -> dict[tuple[int, str], float]:
    return {**{(table, row): 1 / len(rows) for row in rows}, (table, over): -1.0}


def _mean(total: Estimate, singles: Mapping[str, Estimate], text: str) -> tuple[Part, float, float]:
    """Return a mean over rows and its one-sided p-values, that it is above and below zero."""
    part = total.part(f"{text} on {RETAINED}")
    values = [one.difference.mean for one in singles.values() if one.difference is not None]
    if total.difference is None:
        return part, 1.0, 1.0
    if not total.networks:
        return part, total.difference.above(), total.difference.below()
    above, below, interval = contrasts.sign_flips(values)
    text = f"{part.text}, {_ONE_TRAINING}, {sum(value > 0 for value in values)} above zero"
    return Part(text, ours=part.ours, interval=interval), above, below


def _of_halving(tables: Sequence[Rows], claim: Claim) -> Estimate | None:
    """Return the mean advantage on the second statistic, if the table has it."""
    cells = tables[0][claim.over].cells
    if not any(cell.column.statistic == HALVING for cell in cells):
        return None
    return estimate(tables, _gap(claim.most, claim.over), HALVING)


def _scoped(tests: Tests, *, networks: bool) -> Tests:
    return [(f"{state} {NETWORKS}" if networks else state, p) for state, p in tests]
