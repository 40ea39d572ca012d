"""What a run needs that trains a vision-language model: checks of model and data set, the processor, rows that fit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sgrl.context import warn_of_context
from sgrl.data import read_metadata
from sgrl.models.vlm.folder import check_model_folder, load_config, model_folder
from sgrl.models.vlm.parts import missing_kernels
from sgrl.models.vlm.processor import load_processor, set_pixel_budget, thinks
from sgrl.models.vlm.template import check_template, store_thinking, template_arguments
from sgrl.task import Task, trained_context
from sgrl.training.checks import check_checkpoint
from sgrl.training.dataset import DataKind, check_dataset, check_prompts, check_room, drop_long_rows, load_rows
from sgrl.training.launch import without_missing_vllm
from sgrl.training.rollouts import check_rollouts
from sgrl.training.run import TrainingRun, open_run

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig, ProcessorMixin
    from trl import ModelConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A model's processor as the run wants it, before the model is loaded.

    Attributes:
        processor: with the run's pixel budget and decision about thinking.
        template_kwargs: of its chat template.
        config: of the model.
        resized: whether the pixel budget is another than the model folder's.
    """

    processor: ProcessorMixin
    template_kwargs: dict[str, Any]
    config: PretrainedConfig
    resized: bool


@contextmanager
def open_vlm_run(
    recipe: str, script_args, training_args, model_args: ModelConfig, data: DataKind
) -> Iterator[TrainingRun]:
    """`open_run` for a vision-language model and a data set of scene graphs.

    Args:
        recipe: "sft" or "grpo".
        script_args, training_args, model_args: what `sgrl.training.launch.parse` gives. `thinking` is settled here.
        data: what the recipe's data set must be.

    Raises:
        SgrlError: input that does not fit; the message names the line to change.
    """
    path = model_args.model_name_or_path
    check_model_folder(path)
    check_dataset(script_args.dataset, data)
    if script_args.thinking is None:
        script_args.thinking = thinks(path)
    with open_run(recipe, script_args, training_args, path, script_args.identity(training_args)) as run:
        if not run.finished:
            run.task = task_of(script_args, training_args)
            if training_args.process_index == 0:
                warn_of_context(run.task.context_source, trained_context(path))
                run.task.write(training_args.output_dir)
        yield run


def task_of(script_args, training_args) -> Task:
    """How the model of a run is to be asked: as its data set does, with the run's context and thinking."""
    context = script_args.context or read_metadata(script_args.dataset).get("previous") or "none"
    return Task.of_dataset(
        script_args.dataset,
        context="none" if context == "none" else "generated",
        context_source=context,
        thinking=script_args.thinking,
        max_new_tokens=max(Task.max_new_tokens, getattr(training_args, "max_completion_length", None) or 0),
    )


def prepare_processor(script_args, training_args, model_args: ModelConfig, checkpoint: str | None) -> Prepared:
    """The processor, told about pixels and thinking.

    checkpoint: of `TrainingRun`; the model must be one that can go on from it.

    Raises:
        SgrlError: no vision-language model, or settings that its processor cannot follow.
    """
    path, trust = model_args.model_name_or_path, training_args.trust_remote_code
    config = load_config(path, model_args, trust)
    if torch.cuda.is_available() and (slow := missing_kernels(config)):
        logger.warning("%s", slow)
    check_checkpoint(checkpoint, config, script_args.trainable)
    processor = load_processor(path, model_args, trust)
    resized = set_pixel_budget(processor, script_args.min_pixels, script_args.max_pixels)
    template_kwargs = template_arguments(processor, script_args.thinking)
    store_thinking(processor, template_kwargs)
    return Prepared(processor, template_kwargs, config, resized)


def prepare_rows(
    script_args, training_args, prepared: Prepared, columns: Iterable[str], answers: bool
) -> tuple[Dataset, Dataset | None]:
    """Rows to train on, and to evaluate on (None without `eval_strategy`), that the processor takes and `max_tokens`.

    Args:
        columns: what the rows keep. answers: whether their answers count for `max_tokens`, as in SFT.

    Raises:
        SgrlError: rows that are not there, or that the chat template makes no prompt with one image of.
    """
    train, evaluation = load_rows(script_args, training_args, columns, prepared.processor)
    text = train[:1]["prompt"][0][-1]["content"]
    check_template(prepared.processor, prepared.config, prepared.template_kwargs, text)
    train, evaluation = (
        drop_long_rows(rows, prepared.processor, script_args.max_tokens, prepared.template_kwargs, answers)
        for rows in (train, evaluation)
    )
    return train, evaluation


def prepare_rollouts(
    script_args, training_args, model_args: ModelConfig, prepared: Prepared, train: Dataset, evaluation: Dataset | None
) -> str:
    """Refuse, before the model is loaded, what GRPO could not write answers to, and tell TRL about the chat template.

    Returns: the folder or name to load the model from: vLLM reads the pixel budget there.

    Raises:
        SgrlError: settings of vLLM that do not work here, too few rows, or prompts that leave no room for an answer.
    """
    training_args.chat_template_kwargs = prepared.template_kwargs
    check_prompts(train, training_args)
    without_missing_vllm(training_args)
    check_rollouts(training_args, script_args.vllm_engine_kwargs)
    for rows in (train, evaluation):
        check_room(rows, prepared.processor, prepared.template_kwargs, script_args, training_args)
    path = model_args.model_name_or_path
    if prepared.resized:
        with training_args.main_process_first():
            start = f"{training_args.output_dir}/start"
            path = model_folder(path, prepared.processor, start, model_args.model_revision)
    return path
