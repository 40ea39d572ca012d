"""The images that a run's predictions are about, from the data set or the files that run.json names."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sgrl.errors import SgrlError
from sgrl.hub import dataset_folder, is_name
from sgrl.inference.predictions import Key
from sgrl.inference.rows import DatasetRows, FileRows
from sgrl.report.runs import Run

if TYPE_CHECKING:
    from PIL import Image

MAX_SIDE = 960
LOSSLESS_SIDE = 256  # below it JPEG's blocks would show, for the picture is enlarged


def find(path: str, folder: Path) -> str:
    """Where a recorded path is: as written, or seen from the run's folder or one above it.

    A run records the paths of its command, which may have been relative to another working directory.
    """
    if Path(path).exists():
        return path
    for parent in folder.resolve().parents:
        if (parent / path).exists():
            return str(parent / path)
    if is_name(path):
        with suppress(SgrlError):  # most often it is a path after all
            dataset_folder(path)
            return path
    raise SgrlError(
        f"run {folder} was made from {path}, which is neither here nor above the run's folder; say where it is now "
        "with --dataset"
    )


class Pictures:
    """The image of a key, read when it is asked for.

    Args:
        run: says data set and split, or the files of `--input`.
        keys: that will be asked for.
        dataset: in place of the recorded one.

    Attributes:
        name: of the data set or the files. changed: whether the data set is another than the run saw.

    Raises:
        SgrlError: the data set is not found, or lacks an image.
    """

    def __init__(self, run: Run, keys: Iterable[Key], dataset: str | None = None):
        keys, info = list(keys), run.info
        self._rows: DatasetRows | FileRows
        if info.get("input"):
            inputs = [find(str(path), run.folder) for path in info["input"]]
            self._rows = FileRows(inputs, None, info.get("context") is not None)
            self.changed = False  # the files are looked up one by one
        else:
            recorded = info.get("dataset")
            if dataset is None and not recorded:
                raise SgrlError(f"{run.folder / 'run.json'} names no data set; give it with --dataset")
            found = dataset or find(str(recorded), run.folder)
            self._rows = DatasetRows(found, info.get("split") or "test")
            self.changed = info.get("dataset_fingerprint") not in (None, self._rows.fingerprint)
        self.name = self._rows.name
        wanted = set(keys)
        self._places = {key: index for index, key in enumerate(self._rows.keys) if key in wanted}
        missing = [key for key in keys if key not in self._places]
        if missing:
            raise SgrlError(
                f"{self.name}, split {info.get('split')!r} lacks {len(missing)} of {len(keys)} predicted images, such "
                f"as {missing[0][1]!r}; give the --dataset that the runs were made from"
            )

    def __getitem__(self, key: Key) -> Image.Image:
        """RGB, as large as it is in the data set or in the user's file."""
        try:
            return self._rows.picture(self._places[key]).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise SgrlError(f"image {key[1]!r} does not open ({error}); convert the data set again") from None


def encode(picture: Image.Image) -> tuple[bytes, str]:
    """A picture as a file for a page, at most `MAX_SIDE` pixels a side: its bytes and "jpeg", or "png" if small."""
    if max(picture.size) > MAX_SIDE:
        picture = picture.copy()
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
    kind = "png" if max(picture.size) <= LOSSLESS_SIDE else "jpeg"
    buffer = io.BytesIO()
    picture.save(buffer, kind.upper(), quality=86, optimize=True)
    return buffer.getvalue(), kind
