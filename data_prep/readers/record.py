"""What every reader yields, and what it says about a record that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sgrl.errors import SgrlError
from sgrl.graph import SceneGraph
from sgrl.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An image file whose bytes came with the annotation; stands where a Path would.

    Attributes:
        name: for messages.
        data: the bytes of the file.
    """

    name: str
    data: bytes

    def read_bytes(self) -> bytes:
        """As of a Path."""
        return self.data

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Record:
    """One annotated image or video frame, as the data set has it: nothing cleaned, nothing scaled.

    Attributes:
        image_id: unique within the data set; of a frame, f"{video_id}_{frame}".
        image: where the image file should be; readers do not decode it.
        graph: in pixels of the original image, labels in the data set's own spelling.
        split: "train", "val" or "test".
        place: file and record, for messages ("psg.json, record 17 (image_id 107902)").
        video_id: the video that a frame belongs to, None for an image on its own.
        frame: the number in the frame's file name, None for an image on its own.
    """

    image_id: str
    image: Path | EmbeddedImage
    graph: SceneGraph
    split: str
    place: str
    video_id: str | None = None
    frame: int | None = None


class RecordError(SgrlError):
    """A damaged record.

    Attributes:
        place: file and record.
        reason: what was found and what was expected.
    """

    def __init__(self, place: str, reason: str):
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.place, self.reason)


OnDamage = Callable[[RecordError], None]


def raised(error: RecordError) -> None:
    """What happens to damage where nobody has said."""
    raise error


class Reader(Protocol):
    """A data set in its official layout.

    Making one finds the files and reads what is small (class lists, splits); it raises SgrlError where something is
    missing. `records` then streams: memory does not grow with the number of records. It can be called again, and gives
    the same records in the same order each time.
    """

    name: str  # what goes into the `dataset` column
    vocabulary: Vocabulary
    source: Path  # the annotation file
    default_size: tuple[int, int] | None  # (width, height) that published work resizes to, None to keep
    codec: str  # text layout that published work uses: "toon" or "toon-pairs"
    notes: Counter[str]  # what the last pass left out or mended without it being damage, in words -> how often

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """All records, those of one video next to each other and in time order.

        A damaged one is handed to `on_damage` and skipped; without it, it is raised.
        """
        ...

    def totals(self) -> dict[str, tuple[int, int]]:
        """What the last pass found in the annotation beside what the full official data set has: (found, expected).

        Empty where no official count is known.
        """
        ...
