"""Prepare a data set in memory."""

from __future__ import annotations

import numpy as np
import pytest

from robustviews.datasets import DataError


def prepared(dataset):
    """Return the summary and the arrays by name."""
    arrays = {}

    def create(name, shape, dtype):
        arrays[name] = np.full(shape, 99, dtype)
        return arrays[name]

    return dataset.prepare(create), arrays


def message(dataset):
    """Return what a refused data set is refused with."""
    with pytest.raises(DataError) as caught:
        prepared(dataset)
    return str(caught.value)
