"""The graph of the frame before, which prompts hold in training and at inference alike.

In SFT it is the reference of the frame before; at inference it is the model's own last graph, or none. A policy that
has only ever seen perfect context trusts it blindly, so in RL it is the reference with faults of the kind that the
model itself makes (SceneGraphVLM, section 3): objects and relations missing, added and renamed, boxes off.

    ContextTransform("corrupted", metadata, Noise(drop=0.2), seed=0)   # training: rows.with_transform(...)
    with_context(prompt, graph_text)                                   # inference: any graph, the same prompt text
    context_of(answer, codec, width, height)                           # inference: what the next frame gets

A data set holds the reference of the frame before in its column `previous` (`sgrl convert --context gt`).
The prompt is made from it when a row is read, and none, ground truth or corrupted is decided then.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from sgrl.data import vocabulary_of
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.prompts import with_context
from sgrl.text import Codec, get_codec
from sgrl.text.repair import repair
from sgrl.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

CONTEXTS = ("none", "gt", "generated")
"""What a prompt may hold at inference."""

TRAINING_CONTEXTS = ("none", "gt", "corrupted")
"""What a prompt may hold in training."""

MAX_CONTEXT = (60, 120)
"""Objects and relations of an own graph that the next frame gets at most: no runaway answer may fill its prompt."""

LONGEST = 1.25
"""A corrupted text has at most so many times the characters of the true one: leave that much room in limits."""


def context_of(text: str, codec: Codec, width: int, height: int) -> str | None:
    """What a model wrote, as the next frame's context: cleaned as references are, None without any object."""
    graph, _ = codec.recover(text, width, height)
    graph, _ = graph.cleaned()
    objects = graph.objects[: MAX_CONTEXT[0]]
    relations = [r for r in graph.relations if max(r.subject, r.object) < len(objects)][: MAX_CONTEXT[1]]
    return codec.encode(SceneGraph(objects, relations, width, height)) if objects else None


def handed_on(text: str, codec: Codec, seen: tuple[int, int], repaired: bool = False) -> str | None:
    """`context_of` an answer as it was written, in the frame `seen`. repaired: it was written by a grammar."""
    return context_of(repair(codec, text, *seen)[0] if repaired else text, codec, *seen)


def warn_of_context(context: str | None, trained: str | None) -> None:
    """Warn where a model is asked otherwise than it was trained."""
    if trained is not None and (context == "none") != (trained == "none"):
        logger.warning(
            "context: %s, but the model was trained with context: %s; its prompts are not what it knows",
            context,
            trained,
        )


@dataclass(frozen=True)
class Noise:
    """How often a previous graph is wrong in which way. The defaults are ours: the paper names kinds, not rates.

    Args:
        omit: chance that there is no previous graph at all.
        drop: chance of each object to go, with its relations.
        insert: chance, per object, of one that was never there (label and box by chance).
        relabel: chance of each object to get another label (but for the persons of Action Genome).
        jitter: standard deviation of each edge of a box, as a share of the box's width or height.
        drop_relation, insert_relation: as for objects.
        swap_predicate: chance of each relation to get another predicate (of the same group).
        reverse: chance of each relation to swap subject and object (never where groups fix who is the subject).

    Raises:
        SgrlError: a chance outside [0, 1], a jitter outside [0, 1].
    """

    omit: float = 0.05
    drop: float = 0.1
    insert: float = 0.1
    relabel: float = 0.1
    jitter: float = 0.1
    drop_relation: float = 0.1
    insert_relation: float = 0.1
    swap_predicate: float = 0.1
    reverse: float = 0.0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise SgrlError(f"context_noise: {field.name} must be a number from 0 to 1, found {value!r}")

    @classmethod
    def named(cls, rates: Mapping[str, float] | None) -> Noise:
        """From a mapping, as in a configuration; what is not named keeps its default.

        Raises SgrlError for an unknown name, with the nearest one.

        >>> Noise.named({"drop": 0.3}).drop
        0.3
        """
        names = [field.name for field in fields(cls)]
        for name in rates or {}:
            if name not in names:
                raise UsageError(f"context_noise: unknown kind {name!r}{suggest(name, names)}")
        return cls(**(rates or {}))


