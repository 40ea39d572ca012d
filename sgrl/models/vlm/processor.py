"""The processor of a vision-language model: its pixel budget, and how many tokens it makes of an image."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from sgrl.errors import SgrlError
from sgrl.models.foreign import load_pretrained
from sgrl.models.vlm.template import stored_thinking, template_arguments, try_template

if TYPE_CHECKING:
    from transformers import ProcessorMixin
    from trl import ModelConfig


def load_processor(
    path: str, model_args: ModelConfig | None = None, trust_remote_code: bool = False, images: bool = True
) -> ProcessorMixin:
    """The processor of a model folder or Hub model, padding on the left as GRPO needs.

    GRPO tokenises twice, the second time with the tokenizer's own side (huggingface/trl#5785).

    Args:
        images: False lets a language model pass, whose "processor" is its tokenizer.

    Raises:
        SgrlError: if there is none, it has no image processor, or no chat template that ends well.
    """
    from transformers import AutoProcessor

    revision = {} if model_args is None else {"revision": model_args.model_revision}
    processor = load_pretrained(AutoProcessor, path, "processor of", trust_remote_code=trust_remote_code, **revision)
    if images and getattr(processor, "image_processor", None) is None:
        raise SgrlError(
            f"{path} is not a vision-language model: its processor ({type(processor).__name__}) takes no images"
        )
    if processor.chat_template is None:
        raise SgrlError(
            f"the processor of {path} has no chat template; expected chat_template.jinja in the model folder"
        )
    try_template(processor, hasattr(processor, "tokenizer"))
    getattr(processor, "tokenizer", processor).padding_side = "left"
    return processor


def thinks(path: str) -> bool:
    """Whether the model of a folder or on the Hub was trained to think; see `store_thinking`."""
    template = Path(path, "chat_template.jinja")
    if Path(path).is_dir():  # read without transformers, whose import takes seconds
        return template.is_file() and stored_thinking(template.read_text("utf-8", "replace"))
    return template_arguments(load_processor(path, images=False)).get("enable_thinking", False)


def pixel_budget(processor: ProcessorMixin) -> tuple[int, int] | None:
    """The (fewest, most) pixels of an image that the model sees, or None where the family has no such budget."""
    if "max_pixels" not in getattr(processor.image_processor.valid_kwargs, "__annotations__", {}):
        return None  # SmolVLM and InternVL cut images into tiles, Gemma resizes to one size
    size = processor.image_processor.size
    return int(size["shortest_edge"]), int(size["longest_edge"])


def set_pixel_budget(processor: ProcessorMixin, min_pixels: int | None, max_pixels: int | None) -> bool:
    """Change the processor's budget where a bound is given; returns whether it changed.

    Raises:
        SgrlError: for a family without a budget, or bounds in the wrong order.
    """
    if min_pixels is None and max_pixels is None:
        return False
    found = pixel_budget(processor)
    if found is None:
        raise SgrlError(
            f"{type(processor.image_processor).__name__} has no pixel budget; remove min_pixels and max_pixels and "
            "resize the images when the data set is prepared"
        )
    wanted = (min_pixels or found[0], max_pixels or found[1])
    if not 0 < wanted[0] <= wanted[1]:
        raise SgrlError(f"min_pixels must be positive and at most max_pixels; they are {wanted[0]} and {wanted[1]}")
    # A new mapping: the processor's may be the default that its class shares.
    processor.image_processor.size = {"shortest_edge": wanted[0], "longest_edge": wanted[1]}
    return wanted != found


def check_same_processor(path: str, processor: ProcessorMixin, trust_remote_code: bool = False) -> None:
    """Refuse a trainer whose images are prepared otherwise than vLLM's, which reads its processor from `path`.

    Such a pair crashes in the position ids or, worse, trains on images of another size (huggingface/trl#6401).
    """
    names = {"image_processor_type", "processor_class", "video_processor_type"}
    ours = processor.image_processor.to_dict()
    theirs = load_processor(path, trust_remote_code=trust_remote_code).image_processor.to_dict()
    for key in sorted((ours.keys() | theirs.keys()) - names):
        if ours.get(key) != theirs.get(key):
            raise SgrlError(
                f"the trainer's image processor has {key} = {ours.get(key)}, that of {path}, which vLLM reads, has "
                f"{theirs.get(key)}; save the trainer's there: processor.save_pretrained({path!r})"
            )


def refusal(processor: ProcessorMixin, size: tuple[int, int]) -> str | None:
    """Why the processor does not take an image of this (width, height); None if it does."""
    try:
        visual_tokens(processor, [size[::-1]])
    except Exception as error:  # each family's own
        return f"the processor refuses an image of {size[0]} x {size[1]} pixels: {error}"
    return None


def visual_tokens(processor: ProcessorMixin, sizes: list[tuple[int, int]]) -> list[int]:
    """How many tokens the processor makes of an image of each (height, width), those around it included."""
    if hasattr(processor, "_get_num_multimodal_tokens"):
        return processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]

    @functools.cache
    def of_tiles(rows: int, columns: int) -> int:
        text = processor.replace_image_token({"rows": [[rows]], "cols": [[columns]]}, 0)
        return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    # SmolVLM's processor does not say, but its parts do.
    return [of_tiles(*processor.image_processor.get_number_of_image_patches(*size)[1:]) for size in sizes]
