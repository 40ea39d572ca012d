"""Model folders: whether one holds a whole vision-language model, its config and weights, and a copy to change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgrl.errors import SgrlError
from sgrl.hub import check_model, is_name
from sgrl.models.foreign import check_files, load_pretrained, load_weights
from sgrl.models.vlm.cpu import faster_on_cpu

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin
    from trl import ModelConfig

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


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
        if not is_name(path):
            raise SgrlError(f"the model folder {path} does not exist; check `model_name_or_path`")
        check_model(path)
        return
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


def load_vlm(path: str, **kwargs: Any) -> PreTrainedModel:
    """Load a vision-language model.

    Args:
        path: a model folder or a model on the Hub.
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
    return model


def _as_embeddings(embeddings: nn.Module):
    """A hook that gives visual features the dtype of the text's: under autocast they are in half precision.

    Other families do this themselves; Idefics and SmolVLM end in "Index put requires the source and destination dtypes
    match".
    """
    return lambda module, inputs, features: features.to(embeddings.weight.dtype)


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
