"""The data of the gallery: which images, and for each what the reference and every run say about it.

Python writes data, the page's script draws it. What models wrote travels as JSON and becomes text nodes only, so it
needs no escaping; lengths and counts are bounded here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sgrl.drawing import MAX_OBJECTS, MAX_RELATIONS, cut
from sgrl.inference.predictions import Key
from sgrl.report.runs import Run
from sgrl.report.scored import graph_of
from sgrl.report.verdicts import RIGHT, WRONG, verdicts
from sgrl.text import Codec, ParsedGraph

MAX_TEXT, MAX_ISSUES = 4000, 5
CHUNK = 16  # images whose graphs are loaded together
PICKS = ("random", "first", "worst", "best")


def common_units(runs: Sequence[Run]) -> list[list[Key]]:
    """The images that every run has, in the first run's order; the frames of a video together and in theirs."""
    sets = [set(run.keys) for run in runs[1:]]
    units: dict[object, list[Key]] = {}
    for key in runs[0].keys:
        if all(key in keys for keys in sets):
            place = runs[0].places.get(key)
            units.setdefault((key[0], place[0]) if place else key, []).append(key)
    for unit in units.values():
        unit.sort(key=lambda key: runs[0].places.get(key, ("", 0))[1])
    return list(units.values())


def choose(runs: Sequence[Run], count: int, pick: str, seed: int) -> tuple[list[Key], str]:
    """About which images the gallery is, and a sentence that says so.

    Videos are taken whole (by the mean score of their frames), except for the last one taken. "worst" and
    "best" are judged by the SGG score of the last run; without scores the order of the file stays.
    """
    units = common_units(runs)
    total = sum(map(len, units))
    video = any(len(unit) > 1 for unit in units)
    things = "frames" if video else "images"
    if total <= count:
        return [key for unit in units for key in unit], f"All {total:,} {things}." if total > 1 else "The only image."
    order, how, last = list(range(len(units))), "the first ones", runs[-1]
    if pick == "random":
        random.Random(seed).shuffle(order)
        how = f"a random sample (seed {seed})"
    elif pick in ("worst", "best") and last.scored:
        values = dict(zip(last.keys, last.values, strict=True))
        means = [sum(values[key] for key in unit) / len(unit) for unit in units]
        order.sort(key=lambda position: means[position] * (1 if pick == "worst" else -1))
        how = f"the {pick} by SGG score of {last.name}"
    taken: list[tuple[int, list[Key]]] = []
    for position in order:
        if count > 0:
            taken.append((position, units[position][:count]))
            count -= len(units[position])
    if pick == "random":
        taken.sort()
    whole = " Videos are whole, but for the last one taken." if video else ""
    keys = [key for _, unit in taken for key in unit]
    return keys, f"{len(keys):,} of {total:,} {things}: {how}.{whole}"


class _Words:
    """Each distinct text once, by number."""

    def __init__(self):
        self.numbers: dict[str, int] = {}

    def __call__(self, texts) -> list[int]:
        return sorted({self.numbers.setdefault(cut(text), len(self.numbers)) for text in texts})


@dataclass
class Gallery:
    """index: what sorting and filtering need of all images. chunks: the graphs, `CHUNK` images each.

    `index["items"][i]` holds id, video, frame, the image (its address and size), predicates and labels (numbers of
    `index["words"]`), and per run `[score, made-up objects, made-up relations, missed relations, failed]`.
    """

    index: dict
    chunks: list[list[dict]] = field(default_factory=list)


def build(runs: Sequence[Run], keys: Sequence[Key], codec: Codec, images: Sequence[tuple[str, int, int]]) -> Gallery:
    """The data of these images.

    Args:
        runs: with the rows of `keys` (see `keep`).
        codec: reads the texts.
        images: address, width and height of each picture.
    """
    words = _Words()
    items, details = [], []
    for key, (address, width, height) in zip(keys, images, strict=True):
        place = runs[0].places.get(key)
        item = {"id": cut(key[1], 80), "image": address, "width": width, "height": height}
        item |= {"video": cut(place[0], 80), "frame": place[1]} if place else {}
        found, facts = _details(runs, key, codec)
        graphs = [panel for panel in [found["reference"], *found["runs"]] if panel]
        item["predicates"] = words(relation[1] for panel in graphs for relation in panel["relations"])
        item["labels"] = words(thing[0] for panel in graphs for thing in panel["objects"])
        items.append(item | {"runs": facts})
        details.append(found)
    index = {
        "runs": [{"name": cut(run.name), "scored": run.scored} for run in runs],
        "words": list(words.numbers),
        "chunk": CHUNK,
        "items": items,
    }
    return Gallery(index, [details[start : start + CHUNK] for start in range(0, len(details), CHUNK)])


