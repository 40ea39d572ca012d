"""Rows of a data set folder as the model takes them: frames, clips, batches."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from sgrl import data
from sgrl.errors import SgrlError
from sgrl.files import fingerprint
from sgrl.models.detection.images import padded, to_bytes
from sgrl.models.vost.config import VostConfig
from sgrl.models.vost.inputs import Disturbance, Labels, Texts, as_task, batch_of, flipped, said, target_of
from sgrl.models.vost.priors import Priors
from sgrl.models.vost.temporal import reference_frames, sample_references
from sgrl.terminal import printable
from sgrl.text import get_codec

logger = logging.getLogger(__name__)

HELD_BYTES = 256 * 2**20
"""A data set whose frames take no more is read once, and held: reading would take longer than a small model's step."""


@dataclass(frozen=True)
class FrameSettings:
    """How frames are read.

    Attributes:
        train: frames without a pair are left out, and what follows is done; else nothing is.
        flip: with which probability a frame is mirrored, its targets and priors with it.
        disturb: what is done to priors. allow_seen: priors of videos that their model was trained on are taken.
        seed: of all that is random, together with epoch and frame.
    """

    train: bool = False
    flip: float = 0.0
    disturb: Disturbance = Disturbance()
    allow_seen: bool = False
    seed: int = 0


class Frames(Dataset):
    """One split of a data set, frame by frame.

    Args:
        dataset: folder that data_prep/to_toon.py wrote, with a layout that has groups. split: of it.
        config: of the model. processor: of images, see `sgrl.models.detection.images.image_processor`.
        priors: what language models said; None: nothing.

    Attributes:
        rows: of the data set. kept: which of them are frames here, in order.
        epoch: makes what is random another one; the same epoch and frame are the same in every process.

    Raises:
        SgrlError: not the model's vocabulary, priors of another data set or of videos that were seen, no frame.
    """

    def __init__(
        self,
        dataset: str | Path,
        split: str,
        config: VostConfig,
        processor,
        priors: Priors | None = None,
        settings: FrameSettings = FrameSettings(),  # noqa: B008
    ):
        metadata = data.read_metadata(dataset)
        vocabulary = data.vocabulary_of(metadata)
        _check_vocabulary(dataset, vocabulary, config)
        self.config, self.processor, self.priors, self.settings = config, processor, priors, settings
        self.rows, self.labels, self.epoch = data.load(dataset, split), Labels(config.labels), 0
        self._codec = get_codec(metadata["codec"])
        if not self._codec.grouped:
            raise SgrlError(f"{dataset} is in the layout {self._codec.name!r}, which has no groups; use toon-pairs")
        names = ("image_id", "video_id", "solution", "width", "height", "dataset")
        columns = {name: self.rows[name] for name in names if name in self.rows.column_names}
        count = len(self.rows)
        self.image_ids = list(columns["image_id"])
        self.video_ids = list(columns.get("video_id") or [None] * count)
        self._texts = list(zip(columns["solution"], columns["width"], columns["height"], strict=True))
        tables = (None, None) if priors is None else (priors.objects, priors.predicates)
        if priors is not None:
            name = columns["dataset"][0] if count else ""
            priors.check(name, split, fingerprint(data.files(dataset, split)), vocabulary)
            _check_sizes(priors, config)
            if split == "train":
                self._check_leaks(priors, settings.allow_seen)
        self.texts = Texts.of(self.labels, config.text_size, *tables)
        self._pictures = self.rows.select_columns(["image"])  # a row is read without the rest of it
        self.kept = [i for i in range(count) if not settings.train or len(self.target(i)["labels"])]
        if not self.kept:
            raise SgrlError(f"{dataset}, split {split}: no frame of {count} relates a person to something")
        self._held: dict[int, tuple] | None = {} if self._small() else None
        if len(self.kept) < count:
            logger.info("%d of %d frames of %s have pairs to learn from", len(self.kept), count, split)

    def _check_leaks(self, priors: Priors, allow: bool) -> None:
        seen = priors.check_leaks(zip(self.image_ids, self.video_ids, strict=True), allow)
        missing = sum(image not in priors for image in self.image_ids)
        if seen:
            logger.warning("priors of %d frames come from models that were trained on them", seen)
        if missing and priors.info.models:
            logger.warning("%d of %d frames have no priors: nothing is said of them", missing, len(self.image_ids))

    def target(self, row: int) -> dict[str, np.ndarray]:
        """The reference of a row, see `inputs.target_of`."""
        text, width, height = self._texts[row]
        return target_of(self._codec.parse(text, width, height, tags=False), (width, height), self.labels)

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.frame(self.kept[index])

    def frame(self, row: int) -> dict[str, Any]:
        """pixel_values (3, H, W) of 8 bits, priors and target of a row (arrays), its texts and image_id."""
        settings = self.settings
        rng = random.Random(f"{settings.seed}:{self.epoch}:{row}")
        flip = settings.train and rng.random() < settings.flip
        if self._held is None:
            pixels, priors, target = self._read(row, rng)
        else:
            if row not in self._held:
                self._held[row] = self._read(row, rng)
            pixels, priors, target = self._held[row]
        if flip:  # what was said of the frame is said of its mirror image
            pixels, priors, target = pixels.flip(-1), flipped(priors), flipped(target)
        frame = {"pixel_values": pixels, "priors": priors, "target": target}
        return frame | {"texts": self.texts, "image_id": self.image_ids[row], "processor": self.processor}

    def _read(self, row: int, rng: random.Random):
        """Pixels, priors and target of a row."""
        settings, config, found, features = self.settings, self.config, None, None
        if self.priors is not None:
            found = self.priors.get(self.image_ids[row])
            if found is not None and config.bank == "full":
                features = self.priors.features(self.image_ids[row])
        pairs = list(enumerate(found.pairs)) if found else []
        if settings.train:
            pairs = settings.disturb(pairs, self.labels, rng)
        told = said(pairs, features, self.labels, config.visual_size if config.bank == "full" else None)
        return self._pixels(row), *as_task(config.task, told, self.target(row), self.labels)

    def _pixels(self, row: int) -> torch.Tensor:
        try:
            return to_bytes(self._pictures[row]["image"], self.processor)
        except SgrlError as error:
            if not self.settings.train:
                raise
            logger.warning("%s is black in training: %s", self.image_ids[row], printable(error, 200))
            return torch.zeros(3, self.processor.size["shortest_edge"], self.processor.size["shortest_edge"]).byte()

    def _small(self) -> bool:
        """Whether all frames as they are read take little memory, and are the same in every epoch."""
        if self.settings.train and self.settings.disturb != Disturbance():
            return False
        try:
            pixels, priors, _ = self._read(self.kept[0], random.Random(0))
        except SgrlError:  # an image that does not open, which is said when its turn comes
            return False
        each = pixels.nbytes + sum(array.nbytes for array in priors.values())
        return each * len(self.rows) <= HELD_BYTES


