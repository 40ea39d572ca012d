"""In which coordinates a model writes boxes by itself.

Qwen2.5-VL writes pixels of the image as it resizes it; Qwen2-VL, Qwen3-VL, Qwen3.5, InternVL and GLM write
thousandths, Gemini and Gemma thousandths with y first, PaliGemma 1024ths with y first.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.models.vlm.families import FAMILIES, family_of


@dataclass(frozen=True)
class Convention:
    """How a family of models writes boxes.

    bins: coordinates run from 0 to it on both axes; None for pixels. y_first: y1, x1, y2, x2. multiple: the sides of
    the image that the model sees are rounded to multiples of it. pixels: fewest and most that it sees, None for any.
    """

    bins: int | None = None
    y_first: bool = False
    multiple: int = 1
    pixels: tuple[int, int] | None = None

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the coordinates for an image of `width` x `height` pixels (Qwen's `smart_resize`)."""
        if self.bins:
            return self.bins, self.bins
        step = self.multiple
        found = round(width / step) * step, round(height / step) * step
        fewest, most = self.pixels or (0, math.inf)
        if found[0] * found[1] > most:
            scaled = math.sqrt(width * height / most)
            across, down = (max(math.floor(side / scaled / step), 1) * step for side in (width, height))
            return across, down
        if found[0] * found[1] < fewest:
            scaled = math.sqrt(fewest / (width * height))
            across, down = (math.ceil(side * scaled / step) * step for side in (width, height))
            return across, down
        return found


CONVENTIONS = {
    "pixel": Convention(),
    "pixel28": Convention(multiple=28, pixels=(56 * 56, 16384 * 28 * 28)),
    "norm1000": Convention(1000),
    "norm1000-yx": Convention(1000, y_first=True),
    "norm1024-yx": Convention(1024, y_first=True),
}


def convention_of(name: str, model: str) -> Convention:
    """The convention called `name`; "auto" chooses by what the model is.

    model: a folder whose config.json says it, or a name; of its parts the last that names a family counts.

    Raises:
        SgrlError: an unknown name, or "auto" for a model of no known family.
    """
    if name != "auto":
        if name not in CONVENTIONS:
            raise UsageError(f"unknown coordinates {name!r}{suggest(name, ['auto', *CONVENTIONS])}")
        return CONVENTIONS[name]
    kind = _read(Path(model) / "config.json").get("model_type")
    family = family_of([kind] if isinstance(kind, str) else reversed(Path(model).parts))
    if family is not None and (found := FAMILIES[family].coordinates):
        return _as_processed(CONVENTIONS[found], Path(model))
    called = f"{model!r} (model_type {kind!r})" if kind else repr(model)
    known = "|".join(CONVENTIONS)
    raise SgrlError(f"how {called} writes boxes is not known; say it with --zero-shot {known}, or in its task")


def _as_processed(convention: Convention, folder: Path) -> Convention:
    """With the limits that the processor of a model folder sets to the pixels."""
    if convention.pixels is None:
        return convention
    found = _read(folder / "preprocessor_config.json") or _read(folder / "processor_config.json")
    found = found.get("image_processor") or found
    size = found.get("size") or {}
    fewest = found.get("min_pixels") or size.get("shortest_edge")
    most = found.get("max_pixels") or size.get("longest_edge")
    if isinstance(fewest, int) and isinstance(most, int) and (fewest, most) != convention.pixels:
        return replace(convention, pixels=(fewest, most))
    return convention


def _read(path: Path) -> dict:
    """A JSON object of a model folder; {} where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
