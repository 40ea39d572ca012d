"""What the writers of toy worlds share: a folder is complete once its annotation file is there."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.toys.scene import SPLITS, Scene, scene
from data_prep.toys.video import Video, video
from sgrl.errors import SgrlError, UsageError
from sgrl.files import atomic_path
from sgrl.progress import Progress

MARKER = "toyworld.json"
"""The arguments that a toy world was drawn with; says that the folder is ours to replace."""


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn. The same drawing gives the same files.

    Attributes:
        layout: in which it is written; None for PSG's.
        train, test: scenes, or videos.
        seed: another one gives other scenes.
        frames: of a video; None for scenes.
        labels: of Action Genome's, where they are not the plain ones.
        version: of the writer; raised when the same arguments give other files.
    """

    layout: str | None
    train: int
    test: int
    seed: int
    frames: int | None = None
    labels: str | None = None
    version: int = 1

    def begin(self, output: Path, annotations: str, folders: Iterable[str], most: int = 10_000_000) -> bool:
        """Empty a folder for this drawing; False where it already holds it.

        Args:
            output: the folder, made if needed.
            annotations: path of the file in it that is written last.
            folders: those in it that hold images and masks; removed and made anew.
            most: scenes or videos of a split that have different ids.

        Raises:
            SgrlError: numbers out of range; the annotation file or a folder exists, and not from a toy world.
        """
        numbers = (self.train, self.test)
        if not all(0 <= n <= most for n in numbers) or not any(numbers) or self.frames is not None and self.frames < 1:
            what = "scenes" if self.frames is None else f"videos of {self.frames} frames"
            raise UsageError(
                f"cannot draw {self.train} training and {self.test} test {what}; give numbers from 0 to {most:,}"
            )
        arguments = {name: value for name, value in asdict(self).items() if value is not None}
        marker, folders = output / MARKER, tuple(folders)
        for name in (annotations, *folders):
            if (output / name).exists() and not marker.exists():
                raise SgrlError(f"{output / name} exists and was not written by this command; choose another --output")
        if (output / annotations).exists():
            if json.loads(marker.read_text()) == arguments:
                return False
            (output / annotations).unlink()  # from here on the folder is incomplete
        output.mkdir(parents=True, exist_ok=True)
        with atomic_path(marker) as temporary:
            temporary.write_text(json.dumps(arguments))
        for folder in folders:
            shutil.rmtree(output / folder, ignore_errors=True)
            (output / folder).mkdir(parents=True)
        return True

    def todo(self) -> list[tuple[str, int]]:
        """(split, index) of every scene or video, in order."""
        return [(split, index) for split in SPLITS for index in range(getattr(self, split))]

    def scenes(self, counts: Counter, progress: bool, splits: Iterable[str] = SPLITS) -> Iterator[tuple]:
        """(split, index, Scene) of every scene of `splits`, in order, counted."""
        todo = [(split, index) for split, index in self.todo() if split in splits]
        for split, index in Progress("drawing scenes", len(todo), "scene", show=progress).over(todo):
            drawn = scene(self.seed, index, split)
            count_scene(counts, drawn)
            counts[split] += 1
            yield split, index, drawn

    @property
    def length(self) -> int:
        """Frames of a video."""
        assert self.frames is not None  # of what draws videos
        return self.frames

    def videos(self, progress: bool, person: bool = False, blurred: float = 0.0) -> Iterator[tuple[str, int, Video]]:
        """(split, index, Video) of every video, in order."""
        todo = self.todo()
        for split, index in Progress("drawing videos", len(todo), "video", show=progress).over(todo):
            yield split, index, video(self.seed, index, split, self.length, person, blurred)


def count_video(counts: Counter, split: str, drawn: Video) -> None:
    """Add a video and what is in its frames."""
    counts[split] += 1
    counts["frames"] += len(drawn.boxes)
    counts["objects"] += sum(box is not None for boxes in drawn.boxes for box in boxes)
    for found in drawn.relations:
        _count_relations(counts, found)


def count_scene(counts: Counter, drawn: Scene) -> None:
    """Add what is in a scene."""
    counts["objects"] += len(drawn.boxes)
    _count_relations(counts, drawn.relations)


def _count_relations(counts: Counter, relations: list[tuple[int, str, int]]) -> None:
    """Of one image or frame."""
    counts["without relations"] += not relations
    counts.update(predicate for _, predicate, _ in relations)
