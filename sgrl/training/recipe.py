"""What all recipes share: from arguments to a model folder, checks first. A recipe brings its data and its rewards."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sgrl.context import store_context, trained_context, warn_of_context
from sgrl.data import read_metadata
from sgrl.files import folder_lock
from sgrl.models.vlm.folder import check_model_folder, load_config, model_folder
from sgrl.models.vlm.parts import missing_kernels
from sgrl.models.vlm.processor import load_processor, set_pixel_budget, thinks
from sgrl.models.vlm.template import check_template, store_thinking, template_arguments
from sgrl.training.checks import check_best, check_checkpoint
from sgrl.training.launch import without_missing_vllm
from sgrl.training.model import init_arguments, load_model, log_parameters, lora_config, save_model
from sgrl.training.publish import model_card, publish, take_push_settings, write_card
from sgrl.training.resume import Run, accept_numbered_cpus
from sgrl.training.rollouts import check_rollouts
from sgrl.training.rows import DataKind, check_dataset, check_prompts, check_room, drop_long_rows, load_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import ProcessorMixin
    from trl import GRPOConfig, ModelConfig, SFTConfig

    from sgrl.training.launch import GRPOArguments, SFTArguments

logger = logging.getLogger(__name__)

IDENTITY = ("dataset", "trainable", "context", "context_noise", "min_pixels", "max_pixels", "thinking")
"""Settings that make a run the same run, besides recipe, model and reward; see `sgrl.training.resume.Run`."""


@dataclass
class _Prepared:
    """A run whose input was found to fit together, before its model is loaded."""

    run: Run
    target: tuple[str, bool] | None
    processor: ProcessorMixin
    resized: bool  # whether the processor's pixel budget is another than the model folder's
    template_kwargs: dict[str, Any]
    train: Dataset
    evaluation: Dataset | None


def _alone(train: Callable[..., None]) -> Callable[..., None]:
    """Decorate a training: no other one writes its `output_dir` meanwhile. The first process locks it for all."""

    @functools.wraps(train)
    def wrapped(script_args, training_args, *rest) -> None:
        first = training_args.process_index == 0
        with folder_lock(training_args.output_dir) if first else nullcontext():
            train(script_args, training_args, *rest)

    return wrapped


@_alone
def train_sft(script_args: SFTArguments, training_args: SFTConfig, model_args: ModelConfig, data: DataKind) -> None:
    """Supervised fine-tuning, from the checks to the model folder in `output_dir` (and to the Hub).

    Args:
        script_args, training_args, model_args: what `sgrl.training.launch.parse` gives.
        data: what the recipe's data set must be.

    Raises:
        SgrlError: input that does not fit, before the model is loaded; the message names the line to change.
    """
    from sgrl.training.context import add_context
    from sgrl.training.muon import muon
    from sgrl.training.sft import COLUMNS, build_sft_trainer, check_config

    check_config(training_args)
    prepared = _prepare("sft", script_args, training_args, model_args, data, COLUMNS, {})
    if prepared is None:
        return
    train, evaluation, callbacks = add_context(prepared.train, prepared.evaluation, script_args, training_args)
    model = load_model(
        model_args.model_name_or_path, script_args.trainable, **init_arguments(model_args, training_args)
    )
    trainer = build_sft_trainer(
        model,
        prepared.processor,
        training_args,
        train,
        evaluation,
        template_kwargs=prepared.template_kwargs,
        peft_config=lora_config(model, model_args) if script_args.trainable == "lora" else None,
        callbacks=callbacks,
        optimizers=(muon(model, training_args) if script_args.muon else None, None),
    )
    _train("sft", trainer, prepared, script_args, model_args)


@_alone
def train_grpo(
    script_args: GRPOArguments,
    training_args: GRPOConfig,
    model_args: ModelConfig,
    data: DataKind,
    rewards: list[Callable[..., list[float]]],
    weights: list[float],
) -> None:
    """GRPO, from the checks to the model folder in `output_dir` (and to the Hub).

    Args:
        script_args, training_args, model_args: what `sgrl.training.launch.parse` gives.
        data: what the recipe's data set must be.
        rewards, weights: functions as TRL takes them, and how much each counts. They get the data set's columns.

    Raises:
        SgrlError: input that does not fit, before the model is loaded; the message names the line to change.
    """
    from sgrl.training.callbacks import ParityAlarm
    from sgrl.training.context import add_context
    from sgrl.training.watch import TrainingWatch, best_total

    training_args.reward_weights = weights
    alarm = ParityAlarm(script_args.parity_threshold, script_args.parity_action)
    watch = TrainingWatch(best=best_total(rewards, weights))
    identity = {"reward": script_args.reward, "similarity": script_args.similarity, "reward_weights": weights}
    if script_args.reward_protocol != "default":
        identity["reward_protocol"] = script_args.reward_protocol
    columns = ("image", "prompt", "solution", "width", "height", "image_id")  # the rewards see all but the prompt
    prepared = _prepare("grpo", script_args, training_args, model_args, data, columns, identity)
    if prepared is None:
        return
    training_args.chat_template_kwargs = prepared.template_kwargs
    check_prompts(prepared.train, training_args)
    without_missing_vllm(training_args)
    check_rollouts(training_args, script_args.vllm_engine_kwargs)
    for rows in (prepared.train, prepared.evaluation):
        check_room(rows, prepared.processor, prepared.template_kwargs, script_args, training_args)
    train, evaluation, of_context = add_context(prepared.train, prepared.evaluation, script_args, training_args)
    path = model_args.model_name_or_path
    if prepared.resized:  # vLLM reads the pixel budget from the model's folder
        with training_args.main_process_first():
            start = f"{training_args.output_dir}/start"
            path = model_folder(path, prepared.processor, start, model_args.model_revision)
    model = load_model(path, script_args.trainable, **init_arguments(model_args, training_args))

    from sgrl.training.grpo import SceneGraphGRPOTrainer

    trainer = SceneGraphGRPOTrainer(
        model,
        rewards,
        training_args,
        prepared.processor,
        vllm_engine_kwargs=script_args.vllm_engine_kwargs,
        train_dataset=train,
        eval_dataset=evaluation,
        peft_config=lora_config(model, model_args) if script_args.trainable == "lora" else None,
        callbacks=[alarm, watch, *of_context],
    )
    named = dict(zip((function.__name__ for function in rewards), weights, strict=True))
    _train("grpo", trainer, prepared, script_args, model_args, named)


def _prepare(recipe: str, script_args, training_args, model_args, data, columns, identity) -> _Prepared | None:
    """All checks and the rows; None for a run that was finished before."""
    from sgrl.training.watch import check_report_to

    path = model_args.model_name_or_path
    check_report_to(training_args.report_to)
    check_best(training_args)
    target = take_push_settings(training_args)
    check_model_folder(path)
    check_dataset(script_args.dataset, data)
    if script_args.thinking is None:
        script_args.thinking = thinks(path)
    identity = {"recipe": recipe, "model_name_or_path": path} | identity
    run = Run(training_args, identity | {name: getattr(script_args, name) for name in IDENTITY})
    if run.finished:
        publish(training_args.output_dir, target, training_args.process_index == 0)
        return None
    config = load_config(path, model_args, training_args.trust_remote_code)
    if torch.cuda.is_available() and (slow := missing_kernels(config)):
        logger.warning("%s", slow)
    check_checkpoint(run.checkpoint, config, script_args.trainable)
    processor = load_processor(path, model_args, training_args.trust_remote_code)
    resized = set_pixel_budget(processor, script_args.min_pixels, script_args.max_pixels)
    train, evaluation = load_rows(script_args, training_args, columns, processor)
    template_kwargs = template_arguments(processor, script_args.thinking)
    store_thinking(processor, template_kwargs)
    check_template(processor, config, template_kwargs, train[:1]["prompt"][0][-1]["content"])
    train, evaluation = (
        drop_long_rows(rows, processor, script_args.max_tokens, template_kwargs, answers=recipe == "sft")
        for rows in (train, evaluation)
    )
    return _Prepared(run, target, processor, resized, template_kwargs, train, evaluation)


def _train(recipe: str, trainer, prepared: _Prepared, script_args, model_args, rewards=None) -> None:
    """Train, save, write the card, publish."""
    args, first = trainer.args, trainer.args.process_index == 0
    log_parameters(trainer.model)
    if first:
        context = script_args.context or read_metadata(script_args.dataset).get("previous") or "none"
        warn_of_context(context, trained_context(model_args.model_name_or_path))
        store_context(args.output_dir, context)
    if args.device.type == "cpu":
        accept_numbered_cpus()
    trainer.train(resume_from_checkpoint=prepared.run.checkpoint)
    save_model(trainer, prepared.processor)
    if first:
        path, history = model_args.model_name_or_path, trainer.state.log_history
        write_card(args.output_dir, model_card(recipe, script_args, args, path, history, rewards))
    prepared.run.finish(trainer.state.global_step)
    publish(args.output_dir, prepared.target, first)
