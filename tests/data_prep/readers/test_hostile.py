"""Every reader, with one record of a toy world made hostile: that one is named, the others stay as they are.

A new reader is covered by being registered: its toy world's annotation is found by the names of files, and changed
wherever a record has a value.
"""

import json
import math
import pickle
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from data_prep import toyworld
from data_prep.convert import Converter, Options, Part, metadata_of
from data_prep.readers import READERS, open_reader
from data_prep.readers.record import Record, shown
from data_prep.writer import DatasetWriter
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.graph import GraphError, Object, SceneGraph
from sgrl.vocabulary import Vocabulary

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


class Reader:
    """Two images with one object each."""

    name, source, default_size, codec, notes = "toy", None, None, "toon", {}
    vocabulary = Vocabulary("toy", ("cup",), ("on",))

    def records(self, on_damage=None):
        for number in (1, 2):
            yield Record(
                str(number), Path("x.jpg"), SceneGraph([Object("cup", (0, 0, 5, 5))], [], 10, 10), "train", ""
            )

    def totals(self):
        return {}


def test_what_only_the_text_of_a_graph_brings_out_is_damage_too(monkeypatch):
    converter = Converter(Reader(), Options(keep_empty=True, images=False))
    encode = converter.codec.encode
    monkeypatch.setattr(converter, "codec", SimpleNamespace(grouped=False, name="toon", encode=lambda graph: 1 // 0))
    first, second = Reader().records()
    draft = converter.draft(first)
    assert draft.row is None and "ZeroDivisionError" in str(draft.error)
    monkeypatch.setattr(converter, "codec", SimpleNamespace(grouped=False, name="toon", encode=encode))
    assert converter.draft(second).row["image_id"] == "2"


def test_jobs_share_damage_of_any_name():
    names = ["a", "\ud83d", "\udc80 b", "a\0", "\U0001f600"]
    for name in names:
        assert sum(Part(Reader(), index, 3)._mine(name) for index in range(3)) == 1


def test_the_writer_names_a_row_that_does_not_fit(tmp_path):
    reader = Reader()
    converter = Converter(reader, Options(keep_empty=True, images=False))
    good, bad = (converter.draft(record).row for record in reader.records())
    for change in ({"width": 1 << 40}, {"solution": "\ud83d"}, {"image_id": 5}, {"prompt": "no list"}):
        with (
            pytest.raises(SgrlError, match=f"the row of image {change.get('image_id', 2)} cannot be stored"),
            DatasetWriter(tmp_path / "out", metadata_of(reader, converter.options)) as writer,
        ):
            for row in (good, bad | change):
                writer.add("train", row)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "\ud83d"}, "lone surrogate"),
        ({"image_id": ""}, "image_id must have 1 to 1,000 characters, found 0"),
        ({"video_id": "x" * 9999}, "video_id must have 1 to 1,000 characters, found 9,999"),
        ({"frame": 1 << 40}, "the number of a frame must be from 0 to 2,147,483,647"),
        ({"frame": -1}, "the number of a frame"),
        ({"image": Path("a\0b")}, "no file can be called"),
        ({"graph": SceneGraph([Object("\ud83d", (0, 0, 1, 1))], [], 5, 5)}, "lone surrogate"),
        ({"graph": SceneGraph([], [], 5, 10**400)}, "1 to 65,536 pixels a side"),
        ({"graph": SceneGraph([], [], 5.5, 5)}, "1 to 65,536 pixels a side"),
    ],
)
def test_what_no_record_can_be(change, message):
    record = {
        "image_id": "1",
        "image": Path("a.jpg"),
        "graph": SceneGraph([], [], 5, 5),
        "split": "train",
        "place": "",
    }
    Record(**record)
    with pytest.raises(GraphError, match=message):
        Record(**record | change)
