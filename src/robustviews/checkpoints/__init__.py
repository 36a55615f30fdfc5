"""Checkpoints of other programs as encoders: reading, recognising, normalising, downloading."""

from robustviews.catalogue import CATALOGUE, Published
from robustviews.checkpoints.downloading import check, download
from robustviews.checkpoints.errors import CheckpointError
from robustviews.checkpoints.importing import Imported, bring
from robustviews.checkpoints.naming import shown
from robustviews.checkpoints.normalisations import name_of
from robustviews.checkpoints.reading import read, recognise

__all__ = [
    "CATALOGUE",
    "CheckpointError",
    "Imported",
    "Published",
    "bring",
    "check",
    "download",
    "name_of",
    "read",
    "recognise",
    "shown",
]
