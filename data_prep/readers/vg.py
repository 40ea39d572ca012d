"""Visual Genome as it was annotated (Krishna et al., IJCV 2017), versions 1.2 and 1.4, with VG150's labels.

    ROOT/image_data.json            sizes and places of the images
    ROOT/objects.json               boxes with names
    ROOT/relationships.json         predicates in free text, each end with its own name and box
    ROOT/VG_100K/, ROOT/VG_100K_2/  images; one folder with all of them is fine

Names and predicates are free text ("ON", "wearing a"). They are lower-cased, freed of punctuation and led through the
alias lists that VG150 was made with; what then is none of VG150's labels stays as it is, for the converter to count
and leave out. Unlike VG150, no boxes are merged and small ones stay.
"""

from __future__ import annotations

import functools
import json
import re
import string
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from data_prep.readers.json_stream import items
from data_prep.readers.record import OnDamage, Record, RecordError, attempt, raised, shown
from data_prep.readers.vg_images import CORRUPT, TRAIN_SHARE, ImageList, entry_id, true_size
from sgrl.errors import SgrlError
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.vocabulary import get_vocabulary

_IMAGES = 108073  # entries of image_data.json without the corrupt ones
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SPACE = re.compile(r"\s+")
_WINDOW = 8  # entries of one file that may wait for images


class VisualGenomeReader:
    """Reads the raw files; see `data_prep.readers.record.Reader`.

    The split is VG150's: the first 70 % of the images train, the rest tests (its validation images are among the
    first).

    Args:
        root: the folder that holds the files above.

    Raises:
        SgrlError: a missing file.
    """

    default_size = None
    codec = "toon"
    name = "vg"

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not self.root.is_dir():
            raise SgrlError(f"{root} is not a folder; give the one that holds objects.json and relationships.json")
        self.source = self.root / "relationships.json"
        self._objects = self.root / "objects.json"
        for path in (self.source, self._objects):
            if not path.is_file():
                inside = ", ".join(sorted(found.name for found in self.root.iterdir())[:10]) or "nothing"
                raise SgrlError(f"{self.root} holds no {path.name}, only {inside}; unpack Visual Genome's files there")
        self._images = ImageList(self.root)
        self.vocabulary = get_vocabulary("vg150")
        self._train = int(TRAIN_SHARE * self._images.count())
        self.notes: Counter[str] = Counter()
        self._found = 0

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """All images in file order. A damaged one is handed to `on_damage` and skipped; without it, it is raised."""
        self.notes.clear()
        self._found = 0
        objects, relations = _Entries(self._objects, "objects"), _Entries(self.source, "relationships")
        for number, entry in enumerate(self._images):
            place = f"{self._images.path.name}, entry {number}"
            image_id = attempt(on_damage, place, entry_id, entry)
            split = "train" if number < self._train else "test"
            self._found += 1
            if image_id is None:
                continue
            lists = [stream.take(image_id, on_damage) for stream in (objects, relations)]
            place = f"{self.source.name}, image_id {image_id}"
            record = attempt(on_damage, place, self._record, entry, image_id, lists, split, place)
            if record is not None:
                yield record
        for stream in (objects, relations):
            stream.finish(self._images.path, on_damage)

    def _record(self, entry: dict, image_id: str, lists: list, split: str, place: str) -> Record:
        for i, (name, key) in enumerate(((self._objects.name, "objects"), (self.source.name, "relationships"))):
            if lists[i] is None:
                self.notes[f"images that {name} lacks"] += 1
                lists[i] = []
            _check_list(key, lists[i])
        image = self._images.file(entry)
        width, height = true_size(image, entry)
        objects, relationships = lists
        return Record(image_id, image, _graph(objects, relationships, width, height), split, place)

    def totals(self) -> dict[str, tuple[int, int]]:
        """The number of images."""
        return {"images": (self._found, _IMAGES)}


