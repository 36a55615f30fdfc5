"""Checkpoints of other programs as encoders: reading, recognising, normalising, downloading."""

from robustviews.catalogue import CATALOGUE, Published
from robustviews.checkpoints.downloading import check, download
from robustviews.checkpoints.errors import CheckpointError
from robustviews.checkpoints.finding import find
from robustviews.checkpoints.found import Found
from robustviews.checkpoints.importing import Imported, bring
from robustviews.checkpoints.naming import shown
from robustviews.checkpoints.normalisations import NORMALISATIONS, name_of
from robustviews.checkpoints.reading import Contents, read, recognise

__all__ = [
    "CATALOGUE",
    "NORMALISATIONS",
    "CheckpointError",
    "Contents",
    "Found",
    "Imported",
    "Published",
    "bring",
    "check",
    "download",
    "find",
    "name_of",
    "read",
    "recognise",
    "shown",
]
