"""What this code touches inside TRL, vLLM and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_configs() -> Iterator[None]:
    """Build vLLM's engine inside this block: transformers' classes of configurations are then as they were.

    vLLM puts its own in their place (Qwen3.5's for one), with which transformers loads no model any more: no merged
    LoRA after GRPO, no second engine.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    registered = dict(CONFIG_MAPPING._extra_content)
    try:
        yield
    finally:
        CONFIG_MAPPING._extra_content = registered
