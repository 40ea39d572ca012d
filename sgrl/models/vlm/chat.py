"""Chats to prompts, in one way for every engine."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sgrl.errors import SgrlError
from sgrl.models.vlm.processor import load_processor, refusal
from sgrl.models.vlm.template import render, template_arguments

if TYPE_CHECKING:
    from PIL.Image import Image

    Chat = Sequence[dict]


class RefusedPrompt(SgrlError):
    """An engine does not take one of the prompts of a batch, because it is too long for instance."""


def with_images(messages: Chat, count: int) -> list[dict]:
    """A chat whose contents are lists of parts (a template may take nothing else), with placeholders of images.

    They stand before the text of the first user turn, unless the chat has placed some itself.
    """
    messages = [dict(message) for message in messages]
    for message in messages:
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
    first = next((message for message in messages if message["role"] == "user"), None)
    if first and not any(part["type"] == "image" for message in messages for part in message["content"]):
        first["content"] = [{"type": "image"}] * count + first["content"]
    return messages


def images_of(shown: Image | Sequence[Image] | None) -> list[Image]:
    """What an engine is given beside one prompt, as a list."""
    if shown is None:
        return []
    return list(shown) if isinstance(shown, Sequence) else [shown]


class ChatRenderer:
    """Chats to prompt text and token ids, in one way for every engine. Holds the model's processor.

    Attributes:
        processor: a language model's is its tokenizer. sees: whether the model takes images.
    """

    def __init__(self, model: str, thinking: bool | None = None, images: bool = True):
        self.processor = load_processor(model, images=images)
        self.tokenizer = getattr(self.processor, "tokenizer", self.processor)
        self.sees = self.processor is not self.tokenizer
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._template_arguments = template_arguments(self.processor, thinking)
        self._refusal = functools.lru_cache(maxsize=4096)(functools.partial(refusal, self.processor))
        self._pieces: dict[int, str] = {}

    def text(self, messages: Chat, images: int = 1) -> str:
        """The prompt of a chat with so many image placeholders, ready for the answer.

        A last message of the assistant is how the answer begins.
        """
        *before, last = messages
        if last["role"] == "assistant":
            return self.text(before, images) + last["content"]
        messages = with_images(messages, images) if self.sees else [dict(message) for message in messages]
        return render(self.processor, messages, **self._template_arguments)

    def check_images(self, images: Sequence[Image | Sequence[Image] | None]) -> None:
        """Raise RefusedPrompt for an image that the processor does not take: 3000 x 14 pixels, for most."""
        for size in {image.size for shown in images for image in images_of(shown)}:
            if self.sees and (reason := self._refusal(size)):
                raise RefusedPrompt(reason)

    def token_ids(self, messages: Chat, images: int = 1) -> list[int]:
        """The same as token ids, each placeholder as one token: vLLM expands it to the image's tokens itself."""
        return self.tokenizer(self.text(messages, images), add_special_tokens=False)["input_ids"]

    def decode(self, token_ids: Sequence[int]) -> tuple[str, tuple[str, ...]]:
        """The text of an answer, and the piece of it that each token wrote ("" for special tokens)."""
        text = self.tokenizer.decode(token_ids, skip_special_tokens=True)
        pieces = tuple(map(self._piece, token_ids))
        if "".join(pieces) != text:  # characters spread over tokens, or blanks that depend on what is before
            ends = [
                len(self.tokenizer.decode(token_ids[:end], skip_special_tokens=True))
                for end in range(1, len(token_ids) + 1)
            ]
            starts = [0, *ends[:-1]]
            pieces = tuple(text[start:end] for start, end in zip(starts, ends, strict=True))
        return text, pieces

    def _piece(self, token: int) -> str:
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self.tokenizer.decode([token], skip_special_tokens=True)
        return piece
