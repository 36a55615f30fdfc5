"""References between the blocks of a study: every name exists and may be used where it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustviews.attacks import Attack, WorstOf
from robustviews.methods import DivisionError, divide
from robustviews.probe import LinearProbe, LogisticProbe, Probe, RobustLinearProbe
from robustviews.sanity import Stepwise
from robustviews.study import evaluation_sets, plan, tasks
from robustviews.study.claims import check_claims
from robustviews.study.columns import CLEAN, FORM, HALVING, MINUTES, RETAINED, Column
from robustviews.study.factors import check_levels
from robustviews.study.imported import check_imported, check_row
from robustviews.study.located import LocatedDict, show
from robustviews.study.problems import Place, Problems, nearest
from robustviews.study.reach import check_reach
from robustviews.study.schema import Figure, Row, Run, Study, Table
from robustviews.study.work import passes_of

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
        blocks = ("datasets", "runs", "encoders", "probes", "attacks")
        self._names: dict[str, set[str]] = {block: set(tree.get(block, ())) for block in blocks}
        self._names["probes"].add("own")

    def check(self) -> None:
        study, tree = self._study, self._tree
        if isinstance(study.seeds, tuple):
            self._check_list(tree, "seeds", study.seeds)
        self._check_datasets_block()
        self._check_runs()
        for name, imported in study.encoders.items():
            check_imported(name, imported, tree["encoders"], self._names["runs"], self._add)
        for name, probe in study.probes.items():
            if probe.starts_from:
                node = tree["probes"][name]
                self._check_start(probe, probe.starts_from, node.at.get("rle_start", node.place))
            if isinstance(probe, Stepwise):
                check_reach(probe, tree["probes"][name], self._add)
        for name, attack in study.attacks.items():
            self._check_attack(attack, tree["attacks"][name])
        self._check_blocks()

    def _check_datasets_block(self) -> None:
        for name, options in self._study.datasets.items():
            node = self._tree["datasets"][name]
            of = getattr(options, "classes_of", "")
            if of and self._known("datasets", of, node.at["classes_of"]):
                evaluation_sets.check_classes_of(self._study, name, node, self._add)

    def _check_runs(self) -> None:
        block, folders = self._tree["runs"], dict[str, str]()
        for name, run in self._study.runs.items():
            self._check_run(run, block[name])
            for dataset in run.datasets:
                other = folders.setdefault(f"{name}-{dataset}", name)
                if other != name:
                    message = f"results on `{dataset}` would use the folder of run `{other}`"
                    self._add(block.at[name], f"{message}; rename one of the two")

    def _check_attack(self, attack: Attack, node: LocatedDict) -> None:
        # Flags are stored by the printed radius.
        self._check_list(node, "eps", [f"{eps:g}" for eps in attack.eps])
        if isinstance(attack, Stepwise):
            check_reach(attack, node, self._add)
        if isinstance(attack, WorstOf):
            self._check_worst(attack, node)

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
        evaluation_sets.check_run(self._study, run, node, self._add)
        tasks.check_run(self._study, run, node, self._add)
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
        warmup, passes = run.optimizer.warmup_epochs, passes_of(run)
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
        elif not isinstance(head, LinearProbe | LogisticProbe):
            self._add(place, f"`{start}` is not a linear probe on whole images; use kind: linear")
        elif head.feature != probe.feature:
            self._add(
                place,
                f"`{start}` reads the feature {head.feature}, this probe {probe.feature}; "
                "give both the same",
            )

    def _check_worst(self, worst: WorstOf, node: LocatedDict) -> None:
        """Report what a worst case and its attacks do not have in common."""
        self._check_list(node, "of", worst.of)
        if len(worst.of) == 1:
            self._add(node.at["of"], "expected two attacks or more, found one; name another")
        parts: dict[str, Attack] = {}
        for name, place in zip(worst.of, node["of"].at, strict=True):
            if not self._known("attacks", name, place) or name not in self._study.attacks:
                continue
            part = parts[name] = self._study.attacks[name]
            if isinstance(part, WorstOf):
                self._add(place, f"`{name}` is a worst case itself; name its attacks")
            missing = [f"{eps:g}" for eps in worst.eps if eps not in part.eps]
            if missing:
                text = f"`{name}` has no results at eps {', '.join(missing)}"
                self._add(place, f"{text}; add to its `eps`, or leave these radii out")
            if part.norm != worst.norm:
                text = f"`{name}` has norm: {part.norm}, this worst case {worst.norm}"
                self._add(place, f"{text}; give both the same")
        tasks.check_worst({**parts}, node.at["of"], self._add)
        counts = [part.images for part in parts.values() if part.images is not None]
        least = min(counts, default=None)
        if len(parts) == len(worst.of) and least != worst.images:
            shown = "null" if least is None else least
            text = f"expected the smallest number of its attacks, found {show(worst.images)}"
            self._add(node.at.get("images", node.place), f"{text}; write images: {shown}")

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
                tasks.check_column(self._study, measure, place, self._add)
            drawn = RETAINED if table.kind == "factor" else ""
            if isinstance(table, Figure) and measure.statistic not in ("", drawn):
                message = f"`{measure.statistic}` is a column of tables; draw single radii"
                self._add(place, message)
        self._check_kind(table, columns, node)
        for name, row in table.rows.items():
            self._check_published(row, table.columns, node["rows"][name])
            self._check_row(row, columns, node["rows"][name])

    def _check_kind(
        self, table: Table | Figure, columns: list[tuple[str, str]], node: LocatedDict
    ) -> None:
        """Report a figure without a column that its kind needs, for each data set."""
        if isinstance(table, Table):
            return
        if table.kind == "factor":
            check_levels(table, node, node.at["kind"], self._add)
            return
        needed = {"tradeoff": CLEAN, "cost": MINUTES}.get(table.kind)
        for dataset in dict.fromkeys(dataset for dataset, _ in columns):
            metrics = {metric for name, metric in columns if name == dataset}
            lacking = [f"{dataset}/{needed}"] if needed and needed not in metrics else []
            if metrics <= ({*_METRICS} if needed else {MINUTES}):
                lacking.append(f"{dataset}/<attack>/<eps>")
            if lacking:
                message = f"kind: {table.kind} needs a column {' and '.join(lacking)}"
                self._add(node.at["columns"], message)

    def _check_metric(self, place: Place, measure: Column) -> bool:
        """Return whether metric and radius of a column are right; report a mistake in them."""
        message = ""
        dataset, metric, eps = measure.dataset, measure.metric, measure.eps
        attack = self._study.attacks.get(metric)
        if metric in _METRICS:
            if eps is not None or measure.statistic:
                message = f"`{metric}` takes no radius; write {dataset}/{metric}"
            elif metric == CLEAN and not self._names["attacks"]:
                message = "clean accuracy is read from an attack's flags; add one to `attacks`"
        elif metric not in self._names["attacks"]:
            near = nearest(metric, {*_METRICS, *self._names["attacks"]})
            message = f"no `{metric}` in `attacks`; {near}"
        elif attack is not None and eps not in attack.eps and not measure.statistic:
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
        alone = run.method.supervised or (run.encoder.hidden is None and run.method.own_projector)
        return alone and probe.trained and probe.feature == "prefeature"

    def _check_published(self, row: Row, names: Sequence[str], node: LocatedDict) -> None:
        if row.published and len(row.published) != len(names):
            message = f"expected {len(names)} values, one per column (null if the paper has none)"
            self._add(node.at["published"], f"{message}, found {len(row.published)}")
        for name, value in zip(names, row.published, strict=False):
            if value is not None and name.endswith((f"/{RETAINED}", f"/{HALVING}")):
                message = f"`{name}` is compared with no published value; write null"
                self._add(node.at["published"], message)

    def _check_row(self, row: Row, columns: list[tuple[str, str]], node: LocatedDict) -> None:
        """Check a row against the data set and metric of each valid column."""
        self._known("probes", row.probe, node.at["probe"])
        run, probe = self._study.runs.get(row.run), self._study.probes.get(row.probe)
        imported = self._study.encoders.get(row.run)
        if row.run in self._names["encoders"]:
            check_row(row, imported, probe, columns, node, self._add)
        else:
            self._known("runs", row.run, node.at["run"])
        tasks.check_row(self._study, row, probe, columns, node, self._add)
        heads = evaluation_sets.check_row(self._study, row, probe, columns, node, self._add)
        known = run and run.datasets and self._names["datasets"].issuperset(run.datasets)
        if run and known and heads:
            trained = [
                (plan.trained_on(self._study, name), metric)
                for name, metric in columns
                if name in self._study.datasets  # otherwise it has mistakes of its own
            ]
            self._check_datasets(row, run, trained, node)
        if run and probe and not probe.trained and not run.method.supervised:
            message = f"run `{row.run}` needs a trained probe, found `{row.probe}`"
            self._add(node.at["probe"], message)
        if isinstance(probe, RobustLinearProbe) and row.head_for_attack == "standard":
            message = f"`{row.probe}` is a robust head; remove this key, or name a linear probe"
            self._add(node.at["head_for_attack"], message)
        if run and probe and self._lacks(run, probe):
            why = "supervised" if run.method.supervised else "encoder.hidden: null"
            fix = "use feature: backbone" + ", or probe `own`" * run.method.supervised
            message = f"`{row.probe}` reads the pre-feature, which run `{row.run}` has not"
            self._add(node.at["probe"], f"{message} ({why}); {fix}")
        if probe and probe.stack > 1:
            for metric in dict.fromkeys(metric for _, metric in columns):
                attacks = self._study.attacks
                parts = getattr(attacks.get(metric), "of", (metric,))
                if any(name in attacks and attacks[name].whole_images for name in parts):
                    message = f"`{metric}` needs whole images, which `{row.probe}` does not see"
                    self._add(node.at["probe"], f"{message}; attack it with kind: pgd")

    def _check_datasets(
        self, row: Row, run: Run, columns: list[tuple[str, str]], node: LocatedDict
    ) -> None:
        """Report data sets on which the run of a row is not pretrained."""
        if row.pretrained_on:
            if row.pretrained_on not in run.datasets:
                choices = " or ".join(run.datasets)
                message = f"run `{row.run}` is not pretrained on it; expected {choices}"
                self._add(node.at["pretrained_on"], message)
            own = row.probe == "own"
            if own and any(one != row.pretrained_on for one, _ in columns):
                message = "a classifier of its own data set has no probe on another one"
                self._add(node.at["pretrained_on"], message)
            return
        for dataset in dict.fromkeys(dataset for dataset, _ in columns):
            if dataset not in run.datasets:
                message = f"a column needs `{dataset}`, but run `{row.run}` has only "
                text = message + ", ".join(run.datasets)
                fix = f"add it there, or transfer by pretrained_on: {run.datasets[0]}"
                self._add(node.at["run"], f"{text}; {fix}")
