"""The images of a data set's rows as `sgrl.images` opens them; apart from it, for it needs `datasets`."""

from __future__ import annotations

from dataclasses import dataclass

import datasets

from sgrl.images import image_column, open_image


@dataclass
class Picture(datasets.Image):
    """`datasets.Image`, whose rows are decoded by `open_image`: upright, RGB, SgrlError for what does not open."""

    def decode_example(self, value, token_per_repo_id=None):
        return open_image(value) if isinstance(value, dict) else value


def with_pictures(rows: datasets.Dataset) -> datasets.Dataset:
    """The rows, whose images come as `Picture` gives them."""
    if image_column(rows.column_names) == "image":
        return rows.cast_column("image", Picture())
    rows.features["images"] = datasets.List(Picture())  # for lists, `cast_column` would write all rows anew
    return rows


def encoded_images(rows: datasets.Dataset) -> list[list[dict]]:
    """The image files of each row as they are stored: {"bytes": ..., "path": ...}."""
    name = image_column(rows.column_names)
    found = rows.select_columns([name]).with_format("arrow")[:][name].to_pylist()
    return found if name == "images" else [[one] for one in found]


def most_images(rows: datasets.Dataset) -> int:
    """The most images that a row has."""
    if "images" not in rows.column_names:
        return 1
    batches = rows.select_columns(["images"]).with_format("arrow").iter(1000)
    chunks = (chunk for batch in batches for chunk in batch["images"].chunks)
    return max((max(chunk.value_lengths().to_pylist(), default=1) for chunk in chunks), default=1)
