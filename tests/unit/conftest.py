"""What unit tests share: the results of the small study, written once per session."""

from __future__ import annotations

import shutil

import pytest

from robustviews.reporting import results
from tests.unit.results_tree import small_study, write_shown, write_tree


@pytest.fixture(scope="session")
def tree(once):
    """The project folder of the small study as its jobs leave it; to be read, never changed."""

    def fill(folder):
        write_tree(folder, small_study())
        write_shown(folder, small_study())

    return once("small-study", fill)


@pytest.fixture
def root(tree, tmp_path):
    """A copy of the project folder, to be changed."""
    return shutil.copytree(tree, tmp_path, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def study():
    """The small study."""
    return small_study()


@pytest.fixture(scope="session")
def frame(study, tree):
    """The results of the small study."""
    return results.frame(study, tree)
