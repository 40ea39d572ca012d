"""Recall@K of scene graphs in videos, with tubes of masks or boxes (PVSG, PSG4D).

A reference relation is found at K if one of the K best predicted relations has its predicate, its subject's and
object's class, and a vIoU of at least 0.5. Two published evaluators define vIoU:

* By frames (OpenPVSG, which PSG4D's relation head uses): the reference holds in the frames of its spans that have both
  masks; a frame is right if there both predicted masks reach an IoU of 0.5 and the predicted spans hold. vIoU is the
  IoU of the two sets of frames. Right frames are looked for inside the reference's spans only, so a predicted span
  that is too long costs nothing; symmetric_recall@K counts such frames as wrong.
* By volume (PSG4D's metric.py): the pixels that both tubes have in the frames of both spans, divided by those that
  either has in its own spans; the smaller of subject and object counts. From the best prediction on, each takes the
  reference relation that it fits best and that none before has taken.

recall@K and its kin are shares of all reference relations of all videos, mean_recall@K the mean over the predicates
that occur. soft_ counts a relation with the vIoU that finds it, weak_ takes a vIoU of 0.1, soft_weak_ counts the best
vIoU from 0.1 on. volume_recall@K and volume_map (mean over videos of the area under the precision-recall curve) are by
volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from rewards.metrics.protocol import Metric, Settings
from rewards.metrics.ranking import of_scores
from rewards.metrics.sums import Sums, parts, whole
from rewards.reading import PROTOCOLS, CompletionError, completion_of, read_reference
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.linking import linked
from sgrl.scores import ScoredGraph
from sgrl.text import Codec, get_codec
from sgrl.text.parsed import ParsedGraph, to_graph
from sgrl.tubes import VideoGraph
from sgrl.vocabulary import canonical

KS = (20, 50, 100)
PER_FRAME = 100
"""Relations that a scored frame adds to its video, the best ones."""

WEAK = 0.1
KINDS = ("recall", "soft_recall", "weak_recall", "soft_weak_recall", "symmetric_recall", "volume_recall")


class VideoRecall(Metric):
    """Recall of a stream of videos; memory grows with the number of predicates, not of videos.

    Args:
        ks: the K.
        iou_threshold: least IoU of both masks in a right frame, in [0, 1].
        viou_threshold: least vIoU of a relation that is found, by frames and by volume.
        protocol: "default", or "published" to reproduce OpenPVSG's weak recall, which counts every prediction of at
            least 0.1 up to the one that finds the relation, and so can exceed 1.

    Raises:
        SgrlError: an argument that makes no sense.

    >>> from sgrl.tubes import BoxTube, TimedRelation, TubeObject
    >>> cat = TubeObject("cat", BoxTube([(0, 0, 9, 9), (1, 0, 10, 9), None]))
    >>> mat = TubeObject("mat", BoxTube([(0, 5, 20, 15)] * 3))
    >>> video = VideoGraph([cat, mat], [TimedRelation(0, "on", 1, spans=((0, 2),))])
    >>> recall = VideoRecall()
    >>> recall.add(video, video)["found@20"], recall.add(None, video)["found@20"]
    (1.0, 0.0)
    >>> recall.compute()["recall@20"], recall.compute()["videos"]
    (0.5, 2)
    """

    name, protocols = "video-recall", PROTOCOLS
    needs = "videos (columns video_id and frame)"
    title = "boxes linked to tubes"
    same = ("ks", "iou_threshold", "viou_threshold", "protocol")

    def __init__(
        self,
        *,
        ks: Sequence[int] = KS,
        iou_threshold: float = 0.5,
        viou_threshold: float = 0.5,
        protocol: str = "default",
    ):
        if protocol not in PROTOCOLS:
            raise UsageError(f"unknown protocol {protocol!r}{suggest(protocol, PROTOCOLS)}")
        for name, value in (("iou_threshold", iou_threshold), ("viou_threshold", viou_threshold)):
            if not 0 <= value <= 1:
                raise SgrlError(f"{name} must lie in [0, 1], found {value!r}")
        if not ks or not all(isinstance(k, int) and k > 0 for k in ks):
            raise SgrlError(f"ks must be positive whole numbers, found {ks!r}")
        self.ks = tuple(sorted(set(ks)))
        self.iou_threshold, self.viou_threshold = iou_threshold, viou_threshold
        self.protocol = protocol
        self.videos = self.videos_without_relations = self.videos_without_predictions = 0
        self._precision = Sums()
        # for each predicate: relations, and the parts of what KINDS found of them at each K; see rewards.metrics.sums
        self._found: dict[str, tuple[int, np.ndarray]] = {}

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(protocol=settings.protocol)

    @staticmethod
    def samples_of(rows: Iterable[Mapping[str, Any]], codec: Codec) -> Iterator[tuple[Any, ...]]:
        return ((prediction, reference) for _, prediction, reference in videos_of_rows(rows, codec))

    def add(self, prediction: VideoGraph | ScoredGraph | None, reference: VideoGraph) -> dict[str, float]:
        """Count one video and return its own sums.

        Args:
            prediction: its relations are ranked by their scores, equal ones in order, those without one last; without
                any scores, in order. None for a video without a prediction: nothing is found. Or a ScoredGraph of a
                whole video (sgrl.scores) with its predicates by name.
            reference: without relations the video is counted, but adds nothing to the shares.

        Frames beyond the reference's are not looked at; those that a predicted tube lacks are empty.

        Returns: relations_predicted, relations_reference, average_precision (by volume, None without reference
            relations) and for each of KINDS, with "found" for "recall", and every K the sum over reference relations.

        Raises:
            CompletionError: something else.
            SgrlError: masks of another size than the reference's, or masks of one and boxes of the other.
        """
        if isinstance(prediction, ScoredGraph):
            prediction = prediction.video(self.ks[-1])
        for what, video in (("prediction", prediction), ("reference", reference)):
            if not isinstance(video, VideoGraph) and not (video is None and what == "prediction"):
                found = type(video).__name__
                taken = "a VideoGraph, a ScoredGraph or None" if what == "prediction" else "a VideoGraph"
                raise CompletionError(f"the {what} must be {taken}, found {found}; see videos_of_rows for texts")
        relations = reference.relations
        candidates = list(_candidates(prediction, reference))
        with np.errstate(all="ignore"):  # of boxes as large as a model likes
            overlaps = [] if prediction is None else self._overlaps(prediction, reference, candidates)
        ks = np.array(self.ks)
        hits_of = {kind: np.zeros((len(relations), len(ks))) for kind in KINDS}
        done: set[tuple[str, int]] = set()
        weak = dict.fromkeys(range(len(relations)), 0.0)
        for (rank, wanted, _), (viou, symmetric, _) in zip(candidates, overlaps, strict=True):
            within = rank < ks  # candidates come in the order of their ranks
            if symmetric >= self.viou_threshold and ("symmetric", wanted) not in done:
                done.add(("symmetric", wanted))
                hits_of["symmetric_recall"][wanted] += within
            if ("found", wanted) in done:
                continue
            if viou >= WEAK and (self.protocol == "published" or viou > weak[wanted]):
                best = 0.0 if self.protocol == "published" else weak[wanted]
                hits_of["weak_recall"][wanted] += within & (best == 0)
                hits_of["soft_weak_recall"][wanted] += within * (viou - best)
                weak[wanted] = viou
            if viou >= self.viou_threshold:
                done.add(("found", wanted))
                hits_of["recall"][wanted] += within
                hits_of["soft_recall"][wanted] += within * viou
        hits = self._by_volume(candidates, [volume for _, _, volume in overlaps])
        for rank, wanted in hits.items():
            hits_of["volume_recall"][wanted] += rank < ks
        precision = _average_precision(np.array(sorted(hits)), len(relations)) if relations else None

        predicted = 0 if prediction is None else len(prediction.relations)
        self.videos += 1
        self.videos_without_relations += not relations
        self.videos_without_predictions += not predicted
        self._precision.add(np.array(precision or 0.0))
        table = parts(np.stack([hits_of[kind] for kind in KINDS], axis=1))
        for i, relation in enumerate(relations):
            name = canonical(relation.predicate)
            total, sums = self._found.get(name, (0, 0))
            self._found[name] = total + 1, sums + table[:, i]
        counts: dict[str, Any] = {"relations_predicted": predicted, "relations_reference": len(relations)}
        counts["average_precision"] = precision
        for kind in KINDS:
            name = kind.replace("recall", "found")
            counts |= {f"{name}@{k}": x for k, x in zip(self.ks, hits_of[kind].sum(axis=0).tolist(), strict=True)}
        return counts

    def merge(self, other: Self) -> None:
        self.check_same(other)
        self.videos += other.videos
        self.videos_without_relations += other.videos_without_relations
        self.videos_without_predictions += other.videos_without_predictions
        self._precision += other._precision
        for predicate, (number, found) in other._found.items():
            total, sums = self._found.get(predicate, (0, 0))
            self._found[predicate] = total + number, sums + found

    def compute(self) -> dict[str, float]:
        """All figures so far; 0 where there is nothing to find yet.

        videos, videos_without_relations, videos_without_predictions, relations_reference, predicates (those that
        occur), volume_map; then for each of KINDS and every K the share of all relations, and with "mean_" before
        "recall" the mean of the shares of the predicates.
        """
        ordered = [self._found[name] for name in sorted(self._found)]  # sums in whatever order they came
        totals = np.array([total for total, _ in ordered], dtype=np.float64)
        sums = np.array([whole(found) for _, found in ordered]).reshape(-1, len(KINDS), len(self.ks))
        pooled = sums.sum(axis=0) / max(1.0, totals.sum())
        mean = (sums / totals[:, None, None]).sum(axis=0) / max(1, len(totals))
        found = {
            "videos": self.videos,
            "videos_without_relations": self.videos_without_relations,
            "videos_without_predictions": self.videos_without_predictions,
            "relations_reference": int(totals.sum()),
            "predicates": len(totals),
            "volume_map": float(self._precision.total()) / max(1, self.videos - self.videos_without_relations),
        }
        for i, kind in enumerate(KINDS):
            found |= {f"{kind}@{k}": float(pooled[i, j]) for j, k in enumerate(self.ks)}
            name = kind.replace("recall", "mean_recall")
            found |= {f"{name}@{k}": float(mean[i, j]) for j, k in enumerate(self.ks)}
        return found

    def per_predicate(self) -> dict[str, dict[str, float]]:
        """For each predicate that occurs: relations, and each of KINDS at every K."""
        found: dict[str, dict[str, float]] = {}
        for name, (total, sums) in self._found.items():
            shares = whole(sums) / total
            found[name] = {"relations": total}
            for kind, values in zip(KINDS, shares.tolist(), strict=True):
                found[name] |= {f"{kind}@{k}": value for k, value in zip(self.ks, values, strict=True)}
        return found

    @classmethod
    def notes(cls, found: Mapping[str, Any]) -> list[str]:
        return [
            f"mean average precision by volume {found['volume_map']:.4f}",
            f"{found['videos']:,} videos with {found['relations_reference']:,} relations of {found['predicates']} "
            f"predicates; {found['videos_without_relations']:,} references without relations are in no recall",
        ]

    def _overlaps(
        self, prediction: VideoGraph, reference: VideoGraph, candidates: list[tuple[int, int, int]]
    ) -> list[tuple[float, float, float]]:
        """vIoU of each candidate: by frames, by frames with those that the prediction has too many, by volume."""
        length = reference.frames
        shared: dict[tuple[int, int], np.ndarray] = {}
        found = []
        for _, wanted, said in candidates:
            truth, guess = reference.relations[wanted], prediction.relations[said]
            held, claimed = truth.holds(length), guess.holds(length)
            together = held & claimed
            right, present, exist = together.copy(), held.copy(), claimed.copy()
            volumes = []
            for i, j in ((guess.subject, truth.subject), (guess.object, truth.object)):
                said_tube, true_tube = prediction.objects[i].tube, reference.objects[j].tube
                if (i, j) not in shared:
                    shared[i, j] = _padded(true_tube.intersections(said_tube), length)
                common, mine, theirs = shared[i, j], _padded(said_tube.areas, length), _padded(true_tube.areas, length)
                union = mine + theirs - common
                right &= (union > 0) & (common >= self.iou_threshold * union)
                present &= theirs > 0
                exist &= mine > 0
                volume = common[together].sum()
                volumes.append(_ratio(volume, mine[claimed].sum() + theirs[held].sum() - volume))
            hits = int(np.count_nonzero(right))
            by_frames = _ratio(hits, int(np.count_nonzero(right | present)))
            found.append((by_frames, _ratio(hits, int(np.count_nonzero(right | present | exist))), min(volumes)))
        return found

    def _by_volume(self, candidates: list[tuple[int, int, int]], volume: list[float]) -> dict[int, int]:
        """Ranks of the predictions that find a relation by volume, and which."""
        hits: dict[int, int] = {}
        best: dict[int, float] = {}
        taken: dict[int, int] = {}
        for (rank, wanted, _), viou in zip(candidates, volume, strict=True):
            if taken.get(wanted, rank) == rank and viou >= self.viou_threshold and viou > best.get(rank, -1.0):
                if rank in hits:
                    taken.pop(hits[rank], None)
                hits[rank], best[rank], taken[wanted] = wanted, viou, rank
        return hits


def videos_of_rows(
    rows: Iterable[Mapping[str, Any]], codec: str | Codec
) -> Iterator[tuple[str, VideoGraph, VideoGraph]]:
    """(video_id, prediction, reference) of videos whose graphs were written frame by frame, with tubes of boxes.

    Both are linked alike (see `sgrl.tubes.linked`), because the reference of a frame does not say which object of the
    frame before it has, either: the figures are of boxes and this linking, and not those of PVSG's masks.

    Args:
        rows: of predictions.jsonl, in any order: prediction, solution (or its ParsedGraph), width, height, frame,
            video_id, and perhaps confidence. Those without a video_id are left out. A row that was never predicted
            (prediction None) or cannot be read is a frame without a graph. The texts are held, so read them from a
            file as they are needed. Scored predictions (sgrl.scores) of a frame give its PER_FRAME best relations;
            `whole` and `whole_reference` in any row of a video: the VideoGraphs that were predicted and annotated, in
            the frames of its rows.

    Raises:
        FormatError: a reference is malformed.
    """
    codec = get_codec(codec)
    videos: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("video_id") is not None:
            videos.setdefault(row["video_id"], {})[row["frame"]] = row
    for video_id, frames in videos.items():
        ordered = [frames[number] for number in sorted(frames)]
        whole, reference = (
            next((row[name] for row in ordered if row.get(name) is not None), None)
            for name in ("whole", "whole_reference")
        )
        yield (
            video_id,
            linked([_written(row, codec) for row in ordered]) if whole is None else whole,
            linked([_true(row, codec) for row in ordered]) if reference is None else reference,
        )


def _written(row: Mapping[str, Any], codec: Codec) -> SceneGraph | None:
    size, graph, confidences = (row["width"], row["height"]), row["prediction"], row.get("confidence")
    if isinstance(graph, ScoredGraph):
        if not graph.written:
            best = graph.best(PER_FRAME, row.get("vocabulary"))
            relations = [Relation(s, p, o, score=score) for s, p, o, score, _ in best]
            return SceneGraph(map(Object, graph.labels, graph.boxes.tolist()), relations, *size)
        graph, confidences = of_scores(graph, None)
    else:
        graph = completion_of(graph, codec, *size)
    if isinstance(graph, SceneGraph):
        return graph
    if isinstance(graph, str):
        graph, _ = codec.recover_parsed(graph, *size)
    if not isinstance(confidences, Sequence) or len(confidences) != len(graph.relations):
        confidences = [None] * len(graph.relations)
    relations = [
        Relation(s, p, o, score=c if type(c) in (int, float) and math.isfinite(c) else None)
        for (s, p, o), c in zip(graph.relations, confidences, strict=True)
        if min(s, o) >= 0
    ]
    return SceneGraph(map(Object, graph.labels, graph.boxes), relations, *size)


def _true(row: Mapping[str, Any], codec: Codec) -> SceneGraph:
    graph, size = row["solution"], (row["width"], row["height"])
    return to_graph(graph if isinstance(graph, ParsedGraph) else read_reference(graph, codec, *size), *size)


def _candidates(prediction: VideoGraph | None, reference: VideoGraph) -> Iterator[tuple[int, int, int]]:
    """(rank, position in the reference, position in the prediction) of all pairs of relations with equal classes."""
    if prediction is None:
        return
    same: dict[tuple[str, str, str], list[int]] = {}
    for i, triplet in enumerate(_triplets(reference)):
        same.setdefault(triplet, []).append(i)
    triplets = _triplets(prediction)
    scores = [-math.inf if r.score is None or not math.isfinite(r.score) else r.score for r in prediction.relations]
    for rank, said in enumerate(sorted(range(len(scores)), key=lambda i: -scores[i])):
        for wanted in same.get(triplets[said], ()):
            yield rank, wanted, said


def _triplets(graph: VideoGraph) -> list[tuple[str, str, str]]:
    labels = [canonical(o.label) for o in graph.objects]
    return [(labels[r.subject], canonical(r.predicate), labels[r.object]) for r in graph.relations]


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([values[:length], np.zeros(max(0, length - len(values)), dtype=values.dtype)])


def _ratio(part: float, whole: float) -> float:
    ratio = float(part / whole) if whole > 0 else 0.0
    return ratio if math.isfinite(ratio) else 0.0


def _average_precision(ranks: np.ndarray, relations: int) -> float:
    """Area under the precision-recall curve (VOC, from 2010 on) of hits at these ranks, from 0, rising."""
    precision = (np.arange(len(ranks)) + 1.0) / (ranks + 1.0)
    return float(np.maximum.accumulate(precision[::-1]).sum() / relations)
