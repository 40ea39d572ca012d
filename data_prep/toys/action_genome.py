"""Toy videos with a person in the layout of Action Genome: two pickles, class lists, frames.

Every shape that is there is related to the person, by the boxes and by where the person points:
attention is `looking_at` what lies ahead, `not_looking_at` what lies behind, `unsure` for what is less than 10 px to
either side; spatial says where the object is: `in_front_of` or `behind` where the boxes meet (what is painted later is
in front), and `above`, `beneath` or `on_the_side_of`, whichever axis of the centres' distance is longer; contacting is
`holding` what lies in the person's box, `touching` what meets it, else `not_contacting`.

With rich labels some contacts have names of their own. Time tells apart what lies in the person's box: `carrying` is
moved with the person, by the same step from or to a frame beside it, and `holding` stays where it is. The class says
more: a circle that is held is `drinking_from`, and of what is touched a square beneath is `sitting_on`, a cross at the
side `writing_on`, a triangle above `wearing`. So some predicates are rare, and a tenth of the shapes is out of focus.
"""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep.toys.scene import OBJECTS, SIZE, SPLITS
from data_prep.toys.video import PERSON, Box, Video
from data_prep.toys.writing import Drawing
from sgrl.errors import UsageError
from sgrl.files import atomic_path
from sgrl.vocabulary import get_vocabulary

logger = logging.getLogger(__name__)

ANNOTATIONS = "annotations/object_bbox_and_relationship.pkl"
_BLURRED = 0.1  # of the shapes in the frames of rich videos
_OF_CLASS = {
    ("circle", "holding", None): "drinking_from",
    ("square", "touching", "beneath"): "sitting_on",
    ("cross", "touching", "on_the_side_of"): "writing_on",
    ("triangle", "touching", "above"): "wearing",
}  # class, plain contact, where (None: anywhere)
_STEP = 8  # annotated frames are this far apart, numbered from 1
_AHEAD = 10  # px
_MOST = 10_000  # videos of a split that have different ids
_MOST_FRAMES = 10**6 // _STEP  # their numbers have six digits


def write(
    output: str | Path, train: int, test: int, seed: int = 0, frames: int = 16, progress: bool = False
) -> dict | None:
    """Write `train` + `test` videos of `frames` annotated frames to `output`.

    The pickle with the objects comes last, so a folder that has it is complete. Returns counts of what was drawn, or
    None where the folder already holds the videos of the same arguments. Raises SgrlError for impossible arguments and
    for a folder whose pickle is not a toy world.
    """
    return _write(Path(output), Drawing("action_genome", train, test, seed, frames), progress)


def write_rich(
    output: str | Path, train: int, test: int, seed: int = 0, frames: int = 16, progress: bool = False
) -> dict | None:
    """`write`, with rich labels. A warning names predicates that no test frame has."""
    return _write(Path(output), Drawing("action_genome", train, test, seed, frames, labels="rich"), progress)


def _write(output: Path, drawing: Drawing, progress: bool) -> dict | None:
    frames, rich = drawing.length, drawing.labels == "rich"
    if frames >= _MOST_FRAMES:
        raise UsageError(f"cannot draw videos of {frames} frames; give less than {_MOST_FRAMES:,}")
    if not drawing.begin(output, ANNOTATIONS, ("frames",), _MOST):
        return None
    objects: dict[str, list[dict]] = {}
    persons: dict[str, dict] = {}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for split, index, drawn in drawing.videos(progress, person=True, blurred=_BLURRED if rich else 0.0):
        name = _video_id(split, index)
        _save(drawn, output / "frames" / f"{name}.mp4")
        for frame in range(frames):
            key = f"{name}.mp4/{_number(frame):06d}.png"
            persons[key] = _person(drawn.boxes[frame][0])
            objects[key] = [_object(drawn, frame, i, key, split, rich) for i in range(1, len(drawn.labels))]
            counts[split].update(_counts(persons[key], objects[key]))
    official = get_vocabulary("action_genome")
    folder = output / "annotations"
    for name, lines in (
        ("frame_list.txt", objects),
        ("object_classes.txt", (PERSON, *OBJECTS)),
        ("relationship_classes.txt", (predicate.replace("_", "") for predicate in official.predicates)),
    ):
        with atomic_path(folder / name) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines))
    for path, content in ((folder / "person_bbox.pkl", persons), (output / ANNOTATIONS, objects)):
        with atomic_path(path) as temporary:
            temporary.write_bytes(pickle.dumps(content, 3))
    absent = sorted(set(counts["train"]) - set(counts["test"]))
    if rich and drawing.test and absent:
        logger.warning("no test frame has %s: give more test videos, --test", ", ".join(absent))
    return {**(counts["train"] + counts["test"]), "train": drawing.train, "test": drawing.test}


