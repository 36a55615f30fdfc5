"""Rendering of HTML templates, shared by report and audit; all text of studies is escaped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from robustviews.study import folders
from robustviews.version import __version__

if TYPE_CHECKING:
    from robustviews.study.schema import Study


def environment(study: Study) -> Environment:
    """Return the Jinja environment for pages in the results folder of a study.

    Templates have the filter `href`, which turns a path relative to the project into a link, and
    `version`.
    """
    result = Environment(
        loader=PackageLoader("robustviews.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    result.filters["href"] = lambda path: os.path.relpath(path, folders.results_folder(study))
    result.globals["version"] = __version__
    return result
