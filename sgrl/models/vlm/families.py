"""The table of the families of vision-language models: all that depends on the family and no config says.

A row here is what a new family needs, and one in `sgrl.tiny.families` to try it out at toy size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What distinguishes a family.

    Attributes:
        pattern: found in its models' names, wherever they are from, and in their `model_type`; blanks are hyphens.
        coordinates: in which it writes boxes by itself, one of `sgrl.models.vlm.coordinates.CONVENTIONS`; None if it
            was not trained to write any.
        placeholders: what stands for an image or a video in its prompts.
        model_types: what transformers calls those that the recipes are for.
        hub: how the names of those begin on the Hub.
        trained: coordinates of the data sets that the recipes train it on: "pixel" or "norm1000".
        token_side: pixels along the side of the square that is one visual token; None where images are cut into tiles.
        vision, aligner, decoder: where the vision tower, what carries its features over, and the language model are in
            transformers' classes.
    """

    pattern: str
    coordinates: str | None
    placeholders: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()
    hub: str | None = None
    trained: str | None = None
    token_side: int | None = None
    vision: str | None = None
    aligner: tuple[str, ...] = ()
    decoder: str = "model.language_model"


_QWEN = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>")

# Of the patterns that fit, the first counts.
FAMILIES: dict[str, Family] = {
    "Qwen2.5-VL": Family(
        r"qwen-?2[.p-]?5-?(vl|omni)",
        "pixel28",
        _QWEN,
        model_types=("qwen2_5_vl",),
        hub="Qwen/Qwen2.5-VL-",
        trained="pixel",
        token_side=28,
        vision="model.visual",
        aligner=("model.visual.merger",),
    ),
    "Qwen2-VL": Family(r"qwen-?2-?vl|qwen-?vl-?chat|qvq", "norm1000", _QWEN),  # arXiv 2409.12191, section 2
    "Qwen3.5": Family(
        r"qwen-?3[.p-]?5",
        "norm1000",
        _QWEN,
        model_types=("qwen3_5",),
        hub="Qwen/Qwen3.5-",
        trained="pixel",  # as SceneGraphVLM does
        token_side=32,
        vision="model.visual",
        aligner=("model.visual.merger",),
    ),
    "Qwen3-VL": Family(
        r"qwen-?3",
        "norm1000",
        _QWEN,
        model_types=("qwen3_vl",),
        hub="Qwen/Qwen3-VL-",
        trained="norm1000",
        token_side=32,
        vision="model.visual",
        aligner=("model.visual.merger", "model.visual.deepstack_merger_list"),
    ),
    "InternVL": Family(
        r"internvl",
        "norm1000",
        ("<IMG_CONTEXT>", "<video>"),
        model_types=("internvl",),
        hub="OpenGVLab/InternVL3_5-",
        trained="norm1000",
        vision="model.vision_tower",
        aligner=("model.multi_modal_projector",),
    ),
    "GLM-V and others": Family(r"glm|ovis|minicpm|deepseek-vl|cogvlm", "norm1000"),
    "PaliGemma": Family(r"paligemma", "norm1024-yx", ("<image>",), aligner=("model.multi_modal_projector",)),
    "Gemini and Gemma": Family(
        r"gemini|gemma",
        "norm1000-yx",
        ("<image_soft_token>",),
        aligner=("model.multi_modal_projector", "model.embed_vision"),  # Gemma 3, Gemma 4
    ),
    # Grounded in fractions, which are read as such.
    "LLaVA and Kimi": Family(
        r"llava|kimi", "norm1000", ("<image>", "<video>"), aligner=("model.multi_modal_projector",)
    ),
    "GPT and others": Family(r"gpt|claude|llama|mistral|pixtral", "pixel"),
    "SmolVLM": Family(
        r"smolvlm|idefics",
        None,
        ("<image>",),
        model_types=("idefics3", "smolvlm"),
        hub="HuggingFaceTB/SmolVLM-",
        trained="pixel",
        vision="model.vision_model",
        aligner=("model.connector",),
        decoder="model.text_model",
    ),
    # What it writes by itself is not known to us.
    "LFM2-VL": Family(r"lfm-?2-?vl", None, ("<image>",), aligner=("model.multi_modal_projector",)),
}

ALIGNER_NAMES = tuple(
    dict.fromkeys(name.rpartition(".")[2] for family in FAMILIES.values() for name in family.aligner)
)
"""What families call the module between vision tower and language model, wherever it lies."""

PLACEHOLDERS = tuple(dict.fromkeys(text for family in FAMILIES.values() for text in family.placeholders))
"""What stands for an image or a video in the prompts of any family."""


def family_of(names: Iterable[str]) -> str | None:
    """The family that the first of some names tells: a `model_type`, or the parts of a path from its end on.

    >>> family_of(["Qwen2.5-VL-7B", "qwen3"]), family_of(["my-model"])
    ('Qwen2.5-VL', None)
    """
    for name in names:
        plain = name.lower().replace("_", "-")
        for family, row in FAMILIES.items():
            if re.search(row.pattern, plain):
                return family
    return None
