"""The image column of a data set as `sgrl.images` opens it; apart from it, for it needs `datasets`."""

from __future__ import annotations

from dataclasses import dataclass

import datasets

from sgrl.images import open_image


@dataclass
class Picture(datasets.Image):
    """`datasets.Image`, whose rows are decoded by `open_image`: upright, RGB, SgrlError for what does not open."""

    def decode_example(self, value, token_per_repo_id=None):
        return open_image(value) if isinstance(value, dict) else value
