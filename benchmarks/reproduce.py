"""Do the papers' claims hold in the toy world? Every claim: several seeds, one table, one plot, one honest sentence.

    python benchmarks/reproduce.py --work-dir build/reproduce
    python benchmarks/reproduce.py --claims rl precision --seeds 0 1 2

Each claim of CLAIMS compares models that differ in one thing and are evaluated on the same held-out images. What
several claims need is trained once. Finished steps are skipped when it is started again; what each printed is in
WORK_DIR/**/*.log. All of it with three seeds takes a CPU core about five hours.

Prints Markdown and writes it to WORK_DIR/reproduce.md, with a plot per claim in WORK_DIR/plots (SVG). A claim "holds
here" when the difference has the right sign with every seed and its 95 % interval (paired bootstrap over images)
leaves out zero, "does not" when that is so for the other sign, and else "can't be told". The toy world is coloured
shapes and a tiny model: it shows mechanisms, not the papers' figures.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from toyworld import FIGURES, ROOT, bootstrap, quotient, read_evaluation, spread, step

SHOWN = ("object_f1", "relation_precision", "relation_recall", "relation_f1", "sgg_score", "relations", "mean_tokens")
PLOTTED = ("relation_precision", "relation_recall", "relation_f1", "object_f1", "sgg_score")


@dataclass(frozen=True)
class Data:
    """A data set: layout of the toy world, options of data_prep/to_toon.py, the room that its texts take, the split
    that its layout holds out, and the text layout that the model's tokenizer knows."""

    layout: str
    options: tuple[str, ...] = ()
    answer: int = 80
    total: int = 256
    held_out: str = "test"
    codec: str = "toon"


@dataclass(frozen=True)
class Model:
    """SFT from random weights (`start` None) or GRPO from another model of MODELS, on `data`."""

    data: str
    start: str | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """`runs`: name in the table -> (model, data set to evaluate on, context). `tests`: `better` should exceed `worse`
    in `figure`."""

    title: str
    runs: dict[str, tuple[str, str, str]]
    tests: tuple[tuple[str, str, str], ...]  # (better, worse, figure)


VIDEO = ("--context", "gt")
DATA = {
    "toon": Data("psg"),
    "json": Data("psg", ("--codec", "json"), 120, codec="json"),
    "lean": Data("psg", ("--codec", "toon-lean"), codec="toon-lean"),
    "video": Data("pvsg", VIDEO, 80, 384, "val"),
    "thinned": Data("pvsg", (*VIDEO, "--thin", "base-annot"), 80, 384, "val"),
}
MODELS = {
    "sft": Model("toon"),
    "base": Model("toon", "sft", ("--reward", "base")),
    "balanced": Model("toon", "sft", ("--reward", "balanced")),
    "full": Model("toon", "sft", ("--reward", "full")),
    "sft-json": Model("json"),
    "sft-lean": Model("lean"),
    "hard": Model("toon", "sft", ("--reward", "r1-sgg-hard-recall")),
    "relax": Model("toon", "sft", ("--reward", "r1-sgg-hard-recall-relax")),
    "soft": Model("toon", "sft", ("--reward", "r1-sgg-soft-recall")),
    "sft-video": Model("video", None, ("--context", "gt")),
    "rl-gt": Model("video", "sft-video", ("--context", "gt")),
    "rl-noise": Model("video", "sft-video", ("--context", "corrupted")),
    "sft-thinned": Model("thinned", None, ("--context", "none")),
    "sft-all": Model("video", None, ("--context", "none")),
}


def image(model: str, data: str = "toon") -> tuple[str, str, str]:
    return model, data, "none"


