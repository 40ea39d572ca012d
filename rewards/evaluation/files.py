"""What is scored: the references of a data set, and a file of predictions, ours or somebody else's."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rewards.reading import CompletionError, check_completion, check_frame
from sgrl import data
from sgrl.errors import SgrlError, suggest
from sgrl.files import fingerprint
from sgrl.terminal import printable
from sgrl.text import FormatError, ParsedGraph, detect_codec, get_codec

Key = tuple[str, str]
"""What names an image: the data set's name ("" where ids alone are unique) and the image's id."""

FILES = ("predictions.jsonl", "predictions.parquet")
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
    parquet = _parquet()
    for file in data.files(path, split):
        opened = _read(file, parquet.ParquetFile)
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


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise SgrlError("reading Parquet needs pyarrow: pip install 'sgrl[data]'") from None
    return pyarrow.parquet


def _read(file: Path, read: Callable[..., Any], **options: Any) -> Any:
    import pyarrow

    try:
        return read(file, **options)
    except (pyarrow.ArrowException, OSError) as error:
        raise SgrlError(f"{file} is not a readable Parquet file: {error}; convert or copy it again") from None


class References:
    """The references of a split, in its order.

    Args:
        path, split: a data set as data_prep/to_toon.py writes it; a single Parquet file is one split.
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
        # Others' predictions hardly know what we call a data set: ids decide wherever they can.
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
            self.vocabulary = data.vocabulary_of(data.read_metadata(path))
        except SgrlError:
            self.vocabulary = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of its files, as those who predict them store it."""
        return fingerprint(data.files(self.path, self.split))

    def key(self, dataset: object, image_id: object) -> Key:
        """What names an image here."""
        return "" if self.ids_suffice else str(dataset or ""), str(image_id)

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


class Predictions:
    """A file of predictions with the columns image_id and prediction, JSON lines or Parquet, by image.

    A prediction is a text, a chat message, null, or a JSON object with objects and relationships.

    Of two predictions for one image the first counts. Memory is what the ids need, and for Parquet the file.

    Args:
        path: a .jsonl or .parquet file, or a folder with one of FILES.
        references: what they are predictions for.

    Attributes:
        damaged, duplicates, unknown: lines that cannot be read, second predictions for an image, and predictions for
            images that the references lack.

    Raises:
        SgrlError: the file is missing, damaged as a whole, empty, or has other columns; not one prediction is for an
            image of the references.
    """

    def __init__(self, path: str | Path, references: References):
        self.path = path = Path(path)
        if path.is_dir():
            self.path = next((path / name for name in FILES if (path / name).is_file()), path)
        if not self.path.is_file():
            where = f"{path} holds neither {' nor '.join(FILES)}" if path.is_dir() else f"{path} does not exist"
            raise SgrlError(f"{where}; expected a file of predictions, or the folder of a run")
        self.damaged, self.duplicates, self.unknown = Problem(), Problem(), Problem()
        self._places: dict[Key, int] = {}
        self._table = None
        self._codec = references.codec
        known = set(references.keys)
        rows = self._parquet_rows() if self.path.suffix == ".parquet" else self._json_rows()
        for place, name, row in rows:
            key = references.key(row.get("dataset"), row["image_id"])
            if key not in known:
                self.unknown.add(repr(key[1]))
            elif key in self._places:
                self.duplicates.add(f"{key[1]!r} ({name})")
            else:
                self._places[key] = place
        if not self._places:
            raise nothing_to_score(self, references, "predictions is for an image")
        self._file = open(self.path, "rb") if self._table is None else None

    def __enter__(self) -> Predictions:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def missing(self, references: References) -> Problem:
        """The images without a prediction."""
        problem = Problem()
        for key in references.keys:
            if key not in self._places:
                problem.add(repr(key[1]))
        return problem

    def get(self, key: Key, reference: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The row of an image; None if there is none. The reference is not needed."""
        place = self._places.get(key)
        if place is None:
            return None
        if self._table is not None:
            return {name: column[place].as_py() for name, column in self._table.items()}
        self._file.seek(place)
        return json.loads(self._file.readline())

    def _parquet_rows(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        table = _read(self.path, _parquet().read_table)
        _check_columns(self.path, table.column_names)
        wanted = ("dataset", "image_id", "prediction", "confidence", "tokens", "seconds", "finish_reason")
        self._table = {name: table.column(name) for name in wanted if name in table.column_names}
        said = self._table["prediction"].drop_null()
        if len(said):  # a column has one type
            try:
                check_completion(said[0].as_py(), self._codec)
            except CompletionError as error:
                raise SgrlError(f"{self.path}, column prediction: {error}") from None
        names = [name for name in ("dataset", "image_id") if name in self._table]
        for number, row in enumerate(table.select(names).to_pylist()):
            yield number, f"row {number}", row

    def _json_rows(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        place, usable, others = 0, False, None
        with open(self.path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                start, place = place, place + len(line)
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"a {type(row).__name__}, expected an object")
                    if "image_id" not in row or "prediction" not in row:
                        others = others or list(row)
                        raise ValueError("no image_id or no prediction")
                    check_completion(row["prediction"], self._codec)
                except (ValueError, RecursionError) as error:
                    cut = "" if line.endswith(b"\n") else ", which ends in the middle"
                    self.damaged.add(f"line {number}{cut} ({str(error)[:80]})")
                    continue
                usable = True
                yield start, f"line {number}", row
        if others and not usable:
            _check_columns(self.path, others)


def _check_columns(path: Path, found: Sequence[str]) -> None:
    missing = [name for name in ("image_id", "prediction") if name not in found]
    if missing:
        hints = "".join(suggest(name, found) for name in missing)
        raise SgrlError(f"{path} has no {' and no '.join(missing)}{hints}; predictions have both")


def joined(predictions: ByImage, references: References) -> Iterator[dict[str, Any]]:
    """A row to score for each reference, in their order: what was predicted (None where nothing was), with the
    reference's graph, frame and place in a video."""
    nowhere = {"video_id": None, "frame": None}  # what predictions say of it does not count
    for key, reference in references:
        yield {**(predictions.get(key, reference) or {"prediction": None}), **nowhere, **reference}


def nothing_to_score(predictions, references, kind: str) -> SgrlError:
    """The error for predictions of which none fits. kind: e.g. "predictions is for an image"."""
    if predictions.unknown.count:
        return SgrlError(
            f"{predictions.path}: not one of {predictions.unknown.count:,} {kind} of {references.path}, split "
            f"{references.split!r}: ids are {predictions.unknown} here, {references.keys[0][1]!r} and so on there"
        )
    damaged = f": {predictions.damaged}" if predictions.damaged.count else ""
    return SgrlError(f"{predictions.path} holds no prediction{damaged}")
