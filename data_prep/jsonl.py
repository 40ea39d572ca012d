"""The rows of a data set as JSON lines beside image files, for trainers that read only those (ms-swift and others)."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from sgrl import data
from sgrl.progress import Progress
from sgrl.prompts import with_context

FOLDER = "jsonl"


def export(output: str | Path, progress: bool = False) -> Path:
    """Write OUTPUT/jsonl/SPLIT.jsonl and OUTPUT/jsonl/images/SPLIT/*.jpg from OUTPUT's Parquet files; constant memory.

    A line has messages (of user and assistant), images (paths from the folder jsonl/), solution, width, height,
    dataset, image_id and, of frames, video_id and frame. The folder appears when it is complete. Returns it.
    """
    output = Path(output)
    target, growing = output / FOLDER, output / f".{FOLDER}.part"
    shutil.rmtree(growing, ignore_errors=True)
    try:
        for split in data.SPLITS:
            if not any(output.glob(f"{split}-*.parquet")):
                continue
            images = growing / "images" / split
            images.mkdir(parents=True)
            with (growing / f"{split}.jsonl").open("w", encoding="utf-8") as file:
                rows = Progress(f"writing {split}.jsonl", where=target, show=progress).over(_rows(output, split))
                for number, row in enumerate(rows):
                    file.write(json.dumps(_line(row, number, images, growing), ensure_ascii=False) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        growing.rename(target)
    except BaseException:
        shutil.rmtree(growing, ignore_errors=True)
        raise
    return target


def _line(row: dict, number: int, images: Path, folder: Path) -> dict:
    images_of_row, paths = row.pop("images", None) or [row.pop("image", None)], []
    for place, image in enumerate(images_of_row):
        if image is None:
            continue
        suffix = "png" if image["bytes"].startswith(b"\x89PNG") else "jpg"
        # The number makes names unique whatever ids look like.
        name = f"{number:08d}-{re.sub('[^A-Za-z0-9_-]+', '-', row['image_id'])[:80]}{f'-{place}' * (place > 0)}"
        path = images / f"{name}.{suffix}"
        path.write_bytes(image["bytes"])
        paths.append(str(path.relative_to(folder)))
    messages = with_context(row.pop("prompt"), row.pop("previous", None)) + row.pop("completion")
    del row["length"]
    return {"messages": messages, "images": paths, **row}


def _rows(output: Path, split: str) -> Iterator[dict]:
    import pyarrow.parquet as parquet

    for file in data.files(output, split):
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=64):
            yield from batch.to_pylist()
