"""The options of recipes/predict.py and recipes/evaluate.py, and what they settle before a model loads."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

from sgrl import data
from sgrl.context import CONTEXTS, warn_of_context
from sgrl.errors import SgrlError, UsageError
from sgrl.inference.engine import EngineSettings
from sgrl.inference.engines import DTYPES, ENGINES
from sgrl.inference.openai_engine import check_server
from sgrl.inference.presentation import Presentation
from sgrl.inference.scene_graph_model import no_task
from sgrl.models.vlm.coordinates import CONVENTIONS, convention_of
from sgrl.models.vlm.folder import check_model_folder
from sgrl.models.vlm.processor import thinks
from sgrl.task import FILE, NAMES, Task, trained_context
from sgrl.text import get_codec

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of both recipes."""
    add = parser.add_argument
    add("--dataset", help="folder that sgrl convert wrote, or a name on the Hub")
    add(
        "--task", metavar="NAME|FILE",
        help=f"how the model is asked, in place of the {FILE} in its folder: {', '.join(NAMES)}, such a file, a "
        "folder with one, or a data set",
    )  # fmt: skip
    add("--split", default="test", help="default: %(default)s")
    add("--output", required=True, type=Path, help="folder of this run")
    add("--limit", type=int, help="the first N images only")
    add("--constrain", action="store_true", help="decode by a grammar of the vocabulary, and repair the rest")
    add(
        "--context", choices=CONTEXTS,
        help="videos: the graph of the frame before in each prompt, the reference or the model's own (default: the "
        "model's own if it was trained with such prompts, else none)",
    )  # fmt: skip
    add(
        "--zero-shot", metavar="COORDINATES",
        help="for models that were not trained on this: the full prompt, in the coordinates of the model's family: "
        f"auto (by its name) or one of {', '.join(CONVENTIONS)}",
    )  # fmt: skip
    add_engine_arguments(parser)
    add("--price", type=float, nargs=2, metavar=("IN", "OUT"), help="of a million tokens, to say what the run cost")


def add_engine_arguments(
    parser: argparse.ArgumentParser, max_new_tokens: int | None = None, several: bool = False
) -> None:
    """Which model, and how it runs: an option for each field of `EngineSettings` (but images), read by `load`.

    max_new_tokens: the default; None: as the task says. several: `models`, of which each is loaded in its turn.
    """
    add = parser.add_argument
    usual = EngineSettings()
    what = "model folder or Hub id; the server's name of it with --engine openai"
    if several:
        add("--models", required=True, nargs="+", metavar="MODEL", help=what)
    else:
        add("--model", required=True, help=what)
    add("--engine", default="auto", choices=ENGINES, help="default: vLLM where it runs")
    limit = "as the task says" if max_new_tokens is None else "%(default)s"
    add("--max-new-tokens", type=int, default=max_new_tokens, help=f"limit of one answer (default: {limit})")
    add("--batch-size", type=int, help="images at a time (default: 256 on a GPU, 64 on a CPU, 16 for a server)")
    add("--dtype", default=usual.dtype, choices=DTYPES, help="default: bfloat16 on a GPU, float32 on a CPU")
    add("--max-model-length", type=int, default=usual.max_model_length, help="prompt and answer, in tokens, for vLLM")
    add(
        "--gpu-memory-utilization", type=float, default=usual.gpu_memory_utilization,
        help="share of the GPU's memory for vLLM",
    )  # fmt: skip
    add(
        "--thinking", action=argparse.BooleanOptionalAction,
        help="whether the chat template opens a thinking block (default: as the model was trained)",
    )  # fmt: skip
    add = parser.add_argument_group("a server with OpenAI's interface").add_argument
    add("--base-url", default=usual.base_url, help="default: %(default)s")
    add(
        "--api-key-variable", default=usual.api_key_variable,
        help="environment variable with the key (default: %(default)s)",
    )  # fmt: skip
    add("--timeout", type=float, default=usual.timeout, help="seconds for one request (default: %(default)s)")
    add(
        "--attempts",
        type=int,
        default=usual.attempts,
        help="times that a request is sent at most (default: %(default)s)",
    )
    add("--extra-body", default="{}", help="more fields of each request, as JSON")


def check_arguments(args: argparse.Namespace) -> None:
    """Raise before a model loads. Fills in what recipes/evaluate.py has no option for, and settles `task`,
    `presentation`, `asks_itself` (rather than with the prompts of a data set's rows), `context` and `max_new_tokens`.
    """
    for name, value in (("input", None), ("every", 1), ("shard_index", 0), ("num_shards", 1)):
        setattr(args, name, getattr(args, name, value))
    _at_least_one(args, "limit", "every", "num_shards")
    if not 0 <= args.shard_index < args.num_shards:
        raise UsageError(f"--shard-index is {args.shard_index}; expected a number from 0 to {args.num_shards - 1}")
    if not args.input and not args.dataset:
        raise UsageError("nothing to look at is given; add --input PATH for images of your own, or --dataset DIR")
    if args.zero_shot and args.context not in (None, "none"):
        raise UsageError("--zero-shot and --context exclude each other: the two graphs would be in other coordinates")
    if args.zero_shot and args.constrain:
        raise UsageError(
            "--zero-shot and --constrain exclude each other: the grammar holds the data set's coordinates"
        )
    if args.input and args.context == "gt":
        raise UsageError("--context gt needs references, which --input has none of; use --context generated")
    if args.task and args.context == "gt":
        raise UsageError("--task and --context gt exclude each other: the references ask as their data set does")
    convention = convention_of(args.zero_shot, args.model) if args.zero_shot else None
    if args.engine != "openai":
        check_model_folder(args.model)
    args.context_chosen = args.context is not None
    args.task, args.asks_itself = _task(args)
    if args.max_new_tokens is None:
        args.max_new_tokens = args.task.max_new_tokens
    check_engine_arguments(args, task=args.task)
    args.presentation = Presentation(args.task, args.model, convention)
    args.context = _context(args)


