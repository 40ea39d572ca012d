"""What a language model is asked about a frame or a pair, and how its answers are read.

Answers are hostile text: nothing here raises on one, and all takes time linear in its length.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgrl.boxes import COORDS, scale
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.folds import fold_of
from sgrl.models.vost.loose_json import values
from sgrl.text import answer
from sgrl.text.codec import as_text
from sgrl.text.labels import MAX_LABEL
from sgrl.text.parsed import FLOAT, GROUPS, LARGEST, MAX_RECOVERED
from sgrl.vocabulary import Vocabulary

__all__ = [
    "FrameAnswer",
    "PairAnswer",
    "fold_of",
    "frame_prompt",
    "pair_prompt",
    "parse_frame",
    "parse_pair",
    "prompt_hash",
]

PERSON = "person"
OTHER = "other"
"""The name here of predicates without groups."""

PROMPT_VERSION = 1
"""Of the words below; a change of them is another version."""

_FRAME = """\
Look at the image. Which of these things can be seen, where are they, and how does the person relate to each?

Things: {objects}
Contact (one or more): {contacting}
Spatial, where the thing is as seen from the person (one or more): {spatial}
Attention, whether the person looks at it (exactly one): {attention}

Answer with JSON alone, a list with one entry for the person and one for each thing:
[{{"label": "person", "bbox": [x1, y1, x2, y2]}},
 {{"label": "...", "bbox": [x1, y1, x2, y2], "contact": ["..."], "spatial": ["..."], "attention": "..."}}]
{frame} Use only the words that are listed."""

_PAIR = """\
In the image, {subject} is at {subject_box} and {object} at {object_box}. {frame} How are they related?

{lists}

