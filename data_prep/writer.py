"""Stream rows into sharded Parquet files that appear only when all of them are complete."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from sgrl import data
from sgrl.errors import SgrlError
from sgrl.files import LOCK, atomic_path, folder_lock
from sgrl.process import system_number
from sgrl.terminal import printable

# What is held in memory, and what a reader has to load to reach one row.
_GROUP_ROWS = 1000
_GROUP_BYTES = 8 << 20  # of images

DAMAGED = "damaged.txt"
"""The file of a data set that names the damaged records; a data set without any has none."""


@dataclass(frozen=True)
class Layout:
    """How rows are divided into files and jobs.

    Attributes:
        shard_size: rows per file.
        job: (index, number of jobs).
        resume: keep and reuse finished shards.
        video: rows have VIDEO_COLUMNS.
        images: rows have `images`, a list, in the place of `image`.
    """

    shard_size: int = 20000
    job: tuple[int, int] = (0, 1)
    resume: bool = False
    video: bool = False
    images: bool = False


class DatasetWriter:
    """Writes OUTPUT/SPLIT-00000-of-00002.parquet and so on.

    A context manager. Shards grow in OUTPUT/.partial and move into place at the end of the block, replacing what stood
    there. If the block raises, OUTPUT is as it was. Several jobs can share the work and write to one OUTPUT: the last
    one to end moves the shards of all.

    With `Layout.resume`, shards that were finished stay in .partial when the block raises or the process dies, and the
    next writer with the same metadata goes on behind them: `states` has what was said about each split's last one.

    Args:
        output: the folder, made if needed.
        metadata: for `sgrl.data.schema`.
        layout: how rows are divided.
        compose: turns the summaries of all jobs, in order, into small text files (name -> content) of the data set.
    """

    def __init__(
        self,
        output: str | Path,
        metadata: Mapping,
        layout: Layout = Layout(),
        compose: Callable[[list[dict]], dict[str, str]] | None = None,
    ):
        self.output = Path(output)
        self.schema = data.schema(metadata, layout.video, layout.images)
        self.layout = layout
        self.partial = self.output / ".partial"
        self.folder = self.partial / _job_name(*layout.job)
        self.jobs = layout.job[1]
        self.compose = compose
        self.states: dict[str, dict] = {}
        self.summary: dict = {}  # of this job, for `compose`; set it before the block ends
        self.done = False  # nothing to add: an earlier process did this job
        self.published = False  # whether OUTPUT has the data set: this was the last job
        self._about = {**metadata, "command": None, "jobs": self.jobs}
        self._open: dict[str, _Shard] = {}
        self._states: dict[str, Callable[[], dict]] = {}
        self._finished: dict[str, int] = {}  # shards per split
        self._locks = ExitStack()  # of this job's part; who calls locks OUTPUT

    def __enter__(self) -> DatasetWriter:
        self._locks.enter_context(folder_lock(self.folder, beside=True))
        try:
            finish(self.output)
            self._begin()
        except BaseException:
            self._locks.close()
            raise
        return self

    def _begin(self) -> None:
        self._prepare()
        self.folder.mkdir(parents=True, exist_ok=True)
        for rest in self.folder.glob("*.part"):
            rest.unlink()
        with suppress(FileNotFoundError):
            self.summary = json.loads((self.folder / "done.json").read_text())["summary"]
            self.done = True
        for split in data.SPLITS:
            while (self.folder / _shard_name(split, self._finished.get(split, 0))).exists():
                number = self._finished.get(split, 0)
                self.states[split] = json.loads((self.folder / f"{split}-{number:05d}.json").read_text())
                self._finished[split] = number + 1

    def _prepare(self) -> None:
        """Remove what an earlier process left, unless it was at the same work."""
        about = self.partial / "conversion.json"
        wanted = json.loads(json.dumps(self._about))
        found = None
        with suppress(OSError, ValueError):
            found = json.loads(about.read_text())
        if self.layout.resume and found == wanted:
            return
        if found is not None and self.jobs > 1:
            raise SgrlError(
                f"{self.partial} holds parts of another conversion ({found['jobs']} jobs); remove that folder if it "
                "is not needed any more"
            )
        if self.jobs == 1:
            for rest in self.partial.iterdir():
                if rest.is_dir():
                    shutil.rmtree(rest)
                elif rest.suffix != LOCK:
                    rest.unlink()
        with atomic_path(about) as temporary:
            temporary.write_text(json.dumps(wanted))

    def add(self, split: str, row: Mapping, state: Callable[[], dict] = dict) -> None:
        """Append one row (the columns of `sgrl.data.COLUMNS`; image as {"bytes": ..., "path": ...}).

        state: asked for when a shard is complete; what `states` says after an interruption. Must be JSON.
        """
        self._states[split] = state
        try:
            shard = self._open.get(split)
            if shard is None:
                number = self._finished.get(split, 0)
                path = self.folder / (_shard_name(split, number) + ".part")
                shard = self._open[split] = _Shard(path, self.schema)
            shard.add(row)
            if shard.rows == self.layout.shard_size:
                self._close(split)
        except OSError as error:
            raise self._failed(error) from error

    def _close(self, split: str) -> None:
        shard = self._open[split]
        shard.close()
        number = self._finished.get(split, 0)
        with atomic_path(self.folder / f"{split}-{number:05d}.json") as temporary:
            temporary.write_text(json.dumps(self._states[split]()))
        os.replace(shard.path, self.folder / _shard_name(split, number))  # only now it counts as finished
        self._finished[split] = number + 1
        del self._open[split]

    def _failed(self, error: OSError) -> SgrlError:
        kept = "; what is finished is kept, and the same command goes on from there" if self._keeps() else ""
        number = system_number(error)
        reason = os.strerror(number) if number else error
        return SgrlError(f"{self.folder} cannot be written: {reason}{kept}")

    def _keeps(self) -> bool:
        return self.layout.resume and any(self._finished.values())

    def finished_rows(self) -> int:
        """Rows of finished shards that an interruption leaves in place."""
        return self.layout.shard_size * sum(self._finished.values()) if self.layout.resume else 0

    def __exit__(self, kind, error, trace) -> None:
        complete = False
        try:
            if kind is None:
                try:
                    for split in list(self._open):
                        self._close(split)
                    done = {"summary": self.summary, "shards": self._finished}
                    with atomic_path(self.folder / "done.json") as temporary:
                        temporary.write_text(json.dumps(done))
                    complete = True
                    self.published = self._publish()
                except OSError as failure:
                    raise self._failed(failure) from failure
        finally:
            if not complete:
                self._discard()
            self._locks.close()

    def _publish(self) -> bool:
        """Move the shards of all jobs into place if all are done; False if some are not."""
        folders = [self.partial / _job_name(i, self.jobs) for i in range(self.jobs)]
        try:
            done = [json.loads((folder / "done.json").read_text()) for folder in folders]
        except FileNotFoundError:
            return False
        plan = []
        for split in data.SPLITS:
            paths = [
                f"{folder.name}/{_shard_name(split, number)}"
                for folder, found in zip(folders, done, strict=True)
                for number in range(found["shards"].get(split, 0))
            ]
            plan += [(path, f"{split}-{i:05d}-of-{len(paths):05d}.parquet") for i, path in enumerate(paths)]
        texts = self.compose([found["summary"] for found in done]) if self.compose else {}
        for name, text in texts.items():
            (self.partial / name).write_text(text, encoding="utf-8", errors="backslashreplace")
            plan.append((name, name))
        with atomic_path(self.partial / "plan.json") as temporary:
            temporary.write_text(json.dumps(plan))
        finish(self.output)
        return True

    def _discard(self) -> None:
        for shard in self._open.values():
            with suppress(Exception):  # the disk may be full; the file goes anyway
                shard.close(flush=False)
            shard.path.unlink(missing_ok=True)
        if self._keeps():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        own = f".{self.folder.name}{LOCK}"
        if not any(path.is_dir() or (path.suffix == LOCK and path.name != own) for path in self.partial.glob("*")):
            shutil.rmtree(self.partial, ignore_errors=True)


def finish(output: Path) -> None:
    """Move a complete data set into place: all of it or, after an interruption, the rest. Else do nothing.

    Two processes may do so at once.
    """
    partial = output / ".partial"
    try:
        plan = json.loads((partial / "plan.json").read_text())
    except OSError:
        return
    names = {name for _, name in plan}
    for old in (*output.glob("*.parquet"), output / DAMAGED):
        if old.name not in names:
            old.unlink(missing_ok=True)
    for path, name in plan:
        with suppress(FileNotFoundError):  # moved already
            os.replace(partial / path, output / name)
    shutil.rmtree(partial, ignore_errors=True)


def unfinished(output: Path) -> bool:
    """Whether there are finished shards that wait for the rest."""
    return any(output.glob(".partial/*/*.parquet"))


def _job_name(index: int, jobs: int) -> str:
    return f"job-{index:05d}-of-{jobs:05d}"


def _shard_name(split: str, number: int) -> str:
    return f"{split}-{number:05d}.parquet"


class _Shard:
    def __init__(self, path: Path, schema):
        import pyarrow.parquet as parquet

        # Prompts repeat: a dictionary stores each once per row group. JPEG bytes do not compress further.
        leaves = _leaf_paths(schema)
        compression = {leaf: "NONE" if leaf.startswith(("image.", "images.")) else "ZSTD" for leaf in leaves}
        repeated = ("prompt.", "completion.list.element.role", "dataset", "width", "height", "video_id")
        dictionary = [leaf for leaf in leaves if leaf.startswith(repeated)]
        self.path = path
        self.schema = schema
        self.rows = 0
        self._pending: list[Mapping] = []
        self._pending_bytes = 0
        self._file = parquet.ParquetWriter(
            path, schema, compression=compression, use_dictionary=dictionary, write_statistics=False
        )

    def add(self, row: Mapping) -> None:
        self._pending.append(row)
        images = row["images"] if "images" in row else [row["image"]]
        self._pending_bytes += sum(len(image["bytes"]) for image in images if image)
        self.rows += 1
        if len(self._pending) >= _GROUP_ROWS or self._pending_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._file.write_table(_table(self._pending, self.schema))
            self._pending, self._pending_bytes = [], 0

    def close(self, flush: bool = True) -> None:
        if flush:
            self._flush()
        self._file.close()


def _table(rows: list[Mapping], schema):
    """Raises SgrlError with the name of the first row that does not fit the columns."""
    import pyarrow

    try:
        return pyarrow.Table.from_pylist(rows, schema=schema)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError) as error:
        if len(rows) > 1:
            for row in rows:
                _table([row], schema)
        name = printable(rows[0].get("image_id"), 80)
        raise SgrlError(f"the row of image {name} cannot be stored: {printable(error, 200)}") from None


def _leaf_paths(schema) -> list[str]:
    """Names of the Parquet columns, which for nested types are not the names of the Arrow columns."""
    import pyarrow.parquet as parquet

    buffer = io.BytesIO()
    parquet.write_table(schema.empty_table(), buffer)
    found = parquet.ParquetFile(buffer).schema
    return [found.column(i).path for i in range(len(found))]
