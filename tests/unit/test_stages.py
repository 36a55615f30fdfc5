"""Nothing that passes an option on can be edited unnoticed: the digest or the spec changes."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from robustviews import stages
from robustviews.augment import Views
from robustviews.probe import RobustLinearProbe
from robustviews.study import fingerprint
from tests.unit.tiny_models import (
    CLASSES,
    HIDDEN,
    PROJECTION,
    SIZE,
    WIDTH,
    labels_of,
    noise_images,
    tiny_encoder,
)

STAGES = ("prepare", "pretrain", "probe", "attack")
# Keyword arguments that pass on what decides a number, and the stages that may have them.
DECIDING = {
    "attack", "batch", "batch_size", "classes", "compiled", "device", "encoder", "epochs",
    "epochs_meaning", "feature", "fold", "images", "labels", "method", "needed", "optimizer",
    "precision", "probe", "regime", "seed", "size", "start", "views",
}  # fmt: skip
# What a verb may pass to a stage besides options of its job, and why no number depends on it.
PASSED = {
    "classes": "read from the summary of the data, an input of the job with a hash in its record",
    "size": "as `classes`",
    "start": "weights, an input of the job with a hash in its record",
    "device": "recorded; it decides rounding, as the machine does",
    "checkpoint": "a resumed job ends with the same bytes, which tests kill jobs for",
    "title": "a message",
}
PLANS = """
import json
from robustviews.study.jobs import jobs
from tests.unit.study.test_fingerprint_package import STUDY
print(json.dumps({" ".join(key): job.spec for key, job in jobs(STUDY).items() if job.folder}))
"""


def keywords(tree: ast.AST) -> Iterator[tuple[str, ast.keyword]]:
    """Yield each keyword argument that passes on what decides a number, with its function."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for call in ast.walk(function):
                if isinstance(call, ast.Call):
                    for keyword in call.keywords:
                        if keyword.arg in DECIDING:
                            yield function.name, keyword


def edited(path: Path, node: ast.AST, text: str) -> None:
    """Replace an expression of a file."""
    source = path.read_text(encoding="utf-8")
    lines = source.encode().splitlines(keepends=True)
    assert node.lineno == node.end_lineno
    line = lines[node.lineno - 1]
    lines[node.lineno - 1] = line[: node.col_offset] + text.encode() + line[node.end_col_offset :]
    path.write_bytes(b"".join(lines))


