"""From images to a folder of predictions: what recipes/predict.py and recipes/evaluate.py share."""

from __future__ import annotations

import argparse
import bisect
import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields

from sgrl.arguments import program_words
from sgrl.context import handed_on
from sgrl.errors import SgrlError, UsageError
from sgrl.files import folder_lock
from sgrl.inference.engine import Engine, EngineSettings
from sgrl.inference.engines import load_engine
from sgrl.inference.prediction import Prediction
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
from sgrl.inference.presentation import Question, resized_text
from sgrl.inference.rows import DatasetRows, FileRows
from sgrl.inference.scene_graph_model import SceneGraphModel
from sgrl.inference.video import ahead, batches
from sgrl.process import WRONG_USAGE
from sgrl.progress import Progress
from sgrl.task import Task
from sgrl.versions import installed

logger = logging.getLogger(__name__)

# What makes two runs the same run. The later ones are None where the setting is off, as in folders that predate it.
IDENTITY: tuple[str, ...] = (
    "model_fingerprint",
    "dataset_fingerprint",
    "split",
    "engine",
    "max_new_tokens",
    "dtype",
    "thinking",
)
IDENTITY += ("constrain", "context", "zero_shot", "extra_body", "task")

GONE = 8
"""So many images in a row without an answer from a server end a run: it is not there."""


@contextmanager
def locked(args: argparse.Namespace) -> Iterator[None]:
    """No other process writes this run's folder, or this shard's of it, in this block. Raises SgrlError."""
    jobs = args.num_shards
    with folder_lock(args.output, shared=jobs > 1):
        with folder_lock(shard_folder(args.output, args.shard_index, jobs)) if jobs > 1 else nullcontext():
            yield


def open_rows(args: argparse.Namespace) -> DatasetRows | FileRows:
    rows: DatasetRows | FileRows
    if args.input:
        rows = FileRows(args.input, args.presentation, args.context != "none", args.every, args.limit)
        if args.context != "none" and args.context_chosen and not any(rows.videos):
            raise UsageError(
                f"--context {args.context} is for videos; {rows.name} holds single images alone: name the folder of a "
                "video's frames, or leave --context out"
            )
        if args.every > 1 and not rows.has_video_files:
            raise UsageError(f"--every {args.every} is for video files; {rows.name} holds none")
        return rows
    rows = DatasetRows(args.dataset, args.split, args.limit, args.presentation if args.asks_itself else None)
    if args.context != "none" and args.context_chosen and not any(rows.videos):
        raise UsageError(f"--context {args.context} is for videos; the images of {args.dataset} belong to none")
    return rows


def predict(args: argparse.Namespace, rows: DatasetRows | FileRows) -> tuple[PredictionFolder, dict[Key, str]]:
    """Write a graph for each of the rows (of this shard) that has none yet.

    Returns: the predictions, and the images that got none with the reason; the same command tries these again.

    Raises:
        SgrlError: among others, a server that is not there. What was written stays.
    """
    # Which engine "auto" is was settled when the folder was begun; with nothing left to do none is loaded.
    target = shard_folder(args.output, args.shard_index, args.num_shards)
    begun = read_run_file(target) or read_run_file(args.output)
    name = begun.get("engine", args.engine) if args.engine == "auto" else args.engine
    args.images = rows.most_images
    engine, failed = None, {}
    if name == "auto":
        engine = load(args, name)
        name = engine.name
    assert rows.codec is not None  # of rows that are asked about
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
        "task": args.task.digest() if args.asks_itself and not args.zero_shot else None,
        "extra_body": args.extra_body or None,
        "command": shlex.join(program_words(sys.argv[1:])),
        "versions": installed(),
    }
    if args.input:
        run["input"] = args.input
    folder = PredictionFolder(target, run, IDENTITY)
    units = units_of(rows, args.context)[args.shard_index :: args.num_shards]
    if any(rows.keys[index] not in folder.keys for unit in units for index in unit):
        model = SceneGraphModel(
            engine or load(args, name), args.task, constrain=args.constrain, convention=args.presentation.convention
        )
        try:
            failed = Predictor(args, rows, folder, model).run(units)
        except KeyboardInterrupt as error:
            error.args = (f" after {len(folder.keys):,} images; the same command goes on there",)
            raise
        finally:
            model.close()
    write_usage(folder, args.price)
    if args.num_shards > 1:
        merge_shards(args.output, args.num_shards)
    return folder, failed


