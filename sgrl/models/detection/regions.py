"""Vectors of texts and of regions of images, in one space: CLIP, SigLIP2 and others with two towers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sgrl.errors import SgrlError
from sgrl.models.foreign import load_pretrained, load_weights

if TYPE_CHECKING:
    from PIL import Image

    from sgrl.vocabulary import Vocabulary

ENCODER = "openai/clip-vit-base-patch32"
"""The paper's (VOST-SGG, section 4)."""

BATCH = 64
"""Regions at a time."""

AROUND = 0.5
"""How much of what lies around a region is replaced by the image's mean colour: "a translucent background"."""


class RegionEncoder:
    """A model with a tower for texts and one for images.

    Args:
        name: of a folder or on the Hub: CLIP, SigLIP, SigLIP2 or another that `AutoModel` loads with
            `get_text_features` and `get_image_features`.

    Raises:
        SgrlError: it cannot be loaded, or is no such model.
    """

    def __init__(self, name: str = ENCODER):
        import torch
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = load_weights(AutoModel, name).eval().to(self._device)
        if not all(hasattr(self._model, f"get_{kind}_features") for kind in ("text", "image")):
            raise SgrlError(
                f"{name} is a {type(self._model).__name__}, which has no vectors of texts and images alike; expected "
                f"CLIP, SigLIP or SigLIP2, such as {ENCODER}"
            )
        self._tokenizer = load_pretrained(AutoTokenizer, name, "tokenizer of")
        self._images = load_pretrained(AutoImageProcessor, name, "image processor of")
        config = self._model.config.get_text_config()
        self._tokens = {"max_length": config.max_position_embeddings, "truncation": True, "padding": "max_length"}

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, L) float32, not normalised."""
        import torch

        parts = []
        for start in range(0, len(texts), BATCH):
            tokens = self._tokenizer(list(texts[start : start + BATCH]), return_tensors="pt", **self._tokens)
            with torch.inference_mode():
                parts.append(_pooled(self._model.get_text_features(**tokens.to(self._device))))
        return np.concatenate(parts)

    def regions(self, image: Image.Image, boxes: Sequence[Sequence[float]]) -> np.ndarray:
        """(n, V) float32 of the image with all but a box blended, for each of n boxes: corners in 0..1."""
        import torch

        pixels = np.asarray(image.convert("RGB"))
        parts = []
        for start in range(0, len(boxes), BATCH):
            shown = [blended(pixels, box) for box in boxes[start : start + BATCH]]
            inputs = self._images(images=shown, return_tensors="pt", input_data_format="channels_last")
            with torch.inference_mode():
                parts.append(_pooled(self._model.get_image_features(**inputs.to(self._device))))
        return np.concatenate(parts) if parts else np.zeros((0, self.visual_size), np.float32)

    @property
    def visual_size(self) -> int:
        config = self._model.config
        return getattr(config, "projection_dim", None) or config.vision_config.hidden_size


def blended(pixels: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """An image (H, W, 3) uint8 in which all but a region, corners in 0..1, is half its mean colour."""
    height, width = pixels.shape[:2]
    left, right = int(np.floor(box[0] * width)), int(np.ceil(box[2] * width))
    top, bottom = int(np.floor(box[1] * height)), int(np.ceil(box[3] * height))
    mean = pixels.reshape(-1, 3).mean(axis=0)
    shown = np.rint((1 - AROUND) * pixels + AROUND * mean).astype(np.uint8)
    shown[top:bottom, left:right] = pixels[top:bottom, left:right]
    return shown


def sentences(vocabulary: Vocabulary) -> tuple[list[str], list[str]]:
    """What stands for the classes and for the predicates of a vocabulary, in its order."""
    subject, target = ("a person", "an object") if vocabulary.groups else ("something", "something")
    objects = [f"a photo of a {_spoken(vocabulary, label)}" for label in vocabulary.objects]
    return objects, [f"{subject} {_spoken(vocabulary, label)} {target}" for label in vocabulary.predicates]


def _spoken(vocabulary: Vocabulary, label: str) -> str:
    return vocabulary.to_text(label).replace("_", " ").replace("-", " ").replace("/", " or ")


def _pooled(found) -> np.ndarray:
    found = getattr(found, "pooler_output", found)  # transformers before 5 gives the tensor itself
    return found.float().cpu().numpy()
