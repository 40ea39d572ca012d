"""Engines that write a graph for an image: vLLM, transformers, any server with OpenAI's interface; all greedy.

    engine = load_engine("auto", "runs/grpo", max_new_tokens=1024)
    generations = engine.generate(images, prompts)   # one image and one chat each

vLLM and transformers render prompts by the same code, load the same processor and never write an image placeholder, so
in float32 they give the same text, as does `vllm serve`.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from sgrl.command import set_environment
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.extras import install
from sgrl.inference.engine import Engine, EngineSettings, Generation
from sgrl.models.foreign import load_pretrained
from sgrl.models.vlm.folder import check_model_folder
from sgrl.moved import moved_names

logger = logging.getLogger(__name__)
__getattr__ = moved_names(__name__)

CLASSES = {
    "vllm": "sgrl.inference.vllm_engine:VllmEngine",
    "transformers": "sgrl.inference.transformers_engine:TransformersEngine",
    "openai": "sgrl.inference.openai_engine:OpenAIEngine",
}
"""Each engine's class, imported when it is asked for and made with a model and `EngineSettings`."""

__all__ = ["CLASSES", "DTYPES", "ENGINES", "Engine", "EngineSettings", "Generation", "load_engine"]

ENGINES = ("auto", *CLASSES)
DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_engine(name: str, model: str | Path, settings: EngineSettings | None = None, **changes: Any) -> Engine:
    """Load a model for inference.

    Args:
        name: "vllm", "transformers", "openai", or "auto": vLLM where it imports and runs this model on this machine,
            else transformers (which one, and why, goes to the log).
        model: a model folder or a Hub id. Its processor must be saved with it. For "openai" the server's name of it.
        settings: how it runs. changes: fields of `EngineSettings` that differ from those of `settings`.

    Raises:
        SgrlError: an unknown engine, vLLM asked for but not usable, a model without config, weights or processor.
    """
    settings = replace(settings or EngineSettings(), **changes)
    if name not in ENGINES:
        raise UsageError(f"unknown engine {name!r}{suggest(name, ENGINES)}")
    if settings.dtype not in DTYPES:
        raise UsageError(f"unknown dtype {settings.dtype!r}{suggest(settings.dtype, DTYPES)}")
    model = str(model)
    if name == "openai":
        return _class_of(name)(model, settings)
    check_model_folder(model, settings.images > 0)
    set_environment()
    wanted = name
    if name != "transformers":
        name = _vllm_or_transformers(name)
    from transformers import AutoConfig

    load_pretrained(AutoConfig, model, "config of")  # what is wrong here has many faces later
    try:
        return _class_of(name)(model, settings)
    except SgrlError as error:
        if (wanted, name) != ("auto", "vllm"):
            raise
        logger.warning("Using transformers, because %s", error)
    return _class_of("transformers")(model, settings)


def _vllm_or_transformers(name: str) -> str:
    """Which of the two runs here, where vLLM (or "auto") is asked for."""
    from sgrl.inference.vllm_engine import obstacle

    found = obstacle()
    if found and name == "vllm":
        raise SgrlError(
            f"the engine 'vllm' was asked for, but {found}; install it ({install('vllm')}) "
            "or use the engine 'transformers'"
        )
    if found:
        logger.warning("Using transformers, because %s.", found)
    return "transformers" if found else "vllm"


def _class_of(name: str) -> type:
    module, _, found = CLASSES[name].partition(":")
    return getattr(importlib.import_module(module), found)
