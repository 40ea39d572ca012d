"""Rows as in the Hub's `JosephZ/psg_train_sg`, `JosephZ/vg150_train_sgg_prompt` and their like (made for R1-SGG).

    ROOT/**/*.parquet   columns image_id, image (its bytes), objects, relationships
    ROOT/**/*.jsonl     the same rows with the path of the image in `image_file`

`objects` is JSON: [{"id": "person.1", "bbox": [x1, y1, x2, y2]}], and so is `relationships`: [{"subject": "person.1",
"predicate": "on", "object": "road.1"}]. The class is what stands before the last dot of the id.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.readers.json_stream import Unreadable, parse_json
from data_prep.readers.record import (
    EmbeddedImage,
    OnDamage,
    Record,
    RecordError,
    attempt,
    below,
    class_list,
    identity,
    shown,
)
from sgrl.data import SPLITS
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.files import natural, open_text
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.images import image_sizes
from sgrl.vocabulary import VOCABULARIES, Vocabulary, get_vocabulary

_TEXTS = ("objects", "relationships")
_ROWS = 32  # with their images in memory
_LONGEST_LINE = 1 << 26  # characters; what is longer is a missing line break, not a row
_SPLIT = re.compile(r"(?<![a-z])(train|val|validation|valid|test)(?![a-z])")
_RECOGNISED = 0.5  # share of the labels that must be in an official list


class HubReader:
    """Reads a folder of such rows; see `data_prep.readers.record.Reader`.

    The split of a file is the last of the words train, val and test in the names of its folders (the root's among
    them), else in its own name: the files of `psg_test_sg` are called train-*.parquet.

    Args:
        root: the folder of one data set, or one with a folder per split.
        vocabulary: name of the official class lists. By default those that hold most of the labels that occur, if they
            hold at least half; else the labels themselves become the lists.
        split: of all rows, whatever names say.

    Raises:
        SgrlError: no such files, a file that is truncated or has other columns.
    """

    default_size = (640, 480)
    codec = "toon"

    def __init__(self, root: str | Path, vocabulary: str | None = None, split: str | None = None):
        self.root = Path(root)
        if not self.root.is_dir():
            raise SgrlError(f"{root} is not a folder; give the one that holds the data set's Parquet files")
        if split is not None and split not in SPLITS:
            raise UsageError(f"unknown split {split!r}{suggest(split, SPLITS)}")
        self._split = split
        found = list(self.root.rglob("*.parquet")) or self.root.rglob("*.jsonl")
        self._files = sorted(found, key=natural)
        if not self._files:
            inside = ", ".join(sorted(path.name for path in self.root.iterdir())[:10]) or "nothing"
            raise SgrlError(f"{self.root} holds no .parquet (or .jsonl) files, only {inside}")
        self.source = self._files[0]
        self.vocabulary = self._recognise() if vocabulary is None else get_vocabulary(vocabulary)
        self.name = self.vocabulary.name
        self.notes: Counter[str] = Counter()

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """All rows, file by file. A damaged one is handed to `on_damage` and skipped; without it, it is raised."""
        self.notes.clear()
        for path in self._files:
            split = self._split or _split(path, self.root)
            for number, row in enumerate(_rows(path)):
                place = f"{path.name}, row {number}"
                record = attempt(on_damage, place, _record, place, row, path, split)
                if record is not None:
                    yield record

    def totals(self) -> dict[str, tuple[int, int]]:
        """Empty: the number of rows was not published."""
        return {}

    def _recognise(self) -> Vocabulary:
        labels: dict[str, None] = {}
        predicates: dict[str, None] = {}
        damage: list[RecordError] = []

        def collect(row) -> None:
            row = _columns(row)
            objects, relationships = (_parsed(row, name) for name in _TEXTS)
            labels.update(dict.fromkeys([_label(entry) for entry in objects]))
            predicates.update(dict.fromkeys([entry["predicate"] for entry in relationships]))

        for path in self._files:
            for number, row in enumerate(_rows(path, _TEXTS)):
                attempt(damage.append, f"{path.name}, row {number}", collect, row)
                del damage[1:]  # they are named when they are read as records
        if not labels or not predicates:
            reason = f": {damage[0]}" if damage else ""
            raise SgrlError(f"{self.root}: not one row with objects and one with relationships could be read{reason}")
        found = set(labels) | set(predicates)
        shares = {}
        for name in VOCABULARIES:
            official = get_vocabulary(name)
            shares[name] = len(found & {*official.objects, *official.predicates}) / len(found)
        best = max(shares, key=lambda name: shares[name])
        if shares[best] >= _RECOGNISED:
            return get_vocabulary(best)
        return Vocabulary(
            self.root.resolve().name, class_list(sorted(labels)), class_list(sorted(predicates, key=str))
        )


def _record(place: str, row, path: Path, split: str) -> Record:
    row = _columns(row)
    image_id = identity(row.get("image_id"), "image_id")
    image = _image(place, row, path)
    objects: list[Object] = []
    position: dict[str, int] = {}
    for i, entry in enumerate(_parsed(row, "objects")):
        label = _label(entry)
        if entry["id"] in position:
            raise GraphError(f"object {i}: the id {shown(entry['id'])} stands twice")
        position[entry["id"]] = len(objects)
        box: Any = entry.get("bbox")  # Object and Relation say what is wrong
        objects.append(Object(label, box))
    relations = []
    for i, entry in enumerate(_parsed(row, "relationships")):
        for end in ("subject", "object"):
            if not isinstance(entry.get(end), str) or entry[end] not in position:
                raise GraphError(f"relation {i}: {end} must be the id of an object, found {shown(entry.get(end))}")
        predicate: Any = entry.get("predicate")
        relations.append(Relation(position[entry["subject"]], predicate, position[entry["object"]]))
    graph = SceneGraph(objects, relations, *_size(image))
    return Record(image_id, image, graph, split, f"{place} (image_id {shown(image_id)})")


def _columns(row) -> dict:
    """The columns of a row; of JSON lines it comes as text."""
    row = parse_json(row) if isinstance(row, str) else row
    if not isinstance(row, dict):
        raise GraphError(f"expected an object, found {shown(row)}")
    return row


def _parsed(row: dict, name: str) -> list[dict]:
    value = row.get(name)
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except GraphError as error:
            raise GraphError(f"{name} is {error}") from None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise GraphError(f"{name} must be a list of objects, found {shown(value)}")
    return value


def _label(entry: dict) -> str:
    name = entry.get("id")
    label, dot, number = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if not (label and dot and number.isdecimal()):
        raise GraphError(f"the id of an object must be its class, a dot and a number (person.1), found {shown(name)}")
    return label


def _image(place: str, row: dict, path: Path) -> Path | EmbeddedImage:
    image = row.get("image")
    if isinstance(image, dict) and isinstance(image.get("bytes"), bytes):
        return EmbeddedImage(f"of {place}", image["bytes"])
    name = row.get("image_file", image.get("path") if isinstance(image, dict) else image)
    return below(path.parent, name, "the image's path")


def _size(image: Path | EmbeddedImage) -> tuple[int, int]:
    """(width, height) in pixels as viewers show it, which is how the boxes were drawn; only the header is decoded."""
    try:
        return image_sizes(image.data if isinstance(image, EmbeddedImage) else image, image).upright
    except SgrlError as error:
        raise GraphError(f"{error}; the rows do not say how large it is") from None


def _rows(path: Path, columns: tuple[str, ...] | None = None) -> Iterator[dict | str | Unreadable]:
    """The rows of a file; `columns` alone spare the images."""
    if path.suffix == ".jsonl":
        yield from _lines(path)
        return
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(path)
        present = file.schema_arrow.names
        missing = [name for name in ("image_id", "image", *_TEXTS) if name not in present]
        if missing:
            raise SgrlError(f"{path} has no column {missing[0]!r}, only {', '.join(present)}")
        columns = columns or ("image_id", "image", *_TEXTS)
        for batch in file.iter_batches(_ROWS if "image" in columns else 1000, columns=list(columns)):
            try:
                yield from batch.to_pylist()
            except (ValueError, OverflowError):  # text that is no UTF-8, a time beyond the calendar: of one row
                for number in range(len(batch)):
                    yield _row(batch.slice(number, 1))
    except (pyarrow.ArrowException, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise SgrlError(
            f"{path} ({size:,} bytes) is truncated or damaged ({str(error).splitlines()[0]}); download it again"
        ) from None


def _row(batch):
    try:
        return batch.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        return str(error)  # no object: `_columns` says so


def _lines(path: Path) -> Iterator[str | Unreadable]:
    """The lines of a file, not decoded."""
    with open_text(path, "surrogateescape") as file:
        while line := file.readline(_LONGEST_LINE):
            line = line.strip().strip("\ufeff")  # files that were joined have marks inside
            if len(line) >= _LONGEST_LINE:
                while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith("\n"):
                    pass
                yield Unreadable("a line that does not end")
            elif line:
                yield line


def _split(path: Path, root: Path) -> str:
    parts = (root.resolve().name, *path.relative_to(root).parts)  # the Hub's cache has links: only names count
    for names in (parts[:-1], parts[-1:]):
        found = [word for name in names for word in _SPLIT.findall(name.lower())]
        if found:
            return {"validation": "val", "valid": "val"}.get(found[-1], found[-1])
    return "train"
