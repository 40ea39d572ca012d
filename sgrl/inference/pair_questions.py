"""How a model is asked about all pairs of an image, and what it says of them (VOST-SGG, section 3.1).

Four ways: `dataset`, the data set's own prompt and layout, for a model that was trained on it; `frame`, one question
about all things in the image; `pair`, a question about each pair of the reference's boxes and classes, which is what
PredCLS gives; `frame+pair`, where the first question finds the things and others ask about each pair of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgrl.boxes import scale
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.inference.confidence import relation_confidences
from sgrl.inference.engine import Engine, Generation
from sgrl.inference.video import generate_apart
from sgrl.models.vost.answers import PERSON, frame_prompt, pair_prompt, parse_frame, parse_pair
from sgrl.models.vost.priors import WHOLE_IMAGE, Box, PriorPair
from sgrl.text import Codec, answer
from sgrl.vocabulary import Vocabulary

ASK = ("dataset", "frame", "pair", "frame+pair")

Thing = tuple[str, Box]
"""A class in the vocabulary's spelling, and corners in pixels."""


@dataclass
class Said:
    """What was said of one image.

    Attributes:
        pairs: with boxes as fractions of the image.
        person: whether a person was found, where the vocabulary has one.
        answers: verbatim, in the order of the questions.
        tokens, prompt_tokens, seconds: of all of them.
        finish_reason: of the first that did not end by itself, else "stop".
        dropped: how many labels, boxes and things were of no use.
        graph, confidence: the answer, if it is in the data set's layout, and how sure each of its relations is.
        error: why there is no answer.
    """

    pairs: list[PriorPair] = field(default_factory=list)
    person: bool = True
    answers: list[str] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0
    finish_reason: str = "stop"
    dropped: int = 0
    graph: str | None = None
    confidence: list[float | None] = field(default_factory=list)
    error: str | None = None

    def heard(self, generation: Generation) -> bool:
        """Count an answer; False if there is none."""
        self.tokens += generation.tokens
        self.prompt_tokens += generation.prompt_tokens
        self.seconds += generation.seconds
        if self.finish_reason == "stop":
            self.finish_reason = generation.finish_reason
        if generation.error is not None:
            self.error = generation.error
            return False
        self.answers.append(generation.text)
        return True


