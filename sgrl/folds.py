"""Cross-fitting: models that are each trained without a part of the videos, to be asked about that part.

A model that was asked about what it was trained on gives cleaner answers than it will give of anything else; what
learns from such answers trusts them too much.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgrl.errors import SgrlError

if TYPE_CHECKING:
    from datasets import Dataset


def fold_of(video: str, folds: int, seed: int = 0) -> int:
    """The part, of `folds`, that a video belongs to in cross-fitting; the same on every machine."""
    if folds < 1:
        raise SgrlError(f"folds: expected at least 1, found {folds}")
    digest = hashlib.sha256(f"{seed}:{video}".encode(errors="surrogatepass")).hexdigest()
    return int(digest, 16) % folds


@dataclass(frozen=True)
class LeftOut:
    """The part of a training split that a model does not see: videos, or images that are of none.

    Raises:
        SgrlError: a fold that is not one of 0 to folds - 1, or less than two of them.
    """

    folds: int
    fold: int
    seed: int = 0

    def __post_init__(self):
        if not (self.folds > 1 and 0 <= self.fold < self.folds):
            raise SgrlError(
                f"folds: {self.folds} and leave_out_fold: {self.fold} do not fit; expected at least 2 folds, and one "
                "of them, from 0, that is left out"
            )

    def has(self, video_id: str | None, image_id: str) -> bool:
        return fold_of(image_id if video_id is None else video_id, self.folds, self.seed) == self.fold

    def without(self, rows: Dataset) -> Dataset:
        """The rows that are not left out."""
        videos = rows["video_id"] if "video_id" in rows.column_names else [None] * len(rows)
        kept = [i for i, row in enumerate(zip(videos, rows["image_id"], strict=True)) if not self.has(*row)]
        return rows.select(kept)
