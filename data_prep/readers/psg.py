"""Panoptic Scene Graph (Yang et al., ECCV 2022): psg.json and the files of the PSG competition.

    ROOT/psg/psg.json               or psg_train_val.json, psg_val_test.json, tiny_psg.json
    ROOT/coco/train2017/*.jpg       COCO images, as `file_name` says
    ROOT/coco/panoptic_train2017/   segment maps (not needed for boxes)

Boxes are xyxy pixels of the visible segment. Category ids are 0-based into thing_classes + stuff_classes and are not
COCO's ids; predicates are 0-based too. Other class lists than the official ones are fine: the file brings its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.readers.json_stream import items, values
from data_prep.readers.record import OnDamage, Record, RecordError, attempt, below, identity, shown
from sgrl.errors import SgrlError, suggest
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.vocabulary import Vocabulary, get_vocabulary

FILES = ("psg.json", "psg_train_val.json", "psg_val_test.json", "tiny_psg.json")
# Counts that were published for the official files.
_TOTALS = {
    "psg.json": {"records": 48749, "test records": 2186, "records without relations": 875},
    "psg_train_val.json": {"records": 46697},
}
_LISTS = ("thing_classes", "stuff_classes", "predicate_classes", "test_image_ids")


class PSGReader:
    """Reads one annotation file of a PSG root; see `data_prep.readers.record.Reader`.

    Args:
        root: the folder that holds psg/ and coco/.
        annotations: name of the file in psg/.

    Raises:
        SgrlError: a missing folder or file, a file that is truncated or is not PSG's.
    """

    default_size = (640, 480)
    codec = "toon"

    def __init__(self, root: str | Path, annotations: str = "psg.json"):
        self.root = Path(root)
        self.source = _find(self.root, annotations)
        self.images = self.root / "coco"
        if not self.images.is_dir():
            raise SgrlError(f"{self.images} is not a folder; expected COCO's images there (train2017/, val2017/)")
        lists = values(self.source, _LISTS, skip="data")
        for name in _LISTS[:3]:
            _check_names(self.source, name, lists.get(name))
        test_ids = lists.get("test_image_ids")
        if not isinstance(test_ids, list):
            raise SgrlError(f"{self.source} has no list 'test_image_ids', which divides training from test records")
        self._test_ids = frozenset(map(str, test_ids))
        self._categories = [*lists["thing_classes"], *lists["stuff_classes"]]
        self._predicates = lists["predicate_classes"]
        official = get_vocabulary("psg")
        if (tuple(self._categories), tuple(self._predicates)) == (official.objects, official.predicates):
            self.vocabulary = official
        else:
            self.vocabulary = Vocabulary(
                self.root.resolve().name, tuple(self._categories), tuple(self._predicates), None
            )
        self.name = self.vocabulary.name
        self.notes: Counter[str] = Counter()
        self._found: Counter[str] = Counter()

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """All records in file order. A damaged one is handed to `on_damage` and skipped; without it, it is raised."""
        self.notes.clear()
        self._found.clear()
        name = self.source.name
        for number, raw in enumerate(items(self.source, "data")):
            self._found["records"] += 1
            place = f"{name}, record {number}"
            record = attempt(on_damage, place, self._record, place, raw)
            if record is not None:
                self._found["records without relations"] += not record.graph.relations
                self._found["test records"] += record.image_id in self._test_ids
                yield record

    def totals(self) -> dict[str, tuple[int, int]]:
        """Of psg.json and psg_train_val.json; the other files have no published counts."""
        expected = _TOTALS.get(self.source.name, {}) if self.vocabulary.name == "psg" else {}
        return {name: (self._found[name], number) for name, number in expected.items()}

    def _record(self, place: str, raw) -> Record:
        if not isinstance(raw, dict):
            raise RecordError(place, f"expected an object, found {shown(raw)}")
        if "image_id" in raw:
            image_id = identity(raw["image_id"], "image_id")
            place += f" (image_id {image_id})"
        # The test images of the competition come without relations, some files leave the key out altogether.
        needed = ("image_id", "file_name", "width", "height", "annotations")
        missing = [key for key in (*needed, "relations") if key not in raw]
        if missing == ["relations"] and self.source.name == "psg_val_test.json":
            missing = []
        if missing:
            raise RecordError(
                place, f"the key {missing[0]!r} is missing; expected {', '.join((*needed, 'relations'))}"
            )
        try:
            annotations = _list(raw, "annotations", dict)
            objects = self._objects(annotations)
            if len(_list(raw, "segments_info", dict) if "segments_info" in raw else annotations) != len(annotations):
                raise GraphError(
                    f"{len(raw['segments_info'])} segments_info but {len(annotations)} annotations; expected one each"
                )
            relations = self._relations(_list(raw, "relations", list, ()))
            width, height = _size(raw["width"]), _size(raw["height"])
            graph = SceneGraph(tuple(objects), tuple(relations), width, height)
            image = below(self.images, raw["file_name"], "file_name")
            return Record(image_id, image, graph, self._split(image_id, graph), place)
        except GraphError as error:
            raise RecordError(place, str(error)) from None

    def _objects(self, annotations: list[dict[str, Any]]) -> list[Object]:
        categories, number = self._categories, len(self._categories)
        objects: list[Object] = []
        for entry in annotations:
            category = entry.get("category_id")
            if type(category) is not int or not 0 <= category < number:  # True is none
                raise GraphError(
                    f"object {len(objects)}: category_id must be a whole number from 0 to {number - 1}, found "
                    f"{shown(category)}"
                )
            if entry.get("bbox_mode", 0) != 0:
                raise GraphError(
                    f"object {len(objects)}: bbox_mode must be 0 (x1, y1, x2, y2), found {shown(entry['bbox_mode'])}"
                )
            box: Any = entry.get("bbox")  # Object says what is wrong with it
            objects.append(Object(categories[category], box))
        return objects

    def _relations(self, entries: list[list]) -> list[Relation]:
        predicates, number = self._predicates, len(self._predicates)
        relations: list[Relation] = []
        for entry in entries:
            if len(entry) != 3:
                raise GraphError(
                    f"relation {len(relations)}: expected [subject, object, predicate], found {shown(entry)}"
                )
            subject, target, predicate = entry
            if type(predicate) is not int or not 0 <= predicate < number:
                raise GraphError(
                    f"relation {len(relations)}: predicate must be a whole number from 0 to {number - 1}, found "
                    f"{shown(predicate)}"
                )
            relations.append(Relation(subject, predicates[predicate], target))  # SceneGraph checks both ends
        return relations

    def _split(self, image_id: str, graph: SceneGraph) -> str:
        """psg.json has train and test. The competition took its validation images from psg.json's test images."""
        if image_id not in self._test_ids:
            return "train"
        if self.source.name in ("psg_train_val.json", "tiny_psg.json"):
            return "val"
        if self.source.name == "psg_val_test.json" and graph.relations:
            return "val"
        return "test"


