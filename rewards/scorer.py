"""Score completions against reference graphs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewards import published, r1_sgg, terms
from rewards.matching import LARGEST_BROADCAST, Reference
from rewards.presets import FAMILIES, SCENEGRAPHVLM, Preset, get_preset
from rewards.reading import as_answer, check_frame, check_protocol, graph_text, is_graph, read_reference, text_of
from rewards.similarity import get_similarity
from rewards.terms import GraphScore
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.text import Codec, FormatError, ParsedGraph, get_codec


def scores_of(
    graphs: Mapping[str, str], solution: Any, codec: str | Codec, width: int, height: int, preset: str | Preset
) -> dict[str, tuple[float, dict[str, float]]]:
    """What graphs are worth as answers: (total, terms) by the name of each.

    graphs: their texts, without tags; an empty one is the empty answer. Others, and errors, as in GraphScorer.
    """
    scorer = GraphScorer(codec, width, height, preset=preset)
    answers = [as_answer(text, scorer.preset.family) if text else "" for text in graphs.values()]
    scores = scorer.many(answers, [solution] * len(answers))
    return {name: (scorer.preset.total(score), score.terms) for name, score in zip(graphs, scores, strict=True)}


class GraphScorer:
    """Scores completions for images of one size; `many` is the fast path, a call scores one.

    Never raises on a completion, whatever it holds. Pure CPU, no state: safe to share and to pickle.

    Args:
        codec: layout of completions and references: "toon", "toon-pairs", "json", "toon-lean", or a Codec.
        width, height: size of the frame of the boxes: the image's pixels, or 1000 x 1000 for the frame `norm1000`.
        preset: chooses the family of terms (SceneGraphVLM's by default, or R1_SGG) and is what `total` weighs with.
        iou_threshold: least IoU of a grounded object, in [0, 1].
        relation_iou_threshold: least IoU of a relation's subject and object; by default the same.
        matching_weights: of label, GIoU and L1 in the cost of the Hungarian assignment; the last two also weigh
            IoU and exp(-L1) in object_box.
        hallucination_power: exponent of relation_hallucination.
        similarity: of labels in the assignment and in the terms that are not exact by definition; see get_similarity.
        task: R1-SGG only: "sgg", "det" (objects) or "cls" (relations between classes).
        strict_format: R1-SGG only: whether a graph without the tags gets a format of 0 instead of 0.5.
        protocol: "default", or "published" to reproduce SceneGraphVLM's rewards where they read something else than
            the validated graph and an exact reference; see rewards.published.

    Raises:
        SgrlError: an argument that makes no sense; misspelt names come with the nearest right one.

    >>> scorer = GraphScorer("toon", width=640, height=480)
    >>> graph = "obj[1]{id,name,x1,y1,x2,y2}:\\n  1,cat,10,10,50,50\\nrel[0]{subj,pred,obj}:"
    >>> score = scorer(f"<answer>\\n{graph}\\n</answer>", graph)
    >>> score.valid, score.terms["object_class"], scorer.preset.total(score)
    (True, 1.0, 3.5)
    """

    def __init__(
        self,
        codec: str | Codec,
        width: int,
        height: int,
        *,
        preset: str | Preset = SCENEGRAPHVLM,
        iou_threshold: float = 0.5,
        relation_iou_threshold: float | None = None,
        matching_weights: tuple[float, float, float] = (1.0, 2.0, 5.0),
        hallucination_power: float = 2.0,
        similarity: Any = None,
        task: str = "sgg",
        strict_format: bool = True,
        protocol: str = "default",
    ):
        if relation_iou_threshold is None:
            relation_iou_threshold = iou_threshold
        for name, value in (("iou_threshold", iou_threshold), ("relation_iou_threshold", relation_iou_threshold)):
            if not 0 <= value <= 1:
                raise SgrlError(f"{name} must lie in [0, 1], found {value!r}")
        check_frame(width, height)
        if len(matching_weights) != 3 or not all(0 <= weight < math.inf for weight in matching_weights):
            raise SgrlError(
                f"matching_weights are three numbers >= 0 and finite (label, GIoU, L1), found {matching_weights!r}"
            )
        label, giou, l1 = matching_weights
        if not 0 < hallucination_power < math.inf:
            raise SgrlError(f"hallucination_power must be positive and finite, found {hallucination_power!r}")
        if task not in r1_sgg.TASKS:
            raise UsageError(f"unknown task {task!r}{suggest(task, r1_sgg.TASKS)}")
        check_protocol(protocol)
        self.codec = get_codec(codec)
        self.preset = get_preset(preset)
        self.protocol = protocol
        if protocol == "published":
            published.check_family(self.preset.family, self.codec)
        self.settings = terms.Settings(
            width=width,
            height=height,
            iou_threshold=iou_threshold,
            relation_iou_threshold=relation_iou_threshold,
            matching_weights=(label, giou, l1),
            hallucination_power=hallucination_power,
            similarity=get_similarity(similarity),
            task=task,
            strict_format=strict_format,
            published=protocol == "published",
        )

    def __call__(self, completion: Any, solution: Any) -> GraphScore:
        """The score of one completion for one reference.

        Args:
            completion: str, bytes, None, or a chat message or list of them; or a graph, scored as the codec writes it
                and in the answer tags that it needs: a SceneGraph, a ParsedGraph, a JSON object that has been parsed.
            solution: see `reference`.

        Raises:
            FormatError: the reference is malformed.
            CompletionError: the completion is of another type.
        """
        return self.many([completion], [solution])[0]

    def many(self, completions: Sequence[Any], solutions: Sequence[Any]) -> list[GraphScore]:
        """The scores of many completions, each with its reference; those that share a reference are scored together.

        Raises:
            SgrlError: not as many solutions as completions.
            FormatError: a reference is malformed. References are never used in part.
        """
        if len(completions) != len(solutions):
            raise SgrlError(f"{len(completions)} completions, but {len(solutions)} solutions")
        scores: dict[int, GraphScore] = {}
        groups: dict[str | int, list[int]] = {}
        for i, solution in enumerate(solutions):
            groups.setdefault(solution if isinstance(solution, str) else id(solution), []).append(i)
        for indices in groups.values():
            reference = self.reference(solutions[indices[0]])
            texts = [c if type(c := completions[i]) is str else self._text(c) for i in indices]
            unique = [text for text in dict.fromkeys(texts) if isinstance(text, str)]
            score: dict[str | FormatError, GraphScore] = {}
            score.update(zip(unique, self._score_texts(unique, reference), strict=True))
            score |= {bad: self._unreadable("", reference, bad) for bad in texts if not isinstance(bad, str)}
            for i, text in zip(indices, texts, strict=True):
                scores[i] = score[text]
        return [scores[i] for i in range(len(completions))]

    def _text(self, completion: Any) -> str | FormatError:
        """The text of a completion, or why a graph has none."""
        if not is_graph(completion):
            return text_of(completion)
        try:
            text = graph_text(completion, self.codec, self.settings.width, self.settings.height)
        except FormatError as error:
            return error
        return as_answer(text, self.preset.family)

    def reference(self, solution: Any) -> Reference:
        """A reference, read once: may stand in for the solution in every call.

        Args:
            solution: its text with or without answer tags, a chat message with that, a graph (which is scored as the
                codec writes it), or what this method returned before.

        Raises:
            FormatError: it is not exactly what a valid answer would be (by the protocol "published" never).
        """
        if isinstance(solution, Reference):
            return solution
        if self.protocol == "published":
            return published.reference(solution, self.codec, self.settings.width, self.settings.height)
        graph = read_reference(solution, self.codec, self.settings.width, self.settings.height)
        return r1_sgg.reference(graph) if self.preset.family == "r1-sgg" else Reference(graph)

    def _score_texts(self, texts: list[str], reference: Reference) -> list[GraphScore]:
        if self.preset.family == "r1-sgg":
            return [self._score_r1(text, reference) for text in texts]
        scores: dict[int, GraphScore] = {}
        graphs: list[ParsedGraph] = []
        places: list[int] = []
        parse = self.codec.parse if self.protocol == "default" else self._parse_published
        width, height = self.settings.width, self.settings.height
        for i, text in enumerate(texts):
            try:
                graphs.append(parse(text, width, height))
                places.append(i)
            except FormatError as error:
                scores[i] = self._unreadable(text, reference, error)
        for place, graph, (values, counts) in zip(places, graphs, self._score_graphs(graphs, reference), strict=True):
            relations = len(graph.relations)
            diagnostics = {
                "no_relation": 0.0 if relations else 1.0,
                "num_objects": float(len(graph.labels)),
                "num_relations": float(relations),
                "invalid_relation_fraction": 0.0,
                "has_answer_tags": 1.0,
            }
            scores[place] = GraphScore(True, None, values, counts, diagnostics)
        return [scores[i] for i in range(len(texts))]

    def _parse_published(self, text: str, width: int, height: int) -> ParsedGraph:
        return published.scored(text, self.codec.parse(text, width, height), self.codec)

    def _score_graphs(
        self, graphs: list[ParsedGraph], reference: Reference
    ) -> Iterator[tuple[dict[str, float], dict[str, int]]]:
        start, pairs = 0, 0
        for i, graph in enumerate(graphs):
            size = len(graph.labels) * len(reference.labels)
            if i > start and pairs + size > LARGEST_BROADCAST:
                yield from terms.score_group(reference, graphs[start:i], self.settings)
                start, pairs = i, 0
            pairs += size
        if graphs:
            yield from terms.score_group(reference, graphs[start:], self.settings)

    def _score_r1(self, text: str, reference: Reference) -> GraphScore:
        try:
            reading = r1_sgg.read(text, self.codec, self.settings)
        except FormatError as error:
            return self._unreadable(text, reference, error)
        values, counts = r1_sgg.score(reading, reference, self.settings)
        return GraphScore(values["format"] == 1.0, reading.reason, values, counts, self.codec.diagnose(text))

    def _unreadable(self, text: str, reference: Reference, error: FormatError) -> GraphScore:
        counts = dict.fromkeys(terms.COUNTS, 0)
        counts["objects_reference"] = len(reference.labels)
        counts["relations_reference"] = len(reference.relations)
        zeros = dict.fromkeys(FAMILIES[self.preset.family], 0.0)
        return GraphScore(False, str(error), zeros, counts, self.codec.diagnose(text))
