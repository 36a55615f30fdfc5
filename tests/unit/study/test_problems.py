"""Mistakes: collected once each, reported in the order of the file, with the closest name."""

from __future__ import annotations

import pytest

from robustviews.study import StudyError
from robustviews.study.problems import Place, Problems, nearest


def raised(problems: Problems) -> str:
    with pytest.raises(StudyError) as caught:
        problems.raise_if_any()
    return str(caught.value)


def test_nothing_is_raised_without_mistakes():
    Problems("study.yaml").raise_if_any()


def test_mistakes_are_reported_in_the_order_of_the_file_and_counted():
    problems = Problems("study.yaml")
    problems.add(Place(7, "runs.a"), "second")
    problems.add(Place(3, ""), "first")
    problems.add(Place(7, "runs.b"), "second")
    assert raised(problems).splitlines() == [
        "study.yaml:3: first",
        "study.yaml:7: runs.a: second",
        "study.yaml:7: runs.b: second",
        "3 mistakes found, nothing was run",
    ]


def test_a_mistake_that_is_added_twice_is_reported_once():
    problems = Problems("study.yaml")
    problems.add(Place(7, "runs.a"), "wrong")
    problems.add(Place(7, "runs.a"), "wrong")
    assert raised(problems).splitlines() == [
        "study.yaml:7: runs.a: wrong",
        "1 mistake found, nothing was run",
    ]


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("epoch", {"epochs", "lr"}, "did you mean `epochs`?"),
        ("zzz", {"lr", "epochs"}, "known: epochs, lr"),
        ("zzz", (), "none is defined"),
    ],
)
def test_a_wrong_name_gives_the_nearest_name_or_all_names(name, known, words):
    assert nearest(name, known) == words
