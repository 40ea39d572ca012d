"""Whether settings, model and checkpoint fit together, asked before the model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sgrl.errors import SgrlError
from sgrl.moved import moved_names

if TYPE_CHECKING:
    from transformers import PretrainedConfig, TrainingArguments

__getattr__ = moved_names(__name__)


def check_best(training_args: TrainingArguments) -> None:
    """Raise where `load_best_model_at_end` could not bring the best model back.

    transformers asks only that `save_steps` is a multiple of `eval_steps`, and then takes the best of the checkpoints
    that happen to be saved.
    """
    args = training_args
    if args.load_best_model_at_end and args.save_strategy == "steps" and args.save_steps != args.eval_steps:
        raise SgrlError(
            f"load_best_model_at_end can bring back saved checkpoints only, and every {args.eval_steps} steps one is "
            f"evaluated, every {args.save_steps} one is saved; set save_steps: {args.eval_steps}, or "
            "save_strategy: best"
        )


def check_checkpoint(checkpoint: str | None, config: PretrainedConfig, trainable: str) -> None:
    """Refuse to go on from a checkpoint of another architecture than `config`, or of LoRA where it is not `trainable`.

    Raises:
        SgrlError: names `resume_from_checkpoint`.
    """
    if checkpoint is None:
        return
    remedy = "remove resume_from_checkpoint, or choose another output_dir"
    if Path(checkpoint, "adapter_config.json").exists() != (trainable == "lora"):
        held = "the whole model's weights" if trainable == "lora" else "LoRA adapters"
        raise SgrlError(f"the checkpoint {checkpoint} holds {held}, but trainable is {trainable}; {remedy}")
    if trainable != "lora":
        found = json.loads(Path(checkpoint, "config.json").read_text())
        sizes = [found.get("text_config", found).get("hidden_size"), config.get_text_config().hidden_size]
        if found.get("model_type") != config.model_type or sizes[0] != sizes[1]:
            raise SgrlError(
                f"the checkpoint {checkpoint} holds {found.get('model_type')} of width {sizes[0]}, the model is "
                f"{config.model_type} of width {sizes[1]}; {remedy}"
            )
