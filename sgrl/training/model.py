"""Loading, freezing and saving a vision-language model, and the pixel budget of its processor."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgrl.errors import SgrlError, suggest
from sgrl.training.cpu import faster_on_cpu
from sgrl.training.foreign import check_files, load_pretrained, load_weights, try_template
from sgrl.training.launch import TRAINABLE

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin
    from trl import ModelConfig

logger = logging.getLogger(__name__)

# What each family calls the module between its vision tower and its language model:
# Qwen-VL (the second for Qwen3-VL's deepstack), InternVL/LLaVA/Gemma 3/LFM2-VL, Idefics/SmolVLM, Gemma 4.
ALIGNER_NAMES = ("merger", "deepstack_merger_list", "multi_modal_projector", "connector", "embed_vision")

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")

# What a chat template begins with once a run has decided: what it does when nobody tells it `enable_thinking`.
_THINKING = "{{%- if enable_thinking is not defined %}}{{% set enable_thinking = {} %}}{{% endif -%}}\n"
_STORED = re.compile(
    r"\{%- if enable_thinking is not defined %\}\{% set enable_thinking = (true|false) %\}\{% endif -%\}\n"
)


def check_model_folder(path: str | None, images: bool = True) -> None:
    """Refuse, before anything is loaded, a folder that holds no whole vision-language model.

    A name that is no folder here counts as a model on the Hugging Face Hub, unless it can only be a path.

    Args:
        path: folder or name. images: False lets a language model without a processor pass.

    Raises:
        SgrlError: says what is missing or damaged and where it comes from.
    """
    if path is None:
        raise SgrlError(
            "no model is given; add `model_name_or_path: DIR` to the YAML file or --model_name_or_path DIR"
        )
    folder = Path(path)
    if not folder.exists():
        if path.startswith((".", "/", "~")) or path.count("/") != 1 or folder.parent.is_dir():
            raise SgrlError(f"the model folder {path} does not exist; check `model_name_or_path`")
        return  # owner/name on the Hub
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if "config.json" not in names:
        if "adapter_config.json" in names:
            found = "holds a LoRA adapter alone; name the merged model, which its run saved one folder up"
        elif any(name.startswith("checkpoint-") for name in names):
            found = "holds checkpoints but no finished model; finish that run, or name one of its checkpoint folders"
        else:
            found = "has no config.json; expected a folder that `save_pretrained` wrote"
        raise SgrlError(f"the model folder {path} {found}")
    check_files(folder)
    for what, files in (("processor", PROCESSOR_FILES), ("tokenizer", ("tokenizer.json", "tokenizer_config.json"))):
        if names.isdisjoint(files) and (images or what == "tokenizer"):
            raise SgrlError(
                f"the model folder {path} has no {what} ({' or '.join(files)}); save the base model's there: "
                f"AutoProcessor.from_pretrained(BASE).save_pretrained({path!r})"
            )


def load_processor(
    path: str, model_args: ModelConfig | None = None, trust_remote_code: bool = False, images: bool = True
) -> ProcessorMixin:
    """The processor of a model folder or Hub model, padding on the left as GRPO needs.

    GRPO tokenises twice, the second time with the tokenizer's own side (huggingface/trl#5785).

    Args:
        images: False lets a language model pass, whose "processor" is its tokenizer.

    Raises:
        SgrlError: if there is none, it has no image processor, or no chat template that ends well.
    """
    from transformers import AutoProcessor

    revision = {} if model_args is None else {"revision": model_args.model_revision}
    processor = load_pretrained(AutoProcessor, path, "processor of", trust_remote_code=trust_remote_code, **revision)
    if images and getattr(processor, "image_processor", None) is None:
        raise SgrlError(
            f"{path} is not a vision-language model: its processor ({type(processor).__name__}) takes no images"
        )
    if processor.chat_template is None:
        raise SgrlError(
            f"the processor of {path} has no chat template; expected chat_template.jinja in the model folder"
        )
    try_template(processor, hasattr(processor, "tokenizer"))
    getattr(processor, "tokenizer", processor).padding_side = "left"
    return processor


def template_arguments(processor: ProcessorMixin, thinking: bool | None = None) -> dict[str, Any]:
    """What the chat template is told about thinking: the same in SFT, GRPO and inference, nothing if it cannot think.

    Args:
        thinking: None takes what the model was trained with (see `store_thinking`), and no thinking for a model that
            was not trained here.

    Raises:
        SgrlError: for `thinking` with a template that has no such switch.
    """
    template = str(processor.chat_template)
    if "enable_thinking" in template:
        stored = _STORED.match(template)
        return {"enable_thinking": bool(stored and stored[1] == "true") if thinking is None else thinking}
    if thinking:
        raise SgrlError(
            "thinking: true, but the model's chat template has no `enable_thinking`; remove the line (--thinking)"
        )
    return {}


def store_thinking(processor: ProcessorMixin, template_kwargs: dict[str, Any]) -> None:
    """Make a run's decision the chat template's own default, so that whatever loads the saved folder follows it.

    Args:
        processor: its template, and its tokenizer's, are changed.
        template_kwargs: what `template_arguments` gave; without `enable_thinking` nothing changes.
    """
    if "enable_thinking" in template_kwargs and isinstance(processor.chat_template, str):  # not several by name
        line = _THINKING.format(str(template_kwargs["enable_thinking"]).lower())
        processor.chat_template = line + _STORED.sub("", processor.chat_template, count=1)
        if getattr(processor, "tokenizer", None) is not None:
            processor.tokenizer.chat_template = processor.chat_template


def thinks(path: str) -> bool:
    """Whether the model of a folder or on the Hub was trained to think; see `store_thinking`."""
    template = Path(path, "chat_template.jinja")
    if Path(path).is_dir():  # read without transformers, whose import takes seconds
        stored = _STORED.match(template.read_text("utf-8", "replace")) if template.is_file() else None
        return bool(stored and stored[1] == "true")
    return template_arguments(load_processor(path, images=False)).get("enable_thinking", False)


@contextmanager
def own_configs() -> Iterator[None]:
    """Build vLLM's engine inside this block: transformers' classes of configurations are then as they were.

    vLLM puts its own in their place (Qwen3.5's for one), with which transformers loads no model any more: no merged
    LoRA after GRPO, no second engine.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    registered = dict(CONFIG_MAPPING._extra_content)
    try:
        yield
    finally:
        CONFIG_MAPPING._extra_content = registered


def placeholder_ids(config: PretrainedConfig, processor: ProcessorMixin) -> list[int]:
    """The tokens that stand for images and videos in a prompt, and that no answer may hold."""
    names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
    found = {getattr(owner, name, None) for owner in (config, processor) for name in names}
    return sorted(token for token in found if isinstance(token, int))


def uses_linear_attention(config: PretrainedConfig) -> bool:
    """Whether a model has linear-attention layers (Qwen3.5, for one), for which vLLM on CPUs has bfloat16 alone."""
    return "linear_attention" in (getattr(config.get_text_config(), "layer_types", None) or ())


LINEAR_ATTENTION_KERNELS = {"fla": "flash-linear-attention", "causal_conv1d": "causal-conv1d"}
"""Modules that transformers takes for linear attention where they are, and the packages that hold them."""


def missing_kernels(config: PretrainedConfig) -> str | None:
    """What slows a model's linear attention down on this machine and how to mend it; None if nothing does.

    transformers falls back to PyTorch code, which is right and more than ten times slower on a GPU.
    """
    missing = [name for module, name in LINEAR_ATTENTION_KERNELS.items() if importlib.util.find_spec(module) is None]
    if not missing or not uses_linear_attention(config):
        return None
    return (
        f"this model has linear attention, which runs as slow PyTorch code without {' and '.join(missing)}; "
        f"pip install --no-build-isolation {' '.join(missing)}"
    )


def pixel_budget(processor: ProcessorMixin) -> tuple[int, int] | None:
    """The (fewest, most) pixels of an image that the model sees, or None where the family has no such budget."""
    if "max_pixels" not in getattr(processor.image_processor.valid_kwargs, "__annotations__", {}):
        return None  # SmolVLM and InternVL cut images into tiles, Gemma resizes to one size
    size = processor.image_processor.size
    return int(size["shortest_edge"]), int(size["longest_edge"])


def set_pixel_budget(processor: ProcessorMixin, min_pixels: int | None, max_pixels: int | None) -> bool:
    """Change the processor's budget where a bound is given; returns whether it changed.

    Raises:
        SgrlError: for a family without a budget, or bounds in the wrong order.
    """
    if min_pixels is None and max_pixels is None:
        return False
    found = pixel_budget(processor)
    if found is None:
        raise SgrlError(
            f"{type(processor.image_processor).__name__} has no pixel budget; remove min_pixels and max_pixels and "
            "resize the images when the data set is prepared"
        )
    wanted = (min_pixels or found[0], max_pixels or found[1])
    if not 0 < wanted[0] <= wanted[1]:
        raise SgrlError(f"min_pixels must be positive and at most max_pixels; they are {wanted[0]} and {wanted[1]}")
    # A new mapping: the processor's may be the default that its class shares.
    processor.image_processor.size = {"shortest_edge": wanted[0], "longest_edge": wanted[1]}
    return wanted != found


def model_folder(path: str, processor: ProcessorMixin, output: str | Path, revision: str | None = None) -> str:
    """A folder with the weights of `path` (linked, not copied) and this `processor`, written to `output`.

    vLLM reads the processor of the model's folder and nothing else, so a changed pixel budget has to be there.
    """
    source = Path(path)
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(path, revision=revision))
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    written = {Path(name).name for name in processor.save_pretrained(output) or ()}
    for file in source.resolve().iterdir():
        target = output / file.name
        if file.is_file() and file.name not in written | set(PROCESSOR_FILES) and not target.is_file():
            target.unlink(missing_ok=True)  # a link whose file is gone
            os.symlink(file.resolve(), target)
    return str(output)


