"""How alike two labels are: exactly equal, a table, or a function such as the cosine of embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from sgrl.errors import SgrlError

Table = Mapping[tuple[str, str], float]


def get_similarity(similarity: Callable | Table | tuple[Sequence[str], np.ndarray] | str | None):
    """A function (label, label) -> float, or None for exact equality.

    Args:
        similarity: None or "exact"; a mapping {(a, b): value}, read in both directions; a pair (words, matrix) with a
            square matrix; or a function of two labels. In tables a pair that is not listed is 1 if equal, else 0.
            Labels arrive as the terms compare them: lower-cased, in R1-SGG also with blanks for `_` and `-`.

    Raises:
        SgrlError: something else, or a matrix that does not fit its words.
    """
    if similarity is None or similarity == "exact":
        return None
    if isinstance(similarity, Mapping):
        return TableSimilarity(similarity)
    if isinstance(similarity, tuple) and len(similarity) == 2:
        words, matrix = list(similarity[0]), np.asarray(similarity[1], dtype=np.float64)
        if matrix.shape != (len(words), len(words)):
            raise SgrlError(f"a similarity matrix for {len(words)} words must be square, found shape {matrix.shape}")
        return TableSimilarity({(a, b): matrix[i, j] for i, a in enumerate(words) for j, b in enumerate(words)})
    if callable(similarity):
        return CachedSimilarity(similarity)
    raise SgrlError(
        'similarity: expected "exact", a mapping, a pair (words, matrix) or a function, '
        f"found {type(similarity).__name__}"
    )


class TableSimilarity:
    """Similarities from a table; what it does not list is compared exactly."""

    def __init__(self, table: Table):
        self.table = {pair: float(value) for pair, value in table.items()}

    def __call__(self, a: str, b: str) -> float:
        value = self.table.get((a, b), self.table.get((b, a)))
        return float(a == b) if value is None else value


class CachedSimilarity:
    """A user's function, called once per pair of labels; what is not a finite number counts as 0."""

    def __init__(self, function: Callable[[str, str], float]):
        self.function = function
        self._cached = lru_cache(maxsize=65536)(self._call)

    def _call(self, a: str, b: str) -> float:
        value = float(self.function(a, b))
        return value if math.isfinite(value) else 0.0

    def __call__(self, a: str, b: str) -> float:
        return self._cached(a, b)

    def __reduce__(self):
        return type(self), (self.function,)
