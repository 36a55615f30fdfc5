"""What the cells of a study need: encoders, heads and evaluations; without torch.

The cells of tables and figures alone decide what is computed: there is no other list to keep in
step with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from robustviews.attacks import Attack, AutoAttack, PgdAttack, WorstOf
from robustviews.datasets import EvaluationFolder
from robustviews.study import tasks
from robustviews.study.columns import CLEAN, Column
from robustviews.study.networks import Network, Pretraining, examination, examined
from robustviews.study.schema import Figure, Imported, Row, Run, Study, Table
from robustviews.tasks.table import task_of


@dataclass(frozen=True)
class Cell:
    """One number of a table or figure, and what it takes to compute it."""

    row: str
    column: str  # the column as the study writes it
    measure: Column  # what the column measures
    label: str  # label of the row in tables
    entry: str  # run or imported encoder of the study
    probe: str
    seeds: tuple[int, ...]  # seeds of the run
    networks: tuple[Network, ...]  # encoders on the data set of the column, one per seed
    attack: str | None  # attack whose flags hold the accuracy; None for minutes
    published: float | Literal["unavailable"] | None  # value of the paper; None if it has none
    options: Row  # what the study says of the row

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the networks."""
        return tuple(network.name for network in self.networks)

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.measure.dataset

    @property
    def metric(self) -> str:
        """`clean`, `minutes` or the name of an attack."""
        return self.measure.metric

    @property
    def eps(self) -> float | None:
        """Radius in 1/255, for attacks."""
        return self.measure.eps


def options_of(study: Study, entry: str) -> Run | Imported:
    """Return the options of a run or of an imported encoder."""
    return study.runs.get(entry) or study.encoders[entry]


def seeds_of(study: Study, entry: str) -> tuple[int, ...]:
    """Return the seeds of a run; those of the heads of an imported encoder."""
    if entry in study.encoders:
        return (0,)
    own = study.runs[entry].seeds
    return study.seeds if own is None else own


@cache
def pretrainings(study: Study) -> dict[str, Pretraining]:
    """Return every pretraining that a cell needs, by name."""
    needed = (network.pretraining for network in networks(study).values())
    return {pretraining.name: pretraining for pretraining in needed if pretraining}


@cache
def networks(study: Study) -> dict[str, Network]:
    """Return every encoder on every data set that a cell or its head needs, by name."""
    taught = (
        network.taught
        for cell in cells_of(study)
        if study.probes[cell.probe].trained
        for network in cell.networks
    )
    return networks_of(study) | {network.name: network for network in taught}


def networks_of(study: Study, *blocks: Table | Figure) -> dict[str, Network]:
    """Return the encoders, on data sets, that the cells of some tables and figures need."""
    needed = (network for cell in cells_of(study, *blocks) for network in cell.networks)
    return {network.name: network for network in needed}


def heads(study: Study) -> list[tuple[str, str]]:
    """Return every (run name, probe) to train, including heads that other heads start from."""
    needed: dict[tuple[str, str], None] = {}
    for cell in cells_of(study):
        for run in (network.taught.name for network in cell.networks):
            start = study.probes[cell.probe].starts_from
            if start:
                needed[run, start] = None
            if study.probes[cell.probe].trained:
                needed[run, cell.probe] = None
    return list(needed)


def evaluations(study: Study, *blocks: Table | Figure) -> list[tuple[str, str, str]]:
    """Return every (run name, probe, attack) that a cell needs; a worst case follows its parts.

    Only the cells of some tables and figures count; all when none is given.
    """
    needed = {
        (run, cell.probe, attack): None
        for cell in cells_of(study, *blocks)
        if cell.attack is not None
        for run in cell.runs
        for attack in (*parts(study, cell.attack), cell.attack)
    }
    return list(needed)


def parts(study: Study, attack: str) -> tuple[str, ...]:
    """Return the attacks whose flags a worst case combines; none for other attacks."""
    options = study.attacks[attack]
    return options.of if isinstance(options, WorstOf) else ()


@cache
def attacked(study: Study, *blocks: Table | Figure) -> dict[str, list[str]]:
    """Return the probes of each encoder whose heads some cell shows under an attack.

    The encoders are named as in `examination`; blocks as in `evaluations`.
    """
    probes: dict[str, dict[str, None]] = {}
    for cell in cells_of(study, *blocks):
        if cell.measure.attack is not None:
            for run in cell.runs:
                name = examination(study, run, cell.probe)
                probes.setdefault(name, {})[cell.probe] = None
    return {run: list(names) for run, names in probes.items()}


def weaker(study: Study, run: str, probe: str, attack: str) -> list[str]:
    """Return the attacks on a head that AutoAttack must not fall behind; none for other attacks."""
    strong = study.attacks[attack]
    if not isinstance(strong, AutoAttack):
        return []
    return [
        name
        for name in _attacks_on_heads(study)[run, probe]
        if not isinstance(study.attacks[name], AutoAttack | WorstOf)
        and study.attacks[name].norm == strong.norm
        and not set(strong.eps).isdisjoint(study.attacks[name].eps)
    ]


@cache
def _attacks_on_heads(study: Study) -> dict[tuple[str, str], list[str]]:
    attacks: dict[tuple[str, str], list[str]] = {}
    for run, probe, attack in evaluations(study):
        attacks.setdefault((run, probe), []).append(attack)
    return attacks


