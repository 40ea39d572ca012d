"""Where Visual Genome's images lie, and how large they are; shared by the readers of VG150 and of the raw files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.readers.json_stream import items
from data_prep.readers.record import below, identity, shown
from sgrl.errors import SgrlError
from sgrl.graph import GraphError
from sgrl.images import image_sizes

CORRUPT = frozenset((1592, 1722, 4616, 4617))
"""Image ids that VG150 leaves out because their files were damaged; rows of its h5 file are counted without them."""

FOLDERS = ("VG_100K", "VG_100K_2")
TRAIN_SHARE = 0.7  # of the entries in file order, without the corrupt ones (Xu et al., CVPR 2017)


class ImageList:
    """image_data.json without the corrupt ids, and the folders beside it.

    Own data sets in this layout name their files ("file_name"), and count ids as they please.

    Attributes:
        corrupt: image ids that are left out.

    Raises SgrlError where the file or every folder of images is missing.
    """

    corrupt = CORRUPT

    def __init__(self, root: Path):
        self.path = root / "image_data.json"
        if not self.path.is_file():
            raise SgrlError(
                f"{root} holds no image_data.json; get it from Visual Genome's page (image_data.json.zip, version "
                "1.2 or later) and unpack it there"
            )
        self._folders = {name: root / name for name in FOLDERS if (root / name).is_dir()}
        if not self._folders:
            raise SgrlError(f"{root} holds neither VG_100K/ nor VG_100K_2/; expected Visual Genome's images there")

    def __iter__(self) -> Iterator:
        """The entries in file order, unchecked; memory stays at one."""
        for entry in items(self.path, None):
            if not (self.corrupt and isinstance(entry, dict) and _is_corrupt(entry.get("image_id"), self.corrupt)):
                yield entry

    def count(self) -> int:
        """How many entries there are; one pass over the file."""
        return sum(1 for _ in self)

    def fit(self, rows: int) -> int:
        """How many entries there are beside `rows` of another file: without the corrupt ids or, where only that
        makes as many, with them (a data set of one's own counts from 0). One pass over the file."""
        counts: Counter[bool] = Counter()
        for entry in items(self.path, None):
            counts[isinstance(entry, dict) and _is_corrupt(entry.get("image_id"), CORRUPT)] += 1
        if rows == counts.total() != counts[False]:
            self.corrupt = frozenset()
            return rows
        return counts[False]

    def file(self, entry: dict) -> Path:
        """Where the image should be: in the folder that its url names. One folder may hold the images of both.

        Raises GraphError for a `file_name` that leaves the folder.
        """
        names = list(self._folders)
        if "VG_100K_2" in str(entry.get("url")):
            names.reverse()
        name = entry.get("file_name")
        if name is None:
            name = f"{identity(entry['image_id'], 'image_id')}.jpg"
        paths = [below(self._folders[folder], name, "file_name") for folder in names]
        if "file_name" in entry:
            paths.append(below(self.path.parent, name, "file_name"))  # or from the root: VG_100K/1.jpg
        if len(paths) == 1:
            return paths[0]
        return next((path for path in paths if os.path.exists(path)), paths[0])


def true_size(image: Path, entry: dict) -> tuple[int, int]:
    """(width, height) in pixels of the image file as far as it can be read, else what image_data.json says.

    Several sizes in the official image_data.json are wrong, and boxes are scaled by them. Raises GraphError for a size
    that is none, with no image to ask.
    """
    stated: tuple[Any, Any] = (entry.get("width"), entry.get("height"))
    try:
        sizes = image_sizes(image)
        return stated if stated in sizes else sizes.upright  # turned by its EXIF, as the annotators saw it
    except SgrlError:  # missing or damaged: the converter says so when it reads the pixels
        pass
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in stated):
        raise GraphError(
            f"width and height must be whole numbers above 0, found {shown(stated[0])} and {shown(stated[1])}"
        )
    return stated


def entry_id(entry) -> str:
    """The image_id of an entry as text. Raises GraphError for one that has none."""
    if not isinstance(entry, dict) or "image_id" not in entry:
        raise GraphError(f"expected an object with an image_id, found {shown(entry)}")
    return identity(entry["image_id"], "image_id")


def _is_corrupt(image_id, corrupt: frozenset[int]) -> bool:
    return isinstance(image_id, int) and image_id in corrupt
