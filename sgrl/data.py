"""The rows that training and evaluation share: one schema, written by data_prep, loaded and checked here.

A data set is a folder of Parquet files, `train-00000-of-00001.parquet` and so on. One row is one image with the
prompt, the answer to learn (SFT) and the reference to score against (GRPO, evaluation). `datasets.load_dataset` reads
the folder as it is; `load` does the same after checks that cost seconds and save an evening.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.files import natural
from sgrl.hub import dataset_folder, is_name
from sgrl.images import image_column
from sgrl.models.vlm.families import PLACEHOLDERS
from sgrl.process import NO_ROOM, system_number
from sgrl.prompts import split_previous
from sgrl.text import FormatError, answer, get_codec
from sgrl.vocabulary import Vocabulary

if TYPE_CHECKING:
    import datasets
    import pyarrow

SPLITS = ("train", "val", "test")

COLUMNS = {
    "image": "the encoded file (datasets.Image)",
    "prompt": "list of messages: maybe the system's, then user and assistant in turn; the user's first has the image",
    "completion": "list of messages, one from the assistant: the reference between answer tags",
    "solution": "the reference text without tags",
    "width": "frame of the coordinates in the texts: the image's width in pixels, 1000 for norm1000",
    "height": "the same for the height",
    "dataset": "where the row comes from",
    "image_id": "unique within the data set",
    "length": "of prompt and completion, in characters or in tokens; the metadata says which",
}
"""Column -> what it holds. Rows of several images have a list of them, `images`, in the place of `image`."""

VIDEO_COLUMNS = {
    "video_id": "the video that a frame belongs to; its rows follow each other in time order",
    "frame": "the number in the name of the frame's file",
    "previous": "the solution of the video's row before, which the prompt is to hold; null where there is none",
}
"""The same for what frames of videos have besides."""

_NUMBERS = ("width", "height", "length", "frame")

_METADATA_KEY = b"sgrl"


def features(video: bool = False, images: bool = False) -> datasets.Features:
    """The columns as `datasets` types; images decode to PIL images.

    video: with VIDEO_COLUMNS. images: with `images` in the place of `image`.
    """
    from datasets import Features

    return Features.from_dict(_features(video, images))


def _features(video: bool, images: bool) -> dict:
    def value(dtype: str) -> dict:
        return {"dtype": dtype, "_type": "Value"}

    special = {
        "image": {"_type": "Image"},
        "images": {"feature": {"_type": "Image"}, "_type": "List"},
        "prompt": {"feature": {"role": value("string"), "content": value("string")}, "_type": "List"},
    }
    special["completion"] = special["prompt"]
    names = [*COLUMNS, *VIDEO_COLUMNS] if video else [*COLUMNS]
    if images:
        names[names.index("image")] = "images"
    return {name: special.get(name) or value("int32" if name in _NUMBERS else "string") for name in names}


def schema(metadata: Mapping, video: bool = False, images: bool = False) -> pyarrow.Schema:
    """The Arrow schema of the Parquet files, with `metadata` for `read_metadata` and types for `load_dataset`.

    The same as that of `features`, without the 80 MB of memory that `datasets` takes.

    Args:
        metadata: codec, coords, vocabulary (see `vocabulary_to_json`), prompt (style), command, ...; must be JSON.
        video, images: see `features`.
    """
    import pyarrow as pa

    messages = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    special = {
        "image": image,
        "images": pa.list_(image),
        "prompt": messages,
        "completion": messages,
    }
    found = _features(video, images)
    fields = {name: special.get(name) or (pa.int32() if name in _NUMBERS else pa.string()) for name in found}
    types = json.dumps({"info": {"features": found}})
    own = json.dumps(metadata, ensure_ascii=False)
    return pa.schema(fields, {b"huggingface": types.encode(), _METADATA_KEY: own.encode()})


def vocabulary_to_json(vocabulary: Vocabulary) -> dict:
    """A vocabulary as it stands in the metadata; `vocabulary_of` turns it back."""
    return vocabulary.to_json()


def vocabulary_of(metadata: Mapping) -> Vocabulary:
    """The vocabulary that `read_metadata` found."""
    return Vocabulary.from_json(metadata["vocabulary"])


def files(path: str | Path, split: str | None = None) -> list[Path]:
    """The Parquet files of a data set, or of one split of it, in order.

    path: a folder, one file, or a name on the Hub: whatever else here takes a data set takes these, too.

    Raises SgrlError where there is none, naming the splits that are there.
    """
    path = _place(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SgrlError(f"{path} does not exist; expected a data set written by sgrl convert")
    found = {name: _split_files(path, name) for name in SPLITS}
    present = [name for name, paths in found.items() if paths]
    if not present:
        raise SgrlError(
            f"{path} holds no train-*.parquet, val-*.parquet or test-*.parquet; write it with sgrl convert"
        )
    if split is None:
        return [file for name in present for file in found[name]]
    if split not in present:
        raise UsageError(f"{path} has no split {split!r}{suggest(split, present)}")
    return found[split]


def _place(path: str | Path) -> Path:
    """Where a data set lies: one on the Hub in its cache."""
    return dataset_folder(str(path)) if is_name(path) else Path(path)


def splits(path: str | Path) -> list[str]:
    """The splits that a data set has. Raises SgrlError for a split whose files are not all there."""
    return [name for name in SPLITS if _split_files(_place(path), name)]


def _split_files(path: Path, split: str) -> list[Path]:
    found = {*path.glob(f"{split}-*.parquet"), *path.glob(f"{split}.parquet"), *path.glob(f"{split}/*.parquet")}
    announced = {int(match[1]) for file in found if (match := re.search(r"-of-(\d+)\.parquet$", file.name))}
    if announced and {len(found)} != announced:
        raise SgrlError(
            f"{path} holds {len(found)} files of the split {split}, but their names say {max(announced)}: the "
            "conversion or a copy was interrupted; run it again"
        )
    return sorted(found, key=natural)  # rows of a video follow each other over files, too


def read_metadata(path: str | Path) -> dict:
    """What the converter wrote about a data set: codec, coords, vocabulary, prompt, command, ...

    path: the folder or one of its Parquet files. Raises SgrlError for files without it or with different ones.
    """
    paths = files(path)
    first = _metadata(paths[0])
    for other in paths[1:]:
        found = _metadata(other)
        for key in ("codec", "coords", "vocabulary"):
            if found.get(key) != first.get(key):
                raise SgrlError(
                    f"{other} and {paths[0]} differ in {key!r}; the files of one data set come from one conversion: "
                    "remove the stale ones"
                )
    return first


def first_row(path: str | Path) -> dict:
    """prompt, width and height of the first row of a data set; {} where there is none."""
    for file in files(path):
        for batch in _open(file).iter_batches(columns=["prompt", "width", "height"], batch_size=1):
            if len(batch):
                return batch.to_pylist()[0]
    return {}


def pixel_range(path: str | Path) -> tuple[int, int]:
    """Width times height of the smallest and the largest image of a data set whose coordinates are pixels.

    Raises SgrlError for files without these columns.
    """
    import pyarrow.compute as compute

    ends = []
    for file in files(path):
        parquet = _open(file)
        names = parquet.schema_arrow.names
        if missing := sorted({"width", "height"} - set(names)):
            found = ", ".join(names)
            raise SgrlError(f"{file} lacks the column {missing[0]} (found {found}); write it with sgrl convert")
        for batch in parquet.iter_batches(columns=["width", "height"]):
            areas = compute.min_max(
                compute.multiply(*(batch.column(name).cast("int64") for name in ("width", "height")))
            )
            ends += [end for end in areas.as_py().values() if end]
    if not ends:
        raise SgrlError(f"{path} has no images whose size could be taken; convert some")
    return min(ends), max(ends)


def _metadata(file: Path) -> dict:
    found = (_open(file).schema_arrow.metadata or {}).get(_METADATA_KEY)
    if found is None:
        raise SgrlError(f"{file} carries no 'sgrl' metadata (codec, vocabulary); write it with sgrl convert")
    return json.loads(found)


def _open(file: Path):
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise SgrlError(
            f"{file} is not a readable Parquet file ({_first_line(error)}); convert or copy it again"
        ) from None


def load(path: str | Path, split: str = "train") -> datasets.Dataset:
    """One split of a data set, checked; its images come as `sgrl.images.open_image` gives them.

    Args:
        path: the folder that sgrl convert wrote, one Parquet file, or a data set's name on the Hub.
        split: "train", "val" or "test"; any, for a single file.

    Raises:
        SgrlError: a missing split, a damaged file, a missing column, an image placeholder inside a prompt, a reference
            that its own codec does not accept. The message names the file and the row.
    """
    import pyarrow
    from datasets import config, load_dataset
    from datasets.exceptions import DatasetGenerationError

    from sgrl.picture import with_pictures

    paths = files(path, split)
    metadata = read_metadata(path)
    for file in paths:
        try:
            _check(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise SgrlError(f"{file} is damaged ({_first_line(error)}); convert or copy it again") from None
    try:
        rows = load_dataset("parquet", data_files={split: [str(file) for file in paths]}, split=split)
    except DatasetGenerationError as error:
        number = system_number(error)
        if number in NO_ROOM:  # where the rows are copied to
            raise OSError(number, os.strerror(number), str(config.HF_DATASETS_CACHE)) from error
        # what the check leaves out: the pages of the images
        cause = _first_line(error.__cause__ or error)
        raise SgrlError(f"a file of {path}, split {split}, is damaged ({cause}); convert or copy it again") from error
    if metadata.get("previous") == "gt" and "previous" not in rows.column_names:
        rows = _words_apart(rows)
    return with_pictures(rows)


def _words_apart(rows: datasets.Dataset) -> datasets.Dataset:
    """With the column `previous`, for rows written when its graph stood in the words of the prompt.

    This is the one place that reads a graph out of a prompt.
    """
    names, features = rows.column_names, rows.features
    apart = [(prompt[-1], *split_previous(prompt[-1]["content"])) for prompt in rows["prompt"]]
    prompts = [[message | {"content": text}] for message, text, _ in apart]
    rows = rows.remove_columns("prompt").add_column("prompt", prompts, feature=features["prompt"])
    rows = rows.add_column("previous", [graph for *_, graph in apart], feature=features["dataset"])
    return rows.select_columns([*names, "previous"])


def _check(file: Path) -> None:
    """Read everything but the images."""
    parquet = _open(file)
    names = parquet.schema_arrow.names
    image = image_column(names)
    if image == "images" and "image" in names:
        raise SgrlError(f"{file} has a column image and a column images; leave one of them out")
    missing = [name for name in COLUMNS if name not in names and name != image.removesuffix("s")]
    if image not in names:
        missing.insert(0, image)
    if missing:
        raise SgrlError(
            f"{file} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} (found {', '.join(names)}); "
            "write it with sgrl convert"
        )
    metadata = _metadata(file)
    codec = get_codec(metadata["codec"])
    columns = [name for name in COLUMNS if name != "image"] + [n for n in ("video_id", "previous") if n in names]
    if image == "images":  # how many there are, without reading them
        leaves = (parquet.schema.column(i).path for i in range(len(parquet.schema)))
        columns += [leaf for leaf in leaves if leaf.startswith("images.") and leaf.endswith(".path")]
    row = 0
    for batch in parquet.iter_batches(columns=columns, batch_size=4096):
        _check_messages(file, row, batch.column("prompt"), "prompt")
        _check_messages(file, row, batch.column("completion"), "completion")
        if image == "images" and not all(batch.column("images").value_lengths().to_pylist()):
            raise SgrlError(f"{file}, rows {row} to {row + len(batch) - 1}: 'images' of a row is empty")
        nothing = [None] * len(batch)
        texts = (
            batch.column(name).to_pylist() if name in batch.schema.names else nothing
            for name in ("solution", "width", "height", "image_id", "previous", "video_id")
        )
        for solution, width, height, image_id, previous, video in zip(*texts, strict=True):
            try:
                codec.parse(solution, width, height, tags=False)
            except (FormatError, TypeError, AttributeError) as error:
                place = f"{file}, row {row} (image_id {image_id})"
                raise SgrlError(f"{place}: the solution is not a valid {codec.name!r} text: {error}") from None
            if previous is not None:
                _check_previous(f"{file}, row {row} (image_id {image_id})", previous, video, metadata)
            row += 1


_ROLES = {
    "prompt": ("(system )?(user assistant )*user", "from the user, who may answer to the assistant, a system's first"),
    "completion": ("assistant", "one from the assistant"),
}
"""Pattern of the roles of a column's messages, and in words."""


