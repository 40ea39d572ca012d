"""The tiny model: Qwen3-VL's architecture at 0.8 M parameters, with random weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from sgrl.prompts import SHORT
from sgrl.tiny.tokenizer import IMAGE, VIDEO, VISION_END, VISION_START, build_tokenizer

# The labels of the toy world, as its text spells them.
TOY_OBJECTS = ("circle", "square", "triangle", "cross")
TOY_PREDICATES = ("inside", "overlapping", "left-of", "above")

IMAGE_SIZE = 96  # pixels: the side of a toy scene, and of the square whose area is every image's pixel budget
PATCH_SIZE = 8  # pixels
MERGE_SIZE = 2  # 2 x 2 patches make a visual token: 6 x 6 of them for a toy scene


def build_processor(tokenizer, image_size: int = IMAGE_SIZE) -> Qwen3VLProcessor:
    """The processor of the tiny model; images of any size are resized to about `image_size` squared pixels."""
    vision = {"patch_size": PATCH_SIZE, "merge_size": MERGE_SIZE, "temporal_patch_size": 1}
    vision |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    # Equal bounds: an image of the toy world passes unchanged, so its boxes stay in pixels.
    budget = {"min_pixels": image_size**2, "max_pixels": image_size**2}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**vision, **budget),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**vision),
        chat_template=tokenizer.chat_template,
    )


def tiny_config(tokenizer, image_size: int = IMAGE_SIZE) -> Qwen3VLConfig:
    """The configuration of the tiny model: 0.19 M parameters see, 0.65 M read and write."""
    token_id = tokenizer.convert_tokens_to_ids
    width, head_dim = 128, 32  # vLLM's CPU attention refuses heads below 32
    return Qwen3VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": PATCH_SIZE,
            "temporal_patch_size": 1,  # images only: no need to see them twice
            "spatial_merge_size": MERGE_SIZE,
            "out_hidden_size": width,
            "num_position_embeddings": (image_size // PATCH_SIZE) ** 2,
            "deepstack_visual_indexes": [],
            "initializer_range": 0.06,
        },
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": width,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": width // head_dim,
            "num_key_value_heads": 2,
            "head_dim": head_dim,
            "max_position_embeddings": 8192,
            "initializer_range": 0.06,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=token_id(IMAGE),
        video_token_id=token_id(VIDEO),
        vision_start_token_id=token_id(VISION_START),
        vision_end_token_id=token_id(VISION_END),
        tie_word_embeddings=True,
    )


def build_tiny_vlm(
    folder: str | Path,
    seed: int = 0,
    objects: Sequence[str] = TOY_OBJECTS,
    predicates: Sequence[str] = TOY_PREDICATES,
    texts: Iterable[str] = (SHORT,),
) -> None:
    """Save a tiny vision-language model with random weights as an ordinary model folder.

    `AutoModelForImageTextToText`, `AutoProcessor` and vLLM load the folder. The same `seed` gives the same weights.

    Args:
        folder: where to write; a folder of that name is replaced.
        seed: of the random weights.
        objects, predicates: labels, as text spells them, that the tokenizer knows as single tokens.
        texts: prompts whose words are single tokens.
    """
    folder = Path(folder)
    tokenizer = build_tokenizer(objects, predicates, IMAGE_SIZE, texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(tiny_config(tokenizer))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place and then renamed, so that nobody ever loads half a model.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        part = Path(temporary) / folder.name
        model.save_pretrained(part)
        build_processor(tokenizer).save_pretrained(part)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
