"""Which column of somebody else's file of predictions is what.

SceneGraphVLM writes JSON lines with `messages`, `images`, `content` (the reference), `predict` and `gen_time_sec`;
R1-SGG a file of JSON for each image with `image_id`, `response`, `gt_objects`, `gt_relationships` (JSON in a text) and
`box_scale`, the frame of the boxes in the answer. Both stand side by side with their reference.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgrl.errors import UsageError, suggest
from sgrl.text.labels import MAX_LABEL

COLUMNS = {
    "image_id": ("image_id", "images", "image", "image_path", "file_name"),
    "prediction": ("prediction", "predict", "response"),
    "reference": ("reference", "solution", "content", "labels", "ground_truth", "gt_objects", "messages"),
    "relationships": ("gt_relationships",),
    "dataset": ("dataset",),
    "width": ("width",),
    "height": ("height",),
    "scale": ("box_scale",),
    "seconds": ("seconds", "gen_time_sec"),
    "tokens": ("tokens",),
    "finish_reason": ("finish_reason",),
    "confidence": ("confidence",),
    "video_id": ("video_id",),
    "frame": ("frame", "t"),
}
"""What is read, and under which names it is looked for, the first one that is there."""

OF_REFERENCES = ("reference", "relationships", "width", "height", "video_id", "frame")
"""What is said of an image, not of its prediction."""


@dataclass(frozen=True)
class Columns:
    """The columns of one file.

    found: what -> the column that holds it.
    """

    found: Mapping[str, str]

    @classmethod
    def of(cls, present: Iterable[str], given: Sequence[str] = ()) -> Columns:
        """Those of a file with the columns `present`.

        given: "column=what", of --map, of columns that are there.

        Raises:
            SgrlError: one of them is not like that.
        """
        present = list(present)
        found = {what: next((name for name in names if name in present), None) for what, names in COLUMNS.items()}
        if found["reference"] == "messages" and found["prediction"] == "response":
            found["reference"] = None  # ms-swift writes the answer itself there
        for words in given:
            column, _, what = words.rpartition("=")
            if what not in COLUMNS:
                hint = f"; say --map {what}={column}" if column in COLUMNS else suggest(what, COLUMNS)
                raise UsageError(f"--map {words}: expected COLUMN=WHAT, found {what!r} as what it is{hint}")
            found[what] = column
        return cls({what: name for what, name in found.items() if name is not None})

    def has(self, *whats: str) -> bool:
        return all(what in self.found for what in whats)

    def get(self, raw: Mapping[str, Any], what: str) -> Any:
        """The value as it stands in a row of the file; None where it has none."""
        name = self.found.get(what)
        return None if name is None else raw.get(name)

    def names(self, raw: Mapping[str, Any]) -> list[str]:
        """What a row may call its image, the surest first: an id as it is; of a path the whole, its end, its stem."""
        value = self.get(raw, "image_id")
        if isinstance(value, str) and value.startswith("["):  # in a cell of CSV
            value = _parsed(value) or value
        if isinstance(value, list):
            value = value[0] if value else None
        if isinstance(value, dict):
            value = value.get("path")
        if value is None:
            return []
        return names_of(str(value))

    def said(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """prediction, and what else a row says of it that figures need: confidence, tokens, seconds, finish_reason."""
        value = self.get(raw, "prediction")
        row = {"prediction": _assistant(value) if _is_chat(value) else value}
        for what in ("confidence", "tokens", "seconds", "finish_reason"):
            if what in self.found:
                value = raw.get(self.found[what])
                row[what] = _parsed(value) if isinstance(value, str) and what != "finish_reason" else value
        return row

    def reference(self, raw: Mapping[str, Any]) -> Any:
        """The reference, a text or a JSON object; None where there is none."""
        value = self.get(raw, "reference")
        if self.found["reference"] == "messages":
            value = _parsed(value)
        if self.has("relationships") and not _is_chat(value):
            return {"objects": _parsed(value), "relationships": _parsed(self.get(raw, "relationships"))}
        return _assistant(value) if _is_chat(value) else value

    def scale(self, raw: Mapping[str, Any]) -> tuple[float, float] | None:
        """The frame of the boxes in the answer, where a row says that it is one of its own."""
        value = _parsed(self.get(raw, "scale"))
        pair = value if isinstance(value, list) and len(value) == 2 else (None, None)
        return size_of(*pair)

    def size(self, raw: Mapping[str, Any]) -> tuple[float, float] | None:
        """Width and height of the frame of the reference's boxes."""
        return size_of(self.get(raw, "width"), self.get(raw, "height"))

    def line(self, references: bool) -> str:
        """What was taken for what, for those who read along; "" where every column has its own name."""
        whats = [what for what in self.found if references or what not in OF_REFERENCES]
        if all(what == self.found[what] for what in whats) and "reference" not in whats:
            return ""
        return "Read: " + ", ".join(
            f"{what} from {' and '.join(_columns_of(self.found, what))}" for what in whats if what != "relationships"
        )


def names_of(path: str) -> list[str]:
    r"""What an image may be called, from its path: of this system or of Windows.

    >>> names_of("C:\\coco\\val2017\\000000000139.jpg")
    ['C:/coco/val2017/000000000139.jpg', 'val2017/000000000139.jpg', 'val2017/000000000139', '000000000139.jpg', \
'000000000139', '139']
    """
    path = path.replace("\\", "/") if "\\" in path else path
    folders, _, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not (folders or (dot and suffix.isalpha())):
        return [path]
    stem = stem or name
    parent = folders.rpartition("/")[2]
    return list(dict.fromkeys([path, f"{parent}/{name}", f"{parent}/{stem}", name, stem, stem.lstrip("0") or stem]))


def size_of(width: Any, height: Any) -> tuple[float, float] | None:
    """A size in numbers, also where they are written as texts; None for anything else."""
    found = []
    for value in (width, height):
        if isinstance(value, str) and len(value) < MAX_LABEL:
            try:
                value = float(value)
            except ValueError:
                return None
        if type(value) not in (int, float) or not 0 < value < math.inf:
            return None
        found.append(int(value) if value == int(value) else value)
    return found[0], found[1]


def _columns_of(found: Mapping[str, str], what: str) -> list[str]:
    both = what == "reference" and "relationships" in found
    return [found[what], found["relationships"]] if both else [found[what]]


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _assistant(messages: list[Any]) -> Any:
    """What the assistant said last."""
    said = [message for message in messages if isinstance(message, dict) and message.get("role") == "assistant"]
    return said[-1].get("content") if said else None


def _parsed(value: Any) -> Any:
    """JSON that stands in a text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
