"""The files that `rewards score` is given: which kind each is, opened once also where one holds both sides."""

from __future__ import annotations

import argparse
from pathlib import Path

from rewards.evaluation.beside import FileReferences, Frames
from rewards.evaluation.columns import COLUMNS, Columns, size_of
from rewards.evaluation.files import AnyReferences, Predictions, References
from rewards.evaluation.records import FILES, Records, open_records
from rewards.evaluation.scored import ScoredPredictions, ScoredReferences
from sgrl import data
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.extras import require
from sgrl.scores import holds_scores
from sgrl.vocabulary import VOCABULARIES, get_vocabulary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "predictions",
        help="file with image_id and prediction (.jsonl, .json, .csv, .parquet), folder of a run, or one of scores",
    )
    add(
        "--reference",
        metavar="DATASET",
        help="folder or file of Parquet with image_id and solution, a file of rows with a reference, or a folder of "
        "scores (default: the references that stand in PREDICTIONS)",
    )
    add(
        "--map",
        action="append",
        default=[],
        metavar="COLUMN=WHAT",
        help=f"what a column of a file holds, once for each: {', '.join(COLUMNS)}",
    )
    add("--size", metavar="WxH", help="frame of the references' boxes, where the rows of a file do not say it")
    add("--images", type=Path, metavar="DIR", help="images by id, whose sizes are those frames")
    add("--vocabulary", choices=VOCABULARIES, help="the labels, where a file does not say them, for mean recall")
    add("--split", default="test", help="default: %(default)s")
    add("--limit", type=int, metavar="N", help="the first N images only")
    add("--against", metavar="PREDICTIONS", help="strict, --metrics: paired differences to other predictions")


class Sources:
    """What the options of `add_arguments` name.

    Attributes:
        references: of whatever kind. lines: what was taken for what, for those who read along.

    Raises:
        SgrlError: a file that is missing or no such file, or an option that does not fit.
    """

    def __init__(self, options: argparse.Namespace):
        if options.limit is not None and options.limit < 1:
            raise UsageError(f"--limit is {options.limit}, expected at least 1")
        self._options = options
        self._records: dict[str, Records] = {}
        self.lines: list[str] = []
        self._check_map()
        self.references = self._find()

    def read(self, path: str) -> Predictions | ScoredPredictions:
        """Predictions of either kind."""
        if holds_scores(path):
            return ScoredPredictions(path, self.references)
        records = self._opened(path)
        columns = self._columns(records)
        own = self.references.own(records)
        if line := columns.line(references=own):
            self.lines.append(line)
        return Predictions(records, self.references, columns)

    def _find(self) -> AnyReferences:
        options, path = self._options, self._options.reference
        if path is None and holds_scores(options.predictions):
            raise SgrlError(f"{options.predictions} holds scores and no references; give --reference")
        if path is not None and holds_scores(path):
            return ScoredReferences(path, options.limit)
        if path is not None and _is_data_set(Path(path)):
            return References(path, options.split, options.limit)
        records = self._opened(path or options.predictions)
        return FileReferences(
            records,
            self._columns(records),
            limit=options.limit,
            beside=path is None,
            vocabulary=get_vocabulary(options.vocabulary) if options.vocabulary else None,
            frames=Frames(_size(options.size), options.images),
        )

    def _check_map(self) -> None:
        options = self._options
        texts = [path for path in (options.predictions, options.against) if path and not holds_scores(path)]
        if options.reference and not _is_data_set(Path(options.reference)) and not holds_scores(options.reference):
            texts.append(options.reference)
        present = [name for path in texts for name in self._opened(path).columns] if options.map else []
        for words in options.map:
            column, _, what = words.rpartition("=")
            if column not in present:
                hint = f"; say --map {what}={column}" if what in present else suggest(column, present[:20])
                raise UsageError(f"--map {words}: there is no column {column!r}{hint}")

    def _opened(self, path: str) -> Records:
        if path not in self._records:
            self._records[path] = open_records(path)
        return self._records[path]

    def _columns(self, records: Records) -> Columns:
        """With what --map says of columns that are there."""
        given = [words for words in self._options.map if words.rpartition("=")[0] in records.columns]
        columns = Columns.of(records.columns, given)
        records.select(columns.found.values())
        return columns


def _is_data_set(path: Path) -> bool:
    """Whether references are in the layout of sgrl.data, not in a file of rows."""
    if path.is_dir():
        rows = any((path / name).is_file() for name in FILES) or any(path.glob("*.json"))
        return bool(data.splits(path)) or not rows
    if path.suffix == ".parquet" and path.is_file():
        parquet = require("pyarrow.parquet", "data", "reading Parquet")
        try:
            return {"image_id", "solution"} <= {*parquet.read_schema(path).names}
        except (parquet.pa.ArrowException, OSError):
            return True  # which then says what is wrong with it
    return not path.exists()


def _size(words: str | None) -> tuple[float, float] | None:
    if words is None:
        return None
    width, _, height = words.lower().partition("x")
    if (found := size_of(width, height)) is None:
        raise UsageError(f"--size is {words!r}, expected WIDTHxHEIGHT in pixels, such as 640x480")
    return found
