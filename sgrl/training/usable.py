"""The rows of a run whose images can be trained on: they open, and the processor takes them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sgrl.errors import SgrlError
from sgrl.images import check_image
from sgrl.models.vlm.processor import refusal
from sgrl.picture import encoded_images
from sgrl.terminal import printable

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin

logger = logging.getLogger(__name__)

NAMED = 5
"""So many of the rows that are left out are named."""


def drop_unusable(rows: Dataset, place: str, processor: ProcessorMixin) -> Dataset:
    """Leave out rows whose image is damaged or refused by the processor; the log counts and names them.

    Every image is decoded once, or the run would end where the sampler happens to draw such a row.

    Args:
        rows: with the columns image and image_id.
        place: what the log calls them.

    Raises:
        SgrlError: if nothing is left.
    """
    faults = dict(unusable(rows, processor))
    if not faults:
        return rows
    logger.warning("%s", summary(faults, rows, place))
    if len(faults) == len(rows):
        raise SgrlError(f"{place}: no row has an image that can be used; row 0: {faults[0]}")
    return rows.select([i for i in range(len(rows)) if i not in faults])


def summary(faults: Mapping[int, str], rows: Dataset, place: str) -> str:
    """One line about what `unusable` found."""
    first = list(faults.items())[:NAMED]
    ids = rows.select([row for row, _ in first])["image_id"]
    named = "; ".join(f"row {row} (image_id {printable(i)}): {why}" for (row, why), i in zip(first, ids, strict=True))
    more = "; ..." if len(faults) > NAMED else ""
    return f"{place}: {len(faults):,} of {len(rows):,} rows are left out for their images: {named}{more}"


def unusable(rows: Dataset, processor: ProcessorMixin | None = None) -> Iterator[tuple[int, str]]:
    """(number of the row, what is wrong with its image) of those that cannot be used.

    processor: also asked whether it takes an image of that size; one of 1 : 200 is too thin for most.
    """
    refusals: dict[tuple[int, int], str | None] = {}

    def fault(images: list[dict]) -> str | None:
        return next(filter(None, map(fault_of_one, images)), None)

    def fault_of_one(image: dict) -> str | None:
        try:
            size = check_image(image)
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
            batch = encoded_images(rows.select(range(start, min(start + 256, len(rows)))))
            for i, reason in enumerate(pool.map(fault, batch)):
                if reason:
                    yield start + i, reason
