"""Model folders that other people made. No code of theirs runs, and what is wrong is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sgrl.errors import SgrlError
from sgrl.terminal import printable

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
LONGEST_REASON = 300  # characters of an error that is handed on


def load_pretrained(kind: Any, path: str, what: str, **kwargs: Any):
    """`kind.from_pretrained(path, **kwargs)`, where a model's own code runs only if `trust_remote_code` is True.

    Args:
        what: is loaded, for the message: "processor of" for one.

    Raises:
        SgrlError: for whatever is wrong; a damaged file fails in as many ways as there are lines that read it.
    """
    kwargs["trust_remote_code"] = bool(kwargs.get("trust_remote_code"))  # None asks a question on the terminal
    try:
        return kind.from_pretrained(path, **kwargs)
    except Exception as error:
        if "trust_remote_code" in str(error):
            said = "it needs code of its own, which is not run"
            change = "take a model of an architecture that transformers has (trust_remote_code: true trains others)"
        else:
            said, change = reason(error), "check `model_name_or_path` or --model, and copy or save the folder again"
        raise SgrlError(f"the {what} {path} cannot be loaded: {said}; {change}") from error


def load_weights(kind: type, path: str, **kwargs: Any):
    """A model by `load_pretrained`: from safetensors, never from pickles, and never with weights made up at random."""
    model, found = load_pretrained(kind, path, "model", use_safetensors=True, output_loading_info=True, **kwargs)
    missing = sorted(found["missing_keys"])
    if missing:
        raise SgrlError(
            f"the weights of {path} lack {len(missing)} tensors that its config.json wants, "
            f"{printable(missing[0], 100)} for one; copy or save the folder again"
        )
    return model


def reason(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {printable(' '.join(str(error).split()), LONGEST_REASON)}"


def check_files(folder: Path) -> None:
    """Refuse a model folder whose config.json or weights cannot be read; their headers are, no weight is.

    Raises:
        SgrlError: names the file.
    """
    from safetensors import SafetensorError, safe_open

    config = read_object(folder / "config.json")
    files = sorted(folder.glob("*.safetensors"))
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if not files and pickles:
        raise SgrlError(
            f"the model folder {folder} has its weights as pickles ({printable(pickles[0], 100)}), which may hold "
            "code and are not loaded; expected *.safetensors: where you trust it, load it with transformers and save "
            "it with save_pretrained"
        )
    if not files:
        kind = printable(config.get("model_type"), 40)
        raise SgrlError(f"the model folder {folder} has no weights (*.safetensors); expected those of a {kind}")
    for file in files:
        try:
            with safe_open(file, "np") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise SgrlError(f"the weights {file} cannot be read ({reason(error)}); copy or train them again") from None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = read_object(index).get("weight_map")
        shards = set(map(str, shards.values())) if isinstance(shards, dict) else {"none"}
        missing = sorted(shards - {file.name for file in files})
        if missing:
            raise SgrlError(
                f"{index} names {len(missing)} files that are not there, {printable(missing[0], 100)} for one; copy "
                "the folder again"
            )


def read_object(path: Path) -> dict:
    """A JSON object of a model folder."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        said = f"it is a {type(found).__name__}"
    except (OSError, ValueError, RecursionError) as error:
        said = reason(error)
    raise SgrlError(f"{path} is no JSON object ({said}); copy or save the folder again")