@dataclass(frozen=True)
class Asker:
    """Asks about images, many at a time.

    Attributes:
        engine, vocabulary, codec: codec is the data set's.
        ask: one of ASK.
        coords: how the model writes boxes, one of `sgrl.boxes.COORDS`; the data set's prompt has its own.
        max_pairs: of one image; further ones are not asked about.
    """

    engine: Engine
    vocabulary: Vocabulary
    codec: Codec
    ask: str = "dataset"
    coords: str = "pixel"
    max_pairs: int = 100

    def __call__(self, rows: Sequence[dict[str, Any]]) -> list[Said]:
        """What is said of each row of a data set: image, prompt, solution, width, height."""
        said = [Said() for _ in rows]
        if self.ask == "dataset":
            for row, one, generation in self._questions(rows, said, [row["prompt"] for row in rows]):
                self._of_graph(row, one, generation)
        elif self.ask == "pair":
            things = [self._given(row) for row in rows]
            self._ask_pairs(rows, said, things)
        else:
            things = self._find(rows, said)
            if self.ask == "frame+pair":
                found = [
                    pairs_of(each, self.vocabulary) if one.error is None else []
                    for each, one in zip(things, said, strict=True)
                ]
                self._ask(rows, said, found)
        return said

    def _questions(self, rows, said, prompts) -> Iterator[tuple[dict, Said, Generation]]:
        """Row, what is said of it, and the answer; those without an answer are left out."""
        images = [row.get("images") or row["image"] for row in rows]
        chats = [[{"role": "user", "content": each}] if isinstance(each, str) else each for each in prompts]
        generations = generate_apart(self.engine, images, chats, [None] * len(rows))
        for row, one, generation in zip(rows, said, generations, strict=True):
            if one.heard(generation):
                yield row, one, generation

    def _of_graph(self, row: dict, one: Said, generation: Generation) -> None:
        """The pairs of a graph in the data set's layout."""
        vocabulary, frame = self.vocabulary, (row["width"], row["height"])
        graph, issues = self.codec.recover_parsed(generation.text, *frame)
        sure = relation_confidences(self.codec, graph, generation.text, generation.pieces, generation.logprobs)
        things = [
            _thing(_official(vocabulary, label, vocabulary.objects), _fractions(box, *frame))
            for label, box in zip(graph.labels, graph.boxes, strict=True)
        ]
        one.graph, one.confidence, one.dropped = generation.text, sure, len(issues) + things.count(None)
        found: dict[tuple[int, int], dict[str, float | None]] = {}
        persons = [i for i, thing in enumerate(things) if thing is not None and thing[0] == PERSON]
        if vocabulary.groups:  # one person, -1 where there is none, and all other things
            one.person = bool(persons)
            others = [i for i, thing in enumerate(things) if thing is not None and i not in persons]
            found = {(persons[0] if persons else -1, i): {} for i in others}
        for (subject, name, target), score in zip(graph.relations, sure, strict=True):
            predicate = _official(vocabulary, name.rpartition("__")[2], vocabulary.predicates)
            pair = (-1 if vocabulary.groups and not persons else subject, target)
            known = pair in found if vocabulary.groups else all(i >= 0 and things[i] is not None for i in pair)
            if predicate is None or not known:
                one.dropped += 1
            else:
                found.setdefault(pair, {}).setdefault(predicate, score)
        for (subject, target), said in list(found.items())[: self.max_pairs]:
            scores = tuple(score for score in said.values() if score is not None)
            start = (PERSON, WHOLE_IMAGE) if subject < 0 else things[subject]
            end = things[target]
            assert start is not None and end is not None
            given = scores if scores and len(scores) == len(said) else None
            one.pairs.append(PriorPair(start[0], start[1], end[0], end[1], tuple(said), given))
        one.dropped += max(0, len(found) - self.max_pairs)

    def _find(self, rows, said) -> list[list[Thing]]:
        """Things in each image by the question about a frame, the person first; `said` gets the pairs with them."""
        things: list[list[Thing]] = [[] for _ in rows]
        seen = [row["image"].size for row in rows]
        prompts = [frame_prompt(self.vocabulary, width, height, self.coords) for width, height in seen]
        places = {id(one): i for i, one in enumerate(said)}
        for _, one, generation in self._questions(rows, said, prompts):
            i = places[id(one)]
            width, height = seen[i]
            found = parse_frame(generation.text, self.vocabulary, width, height, self.coords)
            one.person, one.dropped = found.person is not None, len(found.dropped)
            person = WHOLE_IMAGE if found.person is None else _fractions(found.person, width, height) or WHOLE_IMAGE
            things[i] = [(PERSON, _pixels(person, width, height))]
            things[i] += [(pair["label"], tuple(pair["box"])) for pair in found.pairs]
            for pair in found.pairs[: self.max_pairs]:
                names = tuple(label for group in self.vocabulary.groups or () for label in pair[group])
                box = _fractions(pair["box"], width, height) or WHOLE_IMAGE
                one.pairs.append(PriorPair(PERSON, person, pair["label"], box, names))
            one.dropped += max(0, len(found.pairs) - self.max_pairs)
        return things

    def _given(self, row: dict) -> list[Thing]:
        """The reference's boxes and classes, in pixels of the image."""
        if row["solution"] is None:
            raise SgrlError("questions about pairs need references; ask about frames")
        graph = self.codec.decode(row["solution"], row["width"], row["height"], tags=False)
        graph = graph.resized(*row["image"].size)
        return [(self.vocabulary.from_text(each.label) or each.label, each.box) for each in graph.objects]

    def _ask_pairs(self, rows, said, things) -> None:
        self._ask(rows, said, [pairs_of(each, self.vocabulary) for each in things])
        for one, each in zip(said, things, strict=True):
            one.person = not self.vocabulary.groups or any(label == PERSON for label, _ in each)

    def _ask(self, rows, said, pairs: Sequence[Sequence[tuple[Thing, Thing]]]) -> None:
        """A question about each pair; what was said of them before is replaced."""
        asked, ones, prompts, whose = [], [], [], []
        for row, one, each in zip(rows, said, pairs, strict=True):
            one.dropped += max(0, len(each) - self.max_pairs)
            one.pairs = []
            for subject, target in each[: self.max_pairs]:
                asked.append(row)
                ones.append(one)
                whose.append((subject, target))
                width, height = row["image"].size
                prompts.append(pair_prompt(self.vocabulary, subject, target, width, height, self.coords))
        generations = generate_apart(
            self.engine, [row["image"] for row in asked], _chats(prompts), [None] * len(asked)
        )
        for row, one, (subject, target), generation in zip(asked, ones, whose, generations, strict=True):
            if one.heard(generation):
                found = parse_pair(generation.text, self.vocabulary)
                one.dropped += len(found.dropped)
                boxes = [_fractions(box, *row["image"].size) or WHOLE_IMAGE for _, box in (subject, target)]
                one.pairs.append(PriorPair(subject[0], boxes[0], target[0], boxes[1], tuple(found.predicates)))


