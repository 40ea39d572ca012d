"""What do a language model's priors add to a detector of scene graphs in video? PredCLS on the toy world.

    OMP_NUM_THREADS=1 python benchmarks/vost.py --work-dir build/vost-claims
    OMP_NUM_THREADS=1 python benchmarks/vost.py --work-dir build/vost-claims --arms none full --seeds 0

The world is Action Genome's layout with rich labels (data_prep/toyworld.py): 300 videos to train on, 120 to test on.
The language model is simulated: a *witness* says each true label with probability 0.7, else a random one of its group,
the same in training and test; another seed is another witness, too. Models are those of
recipes/configs/toy/vost_ag.yaml, through the recipe's own parts: 900 steps of 16 frames unless ARMS
say otherwise; a temporal stage has as many on top of its spatial one's.

Figures are recalls with the constraint unless said otherwise; mean recall is over the predicates that the test has.
The witness alone has no scores: what it did not say ranks behind what it said, by frequency in training.

Chosen before looking, all in points of R@10 with the constraint, means over the seeds, and the 95 % interval of the
difference (paired bootstrap over test videos, the seeds' counts summed) must leave out zero: priors in queries (DSQI)
at least 10 above no priors; with the bank (MMFB) above without; at least 5 above the witness alone; at least 3 above a
bank of geometry and class texts without a witness; random priors in queries within 2 of none, whatever the interval.
The temporal stage: at least 10 points of recall of `carrying` and `holding` together, which only time tells apart.
Other comparisons of CLAIMS have no bar. A claim is refuted here where the interval stays below its bar or zero.

Finished runs are lines of WORK_DIR/results.jsonl and are skipped when it is started again. A run takes a core a minute
or two. Prints Markdown and writes it to WORK_DIR/vost.md.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from data_prep import to_toon, toyworld
from rewards.metrics.action_genome import ActionGenomeRecall
from rewards.metrics.bootstrap import interval, resampled_sums
from rewards.metrics.ranking import PairScores
from sgrl import data
from sgrl.files import atomic_path, fingerprint, folder_lock
from sgrl.models.detection.images import image_processor
from sgrl.models.vost.data import Clips, Frames, collate
from sgrl.models.vost.inputs import Labels
from sgrl.models.vost.postprocess import detections
from sgrl.models.vost.priors import AskedModel, FramePriors, PriorPair, Priors, PriorsInfo, write_priors, write_text
from sgrl.models.vost.trainer import VostArguments, VostTrainer
from sgrl.text import get_codec
from sgrl.training.launch import parse
from sgrl.training.vost import DetectorArguments, load_detector, load_evaluation, load_frames, save_detector

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "recipes/configs/toy/vost_ag.yaml"
TEXT_SIZE = 32
KS = (10, 20)
MOVED = ("carrying", "holding")
"""Only time tells them apart."""

WITNESSES = {"noisy": (0.7, 0.7), "clean": (1.0, 0.7), "random": (0.0, 0.0)}
"""With which probability a label is kept in training and test."""


@dataclass(frozen=True)
class Arm:
    """What is compared: content of queries, bank, witness; the arm whose model a temporal stage starts from; how many
    times the steps. Without `content` nothing is trained: the witness is taken at its word."""

    title: str
    content: str | None
    bank: str = "none"
    witness: str = "noisy"
    start: str | None = None
    longer: int = 1


ARMS = {
    "none": Arm("no priors", "none"),
    "dsqi": Arm("DSQI", "priors"),
    "full": Arm("DSQI + MMFB", "priors", "text"),
    "bank": Arm("bank of geometry and class texts, no witness", "none", "geometry"),
    "alone": Arm("the witness alone", None),
    "random": Arm("DSQI, random priors", "priors", "none", "random"),
    "none-time": Arm("no priors, temporal stage", "none", start="none"),
    "full-time": Arm("DSQI + MMFB, temporal stage", "priors", "text", start="full"),
    "full-clean": Arm("DSQI + MMFB, true priors in training", "priors", "text", "clean"),
    "dsqi-clean": Arm("DSQI, true priors in training", "priors", "none", "clean"),
    "full-random": Arm("DSQI + MMFB, random priors", "priors", "text", "random"),
    "none-long": Arm("no priors, three times the steps", "none", longer=3),
    "full-long": Arm("DSQI + MMFB, three times the steps", "priors", "text", longer=3),
}

RECALL, TIME = "with@10", "moved"
CLAIMS = (
    ("dsqi", "none", RECALL, 10.0),
    ("full", "dsqi", RECALL, 0.0),  # above
    ("full", "alone", RECALL, 5.0),
    ("full", "bank", RECALL, 3.0),
    ("random", "none", RECALL, -2.0),  # within
    ("none-time", "none", TIME, 10.0),
    ("full-time", "full", TIME, 10.0),
    ("full-time", "full", RECALL, None),
    ("bank", "none", RECALL, None),
    ("dsqi", "alone", RECALL, None),
    ("full", "full-clean", RECALL, None),
    ("dsqi", "dsqi-clean", RECALL, None),
    ("full-random", "bank", RECALL, None),
    ("none-long", "none", RECALL, None),
    ("full-long", "none-long", RECALL, None),
    ("dsqi", "none-long", RECALL, None),
)
"""(better, worse, figure, bar in points: at least; negative: at most so far apart; None: no bar)."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--work-dir", type=Path, default=ROOT / "build/vost-claims", help="world, priors, results and tables")
    add("--arms", nargs="+", default=list(ARMS), choices=ARMS, help="in this order for each seed (default: all)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--steps", type=int, default=900, help="of 16 frames (default: %(default)s)")
    add("--train", type=int, default=300, help="videos (default: %(default)s)")
    add("--test", type=int, default=120, help="videos (default: %(default)s)")
    add("--frames", type=int, default=16, help="of a video (default: %(default)s)")
    return made


