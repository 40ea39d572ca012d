"""How long does thinning take, and does it choose what the published code chooses?

    python benchmarks/thinning.py [--golden FOLDER]

Prints a Markdown table: CPU time of one thread, the best of several runs, beside the published code's on the same kind
of machine (2 cores, "AMD EPYC"). FOLDER holds thinning_videos.py, which draws the videos that the published figures
were measured on, and thinning.json, the key frames; without it another video is drawn and nothing is compared.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy

import argparse
import datetime
import importlib.util
import json
import multiprocessing
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from data_prep.readers.record import Record
from data_prep.thin import base_annot, maxinfo, psfr, thin
from data_prep.thin.thinning import union
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.vocabulary import get_vocabulary

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
PVSG = get_vocabulary("pvsg")
ROWS = 116_700  # of the published BaseAnnot's figure

# CPU time of the published code: ms a frame by video; seconds
PSFR_PUBLISHED = {"slow_s1_n300": 44.0, "static_s3_n300": 42.4, "fast_s4_n300": 44.5, "cuts_s2_n600": 42.3}
MAXINFO_PUBLISHED = {2000: 0.2672 + 0.0129, 20000: 2.544 + 6.723}
BASE_ANNOT_PUBLISHED = 2.1


def best(function: Callable, repeats: int) -> tuple[float, object]:
    """CPU seconds of the fastest run, and what it returned."""
    least = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        least = min(least, time.process_time() - start)
    return least, result


def line(name: str, ours: str, published: str = "", ratio: float | None = None, note: str = "") -> None:
    print(f"| {name} | {published} | {ours} | {f'{ratio:.1f} x' if ratio else ''} | {note} |", flush=True)


# --- PSFR ---


def drifting(kind: str, n: int, seed: int) -> Iterator[np.ndarray]:
    """Stands in for the golden videos: a window that moves over coloured rectangles, with noise."""
    rng = np.random.default_rng(seed)
    world = np.full((960, 1280, 3), 90, np.uint8)
    for _ in range(300):
        x, y, w, h = rng.integers(0, (1200, 900, 160, 120))
        world[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    speed = {"slow": 1, "fast": 9}.get(kind, 0)
    for i in range(n):
        x = (speed * i) % 640
        noise = rng.integers(-3, 4, (480, 640, 3))
        yield np.clip(world[240:720, x : x + 640] + noise, 0, 255).astype(np.uint8)


def measure_psfr(golden: Path | None, repeats: int) -> None:
    cv2.setNumThreads(1)
    draw, known = drifting, []
    if golden:
        spec = importlib.util.spec_from_file_location("videos", golden / "thinning_videos.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        draw, known = module.frames, json.loads((golden / "thinning.json").read_text())["psfr"]
    for name, published in PSFR_PUBLISHED.items():
        kind, seed, n = name[:-1].split("_")[0], int(name.split("_")[1][1:]), int(name.split("_")[2][1:])
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{i:06d}.jpg" for i in range(n)]
            for path, frame in zip(paths, draw(kind, n, seed), strict=True):
                cv2.imwrite(str(path), frame, [cv2.IMWRITE_JPEG_QUALITY, 92])

            def select(retention, patches, protocol, paths=paths):
                return psfr.keyframes(map(psfr.read, paths), retention, patches, protocol)

            for protocol in ("published", "default"):
                seconds, found = best(lambda p=protocol, s=select: s(0.3, 5, p), repeats)
                note = f"{len(found)} key frames"
                runs = [run for run in known if run["video"] == name]
                if protocol == "published" and runs:
                    settings = [(run["params"]["retention_tau"], run["params"]["min_patches_k"]) for run in runs]
                    same = [select(*s, "published") == run["keyframes"] for s, run in zip(settings, runs, strict=True)]
                    note += f", identical to the published ones in {sum(same)} of {len(same)} runs"
                line(
                    f"PSFR, {name}, {protocol}",
                    f"{1000 * seconds / n:.1f} ms/frame",
                    f"{published:.1f} ms/frame" if golden else "",
                    published / (1000 * seconds / n) if golden else None,
                    note,
                )


# --- MaxInfo ---


def features(n: int, d: int = 768) -> np.ndarray:
    """Of a made-up video: 40 directions, a common mean, noise."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, 40)) @ rng.standard_normal((40, d)) + 0.1 * rng.standard_normal((n, d)) + 3
    return rows.astype(np.float32)


def measure_maxinfo(repeats: int) -> None:
    for n, published in MAXINFO_PUBLISHED.items():
        rows = features(n)
        seconds, kept = best(lambda rows=rows: maxinfo.select(rows, 0.1), repeats)
        line(
            f"MaxInfo after embedding, n={n:,}, d=768, tolerance 0.1",
            f"{1000 * seconds:.0f} ms",
            f"{1000 * published:.0f} ms",
            published / seconds,
            f"{len(kept)} frames kept",
        )


# --- BaseAnnot ---


