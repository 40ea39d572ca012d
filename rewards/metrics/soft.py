"""The soft protocol of SceneGraphVLM's evaluation: where labels differ, a judge says whether they mean the same.

Boxes and equal labels decide first, as in the strict metric. What is left are disputes, put to a judge in two rounds:

* Objects: a pair of boxes that reaches the threshold and whose labels differ. "Yes" makes the object right.
* Predicates: a predicted and a reference relation between the same two objects whose predicates differ (in Action
  Genome: of one group). An object that the judge has accepted bears the reference's name here, so that the question is
  about the predicate. Relations are then matched one to one, as many as possible: of equal predicate, or accepted.

Each distinct question is asked once, whatever the number of images it comes from. Where the equal predicates already
match all relations of one side, no answer could change the count, and none is asked for. "No" and an answer that is
neither yes nor no both leave a dispute as the strict metric has it, so no soft figure is below the strict one.

The published evaluator shows the judge both whole graphs with every question, so that hardly two are the same:
`scene=True`. It decides whether an object bears the reference's name by the last verdict on the two labels in any
image; here by the verdict on that object.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from rewards.matching import assign
from rewards.metrics.strict import TIE, Aligned, SceneGraphMetrics
from sgrl.text import Codec
from sgrl.text.parsed import ParsedGraph
from sgrl.vocabulary import normalised

Judge = Callable[[Sequence[str]], Sequence[bool | None]]
"""Answers questions: True for yes, False for no, None for an answer that is neither."""

KINDS = ("object", "predicate")
ANSWERS = {True: "yes", False: "no", None: "neither"}
LONGEST_SCENE = 12_000
"""Characters of two graphs that a judge is shown at most; with longer ones it is asked without, as published."""

KEPT = 100
"""How many disputes, the most frequent ones, a result lists."""

# Labels come from a model: what is no short name is not shown to another one, and counts as wrong.
LONGEST_NAME = 40
_NAME_SIGNS = frozenset(" .,'’/()&+#*%-_")

_OBJECT = (
    "Two people have labelled the same object in an image. One wrote {}, the other wrote {}. Do the two labels mean "
    "the same?"
)
_PREDICATE = (
    "Two people have described how the same two objects in an image are related. One wrote {}, the other wrote {}. "
    "Do the two descriptions mean the same relation?"
)
_END = " Answer with one word, yes or no."


class Dispute(NamedTuple):
    """What a question is about: one of KINDS, the reference's words and the prediction's."""

    kind: str
    reference: str
    prediction: str


class SoftMetrics(SceneGraphMetrics):
    """The strict metric, with a judge's verdicts where labels differ.

    Args:
        scene: whether a question shows both whole graphs, as published.
        Others as in SceneGraphMetrics.

    Attributes:
        verdicts: by question; those it does not hold count as no. Fill in what `disputes` names.
    """

    name = "soft"
    same = (*SceneGraphMetrics.same, "scene")

    def __init__(self, codec: str | Codec, width: int, height: int, *, scene: bool = False, **options: Any):
        super().__init__(codec, width, height, **options)
        self.scene = scene
        self.verdicts: dict[str, bool | None] = {}

    def merge(self, other: Self) -> None:
        super().merge(other)
        self.verdicts |= other.verdicts

    def disputes(
        self, kind: str, prediction: Any, reference: Any, width: int | None = None, height: int | None = None
    ) -> list[tuple[str | None, Dispute]]:
        """The disputes of one sample, each with its question; None for one that a judge isn't asked.

        Questions about predicates depend on the verdicts on objects, which must be there by then.

        Args:
            kind: one of KINDS. Others, and errors, as in `add`.
        """
        read = self._read(prediction, reference, width, height)
        graph, truth = read.graph, read.truth
        if graph is None:
            return []
        ((pairs, equal, _, partner),) = self._align([read])
        if kind == "object":
            found = [self._object(graph, truth, *pair) for pair, same in zip(pairs, equal, strict=True) if not same]
        else:
            found = list(self._predicates(graph, truth, partner))
        return found

    def _match(
        self, graph: ParsedGraph, truth: ParsedGraph, aligned: Aligned
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[float]]:
        pairs, equal, overlaps, partner = aligned
        objects = [
            pair
            for pair, same in zip(pairs, equal, strict=True)
            if same or self._accepted(self._object(graph, truth, *pair)[0])
        ]
        relations = []
        for said, wanted in self._rivals(graph, truth, partner):
            gain = np.zeros((len(said), len(wanted)))
            judged = not _settled(said, wanted)
            for row, (i, label) in enumerate(said):
                for column, (j, other) in enumerate(wanted):
                    if label == other:
                        gain[row, column] = 1 + TIE  # of two ways to match as many, the one with more equal ones
                    elif judged:
                        gain[row, column] = self._accepted(self._predicate(graph, truth, partner, i, j)[0])
            rows, columns = assign(-gain)
            relations += [(said[r][0], wanted[c][0]) for r, c in zip(rows, columns, strict=True) if gain[r, c]]
        return sorted(objects), sorted(relations), overlaps

    def _accepted(self, question: str | None) -> bool:
        return question is not None and self.verdicts.get(question) is True

    def _rivals(
        self, graph: ParsedGraph, truth: ParsedGraph, partner: dict[int, int]
    ) -> Iterator[tuple[list[tuple[int, str]], list[tuple[int, str]]]]:
        """Predicted and reference relations that could stand for each other but for the predicate: (position, label)
        of each. They are of the same two objects and the same group."""
        found: dict[tuple[int | None, int | None, str], tuple[list[tuple[int, str]], list[tuple[int, str]]]] = {}
        for j, (subject, predicate, target) in enumerate(truth.relations):
            group, label = self._label(predicate)
            found.setdefault((subject, target, group), ([], []))[1].append((j, label))
        for i, (subject, predicate, target) in enumerate(graph.relations):
            group, label = self._label(predicate)
            rivals = found.get((partner.get(subject), partner.get(target), group))
            if rivals:
                rivals[0].append((i, label))
        return (rivals for rivals in found.values() if rivals[0])

    def _label(self, predicate: str) -> tuple[str, str]:
        """Group ("" without groups) and name of a predicate."""
        group, _, label = predicate.rpartition("__") if self.codec.grouped else ("", "", predicate)
        return group, normalised(label)

    def _object(self, graph: ParsedGraph, truth: ParsedGraph, i: int, j: int) -> tuple[str | None, Dispute]:
        dispute = Dispute("object", normalised(truth.labels[j]), normalised(graph.labels[i]))
        names = [_name(dispute.reference), _name(dispute.prediction)]
        return self._question(_OBJECT, names, graph, truth), dispute

    def _predicates(
        self, graph: ParsedGraph, truth: ParsedGraph, partner: dict[int, int]
    ) -> Iterator[tuple[str | None, Dispute]]:
        for said, wanted in self._rivals(graph, truth, partner):
            if not _settled(said, wanted):
                for i, label in said:
                    for j, other in wanted:
                        if label != other:
                            yield self._predicate(graph, truth, partner, i, j)

    def _predicate(
        self, graph: ParsedGraph, truth: ParsedGraph, partner: dict[int, int], i: int, j: int
    ) -> tuple[str | None, Dispute]:
        (subject, predicate, target), (_, true_predicate, _) = graph.relations[i], truth.relations[j]
        wanted: list[str] = []
        said: list[str] = []
        for end in (subject, target):
            wanted.append(normalised(truth.labels[partner[end]]))
            label = normalised(graph.labels[end])
            accepted = label != wanted[-1] and self._accepted(self._object(graph, truth, end, partner[end])[0])
            said.append(wanted[-1] if accepted else label)
        wanted.insert(1, self._label(true_predicate)[1])
        said.insert(1, self._label(predicate)[1])
        dispute = Dispute("predicate", " ".join(wanted), " ".join(said))
        triplets = [_triplet(list(map(_name, words))) for words in (wanted, said)]
        return self._question(_PREDICATE, triplets, graph, truth), dispute

    def _question(self, form: str, names: list[str | None], graph: ParsedGraph, truth: ParsedGraph) -> str | None:
        words = [name for name in names if name is not None]
        if len(words) < len(names):
            return None
        if self.scene:
            shown = f"The first person's graph of the image: {self._shown(truth)}\n"
            shown += f"The second person's: {self._shown(graph)}\n\n"
            if len(shown) <= LONGEST_SCENE:
                return shown + form.format(*words) + _END
        return form.format(*sorted(words)) + _END  # the question is the same either way round

    def _shown(self, graph: ParsedGraph) -> str:
        names = [_name(normalised(label)) or "?" for label in graph.labels] + ["?"]  # -1: an object that isn't there
        objects = "; ".join(names[:-1])
        triplets = (
            f"({names[s]}, {_name(self._label(predicate)[1]) or '?'}, {names[o]})"
            for s, predicate, o in graph.relations
        )
        return f"objects {objects}; relations {'; '.join(triplets) or 'none'}."


def _triplet(names: list[str | None]) -> str | None:
    """None if one of them is none."""
    known = [name for name in names if name is not None]
    return f"({', '.join(known)})" if len(known) == len(names) else None


def _settled(said: Sequence[tuple[int, str]], wanted: Sequence[tuple[int, str]]) -> bool:
    """Whether equal predicates alone match all of the shorter side."""
    equal = Counter(label for _, label in said) & Counter(label for _, label in wanted)
    return equal.total() == min(len(said), len(wanted))


def _name(label: str) -> str | None:
    """A label in quotes, or None for what is no name."""
    named = 0 < len(label) <= LONGEST_NAME and label[0].isalnum()
    named = named and all(c.isalnum() or c in _NAME_SIGNS or unicodedata.category(c)[0] == "M" for c in label)
    return json.dumps(label, ensure_ascii=False) if named else None


def soft_metrics(
    samples: Iterable[tuple[Any, ...]],
    judge: Judge,
    codec: str | Codec,
    width: int,
    height: int,
    *,
    scene: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Score samples by the soft and by the strict protocol. Memory grows with the distinct questions alone.

    Args:
        samples: the arguments of `SceneGraphMetrics.add` for each; gone through four times, so no iterator.
        judge: called twice, with the distinct questions about objects and then with those about predicates.
        codec, width, height, scene, options: as in SoftMetrics.

    Returns: "strict" and "soft": what `compute` gives; by kind "disputes", of them "not_asked" (a label is no name)
        and distinct "questions"; "answers": how many of these got "yes", "no" and "neither"; "most_disputed": the most
        frequent disputes, how many times they came up, and how many of these got which answer.

    Raises:
        FormatError: a reference is malformed.
    """
    strict = SceneGraphMetrics(codec, width, height, **options)
    soft = SoftMetrics(codec, width, height, scene=scene, **options)
    disputes: dict[str, int] = {}
    skipped: dict[str, int] = {}
    questions: dict[str, int] = {}
    times: Counter[tuple[str | None, Dispute]] = Counter()
    for kind in KINDS:
        found = Counter(dispute for sample in samples for dispute in soft.disputes(kind, *sample))
        disputes[kind] = found.total()
        skipped[kind] = sum(count for (question, _), count in found.items() if question is None)
        asked = list(dict.fromkeys(question for question, _ in found if question is not None))
        questions[kind] = len(asked)
        soft.verdicts.update(zip(asked, judge(asked), strict=True))
        times.update(found)
    for sample in samples:
        strict.add(*sample)
        soft.add(*sample)
    return {
        "strict": strict.compute(),
        "soft": soft.compute(),
        "disputes": disputes,
        "not_asked": skipped,
        "questions": questions,
        "answers": _count(Counter[bool | str | None](soft.verdicts.values())),
        "most_disputed": _most_disputed(times, soft.verdicts),
    }


def _count(verdicts: Counter[bool | str | None]) -> dict[str, int]:
    return {name: verdicts[verdict] for verdict, name in ANSWERS.items()}


def _most_disputed(
    times: Counter[tuple[str | None, Dispute]], verdicts: dict[str, bool | None]
) -> list[dict[str, Any]]:
    found: dict[Dispute, Counter[bool | str | None]] = {}
    for (question, dispute), count in times.items():
        verdict = "not asked" if question is None else verdicts.get(question, "not asked")
        found.setdefault(dispute, Counter())[verdict] += count
    ranked = sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))
    return [{**dispute._asdict(), "times": answers.total(), **_count(answers)} for dispute, answers in ranked[:KEPT]]
