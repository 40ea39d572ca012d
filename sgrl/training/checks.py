"""Whether model, checkpoint and chat template fit together, asked before the model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgrl.errors import SgrlError
from sgrl.training.foreign import load_pretrained, render
from sgrl.training.model import placeholder_ids

if TYPE_CHECKING:
    from transformers import PretrainedConfig, ProcessorMixin, TrainingArguments
    from trl import ModelConfig


def load_config(path: str, model_args: ModelConfig | None = None, trust_remote_code: bool = False) -> PretrainedConfig:
    """The config of a model folder or Hub model that reads images and writes text.

    Raises:
        SgrlError: for another architecture, or weights of another shape than the config says.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    revision = {} if model_args is None else {"revision": model_args.model_revision}
    config = load_pretrained(AutoConfig, path, "config of", trust_remote_code=trust_remote_code, **revision)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not hasattr(config, "auto_map"):
        raise SgrlError(
            f"{path} holds {', '.join(config.architectures or [config.model_type])}, which writes no text about "
            "images; set `model_name_or_path` to a vision-language model"
        )
    _check_embeddings(path, config)
    return config


def _check_embeddings(path: str, config: PretrainedConfig) -> None:
    """Compare one tensor that every model has with the config; from_pretrained would start anew what does not fit."""
    from safetensors import SafetensorError, safe_open

    text = config.get_text_config()
    wanted = (getattr(text, "vocab_size", None), getattr(text, "hidden_size", None))
    for file in sorted(Path(path).glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                names = [name for name in tensors.keys() if name.endswith("embed_tokens.weight")]  # noqa: SIM118
                found = [tuple(tensors.get_slice(name).get_shape()) for name in names]
        except (SafetensorError, OSError) as error:
            raise SgrlError(f"the weights {file} cannot be read ({error}); copy or train them again") from error
        if None not in wanted and found and wanted not in found:
            raise SgrlError(
                f"{file} holds the weights of another model: its embeddings are {found[0][0]} x {found[0][1]}, the "
                f"config.json beside it says {wanted[0]} x {wanted[1]}; check `model_name_or_path`"
            )


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


def check_template(
    processor: ProcessorMixin, config: PretrainedConfig, template_kwargs: dict[str, Any], text: str
) -> str:
    """Refuse a chat template that does not give an image and a text exactly one placeholder for the image.

    Args:
        text: of a prompt.

    Returns: what the template makes of them.
    """
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
    rendered = render(processor, [message], **template_kwargs)
    ids = processor.tokenizer(rendered, add_special_tokens=False)["input_ids"]
    found = sum(ids.count(token) for token in placeholder_ids(config, processor))
    if found != 1:
        raise SgrlError(
            f"the chat template gives {found} placeholders for one image, expected 1; take chat_template.jinja and "
            "the tokenizer of the base model, and prompts without the model's special tokens"
        )
    return rendered
