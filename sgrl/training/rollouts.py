"""Whether the settings of vLLM fit together and this machine; and what vLLM as a server needs besides TRL's client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sgrl.errors import SgrlError

if TYPE_CHECKING:
    from trl import GRPOConfig
    from trl.generation.vllm_generation import VLLMGeneration


def check_rollouts(args: GRPOConfig, engine_kwargs: dict[str, Any], gpu: bool | None = None) -> None:
    """Refuse settings of vLLM that cannot work, or that nothing would follow.

    Args:
        args: TRL's arguments.
        engine_kwargs: `vllm_engine_kwargs` of the recipe.
        gpu: whether the trainer runs on GPUs. Default: look.

    Raises:
        SgrlError: names the line to change.
    """
    if not args.use_vllm:
        return
    if gpu is None:
        import torch

        gpu = torch.cuda.is_available() and not args.use_cpu
    if args.vllm_mode == "server":
        if not gpu:
            raise SgrlError(
                "vllm_mode: server needs a GPU for the trainer, because weights go to the server by NCCL; set "
                "vllm_mode: colocate"
            )
        if args.vllm_enable_sleep_mode:
            raise SgrlError(
                "vllm_enable_sleep_mode is for vllm_mode: colocate; a server has GPUs of its own. Remove it"
            )
        if engine_kwargs:
            raise SgrlError(
                f"vllm_engine_kwargs ({', '.join(engine_kwargs)}) do not reach a server; give them to `vllm serve` as "
                "options, or set vllm_mode: colocate"
            )
        if args.vllm_tensor_parallel_size > 1:
            raise SgrlError(
                "vllm_tensor_parallel_size does not reach a server; remove it and start the server with "
                f"--tensor-parallel-size {args.vllm_tensor_parallel_size}"
            )
        return
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if args.vllm_tensor_parallel_size < 1 or processes % args.vllm_tensor_parallel_size:
        raise SgrlError(
            f"vllm_tensor_parallel_size is {args.vllm_tensor_parallel_size}, which must divide the number of "
            f"processes, {processes} (--num_processes of accelerate launch)"
        )
    if args.vllm_enable_sleep_mode and not gpu:
        raise SgrlError("vllm_enable_sleep_mode needs a GPU: vLLM's CPU engine cannot give its memory back; remove it")


def check_images_of_server(generation: VLLMGeneration) -> None:
    """From now on compare, for every prompt, the visual tokens that the server makes of an image with the trainer's.

    TRL sends the trainer's token ids with the server's pixels, so another pixel budget there would put features on the
    wrong tokens. The server reads the processor of the folder that it was started with.
    """
    place = generation._place_features

    def checked(features: dict | None, prompt_ids: list[int]) -> dict | None:
        placed = place(features, prompt_ids)
        if features is not None:
            theirs, ours = (
                [image["length"] for image in found["mm_placeholders"]["image"]] for found in (features, placed)
            )
            if theirs != ours:
                raise SgrlError(
                    f"the vLLM server makes {theirs} tokens of the images of a prompt, the trainer {ours}: their "
                    f"processors differ. Start the server from the folder that the trainer reads: "
                    f"vllm serve {generation.model.name_or_path}"
                )
        return placed

    generation._place_features = checked


def forget_images_of_server(generation: VLLMGeneration) -> None:
    """Empty the server's cache of visual features, which it keeps over a weight sync (huggingface/trl#7198)."""
    client = generation.vllm_client
    client.session.post(f"{client.base_url}/reset_encoder_cache").raise_for_status()