def attack_on(study: Study, probe: str, attack: str) -> Attack:
    """Return the options of an attack on heads of a probe: `ncrop_images` become its `images`."""
    options = study.attacks[attack]
    if not isinstance(options, PgdAttack) or options.ncrop_images is None:
        return options
    images = options.ncrop_images if study.probes[probe].stack > 1 else options.images
    return replace(options, images=images, ncrop_images=None)


def example_run(study: Study) -> str:
    """Return the run whose views the report shows, the first with the most views; "" if none."""
    runs = pretrainings(study)
    return max(runs, key=lambda name: study.runs[runs[name].entry].views.count, default="")


def datasets(study: Study) -> list[str]:
    """Return the data sets that encoders or heads are trained on."""
    trained = [pretraining.dataset for pretraining in pretrainings(study).values()]
    return list(dict.fromkeys([*trained, *(one.dataset for one in networks(study).values())]))


def dataset_of(study: Study, rule: str, name: str) -> str:
    """Return the data set of a computing job, by its rule and name."""
    if rule == "data":
        return name.rpartition("-")[0]
    if rule == "pretrain":
        return pretrainings(study)[name].dataset
    return networks(study)[examined(name)].dataset


def encoders(study: Study) -> list[str]:
    """Return the imported encoders that a cell needs."""
    needed = (network.encoder for network in networks(study).values())
    return [name for rule, name in dict.fromkeys(needed) if rule == "encoder"]


def example_attacks(study: Study) -> tuple[Cell, ...]:
    """Return the cells of one attacked column of the main table.

    The column is the middle one of the attacked columns of the first attacked data set; without a
    table or an attacked column there is none. An attack without steps makes no images.
    """
    main = next(iter(study.tables.values()), None)
    return _example(study, main) if main else ()


def examples(study: Study) -> dict[str, tuple[Cell, ...]]:
    """Return the cells whose adversarial images the report shows, by task.

    Of each task they are those of `example_attacks`, in the first table that has some.
    """
    found: dict[str, tuple[Cell, ...]] = {}
    for table in study.tables.values():
        shown = _example(study, table)
        if shown:
            found.setdefault(study.probes[shown[0].probe].task.name, shown)
    return found


def _example(study: Study, table: Table) -> tuple[Cell, ...]:
    attacked = [
        cell
        for cell in cells(study, table)
        if cell.eps is not None
        and not cell.measure.score
        and study.attacks[cell.measure.metric].steps > 0
    ]
    columns = list(dict.fromkeys(c.column for c in attacked if c.dataset == attacked[0].dataset))
    return tuple(cell for cell in attacked if cell.column == columns[len(columns) // 2])


def label(study: Study, entry: str) -> str:
    """Return the label of a run or imported encoder, or its name if it has no label."""
    return options_of(study, entry).label or entry


@cache
def cells(study: Study, table: Table | Figure) -> list[Cell]:
    """Return the cells of a table or figure, row by row.

    Clean accuracy is read from the flags of the first attack among the table's columns of the same
    data set, so that both accuracies are of the same images.
    """
    return [
        _cell(study, table, row, number)
        for row in table.rows
        for number in range(len(table.columns))
    ]


def _cell(study: Study, table: Table | Figure, row_name: str, number: int) -> Cell:
    row, column = table.rows[row_name], table.columns[number]
    measure = Column.parse(column)
    attack = measure.attack
    if attack is not None:
        measure = replace(measure, norm=study.attacks[attack].norm)
    if measure.metric == CLEAN:
        attack = _attack_of_clean(study, table, measure.dataset)
    seeds = seeds_of(study, row.run)
    return Cell(
        row=row_name,
        column=column,
        measure=measure,
        label=row.label or label(study, row.run),
        entry=row.run,
        probe=row.probe,
        seeds=seeds,
        networks=tuple(_network(study, row, measure.dataset, seed) for seed in seeds),
        attack=attack,
        published=row.published[number] if row.published else None,
        options=row,
    )


def trained_on(study: Study, dataset: str) -> str:
    """Return the data set on which heads for a data set are trained; itself if nothing else is."""
    options = study.datasets.get(dataset)
    if isinstance(options, EvaluationFolder) and options.classes_of:
        return options.classes_of
    return dataset


def _network(study: Study, row: Row, dataset: str, seed: int) -> Network:
    pretraining, source = None, trained_on(study, dataset)
    if row.run not in study.encoders:
        pretraining = Pretraining(row.run, row.pretrained_on or source, seed)
    other = "" if source == dataset else source
    return Network(row.run, dataset, seed, pretraining, other)


def _attack_of_clean(study: Study, table: Table | Figure, dataset: str) -> str:
    for measure in map(Column.parse, table.columns):
        if measure.dataset == dataset and measure.attack:
            return measure.attack
    task = task_of(study.datasets.get(dataset))
    fitting = (name for name in study.attacks if tasks.of_attack(study, name) is task)
    return next(fitting, next(iter(study.attacks)))


def blocks(study: Study) -> dict[str, Table | Figure]:
    """Return all tables and figures by name."""
    return {**study.tables, **study.figures}


def cells_of(study: Study, *shown: Table | Figure) -> Iterator[Cell]:
    """Yield the cells of some tables and figures; of all when none is given."""
    for block in shown or blocks(study).values():
        yield from cells(study, block)
