"""Toy videos in the layouts of PSG4D-GTA (colour, depth, masks) and PSG4D-HOI (colour, transposed masks)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.toys.pvsg import spans
from data_prep.toys.scene import OBJECTS, PREDICATES, SIZE, jpeg
from data_prep.toys.video import Video
from data_prep.toys.writing import Drawing, count_video
from sgrl.files import atomic_path

BACKDROP = "backdrop"
"""What fills the image behind the shapes; an object without relations, as the sky is in PSG4D-GTA."""

_BACKGROUND = 1000  # added to background classes in the masks
_FPS = 5
_FAR = 20.0  # m, of the backdrop


class _Layout(NamedTuple):
    annotations: str
    folders: tuple[str, ...]
    video_id: Callable[[str, int], str]
    record: Callable[[Video, str], dict]
    save: Callable[[Video, Path, str], None]


def write_gta(
    output: str | Path, train: int, test: int, seed: int = 0, frames: int = 16, progress: bool = False
) -> dict | None:
    """Write `train` + `test` videos of `frames` frames as PSG4D-GTA, the test videos as its split "val".

    The annotation comes last and in one piece, so a folder that has it is complete. Depth is in metres, and smaller
    shapes are nearer. Returns counts of what was drawn, or None where the folder already holds the videos of the same
    arguments. Raises SgrlError for impossible arguments and for a folder that is not a toy world.
    """
    return _write(_GTA, output, Drawing("psg4d_gta", train, test, seed, frames), progress)


def write_hoi(
    output: str | Path, train: int, test: int, seed: int = 0, frames: int = 16, progress: bool = False
) -> dict | None:
    """The same as PSG4D-HOI, which has no depth here. A split table is added, for no official one is known."""
    return _write(_HOI, output, Drawing("psg4d_hoi", train, test, seed, frames), progress)


def _write(layout: _Layout, output: str | Path, drawing: Drawing, progress: bool) -> dict | None:
    output = Path(output)
    if not drawing.begin(output, layout.annotations, layout.folders):
        return None
    splits: dict[str, list[str]] = {"train": [], "val": []}
    for split, index in drawing.todo():
        splits["train" if split == "train" else "val"].append(layout.video_id(split, index))
    head: dict = {"split": splits}
    if layout is _GTA:
        head = {"objects": {"thing": OBJECTS, "stuff": [BACKDROP]}, "relations": PREDICATES, **head}
    else:
        (output / "categories.json").write_text(json.dumps({str(_class(name)): name for name in OBJECTS}))
        names = [name for part in splits.values() for name in part]
        (output / "hoi4d_id.json").write_text(json.dumps({f"{i + 1:04d}": name for i, name in enumerate(names)}))
    counts: Counter[str] = Counter()
    with atomic_path(output / layout.annotations) as temporary, temporary.open("w") as file:
        file.write(json.dumps(head)[:-1] + ', "data": [')
        for number, (split, index, drawn) in enumerate(drawing.videos(progress)):
            name = layout.video_id(split, index)
            layout.save(drawn, output, name)
            file.write((",\n" if number else "\n") + json.dumps(layout.record(drawn, name)))
            count_video(counts, split, drawn)
        file.write("\n]}\n")
    return dict(counts)


def _relations(drawn: Video) -> list[tuple[int, str, int, list[int]]]:
    """(subject, predicate, object, [first, last]); a relation that comes back has several entries."""
    active: dict[tuple[int, str, int], list[int]] = {}
    for frame, found in enumerate(drawn.relations):
        for triple in found:
            active.setdefault(triple, []).append(frame)
    return [(*triple, span) for triple, frames in active.items() for span in spans(frames)]


def _gta_id(index: int) -> int:
    """Ids in masks are neither consecutive nor small."""
    return 17 + 31 * index


def _gta_record(drawn: Video, name: str) -> dict:
    shapes = [{"object_id": _gta_id(i), "category": label} for i, label in enumerate(drawn.labels)]
    return {
        "video_id": name,
        "meta": {"height": SIZE, "width": SIZE, "fps": _FPS, "num_frames": len(drawn.layers)},
        "object": [*shapes, {"object_id": _BACKGROUND + 1, "category": BACKDROP}],
        "relations": [[_gta_id(s), predicate, _gta_id(o), span] for s, predicate, o, span in _relations(drawn)],
    }


def _gta_save(drawn: Video, output: Path, name: str) -> None:
    from PIL import Image

    folders = {kind: output / "psg4d_gta" / kind / name for kind in ("images", "visible", "masks", "depth")}
    folders["background"] = output / "background_masks" / name
    for folder in folders.values():
        folder.mkdir(parents=True)
    ids = np.array([*(_gta_id(i) for i in range(len(drawn.labels))), 0], np.uint16)  # last: layer == -1
    backdrop = np.ones((SIZE, SIZE), np.uint8)
    for frame, (image, layer) in enumerate(zip(drawn.images, drawn.layers, strict=True)):
        sides = [box[2] - box[0] if box else 0 for box in drawn.boxes[frame]]
        visible = ids[layer]
        depth = np.array([*(side / 8 for side in sides), _FAR], np.float32)[layer]
        stem = f"{frame:06d}"
        Image.fromarray(image).save(folders["images"] / f"{stem}.bmp")
        Image.fromarray(backdrop).save(folders["background"] / f"{stem}.bmp")
        np.save(folders["visible"] / f"{stem}.npy", visible)
        np.save(folders["masks"] / f"{stem}.npy", np.where(visible == 0, np.uint16(_BACKGROUND + 1), visible))
        np.save(folders["depth"] / f"{stem}.npy", depth)


def _class(label: str) -> int:
    """Class numbers have gaps."""
    return 3 + 7 * OBJECTS.index(label)


def _mask_ids(labels: list[str]) -> list[int]:
    """Class + 1000 * instance."""
    return [_class(label) + 1000 * labels[:i].count(label) for i, label in enumerate(labels)]


def _hoi_record(drawn: Video, name: str) -> dict:
    return {
        "video_id": name,
        "object": [{"mask_id": value, "object_id": i + 1} for i, value in enumerate(_mask_ids(drawn.labels))],
        "relations": [[s + 1, o + 1, predicate, *span] for s, predicate, o, span in _relations(drawn)],
    }


def _hoi_save(drawn: Video, output: Path, name: str) -> None:
    images, masks = output / "HOI4D_release" / name / "align_rgb", output / "HOI4D_mask" / name / "mask"
    for folder in (images, masks):
        folder.mkdir(parents=True)
    ids = np.array([*_mask_ids(drawn.labels), 0], np.int32)
    for frame, (image, layer) in enumerate(zip(drawn.images, drawn.layers, strict=True)):
        (images / f"{frame:05d}.jpg").write_bytes(jpeg(image))
        np.savez_compressed(masks / f"{frame:05d}.npz", array=ids[layer].T)  # stored as (width, height)


_GTA = _Layout(
    "sailvos3d.json", ("psg4d_gta", "background_masks"),
    lambda split, index: f"toy_{split}_{index:05d}", _gta_record, _gta_save,
)  # fmt: skip
_HOI = _Layout(
    "psg4d_hoi.json", ("HOI4D_release", "HOI4D_mask"),
    lambda split, index: f"{split}/H1/C1/N01/S{index:05d}/s01/T1", _hoi_record, _hoi_save,
)  # fmt: skip