def _check_messages(file: Path, first_row: int, column, name: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as compute

    roles, expected = _ROLES[name]
    place = f"{file}, rows {first_row} to {first_row + len(column) - 1}"
    if compute.any(compute.equal(compute.fill_null(compute.list_value_length(column), 0), 0)).as_py():
        raise SgrlError(f"{place}: {name!r} must be a list of messages ({expected}), found a row without")
    messages = column.flatten()
    ends = compute.cumulative_sum(compute.list_value_length(column).cast("int32"))
    offsets = pa.concat_arrays([pa.array([0], "int32"), ends])
    spoken = pa.ListArray.from_arrays(offsets, compute.fill_null(messages.field("role"), "none"))
    for found in compute.unique(compute.binary_join(spoken, " ")).to_pylist():
        if not re.fullmatch(roles, found):
            found = f"{found[:80]}..." if len(found) > 80 else found
            raise SgrlError(f"{place}: the roles in {name!r} are {found}; expected {expected}")
    for content in compute.unique(messages.field("content")).to_pylist():
        if not content:
            raise SgrlError(f"{place}: a message of {name!r} is empty")
        _check_placeholders(place, content, name)
        if name == "completion" and not content.startswith(f"{answer.OPEN}\n"):
            raise SgrlError(
                f"{place}: a completion must begin with {answer.OPEN} and a newline, found {content[:40]!r}"
            )


def _check_placeholders(place: str, text: str, name: str) -> None:
    for placeholder in PLACEHOLDERS:  # the trainer puts the image before the text; this would ask for another
        if placeholder in text:
            raise SgrlError(
                f"{place}: {name!r} contains {placeholder!r}. The trainer puts the image before the text of the "
                "prompt; remove the placeholder"
            )


def _check_previous(place: str, previous: str, video: str | None, metadata: Mapping) -> None:
    if video is None:
        raise SgrlError(
            f"{place}: 'previous' holds the graph of a frame before, but the row is a single image (it has no "
            "video_id); leave 'previous' out for images, or name the video"
        )
    if metadata.get("previous") != "gt":
        raise SgrlError(
            f"{place}: 'previous' holds a graph, but the metadata of the file say previous: "
            f"{metadata.get('previous')}, so no prompt would; write it with sgrl convert --context gt"
        )
    if not previous:
        raise SgrlError(f"{place}: 'previous' is empty; where there is no frame before it is null")
    _check_placeholders(place, previous, "previous")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
