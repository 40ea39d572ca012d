"""How SceneGraphVLM's Action Genome evaluator reads and ranks a generated graph, for `protocol="published"`.

Its departures from what the text says, each of which moves numbers that people compare:

* It needs a closed answer. Rows count wherever they stand in it; of two objects with one id the last counts; boxes
  that leave the image or have no area are dropped.
* A class is also recognised by a part of its name or by a longer name ("cup", "coffee table").
* A relation with an unknown object means the one with the smallest id.
* A row proposes a predicate in each group even if a group is empty: "looking_at", with score 0. Otherwise a label
  scores 1, spatial and contacting ones 0.0001 less for each label before them.
* Without constraint, 100 triplets enter the ranking: what a row does not say enters with score 0, group by group and
  with predicates of other groups too.
* Precision gives each proposal the first free relation in the order of the reference.
* SGCLS and PredCLS give the i-th object, by id, the box (and class) of the i-th reference object. Where the prediction
  has more objects than the reference, the evaluator stops with an error; here the others are nowhere.

Rows with `|` between labels are read as well as bracketed ones, which are all that the published code knows. Equal
scores are ranked by a stable sort, then reversed where the published code reverses; the published order of equal
scores depends on the sorting instructions of the machine.

Source: metrics/sgbench/eval_classical_metrics_extended.py (SceneGraphVLM).
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rewards.metrics.action_genome_counts import Triplets
from sgrl.text import answer
from sgrl.text.lenient import split_row
from sgrl.text.parsed import GROUPS, MAX_RECOVERED
from sgrl.vocabulary import Vocabulary

PROPOSALS = 100
STEP = 1e-4
"""What a label loses for each label before it in its cell."""

_ID = re.compile(r"[0-9]{1,9}")
# White space, names and cells may hold line breaks, as in the published patterns.
_NUMBERS = r",\s*+(-?+\d++)\s*+" * 3 + r",\s*+(-?+\d++)"
_OBJECT = re.compile(rf"^[^\S\n]*+(\d++)\s*+,([^,]++){_NUMBERS}[^\S\n]*+$", re.MULTILINE)
_ROW_START = re.compile(r"^[^\S\n]*+(\d++)\s*+,\s*+\[", re.MULTILINE)
_NEXT_CELL = re.compile(r"\]\s*+,\s*+\[")
_ROW_END = re.compile(r"\]\s*+,\s*+(\d++)[^\S\n]*+$", re.MULTILINE)

Row = tuple[int, list[list[str]], int]
"""Id, labels of each group, id."""


def reversed_spatial(graph: Triplets, spatial: np.ndarray) -> Triplets:
    """Spatial relations run from the object to the person here, so that a row's zeros for other groups stay wrong."""
    turn = np.isin(graph.predicates, spatial)
    return graph._replace(
        subjects=np.where(turn, graph.objects, graph.subjects), objects=np.where(turn, graph.subjects, graph.objects)
    )


@dataclass(frozen=True)
class Rules:
    """What enters a ranking: `constraint` is "with" or "no", `task` what the model was given."""

    constraint: str
    task: str
    vocabulary: Vocabulary


def proposals(text: str, truth: Triplets, width: int, height: int, rules: Rules) -> Triplets | None:
    """The ranked proposals of a text, spatial ones reversed; None where the published evaluator finds no graph.

    Args:
        truth: the reference with its spatial relations reversed.
        rules: those of the metric.
    """
    constraint, task, vocabulary = rules.constraint, rules.task, rules.vocabulary
    read = _read(text, width, height)
    if read is None:
        return None
    objects, rows = read
    ids = sorted(objects)
    position = {number: i for i, number in enumerate(ids)}
    boxes = np.array([objects[number][1] for number in ids], dtype=np.float64)
    labels = np.array([_class(objects[number][0], vocabulary) for number in ids], dtype=np.int64)
    if task != "sgdet":
        given = np.arange(len(ids)) < len(truth.labels)
        source = np.arange(len(ids))[given]
        boxes[given], boxes[~given] = truth.boxes[source], np.nan
        if task == "predcls":
            labels[given] = truth.labels[source]
    column = {label: i for i, label in enumerate(vocabulary.predicates)}
    groups = vocabulary.groups or {}
    scores: np.ndarray = np.zeros((len(GROUPS), len(rows), len(column)))
    ends = np.zeros((len(rows), 2), dtype=np.int64)
    for i, (subject, cells, target) in enumerate(rows):
        ends[i] = position.get(subject, 0), position.get(target, 0)
        for j, (group, cell) in enumerate(zip(GROUPS, cells, strict=True)):
            for rank, label in enumerate(cell):
                if label in groups[group]:
                    scores[j, i, column[label]] = 1.0 - STEP * rank * (j > 0)
    scores = np.reshape(scores, (-1, len(column)))
    ends = np.concatenate([ends, ends[:, ::-1], ends])
    if constraint == "no":
        best = _order(-scores)[:PROPOSALS]
        row, predicate = best // len(column), best % len(column)
    else:
        row, predicate = np.arange(len(scores)), scores.argmax(axis=1)
    order = _order(scores[row, predicate])[::-1]
    row, predicate = row[order], predicate[order]
    return Triplets(boxes, labels, ends[row, 0], predicate, ends[row, 1])