def pairs_of(things: Sequence[Thing], vocabulary: Vocabulary) -> list[tuple[Thing, Thing]]:
    """All that are to be asked about: a person and each other thing, or, without a person in the vocabulary's
    relations, each thing and each other."""
    if vocabulary.groups:
        person = next((thing for thing in things if thing[0] == PERSON), None)
        return [] if person is None else [(person, thing) for thing in things if thing[0] != PERSON]
    return [(a, b) for i, a in enumerate(things) for j, b in enumerate(things) if i != j]


def written(said: Said, vocabulary: Vocabulary, codec: Codec, width: int, height: int) -> tuple[str, list]:
    """What was said as a completion in a data set's layout, and the confidence of its relations, None if unknown."""
    if said.graph is not None:
        return said.graph, said.confidence
    graph = graph_of(said.pairs, vocabulary, width, height)
    return answer.wrap(codec.encode(graph)), [None] * len(graph.relations)


def graph_of(pairs: Iterable[PriorPair], vocabulary: Vocabulary, width: int, height: int) -> SceneGraph:
    """Pairs as a graph in pixels; equal things of several pairs are one object."""
    group_of = {label: name for name, labels in (vocabulary.groups or {}).items() for label in labels}
    objects: dict[Thing, int] = {}
    relations = []
    for pair in pairs:
        ends = (pair.subject, pair.subject_box), (pair.label, pair.box)
        subject, target = (objects.setdefault(end, len(objects)) for end in ends)
        relations += [Relation(subject, label, target, group=group_of.get(label)) for label in pair.predicates]
    scaled = [Object(label, _pixels(box, width, height)) for label, box in objects]
    return SceneGraph(scaled, relations, width, height)


def _chats(prompts: Sequence[str]) -> list[list[dict]]:
    return [[{"role": "user", "content": prompt}] for prompt in prompts]


def _thing(label: str | None, box: Box | None) -> Thing | None:
    return None if label is None or box is None else (label, box)


def _official(vocabulary: Vocabulary, text: str, among: Sequence[str]) -> str | None:
    found = vocabulary.from_text(text)
    return found if found in among else None


def _fractions(box: Sequence[float], width: int, height: int) -> Box | None:
    """Corners in 0..1, in order; None without an area inside the image."""
    x1, y1, x2, y2 = (min(max(float(v), 0.0), 1.0) for v in scale([box], (width, height), (1, 1))[0])
    (x1, x2), (y1, y2) = sorted((x1, x2)), sorted((y1, y2))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _pixels(box: Sequence[float], width: int, height: int) -> Box:
    x1, y1, x2, y2 = scale([box], (1, 1), (width, height))[0].tolist()
    return x1, y1, x2, y2
