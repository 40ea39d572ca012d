"""Rows as the model will see them.

For each row: the rendered prompt, the tokens of text, image and answer, what the reference and a spoiled answer score,
and a picture with the reference's boxes in OUTPUT.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from sgrl import data
from sgrl.arguments import Parser
from sgrl.boxes import scale
from sgrl.context import ContextTransform, Noise, corrupt
from sgrl.errors import SgrlError
from sgrl.files import atomic_path, folder_lock
from sgrl.graph import SceneGraph
from sgrl.terminal import printable, printable_lines
from sgrl.text import get_codec

ScoresOf = Callable[..., dict[str, tuple[float, dict[str, float]]]]

SPOILED = Noise(omit=0, drop=0.3, insert=0.3, relabel=0.3, jitter=0.3, drop_relation=0.3, swap_predicate=0.5)
COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000075")


def draw(image, graph: SceneGraph):
    """A copy of a PIL image, enlarged to at least 480 pixels across, with numbered boxes and labels."""
    from PIL import ImageDraw

    factor = max(1, -(-480 // image.width))
    picture = image.convert("RGB").resize((image.width * factor, image.height * factor), 0)
    frame = (graph.width, graph.height)
    boxes = scale(graph.boxes, frame, picture.size)
    pen = ImageDraw.Draw(picture)
    for i, (found, box) in enumerate(zip(graph.objects, boxes, strict=True)):
        color = COLORS[i % len(COLORS)]
        x1, y1, x2, y2 = map(float, box)
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=2)
        pen.text((x1 + 3, y1 + 2), f"{i + 1} {found.label}", fill=color)
    return picture


def tokens_of(processor, prompt: Sequence[dict], completion: str, sizes: Sequence[tuple[int, int]], kwargs: dict):
    """The rendered prompt, and the numbers of tokens of its text, the images (width, height) and the answer."""
    from sgrl.models.vlm.processor import visual_tokens
    from sgrl.models.vlm.tokens import answer_tokens, rendered_prompt

    rendered, text = rendered_prompt(processor, prompt, len(sizes), kwargs)
    visual = sum(visual_tokens(processor, [(height, width) for width, height in sizes]))
    return rendered, {"prompt": text, "image": visual, "answer": answer_tokens(processor, [completion])[0]}


def answers_of(codec: str, solution: str, width: int, height: int, vocabulary, seed: int = 0) -> dict[str, str]:
    """Graphs to score against the reference: it, a spoiled one, and none."""
    layout = get_codec(codec)
    graph = layout.decode(solution, width, height, tags=False)
    spoiled = layout.encode(corrupt(graph, vocabulary, SPOILED, random.Random(seed)))
    return {"gold": solution, "spoiled": spoiled, "empty": ""}


def parser() -> Parser:
    parser = Parser(__doc__, "sgrl inspect", {"--rows": "--limit"})
    parser.add_argument("dataset", help="a folder that sgrl convert wrote")
    parser.add_argument("--split", default="train", help="(default: %(default)s)")
    parser.add_argument("--limit", type=int, default=3, help="how many, from --first on (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--model", help="a model folder: renders its chat template and counts its tokens")
    parser.add_argument(
        "--thinking",
        action=argparse.BooleanOptionalAction,
        help="as in the recipes (default: as the model was trained)",
    )
    parser.add_argument("--context", help="none, gt or corrupted, as in the recipes (default: as stored)")
    parser.add_argument("--reward", default="full", help="a preset (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("inspect"), help="for the pictures (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None, scores_of: ScoresOf) -> int:
    """Prints the rows and writes their pictures.

    scores_of: gives (total, terms) of each of the named graphs.
    """
    args = parser().parse_args(arguments)
    rows, metadata = data.load(args.dataset, args.split), data.read_metadata(args.dataset)
    indices = range(args.first, min(args.first + args.limit, len(rows)))
    if not indices:
        raise SgrlError(
            f"{args.dataset}, split {args.split!r}, has {len(rows)} rows; --first {args.first} is past them"
        )
    context = args.context or metadata.get("previous") or "none"
    rows = rows.with_transform(ContextTransform(context, metadata))
    processor, kwargs = None, {}
    if args.model:
        from sgrl.models.vlm.folder import check_model_folder
        from sgrl.models.vlm.processor import load_processor
        from sgrl.models.vlm.template import template_arguments

        check_model_folder(args.model)
        processor = load_processor(args.model)
        kwargs = template_arguments(processor, args.thinking)
    vocabulary, codec = data.vocabulary_of(metadata), get_codec(metadata["codec"])
    with folder_lock(args.output):
        for index in indices:
            row = rows[index]
            images, size = row.get("images") or [row["image"]], (row["width"], row["height"])
            image = images[0]
            prompt, completion = row["prompt"], row["completion"][0]["content"]
            rendered, tokens = "\n\n".join(message["content"] for message in prompt), {}
            if processor is not None:
                rendered, tokens = tokens_of(processor, prompt, completion, [image.size for image in images], kwargs)
            picture = args.output / f"{args.split}-{index}.png"
            with atomic_path(picture) as temporary:
                draw(image, codec.decode(row["solution"], *size, tags=False)).save(temporary, format="PNG")
            label = f"{row['dataset']} {row['image_id']}"
            print(f"== row {index}: {printable(label)}, image {image.width} x {image.height} -> {picture}")
            print(f"-- prompt\n{printable_lines(rendered)}\n-- answer\n{printable_lines(completion)}")
            if tokens:
                print("-- tokens: " + ", ".join(f"{name} {count}" for name, count in tokens.items()))
            answers = answers_of(codec.name, row["solution"], *size, vocabulary, index)
            for name, (total, terms) in scores_of(answers, row["solution"], codec, *size, args.reward).items():
                parts = ", ".join(f"{term} {value:.2f}" for term, value in terms.items())
                print(f"-- {name} scores {total:.2f} ({parts})")
            print()
    return 0
