"""Callbacks of the trainers: an alarm for rollouts that come from another policy than the one that trains."""

from __future__ import annotations

import logging

from transformers import TrainerCallback

from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.training.launch import PARITY_ACTIONS

logger = logging.getLogger(__name__)

LOGP_DIFFERENCE = "sampling/sampling_logp_difference/mean"


class ParityError(SgrlError):
    """vLLM and the trainer disagree about the probability of the sampled tokens."""


class ParityAlarm(TrainerCallback):
    """Watches the mean |log p(trainer) - log p(vLLM)| of sampled tokens over the first steps of GRPO.

    The two compute the same model, so the difference is rounding: below 0.005 in float32, around 0.01 in bfloat16.
    More means that they see different prompts, images or weights, and the policy is trained on what it never wrote.

    Args:
        threshold: natural-log units per token; 0.05 is a starting value.
        action: `warn` once, or `error` to stop the run.
        steps: how many steps to watch from where the run starts or goes on.
    """

    def __init__(self, threshold: float = 0.05, action: str = "warn", steps: int = 10):
        if action not in PARITY_ACTIONS:
            raise UsageError(f"unknown parity_action: {action!r}{suggest(action, PARITY_ACTIONS)}")
        self.threshold = threshold
        self.action = action
        self.steps = steps
        self.rang = False
        self._start = 0

    def on_train_begin(self, args, state, control, **kwargs):
        self._start = state.global_step

    def on_log(self, args, state, control, logs=None, **kwargs):
        difference = (logs or {}).get(LOGP_DIFFERENCE)
        if difference is None or self.rang or state.global_step > self._start + self.steps:
            return
        if not difference <= self.threshold:  # a NaN rings too
            self.rang = True
            message = (
                f"vLLM and the trainer disagree: {LOGP_DIFFERENCE} = {difference:.3g} at step {state.global_step}, "
                f"expected at most {self.threshold} (parity_threshold). Likely causes: image placeholders expanded "
                "twice (is the trainer SceneGraphGRPOTrainer?), another pixel budget in the processor that vLLM "
                "reads, another chat template or thinking setting, weights that did not reach vLLM, another dtype "
                "(vllm_engine_kwargs: {dtype: ...}), or a grammar in generation_kwargs"
            )
            if self.action == "error":
                raise ParityError(message)
            logger.warning(message)
