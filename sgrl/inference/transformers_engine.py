"""transformers' own `generate`: slower than vLLM, and wherever torch runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from sgrl import precision
from sgrl.extras import require
from sgrl.inference.engine import EngineSettings, Generation, check_batch
from sgrl.models.foreign import load_weights
from sgrl.models.vlm.chat import ChatRenderer, images_of
from sgrl.models.vlm.cpu import faster_on_cpu
from sgrl.models.vlm.parts import placeholder_ids

logger = logging.getLogger(__name__)


class TransformersEngine:
    """See `sgrl.inference.load_engine`."""

    name = "transformers"

    def __init__(self, model: str, settings: EngineSettings):
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig

        self.chat = chat = ChatRenderer(model, settings.thinking, bool(settings.images))
        self._device = precision.device()
        dtype = precision.choose(self._device, settings.dtype)
        kind = AutoModelForImageTextToText if chat.sees else AutoModelForCausalLM
        self._model = load_weights(kind, model, dtype=getattr(torch, dtype))
        self._model.to(self._device).eval()
        faster_on_cpu(self._model)
        self.batch_size = settings.batch_size or (256 if self._device == "cuda" else 64)
        ends = self._model.generation_config.eos_token_id or chat.tokenizer.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        # A fresh configuration: the one saved with a model may sample or punish repetition, which a graph is full of.
        self._model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=sorted(self._ends),
            pad_token_id=chat.tokenizer.pad_token_id,
        )
        self._banned = placeholder_ids(self._model.config, chat.processor)
        self._compiler: Any = None  # xgrammar's, made with the first grammar
        logger.info("transformers runs %s in %s on %s.", model, dtype, self._device)

    def generate(
        self, images: Sequence, prompts: Sequence, grammars: Sequence[str | None] | None = None
    ) -> list[Generation]:
        grammars = check_batch(images, prompts, grammars)
        self.chat.check_images(images)
        # Prompts with and without an image, and those with and without a grammar, don't share a batch.
        kinds: dict[tuple[bool, bool], list[int]] = {}
        images = list(map(images_of, images))
        for index, (shown, grammar) in enumerate(zip(images, grammars, strict=True)):
            kinds.setdefault((not shown, grammar is None), []).append(index)
        generations: list = [None] * len(images)
        for indices in kinds.values():
            for first in range(0, len(indices), self.batch_size):
                batch = indices[first : first + self.batch_size]
                found = self._generate(*([column[index] for index in batch] for column in (images, prompts, grammars)))
                for index, generation in zip(batch, found, strict=True):
                    generations[index] = generation
        return generations

    def _generate(self, images: list, prompts: list, grammars: list) -> list[Generation]:
        import torch
        from transformers import SuppressTokensLogitsProcessor

        start = time.perf_counter()
        inputs = self.chat.processor(
            text=[self.chat.text(prompt, len(shown)) for prompt, shown in zip(prompts, images, strict=True)],
            # one list per prompt, or images are dealt out wrongly
            **({"images": [[one.convert("RGB") for one in shown] for shown in images]} if images[0] else {}),
            padding=True,
            add_special_tokens=False,
            return_tensors="pt",
        ).to(self._device)
        recorder = _Recorder()
        processors = [recorder]  # first: what vLLM reports are log-probabilities before any token is taken away
        if self._banned:
            processors.append(SuppressTokensLogitsProcessor(self._banned, device=self._device))
        if grammars[0] is not None:
            processors.append(self._constraint(grammars))
        with torch.inference_mode():
            output = self._model.generate(**inputs, logits_processor=processors)
            logprobs = recorder.finished(output).tolist()
        length = inputs["input_ids"].shape[1]
        rows = output[:, length:].tolist()
        seconds = (time.perf_counter() - start) / max(len(rows), 1)
        generations = []
        for row, row_logprobs, mask in zip(rows, logprobs, inputs["attention_mask"], strict=True):
            end = next((index for index, token in enumerate(row) if token in self._ends), None)
            tokens = row if end is None else row[: end + 1]
            text, pieces = self.chat.decode(tokens)
            generations.append(
                Generation(
                    text,
                    len(tokens),
                    seconds,
                    "length" if end is None else "stop",
                    prompt_tokens=int(mask.sum()),
                    pieces=pieces,
                    logprobs=tuple(row_logprobs[: len(tokens)]),
                )
            )
        return generations

    def _constraint(self, grammars: Sequence[str]):
        """xgrammar's logits processor, which serves one call of `generate`."""
        xgrammar = require("xgrammar", "vllm", "constrained decoding with transformers")
        processors = require("xgrammar.contrib.hf", "vllm", "constrained decoding with transformers")
        if self._compiler is None:
            vocabulary = self._model.config.get_text_config().vocab_size
            info = xgrammar.TokenizerInfo.from_huggingface(
                self.chat.tokenizer, vocab_size=vocabulary, stop_token_ids=sorted(self._ends)
            )
            self._compiler = xgrammar.GrammarCompiler(info)
        return processors.LogitsProcessor([self._compiler.compile_grammar(grammar) for grammar in grammars])

    def close(self) -> None:
        del self._model


class _Recorder:
    """A logits processor that changes nothing and keeps the log-probability of every token that was taken."""

    supports_continuous_batching = True

    def __init__(self):
        self._last, self._taken = None, []

    def __call__(self, input_ids, scores):
        self._take(input_ids)
        self._last = scores.float().log_softmax(-1)
        return scores

    def _take(self, input_ids) -> None:
        if self._last is not None:
            self._taken.append(self._last.gather(1, input_ids[:, -1:]))

    def finished(self, output):
        """(rows, steps) of them, given all that `generate` returned."""
        import torch

        self._take(output)
        return torch.cat(self._taken, dim=1)
