"""Boxes of mask values agree with looking for each value's pixels."""

import numpy as np
import pytest

from data_prep.readers.masks import boxes


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
@pytest.mark.parametrize("top", [7, 200, 1 << 23])
def test_agrees_with_the_definition(dtype, top):
    top = min(top, np.iinfo(dtype).max)
    rng = np.random.default_rng(top)
    ids = rng.integers(1, top + 1, 6).tolist()
    mask = np.zeros((23, 31), dtype)
    for value in ids:
        x, y = rng.integers(0, 25), rng.integers(0, 18)
        mask[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = value
    expected = {}
    for value in dict.fromkeys(ids):
        rows, columns = np.nonzero(mask == value)
        if len(rows):
            expected[value] = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert boxes(mask, [*ids, top + 1, -1]) == expected


def test_edges():
    assert boxes(np.zeros((4, 5), int), [1]) == {} and boxes(np.zeros((0, 5), int), [1]) == {}
    assert boxes(np.full((4, 5), -1), [-1]) == {-1: (0, 0, 5, 4)}
    assert boxes(np.ones((4, 5), bool).astype("uint8"), []) == {}
