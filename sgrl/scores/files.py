"""Folders of scored predictions: Parquet that is written as a stream, in whole files or not at all, and read so."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

from sgrl.errors import SgrlError
from sgrl.files import atomic_path, folder_lock, natural
from sgrl.scores.columns import VocabularyCheck
from sgrl.scores.graph import ScoredGraph, ScoreError
from sgrl.scores.parquet import NUMBERS, maker, read_group, row_of, schema
from sgrl.terminal import printable
from sgrl.vocabulary import Vocabulary

Place = tuple[int, int, int]
"""Of a row: file, row group, row."""

FORMAT = 1
KEY = b"sgrl_scores"
"""The entry in the file's metadata: JSON with format, vocabulary, dataset, fingerprint, about, versions."""

_GROUP_ROWS, _GROUP_CELLS = 1000, 1 << 19  # what is held in memory: at most so many rows, or numbers and characters
_PART_ROWS = 100  # what a killed process has to do again
_NEEDED = ("width", "height", "labels", "pairs")


class ScoreWriter:
    """Writes a folder of scored predictions.

    A context manager. The file grows beside its place and moves there at the end of the block; if the block raises, or
    the process dies, the folder is as it was. Memory holds one row group. With `resume` row groups are kept beside it
    as they are done, and the next writer of the same goes on behind them: `done` has what need not come again.

    Args:
        folder: made if needed.
        vocabulary: names the columns of scores, and the labels.
        dataset: what was predicted, its path or name. fingerprint: of its files (`sgrl.files.fingerprint`).
        about: what else is to be kept, such as model and command; must be JSON.
        job: (index, number of jobs) of processes that share the work, each of which writes a file of its own.
        resume: keep and reuse what was written, at most 100 rows together.

    Attributes:
        rows: how many were written. done: with `resume`, the `key` of each that an earlier process wrote.

    Raises:
        SgrlError: another process writes this file; with `resume`, what is left there is of another run.
    """

    def __init__(
        self,
        folder: str | Path,
        vocabulary: Vocabulary,
        *,
        dataset: str,
        fingerprint: str | None = None,
        about: Mapping | None = None,
        job: tuple[int, int] = (0, 1),
        resume: bool = False,
    ):
        index, jobs = job
        self.folder, self.vocabulary = Path(folder), vocabulary
        self.path = self.folder / ("scores.parquet" if jobs == 1 else f"scores-{index:05d}-of-{jobs:05d}.parquet")
        self.rows, self.resume, self.done = 0, resume, set[tuple[str, str]]()
        self._parts = self.path.with_name(f".{self.path.name}.parts")
        self._about = {
            **{"format": FORMAT, "vocabulary": vocabulary.to_json(), "dataset": str(dataset)},
            **{"fingerprint": fingerprint, "about": dict(about or {}), "versions": _versions()},
        }
        self._check = VocabularyCheck(vocabulary)
        self._pending: list[dict] = []
        self._numbers = 0
        self._open = ExitStack()

    def __enter__(self) -> ScoreWriter:
        with self._open as opened:
            opened.enter_context(folder_lock(self.path, beside=True))
            for rest in self.folder.glob(f".{self.path.name}.*.part"):  # of a process that was killed
                rest.unlink()
            if self.resume:
                self._look_at_parts()
            else:
                shutil.rmtree(self._parts, ignore_errors=True)
            path = opened.enter_context(atomic_path(self.path))
            self._schema = schema({KEY: json.dumps(self._about, ensure_ascii=False).encode()})
            self._file = opened.enter_context(_parquet(path, self._schema))
            self._open = opened.pop_all()
        return self

    def _look_at_parts(self) -> None:
        """What an earlier process wrote."""
        for part in _sorted_parts(self._parts):
            found = _metadata(part)
            for name in ("vocabulary", "dataset", "fingerprint", "about"):
                if found.get(name) != self._about[name]:
                    raise SgrlError(
                        f"{self._parts} holds parts of another run, whose {name} is {_short(found.get(name))}; remove "
                        "that folder if they are not needed any more"
                    )
            self.done |= {graph.key for graph in read_scores(part)}
        self.rows = len(self.done)

    def add(self, graph: ScoredGraph) -> None:
        """Append what is predicted of one image, frame or video.

        Raises:
            ScoreError: labels or columns of another vocabulary; nothing is written.
            TypeError: not a ScoredGraph.
        """
        if not isinstance(graph, ScoredGraph):
            found = type(graph).__name__
            raise TypeError(f"a writer takes ScoredGraph, found {found}; from_text and from_graph make one")
        self._check(graph)
        row = row_of(graph)
        self._pending.append(row)
        self.rows += 1
        self._numbers += sum(len(row[name]) for name in NUMBERS if row[name] is not None)
        self._numbers += sum(len(mask or "") for tube in row["masks"] or () for mask in tube)
        most = _PART_ROWS if self.resume else _GROUP_ROWS
        if len(self._pending) >= most or self._numbers >= _GROUP_CELLS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = [pa.array([row[field.name] for row in self._pending], field.type) for field in self._schema]
        table = pa.Table.from_arrays(columns, schema=self._schema)
        if self.resume:
            number = len(_sorted_parts(self._parts))
            with atomic_path(self._parts / f"{number:06d}.parquet") as path, _parquet(path, self._schema) as file:
                file.write_table(table)
        else:
            self._file.write_table(table)
        self._pending, self._numbers = [], 0

    def __exit__(self, kind, error, trace) -> bool | None:
        with self._open:  # its own exits see the error of a last row group, too
            if kind is not None:
                return self._open.__exit__(kind, error, trace)
            if self._pending:
                self._flush()
            for part in _sorted_parts(self._parts):
                self._file.write_table(read_group(_opened(part), 0).cast(self._schema))
        shutil.rmtree(self._parts, ignore_errors=True)
        return None