def corrupt(graph: SceneGraph, vocabulary: Vocabulary, noise: Noise, rng: random.Random) -> SceneGraph:
    """A graph with the faults of `noise`; `omit` is not looked at. Boxes are whole numbers inside the image.

    Args:
        graph: labels as in texts or in the official spelling.
        vocabulary: what labels and predicates are swapped for and inserted from, as they are spelt in texts.
        rng: where chance comes from; the same state gives the same graph.
    """
    labels = list(dict.fromkeys(map(vocabulary.to_text, vocabulary.objects)))
    # Where predicates have groups, only persons are subjects (Action Genome): those keep their label.
    persons = {r.subject for r in graph.relations} if vocabulary.groups else set()
    kept: list[tuple[int | None, Object]] = []
    for index, found in enumerate(graph.objects):
        if rng.random() >= noise.drop:
            relabelled = rng.random() < noise.relabel and index not in persons
            label = _another(found.label, labels, rng) if relabelled else found.label
            kept.append((index, Object(label, _jittered(found.box, noise.jitter, graph, rng))))
    for _ in graph.objects:
        if rng.random() < noise.insert:
            kept.insert(rng.randint(0, len(kept)), (None, Object(rng.choice(labels), _any_box(graph, rng))))
    place = {old: new for new, (old, _) in enumerate(kept) if old is not None}

    relations = []
    for r in graph.relations:
        if r.subject in place and r.object in place and rng.random() >= noise.drop_relation:
            swapped = rng.random() < noise.swap_predicate
            predicate = _another(r.predicate, _predicates(vocabulary, r.group), rng) if swapped else r.predicate
            subject, target = place[r.subject], place[r.object]
            if rng.random() < noise.reverse and r.group is None:
                subject, target = target, subject
            relations.append(Relation(subject, predicate, target, r.group))
    subjects = list(range(len(kept)))
    if vocabulary.groups:
        subjects = sorted(place[person] for person in persons if person in place)
    for _ in graph.relations:
        if rng.random() < noise.insert_relation and subjects and len(kept) > 1:
            subject = rng.choice(subjects)
            target = rng.choice([i for i in range(len(kept)) if i != subject])
            group = rng.choice(list(vocabulary.groups)) if vocabulary.groups else None
            relations.append(Relation(subject, rng.choice(_predicates(vocabulary, group)), target, group))
    cleaned, _ = SceneGraph(tuple(o for _, o in kept), tuple(relations), graph.width, graph.height).cleaned()
    return cleaned


