"""References that stand in a file of rows: beside the predictions, or in a file of their own without a data set."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.evaluation.columns import Columns, names_of
from rewards.evaluation.files import Key, Named, Problem
from rewards.evaluation.records import Damage, Records
from rewards.reading import reference_text
from sgrl.errors import SgrlError
from sgrl.text import Codec, FormatError, ParsedGraph, detect_codec, get_codec
from sgrl.vocabulary import Vocabulary

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
PUBLISHED_SIZE = 640, 480
"""Of SceneGraphVLM's images, which its rows do not say."""
THOUSANDTHS = 1000, 1000


@dataclass(frozen=True)
class Frames:
    """What is known of the images' sizes besides the rows.

    size: width and height of all of them. images: a folder of them, by id.
    """

    size: tuple[float, float] | None = None
    images: Path | None = None

    def of(self, columns: Columns, raw: dict[str, Any], names: list[str]) -> tuple[tuple[float, float], str]:
        """The frame of a reference's boxes in pixels, and where it is from.

        Raises:
            Damage: nobody says it, and the answer has a frame of its own.
        """
        if found := columns.size(raw):
            return found, ""
        if self.images is not None:
            return _size_of_image(self.images, names), f"the images in {self.images}"
        if self.size is not None:
            return self.size, "--size"
        scale = columns.scale(raw)
        if scale == THOUSANDTHS:
            raise Damage("boxes are thousandths of an image of unknown size; give --images, --size or --reference")
        if scale is not None:
            return scale, "the answer, whose model saw an image of about the original's size"
        return PUBLISHED_SIZE, "SceneGraphVLM's images; --size and --images say others"


class FileReferences(Named):
    """The references in a file of rows, in its order. They are read leniently, as published evaluators do.

    Args:
        records, columns: the file, and which of its columns is what.
        limit: the first so many images only.
        beside: the predictions stand in the same file, and say themselves which rows are no rows.
        vocabulary: of the labels, which the file cannot say. frames: how large images are.

    Attributes:
        as of AnyReferences; damaged: rows whose reference cannot be read, which are left out. Those of `__iter__` join
        them when it comes to them.
        doubles: second references for an image, of which the first counts.
        assumed: where sizes are from -> (a size, how many).

    Raises:
        SgrlError: there is no column of references, or none can be read.
    """

    fingerprint = None
    split = ""

    def __init__(
        self,
        records: Records,
        columns: Columns,
        *,
        limit: int | None = None,
        beside: bool = True,
        vocabulary: Vocabulary | None = None,
        frames: Frames | None = None,
    ):
        self.path, self.vocabulary, self.columns = records.path, vocabulary, columns
        self._records, self._frames = records, frames or Frames()
        self.damaged, self.doubles = Problem(), Problem()
        self.assumed: Counter[tuple[str, tuple[float, float]]] = Counter()
        if not columns.has("reference"):
            raise SgrlError(
                f"{self.path} holds no references (it has {', '.join(map(repr, records.columns[:12])) or 'no rows'}); "
                "give --reference, or --map COLUMN=reference"
            )
        codec: Codec | None = None
        found: list[tuple[str, str, Any, str, str | None]] = []
        for place, called, raw in records.rows():
            if len(found) == limit:
                break
            if isinstance(raw, Damage):
                if not beside:
                    self.damaged.add(f"{called} ({raw})")
                continue
            try:
                codec = codec or get_codec(detect_codec(_text(columns.reference(raw))))
                image = (columns.names(raw) or [called])[0]
            except (ValueError, RecursionError) as error:
                self.damaged.add(f"{called} ({str(error)[:120]})")
                continue
            video = columns.get(raw, "video_id")
            found.append((str(columns.get(raw, "dataset") or ""), image, place, called, video and str(video)))
        if codec is None:
            raise SgrlError(f"{self.path} holds no reference that can be read: {self.damaged}")
        self.codec = codec
        self.ids_suffice = len({image for _, image, *_ in found}) == len(found)
        self._places: dict[Key, tuple[Any, str, str | None]] = {}
        for dataset, image, place, called, video in found:
            key = self.key(dataset, image)
            if key in self._places:
                self.doubles.add(f"{image!r} ({called})")
            else:
                self._places[key] = place, called, video
        self.keys = list(self._places)

    def own(self, records: Records) -> bool:
        return records is self._records

    def find(self, dataset: object, names: Sequence[str]) -> Key | None:
        """As of Named; paths also by their ends, where these are unique: another machine has other folders."""
        return super().find(dataset, names) or next((self._ends[name] for name in names if self._ends.get(name)), None)

    @functools.cached_property
    def _ends(self) -> dict[str, Key | None]:
        ends: dict[str, Key | None] = {}
        for key in self.keys:
            for name in names_of(key[1]):
                ends[name] = None if name in ends else key
        return ends

    def videos(self) -> list[str | None]:
        return [video for _, _, video in self._places.values()]

    def __iter__(self) -> Iterator[tuple[Key, dict[str, Any]]]:
        """As of References, without those that cannot be read."""
        self.assumed.clear()
        read = 0
        for key, (place, called, video) in self._places.items():
            raw = self._records.get(place)
            try:
                (width, height), source = self._frames.of(self.columns, raw, names_of(key[1]))
                graph = self._graph(_text(self.columns.reference(raw)), width, height)
            except (ValueError, RecursionError) as error:
                self.damaged.add(f"{called} ({str(error)[:120]})")
                continue
            if source:
                self.assumed[source, (width, height)] += 1
            read += 1
            frame = self.columns.get(raw, "frame")
            yield key, {"solution": graph, "width": width, "height": height, "video_id": video, "frame": frame}
        if not read:
            raise SgrlError(f"{self.path} holds no reference that can be read: {self.damaged}")

    def _graph(self, text: str, width: Any, height: Any) -> ParsedGraph:  # a frame need not be of whole pixels
        try:
            return self.codec.parse(text, width, height, tags=None)
        except FormatError as error:
            graph, _ = self.codec.recover_parsed(text, width, height)
            if graph.labels:
                return graph
            raise Damage(f"no reference: {error}") from None

    def lines(self) -> list[str]:
        """What had to be assumed, after all has been read."""
        found: dict[str, Counter[tuple[float, float]]] = {}
        for (source, size), count in self.assumed.items():
            found.setdefault(source, Counter())[size] += count
        return [
            f"Boxes of references are in frames of {_by(sizes.most_common(1)[0][0])}"
            f"{' and others' * (len(sizes) > 1)}, from {source} ({sizes.total():,} rows)."
            for source, sizes in found.items()
        ]


def _text(reference: Any) -> str:
    """Raises ValueError for what is no reference."""
    if reference is None:
        raise Damage("no reference")
    return reference_text(reference)


def _by(size: tuple[float, float]) -> str:
    return f"{size[0]} x {size[1]}"


def _size_of_image(folder: Path, names: list[str]) -> tuple[int, int]:
    """Width and height as stored. Raises Damage where there is no image by one of the names."""
    from PIL import Image

    for name in names:
        for path in (folder / name.lstrip("/"), *(folder / f"{name}{suffix}" for suffix in IMAGES)):
            if path.suffix.lower() in IMAGES and path.is_file():
                try:
                    with Image.open(path) as image:
                        return image.size
                except (OSError, ValueError, Image.DecompressionBombError) as error:
                    raise Damage(f"{path.name} does not open: {error}") from None
    raise Damage(f"no image {names[-1]!r} in {folder}")