Answer with JSON alone: {answer}
Use only the words that are listed; an empty list says that none holds."""

_LISTS = {
    "contacting": "Contact, what {subject} does with {object} (one or more): {labels}",
    "spatial": "Spatial, where {object} is as seen from {subject} (one or more): {labels}",
    "attention": "Attention, whether {subject} looks at {object} (exactly one): {labels}",
    OTHER: "Predicates (one or more): {labels}",
}
_KEYS = {"contacting": "contact", "spatial": "spatial", "attention": "attention", OTHER: "predicates"}


@dataclass(frozen=True)
class PairAnswer:
    """What was said of one pair, in the vocabulary's spelling, in the order of the answer.

    Attributes:
        attention, spatial, contacting: labels of each group; at most one of attention.
        dropped: what stood there and is none of the vocabulary's predicates, or a second attention.
        other: labels of a vocabulary without these groups.
    """

    attention: list[str]
    spatial: list[str]
    contacting: list[str]
    dropped: list[str]
    other: list[str] = field(default_factory=list)

    @property
    def predicates(self) -> list[str]:
        return [*self.attention, *self.spatial, *self.contacting, *self.other]


@dataclass(frozen=True)
class FrameAnswer:
    """What was said of a frame.

    Attributes:
        person: its box, corners in pixels; None if it was not found.
        pairs: of each other object label, box, attention, spatial, contacting.
        dropped: why something was left out: item (no object), label, box, predicate, person (a second one), duplicate.
    """

    person: list[float] | None
    pairs: list[dict[str, Any]]
    dropped: list[str]


def prompt_hash() -> str:
    """Of all words that models are asked with, for files that say what made them."""
    words = json.dumps([PROMPT_VERSION, _FRAME, _PAIR, _LISTS, _KEYS])
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def frame_prompt(vocabulary: Vocabulary, width: int, height: int, coords: str = "pixel") -> str:
    """The question about a frame; needs a vocabulary with the three groups.

    width, height: of the image as the model sees it, in pixels; coords: one of `sgrl.boxes.COORDS`.
    """
    groups = vocabulary.groups or {}
    if set(groups) != set(GROUPS):
        raise SgrlError(
            f"vocabulary {vocabulary.name!r} has no groups {', '.join(GROUPS)}, which the question about a frame asks "
            "for; ask about pairs instead"
        )
    lists = {name: _listed(vocabulary, labels) for name, labels in groups.items()}
    objects = _listed(vocabulary, vocabulary.objects)
    return _FRAME.format(objects=objects, frame=_frame(width, height, coords), **lists)


def pair_prompt(
    vocabulary: Vocabulary,
    subject: tuple[str, Sequence[float]],
    object: tuple[str, Sequence[float]],
    width: int,
    height: int,
    coords: str = "pixel",
) -> str:
    """The question about a pair whose classes and boxes (corners in pixels of width x height) are known."""
    names = {"subject": f"the {vocabulary.to_text(subject[0])}", "object": f"the {vocabulary.to_text(object[0])}"}
    places = {"subject_box": subject[1], "object_box": object[1]}
    written = {name: _written(box, width, height, coords) for name, box in places.items()}
    lists = _grouped(vocabulary)
    order = [name for name in _LISTS if name in lists]
    told = [_LISTS[name].format(labels=_listed(vocabulary, lists[name]), **names) for name in order]
    shape = ", ".join(f'"{_KEYS[name]}": ' + ('"..."' if name == "attention" else '["..."]') for name in order)
    frame = _frame(width, height, coords)
    return _PAIR.format(lists="\n".join(told), answer=f"{{{shape}}}", frame=frame, **names, **written)


def parse_pair(text: str | bytes | None, vocabulary: Vocabulary) -> PairAnswer:
    """What an answer to `pair_prompt` says. Never raises; linear time.

    JSON in a fence or amid prose, cut off at any place, with Python's quotes; without it, lines "Contact: a, b".
    """
    text = answer.without_thoughts(as_text(text))
    labels = _Labels(vocabulary)
    said = next((found for found in _dicts(values(text)) if any(map(_group, found))), None)
    if said is not None:
        for key, value in said.items():
            if _group(key):
                labels.take(value)
    else:
        for match in _LINE.finditer(text):
            labels.take(match[1].strip(_AROUND))
    return labels.answer()


def parse_frame(
    text: str | bytes | None, vocabulary: Vocabulary, width: int, height: int, coords: str = "pixel"
) -> FrameAnswer:
    """What an answer to `frame_prompt` says, boxes in pixels. Never raises on a text; linear time.

    Raises:
        SgrlError: unknown `coords`.
    """
    if coords not in COORDS:
        raise UsageError(f"unknown coordinates {coords!r}{suggest(coords, COORDS)}")
    person: list[float] | None = None
    pairs: list[dict[str, Any]] = []
    dropped: list[str] = []
    seen: set[tuple] = set()
    for item in _items(values(answer.without_thoughts(as_text(text)))):
        if len(pairs) >= MAX_RECOVERED or len(dropped) >= MAX_RECOVERED:
            break
        if not isinstance(item, dict):
            dropped.append("item")
            continue
        named = {key.strip().lower(): value for key, value in item.items()}
        label = _object_label(_first(named, "label", "name", "class", "object"), vocabulary)
        if label is None:
            dropped.append("label")
            continue
        box = _box(_first(named, "bbox", "bbox_2d", "box"), width, height, coords)
        if box is None:
            dropped.append("box")
        elif label == PERSON:
            if person is not None:
                dropped.append("person")
            person = person or box
        elif (label, *box) in seen:
            dropped.append("duplicate")
        else:
            seen.add((label, *box))
            labels = _Labels(vocabulary)
            for key, value in named.items():
                if _group(key):
                    labels.take(value)
            found = labels.answer()
            dropped += ["predicate"] * len(found.dropped)
            lists = {name: getattr(found, name) for name in (GROUPS if vocabulary.groups else (OTHER,))}
            pairs.append({"label": label, "box": box, **lists})
    return FrameAnswer(person, pairs, dropped)


_LINE = re.compile(
    r"^[ \t*\-•>#.\d()\"'_]*+(?:contacting|contact|spatial|attention|predicates?+|relations?+)\b[^:\n]{0,60}+:(.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_AROUND = " \t\r*_`[](){}\"'.,"
_WORD = re.compile(r"[a-z]++")
_GROUP_OF = {
    **{"contact": "contacting", "contacting": "contacting", "spatial": "spatial", "attention": "attention"},
    **dict.fromkeys(("predicate", "predicates", "relation", "relations", "relationship", "relationships"), OTHER),
}


def _group(key: str) -> str | None:
    word = _WORD.match(key[:MAX_LABEL].strip().lower())
    return _GROUP_OF.get(word[0]) if word else None


class _Labels:
    """Collects labels under whatever key they stand: a label of another group goes to its own."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._group_of = {label: name for name, labels in _grouped(vocabulary).items() for label in labels}
        self._found: dict[str, list[str]] = {name: [] for name in (*GROUPS, OTHER)}
        self._seen: set[str] = set()
        self._dropped: list[str] = []

    def take(self, value: Any) -> None:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                for part in one.split(","):
                    self._take_text(part.strip().strip("\"'").strip())
            elif one is not None:
                self._drop(json.dumps(one, ensure_ascii=False))

    def _take_text(self, text: str) -> None:
        if not text:
            return
        label = self._vocabulary.from_text(text) if len(text) <= MAX_LABEL else None
        group = None if label is None else self._group_of.get(label)
        if label in self._seen:
            return
        if label is None or group is None or (group == "attention" and self._found[group]):
            self._drop(text)
        else:
            self._seen.add(label)
            self._found[group].append(label)

    def _drop(self, text: str) -> None:
        if len(self._dropped) < MAX_RECOVERED:
            self._dropped.append(text[:MAX_LABEL])

    def answer(self) -> PairAnswer:
        attention, spatial, contacting = (self._found[name] for name in GROUPS)
        return PairAnswer(attention, spatial, contacting, self._dropped, self._found[OTHER])


