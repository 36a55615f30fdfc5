"""How pages are made of templates: report and audit look alike, and escape what studies say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from robustviews.study import folders
from robustviews.version import __version__

if TYPE_CHECKING:
    from robustviews.study.schema import Study


def environment(study: Study) -> Environment:
    """Return what renders a page of a study that lies in its folder of results.

    Templates have the filter `href`, which makes a path relative to the project a link, and
    `version`.
    """
    made = Environment(
        loader=PackageLoader("robustviews.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters["href"] = lambda path: _href(study, path)
    made.globals["version"] = __version__
    return made


def _href(study: Study, path: str) -> str:
    return os.path.relpath(path, folders.results_folder(study)).replace(os.sep, "/")
