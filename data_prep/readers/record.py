"""What every reader yields, and what it says about a record that cannot be used."""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from sgrl.errors import SgrlError
from sgrl.graph import GraphError, SceneGraph
from sgrl.terminal import printable
from sgrl.vocabulary import UNNAMED, Vocabulary, canonical

LARGEST_SIDE = 1 << 16
"""Pixels; no format of photographs has longer ones."""

_LONGEST_NAME = 1000  # characters of an id or of a path in an annotation
_LONGEST_LABEL = 200
_LONGEST_PLACE, _LONGEST_REASON = 200, 400  # characters of a message
_LAST_FRAME = (1 << 31) - 1  # what the column holds
_Parsed = TypeVar("_Parsed")


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

    Raises:
        GraphError: an id that is no text or very long, a label that is no text, a path that no file can have, a size
            that no image has, a frame that no column holds.
    """

    image_id: str
    image: Path | EmbeddedImage
    graph: SceneGraph
    split: str
    place: str
    video_id: str | None = None
    frame: int | None = None

    def __post_init__(self):
        graph = self.graph
        width, height = graph.width, graph.height
        if not (type(width) is type(height) is int and width <= LARGEST_SIDE and height <= LARGEST_SIDE):
            raise GraphError(
                f"the image must have 1 to {LARGEST_SIDE:,} pixels a side, found {shown(width)} x {shown(height)}"
            )
        for name, found in (("image_id", self.image_id), ("video_id", self.video_id)):
            if found is not None and not 0 < len(found) <= _LONGEST_NAME:
                raise GraphError(f"{name} must have 1 to {_LONGEST_NAME:,} characters, found {len(found):,}")
        texts = f"{self.image_id}{self.video_id}" + "".join([o.label for o in graph.objects])
        if not texts.isascii() and not _encodes(texts):
            raise GraphError("half a character (a lone surrogate) in an id or a label")
        if self.frame is not None and not 0 <= self.frame <= _LAST_FRAME:
            raise GraphError(f"the number of a frame must be from 0 to {_LAST_FRAME:,}, found {shown(self.frame)}")
        if isinstance(self.image, Path):
            check_path(str(self.image))


class RecordError(SgrlError):
    """A damaged record.

    Both texts may quote the record: they are made printable, one line each, and cut where they are long.

    Attributes:
        place: file and record.
        reason: what was found and what was expected.
    """

    def __init__(self, place: str, reason: str):
        self.place = printable(place, _LONGEST_PLACE)
        self.reason = printable(reason, _LONGEST_REASON)
        super().__init__(f"{self.place}: {self.reason}")

    def __reduce__(self):
        return type(self), (self.place, self.reason)


class SourceError(SgrlError):
    """The annotation file is damaged, not one record: nothing more can be read of it."""


OnDamage = Callable[[RecordError], None]


def raised(error: RecordError) -> None:
    """What happens to damage where nobody has said."""
    raise error


def attempt(on_damage: OnDamage | None, place: str, parse: Callable[..., _Parsed], *arguments) -> _Parsed | None:
    """`parse(*arguments)`; whatever is wrong with the record goes to `on_damage` as damage at `place`, and None comes.

    The one guard around the parsing of a record: annotation is foreign, and a number that no float holds, a list in
    place of a name or brackets without end raise nearly anything, wherever they are used first. A SourceError passes.
    """
    try:
        return parse(*arguments)
    except SourceError:
        raise
    except RecordError as error:
        damage = error
    except SgrlError as error:
        damage = RecordError(place, str(error))
    except Exception as error:
        damage = RecordError(place, f"cannot be read: {type(error).__name__}: {error}")
    (on_damage or raised)(damage)
    return None


def identity(value, name: str) -> str:
    """The text of an id, which is a whole number or a string. Raises GraphError for anything else."""
    if isinstance(value, str):
        return value
    if type(value) is int or isinstance(value, float) and value.is_integer():  # tables turn whole numbers into floats
        return str(int(value))
    raise GraphError(f"{name} must be a whole number or a string, found {shown(value)}")


def below(folder: Path, name, key: str) -> Path:
    """The path of a file that an annotation names, which is below `folder`; links that are there may lead anywhere.

    Raises GraphError for what is no relative path or climbs out of the folder. key: of the annotation, for messages.
    """
    if not isinstance(name, str) or not name:
        raise GraphError(f"{key} must be a path below {folder}, found {shown(name)}")
    check_path(name)
    plain = name.replace("\\", "/")  # by text: an object of pathlib costs as much as the rest of a record
    if plain[0] == "/" or (plain[1:2] == ":" and plain[0].isalpha()) or (".." in plain and ".." in plain.split("/")):
        raise GraphError(f"{key} {shown(name)} points outside {folder}; expected a path below it")
    return folder / name


def check_path(name: str) -> None:
    """Raises GraphError for a path that no file can have."""
    if len(name) > 4 * _LONGEST_NAME:
        raise GraphError(f"a path of {len(name):,} characters, {shown(name)}")
    if "\0" in name or not (name.isascii() or _encodes(name, os.fsencode)):
        raise GraphError(f"no file can be called {shown(name)}")


def class_list(names: Iterable) -> tuple[str, ...]:
    """Of the names that records use, those that can be a class: text, with a letter or digit, and no other spelling of
    one before. Where a data set has no list of its own, one strange record must not spoil all."""
    first: dict[str, str] = {}
    for name in names:
        if isinstance(name, str) and len(name) <= _LONGEST_LABEL and (name.isascii() or _encodes(name)):
            text = canonical(name)
            if text != UNNAMED or name == UNNAMED:
                first.setdefault(text, name)
    return tuple(first.values())


def shown(value, length: int = 60) -> str:
    """A value of an annotation for a message: its repr as far as it fits, and quick, however large or deep it is."""
    try:
        return printable(_REPR.repr(value), length)
    except Exception as error:  # a number of 5,000 digits has no text
        return f"a {type(value).__name__} ({type(error).__name__})"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 200
_REPR.maxlevel = 4


def _encodes(text: str, encode: Callable[[str], bytes] = str.encode) -> bool:
    try:
        encode(text)
    except UnicodeEncodeError:
        return False
    return True


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
