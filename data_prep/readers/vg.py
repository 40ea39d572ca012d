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

from data_prep.readers.json_stream import items
from data_prep.readers.record import OnDamage, Record, RecordError
from data_prep.readers.vg_images import CORRUPT, TRAIN_SHARE, ImageList, true_size
from sgrl.errors import SgrlError
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.vocabulary import get_vocabulary

_IMAGES = 108073  # entries of image_data.json without the corrupt ones
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SPACE = re.compile(r"\s+")


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
        for entry in self._images:
            place = f"{self.source.name}, image_id {entry['image_id']}"
            split = "train" if self._found < self._train else "test"
            self._found += 1
            try:
                lists = [stream.take(entry["image_id"]) for stream in (objects, relations)]
                for i, stream in enumerate((objects, relations)):
                    if lists[i] is None:
                        self.notes[f"images that {stream.path.name} lacks"] += 1
                        lists[i] = []
                    _check_list(stream.key, lists[i])
                image = self._images.file(entry)
                width, height = true_size(image, entry)
                graph = _graph(*lists, width, height)
            except GraphError as error:
                error = RecordError(place, str(error))
                if on_damage is None:
                    raise error from None
                on_damage(error)
                continue
            yield Record(str(entry["image_id"]), image, graph, split, place)
        for stream in (objects, relations):
            stream.finish(self._images.path)

    def totals(self) -> dict[str, tuple[int, int]]:
        """The number of images."""
        return {"images": (self._found, _IMAGES)}


class _Entries:
    """One of the files with a list per image, read along with image_data.json."""

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key
        self._stream = enumerate(items(path, None))
        self._advance()

    def _advance(self) -> None:
        self._next = None
        for number, entry in self._stream:
            image_id = entry.get("image_id") if isinstance(entry, dict) else None
            if not isinstance(image_id, int):
                raise SgrlError(f"{self.path}, entry {number}: expected an object with image_id, found {entry!r:.60}")
            if image_id not in CORRUPT:
                self._next = entry
                return

    def take(self, image_id: int) -> list | None:
        """The list of an image (unchecked), None if the file goes on with another one."""
        if self._next is None or self._next["image_id"] != image_id:
            return None
        found = self._next.get(self.key, "nothing")
        self._advance()
        return found

    def finish(self, images: Path) -> None:
        """Raise SgrlError if entries are left that no image asked for."""
        if self._next is not None:
            raise SgrlError(
                f"{self.path}: image_id {self._next['image_id']} was not found in {images} at this point; both must "
                "list the same images in the same order, as the files of one release do"
            )


def _check_list(key: str, found) -> None:
    if not isinstance(found, list) or not {*map(type, found)} <= {dict}:
        raise GraphError(f"{key} must be a list of objects, found {found!r:.60}")


def _graph(entries: list[dict], relationships: list[dict], width: int, height: int) -> SceneGraph:
    objects, relations, position = [], [], {}
    for entry in entries:
        for object_id in (entry.get("object_id"), *(entry.get("merged_object_ids") or ())):
            position.setdefault(object_id, len(objects))
        objects.append(_object(len(objects), entry))
    for i, entry in enumerate(relationships):
        ends = []
        for name in ("subject", "object"):
            end = entry.get(name)
            if not isinstance(end, dict) or "object_id" not in end:
                raise GraphError(f"relation {i}: the {name} must be an object with an object_id, found {end!r:.60}")
            if end["object_id"] not in position:  # many stand in the relations alone
                position[end["object_id"]] = len(objects)
                objects.append(_object(len(objects), end))
            ends.append(position[end["object_id"]])
        if not isinstance(entry.get("predicate"), str):
            raise GraphError(f"relation {i}: the predicate must be a string, found {entry.get('predicate')!r:.60}")
        relations.append(Relation(ends[0], _label("predicates", entry["predicate"]), ends[1]))
    return SceneGraph(objects, relations, width, height)


def _object(index: int, entry: dict) -> Object:
    names = entry["names"] if "names" in entry else [entry.get("name")]
    if not isinstance(names, list) or not names or not {*map(type, names)} <= {str}:
        raise GraphError(f"object {index}: expected a name or a list of names, found {names!r:.60}")
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
