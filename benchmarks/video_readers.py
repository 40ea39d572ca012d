"""What it costs to read Action Genome and PVSG, without images, in CPU time of one core and peak memory.

    python benchmarks/video_readers.py

Action Genome: pickles with as many frames, objects and persons as the official ones (288,782 frames, 280 MB), random
content. PVSG: masks of 1920 x 1080 pixels with 20 objects, the size of its Epic Kitchens videos.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.readers import open_reader
from sgrl.vocabulary import get_vocabulary


def write_action_genome(root: Path, frames: int) -> None:
    """Both pickles; videos of about 30 frames."""
    rng, vocabulary = random.Random(0), get_vocabulary("action_genome")
    noise = np.random.default_rng(0)
    objects, persons = {}, {}
    while len(objects) < frames:
        video = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=5))
        split = "train" if rng.random() < 0.8 else "test"
        for number in sorted(rng.sample(range(1, 1000), min(30, frames - len(objects)))):
            key = f"{video}.mp4/{number:06d}.png"
            objects[key] = [
                make_object(rng, vocabulary, f"{video}.mp4", number, split)
                for _ in range(rng.choice((1, 2, 2, 3, 3, 4)))
            ]
            n = rng.choices((0, 1, 2), (1, 7, 2))[0]
            persons[key] = {
                "bbox": (noise.random((n, 4)) * 100).astype(np.float32) + np.array([0, 0, 100, 100], np.float32),
                "bbox_score": noise.random(n).astype(np.float32),
                "bbox_size": (480, 270),
                "bbox_mode": "xyxy",
                "keypoints": noise.random((n, 17, 3)).astype(np.float32),
                "keypoints_logits": noise.random((n, 17)).astype(np.float32),
            }
    (root / "annotations").mkdir(parents=True)
    (root / "frames").mkdir()
    for name, content in (("object_bbox_and_relationship", objects), ("person_bbox", persons)):
        with (root / "annotations" / f"{name}.pkl").open("wb") as file:
            pickle.dump(content, file, 3)


def make_object(rng: random.Random, vocabulary, folder: str, number: int, split: str) -> dict:
    """One entry of object_bbox_and_relationship.pkl."""
    name, visible = rng.choice(vocabulary.objects[1:]), rng.random() < 0.85
    labels = {
        f"{group}_relationship": rng.sample(group_labels, rng.randint(1, most)) if visible else None
        for (group, group_labels), most in zip(vocabulary.groups.items(), (1, 2, 2), strict=True)
    }
    return {
        "class": name,
        "bbox": tuple(rng.random() * 200 for _ in range(4)) if visible else None,
        **labels,
        "metadata": {"tag": f"{folder}/{name.replace('/', '_')}/{number:06d}", "set": split},
        "visible": visible,
    }


def write_pvsg(root: Path, frames: int) -> None:
    """One video."""
    rng, vocabulary, name = random.Random(0), get_vocabulary("pvsg"), "P01_01"
    objects = [{"object_id": i, "category": rng.choice(vocabulary.objects)} for i in range(1, 21)]
    relations = [
        [*rng.sample(range(1, 21), 2), rng.choice(vocabulary.predicates), [[0, frames - 1]]] for _ in range(15)
    ]
    content = {
        "objects": {"thing": vocabulary.objects[:115], "stuff": vocabulary.objects[115:]},
        "relations": vocabulary.predicates,
        "split": {"epic_kitchen": {"train": [name], "val": []}},
        "data": [
            {
                "video_id": name,
                "meta": {"height": 1080, "width": 1920, "fps": 5, "num_frames": frames},
                "objects": objects,
                "relations": relations,
            }
        ],
    }
    for kind in ("masks", "frames"):
        (root / "epic_kitchen" / kind / name).mkdir(parents=True)
    for frame in range(frames):
        mask = np.zeros((1080, 1920), np.uint8)
        for number in range(1, 21):
            x, y = rng.randrange(1500), rng.randrange(800)
            mask[y : y + 250, x : x + 400] = number
        Image.fromarray(mask).save(root / "epic_kitchen" / "masks" / name / f"{frame:04d}.png")
        (root / "epic_kitchen" / "frames" / name / f"{frame:04d}.png").touch()
    (root / "pvsg.json").write_text(json.dumps(content))


def measure(name: str, root: Path, **options) -> None:
    """Print the time to the first record and the rate from there on."""
    start = time.process_time()
    reader = open_reader(name, root, **options)
    records = reader.records()
    next(records)
    loaded = time.process_time()
    number = sum(1 for _ in records)
    rate = number / (time.process_time() - loaded)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:14} first record after {loaded - start:5.1f} s, then {rate:8,.0f} records/s, peak {peak:5,.0f} MB")


def in_child(function, *arguments, **options) -> None:
    """Run a function in a process of its own, for a peak of its own."""
    import multiprocessing

    child = multiprocessing.get_context("spawn").Process(target=function, args=arguments, kwargs=options)
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(child.exitcode)


def main() -> None:
    """The command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--frames", type=int, default=288782, help="of Action Genome (default: %(default)s, all)")
    parser.add_argument("--masks", type=int, default=60, help="of PVSG (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        in_child(write_action_genome, root / "action_genome", args.frames)
        in_child(write_pvsg, root / "pvsg", args.masks)
        in_child(measure, "action_genome", root / "action_genome", frame_rule="oed")
        in_child(measure, "pvsg", root / "pvsg")


if __name__ == "__main__":
    main()