class Clips(Dataset):
    """Frames with the frames that they look at, the target first; references are annotated frames of the video.

    In training they are drawn anew in every epoch.
    """

    def __init__(self, frames: Frames):
        self.frames = frames
        videos: dict[Any, list[int]] = {}
        for row, video in enumerate(frames.video_ids):
            videos.setdefault(row if video is None else video, []).append(row)
        self._around = {row: (rows, place) for rows in videos.values() for place, row in enumerate(rows)}

    @property
    def epoch(self) -> int:
        return self.frames.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.frames.epoch = epoch

    def __len__(self) -> int:
        return len(self.frames)

    def references(self, index: int) -> list[int]:
        """Rows that a frame looks at."""
        row, config, settings = self.frames.kept[index], self.frames.config, self.frames.settings
        rows, place = self._around[row]
        sizes = len(rows), place, config.references, config.window
        if settings.train:
            return [rows[i] for i in sample_references(*sizes, random.Random(f"{settings.seed}:{self.epoch}:{row}:r"))]
        return [rows[i] for i in reference_frames(*sizes)]

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        return [self.frames[index], *map(self.frames.frame, self.references(index))]


def collate(items: Sequence[dict[str, Any] | list[dict[str, Any]]]) -> dict[str, Any]:
    """Frames or clips as a batch for `VostForSceneGraphs`: pixel_values, pixel_mask, priors, targets."""
    clips = [item if isinstance(item, list) else [item] for item in items]
    frames = [frame for clip in clips for frame in clip]
    pixels, mask = padded([frame["pixel_values"] for frame in frames], frames[0]["processor"])
    priors = batch_of([frame["priors"] for frame in frames], frames[0]["texts"])
    targets = [{name: torch.from_numpy(array) for name, array in clip[0]["target"].items()} for clip in clips]
    return {"pixel_values": pixels, "pixel_mask": mask, "priors": priors, "targets": targets}


def _check_vocabulary(dataset: str | Path, vocabulary, config: VostConfig) -> None:
    known = config.labels
    for name in ("objects", "predicates"):
        theirs, ours = getattr(vocabulary, name), getattr(known, name)
        if theirs != ours:
            strange = next((label for label in theirs if label not in ours), None)
            what = f"has {strange!r}, which the model does not know" if strange else "has them in another order"
            raise SgrlError(f"{dataset}: of {len(theirs)} {name} it {what} ({len(ours)}); train a model for it")


def _check_sizes(priors: Priors, config: VostConfig) -> None:
    found: Mapping[str, int | None] = {"text_size": priors.text_size, "visual_size": priors.visual_size}
    for name, size in found.items():
        wanted = getattr(config, name)
        if size is not None and wanted is not None and size != wanted:
            raise SgrlError(
                f"{priors.folder} has vectors of {size} numbers, the model wants {wanted} ({name}); extract priors "
                "with the encoder that the model was trained with"
            )
