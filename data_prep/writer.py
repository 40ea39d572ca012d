"""Stream rows into sharded Parquet files that appear only when all of them are complete."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sgrl import data

# What is held in memory, and what a reader has to load to reach one row.
_GROUP_ROWS = 1000
_GROUP_BYTES = 8 << 20  # of images


class DatasetWriter:
    """Writes OUTPUT/SPLIT-00000-of-00002.parquet and so on.

    A context manager. Shards grow in OUTPUT/.partial and are renamed into place at the end of the block, replacing
    what stood there; if the block raises, they are removed and OUTPUT is as it was.

    Args:
        output: the folder, made if needed.
        metadata: for `sgrl.data.schema`.
        shard_size: rows per file.
    """

    def __init__(self, output: str | Path, metadata: Mapping, shard_size: int = 20000):
        self.output = Path(output)
        self.schema = data.schema(metadata)
        self.shard_size = shard_size
        self.partial = self.output / ".partial"
        self._shards: dict[str, list[_Shard]] = {}
        self._made: list[Path] = []

    def __enter__(self) -> DatasetWriter:
        shutil.rmtree(self.partial, ignore_errors=True)  # left by a process that was killed
        self._made = [folder for folder in (self.output, *self.output.parents) if not folder.exists()]
        self.partial.mkdir(parents=True)
        return self

    def add(self, split: str, row: Mapping) -> None:
        """Append one row (the columns of `sgrl.data.COLUMNS`; image as {"bytes": ..., "path": ...})."""
        shards = self._shards.setdefault(split, [])
        if not shards or shards[-1].rows == self.shard_size:
            if shards:
                shards[-1].close()
            shards.append(_Shard(self.partial / f"{split}-{len(shards):05d}.parquet", self.schema))
        shards[-1].add(row)

    def __exit__(self, kind, error, trace) -> None:
        complete = False
        try:
            if kind is None:
                for shards in self._shards.values():
                    shards[-1].close()
                self._publish()
                complete = True
        finally:
            if not complete:
                self._discard()
            shutil.rmtree(self.partial, ignore_errors=True)

    def _publish(self) -> None:
        for old in self.output.glob("*.parquet"):
            old.unlink()
        for split, shards in self._shards.items():
            for number, shard in enumerate(shards):
                os.replace(shard.path, self.output / f"{split}-{number:05d}-of-{len(shards):05d}.parquet")

    def _discard(self) -> None:
        for shards in self._shards.values():
            with suppress(Exception):  # the disk may be full; the file goes anyway
                shards[-1].close(flush=False)
        shutil.rmtree(self.partial, ignore_errors=True)
        for folder in self._made:
            if any(folder.iterdir()):
                break
            folder.rmdir()


class _Shard:
    def __init__(self, path: Path, schema):
        import pyarrow.parquet as parquet

        # Prompts repeat: a dictionary stores each once per row group. JPEG bytes do not compress further.
        leaves = _leaf_paths(schema)
        compression = {leaf: "NONE" if leaf.startswith("image.") else "ZSTD" for leaf in leaves}
        repeated = ("prompt.", "completion.list.element.role", "dataset", "width", "height")
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
        self._pending_bytes += len(row["image"]["bytes"]) if row["image"] else 0
        self.rows += 1
        if len(self._pending) >= _GROUP_ROWS or self._pending_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._pending:
            self._file.write_table(pyarrow.Table.from_pylist(self._pending, schema=self.schema))
            self._pending, self._pending_bytes = [], 0

    def close(self, flush: bool = True) -> None:
        if flush:
            self._flush()
        self._file.close()


def _leaf_paths(schema) -> list[str]:
    """Names of the Parquet columns, which for nested types are not the names of the Arrow columns."""
    import pyarrow.parquet as parquet

    buffer = io.BytesIO()
    parquet.write_table(schema.empty_table(), buffer)
    found = parquet.ParquetFile(buffer).schema
    return [found.column(i).path for i in range(len(found))]
