"""transformers' own `generate`: slower than vLLM, and wherever torch runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from sgrl.errors import SgrlError
from sgrl.inference.engines import ChatRenderer, Generation, check_batch
from sgrl.training.model import placeholder_ids

logger = logging.getLogger(__name__)


class TransformersEngine:
    """See `sgrl.inference.load_engine`."""

    name = "transformers"

    def __init__(self, model: str, chat: ChatRenderer, max_new_tokens: int, batch_size: int | None, dtype: str):
        import torch
        from transformers import AutoModelForImageTextToText, GenerationConfig

        if torch.cuda.is_available():
            self._device = "cuda"
        else:
            self._device = "mps" if torch.backends.mps.is_available() else "cpu"
        if dtype == "auto":
            dtype = "bfloat16" if self._device == "cuda" else "float32"
        try:
            self._model = AutoModelForImageTextToText.from_pretrained(model, dtype=getattr(torch, dtype))
        except (OSError, ValueError) as error:
            raise SgrlError(f"the model {model} does not load: {error}") from error
        self._model.to(self._device).eval()
        self.chat = chat
        self.batch_size = batch_size or (256 if self._device == "cuda" else 64)
        ends = self._model.generation_config.eos_token_id or chat.tokenizer.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        # A fresh configuration: the one saved with a model may sample or punish repetition, which a graph is full of.
        self._model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(self._ends),
            pad_token_id=chat.tokenizer.pad_token_id,
            suppress_tokens=placeholder_ids(self._model.config, chat.processor) or None,
        )
        logger.info("transformers runs %s in %s on %s.", model, dtype, self._device)

    def generate(self, images: Sequence, prompts: Sequence) -> list[Generation]:
        check_batch(images, prompts)
        generations: list[Generation] = []
        for first in range(0, len(images), self.batch_size):
            batch = slice(first, first + self.batch_size)
            generations += self._generate(images[batch], prompts[batch])
        return generations

    def _generate(self, images: Sequence, prompts: Sequence) -> list[Generation]:
        import torch

        start = time.perf_counter()
        inputs = self.chat.processor(
            text=[self.chat.text(prompt) for prompt in prompts],
            images=[
                [image.convert("RGB")] for image in images
            ],  # one list per prompt, or images are dealt out wrongly
            padding=True,
            add_special_tokens=False,
            return_tensors="pt",
        ).to(self._device)
        with torch.inference_mode():
            output = self._model.generate(**inputs)
        rows = output[:, inputs["input_ids"].shape[1] :].tolist()
        seconds = (time.perf_counter() - start) / max(len(rows), 1)
        generations = []
        for row in rows:
            end = next((index for index, token in enumerate(row) if token in self._ends), None)
            tokens = row if end is None else row[: end + 1]
            reason = "length" if end is None else "stop"
            generations.append(Generation(self.chat.decode(tokens), len(tokens), seconds, reason))
        return generations

    def close(self) -> None:
        del self._model