def graphs(rng: random.Random, n: int) -> Iterator[SceneGraph]:
    """A video's: about 7.5 objects and 4.5 relations, with a change every fourth frame."""
    labels = [rng.choice(PVSG.objects) for _ in range(rng.randint(3, 12))]
    graph = None
    for _ in range(n):
        if graph is None or rng.random() < 0.25:
            labels[rng.randrange(len(labels))] = rng.choice(PVSG.objects)
            pairs = [rng.sample(range(len(labels)), 2) for _ in range(rng.randint(2, 7))]
            edges = dict.fromkeys((subject, rng.choice(PVSG.predicates), target) for subject, target in pairs)
            objects = [
                Object(
                    label, (rng.randrange(300), rng.randrange(200), rng.randrange(310, 640), rng.randrange(210, 480))
                )
                for label in labels
            ]
            graph = SceneGraph(objects, [Relation(*edge) for edge in edges], 640, 480)
        yield graph


def records(frames: int) -> Iterator[Record]:
    rng = random.Random(0)
    for video in range(-(-frames // 300)):
        split = "train" if video % 5 else "test"
        for i, graph in enumerate(graphs(rng, min(300, frames - 300 * video))):
            yield Record(f"v{video}_{i}", Path("frame.png"), graph, split, "", f"v{video}", i)


class Reader:
    name, vocabulary = "benchmark", PVSG

    def __init__(self, found):
        self.found = found

    def records(self, on_damage=None):
        return self.found if isinstance(self.found, list) else records(self.found)


def text_of(record: Record) -> str:
    """A prepared row as the published script reads it."""
    graph = record.graph
    lines = [f"      obj[{len(graph.objects)}]{{id,name,x1,y1,x2,y2}}:"]
    lines += [f"        {i},{o.label},{','.join(f'{c:.0f}' for c in o.box)}" for i, o in enumerate(graph.objects, 1)]
    lines.append(f"      rel[{len(graph.relations)}]{{subj,pred,obj}}:")
    lines += [f"        {r.subject + 1},{r.predicate.replace(' ', '-')},{r.object + 1}" for r in graph.relations]
    body = "\n".join(lines)
    row = {"image_id": record.image_id, "image": str(record.image), "solution": f"<answer>\n{body}\n</answer>"}
    return json.dumps(row) + "\n"


def column(table: str) -> frozenset[str]:
    """The second cells of the rows between the first line and the last."""
    return frozenset([line.split(",", 2)[1] for line in table.split("\n")[1:-1]])


def from_text(files: dict[str, Path]) -> dict[str, list[str]]:
    """What the published script does, from prepared rows to the image_ids kept; each row is read once."""
    bits: dict[str, int] = {}
    kept: dict[str, list[tuple[str, int]]] = {}
    for split, file in files.items():
        kept[split] = []
        video = last = None
        with file.open() as rows:
            for row in map(json.loads, rows):
                objects, _, relations = row["solution"].removeprefix("<answer>\n").partition("rel[")
                names, number = column(objects), relations[: relations.index("]")]
                if (current := row["image_id"].rpartition("_")[0]) == video and last == (names, number):
                    continue
                video, last = current, (names, number)
                labels = [*names, *(f"rel {predicate}" for predicate in column(relations))]
                kept[split].append(
                    (row["image_id"], union(bits.setdefault(label, 1 << len(bits)) for label in labels))
                )
    allowed = base_annot.overlap({split: [labels for _, labels in found] for split, found in kept.items()})
    return {split: [name for name, labels in found if labels in allowed[split]] for split, found in kept.items()}


def _peak(frames: int, queue) -> None:
    thin(Reader(frames), "base-annot")
    queue.put(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024)


def peak_memory(frames: int) -> float:
    """MiB of a process of its own that draws and thins so many frames (Linux)."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(frames, queue))
    process.start()
    peak = queue.get()
    process.join()
    return peak


def measure_base_annot(repeats: int) -> None:
    found = list(records(ROWS))
    with tempfile.TemporaryDirectory() as folder:
        files = {split: Path(folder) / f"{split}.jsonl" for split in ("train", "test")}
        for split, file in files.items():
            file.write_text("".join(text_of(record) for record in found if record.split == split))
        seconds, kept = best(lambda: from_text(files), repeats)
    line(
        f"BaseAnnot, {ROWS:,} rows of text",
        f"{seconds:.2f} s",
        f"{BASE_ANNOT_PUBLISHED} s",
        BASE_ANNOT_PUBLISHED / seconds,
        f"{sum(map(len, kept.values())):,} rows kept",
    )
    for protocol in ("published", "default"):
        seconds, outcome = best(lambda p=protocol: thin(Reader(found), "base-annot", protocol=p), repeats)
        if protocol == "published":
            assert {split: set(names) for split, names in kept.items()} == outcome.kept
        number = sum(row.kept for row in outcome.rows)
        line(f"BaseAnnot, {ROWS:,} records, {protocol}", f"{seconds:.2f} s", "", None, f"{number:,} records kept")
    for frames in (100_000, 400_000):
        line(f"BaseAnnot, peak memory with {frames:,} frames", f"{peak_memory(frames):.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--golden", type=Path, default=GOLDEN if GOLDEN.is_dir() else None, metavar="FOLDER")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the fastest counts")
    args = parser.parse_args()
    cpu = next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), "")
    print(f"{datetime.date.today()}, {cpu or platform.processor()}, Python {platform.python_version()}, ", end="")
    print(f"OpenCV {cv2.__version__}, numpy {np.__version__}\n")
    print("| what | published | sgrl | faster | |\n| --- | --- | --- | --- | --- |")
    measure_psfr(args.golden, args.repeats)
    measure_maxinfo(args.repeats)
    measure_base_annot(args.repeats)


if __name__ == "__main__":
    main()
