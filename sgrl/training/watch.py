"""Seeing a run: warnings that name the cause when GRPO stops learning, and completions with every term's score.

`report_to` of a recipe is tensorboard, wandb or trackio, or a list. With `log_completions: true` each logged step's
completions, rewards and the scores of all terms go to output_dir/completions/*.parquet, and as a table to wandb,
trackio and TensorBoard. Offline: WANDB_MODE=offline; trackio and TensorBoard write to the disk anyway.
"""

from __future__ import annotations

import importlib.util
import logging
from collections import deque
from collections.abc import Callable, Sequence

from transformers import TrainerCallback

from sgrl.errors import SgrlError

logger = logging.getLogger(__name__)

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
EQUAL, CLIPPED = "frac_reward_zero_std", "completions/clipped_ratio"


def check_report_to(report_to: list[str] | str | None) -> None:
    """Refuse, before the model loads, a place to log to whose package is missing. Raises SgrlError."""
    for name in [report_to] if isinstance(report_to, str) else report_to or []:
        package = PACKAGES.get(name)
        if package and importlib.util.find_spec(package) is None:
            raise SgrlError(f"report_to: {name} needs its package: pip install {package}; or set report_to: none")


def best_total(rewards: Sequence[Callable], weights: Sequence[float]) -> float | None:
    """The greatest total of rewards that declare their `range`, (least, greatest); None where one does not."""
    total = 0.0
    for weight, reward in zip(weights, rewards, strict=True):
        ends = getattr(reward, "range", None)
        if ends is None:
            return None
        total += max(weight * ends[0], weight * ends[1])
    return total


class TrainingWatch(TrainerCallback):
    """Warns, once each until it is over, when GRPO has nothing to learn from, and says which setting to change.

    - Equal rewards: in most groups all answers score the same, so their advantages are zero.
    - Clipped completions: many answers end at max_completion_length instead of at their end.
    - Collapsed entropy: the policy has stopped to explore.

    What counts is the mean over the last logs, so one odd batch does not warn. The parity alarm stands beside this in
    sgrl.training.callbacks.

    Args:
        best: the greatest total of the reward, to tell groups that are all right from groups that are all wrong; None
            where it is not known.
        equal, clipped: shares above which to warn.
        entropy: share of the entropy at the start of the run below which to warn.
        window: logs to average over.
    """

    def __init__(
        self,
        best: float | None = None,
        equal: float = 0.8,
        clipped: float = 0.2,
        entropy: float = 0.1,
        window: int = 5,
    ):
        self.best = best
        self.equal, self.clipped, self.entropy, self.window = equal, clipped, entropy, window
        self._logs: deque[dict[str, float]] = deque(maxlen=window)
        self._first_entropy: float | None = None
        self._warned: set[str] = set()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not logs or EQUAL not in logs:
            return
        self._logs.append(logs)
        if len(self._logs) < self.window:
            return
        entropy = self._mean("entropy")
        if self._first_entropy is None:
            self._first_entropy = entropy
        self._say("equal rewards", state, self._equal_rewards(args))
        self._say("clipped completions", state, self._clipped_completions(args))
        self._say("entropy", state, self._collapsed(entropy))

    def _say(self, kind: str, state, message: str | None) -> None:
        if message is None:
            self._warned.discard(kind)
        elif kind not in self._warned:
            self._warned.add(kind)
            logger.warning("step %d: %s", state.global_step, message)

    def _mean(self, name: str) -> float | None:
        values = [logs[name] for logs in self._logs if isinstance(logs.get(name), int | float)]
        return sum(values) / len(values) if values else None

    def _equal_rewards(self, args) -> str | None:
        share = self._mean(EQUAL)
        if share is None or share <= self.equal:
            return None
        found = f"all answers of a group have the same reward in {share:.0%} of the groups, which teach nothing: "
        valid, tags, reward = self._mean("sg/valid"), self._mean("sg/has_answer_tags"), self._mean("reward")
        clipped = self._mean(CLIPPED) or 0.0
        if valid is not None and valid < 0.1:
            if clipped > 0.5:
                return found + (
                    "hardly any answer is valid because most are cut at max_completion_length "
                    f"({args.max_completion_length}); raise it"
                )
            if tags is not None and tags < 0.1:
                return found + (
                    "hardly any answer has <answer> tags; start from a model that recipes/sft_*.py trained, with the "
                    "same chat template and `thinking`, and drop </answer> from stop words"
                )
            return found + (
                "hardly any answer is valid; column sg/reason of output_dir/completions says why (log_completions: "
                "true). Train SFT longer, or lower temperature"
            )
        if self.best and reward is not None and reward > 0.95 * self.best:
            return found + "they are all right; take harder images, or stop here"
        return found + (
            f"the answers of a group are alike; raise temperature ({args.temperature}) or num_generations "
            f"({args.num_generations}), and use no grammar in generation_kwargs"
        )

    def _clipped_completions(self, args) -> str | None:
        share = self._mean(CLIPPED)
        if share is None or share <= self.clipped:
            return None
        found = f"{share:.0%} of the completions end at max_completion_length ({args.max_completion_length}), "
        tags = self._mean("sg/has_answer_tags")
        if tags is not None and tags > 1 - share / 2:
            return found + (
                "after their </answer>: the model does not stop. Check that SFT trained on the end of the turn and "
                "that generation_config.json names its token as eos_token_id"
            )
        return found + (
            "within the graph: raise max_completion_length above the longest reference (python -m sgrl inspect "
            "DATASET shows the tokens), or the model repeats rows: lower temperature or train SFT longer"
        )

    def _collapsed(self, entropy: float | None) -> str | None:
        if entropy is None or not self._first_entropy or entropy >= self.entropy * self._first_entropy:
            return None
        return (
            f"the entropy fell from {self._first_entropy:.3g} to {entropy:.3g} per token: the policy has stopped to "
            "explore. Lower learning_rate, raise temperature, epsilon_high or beta, or go back to an earlier "
            "checkpoint"
        )


def plain_chat(messages: list[dict]) -> list[dict]:
    """Messages whose content is a string each.

    >>> plain_chat([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}])
    [{'role': 'user', 'content': '<image>What?'}]
    """

    def text(content) -> str:
        if isinstance(content, str):
            return content
        return "".join(part["text"] if part["type"] == "text" else f"<{part['type']}>" for part in content or ())

    return [{**message, "content": text(message["content"])} for message in messages]


def completions_table(logs: dict, rows: int = 8) -> str:
    """The last `rows` completions with rewards and every term's score, as a Markdown table for TensorBoard.

    logs: of TRL's trainer: completion, rewards, extra, advantages.
    """
    columns = {"completion": logs["completion"], **logs["rewards"], **logs["extra"], "advantage": logs["advantages"]}
    columns = {name: [_cell(value) for value in list(values)[-rows:]] for name, values in columns.items() if values}
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(row) for row in zip(*columns.values(), strict=False)]
    return "\n".join(f"| {line} |" for line in lines)


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):  # a chat
        value = value[-1]["content"] if value else ""
    return str(value).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", "<br>")
