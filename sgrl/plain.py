"""Graphs as plain dictionaries, which JSON can hold, and back; what comes back is checked entry by entry.

    {"width": 640, "height": 480,
     "objects": [{"id": 1, "label": "person", "box": [x1, y1, x2, y2], "score": 0.9, "track": 7}],
     "relations": [{"subject": 1, "predicate": "riding", "object": 2, "group": ..., "span": [0, 4], "score": 0.8}]}

Boxes are pixels. `score`, `track`, `group` and `span` stand only where they are known; ids count from 1. A video has
`boxes` in the place of `box`, one for each frame and null where the object is absent, or `masks` (COCO's run lengths),
and relations with `spans`, pairs of first and last frame.

The data models call this; it knows none of them, so that it stands below them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sgrl.errors import GraphError
from sgrl.terminal import printable

_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False)  # made once: `json.dumps` would make one a call


def number(value) -> int | float:
    """A number as JSON has it, out of numpy's or torch's."""
    return value.item() if hasattr(value, "item") else value


def known(score) -> dict:
    """{"score": ...}; nothing for one that is unknown or no finite number."""
    if score is None or not math.isfinite(score):
        return {}
    return {"score": float(score)}


def write(objects: Iterable, relations: Iterable, tracks: Sequence | None = None) -> dict[str, list]:
    """The entries of an image's objects and relations; tracks: an identity for each object, None without."""
    things = [{"id": i, "label": o.label, "box": list(o.box), **known(o.score)} for i, o in enumerate(objects, 1)]
    for thing, track in zip(things, tracks or (), strict=tracks is not None):
        if track is not None:
            thing["track"] = number(track)
    edges = []
    for r in relations:
        edge = {"subject": int(r.subject) + 1, "predicate": r.predicate, "object": int(r.object) + 1}
        if r.group is not None:
            edge["group"] = r.group
        if r.span is not None:
            edge["span"] = list(map(number, r.span))
        edges.append(edge | known(r.score))
    return {"objects": things, "relations": edges}


def text(value: Mapping | Sequence) -> str:
    """JSON in one line. ASCII: what a model wrote may hold halves of a character, which UTF-8 cannot write."""
    return _ENCODER.encode(value)


def parsed(source: str | bytes) -> Any:
    """The value of a JSON text. Raises GraphError for what is none."""
    try:
        return json.loads(source, parse_constant=_no_number)
    except RecursionError:
        raise GraphError("not a graph: JSON that is nested too deep") from None
    except (ValueError, TypeError) as error:  # TypeError: not a text at all
        reason = printable(error, 120)
        raise GraphError(
            f"not a graph: expected the JSON text that to_json wrote, found {_shown(source)} ({reason})"
        ) from None


def _no_number(name: str):
    raise ValueError(f"{name} is no number of JSON")


def image(data) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any, Any]:
    """Keyword arguments of objects and relations, width and height. Raises GraphError that names the entry."""
    _mapping(data, "a graph", ("width", "height", "objects"))
    width, height = (_number(data[name], name, positive=True) for name in ("width", "height"))
    objects = [
        {"label": _string(entry, "label", place), "box": _box(entry.get("box"), place), "score": _score(entry, place)}
        for place, entry in _entries(data["objects"], "object", ("id", "label", "box"))
    ]
    check_tracks(data["objects"])
    relations = []
    for place, entry, ends in _edges(data):
        relation = ends | {"predicate": _string(entry, "predicate", place), "score": _score(entry, place)}
        if entry.get("group") is not None:
            relation["group"] = _string(entry, "group", place)
        if entry.get("span") is not None:
            relation["span"] = _pair(entry["span"], f"{place}: span")
        relations.append(relation)
    return objects, relations, width, height


def check_tracks(objects: Sequence[Mapping]) -> list[int | str | None]:
    """The identity of each object, None without. Raises GraphError for one that is neither a number nor a text."""
    tracks = [entry.get("track") for entry in objects]
    for i, track in enumerate(tracks, 1):
        if not (track is None or isinstance(track, str) or (isinstance(track, int) and not isinstance(track, bool))):
            raise GraphError(f"object {i}: track must be a whole number or a string, found {_shown(track)}")
    return tracks


