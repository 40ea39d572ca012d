"""GRPO on images with TRL's GRPOTrainer: repairs for vision-language models under vLLM, nothing else.

Each repair names the report upstream and goes when upstream has it. tests/training/test_grpo.py shows each at work.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.integrations import TensorBoardCallback
from trl import GRPOConfig, GRPOTrainer
from trl.generation import vllm_generation

from sgrl import precision
from sgrl.models.vlm.parts import placeholder_ids, uses_linear_attention
from sgrl.models.vlm.processor import check_same_processor
from sgrl.picture import most_images
from sgrl.training.correction import follows_from_loss, ratios
from sgrl.training.repeated import are_groups, see_images_once
from sgrl.training.rollouts import check_images_of_server, forget_images_of_server
from sgrl.training.watch import completions_table, plain_chat
from sgrl.upstream import COLOCATED, GRPO, ON_CPU, SERVER, check_inside, own_configs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

logger = logging.getLogger(__name__)

COLUMNS = ("image", "prompt", "solution")

CORRECTION_METRICS = {
    "sampling_logp_difference/mean": torch.mean,
    "sampling_logp_difference/max": torch.max,
    "importance_sampling_ratio/min": torch.min,
    "importance_sampling_ratio/mean": torch.mean,
    "importance_sampling_ratio/max": torch.max,
}
"""TRL's names, and how the processes' numbers become one."""


class SceneGraphGRPOTrainer(GRPOTrainer):
    """`GRPOTrainer` for prompts with images, with transformers rollouts or with vLLM, on GPUs and CPUs.

    1. Placeholder tokens of images and videos are never sampled. TRL bans the image token in transformers' `generate`
       only; one sampled in vLLM ends the run with "Image features and image tokens do not match"
       (huggingface/trl#3847).
    2. Image placeholders reach the colocated vLLM unexpanded. vLLM expands them itself, so with TRL's expanded ones
       each image has twice its tokens, and rollouts come from prompts that nobody trains on (huggingface/trl#6294).
       A server gets token ids and features apart, so there the numbers of visual tokens are compared.
    3. vLLM forgets its cached visual features at every weight sync (huggingface/trl#7198).
    4. On CPUs the weights go through vLLM's layer-wise reload, as its CPU kernels repack them and TRL's way fails with
       "'Parameter' object has no attribute 'weight_loader'"; and the output embeddings go along when they are tied.
    5. TensorBoard gets the table of completions that TRL gives to wandb and trackio alone; prompts in it are texts, as
       wandb ends the run at parts of different kinds ("Data row contained incompatible types").
    6. vLLM gets arguments that TRL does not hand on, `dtype` above all: vLLM's `auto` runs a float32 model in half
       precision.
    7. Equal images of a batch go through the vision tower once, for families whose tower takes images in a row.
    8. A colocated vLLM gets each prompt once, and how many answers to write.
    9. The correction for vLLM's rounding comes from the pass that trains, where a second one would find the same.

    Args:
        model: a loaded model. vLLM loads the folder `model.name_or_path`, so the processor there must equal
            `processor`, which is checked.
        reward_funcs: see TRL. Rewards of scene graphs are in the package `rewards`.
        args: `generation_kwargs` gets the banned tokens.
        processor: pads on the left.
        vllm_engine_kwargs: further arguments of `vllm.LLM`, before TRL's and the defaults of `engine_arguments`.
        **kwargs: of `GRPOTrainer`, e.g. `train_dataset`, `peft_config`, `callbacks`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        reward_funcs: Sequence[Callable[..., list[float | None]]],
        args: GRPOConfig,
        processor: ProcessorMixin,
        vllm_engine_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        self._unexpanded_ids: list[list[int]] | None = None
        self._uncorrected: dict[str, Any] | None = None
        colocated = args.use_vllm and args.vllm_mode == "colocate"
        check_inside(GRPO, *([COLOCATED] if colocated else [SERVER] if args.use_vllm else []))
        if colocated and on_cpu():
            check_inside(ON_CPU)
        ban_placeholders(args, placeholder_ids(model.config, processor))
        if args.use_vllm:
            check_same_processor(model.name_or_path, processor, args.trust_remote_code)
        images = most_images(kwargs["train_dataset"]) if kwargs.get("train_dataset") is not None else 1
        engine = engine_arguments(model, args, images) | (vllm_engine_kwargs or {})
        if colocated:
            # TRL decodes the tokens itself; vLLM would too, and those of each log-probability: a fifth of its time.
            args.generation_kwargs = {"detokenize": "stop" in args.generation_kwargs} | args.generation_kwargs
        if colocated and on_cpu() and engine["enforce_eager"] and not args.torch_compile:
            # vLLM compiles small functions of its sampler even then.
            torch._dynamo.config.disable = True
        with _engine_built_with(engine) if colocated else nullcontext():
            super().__init__(
                model=model, reward_funcs=list(reward_funcs), args=args, processing_class=processor, **kwargs
            )
        if colocated and on_cpu():
            self.vllm_generation.sync_weights = functools.partial(sync_weights_on_cpu, self.vllm_generation)
        if args.use_vllm and not colocated:
            check_images_of_server(self.vllm_generation)
        see_images_once(self.model)
        # vLLM prepares a prompt once for all its answers. TRL asks again for each where vLLM is in its process.
        self._asks_once = (
            colocated
            and args.vllm_tensor_parallel_size == 1
            and not args.generation_kwargs.get("n")
            and not self.tools
        )
        self._corrects_in_loss = follows_from_loss(args, self.model)

    def _tokenize_prompts(self, prompts: list):
        self._unexpanded_ids = None
        size = self.num_generations if self.model.training else self.num_generations_eval
        if not (self._asks_once and are_groups(prompts, None, size)):
            size = 1
        prompts = prompts[::size]
        ids, images, fields = super()._tokenize_prompts(prompts)
        if images is not None and self.use_vllm and self.vllm_mode == "colocate":
            # The tokenizer alone renders the template and leaves one placeholder for each image.
            unexpanded = self._tokenizer.apply_chat_template(
                prompts,
                chat_template=self.chat_template or self.processing_class.chat_template,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                **self.chat_template_kwargs,
            )["input_ids"]
            self._unexpanded_ids = _repeated(unexpanded, size)
        # fields are those of each prompt, where they are used: by transformers' generate
        return _repeated(ids, size), _repeated(images, size), fields

    def _generate_and_score_completions(self, inputs):
        if not self._corrects_in_loss:
            return super()._generate_and_score_completions(inputs)
        self.vllm_importance_sampling_correction = False
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self.vllm_importance_sampling_correction = True

    def _compute_loss(self, model, inputs):
        if self._corrects_in_loss:
            self._uncorrected = inputs
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self._uncorrected is not None:  # called by the loss
            self._correct(self._uncorrected, found[0].detach())
            self._uncorrected = None
        return found

    def _correct(self, inputs: dict[str, Any], logps: torch.Tensor) -> None:
        """Add to a batch, before its loss is taken, how much its tokens count."""
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        ratio, numbers = ratios(logps, inputs["sampling_per_token_logps"], mask, self.args)
        inputs["importance_sampling_ratio"] = ratio
        gathered = self.accelerator.gather(numbers.unsqueeze(0))
        metrics = self._metrics["train" if self.model.training else "eval"]
        for (name, reduce), column in zip(CORRECTION_METRICS.items(), gathered.T, strict=True):
            metrics[f"sampling/{name}"].append(reduce(column).item())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        prompts = [plain_chat(chat) for chat in self._logs["prompt"]]
        self._logs["prompt"].clear()
        self._logs["prompt"].extend(prompts)
        super().log(logs, start_time)
        if self.log_completions and self.accelerator.is_main_process:  # wandb and trackio get their table from TRL
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                    table = completions_table(self._logs)
                    callback.tb_writer.add_text("completions", table, self.state.global_step)

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
        stale = self.use_vllm and self.state.global_step != self._last_loaded_step
        if self._unexpanded_ids is not None:
            prompt_ids = self._unexpanded_ids  # for vLLM; the expanded ones go on to the training step
            if stale:
                self.vllm_generation.llm.llm_engine.reset_encoder_cache()
        elif stale and self.vllm_mode == "server" and images is not None and self.accelerator.is_main_process:
            forget_images_of_server(self.vllm_generation)
        rest = (multimodal_fields, num_generations, *args)
        if not self._asks_once or not are_groups(prompt_ids, images, num_generations):
            return super()._generate_single_turn(prompt_ids, images, *rest, **kwargs)
        settings = self.vllm_generation.generation_kwargs
        settings["n"] = num_generations
        try:
            firsts = (each if each is None else each[::num_generations] for each in (prompt_ids, images))
            return super()._generate_single_turn(*firsts, *rest, **kwargs)
        finally:
            del settings["n"]


def _repeated(values: list | None, times: int) -> list | None:
    """Each value, the very object, so many times in a row."""
    return values if values is None or times == 1 else [value for value in values for _ in range(times)]


def ban_placeholders(args: GRPOConfig, tokens: list[int]) -> None:
    """Add to `args.generation_kwargs` that `tokens` are never sampled, whatever generates."""
    generation = dict(args.generation_kwargs or {})
    if args.use_vllm:
        generation["logit_bias"] = {token: -100.0 for token in tokens} | dict(generation.get("logit_bias") or {})
    else:
        generation["suppress_tokens"] = sorted({*tokens, *(generation.get("suppress_tokens") or ())})
    args.generation_kwargs = generation


def on_cpu() -> bool:
    """Whether vLLM runs on CPUs here."""
    from vllm.platforms import current_platform

    return current_platform.is_cpu()


def engine_arguments(model: PreTrainedModel, args: GRPOConfig, images: int = 1) -> dict[str, Any]:
    """What the colocated engine needs besides TRL's arguments. images: the most that a prompt has.

    Its dtype is the one the trainer computes in: half precision under autocast, else that of the weights. Where vLLM
    has no such kernels it is bfloat16, and the two differ by rounding: about 0.01 in log-probability per token.
    """
    if not args.use_vllm:
        return {}
    computed = "bfloat16" if args.bf16 else "float16" if args.fp16 else str(model.dtype).removeprefix("torch.")
    arguments: dict[str, Any] = {
        "dtype": precision.for_vllm(on_cpu(), computed, uses_linear_attention(model.config)),
        # or vLLM sets memory aside for the longest video that it could get
        "limit_mm_per_prompt": {"image": images, "video": 0},
    }
    if on_cpu():
        arguments |= {
            # Compiled, a toy model writes up to half as many tokens more. It takes ten seconds, once for each model.
            "enforce_eager": not can_compile(),
            "max_num_batched_tokens": max(2048, args.vllm_max_model_length or 0),
        }
    return arguments


def can_compile() -> bool:
    """Whether torch can compile for the CPU: it needs a C++ compiler and Python's headers. Only tried on Linux."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return sys.platform == "linux" and compiler is not None and headers.is_file()


@contextmanager
def _engine_built_with(arguments: dict[str, Any]) -> Iterator[None]:
    """TRL builds `vllm.LLM` with arguments of its own and takes no others; inside this block these join them."""
    original = vllm_generation.LLM
    vllm_generation.LLM = lambda **trl: original(**(trl | arguments))
    try:
        with own_configs():
            yield
    finally:
        vllm_generation.LLM = original


def ties_embeddings(model: torch.nn.Module) -> bool:
    """Whether input and output embeddings are one tensor."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


@torch.no_grad()
def sync_weights_on_cpu(generation: vllm_generation.VLLMGeneration) -> None:
    """Load the trainer's weights into a colocated engine on CPUs and empty its caches.

    Stands in for `VLLMGeneration.sync_weights`; takes part in the same collectives.
    """
    tied = ties_embeddings(generation.model)

    def weights() -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in generation._iter_named_params():
            # A copy: the engine may keep the tensor until its layer is complete, and LoRA un-merges in place after.
            weight = parameter.detach().clone()
            yield name, weight
            if tied and name.endswith("embed_tokens.weight"):
                yield "lm_head.weight", weight  # packed apart from the embeddings, so it would stay as it was

    runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
    runner.reload_weights(weights_iterator=weights())
    generation.llm.reset_prefix_cache()
