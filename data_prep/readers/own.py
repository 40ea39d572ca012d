"""A reader of one's own, which `--layout package.module:function` names, held to what the converter relies on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_prep.readers.record import OnDamage, Reader, Record, RecordError, SourceError
from sgrl import dotted
from sgrl.errors import SettingError, SgrlError
from sgrl.vocabulary import Vocabulary

OPTION = "--layout"
_NEEDED: dict[str, Any] = {"name": str, "vocabulary": Vocabulary, "source": Path, "records": Callable}
_DEFAULTS = {"default_size": (640, 480), "codec": "toon"}


class OwnReader:
    """A `data_prep.readers.record.Reader` of which only name, vocabulary, source and records must be there.

    By default images are scaled to 640 x 480, the layout is toon, and there are no notes and no known totals.

    Args:
        path: the dotted path of the function that made it, for messages.
        reader: what the function returned.

    Raises:
        SettingError: a part is missing or of another type. Later: whatever the reader raises, but damage of a record.
    """

    def __init__(self, path: str, reader: Reader):
        self._path, self._reader = path, reader
        for name, kind in _NEEDED.items():
            found = getattr(reader, name, None)
            if not isinstance(found, kind):
                what = f"is {found!r}" if hasattr(reader, name) else "is missing"
                raise self._error(
                    f"returned a {type(reader).__name__} whose {name} {what}; expected a {kind.__name__}"
                )
        if not reader.source.exists():
            raise self._error(f"its source {reader.source} does not exist; expected the annotation file")
        self.name, self.vocabulary, self.source = reader.name, reader.vocabulary, reader.source
        self.default_size, self.codec = (getattr(reader, name, default) for name, default in _DEFAULTS.items())

    def __getattr__(self, name: str):
        return getattr(self._reader, name)

    def __setattr__(self, name: str, value) -> None:
        """What the converter asks for, `wanted`, goes to the reader itself."""
        if name == "wanted":
            setattr(self._reader, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def notes(self) -> Counter[str]:
        """As of a Reader."""
        notes: Any = getattr(self._reader, "notes", Counter())
        return notes

    def totals(self) -> dict[str, tuple[int, int]]:
        """As of a Reader."""
        if not hasattr(self._reader, "totals"):
            return {}
        with dotted.named(self._path, OPTION):
            return self._reader.totals()

    def records(self, on_damage: OnDamage | None = None) -> Iterator[Record]:
        """As of a Reader."""
        with dotted.named(self._path, OPTION):
            try:
                for record in self._reader.records(on_damage):
                    if not isinstance(record, Record):
                        kind = type(record).__name__
                        raise self._error(f"gave a {kind} as a record; expected data_prep.readers.record.Record")
                    yield record
            except (RecordError, SourceError, SettingError):
                raise
            except SgrlError as error:
                raise self._error(
                    f"{error}; data_prep.readers.record.attempt makes it damage of one record"
                ) from error

    def _error(self, reason: str) -> SettingError:
        return SettingError(OPTION, f"{self._path!r}: {reason}")