class ContextTransform:
    """What `rows.with_transform` calls when rows are read: decides what their prompts hold of the frame before.

    A row's noise depends on the seed, the epoch and the row's prompt alone, so all the answers of one group get one
    prompt, whatever the process, the order or the number of workers, and a resumed run sees what it would have seen.

    Args:
        context: one of TRAINING_CONTEXTS.
        metadata: of the data set (`sgrl.data.read_metadata`): codec, coords, vocabulary.
        noise: for "corrupted".
        seed: of the run.

    Attributes:
        epoch: set it at the beginning of each (`sgrl.training.previous.ContextEpoch` does), before workers start.

    Raises:
        SgrlError: an unknown context, or one that the data set cannot give.
    """

    def __init__(self, context: str, metadata: Mapping, noise: Noise | None = None, seed: int = 0):
        if context not in TRAINING_CONTEXTS:
            raise UsageError(f"unknown context {context!r}{suggest(context, TRAINING_CONTEXTS)}")
        if context != "none" and metadata.get("previous") != "gt":
            raise SgrlError(
                f"context: {context}, but the data set's rows hold no previous graph; convert its videos with "
                "sgrl convert --context gt, or remove the line"
            )
        self.context = context
        self.noise = noise or Noise()
        self.seed = seed
        self.epoch = 0
        self._codec = get_codec(metadata["codec"])
        self._pixel = metadata.get("coords", "pixel") == "pixel"
        self._vocabulary = vocabulary_of(metadata)

    def __deepcopy__(self, memo) -> ContextTransform:
        return self  # datasets copies a transform with every column that is taken away, and the epoch has to reach it

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        """Columns of some rows, with `prompt`, `previous` and either `width` and `height` or the decoded `image`.

        Returns them without `previous`, which the prompts then hold.

        Raises:
            SgrlError: prompts are read without the column that belongs into them.
        """
        if "prompt" not in batch:
            return batch
        batch = dict(batch)
        graphs = batch.pop("previous", None)
        if graphs is None:
            if self.context != "none":
                raise SgrlError("prompts are read without the column 'previous', whose graphs they are to hold")
            return batch
        batch["prompt"] = [
            with_context(prompt, self._shown(batch, i, prompt, previous))
            for i, (prompt, previous) in enumerate(zip(batch["prompt"], graphs, strict=True))
        ]
        return batch

    def _shown(self, batch: dict[str, list], i: int, prompt: Sequence[dict], previous: str | None) -> str | None:
        if previous is None or self.context == "none":
            return None
        if self.context == "gt":
            return previous
        return self.corrupted(prompt[-1]["content"], previous, *self._frame(batch, i))

    def corrupted(self, prompt: str, previous: str, width: int, height: int) -> str | None:
        """A true previous graph's text with this epoch's faults; None where it is left out.

        prompt: the rest of the prompt. width, height: frame of the coordinates.
        """
        name = f"{self.seed}\0{self.epoch}\0{prompt}\0{previous}"
        rng = random.Random(hashlib.blake2b(name.encode(), digest_size=16).digest())
        if rng.random() < self.noise.omit:
            return None
        graph, _ = self._codec.recover(previous, width, height)
        for noise in (self.noise, replace(self.noise, insert=0, insert_relation=0)):
            found = corrupt(graph, self._vocabulary, noise, rng)
            if not found.objects:
                return None
            text = self._codec.encode(found)
            if len(text) <= LONGEST * len(previous):
                return text
        return previous

    def _frame(self, batch: dict[str, list], i: int) -> tuple[int, int]:
        if "width" in batch:
            return batch["width"][i], batch["height"][i]
        if not self._pixel:
            return 1000, 1000
        return batch["image"][i].size if "image" in batch else batch["images"][i][0].size


def _predicates(vocabulary: Vocabulary, group: str | None) -> list[str]:
    found = vocabulary.groups[group] if group and vocabulary.groups else vocabulary.predicates
    return list(dict.fromkeys(map(vocabulary.to_text, found)))


def _another(label: str, labels: Sequence[str], rng: random.Random) -> str:
    """One of `labels` that is not `label`, or `label` where there is no other."""
    others = [other for other in labels if other != label]
    return rng.choice(others) if others else label


def _jittered(box, jitter: float, graph: SceneGraph, rng: random.Random):
    x1, y1, x2, y2 = box
    across, down = jitter * (x2 - x1), jitter * (y2 - y1)
    x1, x2 = _inside(x1 + rng.gauss(0, across), x2 + rng.gauss(0, across), graph.width)
    y1, y2 = _inside(y1 + rng.gauss(0, down), y2 + rng.gauss(0, down), graph.height)
    return x1, y1, x2, y2


def _any_box(graph: SceneGraph, rng: random.Random):
    """As large as objects often are: from a tenth to a half of each side."""
    width, height = (max(1, round(side * rng.uniform(0.1, 0.5))) for side in (graph.width, graph.height))
    x1, y1 = rng.randint(0, max(0, graph.width - width)), rng.randint(0, max(0, graph.height - height))
    return x1, y1, x1 + width, y1 + height


def _inside(low: float, high: float, size: int) -> tuple[int, int]:
    """A span of at least one pixel from 0 to `size`, nearest to this one."""
    low, high = sorted((round(low), round(high)))
    low = min(max(low, 0), size - 1)
    return low, min(max(high, low + 1), size)
