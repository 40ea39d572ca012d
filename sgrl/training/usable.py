"""The rows of a run whose images can be trained on: they open, and the processor takes them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sgrl.errors import SgrlError
from sgrl.images import check_image
from sgrl.training.rows import visual_tokens

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin

logger = logging.getLogger(__name__)

NAMED = 10
"""So many of the rows that are left out are named one by one."""


def drop_unusable(rows: Dataset | None, place: str, processor: ProcessorMixin) -> Dataset | None:
    """Leave out rows whose image is damaged or refused by the processor; the log counts and names them.

    Every image is decoded once (an hour's worth of training reads each a hundred times), or the run would end where
    the sampler happens to draw such a row.

    Args:
        rows: with the column image; None (no evaluation) stays None.
        place: what the log calls them.

    Raises:
        SgrlError: if nothing is left.
    """
    if rows is None:
        return None
    faults = dict(unusable(rows, processor))
    if not faults:
        return rows
    for row, reason in list(faults.items())[:NAMED]:
        logger.warning("left out row %d of %s: %s", row, place, reason)
    logger.warning("left out %d of %d rows of %s for their images", len(faults), len(rows), place)
    if len(faults) == len(rows):
        raise SgrlError(f"no row of {place} has an image that can be used; the first: {faults[0]}")
    return rows.select([i for i in range(len(rows)) if i not in faults])


def unusable(rows: Dataset, processor: ProcessorMixin | None = None) -> Iterator[tuple[int, str]]:
    """(number of the row, what is wrong with its image) of those that cannot be used.

    processor: also asked whether it takes an image of that size; one of 1 : 200 is too thin for most.
    """
    from datasets import Image

    encoded = rows.select_columns(["image"]).cast_column("image", Image(decode=False))
    refusals: dict[tuple[int, int], str | None] = {}

    def fault(row: dict) -> str | None:
        try:
            size = check_image(row["image"])
        except SgrlError as error:
            return str(error)
        if processor is None:
            return None
        if size not in refusals:
            refusals[size] = refusal(processor, size)
        return refusals[size]

    threads = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(rows), 256):
            batch = [{"image": image} for image in encoded[start : start + 256]["image"]]
            for i, reason in enumerate(pool.map(fault, batch)):
                if reason:
                    yield start + i, reason


def refusal(processor: ProcessorMixin, size: tuple[int, int]) -> str | None:
    """Why the processor does not take an image of this (width, height); None if it does."""
    try:
        visual_tokens(processor, [size[::-1]])
    except Exception as error:  # each family's own
        return f"the processor refuses an image of {size[0]} x {size[1]} pixels: {error}"
    return None