class World:
    """The data set, and what witnesses say of it."""

    def __init__(self, args: argparse.Namespace):
        self.folder = args.work_dir
        self.data = self.folder / "data"
        if not (self.data / "README.md").exists():
            drawn = ("--train", str(args.train), "--test", str(args.test), "--frames", str(args.frames))
            layout = ("--layout", "action_genome")
            world = str(self.folder / "world")
            if toyworld.main([*layout, "--labels", "rich", "--output", world, *drawn]):
                raise SystemExit(1)
            if to_toon.main([*layout, "--root", world, "--output", str(self.data), "--resize", "keep"]):
                raise SystemExit(1)
        self.vocabulary = data.vocabulary_of(data.read_metadata(self.data))
        self.labels = Labels(self.vocabulary)
        self.rows = {split: data.load(self.data, split) for split in ("train", "test")}
        self.prints = {split: fingerprint(data.files(self.data, split)) for split in self.rows}

    def pairs(self, split: str) -> Iterator[tuple[Mapping[str, Any], dict[tuple[int, int], list[str]], Any]]:
        """Rows without pictures, with the labels of each pair and the graph."""
        codec = get_codec("toon-pairs")
        for row in self.rows[split].remove_columns("image"):
            graph = codec.parse(row["solution"], row["width"], row["height"], tags=False)
            held: dict[tuple[int, int], list[str]] = {}
            for s, predicate, o in graph.relations:
                held.setdefault((s, o), []).append(self.labels.official(predicate.partition("__")[2]))
            yield row, held, graph

    def priors(self, kind: str, seed: int) -> Path:
        """The folder of a witness, written unless it is there."""
        folder = self.folder / "priors" / f"{kind}-{seed}"
        if (folder / "priors.json").exists():
            return folder
        table = np.random.default_rng(seed)
        vocabulary = self.vocabulary
        sizes = [(len(labels), TEXT_SIZE) for labels in (vocabulary.objects, vocabulary.predicates)]
        write_text(folder, *(table.normal(size=size) for size in sizes))
        info = PriorsInfo(self.rows["train"][0]["dataset"], self.prints, vocabulary, (AskedModel("witness"),))
        write_priors(folder, info, self._witness(kind, seed))
        return folder

    def _witness(self, kind: str, seed: int) -> Iterator[FramePriors]:
        rng = random.Random(f"{kind}:{seed}")
        for split, keep in zip(("train", "test"), WITNESSES[kind], strict=True):
            for row, held, graph in self.pairs(split):
                size = np.array([row["width"], row["height"]] * 2)
                boxes = [tuple((np.asarray(box) / size).tolist()) for box in graph.boxes]
                pairs = []
                for (s, o), true in held.items():
                    told = [self._heard(label, keep, rng) for label in true]
                    label = self.labels.official(graph.labels[o])
                    pairs.append(PriorPair("person", boxes[s], label, boxes[o], tuple(dict.fromkeys(told))))
                yield FramePriors(row["image_id"], tuple(pairs), row["video_id"], row["frame"])

    def _heard(self, label: str, keep: float, rng: random.Random) -> str:
        group = self.labels.groups[self.labels.places[label][0]]
        return label if rng.random() < keep else rng.choice(group)

    @cached_property
    def frequency(self) -> np.ndarray:
        """Of each predicate among the relations of the training split, below 1."""
        counts = Counter(label for _, held, _ in self.pairs("train") for labels in held.values() for label in labels)
        found = np.array([counts[label] for label in self.vocabulary.predicates], float)
        return found / (found.sum() + 1)


