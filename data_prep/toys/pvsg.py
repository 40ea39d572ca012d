"""Toy videos in the layout of PVSG: pvsg.json, and frames and palette masks of its three sources."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np

from data_prep.readers.pvsg import SOURCES
from data_prep.toys.scene import COLOURS, OBJECTS, PREDICATES, SIZE
from data_prep.toys.video import Video
from data_prep.toys.writing import Drawing, count_video
from sgrl.files import atomic_path

ANNOTATIONS = "pvsg.json"
_FPS = 5
_MOST = 10_000  # videos of a split that have different ids


def write(
    output: str | Path, train: int, test: int, seed: int = 0, frames: int = 16, progress: bool = False
) -> dict | None:
    """Write `train` + `test` videos of `frames` frames to `output`, the test videos as PVSG's split "val".

    pvsg.json comes last and in one piece, so a folder that has it is complete. Returns counts of what was drawn, or
    None where the folder already holds the videos of the same arguments. Raises SgrlError for impossible arguments and
    for a folder whose pvsg.json is not a toy world.
    """
    output = Path(output)
    drawing = Drawing("pvsg", train, test, seed, frames)
    if not drawing.begin(output, ANNOTATIONS, SOURCES, _MOST):
        return None
    splits: dict[str, dict[str, list[str]]] = {source: {"train": [], "val": []} for source in SOURCES}
    for split, index in drawing.todo():
        splits[SOURCES[index % 3]]["train" if split == "train" else "val"].append(_video_id(split, index))
    head = {"objects": {"thing": OBJECTS, "stuff": []}, "relations": PREDICATES, "split": splits}
    counts: Counter[str] = Counter()
    with atomic_path(output / ANNOTATIONS) as temporary, temporary.open("w") as file:
        file.write(json.dumps(head)[:-1] + ', "data": [')
        for number, (split, index, drawn) in enumerate(drawing.videos(progress)):
            name = _video_id(split, index)
            _save(drawn, output / SOURCES[index % 3], name)
            file.write((",\n" if number else "\n") + json.dumps(_record(drawn, name)))
            count_video(counts, split, drawn)
        file.write("\n]}\n")
    return dict(counts)


def _video_id(split: str, index: int) -> str:
    """Ids look like those of the source."""
    test = int(split == "test")
    if SOURCES[index % 3] == "vidor":
        return f"{index:04d}_{test + 1}{index:09d}"
    if SOURCES[index % 3] == "epic_kitchen":
        return f"P{index % 100:02d}_{test + 1}{index:04d}"
    return f"00000000-0000-4000-8{test}00-{index:012d}_1"


def _record(drawn: Video, name: str) -> dict:
    """A record of pvsg.json, keys in the official order."""
    frames = len(drawn.relations)
    active: dict[tuple[int, int, str], list[int]] = {}
    for frame, found in enumerate(drawn.relations):
        for subject, predicate, target in found:
            active.setdefault((subject + 1, target + 1, predicate), []).append(frame)
    return {
        "video_id": name,
        "meta": {"height": SIZE, "width": SIZE, "fps": _FPS, "duration": frames / _FPS, "num_frames": frames},
        "objects": [
            {"object_id": i + 1, "category": label, "is_thing": True, "status": []}
            for i, label in enumerate(drawn.labels)
        ],
        "relations": [[*triple, spans(numbers)] for triple, numbers in active.items()],
        "captions": [],
        "qa_pairs": [],
        "summary": "",
    }


def spans(frames: list[int]) -> list[list[int]]:
    """Increasing numbers -> [first, last] of each run, both included."""
    runs = [[frames[0], frames[0]]]
    for frame in frames[1:]:
        if frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    return runs


def _save(drawn: Video, folder: Path, name: str) -> None:
    from PIL import Image

    palette = np.vstack([np.zeros((1, 3), np.int16), COLOURS]).astype(np.uint8).tobytes()
    for kind in ("frames", "masks"):
        (folder / kind / name).mkdir(parents=True)
    for frame, (image, layer) in enumerate(zip(drawn.images, drawn.layers, strict=True)):
        Image.fromarray(image).save(folder / "frames" / name / f"{frame:04d}.png", compress_level=1)
        mask = Image.fromarray((layer + 1).astype(np.uint8))  # 0 is nothing, ids count from 1
        mask.putpalette(palette)
        mask.save(folder / "masks" / name / f"{frame:04d}.png")