class _Entries:
    """One of the files with a list per image, read along with image_data.json.

    Entries that no image has asked for wait in a small window, so that one with a wrong id does not hide the others.
    """

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key
        self._stream = enumerate(items(path, None))
        self._waiting: list[tuple[str, str, object]] = []  # (place, image_id, its list), in file order

    def take(self, image_id: str, on_damage: OnDamage | None) -> object:
        """The list of an image (unchecked), None if the file does not have it at this point."""
        for i, (_, found, _) in enumerate(self._waiting):
            if found == image_id:
                return self._waiting.pop(i)[2]
        while len(self._waiting) < _WINDOW and self._read(on_damage):
            if self._waiting[-1][1] == image_id:
                return self._waiting.pop()[2]
        return None

    def _read(self, on_damage: OnDamage | None) -> bool:
        """Let one more entry wait; False at the end of the file."""
        for number, entry in self._stream:
            place = f"{self.path.name}, entry {number}"
            image_id = attempt(on_damage, place, entry_id, entry)
            if image_id is not None and entry["image_id"] not in CORRUPT:
                self._waiting.append((place, image_id, entry.get(self.key, "nothing")))
                return True
        return False

    def finish(self, images: Path, on_damage: OnDamage | None) -> None:
        """Name the entries that no image asked for. Raises SgrlError where those are too many for a mistake."""
        if len(self._waiting) < _WINDOW:
            while self._read(on_damage) and len(self._waiting) < _WINDOW:
                pass
        reasons = [f"image_id {shown(image_id)} was not found in {images}" for _, image_id, _ in self._waiting]
        if len(self._waiting) == _WINDOW:
            raise SgrlError(
                f"{self.path}: {reasons[0]} at this point; both must list the same images in the same order, as the "
                "files of one release do"
            )
        for (place, _, _), reason in zip(self._waiting, reasons, strict=True):
            (on_damage or raised)(RecordError(place, reason))


def _check_list(key: str, found) -> None:
    if not isinstance(found, list) or not {*map(type, found)} <= {dict}:
        raise GraphError(f"{key} must be a list of objects, found {shown(found)}")


def _graph(entries: list[dict], relationships: list[dict], width: int, height: int) -> SceneGraph:
    objects: list[Object] = []
    relations: list[Relation] = []
    position: dict[Any, int] = {}
    for entry in entries:
        for object_id in (entry.get("object_id"), *(entry.get("merged_object_ids") or ())):
            position.setdefault(object_id, len(objects))
        objects.append(_object(len(objects), entry))
    for i, entry in enumerate(relationships):
        ends = []
        for name in ("subject", "object"):
            end = entry.get(name)
            if not isinstance(end, dict) or "object_id" not in end:
                raise GraphError(f"relation {i}: the {name} must be an object with an object_id, found {shown(end)}")
            if end["object_id"] not in position:  # many stand in the relations alone
                position[end["object_id"]] = len(objects)
                objects.append(_object(len(objects), end))
            ends.append(position[end["object_id"]])
        if not isinstance(entry.get("predicate"), str):
            raise GraphError(f"relation {i}: the predicate must be a string, found {shown(entry.get('predicate'))}")
        relations.append(Relation(ends[0], _label("predicates", entry["predicate"]), ends[1]))
    return SceneGraph(objects, relations, width, height)


def _object(index: int, entry: dict) -> Object:
    names = entry["names"] if "names" in entry else [entry.get("name")]
    if not isinstance(names, list) or not names or not {*map(type, names)} <= {str}:
        raise GraphError(f"object {index}: expected a name or a list of names, found {shown(names)}")
    try:
        x, y = entry["x"], entry["y"]
        x1, y1 = x - 1 if x > 1 else 0, y - 1 if y > 1 else 0  # the first pixel is 1, and sometimes 0
        box = (x1, y1, x1 + entry["w"], y1 + entry["h"])
    except (KeyError, TypeError):
        found = {key: entry.get(key) for key in "xywh"}
        raise GraphError(f"object {index} ({names[0]!r}): expected the numbers x, y, w, h, found {found}") from None
    return Object(_label("objects", *names), box)


@functools.lru_cache(maxsize=1 << 16)  # the official files have more names, most of them once
def _label(kind: str, *names: str) -> str:
    """The first of VG150's labels that a name means, else the first name."""
    known, aliases = _table(kind)
    texts = [_plain(name) for name in names]
    for text in texts:
        text = aliases.get(text, text)
        if text in known:
            return text
    return texts[0]


def _plain(name: str) -> str:
    return _SPACE.sub(" ", name.lower().translate(_PUNCTUATION)).strip()


@functools.cache
def _table(kind: str) -> tuple[frozenset[str], dict[str, str]]:
    text = resources.files("data_prep").joinpath("readers/vg150_aliases.json").read_text(encoding="utf-8")
    aliases = {_plain(alias): label for label, names in json.loads(text)[kind].items() for alias in names}
    return frozenset(getattr(get_vocabulary("vg150"), kind)), aliases
