"""MaxInfo: keep the frames whose image features span the most volume (Li et al., arXiv 2502.03183).

The leading left singular vectors of a video's features give a short row per frame. Rectangular maxvol (Mikhalev and
Oseledets, 2018) then picks rows: as many as there are vectors, spanning the largest volume, and more, always the one
of the largest leverage, until none is above the squared tolerance. That takes about rank / tolerance^2 frames, 151 by
default, however long the video is: the tolerance is a cap and not a rate. `count` and `ratio` say directly how many.

The selections are those of the published code at a fraction of its time: singular vectors come from the small Gram
matrix, and a step updates the leverages in O(n * rank) instead of a matrix of n rows and a column per chosen frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import eigh, lu_factor

from data_prep.readers.record import Record
from data_prep.thin.thinning import Method, Unreadable, check_number, check_protocol
from sgrl.errors import SgrlError
from sgrl.vocabulary import Vocabulary

TOLERANCE = 0.23  # SceneGraphVLM's
RANK = 8
_SWAP_GAIN = 1.05  # the start is good enough when no exchange of two rows enlarges the volume by more
_SWAPS = 10  # at most
_TRUSTED = 1e-6  # eigenvalues of a Gram matrix below this part of its largest have lost too many digits
_CHUNK = 2048  # rows turned to double precision at a time


class MaxInfo(Method):
    """Thinning by MaxInfo; see `data_prep.thin.thin`."""

    @dataclass(frozen=True)
    class Options:
        """How many frames, and whose features.

        Attributes:
            tolerance, count, ratio, rank, protocol: see `select`.
            model: name or folder of any transformers model that sees (see `data_prep.thin.features.Embedder`), or an
                object with its method `features`.
            cache: folder that keeps the features, None for none.
            batch_size: images per forward pass.
            device: "cpu", "cuda", ...; None for the best there is.
        """

        tolerance: float | None = None
        count: int | None = None
        ratio: float | None = None
        rank: int = RANK
        model: str | object = "openai/clip-vit-large-patch14-336"
        cache: str | Path | None = None
        batch_size: int = 32
        device: str | None = None
        protocol: str = "default"

        def __post_init__(self):
            _check(**self.settings)

        @property
        def settings(self) -> dict:
            """Keywords of `select`."""
            return {name: getattr(self, name) for name in ("tolerance", "count", "ratio", "rank", "protocol")}

    def __init__(self, vocabulary: Vocabulary, options: Options):
        self.options = options
        self.embedder: Any = options.model
        if not hasattr(self.embedder, "features"):
            from data_prep.thin.features import Embedder

            black = options.protocol == "published"
            self.embedder = Embedder(str(options.model), options.cache, options.batch_size, options.device, black)

    def select(self, records: Sequence[Record], unreadable: Unreadable) -> list[int]:
        """Positions of the frames of one video that are kept."""
        features = self.embedder.features([record.image for record in records], unreadable, records[0].video_id)
        return select(features, **self.options.settings).tolist()


def select(
    features: np.ndarray,
    tolerance: float | None = None,
    count: int | None = None,
    ratio: float | None = None,
    rank: int = RANK,
    protocol: str = "default",
) -> np.ndarray:
    """Positions of the frames to keep, ascending.

    Args:
        features: (n, d), a row per frame, neither normalised nor centred. Rows that are not finite are never kept.
        tolerance: a frame is added while some leverage is above its square; TOLERANCE without `count` and `ratio`.
        count: keep this many (all, if there are fewer).
        ratio: keep this part of the finite rows, in (0, 1], rounded, at least one.
        rank: singular vectors used; fewer where the features do not have as many, or `count` is smaller.
        protocol: "published" drops the last frame of an odd selection. "default" does not.

    Raises:
        SgrlError: a setting out of range or more than one of tolerance, count and ratio; features that are no matrix.
    """
    _check(tolerance, count, ratio, rank, protocol)
    features = np.asarray(features)
    if features.ndim != 2 or features.dtype.kind != "f":
        raise SgrlError(f"features must be a matrix of floats, found {features.dtype} {features.shape}")
    finite = np.flatnonzero(np.isfinite(features).all(1))
    if len(finite) < len(features):
        features = features[finite]
    n = len(features)
    if ratio is not None:
        count = max(1, round(ratio * n))
    if n <= 1 or (count is not None and count >= n):
        chosen = np.arange(n)
    else:
        chosen = _volume(features, tolerance or TOLERANCE, count, rank)
    if protocol == "published" and len(chosen) > 1 and len(chosen) % 2:
        chosen = chosen[:-1]
    return finite[chosen]


def _volume(features: np.ndarray, tolerance: float, count: int | None, rank: int) -> np.ndarray:
    """Sorted positions; 0 < count < n, or None for the tolerance to decide."""
    n, d = features.shape
    rows = leading_vectors(features, min(rank, d, n - 1, n if count is None else count))
    if not rows.shape[1]:
        return np.arange(count or 1)  # all features are zero: any frame is as good as any other
    chosen, coefficients = _square(rows)
    limit, least = (n, tolerance**2) if count is None else (count, -math.inf)
    # With S the chosen rows in these coefficients, `inverse` is (S^T S)^-1 and a frame's leverage c (S^T S)^-1 c^T.
    inverse = np.eye(len(chosen))
    leverage = (coefficients**2).sum(0)
    leverage[chosen] = -math.inf
    step = np.empty(n)
    while len(chosen) < limit:
        best = int(leverage.argmax())
        if leverage[best] <= least:
            break
        direction = inverse @ coefficients[:, best]
        gain = 1 + leverage[best]
        np.matmul(direction, coefficients, out=step)
        np.square(step, out=step)
        step /= gain
        leverage -= step
        leverage[best] = -math.inf
        inverse -= np.outer(direction, direction / gain)
        chosen.append(best)
    return np.sort(chosen)


def _square(rows: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Maxvol: r of the (n, r) rows with nearly the largest volume, and (r, n) coefficients of all rows in them."""
    n, rank = rows.shape
    order = np.arange(n)
    for i, j in enumerate(lu_factor(rows, check_finite=False)[1].tolist()):
        order[[i, j]] = order[[j, i]]
    chosen = order[:rank].tolist()
    coefficients = np.linalg.solve(rows[chosen].T, rows.T)
    for _ in range(_SWAPS):
        i, j = divmod(int(np.abs(coefficients).argmax()), n)
        if abs(coefficients[i, j]) <= _SWAP_GAIN:
            break
        change = coefficients[:, j].copy()
        change[i] -= 1
        coefficients -= np.outer(change / coefficients[i, j], coefficients[i])
        chosen[i] = j
    return chosen, coefficients