def check_same_processor(path: str, processor: ProcessorMixin, trust_remote_code: bool = False) -> None:
    """Refuse a trainer whose images are prepared otherwise than vLLM's, which reads its processor from `path`.

    Such a pair crashes in the position ids or, worse, trains on images of another size (huggingface/trl#6401).
    """
    names = {"image_processor_type", "processor_class", "video_processor_type"}
    ours = processor.image_processor.to_dict()
    theirs = load_processor(path, trust_remote_code=trust_remote_code).image_processor.to_dict()
    for key in sorted((ours.keys() | theirs.keys()) - names):
        if ours.get(key) != theirs.get(key):
            raise SgrlError(
                f"the trainer's image processor has {key} = {ours.get(key)}, that of {path}, which vLLM reads, has "
                f"{theirs.get(key)}; save the trainer's there: processor.save_pretrained({path!r})"
            )


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
        **kwargs: of `from_pretrained`, e.g. `dtype`. `attn_implementation` is `sdpa` unless given.

    Raises:
        SgrlError: if `path` holds no vision-language model, or a damaged one.
    """
    from transformers import AutoModelForImageTextToText

    kwargs["attn_implementation"] = kwargs.get("attn_implementation") or "sdpa"
    model = load_weights(AutoModelForImageTextToText, path, **kwargs)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "connector":  # Idefics and SmolVLM
            module.register_forward_hook(_as_embeddings(model.get_input_embeddings()))
    faster_on_cpu(model)
    freeze(model, trainable)
    return model


def _as_embeddings(embeddings: nn.Module):
    """A hook that gives visual features the dtype of the text's: under autocast they are in half precision.

    Other families do this themselves; Idefics and SmolVLM end in "Index put requires the source and destination dtypes
    match".
    """
    return lambda module, inputs, features: features.to(embeddings.weight.dtype)


def freeze(model: PreTrainedModel, trainable: str) -> None:
    """Set `requires_grad` of every parameter: see `load_model` for `trainable`."""
    if trainable not in TRAINABLE:
        raise SgrlError(f"unknown trainable: {trainable!r}{suggest(trainable, TRAINABLE)}")
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


def aligners(model: PreTrainedModel) -> list[nn.Module]:
    """The modules that carry visual features into the language model."""
    decoder = set(model.get_decoder().modules())
    found = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in ALIGNER_NAMES and module not in decoder
    ]
    if not found:
        raise SgrlError(
            f"{type(model).__name__} has no module called {', '.join(ALIGNER_NAMES)}: its aligner is unknown. "
            "Use trainable: decoder or all"
        )
    return found


def lora_config(model: PreTrainedModel, model_args: ModelConfig):
    """The adapters of `trainable: lora`: on all linear layers of the language model unless `lora_target_modules` says.

    The output embeddings stay out: TRL computes log-probabilities from their weight directly.
    """
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
