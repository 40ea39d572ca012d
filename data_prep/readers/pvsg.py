"""Panoptic Video Scene Graph (Yang et al., CVPR 2023): pvsg.json, mask images, frames at 5 per second.

    ROOT/pvsg.json                                          (or ROOT/data/...)
    ROOT/{vidor,epic_kitchen,ego4d}/masks/VIDEO/0000.png    a pixel's value is the object_id, 0 is nothing
    ROOT/{vidor,epic_kitchen,ego4d}/frames/VIDEO/0000.png   decoded from videos/VIDEO.mp4, numbered from 0 or 1

Boxes are those of the masks, which are read one frame at a time. A relation holds in the frames of its spans, with
both ends. What counts as a frame is what has a mask and an image: some videos decode to fewer frames than announced.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.readers import masks
from data_prep.readers.json_stream import items, values
from data_prep.readers.record import OnDamage, Record, RecordError, attempt, raised, shown
from sgrl.errors import SgrlError, suggest
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.terminal import printable
from sgrl.tubes import TimedRelation, TubeObject, VideoGraph, tubes_of_maps
from sgrl.vocabulary import Vocabulary, get_vocabulary

SOURCES = ("vidor", "epic_kitchen", "ego4d")
_SPLITS = ("train", "val")
_TOTALS = {"videos": 400, "train videos": 338, "val videos": 62}
_FEW = 1 << 12  # largest mask value up to which every value is looked for; above, those that occur


class PVSGReader:
    """Reads a PVSG root; see `data_prep.readers.record.Reader`.

    Args:
        root: the folder that holds pvsg.json and the folders of the sources. One source that is not there is left out.
        annotations: name of the annotation file.

    Raises:
        SgrlError: a missing folder or file, a file that is truncated or is not PVSG's.

    Attributes:
        wanted: where it is set, only videos whose id it accepts are read (of a record without one, its place), and
            nothing is said or counted of others. Most of the work is in the masks, so parts of a job are quick.
    """

    default_size = (640, 480)
    codec = "toon"
    wanted: Callable[[str], bool] | None = None

    def __init__(self, root: str | Path, annotations: str = "pvsg.json"):
        self.source = _find(Path(root), annotations)
        self.root = self.source.parent
        lists = values(self.source, ("objects", "relations", "split"), skip="data")
        self.vocabulary = _vocabulary(self.source, lists)
        self.name = self.vocabulary.name
        self._splits = _splits(self.source, lists.get("split"))
        self._present = [source for source in SOURCES if (self.root / source).is_dir()]
        if not self._present:
            raise SgrlError(
                f"{self.root} holds no {', '.join(SOURCES[:-1])} or {SOURCES[-1]}; expected the masks there, such as "
                "vidor/masks/0001_4164158586/0000.png"
            )
        for source in self._present:
            folder = self.root / source / "masks"
            if any(folder.glob("*.png")):
                raise SgrlError(
                    f"{folder} holds images itself: the archive was unpacked without its folders, so that the videos' "
                    "masks overwrote each other. Unpack it again with data_prep/unpack.py --keep 2"
                )
        self.notes: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._from_zero: dict[Path, bool] = {}  # source -> whether any of its videos has a frame 0

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """The frames of one video after the other.

        A damaged video, relation or frame is handed to `on_damage` and skipped; without it, it is raised.
        """
        damaged = self._begin(on_damage)
        for video in self._videos(damaged):
            for frame, mask, image in attempt(damaged, video.place, self._frames, video) or ():
                place = f"{video.place}, frame {mask.stem}"
                record = attempt(damaged, place, self._record, place, video, frame, mask, image)
                if record is not None:
                    yield record

    def video_graphs(self, on_damage: OnDamage | None = None) -> Iterator[tuple[str, str, VideoGraph]]:
        """(video_id, split, graph with tubes of masks) of one video after the other, as VideoRecall takes
        them for references. A frame of a tube is a frame of the video; those without a mask are empty.

        A damaged video or relation, or a video with a damaged mask, is handed to `on_damage` and skipped; without it,
        it is raised.
        """
        damaged = self._begin(on_damage)
        for video in self._videos(damaged):
            tubes = attempt(damaged, video.place, self._tubes, video)
            if tubes is None:
                continue
            shown = [number for number in video.labels if number in tubes]
            position = {number: i for i, number in enumerate(shown)}
            relations = [
                TimedRelation(position[subject], predicate, position[target], tuple(sorted(spans)))
                for (subject, predicate, target), spans in video.relations.items()
                if subject in position and target in position and spans
            ]
            if len(relations) < len(video.relations):
                unseen = len(video.relations) - len(relations)
                self.notes["relations without a frame or with an object that is never seen, left out"] += unseen
            yield (
                video.video_id,
                video.split,
                VideoGraph([TubeObject(video.labels[number], tubes[number]) for number in shown], relations),
            )

    def _record(self, place: str, video: _Video, frame: int, mask: Path, image: Path) -> Record:
        graph = self._graph(video, frame, mask)
        return Record(f"{video.video_id}_{frame}", image, graph, video.split, place, video.video_id, frame)

    def _tubes(self, video: _Video) -> dict:
        paths = masks.numbered(video.folder / "masks" / video.video_id)
        last = max(paths, default=-1)
        if last > masks.LAST_FRAME:
            raise GraphError(f"its masks are numbered up to {last:,}; expected the numbers of frames")
        return tubes_of_maps(masks.load_image(paths[t]) if t in paths else None for t in range(last + 1))

    def _begin(self, on_damage: OnDamage | None) -> OnDamage:
        self.notes.clear()
        self._found.clear()
        return on_damage or raised

    def _videos(self, damaged: OnDamage) -> Iterator[_Video]:
        """Those that are wanted, have a folder and can be read."""
        without = set(self._splits)
        for number, raw in enumerate(items(self.source, "data")):
            place = f"{self.source.name}, video {number}"
            video_id = raw["video_id"] if isinstance(raw, dict) and isinstance(raw.get("video_id"), str) else place
            without.discard(video_id)
            if self.wanted is not None and not self.wanted(video_id):
                continue
            self._found["videos"] += 1
            video = attempt(damaged, place, self._video, place, raw, damaged)
            if video is not None:
                yield video
        if without:
            self.notes["videos of the splits without annotation"] += len(without)

    def totals(self) -> dict[str, tuple[int, int]]:
        """Numbers of videos; empty where the class lists are not the official ones."""
        if self.name != "pvsg":
            return {}
        return {name: (self._found[name], number) for name, number in _TOTALS.items()}

    def _video(self, place: str, raw, damaged: Callable[[RecordError], None]) -> _Video | None:
        if not isinstance(raw, dict) or not isinstance(raw.get("video_id"), str):
            raise RecordError(place, f"expected an object with a video_id, found {shown(raw)}")
        video_id = raw["video_id"]
        place += f" ({printable(video_id, 60)})"
        if not re.fullmatch(r"[\w-]+", video_id):
            raise RecordError(place, "a video_id has letters, digits, _ and - only: it is the name of a folder")
        if video_id not in self._splits:
            self.notes["videos in no split, taken for training"] += 1
        source, split = self._splits.get(video_id) or (_source(video_id), "train")
        self._found[f"{split} videos"] += 1
        if source not in self._present:
            self.notes[f"videos left out: there is no folder {source}"] += 1
            return None
        labels = _labels(place, raw.get("objects"))
        length = raw["meta"].get("num_frames") if isinstance(raw.get("meta"), dict) else None
        if not isinstance(length, int) or length < 1:
            raise RecordError(
                place, f"meta must have num_frames, a whole number above 0, found {shown(raw.get('meta'))}"
            )
        relations: dict[tuple[int, str, int], set[tuple[int, int]]] = {}
        if not isinstance(raw.get("relations"), list):
            raise RecordError(place, f"relations must be a list, found {shown(raw.get('relations'))}")
        for i, entry in enumerate(raw["relations"]):
            found = attempt(damaged, f"{place}, relation {i}", _relation, entry, labels)
            if found is None:
                continue
            key, spans = found
            if key in relations:
                self.notes["relations listed again, merged"] += 1
            relations.setdefault(key, set()).update(self._clipped(spans, length))
        folder = self.root / source
        size = raw["meta"].get("width"), raw["meta"].get("height")
        return _Video(video_id, place, split, folder, labels, relations, length, size)

    def _clipped(self, spans: list, length: int) -> Iterator[tuple[int, int]]:
        """The spans within 0 to length - 1."""
        if not spans:
            self.notes["relations without spans, taken to hold in all frames"] += 1
            spans = [(0, length - 1)]
        for start, end in spans:
            first, last = max(start, 0), min(end, length - 1)
            if first > last:
                self.notes["spans left out: backwards or beyond the video"] += 1
                continue
            if (first, last) != (start, end):
                self.notes["spans clipped to the video"] += 1
            yield first, last

    def _frames(self, video: _Video) -> list[tuple[int, Path, Path]]:
        """(number, mask, image) of the frames that have both, in time order."""
        found_masks = masks.numbered(video.folder / "masks" / video.video_id)
        found_images = masks.numbered(video.folder / "frames" / video.video_id)
        if not found_masks:
            raise RecordError(
                video.place, f"{video.folder / 'masks' / video.video_id} holds no masks; expected 0000.png and so on"
            )
        if not found_images:
            folder = video.folder / "frames" / video.video_id
            raise RecordError(
                video.place,
                f"{folder} holds no frames; decode the video into it, for example with ffmpeg -i "
                f"{video.folder / 'videos' / video.video_id}.mp4 -start_number 0 {folder}/%04d.png",
            )
        start = self._start(video, found_masks, found_images)
        if start:
            self.notes["videos whose frames are numbered from 1, their masks from 0"] += 1
            found_images = {number - start: image for number, image in found_images.items()}
        both = sorted(found_masks.keys() & found_images.keys())
        self.notes["frames left out: they have no mask"] += len(found_images) - len(both)
        self.notes["frames left out: they have a mask but no image"] += len(found_masks) - len(both)
        self.notes["frames beyond the length of their video"] += sum(number >= video.length for number in both)
        self.notes += Counter()  # without the zeros
        return [(number, found_masks[number], found_images[number]) for number in both]

    def _start(self, video: _Video, found_masks: dict, found_images: dict) -> int:
        """The number of the image that belongs to mask 0."""
        start = masks.first_image(found_masks, found_images)
        if start is None:  # the other videos tell: the same command made the frames of all
            if video.folder not in self._from_zero:
                folders = (video.folder / "frames").iterdir()
                self._from_zero[video.folder] = any(0 in masks.numbered(folder) for folder in folders)
            start = 0 if self._from_zero[video.folder] else 1
        return start

    def _graph(self, video: _Video, frame: int, path: Path) -> SceneGraph:
        mask = masks.load_image(path)
        height, width = mask.shape
        if (width, height) != video.size:
            self.notes["masks of another size than the annotation says, trusted"] += 1
        high = int(mask.max(initial=0))
        seen = masks.boxes(mask, range(1, high + 1) if high <= _FEW else np.unique(mask[mask > 0]))
        unknown = seen.keys() - video.labels.keys()
        if unknown:
            self.notes["segments left out: their number is no object_id"] += len(unknown)
        shown = [number for number in video.labels if number in seen]
        position = {number: i for i, number in enumerate(shown)}
        relations = []
        for (subject, predicate, target), spans in video.relations.items():
            if any(first <= frame <= last for first, last in spans):
                if subject in position and target in position:
                    relations.append(Relation(position[subject], predicate, position[target]))
                else:
                    self.notes["relations in frames where an end cannot be seen, left out"] += 1
        return SceneGraph([Object(video.labels[i], seen[i]) for i in shown], relations, width, height)


@dataclass(frozen=True, slots=True)
class _Video:
    video_id: str
    place: str
    split: str
    folder: Path  # of the source
    labels: dict[int, str]  # by object_id
    relations: dict[tuple[int, str, int], set[tuple[int, int]]]  # (subject, predicate, object) -> spans, inclusive
    length: int  # frames, as announced
    size: tuple[int | None, int | None]  # (width, height), as announced


def _labels(place: str, objects) -> dict[int, str]:
    if not isinstance(objects, list):
        raise RecordError(place, f"objects must be a list, found {shown(objects)}")
    labels: dict[int, str] = {}
    for i, entry in enumerate(objects):
        number: Any = entry.get("object_id") if isinstance(entry, dict) else None
        if not _whole(number) or number < 1 or not isinstance(entry.get("category"), str):
            raise RecordError(place, f"object {i}: expected object_id (from 1) and category, found {shown(entry)}")
        if number in labels:
            raise RecordError(place, f"object {i}: the object_id {number} is taken; each object has its own")
        labels[number] = entry["category"]
    return labels


def _relation(entry, labels: dict[int, str]) -> tuple[tuple[int, str, int], list]:
    """((subject, predicate, object), spans as they are) of [subject, object, predicate, [[start, end], ...]]."""
    if not (isinstance(entry, list) and len(entry) == 4 and isinstance(entry[2], str) and isinstance(entry[3], list)):
        raise GraphError(f"expected [subject, object, predicate, spans], found {shown(entry)}")
    subject, target, predicate, spans = entry
    for end, number in (("subject", subject), ("object", target)):
        if not _whole(number) or number not in labels:
            raise GraphError(f"the {end} {shown(number)} is not the object_id of one of the {len(labels)} objects")
    for span in spans:
        if not (isinstance(span, list) and len(span) == 2 and all(map(_whole, span))):
            raise GraphError(f"a span must be [first frame, last frame], found {shown(span)}")
    return (subject, " ".join(predicate.split()), target), spans


def _whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _source(video_id: str) -> str:
    """Which source an id looks like: P01_03, 0be30efe-9d71-4698-8304-f1d441aeea58_1, 0004_11566980553."""
    if video_id.startswith("P"):
        return "epic_kitchen"
    return "ego4d" if "-" in video_id else "vidor"


def _splits(path: Path, table) -> dict[str, tuple[str, str]]:
    """Video -> (source, split)."""
    found: dict[str, tuple[str, str]] = {}
    if not isinstance(table, dict) or not all(
        source in SOURCES
        and isinstance(splits, dict)
        and all(isinstance(splits.get(name, []), list) for name in _SPLITS)
        for source, splits in table.items()
    ):
        raise SgrlError(
            f"{path} has no 'split' with lists train and val of {', '.join(SOURCES)}, found {shown(table)}"
        )
    for source, splits in table.items():
        for split in _SPLITS:
            for video_id in splits.get(split, []):
                if found.setdefault(str(video_id), (source, split)) != (source, split):
                    raise SgrlError(f"{path}: the video {video_id} stands in two splits")
    return found


def _vocabulary(path: Path, lists: dict) -> Vocabulary:
    classes = lists.get("objects")
    names: list[Any] = [None]
    if isinstance(classes, dict):
        names = [classes.get("thing"), classes.get("stuff"), lists.get("relations")]
    if not all(isinstance(group, list) and all(isinstance(name, str) for name in group) for group in names):
        raise SgrlError(f"{path} lacks the lists objects (thing, stuff) and relations; expected PVSG's pvsg.json")
    objects, predicates = (*names[0], *names[1]), tuple(names[2])
    official = get_vocabulary("pvsg")
    if (objects, predicates) == (official.objects, official.predicates):
        return official
    return Vocabulary(path.parent.resolve().name, objects, predicates)


def _find(root: Path, annotations: str) -> Path:
    if not root.is_dir():
        raise SgrlError(f"{root} is not a folder; give PVSG's root, which holds pvsg.json and {', '.join(SOURCES)}")
    for folder in (root, root / "data"):
        if (folder / annotations).is_file():
            return folder / annotations
    present = sorted(path.name for path in root.glob("*.json"))
    if present:
        raise SgrlError(f"{root / annotations} does not exist{suggest(annotations, present)} (--annotations NAME)")
    inside = ", ".join(sorted(path.name for path in root.iterdir())[:10])
    raise SgrlError(f"{root} holds no {annotations}, only {inside or 'nothing'}")
