"""The architecture families at toy size: the configuration, processor and chat format of each.

The classes are those of transformers, so everything that depends on a family (names of modules, image placeholders,
tiles, chat template, weight names in vLLM) is as in the published models. Names are transformers' `model_type`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import transformers
from transformers import PretrainedConfig, ProcessorMixin

from sgrl.tiny.tokenizer import QWEN, ChatFormat

PATCH_SIZE = 8  # pixels
MERGE_SIZE = 2  # 2 x 2 patches make a visual token: 6 x 6 of them for a toy scene

WIDTH, HEAD_DIM = 128, 32  # of the language model; vLLM's CPU attention refuses heads below 32
INITIALIZER_RANGE = 0.06


@dataclass(frozen=True)
class Family:
    """How to build a model of a family, given a tokenizer of its `chat` and the side of the images in pixels."""

    chat: ChatFormat
    config: Callable[[Any, int], PretrainedConfig]
    processor: Callable[[Any, int], ProcessorMixin]


def _published(template: str) -> str:
    """A family's own chat template, of which TRL keeps a copy."""
    return (files("trl") / "chat_templates" / f"{template}.jinja").read_text(encoding="utf-8")


def _text(tokenizer, **more: Any) -> dict[str, Any]:
    """What the language models have in common; tied embeddings, as published models of a few billion parameters."""
    return {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": WIDTH,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": WIDTH // HEAD_DIM,
        "num_key_value_heads": 2,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 8192,
        "initializer_range": INITIALIZER_RANGE,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


################
# Qwen: images keep their shape; their number of pixels lies between two bounds
################


def _qwen_config(config_class: type, tokenizer, vision: dict[str, Any], text: dict[str, Any]) -> PretrainedConfig:
    token_id = tokenizer.convert_tokens_to_ids
    return config_class(
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": PATCH_SIZE,
            "temporal_patch_size": 1,  # images only: no need to see them twice
            "spatial_merge_size": MERGE_SIZE,
            "out_hidden_size": WIDTH,
            "initializer_range": INITIALIZER_RANGE,
            **vision,
        },
        text_config=_text(tokenizer, **text),
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def _rope(sections: list[int], **more: Any) -> dict[str, Any]:
    """Rotary positions in time, height and width: how many of the frequencies each of them has."""
    return {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections, **more},
    }


