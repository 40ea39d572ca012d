"""The rows of a run: loaded, checked for what the trainer needs, and without those that are too long."""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sgrl.context import LONGEST
from sgrl.data import files, read_metadata
from sgrl.errors import SgrlError
from sgrl.folds import LeftOut
from sgrl.images import image_column, image_sizes
from sgrl.models.vlm.processor import visual_tokens
from sgrl.models.vlm.tokens import answer_tokens, rendered_prompt
from sgrl.prompts import with_context
from sgrl.text import CODECS, get_codec
from sgrl.training.usable import drop_unusable

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset
    from transformers import ProcessorMixin

logger = logging.getLogger(__name__)

RECIPES = {"psg": "psg", "pvsg": "pvsg", "action_genome": "ag", "vg150": "vg150"}
"""Data sets by the name of their official class lists -> the recipes that are for them."""

HEADER = 4096
"""Bytes of an image file in which its size is looked for first."""

SAMPLE = 1000
"""At most so many rows are looked at where all of them would take too long."""


@dataclass(frozen=True)
class DataKind:
    """What a recipe's data set must be.

    Args:
        name: of its official class lists. Others, a toy world's for one, pass if the rest fits.
        codec: the layout of its texts in published work; others do too whose relations have groups, or none, alike.
        video: whether its rows are frames of videos.
    """

    name: str
    codec: str
    video: bool = False

    def takes(self, codec: str) -> bool:
        """Whether texts may be in this layout."""
        return get_codec(codec).grouped == get_codec(self.codec).grouped


def check_dataset(path: str, kind: DataKind) -> None:
    """Refuse a data set of another kind, from what its files say about themselves.

    Raises:
        SgrlError: says what was found and which recipe or conversion fits.
    """
    import pyarrow.parquet

    metadata = read_metadata(path)
    found, codec, groups = metadata["vocabulary"]["name"], metadata["codec"], metadata["vocabulary"].get("groups")
    video = "video_id" in pyarrow.parquet.read_schema(files(path)[0]).names
    right = RECIPES.get(found) or ("ag" if groups else "pvsg" if video else "psg or vg150")
    remedy = f"take the recipe for it (recipes/*_{right}.py), or another `dataset`"
    if found in RECIPES and found != kind.name:
        raise SgrlError(f"{path} is {found}, but this recipe is for {kind.name}; {remedy}")
    if video != kind.video:
        what = ("images", "frames of videos")
        raise SgrlError(f"{path} holds {what[video]}, but this recipe is for {what[kind.video]}; {remedy}")
    if not kind.takes(codec):
        layouts = sorted(filter(kind.takes, CODECS), key=lambda name: name != kind.codec)  # its own is named first
        raise SgrlError(
            f"the texts of {path} are {codec}, but this recipe is for {' or '.join(layouts)}; convert the data "
            f"with sgrl convert --codec {kind.codec}, or take the recipe for it"
        )


def load_rows(
    script_args, training_args, columns: Iterable[str], processor: ProcessorMixin
) -> tuple[Dataset, Dataset | None]:
    """The training rows and, when `eval_strategy` is set, those to evaluate on; with `columns` alone.

    And with `previous` (see `sgrl.data.VIDEO_COLUMNS`) where the run's prompts are to hold it.

    Rows whose image is damaged, or refused by the processor, are left out, counted and named.

    Raises:
        SgrlError: for a data set that `sgrl.data.load` refuses, a split without rows, or more rows held out of the
            training split than it has.
    """
    train_split, eval_split, count = script_args.train_split, script_args.eval_split, script_args.eval_rows
    columns = list(columns)
    if script_args.context != "none" and read_metadata(script_args.dataset).get("previous") == "gt":
        columns.append("previous")
    train = _load_split(script_args.dataset, train_split, columns, processor, script_args.left_out)
    if training_args.eval_strategy == "no":
        return train, None
    if eval_split != train_split:
        evaluation = _load_split(script_args.dataset, eval_split, columns, processor)
        return train, evaluation.take(min(count or len(evaluation), len(evaluation)))
    if count is None or count >= len(train):
        raise SgrlError(
            f"eval_split and train_split are both {train_split!r}, which has {len(train)} rows, so eval_rows must "
            f"say how many of them to hold out of training; it is {count}"
        )
    return train.take(len(train) - count), train.skip(len(train) - count)


