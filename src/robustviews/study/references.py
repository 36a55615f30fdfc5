"""References between the blocks of a study: every name exists and may be used where it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from robustviews.attacks import fraction
from robustviews.methods import DivisionError, divide
from robustviews.probe import LinearProbe, Probe
from robustviews.regimes import passes_over_data
from robustviews.sanity import Stepwise, unreached
from robustviews.study.claims import check_claims
from robustviews.study.columns import CLEAN, FORM, MINUTES, Column
from robustviews.study.located import LocatedDict, show
from robustviews.study.problems import Place, Problems, nearest
from robustviews.study.schema import Figure, Row, Run, Study, Table

_METRICS = (CLEAN, MINUTES)


def check_references(study: Study, tree: LocatedDict, problems: Problems) -> None:
    """Report every reference that is wrong.

    Args:
        study: the study, without entries that have mistakes of their own.
        tree: the YAML of the study, for places and for the names of all entries.
        problems: collects the mistakes.
    """
    _Checker(study, tree, problems).check()
    if isinstance(study.claims, dict):
        check_claims(study, tree, problems)


class _Checker:
    def __init__(self, study: Study, tree: LocatedDict, problems: Problems) -> None:
        self._study, self._tree, self._add = study, tree, problems.add
        blocks = ("datasets", "runs", "probes", "attacks")
        self._names: dict[str, set[str]] = {block: set(tree.get(block, ())) for block in blocks}
        self._names["probes"].add("own")

    def check(self) -> None:
        study, tree = self._study, self._tree
        if isinstance(study.seeds, tuple):
            self._check_list(tree, "seeds", study.seeds)
        folders: dict[str, str] = {}
        for name, run in study.runs.items():
            self._check_run(run, tree["runs"][name])
            for dataset in run.datasets:
                other = folders.setdefault(f"{name}-{dataset}", name)
                if other != name:
                    message = f"results on `{dataset}` would use the folder of run `{other}`"
                    self._add(tree["runs"].at[name], f"{message}; rename one of the two")
        for name, probe in study.probes.items():
            if probe.starts_from:
                node = tree["probes"][name]
                self._check_start(probe, probe.starts_from, node.at.get("rle_start", node.place))
            if isinstance(probe, Stepwise):
                self._check_reach(probe, tree["probes"][name])
        for name, attack in study.attacks.items():
            # Flags are stored by the printed radius.
            self._check_list(tree["attacks"][name], "eps", [f"{eps:g}" for eps in attack.eps])
            if isinstance(attack, Stepwise):
                self._check_reach(attack, tree["attacks"][name])
        self._check_blocks()

    def _check_blocks(self) -> None:
        """Check all tables and figures; without any, there is nothing to compute."""
        study, tree = self._study, self._tree
        if not tree.get("tables") and not tree.get("figures"):
            message = "expected a table or figure, found none: nothing to compute; add one"
            self._add(tree.at["tables"], message)
        for block, tables in (("tables", study.tables), ("figures", study.figures)):
            for name, table in tables.items():
                self._check_table(table, tree[block][name])

    def _check_list(self, node: LocatedDict, key: str, values: Sequence[Any]) -> None:
        """Report an empty list, and entries that occur twice."""
        if not values:
            self._add(node.at[key], "expected at least one entry, found none")
        for number, value in enumerate(values):
            if value in values[:number]:
                self._add(node[key].at[number], f"{value} occurs twice; remove one of them")

    def _known(self, block: str, name: str, place: Place) -> bool:
        """Return whether a block defines a name; report a name that it does not define."""
        known = self._names[block]
        if name not in known:
            self._add(place, f"no `{name}` in `{block}`; {nearest(name, known)}")
        return name in known

    def _check_run(self, run: Run, node: LocatedDict) -> None:
        self._check_list(node, "datasets", run.datasets)
        for dataset, place in zip(run.datasets, node["datasets"].at, strict=True):
            self._known("datasets", dataset, place)
        if run.seeds is not None:
            self._check_list(node, "seeds", run.seeds)
        try:
            run.method.check_views(run.views.count)
        except ValueError as error:
            views = node.get("views", node)
            self._add(views.at.get("count", node.at.get("views", node.place)), str(error))
        self._check_warmup(run, node.get("optimizer", node))
        if run.encoder.hidden is None and not run.method.own_projector:
            encoder = node.get("encoder", node)
            message = "this method adds no projector of its own; expected a number, found null"
            self._add(encoder.at.get("hidden", encoder.place), message)
        self._check_ranks(run, node)

    def _check_warmup(self, run: Run, node: LocatedDict) -> None:
        """Report a warm-up that leaves no pass for the schedule."""
        warmup, regime = run.optimizer.warmup_epochs, run.regime
        passes = passes_over_data(
            run.epochs, run.epochs_meaning, regime.updates_per_batch, run.views.count
        )
        if warmup >= passes:
            message = f"{warmup} of {passes} passes leave none for the schedule; lower it"
            self._add(node.at.get("warmup_epochs", node.place), message)

    def _check_ranks(self, run: Run, node: LocatedDict) -> None:
        """Report a training that cannot be divided among the ranks."""
        ranks = getattr(self._study.runtime, "ranks", 1)  # missing if `runtime` has mistakes
        try:
            divide(run.method, views=run.views.count, batch_size=run.batch_size, ranks=ranks)
        except DivisionError as error:
            self._add(node.place, f"{error} (runtime.ranks)")

    def _check_start(self, probe: Probe, start: str, place: Place) -> None:
        head = self._study.probes.get(start, LinearProbe(feature=probe.feature))
        if start not in self._names["probes"]:
            near = nearest(start, {"fresh", *self._names["probes"]})
            self._add(place, f"expected `fresh` or a probe of kind linear, found `{start}`; {near}")
        elif head.steps or head.draws_views or not head.trained:
            self._add(place, f"`{start}` is not a linear probe on whole images; use kind: linear")
        elif head.feature != probe.feature:
            self._add(
                place,
                f"`{start}` reads the feature {head.feature}, this probe {probe.feature}; "
                "give both the same",
            )

    def _check_reach(self, options: Stepwise, node: LocatedDict) -> None:
        """Report steps that cannot reach the surface of the ball, unless a reason is given."""
        missed = unreached(options)
        if missed and not options.weak:
            steps = f"{options.steps} steps of {fraction(options.step_size)}"
            text = f"{steps} cannot reach {', '.join(map(fraction, missed))}"
            least = math.ceil(100 * max(missed) / options.steps - 1e-6) / 100
            fix = f'set step_size to {least:g} or more, or write why: weak: "..."'
            self._add(node.at.get("steps", node.at.get("step_size", node.place)), f"{text}; {fix}")

    def _check_table(self, table: Table | Figure, node: LocatedDict) -> None:
        self._check_list(node, "columns", table.columns)
        self._check_list(node, "rows", list(node["rows"]))
        columns = []
        for column, place in zip(table.columns, node["columns"].at, strict=True):
            try:
                measure = Column.parse(column)
            except ValueError:
                self._add(place, f"expected {FORM}, found {show(column)}")
                continue
            if self._known("datasets", measure.dataset, place) and self._check_metric(
                place, measure
            ):
                columns.append((measure.dataset, measure.metric))
        self._check_kind(table, {metric for _, metric in columns}, node)
        for name, row in table.rows.items():
            self._check_row(row, columns, len(table.columns), node["rows"][name])

    def _check_kind(self, table: Table | Figure, metrics: set[str], node: LocatedDict) -> None:
        """Report a figure without a column that its kind needs."""
        if isinstance(table, Table):
            return
        needed = {"tradeoff": "clean", "cost": "minutes"}.get(table.kind)
        if needed and needed not in metrics:
            message = f"kind: {table.kind} needs a column <dataset>/{needed}"
            self._add(node.at["columns"], message)

    def _check_metric(self, place: Place, measure: Column) -> bool:
        """Return whether metric and radius of a column are right; report a mistake in them."""
        message = ""
        dataset, metric, eps = measure.dataset, measure.metric, measure.eps
        attack = self._study.attacks.get(metric)
        if metric in _METRICS:
            if eps is not None:
                message = f"`{metric}` takes no radius; write {dataset}/{metric}"
            elif metric == CLEAN and not self._names["attacks"]:
                message = "clean accuracy is read from an attack's flags; add one to `attacks`"
        elif metric not in self._names["attacks"]:
            near = nearest(metric, {*_METRICS, *self._names["attacks"]})
            message = f"no `{metric}` in `attacks`; {near}"
        elif attack is not None and eps not in attack.eps:
            choices = " or ".join(f"{dataset}/{metric}/{radius:g}" for radius in attack.eps)
            message = f"`{metric}` needs a radius; write {choices}"
            if eps is not None:
                missing = f"`{metric}` has no results at eps {eps:g}"
                message = f"{missing}; write {choices}, or add to its `eps`"
        if message:
            self._add(place, message)
        return not message

    @staticmethod
    def _lacks(run: Run, probe: Probe) -> bool:
        """Return whether a probe reads a pre-feature that the encoder of a run does not have."""
        alone = run.encoder.hidden is None and run.method.own_projector
        return alone and probe.trained and probe.feature == "prefeature"

    def _check_row(
        self, row: Row, columns: list[tuple[str, str]], count: int, node: LocatedDict
    ) -> None:
        """Check a row against the data set and metric of each valid column."""
        if row.published and len(row.published) != count:
            message = f"expected {count} values, one per column (null if the paper has none)"
            self._add(node.at["published"], f"{message}, found {len(row.published)}")
        self._known("runs", row.run, node.at["run"])
        self._known("probes", row.probe, node.at["probe"])
        run, probe = self._study.runs.get(row.run), self._study.probes.get(row.probe)
        if run and run.datasets and self._names["datasets"].issuperset(run.datasets):
            for dataset in dict.fromkeys(dataset for dataset, _ in columns):
                if dataset not in run.datasets:
                    message = f"a column needs `{dataset}`, but run `{row.run}` has only "
                    self._add(node.at["run"], message + ", ".join(run.datasets))
        if run and probe and probe.trained == run.method.supervised:
            expected = "probe `own`" if run.method.supervised else "a trained probe"
            message = f"run `{row.run}` needs {expected}, found `{row.probe}`"
            self._add(node.at["probe"], message)
        if run and probe and self._lacks(run, probe):
            message = f"`{row.probe}` reads the pre-feature, which run `{row.run}` has not"
            self._add(node.at["probe"], f"{message} (encoder.hidden: null); use feature: backbone")
        if probe and probe.stack > 1:
            for metric in dict.fromkeys(metric for _, metric in columns):
                attack = self._study.attacks.get(metric)
                if attack and attack.whole_images:
                    message = f"`{metric}` needs whole images, which `{row.probe}` does not see"
                    self._add(node.at["probe"], f"{message}; attack it with kind: pgd")
