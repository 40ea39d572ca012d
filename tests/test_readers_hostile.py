"""Every reader, with one record of a toy world made hostile: that one is named, the others stay as they are.

A new reader is covered by being registered: its toy world's annotation is found by the names of files, and changed
wherever a record has a value.
"""

import json
import math
import pickle
import random
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from data_prep import toyworld
from data_prep.convert import Converter, Options, metadata_of
from data_prep.readers import READERS, open_reader
from data_prep.readers.record import shown
from sgrl import data
from sgrl.errors import SgrlError

DIGITS, DEEP = "5,000 digits", "100,000 brackets"
MISSING = "no such key"
VALUES = [
    *(10**400, 2**63, 2**31, -1, 0, 1.5, math.nan, math.inf, True, None, [], {}, [[1, 2]], {"a": [1]}),
    *("", "a\0b", "\ud83d", "a\nforged: line\x1b[2J", "x" * 100_000, "../../etc/passwd", "/etc/passwd", MISSING),
]
TEXTS = {DIGITS: "9" * 5000, DEEP: "[" * 100_000 + "]" * 100_000}  # that only a file can hold
ARRAYS = [np.array([1.5, 2.5]), np.zeros((0, 4)), 10**5000]  # that only a pickle can hold


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    """The toy world of each layout, small, and what it becomes: made once, when it is asked for."""
    folder, made = tmp_path_factory.mktemp("hostile"), {}

    def world(layout):
        if layout not in made:
            root = folder / layout
            frames = ["--frames", "4"] if toyworld.LAYOUTS[layout].frames else []
            assert not toyworld.main(
                ["--layout", layout, "--output", str(root), "--train", "5", "--test", "2", *frames]
            )
            for file in root.rglob("*.parquet"):  # the same rows as lines: anything can stand in those
                lines = []
                for number, row in enumerate(parquet.read_table(file).to_pylist()):
                    (file.parent / f"{number}.jpg").write_bytes(row.pop("image")["bytes"])
                    row |= {name: json.loads(row[name]) for name in ("objects", "relationships")}
                    lines.append(json.dumps(row | {"image_file": f"{number}.jpg"}))
                file.with_suffix(".jsonl").write_text("\n".join(lines))
                file.unlink()
            made[layout] = root, converted(layout, root)
        return made[layout]

    return world


def converted(layout, root):
    """(solution by id, video by id, damage, what the reader said) of all records, in rows that Parquet can hold."""
    reader = open_reader(layout, root)
    converter = Converter(reader, Options(codec=reader.codec, keep_empty=True, images=False))
    rows, videos, damage = {}, {}, []
    for record in reader.records(damage.append):
        draft = converter.draft(record)
        videos[record.image_id] = record.video_id or record.image_id
        if draft.error is not None:
            damage.append(draft.error)
        else:
            rows[record.image_id] = draft.row
    video = any("video_id" in row for row in rows.values())
    pyarrow.Table.from_pylist(list(rows.values()), schema=data.schema(metadata_of(reader, converter.options), video))
    for error in damage:
        text = str(error)
        assert len(text.encode()) < 2000 and text.isprintable() and "forged: line" not in text.splitlines()
    return {key: row["solution"] for key, row in rows.items()}, videos, damage, dict(reader.notes)


def files(root):
    """Those with records: the annotation, without class lists."""
    found = [path for suffix in ("json", "jsonl", "pkl") for path in sorted(root.rglob(f"*.{suffix}"))]
    return [path for path in found if path.name != "toyworld.json" and records_of(read(path))]


def read(path):
    if path.suffix == ".pkl":
        return pickle.loads(path.read_bytes())
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def write(path, content):
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, 3))
        return
    text = "\n".join(map(json.dumps, content)) if path.suffix == ".jsonl" else json.dumps(content)
    for name, found in TEXTS.items():
        text = text.replace(json.dumps(name), found)
    path.write_text(text)


def records_of(content):
    """The longest list of records, or the dictionary of frames, and the position of one that is not the first."""
    lists = [content, *content.values()] if isinstance(content, dict) else [content]
    lists = [found for found in lists if isinstance(found, list) and len(found) > 4 and isinstance(found[0], dict)]
    if lists:
        return max(lists, key=len), 2
    frames = isinstance(content, dict) and len(content) > 8 and all(".mp4" in str(key) for key in content)
    return (content, list(content)[5]) if frames else None


def places(value, path=()):
    """All positions inside a record, itself among them."""
    yield path
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list | tuple) else ()
    for key in keys:
        yield from places(value[key], (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and new is MISSING and isinstance(copy, dict):
        del copy[path[0]]
    else:
        copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("layout", READERS)
def test_one_hostile_record_is_named_and_the_others_stay(worlds, tmp_path, layout):
    world, (expected, videos, damage, notes) = worlds(layout)
    assert expected
    rng = random.Random(layout)
    root = tmp_path / layout
    shutil.copytree(world, root, symlinks=True)
    for path in files(root):
        content = read(path)
        records, at = records_of(content)
        record, original = records[at], path.read_bytes()
        positions = list(places(record))
        values = [*VALUES, *(ARRAYS if path.suffix == ".pkl" else TEXTS)]
        for value in values:
            for position in rng.sample(positions, 1):
                records[at] = changed(record, position, value)
                write(path, content)
                told = f"{path.name}: {type(value).__name__} {shown(value)} at {position}"
                try:
                    found, _, named, said = converted(layout, root)
                except Exception as error:
                    raise AssertionError(f"{told}: {type(error).__name__}: {error}"[:500]) from error
                lost = {key for key in expected if found.get(key) != expected[key]}
                assert len({videos[key] for key in lost}) <= 2, told  # an object may have moved to another image
                missing = expected.keys() - found.keys()
                assert not missing or len(named) > len(damage) or said != notes or len(found) == len(expected), told
        path.write_bytes(original)


def test_an_error_that_no_record_explains_passes(worlds, tmp_path):
    """The annotation file itself is cut off: one line with its name, not a damaged record."""
    world, _ = worlds("psg")
    root = tmp_path / "root"
    shutil.copytree(world, root)
    path = root / "psg" / "psg.json"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(SgrlError, match="psg.json is truncated"):
        converted("psg", root)