def leading_vectors(features: np.ndarray, rank: int) -> np.ndarray:
    """(n, k <= rank) float64: left singular vectors of the largest singular values, in their order.

    k is smaller where the features span fewer directions, up to the precision of their type. The eigenvectors of the
    Gram matrix serve; it squares the singular values, so for a video in which little moves the small ones would drown
    in the rounding of the largest. Only those are taken that did not; what they explain is subtracted, and the Gram
    matrix of the remainder gives the next.
    """
    n, d = features.shape
    peak = float(np.abs(features).max(initial=0.0))
    if not peak:
        return np.empty((n, 0))
    floor = 64 * np.finfo(features.dtype).eps + max(n, d) * np.finfo(np.float64).eps
    scale = 1 / peak if not 1e-50 < peak < 1e50 else 1.0  # or the squares would leave the range of doubles
    vectors = np.empty((n, 0))
    remainder, largest = features, 0.0
    while vectors.shape[1] < rank:
        gram = _gram(remainder, scale)
        first = max(0, len(gram) - (rank - vectors.shape[1]))
        values, directions = eigh(gram, subset_by_index=[first, len(gram) - 1], overwrite_a=True, check_finite=False)
        values, directions = values[::-1], directions[:, ::-1]
        largest = largest or values[0]
        good = (values > _TRUSTED * values[0]) & (values > floor**2 * largest)
        if not good.any():
            break
        if n < d:
            found = directions[:, good]
        else:
            found = _product(remainder, directions[:, good], scale) / np.sqrt(values[good])
        vectors = np.linalg.qr(np.hstack([vectors, found]))[0]
        if vectors.shape[1] < rank:
            if remainder is features:
                remainder, scale = features * np.float64(scale), 1.0
            remainder -= vectors @ (vectors.T @ remainder)
    return vectors


def _gram(matrix: np.ndarray, scale: float) -> np.ndarray:
    """The smaller of M M^T and M^T M, in double precision, without a copy of the whole matrix."""
    n, d = matrix.shape
    if n < d:
        matrix = matrix * np.float64(scale)
        return matrix @ matrix.T
    gram = np.zeros((d, d))
    for first in range(0, n, _CHUNK):
        chunk = matrix[first : first + _CHUNK] * np.float64(scale)
        gram += chunk.T @ chunk
    return gram


def _product(matrix: np.ndarray, right: np.ndarray, scale: float) -> np.ndarray:
    chunks = (matrix[first : first + _CHUNK] * np.float64(scale) for first in range(0, len(matrix), _CHUNK))
    return np.vstack([chunk @ right for chunk in chunks])


def _check(tolerance: float | None, count: int | None, ratio: float | None, rank: int, protocol: str) -> None:
    check_protocol(protocol)
    given = {"tolerance": tolerance, "count": count, "ratio": ratio}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise SgrlError(f"{' and '.join(given)} both say how many frames to keep; give one of them")
    for name, value in given.items():
        check_number(name, value, 0, 1 if name == "ratio" else math.inf, whole=name == "count")
    check_number("rank", rank, 0, whole=True)