def _find(root: Path, annotations: str) -> Path:
    if not root.is_dir():
        raise SgrlError(f"{root} is not a folder; give PSG's root, the folder that holds psg/psg.json and coco/")
    for path in (root / "psg" / annotations, root / annotations):
        if path.is_file():
            return path
    present = sorted(path.name for folder in (root / "psg", root) for path in folder.glob("*.json"))
    if present:
        known = [name for name in present if name in FILES] or present
        raise SgrlError(
            f"{root / 'psg' / annotations} does not exist{suggest(annotations, known)} (--annotations NAME)"
        )
    inside = sorted(path.name for path in root.iterdir())[:10]
    raise SgrlError(
        f"{root} holds no psg/{annotations}, only {', '.join(inside) or 'nothing'}; expected psg/psg.json and coco/ "
        "(of https://psgdataset.org)"
    )


def _check_names(path: Path, key: str, names) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SgrlError(
            f"{path} has no list of names {key!r}; expected a PSG annotation file with {', '.join(_LISTS)}"
        )
    if len(set(names)) != len(names):
        raise SgrlError(f"{path}: {key!r} holds a name twice")


def _list(raw: dict, key: str, of: type, default=None) -> list:
    found = raw.get(key, default)
    if found is default and default is not None:
        return list(default)
    if not isinstance(found, list) or not {*map(type, found)} <= {of}:
        raise GraphError(f"{key} must be a list of {'objects' if of is dict else 'lists'}, found {shown(found)}")
    return found


def _size(value) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise GraphError(f"width and height must be whole numbers above 0, found {shown(value)}")
    return value