@pytest.fixture
def copy(tmp_path):
    return Path(
        shutil.copytree(
            fingerprint.SOURCE,
            tmp_path / "robustviews",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    )


def forget() -> None:
    """Let fingerprint read edited files again."""
    for function in (fingerprint._digest, fingerprint._uses, fingerprint._read):
        function.cache_clear()


def of_itself(stage: str, source: Path) -> str:
    """Return the hash of the function of a stage, without what it calls."""
    return fingerprint._read("stages", source).text.fingerprint(stage)


def digest(stage: str, source: Path) -> str:
    forget()
    return fingerprint.digest(("stages", stage), source=source)


def test_each_line_of_a_stage_that_passes_something_on_is_part_of_its_digest(copy):
    path = copy / "stages.py"
    original = path.read_text(encoding="utf-8")
    forget()
    before = {stage: of_itself(stage, copy) for stage in STAGES}
    for stage in STAGES:  # of which the digest is made
        assert ("stages", stage) in fingerprint.reach(("stages", stage), source=copy)
    actual = list(keywords(ast.parse(original)))
    assert len(actual) > 30
    for stage, keyword in actual:
        edited(path, keyword.value, "0")
        forget()
        where = f"stages.py:{keyword.value.lineno} {keyword.arg}"
        assert of_itself(stage, copy) != before[stage], where
        path.write_text(original, encoding="utf-8")
    edited(path, actual[0][1].value, "0")
    changed = digest(actual[0][0], copy)
    path.write_text(original, encoding="utf-8")
    assert changed != digest(actual[0][0], copy)


def test_the_digest_of_the_checks_holds_measures_thresholds_and_the_attack(copy):
    reached = fingerprint.reach(("stages", "sanity"), source=copy)
    assert {("sanity.stage", "sanity"), ("sanity.stage", "examine")} <= reached
    assert {("sanity.checks", name) for name in ("CHECKS", "RISE", "_square", "failed")} <= reached
    assert {("sanity.subject", "Subject"), ("attacks.primitive", "pgd")} <= reached
    assert not {module for module, _ in reached} & {"sanity.dense", "tasks.segmentation"}
    dense = fingerprint.reach(("sanity.dense", "DenseChecks"), source=copy)
    assert {("sanity.dense", "GAIN"), ("sanity.metrics", "measures_of")} <= dense
    assert {("attacks.segmentation", "Sea"), ("attacks.detection", "DetectionPgd")} <= dense
    before = digest("sanity", copy)
    path = copy / "sanity/checks.py"
    text = path.read_text(encoding="utf-8")
    for old, new in (("RISE = 0.005", "RISE = 0.5"), ("steps=1)", "steps=2)")):
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")
        assert digest("sanity", copy) != before, old
        assert digest("attack", copy) == fingerprint.digest(("stages", "attack"))


def planned(source: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PLANS],
        env={"PYTHONPATH": f"{source.parent}:{Path.cwd()}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr}


OTHER_RUN = "getattr(Run(options.method, options.regime, (), 1), field.name)"
ARGUMENTS = [
    ('"seed": pretraining.seed}', '"seed": 5}', "pretrain"),
    ("arguments[name] = dataclasses.asdict(arguments[name])", "arguments[name] = {}", "pretrain"),
    ("getattr(options, field.name)", OTHER_RUN, "pretrain"),
    ("study.probes[probe],", "next(iter(study.probes.values())),", "probe"),
    ('"views": options.views,', '"views": type(options.views)(count=7),', "probe"),
    ('"seed": network.seed,', '"seed": 1,', "probe"),
    ("study.runtime.evaluation_batch,", "1,", "attack"),
    ("plan.attack_on(study, probe, attack)", "next(reversed(study.attacks.values()))", "attack"),
]


@pytest.fixture(scope="module")
def unedited():
    return planned(fingerprint.SOURCE)


@pytest.mark.parametrize(("line", "edit", "rule"), ARGUMENTS)
def test_each_line_that_chooses_the_arguments_of_a_stage_is_part_of_a_spec(
    line, edit, rule, unedited, copy
):
    path = copy / "study" / "specs.py"
    text = path.read_text(encoding="utf-8")
    assert text.count(line) == 1
    path.write_text(text.replace(line, edit), encoding="utf-8")
    after = planned(copy)
    changed = {name for name in unedited if after.get(name) != unedited[name]}
    assert any(name.startswith(f"{rule} ") for name in changed), after.get("error")


def test_verbs_pass_a_stage_the_options_of_its_job_and_nothing_else_that_decides():
    for path in (fingerprint.SOURCE / "cli").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            if name == "run.call":
                assert ast.unparse(call.args[0]).removeprefix("stages.") in (*STAGES, "sanity")
            elif name not in ("stages.bring", "stage"):
                assert not name.startswith("stages.") or name == "stages.prepare"
                continue
            passed = {keyword.arg for keyword in call.keywords} - {None}
            assert passed <= set(PASSED), f"{path.name}:{call.lineno}"
            (options,) = (keyword.value for keyword in call.keywords if keyword.arg is None)
            assert ast.unparse(options) in ("work.job.arguments", "arguments", "options")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("raise ValueError('one')", "raise ValueError(f'two {size}')"),
        (
            "text = 'one'\n    raise ValueError(text)",
            "text = f'two {size}'\n    raise ValueError(text)",
        ),
        ("log.info('one %s', size)", "log.info('two')"),
        ("log.info('one')", ""),
        ("import warnings\n    warnings.warn('one', stacklevel=2)", "import warnings"),
        ("# one", "# two"),
        ("size: int = size", "size: float = size"),
    ],
)
def test_messages_comments_and_annotations_are_no_part_of_a_digest(before, after, copy):
    path = copy / "stages.py"
    original = path.read_text(encoding="utf-8")
    anchor = "    outputs = classes if method.supervised else None\n"
    actual = set()
    for lines in (before, after):
        path.write_text(original.replace(anchor, f"{anchor}    {lines}\n"), encoding="utf-8")
        actual.add(digest("pretrain", copy))
    assert len(actual) == 1


def test_the_kind_of_an_error_is_part_of_a_digest(copy):
    path = copy / "encoder.py"
    before = digest("attack", copy)
    text = path.read_text(encoding="utf-8")
    changed = text.replace("raise WeightsError(part, str(error)) from None", "raise ValueError")
    assert changed != text
    path.write_text(changed, encoding="utf-8")
    assert digest("attack", copy) != before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("class Options:\n        kind = 'one'", "class Options:\n        kind = 'two'"),
        ("warnings.simplefilter('error')", "warnings.simplefilter('ignore')"),
        ("log.append(1)", "log.append(2)"),
        ("text = f'{size + 1} {max(size, 1)}'", "text = f'{size + 1} {max(size, 2)}'"),
        ("global seed\n    seed = 'one'", "global seed\n    seed = 'two'"),
    ],
)
def test_statements_that_only_look_like_messages_are_part_of_a_digest(before, after, copy):
    path = copy / "stages.py"
    original = path.read_text(encoding="utf-8")
    anchor = "    outputs = classes if method.supervised else None\n"
    digests = set()
    for lines in (before, after):
        path.write_text(original.replace(anchor, f"{anchor}    {lines}\n"), encoding="utf-8")
        digests.add(digest("pretrain", copy))
    assert len(digests) == 2


@pytest.mark.parametrize(("rle_start", "start"), [("central", None), ("fresh", {})])
def test_a_probe_refuses_to_start_from_other_weights_than_its_options_say(rle_start, start):
    probe = RobustLinearProbe(rle_start=rle_start)
    with pytest.raises(ValueError, match="starts from"):
        stages.probe(
            tiny_encoder().state_dict(),
            noise_images(),
            labels_of(),
            classes=CLASSES,
            size=SIZE,
            encoder={"width": WIDTH, "hidden": HIDDEN, "projection": PROJECTION},
            supervised=False,
            probe=probe,
            views=Views(),
            start=start,
            device=torch.device("cpu"),
        )
