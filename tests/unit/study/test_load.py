"""Studies: each mistake is reported with its place and a fix; defaults are merged in order."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from robustviews.probe import OWN_HEAD
from robustviews.regimes import Free, Pgd
from robustviews.study import Study, StudyError, load_study
from tests.unit.study.mistakes import BASE, ONE_MISTAKE, RUN, TABLE


def write(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write a study with some text replaced."""
    text = BASE
    for old, new in changes:
        assert old in text, f"{old!r} is not in the study"
        text = text.replace(old, new, 1)
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, *changes: tuple[str, str]) -> Study:
    return load_study(write(folder, *changes))


def mistakes(path: Path) -> list[tuple[int, str, str]]:
    """Return line, key and message of every mistake in a file."""
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert {problem.file for problem in caught.value.problems} == {str(path)}
    return [(problem.line, problem.key, problem.message) for problem in caught.value.problems]


def line_of(text: str, part: str) -> int:
    """Return the line on which a part of a text first occurs, counted from 1."""
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize("mistake", ONE_MISTAKE)
def test_a_mistake_is_reported_once_with_its_line_its_key_and_the_fix(mistake, tmp_path):
    old, new, key, message = ONE_MISTAKE[mistake]
    changed = BASE.replace(old, new, 1)
    line = line_of(changed, "@") if "@" in changed else line_of(BASE, old)
    [reported] = mistakes(write(tmp_path, (BASE, changed.replace("@", ""))))
    assert reported[:2] == (line, key)
    assert message in reported[2]


def test_the_study_that_mistakes_are_injected_into_has_none(tmp_path):
    study = load(tmp_path)
    assert study.runs["emp-free"].regime == Free(replays=3, eps=4.0)
    assert study.probes["own"] is OWN_HEAD


@pytest.mark.parametrize("value", ["-1", "null", "[]", "0", "5.5", "true", ".nan", "[{count: 4}]"])
@pytest.mark.parametrize("key", ["views", "encoder", "optimizer", "regime", "method"])
def test_a_value_that_is_no_mapping_is_refused_though_a_later_block_replaces_it(
    key, value, tmp_path
):
    later = {"views": "{count: 1}", "encoder": "{width: 8}", "optimizer": "{lr: 0.1}"}
    later |= {"regime": "{kind: standard}", "method": "{kind: emp_ssl}"}
    path = write(
        tmp_path,
        ("  all:\n", f"  first: {{{key}: {value}}}\n  all:\n"),
        ("[free]\n    method: emp_ssl", f"[first, free, last]\n    {key}: {later[key]}"),
        ("  all:\n", f"  last: {{{key}: {later[key]}}}\n  all:\n"),
        ("runs:\n", "runs:\n  plain: {method: emp_ssl, regime: standard, epochs: 1}\n"),
    )
    assert f"defaults.first.{key}" in [place for _, place, _ in mistakes(path)]


@pytest.mark.parametrize(
    ("block", "key", "message"),
    [
        ("{epochs: -3}", "epochs", "must be at least 1, found -3"),
        ("{views: {counts: 4}}", "views.counts", "unknown key; did you mean `count`?"),
        ("{regime: {kind: pgd, steps: few}}", "regime.steps", "expected a whole number"),
        ("{regime: {kind: fre}}", "regime.kind", "unknown kind 'fre'; did you mean `free`?"),
        ("{datasets: digits}", "datasets", "expected a list such as [..., ...]"),
    ],
)
def test_a_block_is_checked_though_each_run_replaces_what_is_wrong(block, key, message, tmp_path):
    right = "{epochs: 3, views: {count: 4}, regime: {kind: free}, datasets: [digits]}"
    path = write(
        tmp_path,
        ("  all:\n", f"  first: {block}\n  last: {right}\n  all:\n"),
        ("use: [free]", "use: [first, free, last]"),
    )
    assert (8, f"defaults.first.{key}") == mistakes(path)[0][:2]
    assert message in mistakes(path)[0][2]


def test_a_block_may_hold_a_part_of_the_options_of_a_kind(tmp_path):
    study = load(
        tmp_path,
        ("  all:\n", "  more: {regime: {replays: 5}, views: {scale: [0.5, 1.0]}}\n  all:\n"),
        ("use: [free]", "use: [free, more]"),
    )
    assert study.runs["emp-free"].regime == Free(replays=5, eps=4.0)


