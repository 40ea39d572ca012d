"""Rows as in the Hub's `JosephZ/psg_train_sg`, `JosephZ/vg150_train_sgg_prompt` and their like (made for R1-SGG).

    ROOT/**/*.parquet   columns image_id, image (its bytes), objects, relationships
    ROOT/**/*.jsonl     the same rows with the path of the image in `image_file`

`objects` is JSON: [{"id": "person.1", "bbox": [x1, y1, x2, y2]}], and so is `relationships`: [{"subject": "person.1",
"predicate": "on", "object": "road.1"}]. The class is what stands before the last dot of the id.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from data_prep.readers.record import EmbeddedImage, OnDamage, Record, RecordError
from sgrl.data import SPLITS
from sgrl.errors import SgrlError, suggest
from sgrl.files import natural
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.vocabulary import VOCABULARIES, Vocabulary, get_vocabulary

_TEXTS = ("objects", "relationships")
_ROWS = 32  # with their images in memory
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
            raise SgrlError(f"unknown split {split!r}{suggest(split, SPLITS)}")
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
                try:
                    yield _record(place, row, path, split)
                except GraphError as error:
                    error = RecordError(place, str(error))
                    if on_damage is None:
                        raise error from None
                    on_damage(error)

    def totals(self) -> dict[str, tuple[int, int]]:
        """Empty: the number of rows was not published."""
        return {}

    def _recognise(self) -> Vocabulary:
        labels, predicates = {}, {}
        for path in self._files:
            for row in _rows(path, _TEXTS):
                try:
                    objects, relationships = (_parsed(row, name) for name in _TEXTS)
                    labels.update(dict.fromkeys(_label(entry) for entry in objects))
                    predicates.update(dict.fromkeys(entry["predicate"] for entry in relationships))
                except (GraphError, KeyError, TypeError):
                    continue  # named when it is read as a record
        if not labels or not predicates:
            raise SgrlError(f"{self.root}: not one row with objects and one with relationships could be read")
        found = set(labels) | set(predicates)
        shares = {}
        for name in VOCABULARIES:
            official = get_vocabulary(name)
            shares[name] = len(found & {*official.objects, *official.predicates}) / len(found)
        best = max(shares, key=shares.get)
        if shares[best] >= _RECOGNISED:
            return get_vocabulary(best)
        return Vocabulary(self.root.resolve().name, tuple(sorted(labels)), tuple(sorted(predicates, key=str)))


def _record(place: str, row: dict, path: Path, split: str) -> Record:
    image_id = row.get("image_id")
    if not isinstance(image_id, str | int):
        raise GraphError(f"image_id must be a number or a string, found {image_id!r:.60}")
    image = _image(place, row, path)
    objects, position = [], {}
    for i, entry in enumerate(_parsed(row, "objects")):
        label = _label(entry)
        if entry["id"] in position:
            raise GraphError(f"object {i}: the id {entry['id']!r} stands twice")
        position[entry["id"]] = len(objects)
        objects.append(Object(label, entry.get("bbox")))
    relations = []
    for i, entry in enumerate(_parsed(row, "relationships")):
        for end in ("subject", "object"):
            if not isinstance(entry.get(end), str) or entry[end] not in position:
                raise GraphError(f"relation {i}: {end} must be the id of an object, found {entry.get(end)!r:.60}")
        relations.append(Relation(position[entry["subject"]], entry.get("predicate"), position[entry["object"]]))
    graph = SceneGraph(objects, relations, *_size(image))
    return Record(str(image_id), image, graph, split, f"{place} (image_id {image_id})")


def _parsed(row: dict, name: str) -> list[dict]:
    value = row.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise GraphError(f"{name} is no JSON: {error}") from None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise GraphError(f"{name} must be a list of objects, found {value!r:.60}")
    return value


def _label(entry: dict) -> str:
    name = entry.get("id")
    label, dot, number = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if not (label and dot and number.isdecimal()):
        raise GraphError(f"the id of an object must be its class, a dot and a number (person.1), found {name!r:.60}")
    return label


def _image(place: str, row: dict, path: Path) -> Path | EmbeddedImage:
    image = row.get("image")
    if isinstance(image, dict) and isinstance(image.get("bytes"), bytes):
        return EmbeddedImage(f"of {place}", image["bytes"])
    name = row.get("image_file", image.get("path") if isinstance(image, dict) else image)
    if not isinstance(name, str) or not name or PurePosixPath(name).is_absolute():
        raise GraphError(f"expected the image's bytes, or its path from this file, found {name!r:.60}")
    return path.parent / name


def _size(image: Path | EmbeddedImage) -> tuple[int, int]:
    """(width, height) in pixels; only the header is decoded."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image.data) if isinstance(image, EmbeddedImage) else image) as opened:
            return opened.size
    except Exception as error:  # Pillow's plugins raise many kinds
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"does not open ({error})"
        raise GraphError(f"the image {image} {reason}, and the rows do not say how large it is") from None


def _rows(path: Path, columns: tuple[str, ...] | None = None) -> Iterator[dict]:
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
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise SgrlError(
            f"{path} ({size:,} bytes) is truncated or damaged ({str(error).splitlines()[0]}); download it again"
        ) from None


def _lines(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise SgrlError(f"{path}, line {number} is truncated or damaged: {error}") from None
                yield row if isinstance(row, dict) else {}


def _split(path: Path, root: Path) -> str:
    parts = path.resolve().relative_to(root.resolve().parent).parts
    for names in (parts[:-1], parts[-1:]):
        found = [word for name in names for word in _SPLIT.findall(name.lower())]
        if found:
            return {"validation": "val", "valid": "val"}.get(found[-1], found[-1])
    return "train"