def _load_split(
    dataset: str, split: str, columns: Iterable[str], processor: ProcessorMixin, left_out: LeftOut | None = None
) -> Dataset:
    from sgrl.data import load

    rows = load(dataset, split)
    name = image_column(rows.column_names)
    columns = [name if column == "image" else column for column in columns]
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        raise SgrlError(
            f"{dataset}, split {split!r}, has no column {missing[0]!r}; it has {', '.join(rows.column_names)}. Write "
            "it with sgrl convert"
        )
    if not len(rows):
        raise SgrlError(f"{dataset}, split {split!r}, has no rows")
    place = f"{dataset}, split {split!r}"
    if left_out is not None:
        total, rows = len(rows), left_out.without(rows)
        logger.info("%s: %d of %d rows, without fold %d", place, len(rows), total, left_out.fold)
        if not len(rows):
            raise SgrlError(f"{place}: all rows are in fold {left_out.fold} of {left_out.folds}; take fewer folds")
    _check_images(rows, place)
    rows = drop_unusable(rows, place, processor)
    if read_metadata(dataset).get("coords", "pixel") == "pixel":
        _check_frame(rows[0], place)
    return rows.select_columns(list(columns))


def _check_images(rows: Dataset, place: str) -> None:
    """Refuse rows without an image."""
    first, name = 0, image_column(rows.column_names)
    for chunk in rows.data.column(name).chunks:
        images, row_of = chunk, range(len(chunk))
        if name == "images":
            images, row_of = chunk.flatten(), chunk.value_parent_indices().to_pylist()
        for i in images.field("bytes").is_null().to_numpy(zero_copy_only=False).nonzero()[0].tolist():
            if not images[i]["path"].as_py():
                raise SgrlError(
                    f"{place}: row {first + row_of[i]} has no image; convert the data set without --no-images"
                )
        first += len(chunk)


def _check_frame(row: dict, place: str) -> None:
    """Refuse coordinates that are not those of the image."""
    image, width, height = (row.get("images") or [row["image"]])[0], row["width"], row["height"]
    if image.size != (width, height):
        raise SgrlError(
            f"{place}: the first image is {image.width} x {image.height}, but its boxes are in a frame of "
            f"{width} x {height}; convert the data set again"
        )


def check_prompts(rows: Dataset, training_args) -> None:
    """Refuse fewer rows than GRPO takes images for one batch of rollouts: its sampler would give no batch at all."""
    images = training_args.generation_batch_size // training_args.num_generations
    if len(rows) < images:
        raise SgrlError(
            f"{len(rows)} rows to train on, but one batch of rollouts takes {images} images (generation_batch_size "
            f"{training_args.generation_batch_size} / num_generations {training_args.num_generations}); lower "
            "per_device_train_batch_size, gradient_accumulation_steps or the number of processes"
        )


