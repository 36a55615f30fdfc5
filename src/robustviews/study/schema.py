"""The keys of a study file: one frozen dataclass per block, with defaults, ranges and units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robustviews.attacks import Attack
from robustviews.augment import Views
from robustviews.commands import DEFAULT_STUDY
from robustviews.datasets import Dataset
from robustviews.methods import Method
from robustviews.options import option, switch
from robustviews.probe import Probe
from robustviews.regimes import Regime
from robustviews.sanity import Sanity

MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Encoder:
    """Architecture of an encoder.

    Attributes:
        backbone: residual network, without its last layer.
        width: channels of the first stage; 64 is the standard network.
        stem: `cifar` is a 3x3 stride-1 convolution without max-pooling, `imagenet` 7x7 stride 2
            with it.
        hidden: width of the pre-feature and of the projector's hidden layer. null: a backbone
            alone, to which the method adds a projector of its own; probes then read the feature
            `backbone`.
        projection: dimension D of the projections z, if `hidden` is a number.
        layout: memory format of weights and activations. `channels_last` is faster on GPUs and
            CPUs; only rounding depends on it.
    """

    backbone: Literal["resnet18", "resnet50"] = "resnet18"
    width: int = option(64, ge=1)
    stem: Literal["cifar", "imagenet"] = "cifar"
    hidden: int | None = option(4096, ge=1)
    projection: int = option(1024, ge=1)
    layout: Literal["channels_last", "contiguous"] = "channels_last"


@dataclass(frozen=True)
class Optimizer:
    """How parameters are updated.

    Attributes:
        name: `lars` is SGD with layer-wise rates (the paper's), `sgd` and `adam` are torch's.
        lr: initial learning rate.
        momentum: momentum of LARS and SGD; Adam ignores it.
        nesterov: whether that momentum is Nesterov's, which looks one step ahead.
        weight_decay: L2 penalty; LARS does not apply it to 1-d parameters.
        eta: LARS trust coefficient.
        schedule: `cosine` to zero, `triangular` from zero to `lr` and back, or `constant`.
        schedule_horizon: unit of the schedule's length. Code: `minibatches`, although the schedule
            steps at every update, so that the rate of free training with m = 3 goes
            0.3 -> 0 -> 0.3 -> 0. Paper: `updates`.
        warmup_epochs: passes over the data in which the rate first rises linearly from `warmup_lr`
            to `lr`; the schedule takes the remaining ones.
        warmup_lr: rate at the start of the warm-up (solo-learn: 3e-5).
    """

    name: Literal["lars", "sgd", "adam"] = "lars"
    lr: float = option(0.3, gt=0)
    momentum: float = option(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = option(1e-4, ge=0)
    eta: float = option(0.005, gt=0)
    schedule: Literal["cosine", "triangular", "constant"] = "cosine"
    schedule_horizon: Literal["minibatches", "updates"] = switch(
        "minibatches", code={"free": ("minibatches",)}, paper={"free": ("updates",)}
    )
    warmup_epochs: int = option(0, ge=0)
    warmup_lr: float = option(3e-5, ge=0)


@dataclass(frozen=True)
class Run:
    """One way of pretraining, for each of its data sets and seeds.

    Attributes:
        method: views and loss.
        regime: how a minibatch becomes updates.
        datasets: names of data sets of the study.
        epochs: length of the training, in the unit of `epochs_meaning`.
        label: name of the run in tables; empty takes the run's key.
        seeds: overrides the seeds of the study.
        views: how views are made from images.
        encoder: architecture.
        optimizer: update rule and schedule.
        epochs_meaning: `passes` over the data, each minibatch replayed m times (the code, and the
            paper's own times); `replays` counts each replay, so that N epochs are N/m passes;
            `views` counts each replayed crop, N/(C m) passes.
        batch_size: images in a minibatch (code: SimCLR 512, EMP-SSL 128, free 100; unused paths
            name 50, 256).
        precision: arithmetic of the encoder in training. `tf32` rounds the factors of convolutions
            to TF32, as torch does by default on a GPU (code; on a CPU: fp32); `bf16` computes
            convolutions and matrix products in bf16. Losses, views and scores are always fp32.
        compile: compile the encoder with torch.compile on a CUDA device, before training time is
            counted. If that fails, training runs uncompiled and the record states the reason.
    """

    method: Method
    regime: Regime
    datasets: tuple[str, ...]
    epochs: int = option(..., ge=1)
    label: str = ""
    seeds: tuple[int, ...] | None = option(None, ge=0, le=MOST_SEED)
    views: Views = Views()
    encoder: Encoder = Encoder()
    optimizer: Optimizer = Optimizer()
    epochs_meaning: Literal["passes", "replays", "views"] = switch(
        "passes", code=("passes",), paper=("passes",)
    )
    batch_size: int = switch(
        100,
        ge=2,
        code={
            "emp_ssl/standard": (128,),
            "emp_ssl/pgd": (128,),
            "emp_ssl/free": (100,),
            "simclr": (512,),
            "supervised": (),
        },
        paper={"emp_ssl/standard": (128,), "simclr/standard": (512,), "supervised": ()},
    )
    precision: Literal["fp32", "tf32", "bf16"] = switch("tf32", code=("tf32",))
    compile: bool = False


@dataclass(frozen=True)
class Imported:
    """An encoder from a checkpoint of another program; see docs/import.md.

    Attributes:
        kind: the only one.
        file: the checkpoint, relative to the project.
        sha256: SHA-256 of the file, as `robustviews import` prints it; `unknown` until it is here.
        source: published checkpoint of docs/import.md; `robustviews check` prints where it is.
        normalise: how its training normalised images; null if the file tells. `imagenet`, `swav`,
            `cifar10`, `cifar100`, `none`, or `mean,mean,mean/std,std,std`.
        weights: which of several networks in the file, such as `teacher`.
        padding: 1 or 2, of a 3x3 stem; null if the file tells.
        classifier: keep the file's classifier, of the same classes, which probe `own` reads.
        label: name in tables; empty takes its key.
        views: views from which an n-crop probe draws.
    """

    file: str
    sha256: str
    kind: Literal["imported"] = "imported"
    source: str = ""
    normalise: str | None = None
    weights: str | None = None
    padding: int | None = option(None, ge=1, le=2)
    classifier: bool = False
    label: str = ""
    views: Views = Views()


@dataclass(frozen=True)
class Runtime:
    """How jobs run on a machine.

    Attributes:
        threads: CPU threads of a process; results are the same bytes only for the same number.
        ranks: processes that train one encoder together, each on its own GPU if there are GPUs;
            they divide the views of EMP-SSL, or the images of a minibatch, evenly. Only rounding
            depends on it.
        deterministic: refuse operations whose result may differ from run to run.
        checkpoint_minutes: minutes between saved states of a training, probe or attack; an
            interrupted job resumes from the last one. 0 saves after every minibatch.
        evaluation_batch: views per batch when probes compute features and when attacks run. It
            decides which random draws an image gets, and so belongs to the spec of an attack.
        fold_batchnorm: fold the batch norms of a trained encoder into its convolutions for probes
            and attacks, which saves time; only rounding depends on it.
    """

    threads: int = option(1, ge=1, le=4096)
    ranks: int = option(1, ge=1, le=4096)
    deterministic: bool = True
    checkpoint_minutes: float = option(10.0, ge=0)
    evaluation_batch: int = option(500, ge=1)
    fold_batchnorm: bool = False


@dataclass(frozen=True)
class Row:
    """One row of a table, or one group of a figure.

    Attributes:
        run: name of a run or of an imported encoder of the study.
        probe: name of a probe of the study, `own` for a network's own classifier.
        pretrained_on: data set of the run's pretraining, if it is not that of the columns, on which
            heads are trained and attacked.
        level: value of a factor, for `kind: factor` and `influences`: a number or a word.
        group: rows of a group differ in nothing but the factor, such as the name of a method.
        label: text of the first column; empty takes the run's label.
        published: the paper's value for each column (accuracies in percent), `unavailable` if the
            paper has a value that we could not read, null if it has none. Empty if the paper has no
            such row.
        head_for_attack: which head the attacks meet. `robust`: that of the row, as the paper's
            attacks on r-LE. `standard`: the row has a standard head where the published values are
            of r-LE (code: the SimCLR script tests the robust head on clean images only).
    """

    run: str
    probe: str
    label: str = ""
    published: tuple[float | Literal["unavailable"] | None, ...] = option((), ge=0)
    pretrained_on: str = ""
    level: float | str | None = option(None, gt=0)
    group: str = ""
    head_for_attack: Literal["robust", "standard"] = switch(
        "robust", code={"emp_ssl": ("robust",), "simclr": ("standard",)}, paper=("robust",)
    )


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class Table:
    """A table: rows are (run, probe), columns are (data set, attack, radius).

    Attributes:
        title: line above the table.
        columns: `<dataset>/clean`, `<dataset>/<attack>/<eps>`, `<dataset>/<attack>/retained` (mean
            over radii of accuracy / clean accuracy), `<dataset>/<attack>/e50` (radius that halves
            it), or `<dataset>/minutes` (of pretraining).
        rows: rows by short name, in order.
        source: source of the published values, such as `Table 1`.
        kind: layout, a key of `robustviews.reporting.tables.TABLES`.
        note: line below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: dict[str, Row]
    source: str = ""
    kind: Literal["comparison"] = "comparison"
    note: str = ""


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure, from the same rows and columns as a table.

    Attributes:
        title: line above the figure.
        columns: as in a table.
        rows: as in a table.
        source: figure of the paper that this one repeats.
        kind: `bars` (one group per row, one panel per data set), `tradeoff` (clean against robust
            accuracy), `cost` (minutes of pretraining against it), `radius` (accuracy against
            radius, one line per row) or `factor` (`retained` against `level`, one line per group).
        note: line below the figure.
    """

    title: str
    columns: tuple[str, ...]
    rows: dict[str, Row]
    source: str = ""
    kind: Literal["bars", "tradeoff", "cost", "radius", "factor"] = "bars"
    note: str = ""


@dataclass(frozen=True)
class Verdicts:
    """When an accuracy counts as the published one, in percentage points.

    Attributes:
        margin: largest difference that counts as reproduced.
        low_margin: the same where the published value is below `low_below`, or ours is below 1 % or
            above 99 %.
        low_below: see `low_margin`, in percent.
        spread: standard deviation between trainings that is assumed while no row of a column has
            two seeds.
    """

    margin: float = option(2.0, gt=0)
    low_margin: float = option(1.0, gt=0)
    low_below: float = option(10.0, ge=0, le=100)
    spread: float = option(1.5, gt=0)


@dataclass(frozen=True)
class Claim:
    """A claim about the rows of a table: `holds`, `most` or `influences`.

    Attributes:
        says: the claim in words.
        table: table or figure whose rows and columns are compared.
        holds: inequalities that all have to hold, such as `row2 >= row3 - 1 on cifar10/clean`.
        most: rows of which most, and their mean, have to retain more than `over`.
        over: row with which those of `most` are compared.
        narrows: table with the same rows, where that mean advantage has to be at most half.
        influences: smallest relevant influence of `level`, in points of `retained`.
    """

    says: str
    table: str
    holds: tuple[str, ...] = ()
    most: tuple[str, ...] = ()
    over: str = ""
    narrows: str = ""
    influences: float | None = option(None, gt=0)


@dataclass(frozen=True, eq=False)
class Study:
    """A whole study: everything that decides its numbers.

    Studies are compared and hashed by identity.

    Attributes:
        study: slug; results lie under `results/<study>/`.
        title: one line, for readers.
        datasets: by name.
        runs: by name, merged with the `defaults` that each lists in `use`.
        encoders: imported encoders by name; no run has the same name.
        probes: by name; `own` always exists.
        attacks: by name; `eps` and step sizes in 1/255.
        tables: by name.
        figures: by name.
        verdicts: when an accuracy counts as the published one.
        claims: claims of the paper by a short name, such as `F1`.
        seeds: seeds of every run without `seeds` of its own.
        demonstration: notice on every table of a study that reproduces nothing; else empty.
        runtime: how jobs run on this machine.
        sanity: how much is spent on the checks of each attacked head.
        file: path of the study file, for messages; not a key of study files.
    """

    study: str
    title: str
    datasets: dict[str, Dataset]
    runs: dict[str, Run]
    probes: dict[str, Probe]
    attacks: dict[str, Attack]
    tables: dict[str, Table]
    figures: dict[str, Figure] = field(default_factory=dict)
    encoders: dict[str, Imported] = field(default_factory=dict)
    verdicts: Verdicts = Verdicts()
    claims: dict[str, Claim] = field(default_factory=dict)
    seeds: tuple[int, ...] = option((0,), ge=0, le=MOST_SEED)
    demonstration: str = ""
    runtime: Runtime = Runtime()
    sanity: Sanity = Sanity()
    file: str = field(default=DEFAULT_STUDY, metadata={"key": False})