def rich_relations(plain: Mapping[str, list[str]], label: str, carried: bool) -> dict[str, list[str]]:
    """What `relations` says, with the richer names of contacts; `carried`: the object moves as the person does."""
    contact, where = plain["contacting"][0], plain["spatial"][-1]
    if contact == "holding" and carried:
        contact = "carrying"
    else:
        contact = _OF_CLASS.get((label, contact, None)) or _OF_CLASS.get((label, contact, where), contact)
    return {**plain, "contacting": [contact]}


def carried(drawn: Video, frame: int, index: int) -> bool:
    """Whether the shape and the person take the same step, from the frame before or to the next one."""
    for before, after in ((frame - 1, frame), (frame, frame + 1)):
        if 0 <= before and after < len(drawn.boxes):
            steps = {_step(drawn.boxes[before][i], drawn.boxes[after][i]) for i in (0, index)}
            if len(steps) == 1 and not steps & {None, (0, 0)}:
                return True
    return False


def _step(before: Box | None, after: Box | None) -> tuple[int, int] | None:
    return None if before is None or after is None else (after[0] - before[0], after[1] - before[1])


def relations(person: Box, target: Box, facing: int) -> dict[str, list[str]]:
    """Group -> labels of a person and an object, as the head of this file says. facing: -1 left, 1 right."""
    dx, dy = ((target[i] + target[i + 2] - person[i] - person[i + 2]) / 2 for i in (0, 1))
    meet = all(person[i] < target[i + 2] and target[i] < person[i + 2] for i in (0, 1))
    within = all(person[i] <= target[i] and target[i + 2] <= person[i + 2] for i in (0, 1))
    ahead = "unsure" if abs(dx) < _AHEAD else "looking_at" if dx * facing > 0 else "not_looking_at"
    spatial = ["on_the_side_of" if abs(dx) >= abs(dy) else "above" if dy < 0 else "beneath"]
    if meet:
        later = (target[0] - target[2], target) > (person[0] - person[2], person)  # as scene.paint does
        spatial.insert(0, "in_front_of" if later else "behind")
    contact = "holding" if within else "touching" if meet else "not_contacting"
    return {"attention": [ahead], "spatial": spatial, "contacting": [contact]}


def _video_id(split: str, index: int) -> str:
    return f"{'T' if split == 'train' else 'V'}{index:04d}"


def _number(frame: int) -> int:
    return 1 + _STEP * frame


def _object(drawn: Video, frame: int, index: int, key: str, split: str, rich: bool) -> dict:
    """One entry of the official file. Without a person there is nothing to relate to: relations are empty lists."""
    box, person, label = drawn.boxes[frame][index], drawn.boxes[frame][0], drawn.labels[index]
    groups = ("attention", "spatial", "contacting")
    found: dict[str, list[str]] | dict[str, None] = dict.fromkeys(groups)
    if box is not None:
        related = {group: [] for group in groups} if person is None else relations(person, box, drawn.facing[frame])
        if rich and person is not None:
            related = rich_relations(related, label, carried(drawn, frame, index))
        found = related
    folder, _, name = key.partition("/")
    return {
        "class": label,
        "bbox": None
        if box is None
        else (float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])),
        **{f"{group}_relationship": labels for group, labels in found.items()},
        "metadata": {"tag": f"{folder}/{label}/{name.removesuffix('.png')}", "set": split},
        "visible": box is not None,
    }


def _person(box: Box | None) -> dict:
    """One entry of the official file, which a detector made."""
    n = int(box is not None)
    return {
        "bbox": np.array([box] if n else [], np.float32).reshape(n, 4),
        "bbox_score": np.ones(n, np.float32),
        "bbox_size": (SIZE, SIZE),
        "bbox_mode": "xyxy",
        "keypoints": np.zeros((n, 17, 3), np.float32),
        "keypoints_logits": np.zeros((n, 17), np.float32),
    }


def _counts(person: dict, objects: list[dict]) -> Counter:
    found = [label for entry in objects for group in ("attention", "spatial", "contacting")
             for label in entry[f"{group}_relationship"] or ()]  # fmt: skip
    visible = sum(entry["visible"] for entry in objects)
    counts = Counter(found)
    counts.update({"frames": 1, "objects": visible + len(person["bbox"]), "without relations": int(not found)})
    return counts


def _save(drawn: Video, folder: Path) -> None:
    from PIL import Image

    folder.mkdir()
    for frame, image in enumerate(drawn.images):
        Image.fromarray(image).save(folder / f"{_number(frame):06d}.png", compress_level=1)
