"""Where Visual Genome's images lie, and how large they are; shared by the readers of VG150 and of the raw files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.readers.json_stream import items
from sgrl.errors import SgrlError
from sgrl.graph import GraphError

CORRUPT = frozenset((1592, 1722, 4616, 4617))
"""Image ids that VG150 leaves out because their files were damaged; rows of its h5 file are counted without them."""

FOLDERS = ("VG_100K", "VG_100K_2")
TRAIN_SHARE = 0.7  # of the entries in file order, without the corrupt ones (Xu et al., CVPR 2017)


class ImageList:
    """image_data.json without the corrupt ids, and the folders beside it.

    Raises SgrlError where the file or every folder of images is missing.
    """

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

    def __iter__(self) -> Iterator[dict]:
        """The entries, checked and in file order; memory stays at one."""
        for number, entry in enumerate(items(self.path, None)):
            image_id = entry.get("image_id") if isinstance(entry, dict) else None
            if not isinstance(image_id, int):
                raise SgrlError(
                    f"{self.path}, entry {number}: expected an object with an image_id, found {entry!r:.60}"
                )
            if image_id not in CORRUPT:
                yield entry

    def count(self) -> int:
        """How many entries there are; one pass over the file."""
        return sum(1 for _ in self)

    def file(self, entry: dict) -> Path:
        """Where the image should be: in the folder that its url names. One folder may hold the images of both."""
        first, second = FOLDERS[::-1] if "VG_100K_2" in str(entry.get("url")) else FOLDERS
        name = f"{entry['image_id']}.jpg"
        if second in self._folders:
            if first not in self._folders:
                return self._folders[second] / name
            if not (self._folders[first] / name).exists() and (self._folders[second] / name).exists():
                return self._folders[second] / name
        return self._folders[first] / name


def true_size(image: Path, entry: dict) -> tuple[int, int]:
    """(width, height) in pixels of the image file as far as it can be read, else what image_data.json says.

    Several sizes in the official image_data.json are wrong, and boxes are scaled by them. Raises GraphError for a size
    that is none, with no image to ask.
    """
    from PIL import Image

    stated = (entry.get("width"), entry.get("height"))
    try:
        with Image.open(image) as opened:  # the header only
            if opened.size == stated:
                return opened.size
            turned = opened.getexif().get(0x0112, 1) >= 5  # Orientation: the annotators saw it on its side
            return opened.size[::-1] if turned else opened.size
    except Exception:  # missing or damaged: the converter says so when it reads the pixels
        pass
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in stated):
        raise GraphError(f"width and height must be whole numbers above 0, found {stated[0]!r} and {stated[1]!r}")
    return stated
