"""Scene graphs as a COCO export with relations, such as the Hub's `maelic/PSG-coco-format` (SGG-Benchmark).

    ROOT/train/_annotations.coco.json   and the images beside it; val/, valid/ and test/ likewise

The file is COCO's (images, annotations with xywh boxes, categories) and has besides `rel_categories` and
`rel_annotations`, {"image_id", "subject_id", "object_id", "predicate_id"}, whose subject and object are ids of
annotations. Classes are looked up by their id, whatever they count from; ids may be numbers or texts.

The lists are as long as the data set and in any order, so they are sorted into a temporary database on disk first;
memory does not grow with them.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.readers.json_stream import walk
from data_prep.readers.record import OnDamage, Record, RecordError, attempt, below, identity, raised, shown
from sgrl.errors import SgrlError
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.vocabulary import VOCABULARIES, Vocabulary, get_vocabulary

FILE = "_annotations.coco.json"
_LISTS = {"images": "id", "annotations": "image_id", "rel_annotations": "image_id"}  # list -> key of the image
_TOGETHER = 4096  # entries in a row of the database, at most
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class CocoReader:
    """Reads such a folder; see `data_prep.readers.record.Reader`.

    Args:
        root: the folder of all splits, or of one.

    Raises:
        SgrlError: no such file, one that is truncated or has no relations, splits with different classes.
    """

    default_size = (640, 480)
    codec = "toon"

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not self.root.is_dir():
            raise SgrlError(f"{root} is not a folder; give the one that holds train/{FILE} and so on")
        self._files = sorted(self.root.rglob(FILE))
        if not self._files:
            inside = ", ".join(sorted(path.name for path in self.root.iterdir())[:10]) or "nothing"
            raise SgrlError(f"{self.root} holds no {FILE}, only {inside}")
        self.source = self._files[0]
        # The database lives as long as the reader: with an empty name SQLite keeps it in a file that it removes.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            self._classes = [self._load(number, path) for number, path in enumerate(self._files)]
        except sqlite3.OperationalError as error:  # a full disk
            raise SgrlError(f"the temporary database of {self.root} cannot be written: {error}") from None
        for path, classes in zip(self._files, self._classes, strict=True):
            if [sorted(names.values()) for names in classes] != [sorted(names.values()) for names in self._classes[0]]:
                raise SgrlError(f"{path} has other classes than {self.source}; give the folders one by one")
        objects, predicates = (
            tuple(dict.fromkeys(names[key] for key in sorted(names, key=_order))) for names in self._classes[0]
        )
        official = (get_vocabulary(name) for name in VOCABULARIES)
        same = (v for v in official if (set(v.objects), set(v.predicates)) == (set(objects), set(predicates)))
        self.vocabulary = next(same, None) or Vocabulary(self.root.resolve().name, objects, predicates)
        self.name = self.vocabulary.name
        self.notes: Counter[str] = Counter()

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """All images in file order. A damaged one is handed to `on_damage` and skipped; without it, it is raised."""
        self.notes.clear()
        for number, path in enumerate(self._files):
            split = next((_SPLITS[part] for part in path.parts[::-1] if part in _SPLITS), "train")
            for name in ("annotations", "rel_annotations"):
                astray = self._select(
                    f"SELECT SUM(number) FROM {name} WHERE file = ? AND image NOT IN "
                    "(SELECT image FROM images WHERE file = ?)",
                    (number, number),
                )
                if count := next(astray)[0]:
                    self.notes[f"{name} of an image that {FILE} does not list"] += count
            for place, reason in self._select("SELECT place, reason FROM damaged WHERE file = ?", (number,)):
                (on_damage or raised)(RecordError(place, reason))
            for image in self._entries("SELECT items FROM images WHERE file = ? ORDER BY rowid", (number,)):
                place = f"{path.parent.name}/{path.name}, image {shown(image['id'])}"
                record = attempt(on_damage, place, self._record, place, number, path, image, split)
                if record is not None:
                    yield record

    def totals(self) -> dict[str, tuple[int, int]]:
        """Empty: published counts of such exports do not agree with each other."""
        return {}

    def _load(self, number: int, path: Path) -> tuple[dict, dict]:
        """Sort a file's lists into the database; returns its object and predicate classes by id."""
        database = self._database
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        for name in _LISTS:
            database.execute(
                f"CREATE TABLE IF NOT EXISTS {name} (file INTEGER, image TEXT, number INTEGER, items TEXT)"
            )
        database.execute("CREATE TABLE IF NOT EXISTS damaged (file INTEGER, place TEXT, reason TEXT)")
        classes: dict[str, dict] = {"categories": {}, "rel_categories": {}}
        counts: Counter[str] = Counter()
        group: tuple[str, str] | None = None
        pending: list[str] = []  # neighbours of one list and image share a row of the database
        database.execute("BEGIN")

        def damaged(error: RecordError) -> None:
            database.execute("INSERT INTO damaged VALUES (?, ?, ?)", (number, error.place, error.reason))

        for key, item in walk(path):
            if key in _LISTS:
                place = f"{path.parent.name}/{path.name}, entry {counts[key]} of {key}"
                entry = attempt(damaged, place, _entry, item, _LISTS[key])
                if entry is not None:
                    image, text = entry
                    if (key, image) != group or len(pending) == _TOGETHER:
                        self._insert(number, group, pending)
                        group, pending = (key, image), []
                    pending.append(text)
            elif key in classes:
                fields = item if isinstance(item, dict) else {}
                found = _id(fields.get("id")) if isinstance(fields.get("name"), str) else None
                if found is None or found in classes[key]:
                    raise SgrlError(
                        f"{path}: {key} must be objects with a name and an id of their own, found {shown(item)}"
                    )
                classes[key][found] = fields["name"]
            counts[key] += 1
        self._insert(number, group, pending)
        database.execute("COMMIT")
        missing = [name for name in (*_LISTS, *classes) if name not in counts]
        if missing:
            raise SgrlError(
                f"{path} has no {missing[0]!r} or it is empty, found {', '.join(counts) or 'nothing'}; expected a "
                "COCO export with relations (SGG-Benchmark's)"
            )
        for name in _LISTS:
            database.execute(f"CREATE INDEX IF NOT EXISTS {name}_of_image ON {name} (image, file)")
        return classes["categories"], classes["rel_categories"]

    def _insert(self, number: int, group: tuple | None, entries: list[str]) -> None:
        if group is not None:
            key, image = group
            row = (number, image, len(entries), f"[{','.join(entries)}]")
            self._database.execute(f"INSERT INTO {key} VALUES (?, ?, ?, ?)", row)

    def _select(self, query: str, arguments: tuple) -> Iterator[tuple]:
        try:
            yield from self._database.execute(query, arguments)
        except sqlite3.OperationalError as error:  # a full disk
            raise SgrlError(f"the temporary database of {self.root} cannot be read: {error}") from None

    def _entries(self, query: str, arguments: tuple) -> Iterator[dict]:
        for (text,) in self._select(query, arguments):
            yield from json.loads(text)

    def _record(self, place: str, number: int, path: Path, image: dict, split: str) -> Record:
        annotations, relationships = (
            list(
                self._entries(
                    f"SELECT items FROM {name} WHERE image = ? AND file = ? ORDER BY rowid",
                    (identity(image["id"], "id"), number),
                )
            )
            for name in ("annotations", "rel_annotations")
        )
        image_id = identity(image["id"], "id")
        categories, predicates = self._classes[number]
        objects, position = [], {}
        for i, entry in enumerate(annotations):
            found = _id(entry.get("id"))
            if found is None or found in position:
                raise GraphError(f"object {i}: expected an id of its own, found {shown(entry.get('id'))}")
            position[found] = i
            objects.append(Object(_class(f"object {i}", "category_id", entry, categories), _xyxy(i, entry)))
        relations = []
        for i, entry in enumerate(relationships):
            ends: list[int] = []
            for end in ("subject_id", "object_id"):
                found = _id(entry.get(end))
                if found is None or found not in position:
                    raise GraphError(
                        f"relation {i}: {end} must be the id of one of the image's {len(objects)} annotations, found "
                        f"{shown(entry.get(end))}"
                    )
                ends.append(position[found])
            predicate = _class(f"relation {i}", "predicate_id", entry, predicates)
            relations.append(Relation(ends[0], predicate, ends[1]))
        width: Any = image.get("width")
        height: Any = image.get("height")
        if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (width, height)):
            raise GraphError(
                f"width and height must be whole numbers above 0, found {shown(width)} and {shown(height)}"
            )
        graph = SceneGraph(objects, relations, width, height)
        return Record(image_id, below(path.parent, image.get("file_name"), "file_name"), graph, split, place)