def test_each_row_reports_which_data_set_its_run_lacks(tmp_path):
    path = write(tmp_path, ("digits/minutes]", "other/minutes]"))
    expected = (
        "a column needs `other`, but run `{}` has only digits; add it there, or transfer by "
        "pretrained_on: digits"
    )
    assert mistakes(path) == [
        (36, f"{TABLE}.rows.free.run", expected.format("emp-free")),
        (37, f"{TABLE}.rows.own.run", expected.format("supervised")),
    ]


def test_each_row_reports_a_probe_of_the_pre_feature_of_a_backbone_alone(tmp_path):
    change = (
        "    method: emp_ssl\n    views: {count: 4}",
        "    method: byol\n    encoder: {hidden: null}",
    )
    reported = mistakes(write(tmp_path, change))
    rows = ("tables.main.rows.free.probe", "figures.bars.rows.free.probe")
    assert tuple(key for _, key, _ in reported) == rows
    assert "`rle` reads the pre-feature, which run `emp-free` has not" in reported[0][2]
    assert "use feature: backbone" in reported[0][2]


def test_two_runs_may_not_share_a_folder(tmp_path):
    other = "{method: emp_ssl, regime: standard, epochs: 1, datasets: [free-digits]}"
    path = write(
        tmp_path,
        ("  other: digits", "  free-digits: digits"),
        ("probes:", f"  emp: {other}\nprobes:"),
    )
    expected = "results on `free-digits` would use the folder of run `emp-free`; rename one"
    [(line, key, message)] = mistakes(path)
    assert (line, key) == (24, "runs.emp")
    assert expected in message


def test_clean_accuracy_needs_an_attack(tmp_path):
    path = write(
        tmp_path,
        ("  pgd20: {kind: pgd, eps: [4, 8]}\n  aa: {kind: autoattack, eps: [8]}\n", ""),
        ("attacks:", "attacks: {}"),
        ("digits/pgd20/4, ", ""),
        ("[75.9, unavailable, null]", "[75.9, null]"),
        ("digits/pgd20/8", "digits/minutes"),
    )
    message = "clean accuracy is read from an attack's flags; add one to `attacks`"
    bars = "kind: bars needs a column digits/<attack>/<eps>"
    assert mistakes(path) == [
        (32, f"{TABLE}.columns[0]", message),
        (39, "figures.bars.columns", bars),
    ]


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(tmp_path):
    injected = [
        ("title: A small study", "title: 12"),
        ("seeds: [0, 1]", "seeds: [0, one]"),
        ("test: 500", "tests: 500"),
        ("width: 8", "width: 1e-3"),
        ("epochs: 3\n  supervised", "epochs: 0\n  supervised"),
        ("{kind: linear, epochs: 2}", "{kind: linear, lr: -1, epochs: 0}"),
        ("rle_start: central", "rle_start: centre"),
        ("digits/pgd20/4", "digits/pgd20/5"),
        ("run: supervised", "run: supervise"),
        ("title: Bars", "titel: Bars"),
        ("digits/pgd20/8]", "digits/pgd20/8, 7]"),
    ]
    reported = mistakes(write(tmp_path, *injected))
    assert [(line, key) for line, key, _ in reported] == [
        (2, "title"),
        (3, "seeds[1]"),
        (5, "datasets.digits.tests"),
        (10, "defaults.all.encoder.width"),
        (18, f"{RUN}.epochs"),
        (25, "probes.central.lr"),
        (25, "probes.central.epochs"),
        (26, "probes.rle.rle_start"),
        (34, f"{TABLE}.columns[1]"),
        (37, f"{TABLE}.rows.own.run"),
        (39, "figures.bars.title"),
        (40, "figures.bars.titel"),
        (41, "figures.bars.columns[1]"),
    ]


def test_a_mistake_in_a_shared_block_is_reported_once_at_its_place(tmp_path):
    path = write(tmp_path, ("{width: 8, hidden: 16}", "{width: 0, hidden: 0}"))
    assert [(line, key) for line, key, _ in mistakes(path)] == [
        (10, "defaults.all.encoder.width"),
        (10, "defaults.all.encoder.hidden"),
    ]


def test_a_run_takes_all_then_its_blocks_in_order_then_its_own_keys(tmp_path):
    blocks = """\
  all: {epochs: 1, batch_size: 10, precision: bf16, label: all, datasets: [digits]}
  first: {batch_size: 20, precision: fp32, label: first, method: emp_ssl}
  second: {label: second, encoder: {width: 4}, regime: standard}
  free:
"""
    runs = """\
runs:
  one: {use: [first, second], epochs: 9}
  two: {use: [second, first]}
"""
    shared = "  all:\n    datasets: [digits]\n    encoder: {width: 8, hidden: 16}\n  free:\n"
    study = load(
        tmp_path,
        (shared, blocks),
        ("runs:\n", runs),
    )
    one, two = study.runs["one"], study.runs["two"]
    assert (one.epochs, one.batch_size, one.precision, one.label) == (9, 20, "fp32", "second")
    assert (two.epochs, two.batch_size, two.precision, two.label) == (1, 20, "fp32", "first")
    assert one.encoder.width == two.encoder.width == 4