def _grouped(vocabulary: Vocabulary) -> dict[str, Sequence[str]]:
    """Predicates by the names of the three groups, or all of them under `OTHER`."""
    groups = vocabulary.groups or {}
    return dict(groups) if set(groups) == set(GROUPS) else {OTHER: vocabulary.predicates}


def _dicts(found: list) -> Iterator[dict]:
    """All dictionaries, outer ones first."""
    level = found
    while level:
        yield from (value for value in level if isinstance(value, dict))
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [each for inside in inner for each in inside if isinstance(each, dict | list)]


def _items(found: list) -> list:
    """The list of objects in an answer: the first that holds any, alone or inside an object, or one object a line."""
    single = []
    for value in found:
        if isinstance(value, list) and _holds_dicts(value):
            return value
        if isinstance(value, dict):
            inner = next((v for v in value.values() if isinstance(v, list) and _holds_dicts(v)), None)
            if inner is not None:
                return inner
            single.append(value)
    return single or next((value for value in found if isinstance(value, list)), [])


def _holds_dicts(value: list) -> bool:
    return any(isinstance(each, dict) for each in value)


def _first(item: dict, *keys: str) -> Any:
    return next((item[key] for key in keys if key in item), None)


def _object_label(label: Any, vocabulary: Vocabulary) -> str | None:
    if not isinstance(label, str) or len(label) > MAX_LABEL:
        return None
    official = vocabulary.from_text(label)
    return official if official in vocabulary.objects else None


def _box(given: Any, width: int, height: int, coords: str) -> list[float] | None:
    """Corners in pixels, in order and inside the image; None if that leaves no area, or if they are no numbers."""
    if not isinstance(given, list) or len(given) != 4:
        return None
    numbers = [number for value in given if (number := _number(value)) is not None]
    if len(numbers) < 4:
        return None
    if coords == "norm1000":
        numbers = scale([numbers], (1000, 1000), (width, height))[0].tolist()
    (x1, x2), (y1, y2) = (sorted((numbers[i], numbers[i + 2])) for i in (0, 1))
    box = [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]
    return box if box[0] < box[2] and box[1] < box[3] else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        value = float(value.strip()) if len(value) <= 60 and FLOAT.fullmatch(value.strip()) else None
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) <= LARGEST else None


def _listed(vocabulary: Vocabulary, labels: Sequence[str]) -> str:
    return ", ".join(vocabulary.to_text(label) for label in labels)


def _frame(width: int, height: int, coords: str) -> str:
    if coords == "norm1000":
        return "Coordinates are thousandths of the image's width and height."
    return f"Coordinates are pixels of the image, which is {width} wide and {height} high."


def _written(box: Sequence[float], width: int, height: int, coords: str) -> str:
    if coords == "norm1000":
        box = scale([box], (width, height), (1000, 1000))[0]
    return str([round(float(value)) for value in box])
