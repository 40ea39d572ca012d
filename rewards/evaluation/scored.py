"""Scored predictions against references: every ranking metric at once, with intervals and paired differences."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rewards.evaluation.files import AnyReferences, Key, Named, Predictions, Problem, joined, nothing_to_score
from rewards.evaluation.tables import at_ks
from rewards.metrics import Metric, Settings, VideoRecall
from rewards.reading import completion_of
from sgrl.errors import SgrlError, UsageError
from sgrl.scores import ScoredGraph, ScoreFolder, from_text
from sgrl.scores.files import Place
from sgrl.text import Codec, get_codec
from sgrl.tubes import VideoGraph
from sgrl.vocabulary import Vocabulary, canonical

GROUPS = 40
"""Into how many parts the images or videos are divided for the intervals."""


MOST_OF_A_VIDEO = max(VideoRecall().ks)


class ScoredPredictions:
    """A folder of scored predictions, by image; memory is what the ids need, and a row group.

    Args:
        path: see sgrl.scores.
        references: what they are predictions for.

    Attributes:
        damaged, duplicates, unknown: as in Predictions. changed: whether they are of another data set, or another
            state of it, by its fingerprint.

    Raises:
        SgrlError: a folder that cannot be read, another vocabulary, not one prediction for an image or video of the
            references.
    """

    def __init__(self, path: str | Path, references: AnyReferences):
        self.folder, self.path = ScoreFolder(path), Path(path)
        self.vocabulary = self.folder.vocabulary
        if references.vocabulary is not None:
            check_vocabulary(self.path, self.vocabulary, references.vocabulary)
        found = self.folder.fingerprint
        self.changed = None not in (found, references.fingerprint) and found != references.fingerprint
        self.damaged, self.duplicates, self.unknown = Problem(), Problem(), Problem()
        self._places: dict[Key, Place] = {}
        self._videos: dict[tuple[str, str | None], Place] = {}
        self._held: tuple[tuple[str, str | None], ScoredGraph, ScoredGraph] | None = None
        self._video_of = dict(zip(references.keys, references.videos(), strict=True))
        videos = {(key[0], video) for key, video in self._video_of.items()}
        for place, graph in self.folder.places(self.damaged.add):
            key = references.key(*graph.key)
            known = key in (videos if graph.whole_video else self._video_of)
            taken: dict[Any, Place] = self._videos if graph.whole_video else self._places
            if not known:
                self.unknown.add(repr(key[1]))
            elif key in taken:
                self.duplicates.add(repr(key[1]))
            else:
                taken[key] = place
        if not self._places and not self._videos:
            raise nothing_to_score(self, references, "scored predictions is for an image or video")

    def __enter__(self) -> ScoredPredictions:
        return self

    def __exit__(self, *_: object) -> None:
        self._held = None

    def missing(self, references: AnyReferences) -> Problem:
        """The images that neither they nor their video have a prediction."""
        problem = Problem()
        for key, video in self._video_of.items():
            if key not in self._places and (key[0], video) not in self._videos:
                problem.add(repr(key[1]))
        return problem

    def get(self, key: Key, reference: Mapping[str, Any]) -> dict[str, Any] | None:
        """prediction, in the reference's frame, and the vocabulary of its columns; of a whole video what it says of
        this frame, with the whole as `video`. None if there is none."""
        size = reference["width"], reference["height"]
        found: dict[str, Any] = {"vocabulary": self.vocabulary}
        if (place := self._places.get(key)) is not None:
            found["prediction"] = self.folder.get(place).resized(*size)
        video = key[0], reference.get("video_id")
        if (place := self._videos.get(video)) is not None:
            held = self._held
            if held is None or held[0] != video:
                whole = self.folder.get(place).resized(*size)
                self._held = held = video, whole, whole.boxed()
            _, found["video"], boxed = held
            if "prediction" not in found and reference["frame"] in boxed.numbers:
                found["prediction"] = boxed.at(boxed.numbers.index(reference["frame"]), image_id=key[1])
            found.setdefault("prediction", None)
        return found if "prediction" in found else None


class ScoredReferences(Named):
    """A folder of scored predictions as references, such as annotated videos with masks: relations by name, without
    regard to scores. A frame of a whole video has the id "VIDEO/NUMBER".

    Attributes: as of References.

    Raises:
        SgrlError: a folder or row that cannot be read, no rows, an id that stands twice, relations that are no list.
    """

    def __init__(self, path: str | Path, limit: int | None = None):
        self.path, self.split, self.limit = path, "scores", limit
        self._folder = ScoreFolder(path)
        self.vocabulary, self.fingerprint = self._folder.vocabulary, self._folder.fingerprint
        self.codec = get_codec("toon-pairs" if self.vocabulary.groups else "toon")
        names = [(row["dataset"], row["image_id"], row["video_id"]) for row in self._rows()]
        if not names:
            raise SgrlError(f"{path} has no rows; references are annotated images or videos")
        self.ids_suffice = len({name for _, name, _ in names}) == len(names)
        self.keys = [self.key(*name[:2]) for name in names]
        if len(set(self.keys)) < len(self.keys):
            twice = next(key for key in self.keys if self.keys.count(key) > 1)
            raise SgrlError(f"{path}: {twice[1]!r} occurs more than once; ids must be unique")
        self._videos = [video for _, _, video in names]

    def videos(self) -> list[str | None]:
        return self._videos

    def __iter__(self) -> Iterator[tuple[Key, dict[str, Any]]]:
        for key, row in zip(self.keys, self._rows(), strict=True):
            graph = row.pop("graph")
            yield key, row | {"solution": graph.parsed(self.vocabulary), "width": graph.width, "height": graph.height}

    def _rows(self) -> Iterator[dict[str, Any]]:
        """dataset, image_id, video_id, frame and graph of each image, and of a whole video of each frame."""
        return itertools.islice(self._all_rows(), self.limit)

    def _all_rows(self) -> Iterator[dict[str, Any]]:
        for graph in self._folder:
            if graph.predicates is None:
                graph.fail(
                    "predicate_scores", "scores of all predicates", "predicates: a reference names its relations"
                )
            row: dict[str, Any] = {"dataset": graph.dataset, "video_id": graph.video_id}
            if not graph.whole_video:
                yield row | {"image_id": graph.image_id, "frame": graph.frame, "graph": graph}
                continue
            boxed = graph.boxed()
            row |= {"reference_video": graph, "reference_vocabulary": self.vocabulary}
            for i, number in enumerate(graph.numbers):
                name = f"{graph.video_id}/{number}"
                yield row | {"image_id": name, "frame": number, "graph": boxed.at(i, image_id=name, frame=number)}


def check_vocabulary(path: Path, found: Vocabulary, wanted: Vocabulary) -> None:
    """Raises SgrlError unless both have the same labels, in whatever order and spelling."""
    for kind in ("objects", "predicates"):
        mine, theirs = ({canonical(label) for label in getattr(words, kind)} for words in (found, wanted))
        if mine != theirs:
            example = sorted(mine ^ theirs)[0]
            where = "only the scores" if example in mine else "only the references"
            words = f"{len(mine)} {kind} of {found.name!r}, the references {len(theirs)} of {wanted.name!r}"
            raise SgrlError(
                f"{path} has {words}: {where} have {example!r}; score it with the data set that it was made for"
            )


class Ranking:
    """Several metrics over the same samples, in parts of whole videos and images, so that figures have intervals.

    Args:
        kinds: the metrics. settings: of each.
    """

    def __init__(self, kinds: Sequence[type[Metric]], settings: Callable[[type[Metric]], Settings]):
        self.settings = {kind.name: settings(kind) for kind in kinds}
        self.empty = {kind.name: kind.of(self.settings[kind.name]) for kind in kinds}
        self.parts = {name: [copy.deepcopy(metric) for _ in range(GROUPS)] for name, metric in self.empty.items()}
        self.units = 0
        self.of_videos = False

    def add_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count rows of prediction (a ScoredGraph), solution, width, height, video_id and frame.

        Raises:
            SgrlError: no sample for one of the metrics, or rows of a video that do not follow each other.
        """
        samples = dict.fromkeys(self.empty, 0)
        for number, unit in enumerate(_units(rows)):
            self.units = number + 1
            self.of_videos |= unit[0]["video_id"] is not None
            for name, parts in self.parts.items():
                part = parts[number % GROUPS]
                for sample in part.samples_of(unit, self.settings[name].codec):
                    part.add(*sample)
                    samples[name] += 1
        for name, count in samples.items():
            if not count:
                raise UsageError(f"the data set has no {self.empty[name].needs}, which the metric {name} is for")

    def compute(self) -> dict[str, Any]:
        """{metric: its figures, per_predicate, and intervals: {figure: [low, high]} of all that are not counts}."""
        found = {}
        for name in self.parts:
            whole = self._without(name, None)
            figures = whole.compute()
            ends = _intervals(_shares(figures), [_shares(left) for left in self.left_out(name)])
            bounded = {key: (max(low, 0.0), min(high, max(1.0, figures[key]))) for key, (low, high) in ends.items()}
            found[name] = figures | {"per_predicate": whole.per_predicate(), "intervals": bounded}
        return found

    def left_out(self, name: str) -> list[dict[str, Any]]:
        """The figures without each of the parts in turn."""
        used = min(GROUPS, self.units)
        return [self._without(name, left).compute() for left in range(used)] if used > 1 else []

    def _without(self, name: str, left: int | None) -> Metric:
        whole = copy.deepcopy(self.empty[name])
        for number, part in enumerate(self.parts[name]):
            if number != left:
                whole.merge(part)
        return whole

    def lines(self, found: Mapping[str, Any]) -> list[str]:
        lines = []
        for name, figures in found.items():
            metric = self.empty[name]
            low, high = ({k: ends[i] for k, ends in figures["intervals"].items()} for i in (0, 1))
            lines += [*at_ks(f"{name}, by score", figures), ""]
            if any("@" in key for key in low):
                main = [key for key in figures if key.partition("@")[0] in ("recall", "mean_recall") and key in low]
                lines += at_ks("95 %, from", {key: low[key] for key in main})
                lines += [*at_ks("95 %, to", {key: high[key] for key in main}), ""]
            lines += [*metric.notes(figures), f"Protocol: {self.settings[name].protocol}.", ""]
        what = "videos" if self.of_videos else "images"
        return [*lines, f"Intervals: jackknife over {self.units:,} {what} in {min(GROUPS, self.units)} groups."]