CLAIMS = {
    "rl": Claim(
        "Reinforcement learning with the full reward adds to SFT (SceneGraphVLM)",
        {"SFT": image("sft"), "SFT + RL": image("full")},
        (("SFT + RL", "SFT", "relation_f1"), ("SFT + RL", "SFT", "sgg_score")),
    ),
    "precision": Claim(
        "Precision terms and penalties raise precision over recall alone (SceneGraphVLM, table 9)",
        {"base": image("base"), "balanced": image("balanced"), "full": image("full")},
        (("balanced", "base", "relation_precision"), ("full", "base", "relation_precision")),
    ),
    "r1": Claim(
        "Each of R1-SGG's recalls raises recall over SFT (in TOON)",
        {
            "SFT": image("sft"),
            "hard": image("hard"),
            "hard + relax": image("relax"),
            "soft": image("soft"),
        },
        tuple((name, "SFT", "relation_recall") for name in ("hard", "hard + relax", "soft")),
    ),
    "context": Claim(
        "Corrupted context in RL makes a policy that survives its own mistakes",
        {
            f"{name}, {context}": (model, "video", context)
            for name, model in (("SFT", "sft-video"), ("RL", "rl-gt"), ("RL with noise", "rl-noise"))
            for context in ("gt", "generated")
        },
        (
            ("SFT, gt", "SFT, generated", "relation_f1"),
            ("RL with noise, generated", "RL, generated", "relation_f1"),
        ),
    ),
    "thinning": Claim(
        "Thinned frames train as well as all frames, in as many steps",
        {"all frames": image("sft-all", "video"), "thinned": image("sft-thinned", "video")},
        (("thinned", "all frames", "relation_f1"),),
    ),
    "lean": Claim(
        "The lean layout is learnt as well as TOON",
        {"toon": image("sft"), "lean": image("sft-lean", "lean")},
        (("lean", "toon", "sgg_score"),),
    ),
    "json": Claim(
        "TOON is learnt at least as well as JSON",
        {"toon": image("sft"), "json": image("sft-json", "json")},
        (("toon", "json", "sgg_score"),),
    ),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", nargs="+", default=list(CLAIMS), choices=CLAIMS, help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work-dir", type=Path, default=ROOT / "build/reproduce")
    parser.add_argument("--train", type=int, default=32000, help="scenes to train on (default: %(default)s)")
    parser.add_argument("--videos", type=int, default=2000, help="videos to train on (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1000, help="held-out images (default: %(default)s)")
    parser.add_argument("--sft-options", default="", help="further options of recipes/sft_*.py, in one string")
    parser.add_argument("--grpo-options", default="", help="further options of recipes/grpo_*.py, in one string")
    parser.add_argument("--evaluate-options", default="", help="further options of recipes/evaluate.py, in one string")
    return parser.parse_args(arguments)


def needed(claims: list[str]) -> list[str]:
    """The models of some claims, each after the one that it starts from."""
    found: dict[str, None] = {}
    for claim in claims:
        for model, _, _ in CLAIMS[claim].runs.values():
            start = MODELS[model].start
            found |= {start: None, model: None} if start else {model: None}
    return list(found)


def prepare(args: argparse.Namespace, name: str) -> Path:
    """Draw and convert a data set; its folder."""
    spec, output = DATA[name], args.work_dir / "data" / name
    world = args.work_dir / f"world-{spec.layout}"
    size = [args.train, args.images + max(args.images // 10, 4)]  # PSG leaves out scenes without relations
    if spec.layout == "pvsg":
        size = [args.videos, max(1, -(-args.images // 16))]
    draw = ["data_prep/toyworld.py", "--layout", spec.layout, "--output", world, "--train", size[0], "--test", size[1]]
    step(args.work_dir, f"draw-{spec.layout}", [sys.executable, *draw])
    convert = ["data_prep/to_toon.py", "--layout", spec.layout, "--root", world, "--output", output]
    convert += ["--resize", "keep", "--prompt", "short", *spec.options]
    step(args.work_dir, f"convert-{name}", [sys.executable, *convert])
    return output


def train(args: argparse.Namespace, seed: int, name: str, launch: list[object]) -> None:
    """One model of one seed."""
    folder, model = args.work_dir / f"seed{seed}", MODELS[name]
    data = prepare(args, model.data)
    spec = DATA[model.data]
    random = "random" if spec.codec == "toon" else f"random-{spec.codec}"
    start = folder / "models" / (model.start or random)
    if model.start is None:
        build = [sys.executable, "-m", "sgrl.tiny", "--output", start, "--seed", seed]
        step(folder, random, build + ["--codec", spec.codec] * (spec.codec != "toon"))
    recipe = "grpo" if model.start else "sft"
    command = [f"recipes/{recipe}_{spec.layout}.py", "--config", f"recipes/configs/toy/{recipe}.yaml"]
    command += ["--dataset", data, "--seed", seed, "--model_name_or_path", start]
    command += ["--output_dir", folder / "models" / name]
    if recipe == "grpo":
        command += ["--max_completion_length", spec.answer, "--vllm_max_model_length", spec.total]
    more = args.grpo_options if recipe == "grpo" else args.sft_options
    step(folder, name, [*launch, *command, *model.options, *shlex.split(more)])


def evaluate(args: argparse.Namespace, seed: int, run: tuple[str, str, str]) -> Path:
    """One evaluation; its folder."""
    model, data, context = run
    folder = args.work_dir / f"seed{seed}"
    output = folder / "eval" / "-".join(run)
    command = ["recipes/evaluate.py", "--model", folder / "models" / model, "--dataset", prepare(args, data)]
    command += ["--split", DATA[data].held_out, "--limit", args.images, "--max-new-tokens", DATA[data].answer]
    command += ["--context", context]
    command += ["--output", output, *shlex.split(args.evaluate_options)]
    step(folder, f"eval-{'-'.join(run)}", [sys.executable, *command])
    return output


def verdict(differences: np.ndarray, interval: tuple[float, float]) -> str:
    """What one comparison says: differences (seeds,) that are positive if the claim holds, and their mean's interval.

    >>> verdict(np.array([0.1, 0.2, 0.1]), (0.05, 0.2)), verdict(np.array([0.1, -0.2]), (-0.1, 0.1))
    ('holds here', "can't be told")
    """
    if (differences > 0).all() and interval[0] > 0:
        return "holds here"
    if (differences < 0).all() and interval[1] < 0:
        return "does not hold here"
    return "can't be told"


def table(args: argparse.Namespace, claim: Claim, plot: Path) -> str:
    """A claim's section: means, comparisons, verdicts; and its plot."""
    means = {name: [] for name in claim.runs}
    values = {name: [] for name in claim.runs}
    for seed in args.seeds:
        for name, run in claim.runs.items():
            found, images = read_evaluation(evaluate(args, seed, run))
            means[name].append(found)
            values[name].append(images)
    titles = dict(FIGURES)
    lines = [f"### {claim.title}", "", "| | " + " | ".join(means) + " |", "| --- |" + " --- |" * len(means)]
    for key in SHOWN:
        cells = [spread([found[key] for found in several]) for several in means.values()]
        lines.append(f"| {titles[key]} | {' | '.join(cells)} |")
    lines.append("")
    seeds = f"{len(args.seeds)} seed{'s' * (len(args.seeds) != 1)}, {means[name][0]['samples']:,} images"
    for better, worse, key in claim.tests:
        ours, theirs = (np.stack([images[key] for images in values[name]]) for name in (better, worse))
        differences = quotient(ours.sum(axis=-1)) - quotient(theirs.sum(axis=-1))
        low, high = bootstrap(ours, theirs)
        each = ", ".join(f"{value:+.3f}" for value in differences)
        lines.append(
            f"- {better} over {worse}, {titles[key]}: {differences.mean():+.3f} [{low:+.3f}, {high:+.3f}] "
            f"({each}; {seeds}): **{verdict(differences, (low, high))}**"
        )
    draw(means, claim.title, plot)
    return "\n".join([*lines, "", f"![{claim.title}]({plot.parent.name}/{plot.name})", ""])


def draw(means: dict[str, list[dict]], title: str, path: Path) -> None:
    """Bars of the means over seeds, and every seed's figure as a dot."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sgrl"  # the same file from the same figures
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    width = 0.8 / len(means)
    for i, (name, several) in enumerate(means.items()):
        for j, key in enumerate(PLOTTED):
            place, found = j + (i - (len(means) - 1) / 2) * width, [one[key] for one in several]
            axes.bar(place, np.mean(found), width * 0.92, color=f"C{i}", alpha=0.7, label=name if j == 0 else None)
            axes.plot([place] * len(found), found, "k.", markersize=4)
    axes.set_xticks(range(len(PLOTTED)), [dict(FIGURES)[key] for key in PLOTTED])
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    args.work_dir = args.work_dir.resolve()
    accelerator = subprocess.run([ROOT / "tools/accelerator.sh"], capture_output=True, text=True).stdout.strip()
    config = "single_gpu" if accelerator == "gpu" else "cpu"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"recipes/accelerate/{config}.yaml"]
    for seed in args.seeds:
        for name in needed(args.claims):
            train(args, seed, name, launch)
    sections = [table(args, CLAIMS[name], args.work_dir / "plots" / f"{name}.svg") for name in args.claims]
    words = shlex.join(["python", "benchmarks/reproduce.py", *(sys.argv[1:] if arguments is None else arguments)])
    text = "\n".join([*sections, f"Command: `{words}`", ""])
    (args.work_dir / "reproduce.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