def run(world: World, name: str, seed: int, steps: int) -> dict[str, Any]:
    """Train an arm and count what it says of the test split."""
    arm, started = ARMS[name], time.process_time()
    priors = Priors(world.priors(arm.witness, seed))
    if arm.content is None:
        return {"counts": counts(world, heard(world, priors)), "cpu_seconds": time.process_time() - started}
    output = world.folder / "models" / f"{name}-{seed}-{steps}"
    options = {"dataset": world.data, "priors": priors.folder, "content": arm.content, "bank": arm.bank}
    options |= {"output_dir": output, "max_steps": steps * arm.longer, "seed": seed, "use_cpu": "true"}
    options |= {"save_strategy": "no", "disable_tqdm": "true", "logging_strategy": "steps"}
    options |= {"warmup_steps": min(40, max(1, steps // 4)), "logging_steps": min(50, steps)}
    if arm.start:
        options |= {"stage": "temporal", "model_name_or_path": output.with_name(f"{arm.start}-{seed}-{steps}")}
    given = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    args, training = parse((DetectorArguments, VostArguments), ["--config", str(CONFIG), *given])
    torch.manual_seed(seed)
    model = load_detector(args, priors)
    processor = image_processor(args.short_side, args.long_side)
    train = load_frames(args, model, processor, priors, seed)
    test = load_evaluation(args, model, processor, priors)
    trainer = VostTrainer(model, training, train)
    trainer.train()
    if any(other.start == name for other in ARMS.values()):
        save_detector(trainer, processor, args)
    trained = time.process_time() - started
    found = counts(world, answers(world, model, test))
    losses = [round(log["loss"], 3) for log in trainer.state.log_history if "loss" in log]
    terms = [log for log in trainer.state.log_history if "loss" in log][-1]
    last = {key: round(value, 4) for key, value in terms.items() if key.startswith("loss/")}
    seconds = {"train_cpu_seconds": round(trained, 1), "cpu_seconds": round(time.process_time() - started, 1)}
    return {"counts": found, "losses": losses, "last": last} | seconds


@torch.no_grad()
def answers(world: World, model, frames: Frames | Clips) -> Iterator[PairScores]:
    """What a model says of each row of the test split."""
    model.eval()
    rows = world.rows["test"]
    sizes = list(zip(rows["width"], rows["height"], strict=True))
    place = 0
    for batch in DataLoader(frames, batch_size=64, collate_fn=collate):
        targets = batch.pop("targets")
        outputs = {key: value for key, value in model(**batch).items() if torch.is_tensor(value)}
        for found in detections(outputs, sizes[place : place + len(targets)], world.vocabulary):
            yield PairScores(*found)
        place += len(targets)


def heard(world: World, priors: Priors) -> Iterator[PairScores]:
    """What a witness says of each row of the test split."""
    for row in world.rows["test"].remove_columns("image"):
        told = priors.get(row["image_id"])
        pairs = told.pairs if told else ()
        size = np.array([row["width"], row["height"]] * 2)
        boxes = [np.array(box) * size for pair in pairs for box in (pair.subject_box, pair.box)]
        said = np.array([[label in pair.predicates for label in world.vocabulary.predicates] for pair in pairs], float)
        labels = [label for pair in pairs for label in (pair.subject, pair.label)]
        ends = np.arange(2 * len(pairs)).reshape(-1, 2)
        scores = (said.reshape(len(pairs), -1) + world.frequency) / 2
        yield PairScores(labels, np.array(boxes).reshape(-1, 4), np.ones(len(labels)), ends, scores)


def counts(world: World, predictions: Iterable[PairScores]) -> dict[str, dict[str, float]]:
    """Sums of each test video: frames and their recalls; of each predicate its relations and those found."""
    metrics: dict[str, dict[str, ActionGenomeRecall]] = {}
    for row, found in zip(world.rows["test"].remove_columns("image"), predictions, strict=True):
        for constraint in ("with", "no"):
            here = metrics.setdefault(row["video_id"], {})
            if constraint not in here:
                here[constraint] = ActionGenomeRecall(constraint=constraint, vocabulary=world.vocabulary, ks=KS)
            here[constraint].add(found, row["solution"], row["width"], row["height"])
    return {video: _sums(here) for video, here in metrics.items()}


def _sums(metrics: Mapping[str, ActionGenomeRecall]) -> dict[str, float]:
    found: dict[str, float] = {}
    for constraint, metric in metrics.items():
        all_of = metric.compute()
        found["frames"] = all_of["images"] - all_of["images_without_relations"]
        found |= {f"{constraint}@{k}": all_of[f"recall@{k}"] * found["frames"] for k in KS}
        for label, values in metric.per_predicate().items():
            if values["relations"]:
                found[f"of {label}"] = values["relations"]
                found[f"{constraint} {label}"] = values["found@10"]
    return found


class Results:
    """results.jsonl: a line for each run."""

    def __init__(self, folder: Path, setting: dict[str, int]):
        self.path, self.setting = folder / "results.jsonl", setting
        self.found: dict[tuple[str, int], dict[str, Any]] = {}
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a line that was being written is written again
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            read = json.loads(line)
            if read["setting"] == setting:
                self.found[read["arm"], read["seed"]] = read

    def add(self, arm: str, seed: int, result: dict[str, Any]) -> None:
        line = {"arm": arm, "seed": seed, "setting": self.setting, "made_by": asdict(ARMS[arm]), **result}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.found[arm, seed] = line

    def seeds(self, *arms: str) -> list[int]:
        """Those that all of these arms have."""
        sets = [{seed for name, seed in self.found if name == arm} for arm in arms]
        return sorted(set.intersection(*sets))

    def sums(self, arm: str, seeds: Iterable[int], figure: str) -> np.ndarray:
        """(videos, 2): numerator and denominator of a figure, summed over seeds."""
        found = [self.found[arm, seed]["counts"] for seed in seeds]
        return sum(np.array([_parts(one[video], figure) for video in sorted(one)]) for one in found)

    def figure(self, arm: str, seed: int, figure: str) -> float:
        """In points."""
        if figure == "mean":
            labels = {key[3:] for video in self._videos(arm, seed) for key in video if key.startswith("of ")}
            return float(np.mean([self.figure(arm, seed, label) for label in labels]))
        found, whole = self.sums(arm, [seed], figure).sum(0)
        return 100 * found / whole if whole else 0.0

    def _videos(self, arm: str, seed: int):
        return self.found[arm, seed]["counts"].values()

    def difference(self, ours: str, theirs: str, figure: str) -> tuple[float, float, float, list[float]]:
        """Points, 95 % interval, and the points of each seed."""
        seeds = self.seeds(ours, theirs)
        columns = np.hstack([self.sums(arm, seeds, figure) for arm in (ours, theirs)])
        each = [self.figure(ours, seed, figure) - self.figure(theirs, seed, figure) for seed in seeds]
        drawn = _difference(resampled_sums(columns))
        return float(_difference(columns.sum(0))), *interval(drawn), each


def _parts(video: Mapping[str, float], figure: str) -> tuple[float, float]:
    if "@" in figure:
        return video[figure], video["frames"]
    labels = MOVED if figure == TIME else (figure,)
    return tuple(sum(video.get(f"{kind} {label}", 0.0) for label in labels) for kind in ("with", "of"))


def _difference(sums: np.ndarray) -> np.ndarray:
    a, b, c, d = np.moveaxis(sums, -1, 0)
    return 100 * (a / np.maximum(b, 1) - c / np.maximum(d, 1))


def verdict(bar: float | None, low: float, high: float, value: float) -> str:
    """confirmed: the bar is reached and the interval leaves out zero; within: for bars that are a distance."""
    if bar is None:
        return "above" if low > 0 else "below" if high < 0 else "can't be told"
    if bar < 0:
        return "confirmed" if abs(value) <= -bar else "refuted here"
    if value >= bar and low > 0:
        return "confirmed"
    return "refuted here" if high < bar or high <= 0 else "not shown"


def report(results: Results) -> str:
    columns = {RECALL: "R@10 with", "mean": "mR@10 with", "no@10": "R@10 no", "no@20": "R@20 no"}
    columns |= {label: label for label in MOVED}
    lines = ["| arm | seeds | " + " | ".join(columns.values()) + " | CPU s |", "|---" * (len(columns) + 3) + "|"]
    for name, arm in ARMS.items():
        if seeds := results.seeds(name):
            cells = [_spread([results.figure(name, seed, figure) for seed in seeds]) for figure in columns]
            seconds = np.mean([results.found[name, seed]["cpu_seconds"] for seed in seeds])
            lines.append(f"| {arm.title} | {len(seeds)} | " + " | ".join(cells) + f" | {seconds:.0f} |")
    lines += ["", "| comparison | figure | bar | seeds | points [95 %] | each seed | verdict |", "|---" * 7 + "|"]
    for ours, theirs, figure, bar in CLAIMS:
        if results.seeds(ours, theirs):
            value, low, high, each = results.difference(ours, theirs, figure)
            wanted = (
                "" if bar is None else f"within {-bar:g}" if bar < 0 else f"at least {bar:g}" if bar else "above 0"
            )
            shown = "R@10 with" if figure == RECALL else "carrying, holding"
            lines.append(
                f"| {ARMS[ours].title} - {ARMS[theirs].title} | {shown} | {wanted} | {len(each)} | "
                f"{value:+.1f} [{low:+.1f}, {high:+.1f}] | {', '.join(f'{one:+.1f}' for one in each)} | "
                f"{verdict(bar, low, high, value)} |"
            )
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    mean = f"{np.mean(values):.1f}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def main(arguments: list[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    torch.set_num_threads(1)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    with folder_lock(args.work_dir):
        world = World(args)
        setting = {name: getattr(args, name) for name in ("steps", "train", "test", "frames")}
        results = Results(args.work_dir, setting)
        for seed in args.seeds:
            for name in args.arms:
                if (name, seed) in results.found:
                    continue
                started = time.perf_counter()
                results.add(name, seed, run(world, name, seed, args.steps))
                found = results.figure(name, seed, RECALL)
                print(f"{name}, seed {seed}: {found:.1f} in {time.perf_counter() - started:.0f} s", flush=True)
        text = report(results)
        with atomic_path(args.work_dir / "vost.md") as path:
            path.write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
