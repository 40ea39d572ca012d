"""The tiny model: the architecture of a published family at about 0.8 M parameters, with random weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, GenerationConfig

from sgrl.errors import UsageError, suggest
from sgrl.prompts import SHORT
from sgrl.tiny.families import FAMILIES
from sgrl.tiny.tokenizer import build_tokenizer

# The labels of the toy world, as its text spells them.
TOY_OBJECTS = ("circle", "square", "triangle", "cross")
TOY_PREDICATES = ("inside", "overlapping", "left-of", "above")

IMAGE_SIZE = 96  # pixels: the side of a toy scene, and of the square whose area is every image's pixel budget


@dataclass(frozen=True)
class Tiny:
    """Which tiny model.

    Args:
        objects, predicates: labels, as text spells them, that the tokenizer knows as single tokens.
        texts: prompts whose words are single tokens.
        family: the architecture, one of `FAMILIES`. The default learns the toy world; the others are for trying out
            what depends on a family.
        codec: the layout that the tokenizer has tokens for, one of `sgrl.text.CODECS`.
    """

    objects: Sequence[str] = TOY_OBJECTS
    predicates: Sequence[str] = TOY_PREDICATES
    texts: Sequence[str] = (SHORT,)
    family: str = "qwen3_vl"
    codec: str = "toon"


def build_tiny_vlm(folder: str | Path, seed: int = 0, tiny: Tiny = Tiny()) -> None:
    """Save a tiny vision-language model with random weights as an ordinary model folder.

    `AutoModelForImageTextToText`, `AutoProcessor` and vLLM load the folder. The same `seed` gives the same weights.

    Args:
        folder: where to write; a folder of that name is replaced.
        seed: of the random weights.
        tiny: which model.
    """
    folder = Path(folder)
    if tiny.family not in FAMILIES:
        raise UsageError(f"unknown family {tiny.family!r}{suggest(tiny.family, FAMILIES)}")
    parts = FAMILIES[tiny.family]
    tokenizer = build_tokenizer(tiny.objects, tiny.predicates, IMAGE_SIZE, tiny.texts, parts.chat, tiny.codec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(parts.config(tokenizer, IMAGE_SIZE))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place and then renamed, so that nobody ever loads half a model.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        part = Path(temporary) / folder.name
        model.save_pretrained(part)
        parts.processor(tokenizer, IMAGE_SIZE).save_pretrained(part)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
