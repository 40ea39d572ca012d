"""How alike two labels are: exactly equal, a table, the cosine of embeddings, or any function."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rewards.matching import Similarity
from sgrl.errors import SgrlError
from sgrl.extras import require
from sgrl.files import open_text

Table = Mapping[tuple[str, str], float]


def get_similarity(
    similarity: Similarity | Table | tuple[Sequence[str], np.ndarray] | str | Path | None,
) -> Similarity | None:
    """A function (label, label) -> float, or None for exact equality.

    Args:
        similarity: None or "exact"; a mapping {(a, b): value}, read in both directions; a pair (words, matrix) with a
            square matrix; a function of two labels; or, as a configuration can name them, the path of a JSON file
            {"man": {"person": 0.8, ...}, ...} or of the folder of a sentence-transformers model. In tables a pair that
            is not listed is 1 if equal, else 0. Labels arrive as the terms compare them: lower-cased, in R1-SGG also
            with blanks for `_` and `-`.

    Raises:
        SgrlError: something else, a file or folder that is not there or cannot be read, or a matrix that does not fit
            its words.
    """
    if similarity is None or similarity == "exact":
        return None
    if isinstance(similarity, str | Path):
        return _from_path(str(similarity))
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
        'similarity: expected "exact", a path, a mapping, a pair (words, matrix) or a function, '
        f"found {type(similarity).__name__}"
    )


@lru_cache(maxsize=8)  # one model and one cache of pairs for images of all sizes
def _from_path(path: str) -> Similarity:
    if Path(path).is_dir():
        return EmbeddingSimilarity(path)
    if not Path(path).is_file():
        raise SgrlError(
            f'similarity: {path} does not exist; expected "exact", a JSON file, or the folder of a '
            "sentence-transformers model (nothing is downloaded)"
        )
    try:
        with open_text(path) as file:
            table = json.load(file)
        return TableSimilarity({(a, b): value for a, row in table.items() for b, value in row.items()})
    except SgrlError:
        raise
    except (ValueError, AttributeError, TypeError) as error:
        raise SgrlError(
            f'similarity: {path} cannot be read ({error}); expected JSON like {{"man": {{"person": 0.8}}}}'
        ) from None


class TableSimilarity:
    """Similarities from a table; what it does not list is compared exactly."""

    def __init__(self, table: Table):
        self.table = {pair: float(value) for pair, value in table.items()}
        bad = next((pair for pair, value in self.table.items() if not math.isfinite(value)), None)
        if bad is not None:
            raise SgrlError(f"similarity: {bad} is {self.table[bad]}; expected a finite number")

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

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function,)


class EmbeddingSimilarity:
    """The cosine of two labels' embeddings, each label embedded once and each pair multiplied once, on the CPU.

    Args:
        path: folder of a sentence-transformers model.

    Raises:
        SgrlError: without the package, or for a folder that holds no such model.
    """

    def __init__(self, path: str):
        embedding = require("sentence_transformers", "similarity", f"similarity: {path}")
        try:
            self._model = embedding.SentenceTransformer(path, device="cpu", local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SgrlError(f"similarity: {path} is no sentence-transformers model: {error}") from error
        self.path = path
        self._vectors: dict[str, np.ndarray] = {}
        self._cosine = lru_cache(maxsize=65536)(self._compare)

    def __call__(self, a: str, b: str) -> float:
        return self._cosine(a, b) if a <= b else self._cosine(b, a)

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_path, (self.path,)

    def _compare(self, a: str, b: str) -> float:
        value = float(self._vector(a) @ self._vector(b))
        return value if math.isfinite(value) else 0.0

    def _vector(self, label: str) -> np.ndarray:
        if label not in self._vectors:
            if len(self._vectors) > 65536:  # models make words up
                self._vectors.clear()
            vector = np.asarray(self._model.encode([label], show_progress_bar=False)[0], dtype=np.float64)
            self._vectors[label] = vector / (np.linalg.norm(vector) or 1.0)
        return self._vectors[label]