def video(data) -> tuple[list[tuple[str, str, list]], list[dict], int, int | None, int | None]:
    """(label, "boxes" or "masks", the frames' entries) of each object, keyword arguments of the relations, number of
    frames, and height and width where they are given. Raises GraphError that names the entry."""
    _mapping(data, "a video's graph", ("frames", "objects"))
    frames = data["frames"]
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 0:
        raise GraphError(f"frames must be a whole number, at least 0, found {_shown(frames)}")
    sides = [data.get(name) and int(_number(data[name], name, positive=True)) for name in ("height", "width")]
    objects = []
    for place, entry in _entries(data["objects"], "object", ("id", "label")):
        kind = "masks" if "masks" in entry else "boxes"
        found = entry.get(kind)
        if not isinstance(found, list | tuple):
            raise GraphError(f"{place}: expected a list of boxes or masks, one for each frame, found {_shown(found)}")
        if kind == "boxes":
            found = [None if box is None else _box(box, f"{place}, frame {i}") for i, box in enumerate(found)]
        elif None in sides:
            raise GraphError(f"{place}: masks need the video's width and height, found {_shown(data.get('width'))}")
        objects.append((_string(entry, "label", place), kind, list(found)))
    relations = []
    for place, entry, ends in _edges(data):
        spans = entry.get("spans", ())
        if not isinstance(spans, list | tuple):
            raise GraphError(f"{place}: spans must be a list of pairs, found {_shown(spans)}")
        spans = tuple(_pair(span, f"{place}: span {i}") for i, span in enumerate(spans))
        predicate = _string(entry, "predicate", place)
        relations.append(ends | {"predicate": predicate, "spans": spans, "score": _score(entry, place)})
    height, width = sides
    return objects, relations, frames, height, width


def _edges(data: Mapping):
    """(place, entry, subject and object as positions) of each relation."""
    positions: dict[int | str, int] = {}
    for i, entry in enumerate(data["objects"]):
        name = entry["id"]
        if not isinstance(name, int | str) or isinstance(name, bool):
            raise GraphError(f"object {i + 1}: id must be a whole number or a string, found {_shown(name)}")
        if name in positions:
            raise GraphError(f"object {i + 1}: id {_shown(name)} is that of object {positions[name] + 1}, too")
        positions[name] = i
    for place, entry in _entries(data.get("relations", ()), "relation", ("subject", "predicate", "object")):
        ends = {}
        for end in ("subject", "object"):
            name = entry[end]
            position = positions.get(name) if isinstance(name, int | str) and not isinstance(name, bool) else None
            if position is None:
                count = len(positions)
                raise GraphError(f"{place}: {end} must be the id of one of the {count} objects, found {_shown(name)}")
            ends[end] = position
        yield place, entry, ends


def _entries(found, what: str, needed: tuple[str, ...]):
    """(place, entry) of a list of objects or relations."""
    if not isinstance(found, list | tuple):
        raise GraphError(f"{what}s must be a list, found {_shown(found)}")
    for i, entry in enumerate(found, 1):
        _mapping(entry, f"{what} {i}", needed)
        yield f"{what} {i}", entry


def _mapping(value, what: str, needed: tuple[str, ...]) -> None:
    if not isinstance(value, Mapping):
        raise GraphError(f"{what} must be a dictionary, found {_shown(value)}")
    missing = [name for name in needed if name not in value]
    if missing:
        names = printable(", ".join(map(str, value)) or "nothing", 120)
        raise GraphError(f"{what} has no {' and no '.join(map(repr, missing))}, only {names}")


def _string(entry: Mapping, name: str, place: str) -> str:
    value = entry[name]
    if not isinstance(value, str):
        raise GraphError(f"{place}: {name} must be a string, found {_shown(value)}")
    return value


def _finite(value) -> bool:
    try:
        return not isinstance(value, bool | str) and math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def _number(value, name: str, positive: bool = False) -> int | float:
    if not _finite(value) or (positive and value <= 0):
        raise GraphError(f"{name} must be a finite number{' above 0' * positive}, found {_shown(value)}")
    return number(value)


def _box(value, place: str) -> tuple:
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(_finite, value)):
        raise GraphError(f"{place}: box must be four finite numbers x1, y1, x2, y2, found {_shown(value)}")
    return tuple(value)


def _pair(value, place: str) -> tuple:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_finite, value)):
        raise GraphError(f"{place} must be two finite numbers, first and last, found {_shown(value)}")
    return tuple(map(number, value))


def _score(entry: Mapping, place: str) -> float | None:
    value = entry.get("score")
    return None if value is None else float(_number(value, f"{place}: score"))


def _shown(value) -> str:
    """A value in an error: one short line, whatever it is."""
    try:
        return printable(repr(value[:100] if isinstance(value, str | bytes) else value), 80)
    except Exception:  # a number with more digits than Python writes, a circle, a foreign object
        return f"a {type(value).__name__}"
