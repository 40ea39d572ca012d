"""How many tokens a prompt and an answer are, as the trainer will make them; images have `processor.visual_tokens`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sgrl.models.vlm.chat import with_images
from sgrl.models.vlm.template import render

if TYPE_CHECKING:
    from transformers import ProcessorMixin

END_OF_TURN = 2
"""Tokens that the template puts behind an answer: the end of the turn, and of its line."""


def rendered_prompt(
    processor: ProcessorMixin, messages: Sequence[dict], images: int, template_arguments: dict[str, Any]
) -> tuple[str, int]:
    """A prompt as the model's template writes it, and its tokens without the placeholders of its images."""
    chat = with_images(messages, images)
    text = render(processor.tokenizer, chat, chat_template=processor.chat_template, **template_arguments)
    return text, len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) - images


def answer_tokens(processor: ProcessorMixin, answers: Sequence[str]) -> list[int]:
    """The tokens of each answer, with the end of its turn."""
    return [len(ids) + END_OF_TURN for ids in processor.tokenizer(answers, add_special_tokens=False)["input_ids"]]
