"""Sums of shares that come out the same in whatever order, and in however many parts, they are added.

A share is held as two whole numbers of 30 bits each. What that leaves out is less than 1e-18 of each share; a sum has
room for 2^33 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

UNIT = 1 << 30
_TOGETHER = 128
"""Arrays that are added at once: calls are what small ones cost."""

ALL = "all"

_PENDING = 4096
"""Reference relations that are summed at once."""


def parts(values: np.ndarray) -> np.ndarray:
    """(2, ...) int64 of finite values of any shape, at most about 1 each: add these up, in place of the values.

    >>> whole(parts(np.array([0.1, 1.0])) + parts(np.array([0.2, 1.0]))).tolist()
    [0.30000000000000004, 2.0]
    """
    scaled = np.asarray(values, dtype=np.float64) * UNIT
    high = np.floor(scaled)
    return np.stack([high, np.rint((scaled - high) * UNIT)]).astype(np.int64)


def whole(sums: np.ndarray) -> np.ndarray:
    """The values that parts (2, ...), or sums of them, stand for."""
    return np.asarray((sums[0] + sums[1] / UNIT) / UNIT)


class Sums:
    """The sum of a stream of arrays of one shape.

    >>> sums = Sums(2)
    >>> sums.add((0.5, 1.0))
    >>> (sums + sums).total().tolist()
    [1.0, 2.0]
    """

    def __init__(self, *shape: int):
        self._parts = np.zeros((2, *shape), dtype=np.int64)
        self._pending: list[Sequence[Any] | np.ndarray] = []

    def add(self, values: Sequence[Any] | np.ndarray) -> None:
        """Add an array, which is kept for a while: do not change it."""
        self._pending.append(values)
        if len(self._pending) >= _TOGETHER:
            self._sum()

    def __add__(self, other: Sums) -> Sums:
        found = Sums(*self._parts.shape[1:])
        for sums in (self, other):
            sums._sum()
            found._parts += sums._parts
        return found

    def total(self) -> np.ndarray:
        """float64 of the shape."""
        self._sum()
        return whole(self._parts)

    def _sum(self) -> None:
        if self._pending:
            self._parts += parts(np.array(self._pending)).sum(axis=1)
            self._pending.clear()


class Found(NamedTuple):
    """One image: at which rank, from 0, its reference relations are found, ranking.NEVER for those that are not.

    predicates: of the G reference relations. rare: positions of those that are zero-shot.
    ranks, free: (G,) with and without graph constraint.
    predicted: relations in the ranking. failure: no object was predicted. left_out: of the means, as published.
    """

    predicates: list[str]
    rare: list[int]
    ranks: list[int]
    free: list[int]
    predicted: int
    failure: bool
    left_out: bool


class RecallSums:
    """Sums of recall over images, and by predicate.

    Args:
        ks: the K, rising. never: the rank of what is not found. keep_images: also keep the recall of each image.

    Attributes:
        limits: ks and "all" with the graph constraint, then ks without it. keys: how the former end names.
        images, zero_shot: sums of the images' recalls at each limit.
    """

    def __init__(self, ks: Sequence[int], never: int, keep_images: bool):
        self.keep_images = keep_images
        self.limits = np.array([*ks, never, *ks])
        self.split = len(ks) + 1
        self.keys = tuple(f"@{k}" for k in (*ks, ALL))
        self.images = np.zeros((2, len(self.limits)), dtype=np.int64)
        self.zero_shot = np.zeros((2, len(self.limits)), dtype=np.int64)
        self.row: dict[str, int] = {}
        self._kept: list[np.ndarray] = []
        self._pending: list[tuple[int, int, int, int, bool]] = []  # image, row of the predicate, ranks, zero-shot
        # of each predicate: images and relations that have it, the sum of its recall in images, and relations found
        self._table = np.zeros((64, 2 + 3 * len(self.limits)), dtype=np.int64)

    def add(self, image: int, found: Found) -> None:
        """Count an image with relations under a number of its own."""
        rare = set(found.rare)
        self._pending += [
            (image, self.row_of(predicate), rank, free, i in rare)
            for i, (predicate, rank, free) in enumerate(zip(found.predicates, found.ranks, found.free, strict=True))
        ]
        if len(self._pending) >= _PENDING:
            self._sum()

    def merge(self, other: RecallSums) -> None:
        """Add what another has counted; its images follow these ones."""
        self._sum()
        other._sum()
        self.images = self.images + other.images
        self.zero_shot = self.zero_shot + other.zero_shot
        self._kept = self._kept + other._kept
        rows = [self.row_of(predicate) for predicate in other.row]
        self._table[rows] += other._table[: len(rows)]

    def table(self) -> np.ndarray:
        """A row for each predicate, in the order of `row`: images and relations that have it, and sums."""
        self._sum()
        return self._table[: len(self.row)]

    def shares(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Recall of each predicate (rows) at each limit: the mean over images, and pooled."""
        n = len(self.limits)
        shares = whole(table[:, 2 : 2 + 2 * n].reshape(-1, 2, n).swapaxes(0, 1))
        return shares / np.maximum(1, table[:, :1]), table[:, 2 + 2 * n :] / np.maximum(1, table[:, 1:2])

    def of_images(self) -> np.ndarray:
        """recall@K of each image in a mean, in their order: (images, len(keys)) float32."""
        self._sum()
        return np.concatenate([np.zeros((0, len(self.keys)), np.float32), *self._kept])

    def row_of(self, predicate: str) -> int:
        """Of the table; a new predicate has the next one."""
        row = self.row.setdefault(predicate, len(self.row))
        if row == len(self._table):
            self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        return row

    def _sum(self) -> None:
        """Add what is pending to the sums."""
        if not self._pending:
            return
        image, row, rank, free, rare = np.array(self._pending, dtype=np.int64).T
        self._pending.clear()
        split = self.split
        found = np.empty((len(image), len(self.limits)), dtype=np.int64)
        np.less(rank[:, None], self.limits[:split], out=found[:, :split])
        np.less(free[:, None], self.limits[split:], out=found[:, split:])
        of_images = _means(found, image)[0]
        self.images += parts(of_images).sum(axis=1)
        if self.keep_images:
            self._kept.append(of_images[:, :split].astype(np.float32))
        rare = rare > 0
        self.zero_shot += parts(_means(found[rare], image[rare])[0]).sum(axis=1)
        means, first, total, sums = _means(found, image * len(self.row) + row)
        values = np.hstack([np.ones_like(total), total, *parts(means), sums])
        np.add.at(self._table, row[first], values)


def _means(values: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the rows of `values` (R, L) with equal keys (R,): means (U, L), the first row (U,), their number (U, 1) and
    sums (U, L)."""
    if not len(keys):
        none = np.zeros((0, values.shape[1]), dtype=np.int64)
        return none.astype(float), np.zeros(0, dtype=np.int64), none[:, :1], none
    order = np.argsort(keys, kind="stable")
    _, start, count = np.unique(keys[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(values[order], start, axis=0)
    return sums / count[:, None], order[start], count[:, None], sums
