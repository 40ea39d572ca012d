"""Files of rows in whatever format: JSON lines, JSON, CSV, Parquet, or a folder with a JSON file for each image."""

from __future__ import annotations

import csv
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from rewards.evaluation.columns import COLUMNS
from sgrl.errors import SgrlError
from sgrl.extras import require
from sgrl.files import natural

FILES = ("predictions.jsonl", "predictions.parquet")
"""What the folder of a run holds."""
NOT_ROWS = ("run.json", "metrics.json", "usage.json", "config.json")
"""Files of JSON beside predictions, which are none."""
LOOKED_AT = 100
"""So many rows say which columns there are."""
LARGEST_CELL = 50_000_000
_ONE = frozenset(COLUMNS["prediction"])
"""A JSON object with one of these keys is a row, not rows by image."""
_ROWS = ("predictions", "results", "rows", "data")


class Damage(ValueError):
    """A row that cannot be read."""


Row = tuple[Any, str, dict[str, Any] | Damage]
"""Where a row is, what to call it, and what it holds."""


class Records(Protocol):
    """The rows of a file.

    path: of the file, or folder. columns: of its first rows.
    """

    path: Path
    columns: list[str]

    def select(self, columns: Collection[str]) -> None:
        """From now on only these columns are needed."""

    def rows(self) -> Iterator[Row]: ...

    def get(self, place: Any) -> dict[str, Any]:
        """One row again."""

    def close(self) -> None: ...


def open_records(path: str | Path) -> Records:
    """The rows of a file or folder.

    Raises:
        SgrlError: there is none, or it cannot be read as a whole.
    """
    path = Path(path)
    if path.is_dir():
        inside = next((path / name for name in FILES if (path / name).is_file()), None)
        return Folder(path) if inside is None else open_records(inside)
    if not path.is_file():
        raise SgrlError(f"{path} does not exist; expected a file of predictions, or the folder of a run")
    kind = _KINDS.get(path.suffix.lower(), Lines)
    return kind(path)


class _Some(ABC):
    """What the kinds of files share."""

    def __init__(self, path: Path):
        self.path = path
        self.columns: list[str] = []
        for _, _, row in itertools.islice(self.rows(), LOOKED_AT):
            if isinstance(row, dict):
                self.columns += [name for name in row if name not in self.columns]

    @abstractmethod
    def rows(self) -> Iterator[Row]: ...

    @abstractmethod
    def get(self, place: Any) -> dict[str, Any]: ...

    def select(self, columns: Collection[str]) -> None:
        return

    def close(self) -> None:
        return