def _details(runs: Sequence[Run], key: Key, codec: Codec) -> tuple[dict, list[list]]:
    """The panels of one image, and the facts of each run that the index holds."""
    rows: list[Mapping] = [run.rows[key] for run in runs]
    frame = float(rows[0]["width"]), float(rows[0]["height"])
    solution = rows[0]["solution"]
    truth = codec.recover_parsed(solution, *map(int, frame))[0] if solution is not None else None
    panels, facts = [], []
    hits: list[set[int]] = []
    for row in rows:
        text = row["prediction"] or ""  # None: there is none for this image
        graph, issues = graph_of(row, codec)
        judged = verdicts(graph, truth, row.get("matched"))
        panel = _panel(graph, judged, frame, text)
        panel["issues"] = [cut(issue, 120) for issue in issues[:MAX_ISSUES]]
        panel["failed"] = not graph.labels
        confidence = row.get("confidence") or []
        for relation, value in zip(panel["relations"], confidence, strict=False):
            relation.append(value)
        score = row.get("score") if truth is not None else None
        if score:
            panel["score"] = [round(score[name], 4) for name in ("sgg_score", "object_f1", "relation_f1")]
        panels.append(panel)
        hits.append({verdict.match for verdict in judged[1] if verdict.state == RIGHT and verdict.match is not None})
        wrong = [sum(verdict.state == WRONG for verdict in kind) for kind in judged]
        missed = len(truth.relations) - len(hits[-1]) if truth else 0
        # a failure counts as zero even if a lenient reader finds something in it
        failed = bool(score.get("failure", 0)) if score else not graph.labels
        facts.append([panel["score"][0] if score else None, *wrong, missed, int(failed)])
    reference = None
    if truth is not None:
        nothing = verdicts(truth, None, None)
        reference = _panel(truth, nothing, frame, solution)
        reference["found"] = [[int(i in hit) for hit in hits] for i in range(len(reference["relations"]))]
    return {"reference": reference, "runs": panels}, facts


def _panel(graph: ParsedGraph, judged, frame: tuple[float, float], text: str) -> dict:
    """objects: [label, x1, y1, x2, y2 in thousandths of the picture, state, reason, match]; relations alike."""
    objects = [
        [cut(label), *thousandths(box, frame), verdict.state, cut(verdict.reason, 90), verdict.match]
        for label, box, verdict in zip(graph.labels[:MAX_OBJECTS], graph.boxes, judged[0], strict=False)
    ]
    relations = [
        [int(s), cut(predicate), int(o), verdict.state, cut(verdict.reason, 90), verdict.match]
        for (s, predicate, o), verdict in zip(graph.relations[:MAX_RELATIONS], judged[1], strict=False)
    ]
    return {
        "objects": objects,
        "relations": relations,
        "more": [len(graph.labels) - len(objects), len(graph.relations) - len(relations)],
        "text": text[:MAX_TEXT] + ("…" if len(text) > MAX_TEXT else ""),
    }


def thousandths(box: Sequence[float], frame: tuple[float, float]) -> list[int]:
    """x1, y1, x2, y2 in thousandths of the frame, in order and clipped to it (a model's boxes may lie anywhere)."""
    sides = [max(side, 1.0) for side in frame] * 2
    x1, y1, x2, y2 = (
        round(min(max(1000 * value / side, 0.0), 1000.0)) for value, side in zip(box, sides, strict=True)
    )
    return [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]


def to_json(value: object) -> str:
    """JSON that can stand in a <script> element and in a script file: ASCII, and no markup."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