def check_room(
    rows: Dataset | None, processor: ProcessorMixin, template_kwargs: dict[str, Any], script_args, training_args
) -> None:
    """Refuse prompts that leave vLLM no room for an answer of `max_completion_length`; it would end the run midway.

    Looks at SAMPLE rows, those with the longest texts among them; `max_tokens` bounds the rest.

    Raises:
        SgrlError: with the lines to change.
    """
    total = training_args.vllm_max_model_length
    if rows is None or not training_args.use_vllm or training_args.vllm_mode != "colocate" or total is None:
        return
    room = total - training_args.max_completion_length
    corrupted = script_args.context == "corrupted"
    if not corrupted and script_args.max_tokens is not None and script_args.max_tokens <= room:
        return
    texts = [chat[-1]["content"] for chat in _chats(rows)]
    longest = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
    chosen = sorted({*longest[: SAMPLE // 2], *range(0, len(texts), -(-len(texts) // (SAMPLE // 2)))})
    tokens = next(count_tokens(rows.select(chosen), processor, template_kwargs, answers=False))
    if corrupted and "previous" in rows.column_names:
        previous = [graph or "" for graph in rows.select(chosen)["previous"]]
        more = processor.tokenizer(previous, add_special_tokens=False)["input_ids"]
        tokens = [n + math.ceil((LONGEST - 1) * len(ids)) for n, ids in zip(tokens, more, strict=True)]
    if max(tokens) > room:
        raise SgrlError(
            f"prompts have up to {max(tokens)} tokens{' with context: corrupted' * corrupted}, and answers up to "
            f"{training_args.max_completion_length} (max_completion_length), but vllm_max_model_length is {total}; "
            f"raise it to {max(tokens) + training_args.max_completion_length}, or lower max_tokens or max_pixels"
        )


def drop_long_rows(
    rows: Dataset | None,
    processor: ProcessorMixin,
    limit: int | None,
    template_kwargs: dict[str, Any],
    answers: bool,
) -> Dataset | None:
    """Leave out rows that have more tokens than `limit`, and log how many; nothing is ever cut.

    Args:
        rows: with the columns image (or images) and prompt; None (no evaluation) stays None.
        limit: tokens; None keeps every row.
        processor, template_kwargs, answers: see `count_tokens`.

    Raises:
        SgrlError: if nothing is left.
    """
    if rows is None or limit is None:
        return rows
    counts = [n for batch in count_tokens(rows, processor, template_kwargs, answers) for n in batch]
    kept = [i for i, n in enumerate(counts) if n <= limit]
    if len(kept) < len(rows):
        logger.info("left out %d of %d rows with more than %d tokens", len(rows) - len(kept), len(rows), limit)
    if not kept:
        raise SgrlError(
            f"all {len(rows)} rows have more than {limit} tokens (the shortest {min(counts)}); raise max_tokens or "
            "lower max_pixels"
        )
    return rows.select(kept) if len(kept) < len(rows) else rows


def count_tokens(
    rows: Dataset, processor: ProcessorMixin, template_kwargs: dict[str, Any], answers: bool
) -> Iterator[list[int]]:
    """The tokens of each row, visual ones included, as the trainer will make them; a thousand rows at a time.

    Args:
        rows: with the columns image (or images) and prompt, and maybe previous.
        processor: counts visual tokens at its own pixel budget.
        template_kwargs: of the chat template.
        answers: count the column completion too (SFT), not the prompt alone (GRPO).
    """
    name = image_column(rows.column_names)

    @functools.lru_cache(maxsize=1024)
    def prompt_tokens(messages: tuple[tuple[str, str], ...], images: int) -> int:
        chat = [{"role": role, "content": text} for role, text in messages]  # many rows share one
        return rendered_prompt(processor, chat, images, template_kwargs)[1]

    columns = [column for column in (name, "prompt", "previous") if column in rows.column_names]
    columns += ["completion"] * answers
    encoded = rows.select_columns(columns).with_format("arrow")
    for start in range(0, len(rows), 1000):
        batch = encoded[start : start + 1000]
        images = batch[name].combine_chunks()
        counts = images.value_lengths().to_pylist() if name == "images" else [1] * len(images)
        chats = [tuple((message["role"], message["content"]) for message in chat) for chat in _chats(batch)]
        tokens = list(map(prompt_tokens, chats, counts))
        seen = iter(visual_tokens(processor, _sizes(images.flatten() if name == "images" else images)))
        visual = [sum(itertools.islice(seen, count)) for count in counts]
        if answers:
            texts = [completion[0]["content"] for completion in batch["completion"].to_pylist()]
            tokens = [n + m for n, m in zip(tokens, answer_tokens(processor, texts), strict=True)]
        yield [n + v for n, v in zip(tokens, visual, strict=True)]


def _chats(rows: Dataset | pyarrow.Table) -> list[list[dict]]:
    """The chats of some rows, with the true graph of the frame before."""
    import pyarrow

    if not isinstance(rows, pyarrow.Table):
        names = [name for name in ("prompt", "previous") if name in rows.column_names]
        rows = rows.select_columns(names).with_format("arrow")[:]
    prompts = rows["prompt"].to_pylist()
    if "previous" not in rows.column_names:
        return prompts
    return list(map(with_context, prompts, rows["previous"].to_pylist()))


def _sizes(images) -> list[tuple[int, int]]:
    """Height and width of each encoded image of an Arrow column; from its first bytes, where they say it."""
    import pyarrow as pa
    import pyarrow.compute

    images = images.combine_chunks() if isinstance(images, pa.ChunkedArray) else images
    heads = pyarrow.compute.binary_slice(images.field("bytes"), 0, HEADER).to_pylist()
    found = []
    for i, head in enumerate(heads):
        try:
            sizes = image_sizes(images[i].as_py() if head is None else head)
        except SgrlError:  # much stands before the size, in a JPEG from a camera
            sizes = image_sizes(images[i].as_py())
        found.append(sizes.upright[::-1])
    return found