class Lines(_Some):
    """JSON lines, which are read again where they stand: memory is what the places need."""

    _file = None
    _held: tuple[int, dict[str, Any]] | None = None

    def rows(self) -> Iterator[Row]:
        place = 0
        with open(self.path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                start, place = place, place + len(line)
                if not line.strip():
                    continue
                try:
                    yield start, f"line {number}", _object(json.loads(line))
                except (ValueError, RecursionError) as error:
                    cut = "" if line.endswith(b"\n") else ", which ends in the middle"
                    yield start, f"line {number}{cut}", Damage(str(error)[:80])

    def get(self, place: int) -> dict[str, Any]:
        if self._held is None or self._held[0] != place:  # a reference and its prediction are asked for in turn
            if self._file is None:
                self._file = open(self.path, "rb")
            self._file.seek(place)
            self._held = place, json.loads(self._file.readline())
        return self._held[1]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _Loaded(_Some):
    """Rows that are held in memory."""

    def __init__(self, path: Path):
        self._rows = self._load(path)
        super().__init__(path)

    @abstractmethod
    def _load(self, path: Path) -> list[tuple[str, dict[str, Any] | Damage]]: ...

    def rows(self) -> Iterator[Row]:
        for number, (called, row) in enumerate(self._rows):
            yield number, called, row

    def get(self, place: int) -> dict[str, Any]:
        row = self._rows[place][1]
        assert isinstance(row, dict)  # nobody asks for a damaged one again
        return row


class Json(_Loaded):
    """One JSON value: a list of rows, a row by image, or an object with one of them; or JSON lines by another name."""

    def __new__(cls, path: Path) -> Any:
        with open(path, "rb") as file:
            first, second = file.readline().strip(), file.readline().strip()
        lines = second.startswith(b"{") and first.startswith(b"{") and first.endswith(b"}")
        return Lines(path) if lines else super().__new__(cls)

    def _load(self, path: Path) -> list[tuple[str, dict[str, Any] | Damage]]:
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise SgrlError(f"{path} is no JSON: {str(error)[:80]}; write it again, or as JSON lines") from None
        if isinstance(found, dict):
            found = next((found[name] for name in _ROWS if isinstance(found.get(name), dict | list)), found)
        if isinstance(found, dict):
            by_image = all(isinstance(value, dict | str) for value in found.values()) and not _ONE.intersection(found)
            found = [_named(*item) for item in found.items()] if by_image else [found]
        if not isinstance(found, list):
            raise SgrlError(f"{path} holds a {type(found).__name__}, expected a list of rows")
        return [(f"row {number}", _or_damage(row)) for number, row in enumerate(found)]


class Csv(_Loaded):
    """Comma separated values with a line of names; an empty cell is nothing."""

    def _load(self, path: Path) -> list[tuple[str, dict[str, Any] | Damage]]:
        csv.field_size_limit(LARGEST_CELL)
        found: list[tuple[str, dict[str, Any] | Damage]] = []
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as lines:
            cells = csv.reader(lines)
            names = next(cells, [])
            while True:
                try:
                    row = next(cells, None)
                except csv.Error as error:
                    found.append((f"line {cells.line_num}", Damage(str(error))))
                    continue
                if row is None:
                    return found
                if row:
                    found.append((f"line {cells.line_num}", self._row(names, row)))

    def _row(self, names: Sequence[str], row: Sequence[str]) -> dict[str, Any] | Damage:
        if len(row) != len(names):
            return Damage(f"{len(row)} cells, expected {len(names)}")
        return {name: cell or None for name, cell in zip(names, row, strict=True)}


class Parquet(_Some):
    """A table; memory is that of the file."""

    def __init__(self, path: Path):
        self._table = read_parquet(path, require("pyarrow.parquet", "data", "reading Parquet").read_table)
        self.path, self.columns = path, self._table.column_names

    def select(self, columns: Collection[str]) -> None:
        self._table = self._table.select([name for name in self.columns if name in columns])

    def rows(self) -> Iterator[Row]:
        number = 0
        for batch in self._table.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                yield number, f"row {number}", row
                number += 1

    def get(self, place: int) -> dict[str, Any]:
        return {
            name: column[place].as_py()
            for name, column in zip(self._table.column_names, self._table.columns, strict=True)
        }


class Folder(_Some):
    """A file of JSON for each image, in the order of the numbers in their names."""

    def __init__(self, path: Path):
        self._files = sorted((file for file in path.glob("*.json") if file.name not in NOT_ROWS), key=natural)
        if not self._files:
            names = " nor ".join(FILES)
            raise SgrlError(
                f"{path} holds neither {names}, nor a file of JSON for each image; expected a file of predictions, or "
                "the folder of a run"
            )
        super().__init__(path)

    def rows(self) -> Iterator[Row]:
        for file in self._files:
            try:
                yield file, file.name, self.get(file)
            except (ValueError, RecursionError, OSError) as error:
                yield file, file.name, Damage(str(error)[:80])

    def get(self, place: Path) -> dict[str, Any]:
        return {"image_id": place.stem, **_object(json.loads(place.read_bytes()))}


_KINDS: dict[str, Callable[[Path], Records]] = {".json": Json, ".csv": Csv, ".parquet": Parquet}


def read_parquet(file: Path, read: Callable[..., Any], **options: Any) -> Any:
    """What pyarrow's `read` makes of a file. Raises SgrlError where it is none."""
    import pyarrow

    try:
        return read(file, **options)
    except (pyarrow.ArrowException, OSError) as error:
        raise SgrlError(f"{file} is not a readable Parquet file: {error}; convert or copy it again") from None


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, expected an object")
    return row


def _or_damage(row: Any) -> dict[str, Any] | Damage:
    try:
        return _object(row)
    except ValueError as error:
        return Damage(str(error))


def _named(image_id: str, row: dict[str, Any] | str) -> dict[str, Any]:
    return {"image_id": image_id, **(row if isinstance(row, dict) else {"prediction": row})}
