"""What of a vision-language model trains: freezing, adapters, and saving it as an ordinary model folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.models.foreign import load_weights
from sgrl.models.vlm.folder import load_vlm
from sgrl.models.vlm.parts import aligners
from sgrl.moved import moved_names
from sgrl.task import Task
from sgrl.training.launch import TRAINABLE

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, ProcessorMixin
    from trl import ModelConfig

logger = logging.getLogger(__name__)
__getattr__ = moved_names(__name__)


def init_arguments(model_args: ModelConfig, training_args) -> dict[str, Any]:
    """The keyword arguments of `from_pretrained` that TRL's configs hold."""
    return {
        "dtype": model_args.dtype,
        "attn_implementation": model_args.attn_implementation,
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        **(training_args.model_init_kwargs or {}),
    }


def load_model(path: str, trainable: str = "decoder", **kwargs: Any) -> PreTrainedModel:
    """Load a vision-language model and freeze what does not train.

    Args:
        path: a model folder or a model on the Hub.
        trainable: `decoder`, `decoder+aligner`, `all`, or `lora` (as `decoder`; see `lora_config`).
        **kwargs: see `load_vlm`.

    Raises:
        SgrlError: as `load_vlm`; an unknown `trainable`.
    """
    model = load_vlm(path, **kwargs)
    freeze(model, trainable)
    return model


def freeze(model: PreTrainedModel, trainable: str) -> None:
    """Set `requires_grad` of every parameter: see `load_model` for `trainable`."""
    if trainable not in TRAINABLE:
        raise UsageError(f"unknown trainable: {trainable!r}{suggest(trainable, TRAINABLE)}")
    if trainable == "all":
        model.requires_grad_(True)
        return
    model.requires_grad_(False)
    model.get_decoder().requires_grad_(True)
    if model.get_output_embeddings() is not None:  # the same tensor as the input embeddings where they are tied
        model.get_output_embeddings().requires_grad_(True)
    if trainable == "decoder+aligner":
        for module in aligners(model):
            module.requires_grad_(True)


def lora_config(model: PreTrainedModel, trainable: str, model_args: ModelConfig):
    """The adapters of `trainable: lora`; None for another.

    They are on all linear layers of the language model unless `lora_target_modules` says.
    The output embeddings stay out: TRL computes log-probabilities from their weight directly.
    """
    if trainable != "lora":
        return None
    from torch import nn
    from trl import get_peft_config

    model_args.use_peft = True
    if model_args.lora_target_modules is None:
        decoder = model.get_decoder()
        prefix = next(name for name, module in model.named_modules() if module is decoder).replace(".", r"\.")
        leaves = {name.rpartition(".")[2] for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
        model_args.lora_target_modules = rf"{prefix}\..*\.({'|'.join(sorted(leaves))})"
    return get_peft_config(model_args)


def parameter_counts(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Trained and all parameters of each part of the model, tied ones counted once: {"language_model": (673, 673)}."""
    counts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        parts = [part for part in name.split(".") if part not in ("base_model", "model", "module")]
        count = counts.setdefault(parts[0], [0, 0])
        size = getattr(parameter, "ds_numel", parameter.numel())  # DeepSpeed ZeRO-3 keeps slices
        count[0] += size if parameter.requires_grad else 0
        count[1] += size
    return {name: (trained, total) for name, (trained, total) in counts.items()}


def log_parameters(model: nn.Module) -> None:
    """Say what trains and what is frozen."""
    counts = parameter_counts(model)
    trained, total = (sum(count[i] for count in counts.values()) for i in (0, 1))
    parts = ", ".join(f"{name} {count[0]:,} of {count[1]:,}" for name, count in counts.items())
    logger.info("training %s of %s parameters (%s)", f"{trained:,}", f"{total:,}", parts)
    if trained == 0:
        raise SgrlError("no parameter trains; check `trainable`")


def save_model(trainer, processor: ProcessorMixin) -> None:
    """Write the trained model and its processor to the run's `output_dir`, as an ordinary model folder.

    With LoRA the adapter goes to `output_dir/adapter` and the model with the adapter merged in to `output_dir`. What
    was logged at every step goes to `output_dir/trainer_state.json`.
    """
    output = Path(trainer.args.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(model, "peft_config"):
        trainer.save_model(str(output))
    else:
        trainer.save_model(str(output / "adapter"))
        if trainer.args.should_save:  # from the files, so that it works however the weights are spread over processes
            merge_adapter(output / "adapter", output, model.dtype, trainer.args.trust_remote_code)
    if trainer.args.should_save:
        processor.save_pretrained(output)
    trainer.save_state()
    # A process that ends earlier can take the others along, this one's writing included.
    trainer.accelerator.wait_for_everyone()


def merge_adapter(adapter: str | Path, output: str | Path, dtype="auto", trust_remote_code: bool = False) -> None:
    """Write the base model of a LoRA `adapter` folder, loaded as `dtype`, with the adapter merged into its weights."""
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForImageTextToText

    base = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    model = load_weights(AutoModelForImageTextToText, base, dtype=dtype, trust_remote_code=trust_remote_code)
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(output)
    if (task := Task.find(adapter)) is not None:
        task.write(output)
