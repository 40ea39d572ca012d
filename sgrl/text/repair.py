"""What a grammar cannot hold, put right: from almost a valid text to a valid one.

A context-free grammar can't compare the x1 of a box with the x2 that follows after y1 (it would need a rule for every
corner of the image), nor remember which relations it has written, and the limit on tokens cuts where it likes. After
constrained decoding (`sgrl.text.grammar`) these are the only faults left, and each has one plain remedy.
"""

from __future__ import annotations

from typing import Any

from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import answer
from sgrl.text.codec import Codec
from sgrl.text.parsed import MAX_OBJECTS, MAX_RELATIONS, FormatError, SwappedCorners
from sgrl.text.tables import pixels


def repair(codec: Codec, text: str, width: int, height: int) -> tuple[str, dict[str, int]]:
    """A completion as the strict reader wants it, and how many of each fault were found (empty: it was valid).

    Corners are put in order and into the image, an empty box gets one pixel, and relations that are repeated, run from
    an object to itself or name an unknown one are left out (`boxes`, `relations`); a text that was cut off or is
    otherwise no valid layout keeps the rows that can be read (`layout`). Objects are never removed, so ids stay.
    A text in which no object can be read comes back as it is, with `no_graph`.
    """
    try:
        codec.parse(text, width, height)
        return text, {}
    except FormatError:
        pass
    graph, _ = codec.recover(text, width, height)
    if not graph.objects:
        return text, {"no_graph": 1}
    objects = [Object(o.label, _inside(o.box, width, height)) for o in graph.objects[:MAX_OBJECTS]]
    kept: dict[tuple[Any, ...], Relation] = {}
    for r in graph.relations:
        key = (r.subject, r.predicate, r.object, r.group)
        if (
            r.subject != r.object
            and max(r.subject, r.object) < len(objects)
            and (not codec.person_subject or objects[r.subject].label == "person")
        ):
            kept.setdefault(key, r)
    fixed = SceneGraph(objects, list(kept.values())[:MAX_RELATIONS], width, height)
    repaired = answer.wrap(codec.encode(fixed))
    try:
        codec.parse(repaired, width, height)
    except FormatError:  # labels that no layout can hold
        return text, {"no_graph": 1}
    written = codec.recover_parsed(text, width, height)[0]
    faults = {
        "boxes": sum(o.box != box for o, box in zip(objects, written.boxes, strict=False)),
        "relations": len(written.relations) - len(fixed.relations),
    }
    faults["boxes"] = max(faults["boxes"], _swapped(codec, text, width, height))
    faults = {name: count for name, count in faults.items() if count}
    return repaired, faults or {"layout": 1}


def _inside(box: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """Whole pixels, corners in order, inside the image, at least a pixel wide and high."""
    x1, y1, x2, y2 = pixels((min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])))
    left, top = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return left, top, min(max(x2, left + 1), width), min(max(y2, top + 1), height)


def _swapped(codec: Codec, text: str, width: int, height: int) -> int:
    """Boxes whose corners the reader has put in order already."""
    return sum(isinstance(issue, SwappedCorners) for issue in codec.recover_parsed(text, width, height)[1])
