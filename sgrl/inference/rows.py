"""Where images come from: a split of a data set, or the user's own image files, folders of frames and videos.

Both are sequences of rows with dataset, image_id, image, prompt, width, height (the frame of the coordinates),
solution (None without a reference), video_id and frame (None for single images); those of a data set have all its
columns. `seen` is the frame in which the model writes, where that is another: own images are shown as those of the
data set, but their graphs are in their own pixels. Taking a row decodes its image, which is what the model sees;
`picture` is what the user has.
"""

from __future__ import annotations

import collections
import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgrl import data
from sgrl.errors import SgrlError
from sgrl.extras import require
from sgrl.files import fingerprint
from sgrl.images import SUFFIXES, open_image
from sgrl.inference.folders import VIDEOS, Folder, Found, frame_numbers, is_video, name_of
from sgrl.inference.predictions import Key, prediction_key
from sgrl.inference.presentation import Presentation
from sgrl.task import Task
from sgrl.terminal import printable
from sgrl.text import get_codec

logger = logging.getLogger(__name__)


class DatasetRows:
    """A split of a data set that sgrl convert wrote.

    Attributes:
        name: its path. fingerprint: of its files. codec, vocabulary: of its texts.
        keys: of the rows. videos: the video of each row, None for single images.
        most_images: that a row has.

    Args:
        presentation: asks in place of the rows' own prompts, if given.
    """

    def __init__(self, path: str, split: str, limit: int | None = None, presentation: Presentation | None = None):
        from sgrl.picture import most_images

        rows = data.load(path, split)
        if limit is not None:
            rows = rows.select(range(min(limit, len(rows))))
        if not len(rows):
            raise SgrlError(f"split {split!r} of {path} has no rows; convert some, or choose another --split")
        self.metadata = data.read_metadata(path)
        self.presentation = presentation
        self.name, self.fingerprint = path, fingerprint(data.files(path, split))
        self.codec, self.vocabulary = get_codec(self.metadata["codec"]), data.vocabulary_of(self.metadata)
        names = ["dataset", "image_id", *(name for name in data.VIDEO_COLUMNS if name in rows.column_names)]
        self.keys: list[Key] = []
        self.videos: list[str | None] = []
        for row in rows.select_columns(names):
            self.keys.append(prediction_key(row))
            self.videos.append(row.get("video_id"))
        (twice, count), *_ = collections.Counter(self.keys).most_common(1)
        if count > 1:
            raise SgrlError(f"{path}: image_id {twice[1]!r} occurs more than once; ids must be unique in a split")
        self._rows = rows
        self.most_images = most_images(rows)
        self._references = rows.select_columns(["solution", "width", "height"])

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict:
        """Raises SgrlError for an image that does not open."""
        try:
            row = self._rows[index]
        except SgrlError as error:
            raise SgrlError(f"{self.name}, image_id {self.keys[index][1]!r}: {error}") from None
        if "images" in row:  # what is drawn, and zero-shot prompts speak of, is the first
            row = {"image": row["images"][0]} | row
        if self.presentation:
            row |= _presented(self.presentation, row["image"])
        return dict.fromkeys(data.VIDEO_COLUMNS) | row

    def picture(self, index: int):
        """The image as it is in the data set."""
        return self[index]["image"]

    def solution(self, index: int) -> str | None:
        """The reference, without decoding the image."""
        return self._references[index]["solution"]

    def unanswered(self, index: int) -> dict:
        """What a prediction of this row has before there is one: it counts as a missing one."""
        dataset, image_id = self.keys[index]
        return {"dataset": dataset, "image_id": image_id, "prediction": None} | self._references[index]


def _presented(presentation: Presentation, picture) -> dict:
    """How a row asks about an image: image (as it is shown), prompt, and `seen`."""
    shown = presentation.shown(picture)
    seen = presentation.frame(shown.size)
    words = presentation.words(seen, shown.size)
    return {"image": shown, "prompt": [{"role": "user", "content": words}], "seen": seen}


class _UnreadableVideo(SgrlError):
    pass


