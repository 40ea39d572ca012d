"""The rows of a run: loaded, checked for what the trainer needs, and without those that are too long."""

from __future__ import annotations

import functools
import io
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sgrl.errors import SgrlError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin

logger = logging.getLogger(__name__)


def load_rows(script_args, training_args, columns: Iterable[str]) -> tuple[Dataset, Dataset | None]:
    """The training rows and, when `eval_strategy` is set, those to evaluate on; with `columns` alone.

    Raises:
        SgrlError: for a data set that `sgrl.data.load` refuses, a split without rows, or more rows held out of the
            training split than it has.
    """
    train_split, eval_split, count = script_args.train_split, script_args.eval_split, script_args.eval_rows
    train = _load_split(script_args.dataset, train_split, columns)
    if training_args.eval_strategy == "no":
        return train, None
    if eval_split != train_split:
        evaluation = _load_split(script_args.dataset, eval_split, columns)
        return train, evaluation.take(min(count or len(evaluation), len(evaluation)))
    if count is None or count >= len(train):
        raise SgrlError(
            f"eval_split and train_split are both {train_split!r}, which has {len(train)} rows, so eval_rows must "
            f"say how many of them to hold out of training; it is {count}"
        )
    return train.take(len(train) - count), train.skip(len(train) - count)


def _load_split(dataset: str, split: str, columns: Iterable[str]) -> Dataset:
    from sgrl.data import load

    rows = load(dataset, split)
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        raise SgrlError(
            f"{dataset}, split {split!r}, has no column {missing[0]!r}; it has {', '.join(rows.column_names)}. Write "
            "it with data_prep/to_toon.py"
        )
    if not len(rows):
        raise SgrlError(f"{dataset}, split {split!r}, has no rows")
    return rows.select_columns(list(columns))


def check_prompts(rows: Dataset, training_args) -> None:
    """Refuse fewer rows than GRPO takes images for one batch of rollouts: its sampler would give no batch at all."""
    images = training_args.generation_batch_size // training_args.num_generations
    if len(rows) < images:
        raise SgrlError(
            f"{len(rows)} rows to train on, but one batch of rollouts takes {images} images (generation_batch_size "
            f"{training_args.generation_batch_size} / num_generations {training_args.num_generations}); lower "
            "per_device_train_batch_size, gradient_accumulation_steps or the number of processes"
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
        rows: with the columns image and prompt; None (no evaluation) stays None.
        processor: counts visual tokens at its own pixel budget.
        limit: tokens; None keeps every row.
        template_kwargs: of the chat template.
        answers: count the column completion too (SFT), not the prompt alone (GRPO).

    Raises:
        SgrlError: if nothing is left.
    """
    if rows is None or limit is None:
        return rows
    tokenizer = processor.tokenizer

    @functools.lru_cache(maxsize=1024)
    def prompt_tokens(text: str) -> int:  # without the one placeholder of the image; many rows share a prompt
        message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
        rendered = tokenizer.apply_chat_template(
            [message],
            chat_template=processor.chat_template,
            add_generation_prompt=True,
            tokenize=False,
            **template_kwargs,
        )
        return len(tokenizer(rendered, add_special_tokens=False)["input_ids"]) - 1

    def count(batch: dict[str, list]) -> list[bool]:
        tokens = [prompt_tokens(prompt[0]["content"]) for prompt in batch["prompt"]]
        sizes = [_height_and_width(image) for image in batch["image"]]
        visual = processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
        if answers:
            texts = tokenizer([completion[0]["content"] for completion in batch["completion"]])["input_ids"]
            tokens = [n + len(ids) + 2 for n, ids in zip(tokens, texts, strict=True)]  # 2: the end of the turn
        return [n + v <= limit for n, v in zip(tokens, visual, strict=True)]

    from datasets import Image

    columns = ["image", "prompt", "completion"] if answers else ["image", "prompt"]
    encoded = rows.select_columns(columns).cast_column("image", Image(decode=False))
    kept: list[int] = []
    for start in range(0, len(rows), 1000):
        batch = encoded[start : start + 1000]
        kept += [start + i for i, fits in enumerate(count(batch)) if fits]
    if len(kept) < len(rows):
        logger.info("left out %d of %d rows with more than %d tokens", len(rows) - len(kept), len(rows), limit)
    if not kept:
        raise SgrlError(f"all {len(rows)} rows have more than {limit} tokens; raise max_tokens or lower max_pixels")
    return rows.select(kept) if len(kept) < len(rows) else rows


def _height_and_width(image: dict[str, Any]) -> tuple[int, int]:
    """Of an encoded image; reads its header only."""
    from PIL import Image

    with Image.open(io.BytesIO(image["bytes"]) if image["bytes"] is not None else image["path"]) as opened:
        return opened.height, opened.width
