"""What an engine is: it takes images and chats, and gives what a model wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sgrl.errors import SgrlError

if TYPE_CHECKING:
    from PIL.Image import Image

    from sgrl.models.vlm.chat import Chat

BASE_URL, KEY_VARIABLE = "http://localhost:8000/v1", "OPENAI_API_KEY"


@dataclass(frozen=True)
class EngineSettings:
    """How an engine runs a model. What an engine has no use for it does not read.

    Attributes:
        max_new_tokens: limit of one answer.
        batch_size: images at a time; 256 on a GPU, 64 elsewhere, and 16 requests at once to a server by default.
        dtype: "auto" is bfloat16 on a GPU; on a CPU float32, and bfloat16 for models with linear attention, whose
            CPU kernels in vLLM have no float32.
        max_model_length: prompt and answer together, in tokens (vLLM reserves memory by it).
        gpu_memory_utilization: share of the GPU's memory that vLLM may take.
        thinking: whether the chat template opens a thinking block, where it has one. None: as the model was trained.
            A server's template is told through `extra_body`.
        images: the most that a prompt has; 0 if it will be asked about text alone: then a language model will do.
        base_url: of a server, up to and with /v1.
        api_key_variable: name of the environment variable that holds the server's key; without one none is sent.
        timeout: seconds that a request to a server may take in all, connection, answer and error included.
        attempts: how often such a request is sent at most.
        extra_body: more fields of every request, e.g. {"chat_template_kwargs": {"enable_thinking": False}}. A null
            takes one of ours out ({"logprobs": None} for a server that refuses it).
    """

    max_new_tokens: int = 1024
    batch_size: int | None = None
    dtype: str = "auto"
    max_model_length: int = 8192
    gpu_memory_utilization: float = 0.9
    thinking: bool | None = None
    images: int = 1
    base_url: str = BASE_URL
    api_key_variable: str = KEY_VARIABLE
    timeout: float = 120.0
    attempts: int = 6
    extra_body: Mapping[str, Any] = field(default_factory=dict)


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

    def generate(
        self,
        images: Sequence[Image | Sequence[Image] | None],
        prompts: Sequence[Chat],
        grammars: Sequence[str | None] | None = None,
    ) -> list[Generation]:
        """One generation per image, in order.

        Args:
            images: seen through the processor saved with the model; a list for a prompt of several, None for a
                prompt of text alone.
            prompts: chats as in a data set's `prompt` column ([{"role": "user", "content": str}]); the images are put
                before the text of the first user turn. A last message of the assistant is how the answer begins; the
                generation is what follows.
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


def check_batch(images: Sequence, prompts: Sequence, grammars: Sequence | None) -> Sequence[str | None]:
    """Raise unless there is one of each for every image; returns the grammars, None where there is none."""
    if len(images) != len(prompts):
        raise SgrlError(f"{len(images)} images and {len(prompts)} prompts; expected one prompt for each image")
    if grammars is None:
        return [None] * len(images)
    if len(images) != len(grammars):
        raise SgrlError(f"{len(images)} images and {len(grammars)} grammars; expected one grammar for each image")
    return grammars