def _order(scores: np.ndarray) -> np.ndarray:
    return np.argsort(scores, axis=None, kind="stable")


def _read(text: str, width: int, height: int) -> tuple[dict[int, tuple[str, list[int]]], list[Row]] | None:
    """Objects by id as (class name, box), and rows."""
    body, closed = answer.first_closed(_without_thinking(text))
    if not closed:
        return None
    objects: dict[int, tuple[str, list[int]]] = {}
    for match in _OBJECT.finditer(body):
        try:
            number, (x1, y1, x2, y2) = int(match[1]), map(int, match.groups()[2:])
        except ValueError:  # more digits than Python converts
            continue
        if 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height and len(objects) < MAX_RECOVERED:
            objects[number] = match[2].strip(), [x1, y1, x2, y2]
    if not objects:
        return None
    rows = sorted([*_bracketed_rows(body), *_barred_rows(body)], key=lambda found: found[0])
    return objects, [row for _, row in rows[:MAX_RECOVERED]]


def _bracketed_rows(body: str) -> Iterator[tuple[int, Row]]:
    """Rows with the place where they begin."""
    closing = [match.start() for match in re.finditer(r"\]", body)]  # looked up: not searched again for every row
    end = 0
    for start in _ROW_START.finditer(body):
        if start.start() < end:
            continue
        place, cells = start.end(), []
        for pattern in (_NEXT_CELL, _NEXT_CELL, _ROW_END):
            i = bisect.bisect_left(closing, place)
            match = pattern.match(body, closing[i]) if i < len(closing) else None
            if match is None:
                break
            cells.append((place, match.start()))
            place = match.end()
        if match is None:
            continue
        end = place
        try:
            subject, target = int(start[1]), int(match[1])
        except ValueError:
            continue
        yield start.start(), (subject, [_labels(body[a:b], ",") for a, b in cells], target)


def _barred_rows(body: str) -> Iterator[tuple[int, Row]]:
    """The same of rows that hold `|`, "" or single labels, but no bracket."""
    place = 0
    for line in body.splitlines(keepends=True):
        cells = split_row(line) if "[" not in line else ()
        if len(cells) == 5 and _ID.fullmatch(cells[0]) and _ID.fullmatch(cells[4]):
            yield place, (int(cells[0]), [_labels(cell, "|") for cell in cells[1:4]], int(cells[4]))
        place += len(line)


def _labels(cell: str, separator: str) -> list[str]:
    return [label for label in map(str.strip, cell.split(separator)) if label]


def _without_thinking(text: str) -> str:
    kept, place = [], 0
    while (start := text.find("<think>", place)) >= 0 and (end := text.find("</think>", start)) >= 0:
        kept.append(text[place:start])
        place = end + len("</think>")
    return "".join(kept) + text[place:]


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", " ").replace("_", " ")


def _class(name: str, vocabulary: Vocabulary) -> int:
    """The class that a name means, by itself or by a part; -1 for none."""
    return _class_among(_plain(name), vocabulary.objects)


@lru_cache(maxsize=4096)
def _class_among(name: str, classes: tuple[str, ...]) -> int:
    known = {_plain(label): i for i, label in reversed(list(enumerate(classes)))}
    if name in known:
        return known[name]
    # the published table begins with the background, which a name may contain as well
    return next((i for i, label in enumerate(("background", *classes)) if name in label or label in name), 0) - 1
