"""Reading YAML: every entry has its place, and versions of YAML must agree on every value."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustviews.study import StudyError
from robustviews.study.located import INVALID, LocatedDict, load_located, merge
from robustviews.study.problems import Place, Problems


def read(folder: Path, text: str | bytes) -> tuple[LocatedDict | None, list[tuple[int, str, str]]]:
    """Return the tree of a YAML file, and line, key and message of all mistakes in it."""
    path = folder / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    problems, tree = Problems(str(path)), None
    try:
        tree = load_located(path, problems)
        problems.raise_if_any()
    except StudyError as error:
        return tree, [(problem.line, problem.key, problem.message) for problem in error.problems]
    return tree, []


def test_every_entry_has_its_line_and_key(tmp_path):
    tree, problems = read(tmp_path, "a: 1\nb:\n  c: [x,\n    y]\n  d:\n    - {e: 2}\n")
    assert not problems
    assert tree.place == Place(1, "")
    assert tree.at == {"a": Place(1, "a"), "b": Place(2, "b")}
    assert tree["b"].at == {"c": Place(3, "b.c"), "d": Place(5, "b.d")}
    assert tree["b"]["c"].at == [Place(3, "b.c[0]"), Place(4, "b.c[1]")]
    assert tree["b"]["d"][0].at == {"e": Place(6, "b.d[0].e")}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-0", 0),
        ("+3", 3),
        ("0x1F", 31),
        ("0.5", 0.5),
        ("5.", 5.0),
        (".5", 0.5),
        ("1.5e-3", 0.0015),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("text", "text"),
        ("y", "y"),
        ("0.1.2", "0.1.2"),
        ("'010'", "010"),
        ('"on"', "on"),
        ("|\n  two\n  lines", "two\nlines\n"),
        (">-\n  two\n  lines", "two lines"),
    ],
)
def test_values_that_all_versions_of_yaml_agree_on_are_read(text, value, tmp_path):
    tree, problems = read(tmp_path, f"a: {text}\n")
    assert not problems
    assert tree["a"] == value
    assert type(tree["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "old", "new", "choices"),
    [
        ("1e-3", "'1e-3'", "0.001", '0.001 or "1e-3"'),
        ("1E5", "'1E5'", "100000.0", '100000.0 or "1E5"'),
        ("-.5", "'-.5'", "-0.5", '-0.5 or "-.5"'),
        ("010", "8", "10", '8 or 10 or "010"'),
        ("08", "'08'", "8", '8 or "08"'),
        ("0o17", "'0o17'", "15", '15 or "0o17"'),
        ("0b11", "3", "'0b11'", '3 or "0b11"'),
        ("1_000", "1000", "'1_000'", '1000 or "1_000"'),
        ("1:30", "90", "'1:30'", '90 or "1:30"'),
        ("on", "true", "'on'", 'true or "on"'),
        ("No", "false", "'No'", 'false or "No"'),
        ("2026-01-31", "a date", "'2026-01-31'", '"2026-01-31"'),
        ("2026-13-31", "an invalid value", "'2026-13-31'", '"2026-13-31"'),
        ("=", "an invalid value", "'='", '"="'),
    ],
)
def test_values_that_versions_of_yaml_read_differently_are_refused_with_both(
    text, old, new, choices, tmp_path
):
    tree, problems = read(tmp_path, f"x: 1\na: {text}\n")
    message = f"YAML 1.1 reads {text} as {old}, YAML 1.2 as {new}; write {choices}"
    assert problems == [(2, "a", message)]
    assert tree["a"] is INVALID


def test_keys_are_their_text_as_written(tmp_path):
    tree, problems = read(tmp_path, "no: 1\n1: 2\n010: 3\n")
    assert not problems
    assert list(tree) == ["no", "1", "010"]


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ("a: 1\nb: {<<: 2}\n", 2, "b.<<", "merge keys are not used here; put the block under `def"),
        (
            "a: 1\nb: !!python/object/apply:os.system [ls]\n",
            2,
            "b",
            "tags are not used here; remove",
        ),
        ("a: !!int '1'\n", 1, "a", "tags are not used here; remove !!int"),
        ("a: !!float ''\n", 1, "a", "tags are not used here; remove !!float"),
        ("a: !!set {b}\n", 1, "a", "tags are not used here; remove !!set"),
        ("!!set {a}\n", 1, "", "tags are not used here; remove !!set"),
        ("a:\n  - &b [*b]\n", 2, "a[0][0]", "an alias that contains itself"),
        ("a: &b\n  c: *b\n", 2, "a.c", "an alias that contains itself"),
        ("a: 1\n? [b]\n: 2\n", 2, "", "a key must be plain text"),
        ('a: "\\0"\n', 1, "a", "expected text, found control characters in it"),
        ('a: "\\ud800"\n', 1, "a", "expected text, found control characters in it"),
        ("a: 1\nb: [1\n", 3, "", "not valid YAML: expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", 2, "", "not valid YAML: found character '\\t'"),
        ("a: 1\nb: \x07\n", 2, "", "not valid YAML: character U+0007 is not allowed"),
        ("a: *b\n", 1, "", "not valid YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2\n", 2, "", "not valid YAML: but found another document"),
        ("", 1, "", "expected a mapping with keys such as `study:` and `runs:`"),
        ("# nothing\n", 1, "", "expected a mapping with keys such as"),
        ("- a\n", 1, "", "expected a mapping with keys such as"),
        ("text", 1, "", "expected a mapping with keys such as"),
        (b"a: \xff\n", 1, "", "not UTF-8 text (invalid start byte at byte 3)"),
        (b"\x89PNG\r\n\x1a\n\x00", 1, "", "not UTF-8 text (invalid start byte at byte 0)"),
        ("[" * 600, 1, "", "not a study: mappings or lists nested hundreds of levels deep"),
        ("a: " + "[" * 600 + "]" * 600, 1, "", "not a study: mappings or lists nested hundreds"),
    ],
)
def test_yaml_that_is_not_plain_is_refused_with_its_place(text, line, key, message, tmp_path):
    _, [problem] = read(tmp_path, text)
    assert problem[:2] == (line, key)
    assert message in problem[2]


def test_aliases_may_repeat_a_value_but_not_expand_without_limit(tmp_path):
    tree, problems = read(tmp_path, "a: &c [1, 2]\nb: *c\n")
    assert not problems
    assert tree["b"] == [1, 2]
    assert tree["b"].at[1] == Place(1, "b[1]")
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 5)]
    _, [(_, _, message)] = read(tmp_path, "\n".join(levels))
    assert message == "aliases make this file longer than 100000 values"


@pytest.mark.slow
def test_a_file_that_is_too_long_by_itself_is_not_said_to_have_aliases(tmp_path):
    _, [(line, _, message)] = read(tmp_path, "".join(f"k{n}: 1\n" for n in range(60_000)))
    assert line == 50_000
    assert message.startswith("this file holds more than 100000 values; divide it")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.yaml", "there is no such file; expected a study file such as params.yaml"),
        ("", "this is a folder; name the study file in it"),
        ("file/study.yaml", "the file cannot be read: Not a directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name, message, tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / name
    with pytest.raises(StudyError) as caught:
        load_located(path, Problems(str(path)))
    assert str(caught.value).splitlines()[0] == f"{path}:1: {message}"


def test_merging_keeps_the_place_of_each_entry_and_changes_neither_side(tmp_path):
    tree, _ = read(tmp_path, "base: {a: 1, b: {c: 2}}\nover:\n  b: {d: 3}\n")
    merged = merge(tree["base"], tree["over"])
    assert merged == {"a": 1, "b": {"c": 2, "d": 3}}
    assert merged.at == {"a": Place(1, "base.a"), "b": Place(3, "over.b")}
    assert merged["b"].at == {"c": Place(1, "base.b.c"), "d": Place(3, "over.b.d")}
    assert tree == {"base": {"a": 1, "b": {"c": 2}}, "over": {"b": {"d": 3}}}
