"""What a language model says of all pairs of a data set's images, in a folder: answers, priors, vectors.

The folder is one of predictions (`PredictionFolder`), which `rewards score` and the report read, and one of priors
(`sgrl.models.vost.priors`), which a detector reads. Answers come first, then the vectors of regions, then what is
made from both; each step goes on where it was interrupted.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sgrl import data
from sgrl.arguments import program_words
from sgrl.errors import SgrlError
from sgrl.folds import fold_of
from sgrl.inference.engine import Engine
from sgrl.inference.pair_questions import Asker, Said, written
from sgrl.inference.predictions import (
    RUN_FILE,
    Key,
    PredictionFolder,
    merge_shards,
    model_fingerprint,
    read_run_file,
    shard_folder,
    write_usage,
)
from sgrl.inference.rows import DatasetRows
from sgrl.models.detection.regions import RegionEncoder, sentences
from sgrl.models.vost.answers import PROMPT_VERSION, prompt_hash
from sgrl.models.vost.priors import (
    FEATURES,
    TEXT,
    AskedModel,
    FramePriors,
    PriorPair,
    PriorsInfo,
    write_features,
    write_priors,
    write_text,
    written_features,
)
from sgrl.progress import Progress
from sgrl.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

IDENTITY: tuple[str, ...] = (
    "models",
    "dataset",
    "dataset_fingerprints",
    "engine",
    "ask",
    "coords",
    "prompt",
    "encoder",
    "folds",
)
IDENTITY += ("max_new_tokens", "dtype", "thinking", "max_pairs")
PART = 256
"""Images in one file of regions."""


@dataclass(frozen=True)
class Extraction:
    """What is to be asked, of whom.

    Attributes:
        dataset: folder that data_prep/to_toon.py wrote. splits: of it. train_split: the one that models may have seen.
        output: folder of the run.
        models: one, or with cross-fitting one for each fold: the i-th has not seen fold i of `train_split`.
        test_model: which of them is asked about the other splits.
        ask, coords, max_pairs: see `Asker`.
        encoder: see `RegionEncoder`. regions: whether regions are encoded, besides the words.
        shard_index, num_shards: which part of the images this job takes, of how many.
        limit: the first so many images of each split; None for all.
    """

    dataset: str
    splits: tuple[str, ...]
    output: Path
    models: tuple[str, ...]
    ask: str
    coords: str
    encoder: str
    train_split: str = "train"
    test_model: int = 0
    max_pairs: int = 100
    regions: bool = True
    shard_index: int = 0
    num_shards: int = 1
    limit: int | None = None

    @property
    def folds(self) -> int:
        return len(self.models)

    def model_of(self, split: str, video: str | None, image: str) -> int:
        """Position in `models` of the one that is asked about an image."""
        if split == self.train_split and self.folds > 1:
            return fold_of(image if video is None else video, self.folds)
        return self.test_model


def asked_models(extraction: Extraction, vocabulary: Vocabulary) -> tuple[AskedModel, ...]:
    """What is known of the models' training, from the run.json of their folders.

    Raises:
        SgrlError: with cross-fitting, a model that was trained on the fold it is to be asked about.
    """
    found = [_asked(name, vocabulary) for name in extraction.models]
    for fold, model in enumerate(found):
        if extraction.folds > 1 and model.trained and (model.folds, model.left_out) != (extraction.folds, fold):
            said = "saw all of it" if model.left_out is None else f"left out fold {model.left_out} of {model.folds}"
            raise SgrlError(
                f"model {fold} is to be asked about fold {fold} of {extraction.folds}, but {model.name} {said}, says "
                f"its {RUN_FILE}; give the models in the order of the folds that they left out"
            )
    if extraction.folds == 1 and found[0].trained and extraction.train_split in extraction.splits:
        logger.warning(
            "%s was trained on this data set: its answers about split %r are cleaner than those about anything else. "
            "A detector will refuse them unless told otherwise; cross-fitting (folds, leave_out_fold) avoids it",
            found[0].name,
            extraction.train_split,
        )
    return tuple(found)


def _asked(name: str, vocabulary: Vocabulary) -> AskedModel:
    trained, folds = False, set()
    folder, seen = Path(name), set()
    while folder.is_dir() and folder.resolve() not in seen:  # a model that starts from another has seen what that saw
        seen.add(folder.resolve())
        if not (folder / RUN_FILE).is_file() and folder.name.startswith("checkpoint-"):
            folder = folder.parent
        identity = read_run_file(folder).get("identity")
        if not isinstance(identity, dict):
            break
        if _is_of(identity.get("dataset"), vocabulary):
            trained = True
            folds.add((identity.get("folds") or 1, identity.get("leave_out_fold")))
        folder = Path(str(identity.get("model_name_or_path")))
    count, left_out = folds.pop() if len(folds) == 1 else (1, None)
    return AskedModel(name, model_fingerprint(name), trained, count, 0, left_out)


def _is_of(path: Any, vocabulary: Vocabulary) -> bool:
    """Whether a folder holds the same data set, by its classes; one that is not there any more may have."""
    with suppress(SgrlError, TypeError):
        found = data.vocabulary_of(data.read_metadata(path))
        return (found.objects, found.predicates) == (vocabulary.objects, vocabulary.predicates)
    return True


class Splits:
    """The images of several splits, each with its split, its model and the job that takes it."""

    def __init__(self, extraction: Extraction):
        self.rows = {split: DatasetRows(extraction.dataset, split, extraction.limit) for split in extraction.splits}
        first = self.rows[extraction.splits[0]]
        self.codec, self.vocabulary = first.codec, first.vocabulary
        self.fingerprints = {split: rows.fingerprint for split, rows in self.rows.items()}
        self.name = first.keys[0][0]
        self.place: dict[Key, tuple[str, int]] = {}
        self.model: dict[Key, int] = {}
        for split, rows in self.rows.items():
            for index, (key, video) in enumerate(zip(rows.keys, rows.videos, strict=True)):
                if key in self.place:
                    other = self.place[key][0]
                    raise SgrlError(
                        f"{extraction.dataset}: image_id {key[1]!r} is in the splits {other!r} and {split!r}; extract "
                        "them into two folders"
                    )
                self.place[key] = split, index
                self.model[key] = extraction.model_of(split, video, key[1])

    def share(self, index: int, count: int) -> list[Key]:
        """The images of one job."""
        return list(self.place)[index::count]

    def __getitem__(self, key: Key) -> dict:
        split, index = self.place[key]
        return self.rows[split][index] | {"split": split}


def extract(extraction: Extraction, run: dict[str, Any], load: Callable[[str], Engine]) -> dict[str, int]:
    """Ask about all images (of this job's share) that no answer is there of, and write what is made from answers.

    Args:
        run: what goes into run.json besides: how the engine runs.
        load: a model's name -> its engine.

    Returns: counts, {} if other jobs are not done yet.

    Raises:
        SgrlError: among others at the end, if some images got no answer; the same command tries these again.
    """
    splits = Splits(extraction)
    models = asked_models(extraction, splits.vocabulary)
    run = run | {
        "model": ", ".join(extraction.models),
        "models": [asdict(model) for model in models],
        "dataset": extraction.dataset,
        "dataset_fingerprints": splits.fingerprints,
        "split": ", ".join(extraction.splits),
        "codec": splits.codec.name,
        "ask": extraction.ask,
        "coords": extraction.coords,
        "max_pairs": extraction.max_pairs,
        "folds": extraction.folds,
        "prompt": {"ask": extraction.ask, "version": PROMPT_VERSION, "hash": prompt_hash()},
        "encoder": {"name": extraction.encoder, "fingerprint": model_fingerprint(extraction.encoder)},
        "command": shlex.join(program_words(sys.argv[1:])),
    }
    target = shard_folder(extraction.output, extraction.shard_index, extraction.num_shards)
    folder = PredictionFolder(target, run, IDENTITY)
    share = splits.share(extraction.shard_index, extraction.num_shards)
    failed: dict[Key, str] = {}
    for number, name in enumerate(extraction.models):
        todo = [key for key in share if splits.model[key] == number and key not in folder.keys]
        if todo:
            engine = load(name)
            try:
                asker = Asker(
                    *(engine, splits.vocabulary, splits.codec, extraction.ask, extraction.coords),
                    max_pairs=extraction.max_pairs,
                )
                failed |= _ask(asker, splits, folder, todo)
            finally:
                engine.close()
    _encode(extraction, splits, folder)
    if failed:
        some = "; ".join(f"{key[1]}: {problem}" for key, problem in list(failed.items())[:3])
        raise SgrlError(
            f"{len(failed):,} of {len(share):,} images have no answer ({some}); the same command tries these again"
        )
    write_usage(folder)
    if extraction.num_shards > 1:
        if not merge_shards(extraction.output, extraction.num_shards):
            return {}
        folder = PredictionFolder(extraction.output, run, IDENTITY)
    return _compile(extraction, splits, models, folder)


def _ask(asker: Asker, splits: Splits, folder: PredictionFolder, todo: Sequence[Key]) -> dict[Key, str]:
    """Ask about images and keep the answers; returns those that got none, and why."""
    failed = {}
    size = asker.engine.batch_size
    with Progress("asking", len(todo), "image", where=folder.path) as progress:
        for start in range(0, len(todo), size):
            rows = []
            for key in todo[start : start + size]:
                try:
                    rows.append(splits[key])
                except SgrlError as error:  # an image that does not open
                    logger.warning("%s", error)
                    failed[key] = str(error)
            kept = []
            for row, said in zip(rows, asker(rows), strict=True):
                if said.error is None:
                    kept.append(_line(row, said, splits))
                else:
                    failed[row["dataset"], row["image_id"]] = said.error
            folder.append(kept)
            progress.update(min(size, len(todo) - start))
    return failed


def _line(row: dict, said: Said, splits: Splits) -> dict:
    """One line of predictions.jsonl."""
    frame = row["width"], row["height"]
    text, confidence = written(said, splits.vocabulary, splits.codec, *frame)
    kept = {name: row[name] for name in ("dataset", "image_id", "solution", "width", "height", "split")}
    kept |= {name: row[name] for name in ("video_id", "frame") if row[name] is not None}
    kept |= {name: getattr(said, name) for name in ("tokens", "prompt_tokens", "finish_reason", "person", "dropped")}
    kept |= {"prediction": text, "confidence": confidence, "seconds": round(said.seconds, 6)}
    if said.answers != [text]:
        kept |= {"written": "\n\n".join(said.answers), "answers": said.answers}
    return kept | {"pairs": [asdict(pair) for pair in said.pairs]}


def _pairs(row: dict) -> tuple[PriorPair, ...]:
    tuples = ("subject_box", "box", "predicates")
    return tuple(
        PriorPair(**pair | {n: tuple(pair[n]) for n in tuples} | {"scores": pair["scores"] and tuple(pair["scores"])})
        for pair in row["pairs"]
    )


def _encode(extraction: Extraction, splits: Splits, folder: PredictionFolder) -> None:
    """Vectors of the words, and of the regions of this job's images that have none."""
    done = written_features(extraction.output)
    todo = [row for row in folder if row["pairs"] and row["image_id"] not in done] if extraction.regions else []
    if (extraction.output / TEXT).is_file() and not todo:
        return
    encoder = RegionEncoder(extraction.encoder)
    if not (extraction.output / TEXT).is_file():
        objects, predicates = sentences(splits.vocabulary)
        write_text(extraction.output, encoder.texts(objects), encoder.texts(predicates))
    job = f"{extraction.shard_index:05d}-of-{extraction.num_shards:05d}"
    numbers = [
        int(path.stem.rpartition("-")[2]) for path in (extraction.output / FEATURES).glob(f"{job}-*.safetensors")
    ]
    number = max(numbers, default=-1) + 1
    with Progress("regions", len(todo), "image") as progress:
        for start in range(0, len(todo), PART):
            part = todo[start : start + PART]
            found = {}
            for row in part:
                image = splits[row["dataset"], row["image_id"]]["image"]
                boxes = [box for pair in row["pairs"] for box in _boxes(pair)]
                distinct = list(dict.fromkeys(map(tuple, boxes)))
                vectors = encoder.regions(image, distinct)
                places = [distinct.index(tuple(box)) for box in boxes]
                found[row["image_id"]] = vectors[places].reshape(len(row["pairs"]), 3, -1)
                progress.update()
            write_features(extraction.output, f"{job}-{number + start // PART:05d}", found)


def _boxes(pair: dict) -> tuple:
    """Of subject, object, and both."""
    a, b = pair["subject_box"], pair["box"]
    return a, b, (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))


def _compile(extraction: Extraction, splits: Splits, models, folder: PredictionFolder) -> dict[str, int]:
    """priors.parquet and priors.json, and counts of what stands there."""
    counts: Counter = Counter()

    def frames() -> Iterator[FramePriors]:
        for row in folder:
            key = row["dataset"], row["image_id"]
            counts.update(images=1, without_person=not row["person"], dropped=row["dropped"], pairs=len(row["pairs"]))
            counts["relations"] += sum(len(pair["predicates"]) for pair in row["pairs"])
            counts["cut"] += row["finish_reason"] == "length"
            where = row.get("video_id"), row.get("frame")
            yield FramePriors(row["image_id"], _pairs(row), *where, row["person"], splits.model[key])

    encoder = folder.run["encoder"]
    info = PriorsInfo(
        *(splits.name, splits.fingerprints, splits.vocabulary, models, folder.run["prompt"]),
        text_encoder=encoder,
        vision_encoder=encoder if extraction.regions else None,
    )
    write_priors(extraction.output, info, frames())
    return dict(counts)