def test_blocks_are_merged_level_by_level(tmp_path):
    study = load(
        tmp_path, ("    epochs: 3\n  sup", "    encoder: {width: 4}\n    epochs: 3\n  sup")
    )
    assert (study.runs["emp-free"].encoder.width, study.runs["emp-free"].encoder.hidden) == (4, 16)
    assert study.runs["supervised"].encoder.width == 8


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("", Free(replays=3, eps=4.0)),
        ("regime: {eps: 2}", Free(replays=3, eps=2.0)),
        ("regime: {kind: free, eps: 2}", Free(replays=3, eps=2.0)),
        ("regime: free", Free(replays=3, eps=4.0)),
        ("regime: {kind: pgd, eps: 2}", Pgd(eps=2.0)),
        ("regime: pgd", Pgd()),
    ],
)
def test_another_kind_replaces_the_options_below_and_the_same_kind_keeps_them(
    own, expected, tmp_path
):
    study = load(
        tmp_path, ("    epochs: 3\n  supervised", f"    {own}\n    epochs: 3\n  supervised")
    )
    assert study.runs["emp-free"].regime == expected


def test_options_may_be_added_to_a_bare_kind_below(tmp_path):
    study = load(
        tmp_path,
        ("    regime: {kind: free, replays: 3, eps: 4}", "    regime: free"),
        ("    epochs: 3\n  supervised", "    regime: {replays: 7}\n    epochs: 3\n  supervised"),
    )
    assert study.runs["emp-free"].regime == Free(replays=7)
    assert study.runs["supervised"].regime == Free()


def test_a_block_that_cannot_be_found_does_not_make_other_keys_missing(tmp_path):
    path = write(tmp_path, ("use: [free]\n    method: emp_ssl", "use: [fre]\n    method: emp_sll"))
    assert [key for _, key, _ in mistakes(path)] == [f"{RUN}.use[0]", f"{RUN}.method"]


@pytest.mark.parametrize("block", ["datasets", "defaults", "runs", "probes", "attacks", "tables"])
@pytest.mark.parametrize("wrong", ["12", "[1]", "text", "~"])
def test_a_block_that_is_not_a_mapping_is_reported_with_its_line(block, wrong, tmp_path):
    [whole] = re.findall(rf"^{block}:\n(?:  .*\n)+", BASE, re.MULTILINE)
    line, key, message = mistakes(write(tmp_path, (whole, f"{block}: {wrong}\n")))[0]
    assert (line, key) == (line_of(BASE, whole), block)
    assert re.search("expected .*, found ", message)


def test_a_randomly_changed_study_file_loads_or_is_refused(tmp_path):
    """Bytes are changed, dropped and inserted; lines are dropped, doubled, swapped and indented."""
    rng = random.Random(0)
    lines = BASE.encode().splitlines(keepends=True)
    path = tmp_path / "study.yaml"
    outcomes = []
    for _ in range(150):
        path.write_bytes(_mutate_bytes(rng, b"".join(_mutate_lines(rng, list(lines)))))
        try:
            load_study(path)
            outcomes.append("loaded")
        except StudyError as error:
            outcomes.extend("reported" for problem in error.problems if 1 <= problem.line < 50)
    assert outcomes.count("loaded") > 10
    assert outcomes.count("reported") > 150


def _mutate_lines(rng: random.Random, lines: list[bytes]) -> list[bytes]:
    for _ in range(rng.randrange(3)):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        change = rng.randrange(4)
        if change == 0:
            del lines[at]
        elif change == 1:
            lines.insert(at, lines[other])
        elif change == 2:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines[at] = b"  " + lines[at]
    return lines


def _mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    odd = [b"\x00", b"\xff", b"\t", b"&a ", b"*a", b"- ", b": ", b"{", b"]", b"!!int ", b"0", b"e"]
    odd += [b"'", b'"', b"|", b"%", b"@", b"#", b"\r", b"\xc2\x85", b"~", b"<<: ", b"? ", b"---\n"]
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(data))
        data = data[:at] + rng.choice(odd) + data[at + rng.randrange(2) :]
    return data