def _task(args: argparse.Namespace) -> tuple[Task, bool]:
    """How the model is asked, and whether that goes before the prompts of a data set's rows."""
    task: Task | None
    own = None if args.engine == "openai" else Task.find(args.model)
    of_data = Task.of_dataset(args.dataset, pixels=None) if args.dataset else None
    if own is not None and own.kind != "vlm":
        raise SgrlError(f"{args.model} is a {own.kind}, which is asked nothing; it has recipes of its own")
    if args.task:
        task = Task.read(args.task)
        _compare(f"--task {args.task}", task, f"the {FILE} of {args.model}", own)
        scored = of_data if not args.input else None
        if scored is not None and get_codec(task.codec).grouped != get_codec(scored.codec).grouped:
            raise UsageError(
                f"--task {args.task} gives {task.codec}, and {args.dataset} has references in {scored.codec}: the one "
                "has groups of relations, the other none"
            )
    elif args.zero_shot:
        task = of_data or own
    elif own is not None:
        task = own
        problem = {} if of_data is None else own.differences(of_data)
        broken = [f"{name} {problem[name]}" for name in ("codec", "coordinates") if name in problem]
        if broken and not args.input:
            raise UsageError(
                f"{args.model} was trained to write {'; '.join(broken)} as in {args.dataset}; take a data set of its "
                f"kind, or --task {args.model}: what it writes then is brought into the layout of the references"
            )
        if args.input or of_data is None:
            _compare(f"the {FILE} of {args.model}", own, args.dataset, of_data)
        else:  # rows ask with their own words
            _compare(args.dataset, of_data, f"the {FILE} of {args.model}", own)
            kept = ("context", "context_source", "thinking", "max_new_tokens", "opening")
            system = of_data.system or own.system
            task = replace(of_data, **{name: getattr(own, name) for name in kept}, system=system)
    elif of_data is not None:
        source = None if args.engine == "openai" else trained_context(args.model)
        task = replace(Task.of_dataset(args.dataset) if args.input else of_data, context_source=source)
    else:
        task = None
    if task is None:
        raise UsageError(no_task(args.model).replace("give a task:", "give --task:"))
    if args.zero_shot:
        task = task.untrained(args.zero_shot)
        task = task if args.input else replace(task, pixels=None)  # images of a data set are seen as they are
    return task, bool(args.task or args.zero_shot)


def _compare(name: str, task: Task, other_name: str, other: Task | None) -> None:
    """Warn of what one of two says otherwise."""
    if other is not None and (found := task.differences(other)):
        said = "; ".join(f"{field}: {what}" for field, what in found.items())
        logger.warning("%s goes before %s, which says otherwise: %s", name, other_name, said)


def _context(args: argparse.Namespace) -> str:
    """The context that was asked for, else that of the model's training."""
    task = args.task
    if args.context is not None:
        if args.context != "none" and args.presentation.convention:
            raise UsageError(
                f"--context {args.context} needs coordinates of pixels or thousandths, x first; those of the task are "
                f"{task.coordinates!r}"
            )
        warn_of_context(args.context, task.context_source)
        return args.context
    if args.zero_shot or task.context_source == "none" or args.presentation.convention:
        return "none"
    if task.context_source is not None:
        logger.info(
            "%s was trained with the graph of the frame before in its prompts and gets its own: --context generated%s",
            args.model,
            "; each folder is a video" if args.input else "",
        )
        return "generated"
    if args.asks_itself:
        return "generated" if task.context != "none" else "none"
    if args.dataset and data.read_metadata(args.dataset).get("previous") == "gt":
        raise UsageError(
            f"the prompts of {args.dataset} hold the graph of the frame before, and {args.model} does not say whether "
            "it was trained with it; say --context generated (its own graphs), gt (the references) or none"
        )
    return "none"


def check_engine_arguments(args: argparse.Namespace, images: bool = True, task: Task | None = None) -> None:
    """Raise before a model loads; reads --extra-body, and decides whether the model thinks.

    Args:
        images: False if the model is asked about text alone.
        task: of a model that writes graphs; it may say whether it thinks.
    """
    args.images = images
    _at_least_one(args, "max_new_tokens", "batch_size", "attempts")
    try:
        args.extra_body = json.loads(args.extra_body)
        if not isinstance(args.extra_body, dict):
            raise ValueError("expected an object")
    except ValueError as error:
        raise UsageError(f"--extra-body must be a JSON object ({error}), found {args.extra_body!r}") from None
    if args.engine != "openai":
        check_model_folder(args.model, images)
        trained = None if task is None else task.thinking
        if None not in (trained, args.thinking) and args.thinking != trained:
            logger.warning(
                "--%sthinking, but the task says thinking: %s", "" if args.thinking else "no-", str(trained).lower()
            )
        trained = thinks(args.model) if trained is None else trained
        args.thinking = trained if args.thinking is None else args.thinking
    else:
        check_server(args.base_url, args.api_key_variable, sys.argv)
        if args.thinking is not None:
            args.extra_body.setdefault("chat_template_kwargs", {}).setdefault("enable_thinking", args.thinking)
    args.thinking = bool(args.thinking)  # a server's model decides by itself unless it is told
    if args.constrain and args.thinking:
        raise UsageError(
            "--constrain and --thinking exclude each other: the grammar begins with the answer; leave one out (for a "
            "model that was trained to think: --no-thinking)"
        )


def _at_least_one(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(args, name)}, expected at least 1")
