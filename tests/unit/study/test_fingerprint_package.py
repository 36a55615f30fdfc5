"""Digests of this package's own code: which jobs an edit of it reruns."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from robustviews.attacks import ATTACKS, AutoAttack, PgdAttack
from robustviews.augment import Views
from robustviews.datasets import DATASETS, Cifar10, Digits, Subset
from robustviews.methods import METHODS, EmpSsl, SimClr, Supervised
from robustviews.probe import OWN_HEAD, PROBES, LinearProbe, NcropProbe, RobustLinearProbe
from robustviews.regimes import REGIMES, Free, Pgd, Standard
from robustviews.study import Row, Run, Study, Table, fingerprint, plan, specs

COLUMNS = ("digits/pgd/8", "digits/aa/8")
STUDY = Study(
    study="small",
    title="Small",
    datasets={"digits": Digits(), "cifar10": Cifar10()},
    runs={
        "emp-std": Run(EmpSsl(), Standard(), ("digits",), epochs=1),
        "emp-free": Run(EmpSsl(), Free(), ("digits",), epochs=1),
        "simclr-pgd": Run(SimClr(), Pgd(), ("digits",), epochs=1),
        "simclr-free": Run(SimClr(), Free(), ("digits",), epochs=1),
        "supervised": Run(Supervised(), Standard(), ("digits",), epochs=1, views=Views(count=1)),
    },
    probes={
        "own": OWN_HEAD,
        "lin": LinearProbe(),
        "rle": RobustLinearProbe(),
        "crops": NcropProbe(),
    },
    attacks={"pgd": PgdAttack(eps=(8.0,)), "aa": AutoAttack(eps=(8.0,))},
    tables={
        "one": Table(
            "One",
            COLUMNS,
            {
                "a": Row("emp-std", "lin"),
                "b": Row("emp-free", "rle"),
                "c": Row("simclr-pgd", "lin"),
                "d": Row("simclr-free", "lin"),
                "e": Row("supervised", "own"),
            },
        ),
        "two": Table("Two", COLUMNS[:1], {"f": Row("emp-std", "crops")}),
    },
)


def codes() -> dict[str, str]:
    """Return the digest of the code of every job, by a short name."""
    digests = {f"data {name}": specs.data_spec(STUDY, name)["code"] for name in STUDY.datasets}
    for run, job in plan.pretrainings(STUDY).items():
        digests[f"pretrain {job.entry}"] = specs.spec(STUDY, "pretrain", run)["code"]
    for run, probe in plan.heads(STUDY):
        digests[f"probe {probe}"] = specs.spec(STUDY, "probe", f"{run}/{probe}")["code"]
    for run, probe, attack in plan.evaluations(STUDY):
        digests[f"attack {probe} {attack}"] = specs.spec(
            STUDY, "attack", f"{run}/{probe}/{attack}"
        )["code"]
    return digests


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """Return a function that edits a copy of the package and returns the jobs that rerun."""
    copy = tmp_path / "robustviews"
    shutil.copytree(fingerprint.SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = codes()

    def run(edit: Callable[[Path], None]) -> set[str]:
        edit(copy)
        original = fingerprint.digest

        def edited(*roots: fingerprint.Symbol, **_: Path) -> str:
            return original(*roots, source=copy)

        monkeypatch.setattr(fingerprint, "digest", edited)
        after = codes()
        return {name for name, code in before.items() if after[name] != code}

    return run


def statement(module: str, name: str) -> Callable[[Path], None]:
    """Return an edit that adds a statement to a function or method, such as Encoder.forward."""

    def edit(source: Path) -> None:
        path = source / f"{module}.py"
        lines = path.read_text().splitlines(keepends=True)
        node = ast.parse("".join(lines))
        for part in name.split("."):
            [node] = [
                child
                for child in node.body
                if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == part
            ]
        last = node.body[-1]
        lines.insert(last.lineno - 1, " " * last.col_offset + "edited = 1\n")
        path.write_text("".join(lines))

    return edit


def replaced(pattern: str, new: str, *names: str) -> Callable[[Path], None]:
    """Return an edit that replaces a pattern in modules, or in all modules by default."""

    def edit(source: Path) -> None:
        paths = [source / f"{name}.py" for name in names] or list(source.rglob("*.py"))
        counts = []
        for path in paths:
            text, count = re.subn(pattern, new, path.read_text(), flags=re.MULTILINE)
            path.write_text(text)
            counts.append(count)
        assert any(counts), f"{pattern} is nowhere"

    return edit


PRETRAIN = {f"pretrain {name}" for name in STUDY.runs}
PROBE = {"probe lin", "probe rle", "probe crops"}
ATTACK = {f"attack {probe} {attack}" for probe in ("lin", "rle", "own") for attack in ("pgd", "aa")}
ATTACK |= {"attack crops pgd"}
FREE_AND_PGD = {"pretrain emp-free", "pretrain simclr-free", "pretrain simclr-pgd"}
RERUNS = {
    "losses.nt_xent": {"pretrain simclr-pgd", "pretrain simclr-free"},
    "losses.total_coding_rate": {"pretrain emp-std", "pretrain emp-free"},
    "regimes.Free.train_batch": {"pretrain emp-free", "pretrain simclr-free"},
    "optim.Lars": PRETRAIN,
    "step.make_batch": PRETRAIN,
    "augment.make_views": PRETRAIN | {"probe crops", "attack crops pgd"},
    "resnet.ResNet.forward": PRETRAIN | PROBE | ATTACK,
    "machine.batchnorm.SynchronisedBatchNorm.forward": PRETRAIN,
    "machine.distributed.total": PRETRAIN,
    "machine.distributed.share": PRETRAIN,
    "methods.protocol.divide": PRETRAIN,
    "machine.runtime.counter_uniform": PRETRAIN | {"probe crops", "attack crops pgd"},
    "machine.runtime.configure": PRETRAIN | PROBE | ATTACK,
    "datasets.splits.open_split": PRETRAIN | PROBE | ATTACK,
    "datasets.digits.Digits.prepare": {"data digits"},
    "datasets.sources.source_folder": {"data cifar10"},
    "attacks.primitive.ascend": FREE_AND_PGD
    | {"probe rle"}
    | ATTACK - {"attack lin aa", "attack own aa"},
    "attacks.autoattack.AutoAttack.perturb": {name for name in ATTACK if name.endswith("aa")},
    "evaluate.Classifier.forward": ATTACK,
    "probe.probes.NcropProbe.inputs": {"probe crops", "attack crops pgd"},
    "probe.heads.Fit.run": PROBE | {name for name in ATTACK if "own" not in name},
}


@pytest.mark.parametrize("name", RERUNS)
def test_an_edit_reruns_the_jobs_that_use_the_code_and_no_others(name, changed):
    module, definition = re.fullmatch(r"((?:[a-z]+\.)+)(\w.*)", name).groups()
    assert changed(statement(module[:-1].replace(".", "/"), definition)) == RERUNS[name]


def test_new_methods_regimes_probes_attacks_and_data_sets_rerun_nothing(changed):
    def edit(source: Path) -> None:
        for table, module in {
            "METHODS": "methods/__init__",
            "REGIMES": "regimes",
            "PROBES": "probe/probes",
            "ATTACKS": "attacks/projected_gradient",
            "DATASETS": "datasets/kinds",
        }.items():
            replaced(rf"^({table}\b.*\{{)", r'\1"new": New, ', module)(source)
            replaced(rf"^{table}\b", rf"class New:\n    pass\n\n\n{table}", module)(source)

    assert changed(edit) == set()


def test_comments_docstrings_and_annotations_rerun_nothing(changed):
    def edit(source: Path) -> None:
        replaced(r"$", "  # a comment", "losses")(source)
        replaced('"""Return', '"""Compute')(source)
        replaced("-> Tensor", "-> object")(source)
        replaced(r"(\w): Tensor\b", r"\1: object")(source)
        replaced("not finite", "infinite", "stages", "evaluate", "probe/heads")(source)

    assert changed(edit) == set()


def test_code_that_a_job_does_not_use_reruns_nothing(changed):
    """The command line, planning, reading of studies, and reporting."""

    def edit(source: Path) -> None:
        reached = {name for name, _ in every_definition()}
        modules = {path.relative_to(source).with_suffix(""): path for path in source.rglob("*.py")}
        others = {
            name: path
            for name, path in modules.items()
            if ".".join(name.parts) not in reached and name.name != "__init__"
        }
        assert {"files", "plan", "results", "statistics", "load"} <= {name.name for name in others}
        for path in others.values():
            path.write_text("raise AssertionError\n")

    assert changed(edit) == set()


def test_a_backbone_reruns_everything_that_has_a_network(changed):
    edit = replaced(r"\(2, 2, 2, 2\)", "(2, 2, 2, 3)", "resnet")
    assert changed(edit) == PRETRAIN | PROBE | ATTACK


def test_a_recipe_of_colours_reruns_the_jobs_that_make_views(changed):
    edit = replaced(r"jitter=0\.8", "jitter=0.7", "recipes")
    assert changed(edit) == PRETRAIN | {"probe crops", "attack crops pgd"}


def test_the_code_that_decides_numbers_is_reached():
    reach = functools.partial(fingerprint.reach, ("pretrain", "pretrain"), ("regimes", "Free"))
    simclr, emp = reach(("methods", "SimClr")), reach(("methods", "EmpSsl"))
    assert ("losses", "nt_xent") in simclr - emp
    assert {("losses", "invariance"), ("losses", "total_coding_rate")} <= emp - simclr
    both = simclr & emp
    for module, names in {
        "attacks.primitive": {"ascend"},
        "augment": {"make_views", "draw_window", "apply_window", "draw_change", "apply_change"},
        "optim": {"Lars", "_rescale", "build_optimizer", "cosine_lr"},
        "pretrain": {"Training"},
        "regimes": {"passes_over_data"},
        "machine.runtime": {"counter_uniform", "_mix", "_GOLDEN", "permutation", "generator"},
    }.items():
        assert {(module, name) for name in names} <= both
    tables = {"METHODS", "REGIMES", "PROBES", "ATTACKS", "DATASETS"}
    assert not tables & {name for _, name in both}


def every_definition() -> set[fingerprint.Symbol]:
    """Return all code that any job of any kind uses."""
    roots = [("stages", stage) for stage in ("prepare", "pretrain", "probe", "attack")]
    for table in (METHODS, REGIMES, PROBES, ATTACKS, DATASETS):
        roots += [(cls.__module__.partition(".")[2], cls.__name__) for cls in table.values()]
    return set(fingerprint.reach(*roots, *specs.NETWORK))


def test_no_code_of_a_job_reaches_other_code_by_its_name_as_text():
    """Names in strings cannot be followed, so code that decides numbers must not use them."""
    hidden = {"globals", "locals", "vars", "eval", "exec", "__import__", "importlib"}
    for module, name in every_definition():
        for definition in fingerprint._read(module, fingerprint.SOURCE).text.definitions[name]:
            names = {node.id for node in ast.walk(definition) if isinstance(node, ast.Name)}
            assert not names & hidden, f"{module}.{name}"


def test_an_option_of_reporting_reruns_nothing(changed):
    edit = replaced(r'reporting\("top1"\)', 'reporting("mean_per_class")', "datasets/kinds")
    assert changed(edit) == set()


def test_the_code_of_a_data_set_decides_its_subsets(tmp_path):
    part = Subset(STUDY.datasets["digits"], (0, 1))
    study = dataclasses.replace(STUDY, datasets={"part": part})
    copy = tmp_path / "robustviews"
    shutil.copytree(fingerprint.SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    statement("datasets/digits", "Digits.prepare")(copy)
    assert specs.data_spec(study, "part", source=copy) != specs.data_spec(study, "part")