def paired(ours: Ranking, theirs: Ranking) -> dict[str, dict[str, tuple[float, float, float]]]:
    """{metric: {figure: (difference, low, high)}} of two that counted the same images: ours less theirs, with the 95 %
    interval of the difference, for which the same images are left out of both."""
    found = {}
    for name in ours.parts:
        whole = _less(ours._without(name, None).compute(), theirs._without(name, None).compute())
        pairs = zip(ours.left_out(name), theirs.left_out(name), strict=True)
        ends = _intervals(whole, [_less(*pair) for pair in pairs])
        found[name] = {key: (whole[key], *ends[key]) for key in ends}
    return found


def as_scores(rows: Iterable[Mapping[str, Any]], codec: Codec) -> Iterator[dict[str, Any]]:
    """Rows of texts as rows of scored predictions, confidences as the scores of relations."""
    for row in rows:
        size, given = (row["width"], row["height"]), row["prediction"]
        name, sure = str(row["image_id"]), row.get("confidence")
        given = None if given is None else completion_of(given, codec, *size)
        scores = None if given is None else from_text(given, codec, *size, image_id=name, confidences=sure)
        yield {**row, "prediction": scores}


def _units(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows of each video together, and those of no video alone. A video that was predicted as a whole comes with
    `whole`, in the frames of its rows."""
    seen: set[str] = set()

    def unit(numbered: tuple[int, Mapping[str, Any]]) -> int | str:
        return numbered[0] if numbered[1]["video_id"] is None else str(numbered[1]["video_id"])

    for name, group in itertools.groupby(enumerate(rows), unit):
        together = [dict(row) for _, row in group]
        if isinstance(name, str):
            if name in seen:
                raise SgrlError(
                    f"the references of video {name!r} do not follow each other; convert the data set again"
                )
            seen.add(name)
            together.sort(key=lambda row: row["frame"])
            together[0] |= _whole(together)
        yield together


def _whole(rows: Sequence[Mapping[str, Any]]) -> dict[str, VideoGraph]:
    """`whole` and `whole_reference` of a video's rows, where it was predicted or annotated as a whole: with masks if
    both have masks of the same frames, else with boxes in the frames of the rows."""
    first, numbers, found = rows[0], [row["frame"] for row in rows], {}
    video, reference = first.get("video"), first.get("reference_video")
    masks = all(one is not None and one.masked and list(one.numbers) == numbers for one in (video, reference))
    if video is not None:
        video = video if masks else video.on_frames(numbers)
        found["whole"] = video.video(MOST_OF_A_VIDEO, first["vocabulary"])
    if reference is not None:
        reference = reference if masks else reference.on_frames(numbers)
        found["whole_reference"] = reference.video(vocabulary=first["reference_vocabulary"])
    return found


def _shares(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if isinstance(value, float)}


def _less(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    return {name: value - theirs[name] for name, value in _shares(ours).items() if name in theirs}


def _intervals(whole: Mapping[str, float], left_out: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """95 % intervals by the delete-a-group jackknife (Kott, 2001), Student's t with one degree of freedom less than
    there are groups: right for every figure that is made of sums, whatever the metric."""
    groups = len(left_out)
    if groups < 2:
        return {}
    from scipy import special

    reach = special.stdtrit(groups - 1, 0.975)
    found = {}
    for name, value in whole.items():
        others = np.array([one[name] for one in left_out])
        half = reach * math.sqrt((groups - 1) / groups * np.square(others - others.mean()).sum())
        found[name] = value - half, value + half
    return found


def rows_of(
    predictions: Predictions | ScoredPredictions, references: AnyReferences, codec: Codec
) -> Iterator[dict[str, Any]]:
    """Joined with the references, texts as scored predictions."""
    rows = joined(predictions, references)
    return rows if isinstance(predictions, ScoredPredictions) else as_scores(rows, codec)
