"""A folder of predictions that can be interrupted and resumed, and never mixes two models or data sets.

`run.json` says what makes the predictions, `predictions.jsonl` has one line per image, appended as they come.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sgrl.errors import SgrlError
from sgrl.files import atomic_path, fingerprint, named

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""What names an image: the data set's name and the image's id."""

RUN_FILE, PREDICTIONS_FILE, USAGE_FILE = "run.json", "predictions.jsonl", "usage.json"


def prediction_key(row: Mapping) -> Key:
    """The key of a row of a data set or of predictions.jsonl."""
    return str(row["dataset"]), str(row["image_id"])


def model_fingerprint(model: str | Path) -> str:
    """The fingerprint of a model folder (weights, configuration, processor), or the name of a Hub model."""
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    kinds = (".safetensors", ".bin", ".json", ".jinja")
    # run.json, trainer_state.json and the like lie beside a trained model and say nothing about it.
    other = {RUN_FILE, USAGE_FILE, "trainer_state.json", "train_results.json", "all_results.json"}
    return fingerprint(path for path in folder.iterdir() if path.suffix in kinds and path.name not in other)


class PredictionFolder:
    """Predictions of one model on one split, on disk.

    Args:
        folder: created if need be.
        run: what goes into run.json. Of a folder that has one already, the values under `identity` must be equal.
        identity: the keys of `run` that make two runs the same run.

    Attributes:
        run: run.json, with what an earlier start of the same run wrote.
        keys: of the images that are done.

    Raises:
        SgrlError: the folder belongs to another run or is damaged in a way that a crash doesn't explain.
    """

    def __init__(self, folder: str | Path, run: Mapping, identity: Iterable[str]):
        self.folder = Path(folder)
        self.path = self.folder / PREDICTIONS_FILE
        self.folder.mkdir(parents=True, exist_ok=True)
        found = read_run_file(self.folder)
        if not found and self.path.exists():
            raise SgrlError(f"{self.path} has no {RUN_FILE} beside it that says whose it is; choose another --output")
        for name in identity:
            if found and found.get(name) != run[name]:
                raise SgrlError(
                    f"{self.folder} holds another run: its {name} is {found.get(name)!r}, this one's {run[name]!r} "
                    f"(model {found.get('model')}, data set {found.get('dataset')}); choose another --output, or "
                    "remove the folder to start anew"
                )
        self.run = {**run, **found}
        self._repair()
        self.keys: set[Key] = set()
        for number, row in enumerate(self, 1):
            key = prediction_key(row)
            if key in self.keys:
                raise SgrlError(
                    f"{self.path}, line {number}: a second prediction for image {key[1]!r}; two processes wrote to "
                    "this folder: remove it and start anew"
                )
            self.keys.add(key)
        with atomic_path(self.folder / RUN_FILE) as path:
            path.write_text(json.dumps(self.run, indent=2) + "\n", encoding="utf-8")

    def __iter__(self) -> Iterator[dict]:
        """The rows so far, streamed from disk."""
        if not self.path.exists():
            return
        with open(self.path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    prediction_key(row)
                except (ValueError, KeyError, TypeError) as error:
                    raise SgrlError(
                        f"{self.path}, line {number} is damaged ({type(error).__name__}: {error}); remove this line, "
                        "and its image is done again"
                    ) from None
                yield row

    def append(self, rows: Iterable[Mapping]) -> None:
        """Write rows at the end and hand them to the operating system at once."""
        rows = list(rows)
        # ASCII: what a model wrote may hold halves of a character that UTF-8 can't write.
        text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        with named(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(text)
        self.keys.update(prediction_key(row) for row in rows)

    def rewrite(self, rows: Iterable[Mapping]) -> None:
        """Replace all rows at once; `rows` may be made from those of this folder."""
        with atomic_path(self.path) as path, open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)

    def _repair(self) -> None:
        """Cut off a last line that an interruption left without its end."""
        if not self.path.exists():
            return
        with open(self.path, "rb+") as file:
            size = end = file.seek(0, 2)
            while end:
                start = max(0, end - 65536)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            if end < size:
                logger.warning("%s ended in half a line, which was removed; its image is done again.", self.path)
                file.truncate(end)


def read_run_file(folder: Path) -> dict:
    """run.json of a folder, {} if there is none."""
    path = folder / RUN_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SgrlError(f"{path} cannot be read ({error}); remove the folder to start anew") from None
    if not isinstance(found, dict):
        raise SgrlError(
            f"{path} holds a {type(found).__name__}, expected a JSON object; remove the folder to start anew"
        )
    return found


def write_usage(folder: PredictionFolder, price: Sequence[float] | None = None) -> dict:
    """Count images, tokens and seconds of a finished folder into usage.json, and what they cost.

    price: of a million tokens in prompts and in answers.
    """
    names = ("tokens", "prompt_tokens", "seconds")
    usage: dict[str, float] = {"images": 0, "repaired": 0, **dict.fromkeys(names, 0)}
    for row in folder:
        usage["images"] += 1
        usage["repaired"] += bool(row.get("repaired"))
        for name in names:
            usage[name] += row.get(name) or 0
    usage["seconds"] = round(usage["seconds"], 3)
    if price:
        usage["cost"] = (usage["prompt_tokens"] * price[0] + usage["tokens"] * price[1]) / 1e6
    with atomic_path(folder.folder / USAGE_FILE) as path:
        path.write_text(json.dumps(usage, indent=2) + "\n", encoding="utf-8")
    return usage


def shard_folder(output: Path, index: int, count: int) -> Path:
    """Where a job of an array writes: the folder of the run itself if it is the only one."""
    return output if count == 1 else output / f"shard-{index:05d}-of-{count:05d}"


def merge_shards(output: Path, count: int) -> bool:
    """Join the shards of a run once all have finished; whichever ends last does it. Returns whether they had."""
    folders = [shard_folder(output, index, count) for index in range(count)]
    if not all((folder / USAGE_FILE).is_file() for folder in folders):
        return False
    with atomic_path(output / PREDICTIONS_FILE) as path, open(path, "wb") as joined:
        for folder in folders:
            if (folder / PREDICTIONS_FILE).is_file():  # a shard may have no rows
                with open(folder / PREDICTIONS_FILE, "rb") as lines:
                    shutil.copyfileobj(lines, joined)
    with atomic_path(output / RUN_FILE) as path:
        shutil.copyfile(folders[0] / RUN_FILE, path)
    return True


def write_parquet(folder: PredictionFolder, chunk: int = 10_000) -> Path:
    """The rows as predictions.parquet beside predictions.jsonl, in pieces: memory does not grow with their number."""
    import pyarrow as pa
    import pyarrow.parquet

    text, integer, real = pa.string(), pa.int64(), pa.float64()
    schema = pa.schema(
        {
            **dict.fromkeys(("dataset", "image_id", "video_id"), text),
            **dict.fromkeys(("frame", "width", "height"), integer),
            **dict.fromkeys(("solution", "prediction", "written", "finish_reason"), text),
            **dict.fromkeys(("tokens", "prompt_tokens"), integer),
            **{"seconds": real, "confidence": pa.list_(real)},
        }
    )
    target = folder.path.with_suffix(".parquet")
    with atomic_path(target) as path, pyarrow.parquet.ParquetWriter(path, schema) as writer:
        rows = iter(folder)
        while part := list(itertools.islice(rows, chunk)):
            # halves of characters that a model wrote have no UTF-8
            clean = [{name: _storable(row.get(name)) for name in schema.names} for row in part]
            writer.write_table(pa.Table.from_pylist(clean, schema))
    return target


def _storable(value):
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