class ScoreFolder:
    """A folder of scored predictions, read as a stream.

    Args:
        folder: written by ScoreWriter, or one of its files.

    Attributes:
        vocabulary, dataset, fingerprint, about, versions: what the files say of themselves.

    Raises:
        SgrlError: no such files, or files that are damaged, incomplete, or of different data sets or vocabularies.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.files = _files(self.folder)
        found = [_metadata(file) for file in self.files]
        for file, other in zip(self.files, found, strict=True):
            for name in ("vocabulary", "dataset", "fingerprint"):
                if other.get(name) != found[0].get(name):
                    what = f"{name} {_short(found[0].get(name))} and {_short(other.get(name))}"
                    raise SgrlError(
                        f"{self.folder} mixes scores of {what} ({self.files[0].name}, {file.name}); keep those of one "
                        "run in a folder"
                    )
        self.dataset, self.fingerprint = found[0].get("dataset"), found[0].get("fingerprint")
        self.about, self.versions = found[0].get("about") or {}, found[0].get("versions") or {}
        try:
            self.vocabulary = Vocabulary.from_json(found[0]["vocabulary"])
        except (KeyError, TypeError, SgrlError) as error:
            raise SgrlError(f"{self.files[0]}: its vocabulary cannot be read ({printable(error, 100)})") from None
        self._check = VocabularyCheck(self.vocabulary)
        self._held: tuple[tuple, Callable] | None = None

    def __iter__(self) -> Iterator[ScoredGraph]:
        """Raises SgrlError at the first row that cannot be used, naming it and the field."""
        return (graph for _, graph in self.places())

    def places(
        self, damaged: Callable[[str], None] | None = None
    ) -> Iterator[tuple[tuple[int, int, int], ScoredGraph]]:
        """Each graph and where it is, for `get`.

        damaged: told of each row or row group that cannot be used, which is left out; without it such a one raises.
        """
        for number, file in enumerate(self.files):
            start = 0
            opened = _opened(file)
            for group in range(opened.num_row_groups):
                rows = opened.metadata.row_group(group).num_rows
                try:
                    make = maker(read_group(opened, group))
                except (OSError, ValueError) as error:  # pyarrow's errors are of both kinds
                    _tell(damaged, f"{file.name}, rows {start} to {start + rows - 1}: {printable(error, 150)}")
                    start += rows
                    continue
                for row in range(rows):
                    try:
                        graph = make(row)
                        self._check(graph)
                    except (SgrlError, TypeError, ValueError) as error:
                        _tell(damaged, f"{file.name}, row {start + row}: {error}")
                        continue
                    yield (number, group, row), graph
                start += rows

    def get(self, place: Place) -> ScoredGraph:
        """The graph at a place that `places` gave. Those of one row group are had fast one after the other."""
        number, group, row = place
        if self._held is None or self._held[0] != (number, group):
            self._held = (number, group), maker(read_group(_opened(self.files[number]), group))
        return self._held[1](row)


def read_scores(folder: str | Path, damaged: Callable[[str], None] | None = None) -> Iterator[ScoredGraph]:
    """The scored predictions of a folder one by one; one row group is in memory at a time.

    Args:
        folder: written by ScoreWriter, or one of its files.
        damaged: told of each row or row group that cannot be used, which is left out; without it such a one raises.

    Raises:
        SgrlError: as ScoreFolder, and for what cannot be used.
    """
    for _, graph in ScoreFolder(folder).places(damaged):
        yield graph


def holds_scores(path: str | Path) -> bool:
    """Whether a path is a folder of scored predictions or one of its files."""
    path = Path(path)
    if path.is_dir():
        return any(path.glob("scores*.parquet"))
    return bool(re.fullmatch(r"scores(-\d+-of-\d+)?\.parquet", path.name)) and path.is_file()


def _sorted_parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.parquet"))


def _parquet(path: Path, columns):
    """A file that is open for row groups."""
    import pyarrow.parquet as parquet

    split = [f"{name}.list.element" for name in ("label_scores", "predicate_scores")]
    return parquet.ParquetWriter(
        path,
        columns,
        compression="zstd",
        use_dictionary=["dataset", "video_id", "labels.list.element", "predicates.list.element"],
        use_byte_stream_split=split,
        write_statistics=False,
        write_page_checksum=True,
    )


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise SgrlError(f"{folder} does not exist; expected a folder of scored predictions")
    found = sorted((path for path in folder.glob("scores*.parquet") if holds_scores(path)), key=natural)
    if not found:
        raise SgrlError(f"{folder} holds no scores.parquet; write it with sgrl.scores.ScoreWriter")
    jobs = {path.stem.rpartition("-of-")[2] for path in found}
    if len(jobs) > 1:
        raise SgrlError(
            f"{folder} holds files of different runs, {found[0].name} and {found[-1].name}; keep one run's"
        )
    if "-of-" in found[0].stem and len(found) != int(jobs.pop()):
        raise SgrlError(
            f"{folder} holds {len(found)} files, but their names say {found[0].stem.rpartition('-')[2]}: a job has "
            "not ended, or a copy was interrupted"
        )
    return found


def _opened(file: Path):
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError) as error:
        reason = printable(str(error).splitlines()[0], 150)
        raise SgrlError(f"{file} is not a readable Parquet file: {reason}; write or copy it again") from None


def _metadata(file: Path) -> dict:
    opened = _opened(file)
    found = (opened.schema_arrow.metadata or {}).get(KEY)
    if found is None:
        raise SgrlError(f"{file} says nothing of its vocabulary; write it with sgrl.scores.ScoreWriter")
    try:
        about = dict(json.loads(found))
    except (ValueError, TypeError):
        about = {}
    if about.get("format") != FORMAT:
        raise SgrlError(f"{file} has format {about.get('format')!r}, this program reads {FORMAT}; update one of them")
    missing = [name for name in _NEEDED if name not in opened.schema_arrow.names]
    if missing:
        raise SgrlError(f"{file} has no column {', '.join(missing)}; write it with sgrl.scores.ScoreWriter")
    return about


def _tell(damaged: Callable[[str], None] | None, place: str) -> None:
    if damaged is None:
        raise ScoreError(place)
    damaged(place)


def _short(value) -> str:
    return printable(repr(value.get("name", value) if isinstance(value, dict) else value), 80)


def _versions() -> dict[str, str]:
    found = {}
    for name in ("sgrl", "pyarrow", "numpy", "torch", "transformers"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
