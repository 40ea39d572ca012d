"""What a conversion costs: texts alone, with images, by two processes, and the size of prompts that repeat themselves.

    python benchmarks/conversion.py
    python benchmarks/conversion.py --samples 2000 --images 200 --frames 0

psg.json is drawn here, in the official layout, with graphs like PSG's (9.3 objects, 5.2 relations on average) of
images of 640 x 427 pixels; the pictures are painted. Each conversion is the command `data_prep/to_toon.py` in a
process of its own: what is measured is all of it, from the start of the interpreter to the last file, in CPU time (of
its workers too) and peak memory. Prints Markdown. The published figures were measured on the same kind of machine
(2 cores, "AMD EPYC"); its memory grows by 16 KB a sample, so that the gigabytes for a million are extrapolated.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as parquet
from PIL import Image
from text import around, random_graph

from sgrl.vocabulary import get_vocabulary

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 640, 427  # of most of COCO's images
PUBLISHED_TEXT = 2200  # samples a second
PUBLISHED_KB = 16.2  # memory per sample
PUBLISHED_LINE = 4600  # bytes of a row of JSON lines
PUBLISHED_IMAGE = 4.4  # ms
_GRAPHS = 2000  # different ones; drawing a million takes longer than converting them
_PICTURES = 64


class Cost(NamedTuple):
    """Of one command: CPU seconds, wall seconds, peak memory of its main process in MB."""

    cpu: float
    wall: float
    peak: float


def write_psg(root: Path, records: int, pictures: bool) -> None:
    """A PSG root with `records` images, every tenth for testing; written as a stream."""
    rng, vocabulary = random.Random(0), get_vocabulary("psg")
    things = vocabulary.objects[:80]
    graphs = [_annotation(rng, vocabulary, around(rng, 9.3), around(rng, 5.2)) for _ in range(_GRAPHS)]
    for folder in ("psg", "coco/train2017"):
        (root / folder).mkdir(parents=True)
    if pictures:
        painted = [root / f"coco/train2017/picture-{i}.jpg" for i in range(_PICTURES)]
        for i, path in enumerate(painted):
            paint(i).save(path, quality=92)
    with (root / "psg" / "psg.json").open("w") as file:
        file.write('{"data": [')
        for i in range(records):
            name = f"picture-{i % _PICTURES}" if pictures else f"{i:012d}"
            head = {"file_name": f"train2017/{name}.jpg", "height": HEIGHT, "width": WIDTH, "image_id": str(i)}
            file.write((",\n" if i else "\n") + json.dumps(head)[:-1] + ", " + graphs[i % _GRAPHS])
        lists = {
            "thing_classes": things,
            "stuff_classes": vocabulary.objects[80:],
            "predicate_classes": vocabulary.predicates,
            "test_image_ids": [str(i) for i in range(0, records, 10)],
        }
        file.write("\n], " + json.dumps(lists)[1:] + "\n")


def _annotation(rng: random.Random, vocabulary, objects: int, relations: int) -> str:
    """The rest of a record, as JSON without its opening bracket."""
    graph = random_graph(rng, vocabulary, objects, relations).resized(WIDTH, HEIGHT)
    categories = [vocabulary.objects.index(o.label) for o in graph.objects]
    segments = [
        {"id": rng.randrange(1 << 24), "category_id": c, "iscrowd": 0, "isthing": int(c < 80), "area": 1000}
        for c in categories
    ]
    boxes = [
        {"bbox": [int(x) for x in o.box], "bbox_mode": 0, "category_id": c}
        for o, c in zip(graph.objects, categories, strict=True)
    ]
    triplets = [[r.subject, r.object, vocabulary.predicates.index(r.predicate)] for r in graph.relations]
    record = {"segments_info": segments, "relations": triplets, "annotations": boxes}
    return json.dumps({"pan_seg_file_name": "panoptic_train2017/0.png", **record})[1:]


def paint(number: int) -> Image.Image:
    """A picture that takes about as many bytes as a photograph: smooth patches, edges, a little noise."""
    rng = np.random.default_rng(number)
    rough = Image.fromarray(rng.integers(0, 256, (27, 40, 3), np.uint8)).resize((WIDTH, HEIGHT), Image.BICUBIC)
    pixels = np.asarray(rough).astype(np.int16)
    for _ in range(30):
        x, y = rng.integers(0, WIDTH - 60), rng.integers(0, HEIGHT - 60)
        pixels[y : y + rng.integers(10, 60), x : x + rng.integers(10, 60)] = rng.integers(0, 256, 3)
    pixels += rng.normal(0, 5, pixels.shape).astype(np.int16)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def convert(root: Path, output: Path, *options: str, dataset: str = "psg") -> Cost:
    """Run the command and measure it."""
    command = [sys.executable, "data_prep/to_toon.py", "--layout", dataset, "--root", root, "--output", output]
    command += options
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)  # of this process and of those that it waited for
        if status:
            log.seek(0)
            raise SystemExit(log.read())
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss / 1024)


def measure_text(folder: Path, samples: list[int]) -> None:
    """Annotations alone, data sets of several sizes."""
    for number in samples:
        root, output = folder / "psg", folder / "rows"
        write_psg(root, number, False)
        cost = convert(root, output, "--no-images")
        rate = number / cost.cpu
        line(
            f"annotations alone, {number:,} samples",
            f"{PUBLISHED_TEXT:,} samples/s",
            f"{rate:,.0f} samples/s ({cost.cpu:.1f} s)",
            f"{rate / PUBLISHED_TEXT:.1f} x",
        )
        peak = f"{PUBLISHED_KB * number / 1000:,.0f} MB"
        line("its peak memory", peak, f"{cost.peak:.0f} MB", f"{PUBLISHED_KB * number / 1000 / cost.peak:.0f} x")
        for path in (root, output):
            shutil.rmtree(path)


def measure_images(folder: Path, images: int, workers: bool) -> None:
    """Pictures scaled to 640 x 480; by two workers if there are two cores for them."""
    root, output = folder / "psg", folder / "rows"
    write_psg(root, images, True)
    alone = convert(root, output)
    shutil.rmtree(output)
    each = 1000 * alone.cpu / images
    line(
        f"{images:,} images scaled to 640 x 480",
        f"{PUBLISHED_IMAGE} ms CPU each",
        f"{each:.2f} ms CPU each, {alone.peak:.0f} MB",
        f"{PUBLISHED_IMAGE / each:.1f} x",
    )
    if workers:
        two = convert(root, output, "--workers", "2")
        shutil.rmtree(output)
        seconds = f"{two.wall:.1f} s instead of {alone.wall:.1f} s"
        line("the same with two workers", "", seconds, f"{alone.wall / two.wall:.2f} x")
    kept = convert(root, output, "--resize", "keep")
    line("the same with --resize keep", "", f"{1000 * kept.cpu / images:.2f} ms CPU each", "")
    shutil.rmtree(root)
    shutil.rmtree(output)


def measure_sizes(folder: Path, frames: int) -> None:
    """Bytes of a row without its image, where prompts are the same and where each has its own graph of before."""
    videos, length = max(frames // 50, 1), 50
    command = ["data_prep/toyworld.py", "--layout", "pvsg", "--output", folder / "pvsg", "--train", str(videos)]
    command += ["--test", "0", "--frames", str(length)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    path, official = folder / "pvsg" / "pvsg.json", get_vocabulary("pvsg")  # prompts list all classes
    content = json.loads(path.read_text())
    for names, more in ((content["objects"]["thing"], official.objects), (content["relations"], official.predicates)):
        names += [name for name in more if name not in names]
    path.write_text(json.dumps(content))
    for previous in ("none", "gt"):
        output = folder / previous
        convert(folder / "pvsg", output, "--no-images", "--context", previous, dataset="pvsg")
        files = [parquet.ParquetFile(path) for path in output.glob("*.parquet")]
        rows = sum(file.metadata.num_rows for file in files)
        size = sum(path.stat().st_size for path in output.glob("*.parquet")) / rows
        texts = sum(
            len(prompt[0]["content"])
            for file in files
            for batch in file.iter_batches(columns=["prompt"])
            for prompt in batch.column(0).to_pylist()
        )
        line(
            f"a row of {rows:,} on disk, --context {previous}, prompts of {texts / rows:,.0f} characters",
            f"{PUBLISHED_LINE:,} bytes",
            f"{size:,.0f} bytes",
            f"{PUBLISHED_LINE / size:.0f} x",
        )


def line(what: str, published: str, found: str, better: str) -> None:
    print(f"| {what} | {published} | {found} | {better} |", flush=True)


def main() -> None:
    """The command line; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--samples", type=int, nargs="*", default=[100_000, 1_000_000], help="(default: 100,000 and 1,000,000)")
    add("--images", type=int, default=4000, help="0 for none (default: %(default)s)")
    add("--workers", action="store_true", help="also with two workers; both cores should be idle")
    add("--frames", type=int, default=5000, help="of videos, 0 for none (default: %(default)s)")
    args = parser.parse_args()
    cpu = next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), "")
    print(f"{datetime.date.today()}, {cpu or platform.processor()}, Python {platform.python_version()}\n")
    print("| what | published | sgrl | better |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        if args.frames:
            measure_sizes(Path(folder), args.frames)
        if args.images:
            measure_images(Path(folder), args.images, args.workers)
        measure_text(Path(folder), args.samples)


if __name__ == "__main__":
    main()
