"""Action Genome v1.0 (Ji et al., CVPR 2020): person-object relations in frames of the Charades videos.

    ROOT/annotations/object_bbox_and_relationship.pkl     or object_bbox_and_relationship_filtersmall.pkl
    ROOT/annotations/person_bbox.pkl
    ROOT/annotations/{object,relationship}_classes.txt    optional; other object classes than the official are fine
    ROOT/frames/<video>.mp4/<%06d>.png                    made by ffmpeg, numbered from 1; .jpg is fine

Boxes of objects are xywh, those of the person xyxy (the detector's first), all in pixels of the frame. Relations go
from the person to an object and come in three groups. Objects that are not visible have no box and are left out.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from data_prep.readers.action_genome_pickles import GROUPS, NO_ENTRY, PERSON, SPLITS, Frames
from data_prep.readers.masks import numbered
from data_prep.readers.record import OnDamage, Record, RecordError, attempt, raised
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.files import open_text
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.images import image_sizes
from sgrl.vocabulary import Vocabulary, get_vocabulary

ANNOTATIONS = "object_bbox_and_relationship.pkl"
FRAME_RULES = ("sttran", "oed", "all")
"""Which frames: with a visible object and a person box, of videos that have more than two such frames ("sttran", the
benchmark's usual subset); the same of every video ("oed"); all annotated frames ("all")."""

# Published counts (STTran counts its frames before it leaves out short videos).
_TOTALS = {"annotated frames": 288782, "objects, visible or not": 737427, "frames with a visible object": 264532}
_TOTALS_PERSON = {
    "train frames with a visible object and a person": 177330,
    "test frames with a visible object and a person": 56923,
}
_TOTALS_STTRAN = {"train videos": 7584, "test videos": 1750}

log = logging.getLogger(__name__)


class ActionGenomeReader:
    """Reads an Action Genome root; see `data_prep.readers.record.Reader`.

    The two pickles are gone through item by item (about 40 s of CPU time for the official ones); what is needed of
    them is kept in arrays: 150 MB of memory in all. Frames of a video follow each other in time, videos in the order
    of the file.

    Args:
        root: the folder that holds annotations/ and frames/.
        annotations: name of the file with the objects.
        frame_rule: one of FRAME_RULES.

    Raises:
        SgrlError: a missing folder or file, class lists that are not Action Genome's. From `records`: a pickle that is
            truncated, or asks for anything but data.
    """

    default_size = (640, 480)
    codec = "toon-pairs"

    def __init__(self, root: str | Path, annotations: str = ANNOTATIONS, frame_rule: str = "sttran"):
        if frame_rule not in FRAME_RULES:
            raise UsageError(f"unknown frame rule {frame_rule!r}{suggest(frame_rule, FRAME_RULES)}")
        self.root = Path(root)
        self.frame_rule = frame_rule
        self.source = _find(self.root, annotations)
        self.persons = self.source.with_name("person_bbox.pkl")
        if not self.persons.is_file():
            raise SgrlError(
                f"{self.persons} does not exist; expected the boxes of the persons and the frame sizes there"
            )
        self.images = self.root / "frames"
        if not self.images.is_dir():
            raise SgrlError(
                f"{self.images} is not a folder; expected the frames of the videos there, frames/001YG.mp4/000089.png "
                "and so on (the data set's own tool dumps them)"
            )
        self.vocabulary = _vocabulary(self.root, self.source.parent)
        self.name = self.vocabulary.name
        self.notes: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._listed: str | None = None  # the video whose images are in `_listing`
        self._listing: dict[int, Path] = {}

    @cached_property
    def _frames(self) -> Frames:
        log.info("reading %s and %s", self.source, self.persons)
        frames = Frames(self.source)
        frames.add_persons(self.persons)
        return frames

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """The frames that the rule keeps. A damaged one is handed to `on_damage` and skipped, else it is raised."""
        frames = self._frames
        self.notes.clear()
        self._found.clear()
        self.notes.update(frames.notes)
        self._found.update(frames.found)
        for error in frames.astray:
            (on_damage or raised)(error)
        for rows in frames.videos():
            kept = [row for row in rows if self._keeps(row)]
            if self.frame_rule == "sttran" and 0 < len(kept) <= 2:
                self.notes["frames left out: their video has only one or two"] += len(kept)
                continue
            counted = set()
            for row in kept:
                place = f"{self.source.name}, frame {frames.key(row)}"
                record = attempt(on_damage, place, self._record, place, row)
                if record is None:
                    continue
                if record.split not in counted:
                    counted.add(record.split)
                    self._found[f"{record.split} videos"] += 1
                yield record

    def totals(self) -> dict[str, tuple[int, int]]:
        """Of the official files, under the rule that is in use."""
        if self.vocabulary.name != "action_genome" or self.source.name != ANNOTATIONS:
            return {}
        expected = dict(_TOTALS)
        if self.frame_rule != "all":
            expected |= _TOTALS_PERSON
        if self.frame_rule == "sttran":
            expected |= _TOTALS_STTRAN
        return {name: (self._found[name], number) for name, number in expected.items()}

    def _keeps(self, row: int) -> bool:
        frames = self._frames
        if row in frames.damaged:
            return True  # `_record` says what is wrong
        visible = any(frames.has_box[frames.first[row] : frames.first[row + 1]])
        person = frames.person[row] == PERSON
        self._found["frames with a visible object"] += visible
        if visible and person:
            split = SPLITS[frames.split[row]]
            self._found[f"{split} frames with a visible object and a person"] += 1
        if self.frame_rule == "all":
            return True
        if not visible:
            self.notes["frames left out: no visible object"] += 1
        elif not person:
            self.notes["frames left out: no person was detected"] += 1
        return visible and person

    def _record(self, place: str, row: int) -> Record:
        frames = self._frames
        if row in frames.damaged:
            raise RecordError(place, frames.damaged[row])
        video, number = frames.video_of(row), frames.number[row]
        image = self._image(row, video, number)
        graph = self._graph(row, image)
        return Record(f"{video}_{number}", image, graph, SPLITS[frames.split[row]], place, video, number)

    def _image(self, row: int, video: str, number: int) -> Path:
        """Where the frame should be. Raises GraphError where the video's frames are numbered in another way."""
        if video != self._listed:
            self._listed = video
            self._listing = numbered(self.images / f"{video}.mp4") or numbered(self.images / video)
        if 0 in self._listing:
            raise GraphError(
                f"{self._listing[0].parent} has a frame 0, Action Genome counts from 1: the boxes would be on other "
                "frames; dump them again as the data set's own tool does, ffmpeg -i VIDEO %06d.png"
            )
        return self._listing.get(number) or self.images / self._frames.key(row)

    def _graph(self, row: int, image: Path) -> SceneGraph:
        frames = self._frames
        objects, relations = [], []
        person = frames.person[row] == PERSON
        if person:
            x1, y1, x2, y2 = frames.person_box[4 * row : 4 * row + 4]
            objects.append(Object("person", (x1, y1, x2, y2)))
        for i in range(frames.first[row], frames.first[row + 1]):
            if not frames.has_box[i]:
                continue
            x, y, width, height = frames.box[4 * i : 4 * i + 4]
            objects.append(Object(frames.names[frames.label[i]], (x, y, x + width, y + height)))
            labels = range(frames.first_relation[i], frames.first_relation[i + 1])
            if not person and labels:
                self.notes["relations left out: no person was detected"] += len(labels)
                continue
            relations += [self._relation(j, len(objects) - 1) for j in labels]
        width, height = frames.size[2 * row : 2 * row + 2] if frames.person[row] != NO_ENTRY else _size_of(image)
        return SceneGraph(tuple(objects), tuple(relations), width, height)

    def _relation(self, index: int, target: int) -> Relation:
        """Relation `index` of the table from the person to object `target`."""
        label, group = self._frames.names[self._frames.predicate[index]], GROUPS[self._frames.group[index]]
        groups = self.vocabulary.groups or {}
        if label not in groups[group]:
            for other, labels in groups.items():
                if label in labels:
                    self.notes["relations listed under another group than theirs"] += 1
                    group = other
        return Relation(0, label, target, group)


def _size_of(image: Path) -> tuple[int, int]:
    """The size of a frame that only the image knows."""
    try:
        return image_sizes(image).upright
    except SgrlError as error:
        raise GraphError(f"person_bbox.pkl has no entry, which gives the size of the frame, and {error}") from None


def _find(root: Path, annotations: str) -> Path:
    if not root.is_dir():
        raise SgrlError(f"{root} is not a folder; give Action Genome's root, which holds annotations/ and frames/")
    folder = root / "annotations"
    if (folder / annotations).is_file():
        return folder / annotations
    present = sorted(path.name for path in folder.glob("object_bbox*.pkl"))
    if present:
        raise SgrlError(f"{folder / annotations} does not exist{suggest(annotations, present)} (--annotations NAME)")
    inside = ", ".join(sorted(path.name for path in root.iterdir())[:10])
    raise SgrlError(f"{root} holds no annotations/{annotations}, only {inside or 'nothing'}")


def _vocabulary(root: Path, folder: Path) -> Vocabulary:
    """The official lists, or those with other object classes.

    The text files squash the names ("closetcabinet", "lookingat"): official ones are told by that.
    """
    official = get_vocabulary("action_genome")
    predicates = _lines(folder / "relationship_classes.txt")
    if predicates is not None and list(map(_squash, predicates)) != list(map(_squash, official.predicates)):
        raise SgrlError(
            f"{folder / 'relationship_classes.txt'} does not have Action Genome's {len(official.predicates)} "
            "relationships in their order; the groups (attention, spatial, contacting) follow from it"
        )
    objects = _lines(folder / "object_classes.txt")
    if objects is None or list(map(_squash, objects)) == list(map(_squash, official.objects)):
        return official
    if "person" not in objects:
        raise SgrlError(f"{folder / 'object_classes.txt'} has no 'person', the subject of every relation")
    return Vocabulary(root.resolve().name, tuple(objects), official.predicates, official.groups)


def _lines(path: Path) -> list[str] | None:
    if not path.is_file():
        return None
    with open_text(path, "replace") as file:
        return [line.strip() for line in file if line.strip()]


def _squash(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())