def _qwen3_vl_config(tokenizer, image_size: int) -> PretrainedConfig:
    vision = {"num_position_embeddings": (image_size // PATCH_SIZE) ** 2, "deepstack_visual_indexes": []}
    text = _rope([6, 5, 5], mrope_interleaved=True)
    return _qwen_config(transformers.Qwen3VLConfig, tokenizer, vision, text)


def _qwen3_5_config(tokenizer, image_size: int) -> PretrainedConfig:
    vision = {"num_position_embeddings": (image_size // PATCH_SIZE) ** 2}
    text = _rope([4, 2, 2], mrope_interleaved=True, partial_rotary_factor=0.5)
    text |= {
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 64,  # vLLM's CPU kernel knows 64 and 128
        "linear_value_head_dim": 64,
    }
    return _qwen_config(transformers.Qwen3_5Config, tokenizer, vision, text)


def _qwen2_5_vl_config(tokenizer, image_size: int) -> PretrainedConfig:
    # Windows of 2 x 2 visual tokens in the first block, the whole image in the second.
    vision = {"window_size": 2 * MERGE_SIZE * PATCH_SIZE, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    text = _rope([6, 5, 5])
    return _qwen_config(transformers.Qwen2_5_VLConfig, tokenizer, vision, text)


def _qwen_processor(processor: type, video_processor: type) -> Callable[[Any, int], ProcessorMixin]:
    def build(tokenizer, image_size: int) -> ProcessorMixin:
        vision: dict[str, Any] = {"patch_size": PATCH_SIZE, "merge_size": MERGE_SIZE, "temporal_patch_size": 1}
        vision |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        # Equal bounds: an image of the toy world passes unchanged, so its boxes stay in pixels.
        budget = {"min_pixels": image_size**2, "max_pixels": image_size**2}
        return processor(
            image_processor=transformers.Qwen2VLImageProcessor(**vision, **budget),
            tokenizer=tokenizer,
            video_processor=video_processor(**vision),
            chat_template=tokenizer.chat_template,
        )

    return build


################
# InternVL: an image is cut into square tiles, and a thumbnail of the whole follows them
################

INTERNVL = replace(
    QWEN,
    tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
    names={
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    template=QWEN.template.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\\n").replace(
        "<|vision_start|><|video_pad|><|vision_end|>", "<video>\\n"
    ),
)


def _internvl_config(tokenizer, image_size: int) -> PretrainedConfig:
    return transformers.InternVLConfig(
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [image_size // 2] * 2,
            "patch_size": [PATCH_SIZE] * 2,
            "initializer_range": INITIALIZER_RANGE,
        },
        text_config={"model_type": "qwen3", **_text(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=_tokens_per_tile(image_size),
        downsample_ratio=1 / MERGE_SIZE,
        tie_word_embeddings=True,
    )


def _tokens_per_tile(image_size: int) -> int:
    return (image_size // 2 // PATCH_SIZE // MERGE_SIZE) ** 2


def _internvl_processor(tokenizer, image_size: int) -> ProcessorMixin:
    side = {"height": image_size // 2, "width": image_size // 2}
    return transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(
            size=side, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        video_processor=transformers.InternVLVideoProcessor(size=side),
        image_seq_length=_tokens_per_tile(image_size),
        chat_template=tokenizer.chat_template,
    )


################
# SmolVLM: tiles with their row and column, then the whole image. SmolVLM-256M, -500M and -2.2B are Idefics3 models,
# SmolVLM2 has classes of its own, which see videos too and are the same otherwise.
################

SMOLVLM = ChatFormat(
    tokens=(
        *("<|endoftext|>", "<|im_start|>", "<end_of_utterance>"),
        *("<image>", "<fake_token_around_image>", "<global-img>"),
        *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
    ),
    end_of_turn="<end_of_utterance>",
    pad="<|endoftext|>",
    names={
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    },
    template=_published("smolvlm"),
)


def _idefics3_config(tokenizer, image_size: int, config_class: type = transformers.Idefics3Config) -> PretrainedConfig:
    return config_class(
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": image_size // 2,
            "patch_size": PATCH_SIZE,
            "initializer_range": INITIALIZER_RANGE,
        },
        text_config={"model_type": "llama", **_text(tokenizer, tie_word_embeddings=False)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=MERGE_SIZE,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )


def _smolvlm_config(tokenizer, image_size: int) -> PretrainedConfig:
    return _idefics3_config(tokenizer, image_size, transformers.SmolVLMConfig)


def _idefics3_processor(tokenizer, image_size: int) -> ProcessorMixin:
    return transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessor(
            size={"longest_edge": image_size}, max_image_size={"longest_edge": image_size // 2}
        ),
        tokenizer=tokenizer,
        image_seq_len=_tokens_per_tile(image_size),
        chat_template=tokenizer.chat_template,
    )


def _smolvlm_processor(tokenizer, image_size: int) -> ProcessorMixin:
    tile = {"longest_edge": image_size // 2}
    return transformers.SmolVLMProcessor(
        image_processor=transformers.SmolVLMImageProcessor(size={"longest_edge": image_size}, max_image_size=tile),
        tokenizer=tokenizer,
        video_processor=transformers.SmolVLMVideoProcessor(
            size={"longest_edge": image_size}, max_image_size=tile, video_sampling={"fps": 1, "max_frames": 2}
        ),
        image_seq_len=_tokens_per_tile(image_size),
        chat_template=tokenizer.chat_template,
    )


FAMILIES: dict[str, Family] = {
    "qwen3_vl": Family(
        QWEN,
        _qwen3_vl_config,
        _qwen_processor(transformers.Qwen3VLProcessor, transformers.Qwen3VLVideoProcessor),
    ),
    "qwen3_5": Family(
        replace(QWEN, template=_published("qwen3_5_nothink")),
        _qwen3_5_config,
        _qwen_processor(transformers.Qwen3VLProcessor, transformers.Qwen3VLVideoProcessor),
    ),
    "qwen2_5_vl": Family(
        replace(QWEN, template=_published("qwen2_5_vl")),
        _qwen2_5_vl_config,
        _qwen_processor(transformers.Qwen2_5_VLProcessor, transformers.Qwen2VLVideoProcessor),
    ),
    "internvl": Family(INTERNVL, _internvl_config, _internvl_processor),
    "idefics3": Family(SMOLVLM, _idefics3_config, _idefics3_processor),
    "smolvlm": Family(SMOLVLM, _smolvlm_config, _smolvlm_processor),
}