class FileRows:
    """Image files, folders of them, and videos, shown and asked about as a task says.

    Args:
        paths: of files and folders; see `Folder` for what is taken of a folder, and in which order.
        presentation: of the task, or the path of the data set that a model was trained with, to ask as it does;
            without one there are pictures alone.
        as_video: whether the images that lie in one folder are the frames of one video: each folder below a path is a
            video of its own. Otherwise they are single images.
        every: take each so-manieth frame of a video file.
        limit: take the first so many images.
    """

    most_images = 1

    def __init__(
        self,
        paths: Sequence[str],
        presentation: Presentation | str | Path | None,
        as_video: bool,
        every: int = 1,
        limit: int | None = None,
    ):
        if isinstance(presentation, str | Path):
            presentation = Presentation(Task.of_dataset(presentation))
        self.presentation = presentation
        self.metadata: dict[str, Any] = {}
        self.codec = presentation.codec if presentation else None
        self.vocabulary = presentation.vocabulary if presentation else None
        self.name = ", ".join(paths)
        self._every = every
        # (file, number of the frame in a video file or None), row by row
        self._places: list[tuple[Path, int | None]] = []
        self.frames: list[int | None] = []
        self.keys: list[Key] = []
        self.videos: list[str | None] = []
        names = [name_of(Path(path)) for path in paths]
        if len(set(names)) < len(names):  # the frames of two folders would become one video
            twice = next(name for name in names if names.count(name) > 1)
            raise SgrlError(f"two inputs are called {twice!r}; give the folder that holds them both")
        files = [self._add(Path(path), as_video) for path in paths]
        self.fingerprint = fingerprint(file for found in files for file in found if _readable(file))
        if limit is not None:
            for column in (self._places, self.frames, self.keys, self.videos):
                del column[limit:]
        if not self.keys:
            raise SgrlError(f"{self.name}: no images; expected files that end in {', '.join(SUFFIXES + VIDEOS)}")
        self._open: dict[Path, tuple] = {}  # video file -> (capture, number of the next frame)

    def _add(self, path: Path, as_video: bool) -> list[Path]:
        """Take the images of a path; returns the files they are in."""
        if path.is_dir():
            folder = Folder(path)
            if folder.left_out:
                logger.warning("%s: files and folders left out: %s", printable(str(path)), printable(str(folder)))
            for name, together in itertools.groupby(folder.files, lambda found: found.folder):
                self._add_together(list(together), name if as_video else None)
            return [found.path for found in folder.files]
        if not path.is_file():
            raise SgrlError(f"{path} does not exist; expected an image, a video or a folder of them")
        if is_video(path.name):
            self._add_video(path, path.name)
        else:
            self._append(path, None, path.name, None, None)
        return [path]

    def _add_together(self, files: Sequence[Found], video: str | None) -> None:
        """Take the files of one folder; its images are frames of `video`, single ones without a name for it."""
        images = [found for found in files if not is_video(found.name)]
        frames = frame_numbers([found.name for found in images]) if video else [None] * len(images)
        for found, frame in zip(images, frames, strict=True):
            self._append(found.path, None, found.name, video, frame)
        for found in files:
            if is_video(found.name):
                try:
                    self._add_video(found.path, found.name)
                except _UnreadableVideo:  # named when its turn comes, as an image is
                    self._append(found.path, 0, f"{found.name}/{0:06d}", found.name, 0)

    def _add_video(self, path: Path, name: str) -> None:
        capture = capture_of(path)
        for frame in range(0, _count_frames(capture, path), self._every):
            self._append(path, frame, f"{name}/{frame:06d}", name, frame)

    def _append(self, file: Path, place: int | None, name: str, video: str | None, frame: int | None) -> None:
        self._places.append((file, place))
        self.frames.append(frame)
        self.keys.append(("files", name))
        self.videos.append(video)

    def __len__(self) -> int:
        return len(self.keys)

    def picture(self, index: int):
        """The image as it is in its file, upright. Raises SgrlError for one that does not open."""
        file, place = self._places[index]
        return open_image(file) if place is None else self._frame(file, place)

    def __getitem__(self, index: int) -> dict:
        """Raises SgrlError for an image that does not open."""
        assert self.presentation is not None  # without one nobody asks for rows, only for pictures
        picture = self.picture(index)
        dataset, name = self.keys[index]
        return {
            **{"dataset": dataset, "image_id": name, "video_id": self.videos[index], "frame": self.frames[index]},
            **_presented(self.presentation, picture),
            **{"width": picture.width, "height": picture.height, "solution": None},
        }

    def _frame(self, file: Path, frame: int):
        """Frame number `frame`; frames are mostly asked for in order, and seeking is slow."""
        import cv2
        from PIL import Image

        capture, at = self._open.pop(file, (None, 0))
        if capture is None or at > frame:
            capture, at = capture_of(file), 0
        read = False
        while at <= frame:
            read = capture.grab()
            at += 1
            if not read:
                raise SgrlError(
                    f"{file}, frame {frame}, cannot be read: the video ends before it, or is damaged there"
                )
        _, pixels = capture.retrieve()
        self._open[file] = capture, at
        while len(self._open) > 64:
            self._open.pop(next(iter(self._open)))
        return Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))

    @property
    def has_video_files(self) -> bool:
        return any(place is not None for _, place in self._places)

    def solution(self, index: int) -> None:
        return None


def _readable(file: Path) -> bool:
    """Whether it is a file that can be read: no broken link, nor one to a pipe."""
    return os.path.isfile(file) and os.access(file, os.R_OK)


def capture_of(path: str | os.PathLike | int):
    """OpenCV's capture of a video file, or of the camera with this number. Raises SgrlError."""
    cv2 = require("cv2", "thin", f"{path}: reading videos")
    capture = cv2.VideoCapture(path if isinstance(path, int) else str(path))
    if not capture.isOpened():
        raise _UnreadableVideo(f"{path} is no video that OpenCV can read; convert it, for example with ffmpeg")
    return capture


def _count_frames(capture, path: Path) -> int:
    """By reading: what the file says of itself may be wrong."""
    count = 0
    while capture.grab():
        count += 1
    if not count:
        raise _UnreadableVideo(f"{path} has no frame that can be read")
    return count
