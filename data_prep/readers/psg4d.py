"""PSG4D (Yang et al., NeurIPS 2023): PSG4D-GTA, from SAIL-VOS 3D, and PSG4D-HOI, from HOI4D.

    ROOT/sailvos3d.json                                     ROOT/psg4d_hoi.json, categories.json, hoi4d_id.json
    ROOT/psg4d_gta/images/VIDEO/000000.bmp                  ROOT/HOI4D_release/VIDEO/align_rgb/00000.jpg
    ROOT/psg4d_gta/masks/VIDEO/000000.npy                   ROOT/HOI4D_mask/VIDEO/mask/00000.npz
    (or visible/ there and ROOT/background_masks/)

No annotation file of either is public, so their schema is inferred from the official viewers and loaders. What may
vary is detected (the place of the predicate, one span or several, `object` or `objects`, which id relations use), and
a record that fits none of it is named. Predicates are read from the file. Boxes are those of the masks, which are read
one frame at a time; depth is not needed.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.readers import masks
from data_prep.readers.json_stream import items, read_json, values
from data_prep.readers.psg4d_video import Schema, Video
from data_prep.readers.record import OnDamage, Record, RecordError, attempt, below, class_list, raised
from sgrl.errors import SgrlError, suggest
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.images import image_sizes
from sgrl.tubes import TimedRelation, TubeObject, VideoGraph, tubes_of_maps
from sgrl.vocabulary import Vocabulary

_BACKGROUND = 1000  # what the official script adds to background classes when it merges the two masks


class _PSG4DReader(ABC):
    """What the two data sets share; see `data_prep.readers.record.Reader`.

    Args:
        root: the folder that holds the files above.
        annotations: name of the annotation file.

    Raises:
        SgrlError: a missing file or folder, a file that is truncated, class lists that cannot be used.
    """

    default_size = (640, 480)  # as published for the frames of PVSG
    codec = "toon"
    official: str  # the name, where the files are the official ones
    files: tuple[str, ...]
    videos: int  # in the official data set
    mask_suffix: str
    image_suffixes: tuple[str, ...]

    def __init__(self, root: str | Path, annotations: str | None = None):
        self.root = Path(root)
        self.source = self._find(annotations)
        self._prepare()
        head = values(self.source, ("objects", "relations", "predicates", "split"), skip="data")
        self._splits = dict(_splits(head.get("split")))
        self._scan(_names(head.get("objects")), _names(head.get("relations") or head.get("predicates")))
        self.notes: Counter[str] = Counter()
        self._found: Counter[str] = Counter()

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """The frames of one video after the other.

        A damaged video, relation or frame is handed to `on_damage` and skipped; without it, it is raised.
        """
        damaged = self._begin(on_damage)
        for video, frames in self._videos(damaged):
            relations, counts = video.clipped(video.frames or max(frames) + 1)
            self.notes.update(counts)
            for frame, path in frames.items():
                self._found["frames"] += 1
                place = f"{video.place}, frame {path.stem}"
                record = attempt(damaged, place, self._record, place, video, relations, frame, path)
                if record is not None:
                    yield record

    def video_graphs(self, on_damage: OnDamage | None = None) -> Iterator[tuple[str, str, VideoGraph]]:
        """(video_id, split, graph with tubes of masks) of one video after the other, as VideoRecall takes
        them for references. A frame of a tube is a frame of the video; those without a mask are empty.

        A damaged video or relation, or a video with a damaged mask, is handed to `on_damage` and skipped; without it,
        it is raised.
        """
        damaged = self._begin(on_damage)
        for video, frames in self._videos(damaged):
            relations, counts = video.clipped(video.frames or max(frames) + 1)
            self.notes.update(counts)
            tubes = attempt(damaged, video.place, self._tubes, video, frames)
            if tubes is None:
                continue
            shown = [i for i, (value, _) in enumerate(video.objects) if value in tubes]
            position = {i: place for place, i in enumerate(shown)}
            objects = [TubeObject(video.objects[i][1], tubes[video.objects[i][0]]) for i in shown]
            seen = [
                TimedRelation(position[r.subject], r.predicate, position[r.object], r.spans)
                for r in relations
                if r.subject in position and r.object in position
            ]
            if len(seen) < len(relations):
                self.notes["relations of objects that are never seen"] += len(relations) - len(seen)
            yield video.video_id, self._splits.get(video.video_id, "train"), VideoGraph(objects, seen)

    def _begin(self, on_damage: OnDamage | None) -> OnDamage:
        self.notes.clear()
        self._found.clear()
        return on_damage or raised

    def _videos(self, damaged: OnDamage) -> Iterator[tuple[Video, dict[int, Path]]]:
        """Those that can be read, with the mask of each frame."""
        for number, raw in enumerate(items(self.source, "data")):
            self._found["videos"] += 1
            found = attempt(damaged, f"{self.source.name}, video {number}", self._video, number, raw, damaged)
            if found is None:
                continue
            video, frames = found
            if self._splits and video.video_id not in self._splits:
                self.notes["videos in no split, taken for training"] += 1
            yield video, frames

    def _video(self, number: int, raw, damaged: OnDamage) -> tuple[Video, dict[int, Path]]:
        video = self._schema.video(f"{self.source.name}, video {number}", raw, damaged)
        try:
            frames = self._frames(video)
            self._images = self._images_of(video, frames)
        except GraphError as error:
            raise RecordError(video.place, str(error)) from None
        return video, frames

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _categories(self) -> dict[int, str]: ...

    @abstractmethod
    def _is_official(self, objects: list[str], videos: list[str]) -> bool: ...

    @abstractmethod
    def _mask_folder(self, video_id: str) -> Path: ...

    @abstractmethod
    def _image_folder(self, video_id: str) -> Path: ...

    def totals(self) -> dict[str, tuple[int, int]]:
        """The number of videos; empty where the files are not the official ones."""
        return {"videos": (self._found["videos"], self.videos)} if self.name == self.official else {}

    def _scan(self, objects: list[str], predicates: list[str]) -> None:
        """Read all annotation once for what stands nowhere else: names, and the id that relations use."""
        schema = Schema(self._categories())
        found: tuple[dict, dict] = {}, {}
        ids: Counter[str] = Counter()
        names: list[str] = []
        for number, raw in enumerate(items(self.source, "data")):
            place = f"{self.source.name}, video {number}"
            video = attempt(_ignored, place, schema.video, place, raw, _ignored)
            if video is None:
                continue  # named when it is read for its frames
            names.append(video.video_id)
            found[0].update(dict.fromkeys(label for _, label in video.objects))
            found[1].update(dict.fromkeys(relation.predicate for relation in video.relations))
            ids.update(video.only)
        self._schema = Schema(self._categories(), default=max(ids, key=lambda name: ids[name]) if ids else "object_id")
        objects = objects or list(self._categories().values()) or sorted(found[0])
        predicates = predicates or sorted(found[1])
        if not objects or not predicates:
            raise SgrlError(
                f"{self.source} names no {'predicate' if objects else 'class'}: neither in a list at the top nor in "
                f"its {len(names)} readable videos"
            )
        self.name = self.official if self._is_official(objects, names) else self.root.resolve().name
        self.vocabulary = Vocabulary(self.name, class_list(objects), class_list(predicates))

    def _record(self, place: str, video: Video, relations: list, frame: int, path: Path) -> Record:
        image, graph = self._frame(video, relations, frame, path)
        split = self._splits.get(video.video_id, "train")
        return Record(f"{video.video_id}_{frame}", image, graph, split, place, video.video_id, frame)

    def _tubes(self, video: Video, frames: dict[int, Path]) -> dict:
        maps = (self._whole_mask(video, frames[t])[1] if t in frames else None for t in range(max(frames) + 1))
        return tubes_of_maps(maps)

    def _frame(self, video: Video, relations: list, frame: int, path: Path) -> tuple[Path, SceneGraph]:
        image, mask = self._whole_mask(video, path)
        seen = masks.boxes(mask, [value for value, _ in video.objects])
        position: dict[int, int] = {}
        objects: list[Object] = []
        for i, (value, label) in enumerate(video.objects):
            if value in seen:
                position[i] = len(objects)
                objects.append(Object(label, seen[value]))
        active = [relation for relation in relations if relation.holds(frame)]
        shown = [
            Relation(position[r.subject], r.predicate, position[r.object])
            for r in active
            if r.subject in position and r.object in position
        ]
        if len(shown) < len(active):
            self.notes["relations in frames where an end cannot be seen"] += len(active) - len(shown)
        return image, SceneGraph(objects, shown, mask.shape[1], mask.shape[0])

    def _whole_mask(self, video: Video, path: Path) -> tuple[Path, np.ndarray]:
        """The image of a mask, and the mask as (height, width)."""
        image = self._images.get(int(path.stem))
        if image is None:  # the converter will say that it is missing
            image = self._image_folder(video.video_id) / f"{path.stem}{self.image_suffixes[0]}"
        return image, self._oriented(self._mask(video.video_id, path), path, _size(image))

    def _oriented(self, mask: np.ndarray, path: Path, size: tuple[int, int] | None) -> np.ndarray:
        """The mask as (height, width). size: (width, height) of the image, None without an image."""
        if size is not None and mask.shape != size[::-1]:
            found = f"{mask.shape[1]} x {mask.shape[0]} pixels"
            raise GraphError(f"{path} is {found}, its image {size[0]} x {size[1]}; expected one size")
        return mask

    def _frames(self, video: Video) -> dict[int, Path]:
        """Frame number -> mask file, in time order."""
        folder = self._mask_folder(video.video_id)
        frames = masks.numbered(folder, (self.mask_suffix,))
        if frames and max(frames) > masks.LAST_FRAME:
            raise GraphError(f"its masks are numbered up to {max(frames):,}; expected the numbers of frames")
        if not frames:
            raise RecordError(video.place, f"{folder} holds no masks; expected 000000{self.mask_suffix} and so on")
        length = video.frames or max(frames) + 1
        missing = length - sum(frame < length for frame in frames)
        if missing:
            self.notes["frames without a mask"] += missing
        return dict(sorted(frames.items()))

    def _images_of(self, video: Video, frames: dict[int, Path]) -> dict[int, Path]:
        """Number of a mask -> its image."""
        folder = self._image_folder(video.video_id)
        found = masks.numbered(folder, self.image_suffixes)
        start = masks.first_image(frames, found)
        if start is None:
            raise GraphError(
                f"{folder} has images from 1 to {max(found)}, but there are masks from 0 to {max(frames)}: is image 1 "
                "of mask 0 or of mask 1? Number the images from 0"
            )
        if start:
            self.notes["videos whose frames are numbered from 1, their masks from 0"] += 1
        return {number - start: path for number, path in found.items()}

    def _mask(self, video_id: str, path: Path) -> np.ndarray:
        return masks.load_array(path)

    def _find(self, annotations: str | None) -> Path:
        if not self.root.is_dir():
            raise SgrlError(f"{self.root} is not a folder; give the one that holds {self.files[0]}")
        for name in (annotations,) if annotations else self.files:
            if (self.root / name).is_file():
                return self.root / name
        if annotations:
            present = sorted(path.name for path in self.root.glob("*.json"))
            raise SgrlError(f"{self.root / annotations} does not exist{suggest(annotations, present)}")
        inside = ", ".join(sorted(path.name for path in self.root.iterdir())[:10]) or "nothing"
        raise SgrlError(f"{self.root} holds no {self.files[0]}, only {inside}; download PSG4D's annotation there")

    def _folder(self, *names: str) -> Path:
        """The first of the folders that exists."""
        for name in names:
            if (self.root / name).is_dir():
                return self.root / name
        raise SgrlError(f"{self.root / names[0]} is not a folder; expected {self.official}'s masks there")


class PSG4DGTAReader(_PSG4DReader):
    """Reads PSG4D-GTA; arguments and errors as for `_PSG4DReader`."""

    official, files, videos = "psg4d_gta", ("sailvos3d.json",), 67
    mask_suffix, image_suffixes = ".npy", (".bmp", ".png", ".jpg")

    def _prepare(self) -> None:
        self._masks = self._folder("psg4d_gta/masks", "masks", "psg4d_gta/visible", "visible")

    def _categories(self) -> dict[int, str]:
        return {}

    def _is_official(self, objects: list[str], videos: list[str]) -> bool:
        return {"person", "road barrier", "stick", "stair"} <= set(objects) and len(objects) == 35

    def _mask_folder(self, video_id: str) -> Path:
        return self._masks / video_id

    def _image_folder(self, video_id: str) -> Path:
        return self._masks.parent / "images" / video_id

    def _mask(self, video_id: str, path: Path) -> np.ndarray:
        """Foreground and background in one, as the official script merges them."""
        mask = masks.load_array(path)
        if self._masks.name == "visible":
            background = self.root / "background_masks" / video_id / f"{path.stem}.bmp"
            if background.is_file():
                classes = masks.load_image(background).astype(np.int64)
                if classes.shape != mask.shape:
                    raise GraphError(
                        f"{background} has the shape {classes.shape}, {path} {mask.shape}; expected one size"
                    )
                mask = np.where((mask == 0) & (classes != 0), classes + _BACKGROUND, mask)
            else:
                self.notes["frames without a background mask"] += 1
        return mask


class PSG4DHOIReader(_PSG4DReader):
    """Reads PSG4D-HOI; arguments and errors as for `_PSG4DReader`."""

    official, files, videos = "psg4d_hoi", ("psg4d_hoi.json", "pag4d_hoi.json"), 2973
    mask_suffix, image_suffixes = ".npz", (".jpg", ".png")

    def _prepare(self) -> None:
        self._masks = self._folder("HOI4D_mask")
        names = self._table("categories.json", needed=True)
        self._names = {int(key): name for key, name in names.items()}
        self._paths = self._table("hoi4d_id.json", needed=False)

    def _table(self, name: str, needed: bool) -> dict:
        path = self.root / name
        if not path.is_file():
            if needed:
                raise SgrlError(f"{path} does not exist; expected the names of the classes there")
            return {}
        table = read_json(path)
        if isinstance(table, dict) and all(
            isinstance(name, str) and (not needed or key.isdecimal() and len(key) < 10) for key, name in table.items()
        ):
            return table
        raise SgrlError(f"{path}: expected an object with one entry per {'class number' if needed else 'video'}")

    def _categories(self) -> dict[int, str]:
        return self._names

    def _is_official(self, objects: list[str], videos: list[str]) -> bool:
        return all(re.match(r"ZY\d+", self._path(video)) for video in videos)

    def _path(self, video_id: str) -> str:
        """Annotation may name a video by its path or by its short id."""
        return video_id if "/" in video_id else self._paths.get(video_id, video_id)

    def _mask_folder(self, video_id: str) -> Path:
        return below(self._masks, self._path(video_id), "the path of the video") / "mask"

    def _image_folder(self, video_id: str) -> Path:
        return below(self.root / "HOI4D_release", self._path(video_id), "the path of the video") / "align_rgb"

    def _oriented(self, mask: np.ndarray, path: Path, size: tuple[int, int] | None) -> np.ndarray:
        """Masks are stored as (width, height)."""
        if size is not None and mask.shape != size and mask.shape == size[::-1]:
            return mask
        return super()._oriented(mask.T, path, size)


def _ignored(error: RecordError) -> None:
    """For a pass whose damage is named in another one."""


def _size(image: Path) -> tuple[int, int] | None:
    """(width, height) of an image file, None if it is missing or damaged: the converter says so."""
    try:
        return image_sizes(image).upright
    except SgrlError:
        return None


def _splits(table) -> Iterator[tuple[str, str]]:
    """(video, split) of a table {"train": [...], "val": [...]}, also one level deeper."""
    for name, entry in table.items() if isinstance(table, dict) else ():
        if isinstance(entry, dict):
            yield from _splits(entry)
        elif isinstance(entry, list):
            split = {"validation": "val", "valid": "val"}.get(name, name)
            if split not in ("train", "val", "test"):
                raise SgrlError(f"unknown split {name!r}; expected train, val or test")
            yield from ((str(video), split) for video in entry)


def _names(entry) -> list[str]:
    """A list of names, or {"thing": [...], "stuff": [...]}; [] for anything else."""
    parts = list(entry.values()) if isinstance(entry, dict) else [entry]
    names = [name for part in parts if isinstance(part, list) for name in part]
    return names if all(isinstance(name, str) for name in names) else []