def _entry(item, key: str) -> tuple[str, str]:
    """(id of the image, JSON) of an entry of a list."""
    if not isinstance(item, dict) or key not in item:
        raise GraphError(f"expected an object with {key}, found {shown(item)}")
    image = identity(item[key], key)
    image.encode()  # as SQLite wants it
    return image, json.dumps(item)


def _id(value) -> str | None:
    """An id as text, None for what is none: some exports write ids as texts, in all or some of their lists."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return identity(value, "id")
    return None


def _order(text: str) -> tuple[bool, int, str]:
    """Numbers by their value, before names."""
    number = text.isascii() and text.isdecimal() and len(text) < 20
    return not number, int(text) if number else 0, text


def _class(what: str, key: str, entry: dict, names: dict[str, str]) -> str:
    found = _id(entry.get(key))
    if found not in names:
        known = sorted(names, key=_order)
        raise GraphError(f"{what}: {key} must be from {known[0]} to {known[-1]}, found {shown(entry.get(key))}")
    return names[found]


def _xyxy(index: int, entry: dict) -> tuple[float, float, float, float]:
    try:
        x, y, w, h = map(float, entry["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise GraphError(
            f"object {index}: bbox must be x, y, width, height, found {shown(entry.get('bbox'))}"
        ) from None
    return x, y, x + w, y + h
