"""What is scored: the references of a data set, and a file of predictions, ours or somebody else's."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rewards.evaluation.columns import Columns
from rewards.evaluation.records import Damage, Records, read_parquet
from rewards.reading import check_completion, check_frame
from sgrl import data
from sgrl.errors import SgrlError, suggest
from sgrl.extras import require
from sgrl.files import fingerprint
from sgrl.terminal import printable
from sgrl.text import Codec, FormatError, ParsedGraph, detect_codec, get_codec
from sgrl.vocabulary import Vocabulary

Key = tuple[str, str]
"""What names an image: the data set's name ("" where ids alone are unique) and the image's id."""

SHOWN = 3


def read_rows(
    path: str | Path,
    split: str | None = None,
    needed: Sequence[str] = ("solution", "width", "height"),
    wanted: Sequence[str] = ("completion", "image_id"),
) -> Iterator[dict[str, Any]]:
    """Columns of a data set, row by row, with `row`: where the row is. Needs pyarrow.

    needed, wanted: columns that must be there, and those that may be.

    Raises:
        SgrlError: a file or a column is missing or damaged.
    """
    parquet = require("pyarrow.parquet", "data", "reading Parquet")
    for file in data.files(path, split):
        opened = read_parquet(file, parquet.ParquetFile)
        found = opened.schema_arrow.names
        missing = [name for name in needed if name not in found]
        if missing:
            raise SgrlError(f"{file} has no column {', '.join(missing)}; it has {', '.join(found)}")
        columns = [name for name in (*needed, *wanted) if name in found]
        number = 0
        for batch in opened.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                name = f"{file.name}, row {number}"
                yield row | {"row": name if row.get("image_id") is None else f"{name} ({row['image_id']})"}
                number += 1


class Named:
    """References whose images go by ids.

    Attributes:
        keys: of the images. ids_suffice: whether ids are unique without their data set.
    """

    keys: list[Key]
    ids_suffice: bool

    def key(self, dataset: object, image_id: object) -> Key:
        """What names an image here."""
        # Others' predictions hardly know what we call a data set: ids decide wherever they can.
        return "" if self.ids_suffice else str(dataset or ""), str(image_id)

    @functools.cached_property
    def _known(self) -> frozenset[Key]:
        return frozenset(self.keys)

    def find(self, dataset: object, names: Sequence[str]) -> Key | None:
        """The image that goes by one of these names, the surest first; None if there is none."""
        return next((key for name in names if (key := self.key(dataset, name)) in self._known), None)

    def own(self, records: Records) -> bool:
        """Whether they stand in this file of predictions itself."""
        return False


class References(Named):
    """The references of a split, in its order.

    Args:
        path, split: a data set as sgrl convert writes it; a single Parquet file is one split.
        limit: the first so many images only.

    Attributes:
        codec: of its texts. vocabulary: of its metadata; None for files without.
        keys: of the images.

    Raises:
        SgrlError: no rows, an id that stands twice, or what `read_rows` raises.
    """

    def __init__(self, path: str | Path, split: str = "test", limit: int | None = None):
        self.path, self.split, self.limit = path, split, limit
        names = [
            (str(row.get("dataset") or ""), str(row["image_id"])) for row in self._rows(("image_id",), ("dataset",))
        ]
        if not names:
            raise SgrlError(f"split {split!r} of {path} has no rows; convert some, or choose another --split")
        self.ids_suffice = len({image_id for _, image_id in names}) == len(names)
        self.keys = [self.key(*name) for name in names]
        (twice, count), *_ = Counter(self.keys).most_common(1)
        if count > 1:
            raise SgrlError(f"{path}: image_id {twice[1]!r} occurs more than once; ids must be unique in a split")
        first = next(iter(self._rows(("solution",), ("image_id",))))
        try:
            self.codec = get_codec(detect_codec(first["solution"]))
        except FormatError as error:
            raise SgrlError(f"{path}, {first['row']}: {error}") from None
        try:
            self.vocabulary: Vocabulary | None = data.vocabulary_of(data.read_metadata(path))
        except SgrlError:
            self.vocabulary = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of its files, as those who predict them store it."""
        return fingerprint(data.files(self.path, self.split))

    def videos(self) -> list[str | None]:
        """The video that each image is of."""
        return [row.get("video_id") for row in self._rows(("image_id",), ("video_id",))]

    def _rows(self, needed: Sequence[str], wanted: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(read_rows(self.path, self.split, needed, wanted)):
            if number == self.limit:
                return
            yield row

    def __iter__(self) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Key of each image, and its solution (a ParsedGraph), width, height, and of a frame video_id and frame.

        Raises:
            SgrlError: a reference is malformed.
        """
        rows = self._rows(("image_id", "solution", "width", "height"), ("video_id", "frame"))
        for key, row in zip(self.keys, rows, strict=True):
            place = row.pop("row")
            try:
                check_frame(row["width"], row["height"])
                graph = self.codec.parse(row["solution"], row["width"], row["height"], tags=None)
            except SgrlError as error:
                raise SgrlError(f"{place}: malformed reference: {error}; see python -m rewards validate") from None
            yield key, row | {"solution": graph}


def training_graphs(path: str | Path) -> Iterator[ParsedGraph]:
    """The references of the training split that can be read; none where there is no such split."""
    if Path(path).is_file():
        return
    try:
        data.files(path, "train")
    except SgrlError:
        return
    codec = None
    for row in read_rows(path, "train", wanted=()):
        try:
            check_frame(row["width"], row["height"])
            codec = codec or get_codec(detect_codec(row["solution"]))
            yield codec.parse(row["solution"], row["width"], row["height"], tags=None)
        except SgrlError:
            continue


def predicate_frequency(path: str | Path) -> Counter[str]:
    """How often each predicate occurs in the training split of a data set; empty without one."""
    return Counter(predicate for graph in training_graphs(path) for _, predicate, _ in graph.relations)


@dataclass
class Problem:
    """A kind of bad input: how often it was found, and the first places."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        self.count += 1
        if len(self.examples) < SHOWN:
            self.examples.append(printable(place, 200))

    def __str__(self) -> str:
        return ", ".join(self.examples) + (", ..." if self.count > SHOWN else "")


class ByImage(Protocol):
    """Predictions of any kind."""

    def get(self, key: Key, reference: Mapping[str, Any]) -> dict[str, Any] | None:
        """What is predicted of an image, as a row with `prediction`; None if nothing is."""


class Checked(Protocol):
    """Predictions, wherever they stand, of which some may be damaged or for other images."""

    path: Path
    damaged: Problem
    unknown: Problem


class AnyReferences(Protocol):
    """References, wherever they stand.

    path, split: for messages. codec: of the texts. vocabulary, fingerprint: None where they do not say. keys: of the
    images.
    """

    codec: Codec
    keys: list[Key]

    @property
    def path(self) -> str | Path: ...

    @property
    def split(self) -> str: ...

    @property
    def vocabulary(self) -> Vocabulary | None: ...

    @property
    def fingerprint(self) -> str | None: ...

    def own(self, records: Records) -> bool: ...

    def find(self, dataset: object, names: Sequence[str]) -> Key | None: ...

    def key(self, dataset: object, image_id: object) -> Key: ...

    def videos(self) -> list[str | None]: ...

    def __iter__(self) -> Iterator[tuple[Key, dict[str, Any]]]: ...


class Predictions:
    """A file of predictions by image, in any of the formats of `records`.

    A prediction is a text, a chat message, null, or a JSON object with objects and relationships.

    Of two predictions for one image the first counts. Memory is what the ids need, and what `records` says.

    Args:
        records: the file.
        references: what they are predictions for.
        columns: which of its columns is what; None: as they are called.

    Attributes:
        damaged, duplicates, unknown: rows that cannot be read, second predictions for an image, and predictions for
            images that the references lack.

    Raises:
        SgrlError: the file has other columns; not one prediction is for an image of the references.
    """

    def __init__(self, records: Records, references: AnyReferences, columns: Columns | None = None):
        self.path, self._records = records.path, records
        self.columns = columns = columns or Columns.of(records.columns)
        self.damaged, self.duplicates, self.unknown = Problem(), Problem(), Problem()
        self._places: dict[Key, Any] = {}
        own = references.own(records)
        named = columns.has("image_id") or own
        if records.columns and not (named and columns.has("prediction")):
            _check_columns(self.path, records.columns, columns, ("image_id",) * (not named) + ("prediction",))
        for place, called, raw in records.rows():
            try:
                if isinstance(raw, Damage):
                    raise raw
                names = self._names(raw, called, references)
                key = references.find(columns.get(raw, "dataset"), names)
            except (ValueError, RecursionError) as error:
                self.damaged.add(f"{called} ({str(error)[:80]})")
                continue
            if key is None:
                if not own:  # its own reference is behind the limit, or counted as unreadable
                    self.unknown.add(repr(names[0]))
            elif key in self._places:
                self.duplicates.add(f"{key[1]!r} ({called})")
            else:
                self._places[key] = place
        if not self._places:
            raise nothing_to_score(self, references, "predictions is for an image")

    def _names(self, raw: dict[str, Any], called: str, references: AnyReferences) -> list[str]:
        """What a row may call its image. Raises ValueError for a row that is no prediction."""
        names = self.columns.names(raw)
        if not names and references.own(self._records):
            names = [called]
        if not names or self.columns.found["prediction"] not in raw:
            raise Damage("no image_id or no prediction")
        check_completion(self.columns.said(raw)["prediction"], references.codec)
        return names

    def __enter__(self) -> Predictions:
        return self

    def __exit__(self, *_: object) -> None:
        self._records.close()

    def missing(self, references: AnyReferences) -> Problem:
        """The images without a prediction."""
        problem = Problem()
        for key in references.keys:
            if key not in self._places:
                problem.add(repr(key[1]))
        return problem

    def get(self, key: Key, reference: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """What is said of an image (see Columns.said), and `scale`, where its boxes have a frame of their own; None
        if there is nothing. The reference is not needed."""
        place = self._places.get(key)
        if place is None:
            return None
        raw = self._records.get(place)
        return self.columns.said(raw) | {"scale": self.columns.scale(raw)}


def _check_columns(path: Path, found: Sequence[str], columns: Columns, needed: Sequence[str]) -> None:
    missing = [name for name in needed if not columns.has(name)]
    hints = "".join(suggest(name, found) for name in missing)
    words = " ".join(f"--map COLUMN={name}" for name in missing)
    raise SgrlError(f"{path} has no {' and no '.join(missing)}{hints}; {words} says what is another name of it")


def joined(predictions: ByImage, references: AnyReferences) -> Iterator[dict[str, Any]]:
    """A row to score for each reference, in their order: what was predicted (None where nothing was), with the
    reference's graph, frame and place in a video. Where an answer's boxes have a frame of their own the reference is
    in that one."""
    nowhere = {"video_id": None, "frame": None}  # what predictions say of it does not count
    for key, reference in references:
        said = dict(predictions.get(key, reference) or {"prediction": None})
        scale = said.pop("scale", None)
        yield {**said, **nowhere, **(reference if scale is None else _scaled(reference, *scale))}


def _scaled(reference: dict[str, Any], width: float, height: float) -> dict[str, Any]:
    """A reference in another frame. IoU does not change."""
    x, y = width / reference["width"], height / reference["height"]
    graph = reference["solution"]
    boxes = [(x1 * x, y1 * y, x2 * x, y2 * y) for x1, y1, x2, y2 in graph.boxes]
    return {**reference, "solution": graph._replace(boxes=boxes), "width": width, "height": height}


def nothing_to_score(predictions: Checked, references: AnyReferences, kind: str) -> SgrlError:
    """The error for predictions of which none fits. kind: e.g. "predictions is for an image"."""
    if predictions.unknown.count:
        split = f", split {references.split!r}" if references.split else ""
        return SgrlError(
            f"{predictions.path}: not one of {predictions.unknown.count:,} {kind} of {references.path}{split}: "
            f"ids are {predictions.unknown} here, {references.keys[0][1]!r} and so on there"
        )
    damaged = f": {predictions.damaged}" if predictions.damaged.count else ""
    return SgrlError(f"{predictions.path} holds no prediction{damaged}")