def say_failed(folder: PredictionFolder, failed: dict[Key, str]) -> int:
    """Log which images got no graph; returns the exit status.

    A server that answered nothing at all is taken for a wrong --base-url, --model or --timeout.
    """
    if not failed:
        return 0
    some = "; ".join(f"{key[1]}: {problem}" for key, problem in list(failed.items())[:3])
    logger.error(
        "%s of %s images have no prediction (%s); the same command tries these again",
        *(f"{len(failed):,}", f"{len(failed) + len(folder.keys):,}", some),
    )
    return WRONG_USAGE if folder.run["engine"] == "openai" and not folder.keys else 1


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
        args: with context and output.
        rows: where images and prompts come from. folder: where predictions go. model: what makes them; an engine
            alone is asked as the rows say.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        rows: DatasetRows | FileRows,
        folder: PredictionFolder,
        model: SceneGraphModel | Engine,
    ):
        if not isinstance(model, SceneGraphModel):
            asked = rows.presentation.task if rows.presentation else Task.of_dataset(rows.name, pixels=None)
            model = SceneGraphModel(model, asked)
        self.args, self.rows, self.folder, self.model = args, rows, folder, model
        # Of each video (row of the frame, its own graph, the graph's frame), in order: the context of later frames.
        self.graphs: dict[Key, list[tuple[int, str, tuple[int, int]]]] = {}
        self.failed: dict[Key, str] = {}

    def run(self, units: Sequence[Sequence[int]]) -> dict[Key, str]:
        """Predict what is missing; returns the images that got none, and why."""
        todo = [[i for i in unit if self.rows.keys[i] not in self.folder.keys] for unit in units]
        if self.args.context == "generated":
            self._remember(unit for unit, missing in zip(units, todo, strict=True) if missing)
        todo = [unit for unit in todo if unit]
        total = sum(map(len, units))
        left = sum(map(len, todo))
        # Single images come in larger chunks, so that the engine prepares the next ones while it writes.
        width = self.model.engine.batch_size * (1 if self.args.context == "generated" else 2)
        warm = False
        silent = 0  # images in a row that got no answer
        output = self.args.output
        with Progress(output.name, total, "image", done=total - left, where=output) as progress:
            for count, batch in ahead((len(some), self._load_rows(some)) for some in batches(todo, width)):
                if batch and not warm and self.model.engine.name != "openai":
                    self._ask(batch[:1])  # the first batch is timed like the others
                    warm = True
                done = self._ask(batch)
                self._keep(batch, done)
                progress.update(count)
                for prediction in done:
                    silent = silent + 1 if prediction.finish_reason == "error" else 0
                if silent >= GONE or silent >= len(done) > 1:
                    raise SgrlError(
                        f"none of {silent} images got an answer ({done[-1].error}); what was written stays, and the "
                        "same command goes on there"
                    )
        return self.failed

    def _load_rows(self, indices: Sequence[int]) -> list[dict]:
        loaded = []
        for index in indices:
            try:
                loaded.append(self.rows[index] | {"index": index})
            except SgrlError as error:  # an image that does not open
                logger.warning("%s", error)
                self.failed[self.rows.keys[index]] = str(error)
        return loaded

    def _ask(self, batch: list[dict]) -> list[Prediction]:
        return self.model.answer(list(map(self._question, batch)))

    def _question(self, row: dict) -> Question:
        presentation, shown = self.model.presentation, row.get("images") or row["image"]
        chat = presentation.chat(row["prompt"], self._previous(row))
        frame = (row["width"], row["height"])
        into = None if self.rows.codec is presentation.codec else self.rows.codec
        return Question(shown, chat, seen_frame(row), frame, presentation.convention, into)

    def _previous(self, row: dict) -> str | None:
        """The graph of the frame before, as the prompt is to hold it."""
        if row["video_id"] is None:
            return None
        previous = None
        if self.args.context == "generated":
            graphs = self.graphs.get((row["dataset"], row["video_id"]), [])
            before = bisect.bisect_left(graphs, (row["index"],))
            if before:
                _, previous, frame = graphs[before - 1]
                if frame != seen_frame(row):  # its own graph was of an image of another size
                    previous = resized_text(previous, self.model.codec, frame, seen_frame(row))
                del graphs[: before - 1]  # frames come in order: no later one will ask for these
        elif self.args.context == "gt" and self.rows.metadata.get("previous") == "gt":
            previous = row.get("previous")
        elif self.args.context == "gt":  # the data set was written without it: the reference of the row before
            index = row["index"]
            last = (self.rows.keys[index - 1][0], self.rows.videos[index - 1])
            if index and last == (row["dataset"], row["video_id"]):
                previous = self.rows.solution(index - 1)
        return previous

    def _keep(self, batch: list[dict], done: list[Prediction]) -> None:
        predictions = []
        for row, prediction in zip(batch, done, strict=True):
            if prediction.error is not None:
                self.failed[prediction_key(row)] = prediction.error
                continue
            predictions.append(_line(row, prediction))
            self._context(row["index"], predictions[-1])
        self.folder.append(predictions)

    def _context(self, index: int, row: dict) -> None:
        """Keep a frame's own graph for those after it; one without a graph leaves the last as it was."""
        if self.args.context == "generated" and row.get("video_id") is not None:
            seen = seen_frame(row)
            written = row.get("written", row["prediction"])
            text = handed_on(written, self.model.codec, seen, self.model.constrain)
            if text is not None:
                bisect.insort(self.graphs.setdefault((row["dataset"], row["video_id"]), []), (index, text, seen))

    def _remember(self, units: Iterable[Sequence[int]]) -> None:
        """After an interruption: the graphs of the videos that are not finished."""
        index = {self.rows.keys[i]: i for unit in units for i in unit}
        for row in self.folder:
            if prediction_key(row) in index:
                self._context(index[prediction_key(row)], row)


def _line(row: dict, prediction: Prediction) -> dict:
    """One line of predictions.jsonl."""
    seen, frame = seen_frame(row), (row["width"], row["height"])
    kept = {name: row[name] for name in ("dataset", "image_id", "solution", "width", "height")}
    kept |= {name: row[name] for name in ("video_id", "frame") if row[name] is not None}
    kept |= {
        "prediction": prediction.answer,
        "tokens": prediction.tokens,
        "prompt_tokens": prediction.prompt_tokens,
        "seconds": round(prediction.seconds, 6),
        "finish_reason": prediction.finish_reason,
        "confidence": prediction.confidence,
    }
    if prediction.answer != prediction.text:
        kept |= {"written": prediction.text, "repaired": prediction.repaired}
    if seen != frame:
        kept["seen"] = list(seen)
    return kept


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
