"""What this code touches inside TRL, vLLM and transformers: every name there that is not promised to stay.

A repair of another library (`sgrl.training.grpo` has most of them) stands on names that its next version may drop.
All are in this table, and a trainer asks at its construction whether they are there: a missing one is named with
the version that this code was written for, not in the middle of a run, and not by a repair that repairs nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sgrl.errors import SgrlError

WRITTEN_FOR = {"trl": "1.16.0", "vllm": "0.31.0", "transformers": "5.17.0"}
"""Versions with which the tests run; those of constraints.txt."""

SFT, GRPO, COLOCATED, ON_CPU, SERVER, ENGINE = "sft", "grpo", "colocated", "colocated on a CPU", "server", "engine"


@dataclass(frozen=True)
class Inside:
    """A name inside another library.

    Attributes:
        name: "module:name", "module:Class.member", or "module:Class.self.attribute" for what instances have.
        use: what this code does with it.
        where: the runs that need it.
    """

    name: str
    use: str
    where: tuple[str, ...]


_TRAINER = "trl.trainer.grpo_trainer:GRPOTrainer"
_GENERATION = "trl.generation.vllm_generation:VLLMGeneration"
_VLLM = (COLOCATED, SERVER)

NAMES = (
    # TRL
    Inside("trl.trainer.sft_trainer:DataCollatorForVisionLanguageModeling.torch_call", "template arguments", (SFT,)),
    Inside(f"{_TRAINER}._tokenize_prompts", "prompts with one placeholder for an image", (GRPO,)),
    Inside(f"{_TRAINER}.self._tokenizer", "prompts with one placeholder for an image", (GRPO,)),
    Inside(
        f"{_TRAINER}._generate_single_turn", "those prompts go to vLLM, which forgets its visual features", (GRPO,)
    ),
    *(
        Inside(f"{_TRAINER}.{name}", "the correction for vLLM's rounding without a pass of its own", (GRPO,))
        for name in (
            "_generate_and_score_completions",
            "_compute_loss",
            "_get_per_token_logps_and_entropies",
            "self._metrics",
            "self.vllm_importance_sampling_correction",
        )
    ),
    Inside(f"{_TRAINER}.self._last_loaded_step", "when vLLM forgets its visual features", (GRPO,)),
    Inside(f"{_TRAINER}.self._logs", "the table of completions", (GRPO,)),
    Inside("trl.generation.vllm_generation:LLM", "further arguments of the engine", (COLOCATED,)),
    Inside(f"{_GENERATION}.sync_weights", "weights of a CPU's engine", (ON_CPU,)),
    Inside(f"{_GENERATION}._iter_named_params", "weights of a CPU's engine", (ON_CPU,)),
    Inside(f"{_GENERATION}._place_features", "whether the server sees as many visual tokens", (SERVER,)),
    Inside("trl.generation.vllm_client:VLLMClient.self.session", "the server forgets its visual features", (SERVER,)),
    Inside("trl.generation.vllm_client:VLLMClient.self.base_url", "the server forgets its visual features", (SERVER,)),
    # vLLM
    Inside("vllm.v1.engine.llm_engine:LLMEngine.reset_encoder_cache", "visual features are forgotten", (COLOCATED,)),
    Inside("vllm.v1.engine.llm_engine:LLMEngine.self.model_executor", "weights of a CPU's engine", (ON_CPU,)),
    Inside("vllm.v1.worker.gpu_model_runner:GPUModelRunner.reload_weights", "weights of a CPU's engine", (ON_CPU,)),
    Inside("vllm.v1.engine.llm_engine:LLMEngine.self.engine_core", "the end of an engine", (ENGINE,)),
    Inside("vllm.distributed.parallel_state:cleanup_dist_env_and_memory", "the end of an engine", (*_VLLM, ENGINE)),
    Inside("vllm.distributed.parallel_state:model_parallel_is_initialized", "the end of an engine", _VLLM),
    # transformers
    Inside(
        "transformers.models.auto.configuration_auto:CONFIG_MAPPING._extra_content",
        "classes of configurations, which vLLM changes",
        (COLOCATED, ENGINE),
    ),
    Inside(
        "transformers.models.auto.modeling_auto:MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
        "which architectures read images and write text",
        (SFT, GRPO),
    ),
    Inside(
        "transformers.models.qwen3_vl.processing_qwen3_vl:Qwen3VLProcessor._get_num_multimodal_tokens",
        "how many visual tokens an image has",
        (SFT, GRPO),
    ),
    Inside(
        "transformers.models.idefics3.processing_idefics3:Idefics3Processor.replace_image_token",
        "how many visual tokens an image has, for SmolVLM",
        (SFT, GRPO),
    ),
    Inside("transformers.image_processing_utils:BaseImageProcessor.valid_kwargs", "the pixel budget", (SFT, GRPO)),
)


def check_inside(*where: str) -> None:
    """Ask whether all names are there that runs of these kinds need.

    Raises:
        SgrlError: names the first that is missing, what it is for, and the version that this was written for.
    """
    for inside in NAMES:
        if not set(where).isdisjoint(inside.where) and not is_there(inside.name):
            package = re.split("[.:]", inside.name)[0]
            wanted = WRITTEN_FOR[package]
            raise SgrlError(
                f"{package} {_version(package)} has no {inside.name.replace(':', '.')}, which this code needs for: "
                f"{inside.use}. It was written for {package} {wanted}; install that (constraints.txt)"
            )


@functools.cache
def is_there(name: str) -> bool:
    """Whether a name of `NAMES` exists in what is installed."""
    module, _, path = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            if part == "self":
                attribute = path.rpartition(".")[2]
                return re.search(rf"\bself\.{attribute}\b[^=\n]*=[^=]", inspect.getsource(found)) is not None
            found = getattr(found, part)
    except AttributeError:
        return False
    except ImportError as error:  # what fails for another reason says so where it is used
        return not (isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."))
    return True


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "(not installed)"


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
