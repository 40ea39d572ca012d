"""PSG's files: known readings, damage, truncation, and memory that stays flat."""

import json
from pathlib import Path

import pytest

from data_prep.readers import json_stream, open_reader
from data_prep.readers.json_stream import items, values, walk
from data_prep.readers.psg import PSGReader
from data_prep.readers.record import RecordError, below, shown
from sgrl.errors import SgrlError
from sgrl.graph import GraphError

OFFICIAL_FILES = ["psg.json", "psg_train_val.json", "psg_val_test.json", "tiny_psg.json"]


def make_record(**changes):
    record = {
        "file_name": "train2017/000000000001.jpg",
        "height": 80,
        "width": 100,
        "image_id": "1",
        "pan_seg_file_name": "panoptic_train2017/000000000001.png",
        "segments_info": [{"id": 1, "category_id": 0}, {"id": 2, "category_id": 2}],
        "relations": [[0, 1, 1]],
        "annotations": [
            {"bbox": [1.0, 2.0, 30.0, 40.0], "bbox_mode": 0, "category_id": 0},
            {"bbox": [0.0, 0.0, 100.0, 80.0], "bbox_mode": 0, "category_id": 2},
        ],
        "coco_image_id": "1",
    }
    return {**record, **changes}


def make_root(path, records, **changes):
    (path / "psg").mkdir(parents=True)
    (path / "coco").mkdir()
    content = {
        "data": records,
        "thing_classes": ["cat", "traffic light"],
        "stuff_classes": ["grass-merged"],
        "predicate_classes": ["on", "in front of"],
        "test_image_ids": ["9"],
    }
    (path / "psg" / "psg.json").write_text(json.dumps({**content, **changes}))
    return path


@pytest.mark.parametrize("name", OFFICIAL_FILES)
def test_fixtures_read_as_expected(layouts, name):
    folder = layouts / "psg"
    expected = json.loads((folder / "EXPECTED_parse.json").read_text())
    raw = json.loads((folder / "psg" / name).read_text())
    reader = PSGReader(folder, name)
    records = list(reader.records())
    assert [record.image_id for record in records] == [entry["image_id"] for entry in raw["data"]]
    things = set(raw["thing_classes"])
    for record in records:
        known = expected[record.image_id]
        graph, _ = record.graph.cleaned()
        found = [{"class": o.label, "xyxy": list(o.box), "thing": o.label in things} for o in record.graph.objects]
        assert found == [{key: entry[key] for key in ("class", "xyxy", "thing")} for entry in known["objects"]]
        assert [[r.subject, r.predicate, r.object] for r in record.graph.relations] == known["raw_triples"]
        assert [[r.subject, r.predicate, r.object] for r in graph.relations] == known["unique_non_self_triples"]
        assert bool(record.graph.relations) == known["kept_by_OpenPSG_loader"]
        assert record.image.is_file()
        if name == "psg.json":
            assert record.split == known["split"]
    assert reader.name == "psg"  # the official class lists are recognised


def test_competition_files_have_a_validation_split(layouts):
    folder = layouts / "psg"
    splits = {
        name: {record.image_id: record.split for record in PSGReader(folder, name).records()}
        for name in OFFICIAL_FILES
    }
    assert splits["psg.json"]["900004"] == "test"
    assert splits["psg_train_val.json"] == {"900001": "train", "900003": "train", "900004": "val"}
    assert splits["psg_val_test.json"] == {"900004": "val", "900005": "test"}
    assert splits["tiny_psg.json"]["900004"] == "val"


def test_real_record(shared):
    (record,) = open_reader("psg", shared / "data" / "real" / "psg" / "as_official").records()
    graph = record.graph
    assert (record.image_id, record.split, graph.width, graph.height) == ("107902", "train", 480, 640)
    triplets = [(graph.objects[r.subject].label, r.predicate, graph.objects[r.object].label) for r in graph.relations]
    assert triplets == [
        ("person", "beside", "person"),
        ("person", "standing on", "grass-merged"),
        ("person", "holding", "umbrella"),
        ("person", "standing on", "grass-merged"),
        ("fence-merged", "in front of", "tree-merged"),
        ("sky-other-merged", "over", "tree-merged"),
    ]
    assert graph.objects[0].box == (49.0, 162.0, 207.0, 617.0)


def without(key):
    return {name: value for name, value in make_record().items() if name != key}


DAMAGE = {
    "category 3": (
        make_record(annotations=[{"bbox": [0, 0, 1, 1], "category_id": 3}] * 2),
        "object 0: category_id must be a whole number from 0 to 2, found 3",
    ),
    "category -1": (make_record(annotations=[{"bbox": [0, 0, 1, 1], "category_id": -1}] * 2), "found -1"),
    "category missing": (make_record(annotations=[{"bbox": [0, 0, 1, 1]}] * 2), "found None"),
    "subject nowhere": (
        make_record(relations=[[0, 1, 0], [2, 0, 0]]),
        "relation 1 .'on'.: subject must be .* found 2",
    ),
    "object -1": (make_record(relations=[[0, -1, 0]]), "object must be .* found -1"),
    "predicate 2": (make_record(relations=[[0, 1, 2]]), "predicate must be a whole number from 0 to 1, found 2"),
    "predicate true": (make_record(relations=[[0, 1, True]]), "found True"),
    "pair": (make_record(relations=[[0, 1]]), "subject, object, predicate"),
    "relations null": (make_record(relations=None), "relations must be a list"),
    "NaN": (make_record(annotations=[{"bbox": [0, float("nan"), 1, 1], "category_id": 0}] * 2), "four finite numbers"),
    "infinite": (make_record(annotations=[{"bbox": [0, 0, float("inf"), 1], "category_id": 0}] * 2), "four finite"),
    "three numbers": (make_record(annotations=[{"bbox": [0, 0, 1], "category_id": 0}] * 2), "four finite numbers"),
    "no box": (make_record(annotations=[{"category_id": 0}] * 2), "four finite numbers"),
    "xywh": (make_record(annotations=[{"bbox": [0, 0, 1, 1], "bbox_mode": 1, "category_id": 0}] * 2), "bbox_mode"),
    "segments": (make_record(segments_info=[]), "0 segments_info but 2 annotations"),
    "no width": (without("width"), "the key 'width' is missing"),
    "no relations": (without("relations"), "the key 'relations' is missing"),
    "height 0": (make_record(height=0), "whole numbers above 0, found 0"),
    "width NaN": (make_record(width=float("nan")), "whole numbers above 0"),
    "no name": (make_record(file_name=None), "file_name must be a path"),
    "climbs": (make_record(file_name="../../etc/passwd"), "points outside"),
    "absolute": (make_record(file_name="/etc/passwd"), "points outside"),
    "a number": (5, "expected an object, found 5"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_record_is_named_and_the_rest_goes_on(tmp_path, name):
    damaged, message = DAMAGE[name]
    reader = PSGReader(make_root(tmp_path / "root", [make_record(), damaged, make_record(image_id="9")]))
    found = []
    records = list(reader.records(found.append))
    assert [record.split for record in records] == ["train", "test"]
    (error,) = found
    assert error.place.startswith("psg.json, record 1")
    with pytest.raises(RecordError, match=message):
        list(reader.records())


def test_own_class_lists_become_the_vocabulary(tmp_path):
    reader = PSGReader(make_root(tmp_path / "farm", [make_record()]))
    (record,) = reader.records()
    assert reader.name == reader.vocabulary.name == "farm"
    assert reader.vocabulary.objects == ("cat", "traffic light", "grass-merged")
    assert [o.label for o in record.graph.objects] == ["cat", "grass-merged"]
    assert record.graph.relations[0].predicate == "in front of"


@pytest.mark.parametrize("end", [1, 30, 200, 400, -3, -60])
def test_truncated_file(tmp_path, end):
    root = make_root(tmp_path / "root", [make_record()] * 3)
    path = root / "psg" / "psg.json"
    path.write_text(path.read_text()[:end])
    with pytest.raises(SgrlError, match="psg.json is truncated: its .* bytes end .* download"):
        PSGReader(root)


def test_damaged_file(tmp_path):
    root = make_root(tmp_path / "root", [make_record()] * 3)
    path = root / "psg" / "psg.json"
    text = path.read_text()
    position = text.index('"height"', 900)
    path.write_text(text[:position] + "?" + text[position:])
    with pytest.raises(SgrlError, match="expected property name.* found '.\"height"):
        list(PSGReader(root).records())
    path.write_bytes(b"\x1f\x8b\x08\x00" + bytes(range(256)))
    with pytest.raises(SgrlError, match="not UTF-8 text.*archive"):
        PSGReader(root)
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(SgrlError, match="no list of names 'thing_classes'"):
        PSGReader(root)


def test_missing_files_say_what_was_found(tmp_path):
    with pytest.raises(SgrlError, match="nowhere is not a folder; give PSG's root"):
        PSGReader(tmp_path / "nowhere")
    (tmp_path / "vg").mkdir()
    (tmp_path / "vg" / "readme.txt").write_text("")
    with pytest.raises(SgrlError, match="holds no psg/psg.json, only readme.txt"):
        PSGReader(tmp_path / "vg")
    root = make_root(tmp_path / "root", [])
    with pytest.raises(SgrlError, match="psg.jsn does not exist; did you mean 'psg.json'"):
        PSGReader(root, "psg.jsn")
    (root / "coco").rmdir()
    with pytest.raises(SgrlError, match="coco is not a folder"):
        PSGReader(root)
    with pytest.raises(SgrlError, match="unknown data set 'pgs'; did you mean 'psg'"):
        open_reader("pgs", root)


def read_all(root, count):
    assert sum(1 for _ in PSGReader(root).records()) == count


def test_memory_is_flat(tmp_path, traced_peak):
    peaks = []
    for count in (200, 4000):
        root = make_root(tmp_path / str(count), [make_record()] * count)
        peaks.append(traced_peak(read_all, root, count))
    assert peaks[1] < 6e6  # the file is 2.5 MB, a window on it 0.25 MB


@pytest.mark.parametrize("content", ['{"a": [1, 2.5, {"b": [NaN, -Infinity]}], "c": "x"}', '{"c": "x", "a" : [ ] }'])
def test_json_stream_agrees_with_json(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_text(content)
    known = json.loads(content)
    assert repr(list(items(path, "a"))) == repr(known["a"])
    assert repr([value for key, value in walk(path) if key == "a"]) == repr(known["a"])
    assert [value for key, value in walk(path) if key == "c"] == ["x"]
    assert values(path, ("c", "d"), skip="a") == {"c": "x"}
    with pytest.raises(SgrlError, match="has no 'd', found"):
        list(items(path, "d"))


def test_json_stream_of_a_bare_list(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('[{"a": 1}, 2]')
    assert list(items(path, None)) == [{"a": 1}, 2]
    path.write_text('[{"a": 1}, 2')
    with pytest.raises(SgrlError, match="truncated: its 12 bytes end after 2 items"):
        list(items(path, None))
    path.write_text('{"a": 1}')
    with pytest.raises(SgrlError, match="which must be a list"):
        list(items(path, None))


def test_json_stream_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.readers.json_stream._CHUNK", 3)
    monkeypatch.setattr("data_prep.readers.json_stream._TAIL", 3)
    path = tmp_path / "file.json"
    long = {"before": ["é"], "a": [123456, -7.25e3, {"k": "word " * 50}, [], "x"], "after": {"n": 12}}
    path.write_text(json.dumps(long, ensure_ascii=False), encoding="utf-8")
    assert list(items(path, "a")) == long["a"]
    assert values(path, ("before", "after"), skip="a") == {"before": ["é"], "after": {"n": 12}}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_byte_order_marks(tmp_path, encoding):
    root = make_root(tmp_path, [make_record()] * 3)
    path = root / "psg" / "psg.json"
    text = path.read_text()
    path.write_text("\ufeff" * (encoding == "utf-16-be") + text, encoding=encoding)
    assert len(list(PSGReader(root).records())) == 3


def test_items_that_python_cannot_decode_are_one_item_each(tmp_path, monkeypatch):
    """Brackets without end, numbers of thousands of digits, bytes that are no UTF-8; also at the borders of chunks."""
    raw = (
        b'{"a": "]", "data": [{"n": 1}, {"deep": "\\"}", "x": ' + b'[{"k":' * 5000 + b'"]}"' + b"}]" * 5000 + b"}, "
        b'{"n": ' + b"9" * 5000 + b'}, {"n": "\xff\xfe"}, ' + b"[" * 9000 + b"]" * 9000 + b"]}"
    )
    path = tmp_path / "a.json"
    path.write_bytes(raw)
    for chunk in (1 << 18, 1000, 7):
        monkeypatch.setattr(json_stream, "_CHUNK", chunk)
        first, deep, digits, other, last = items(path, "data")
        assert first == {"n": 1} and digits == {"n": float("inf")} and other == {"n": "\udcff\udcfe"}
        assert repr(deep) == repr(last) == "brackets nested too deep to read"
    path.write_bytes(raw[:-20])
    with pytest.raises(SgrlError, match="a.json .*inside item 4 of 'data'"):
        list(items(path, "data"))


def test_where_paths_may_lead():
    folder = Path("/data/images")
    for name in ("a.jpg", "a/b.jpg", "a/..b.jpg", "12:30.jpg"):
        assert below(folder, name, "file_name") == folder / name
    for name in (
        "",
        None,
        5,
        "/a",
        "../a",
        "a/../b",
        "a\\..\\b",
        "C:\\a",
        "\\\\host\\a",
        "a\0b",
        "\ud83d",
        "x" * 5000,
    ):
        with pytest.raises(GraphError, match="file_name|no file can be called|a path of 5,000"):
            below(folder, name, "file_name")


def test_damage_is_one_printable_line():
    """Whatever the record holds: it ends in damaged.txt and on the terminal."""
    error = RecordError("a\nb\x1b[2J", "\ud83d" + "x" * 10**6)
    assert "\n" not in str(error) and "\x1b" not in str(error) and len(str(error)) < 700
    str(error).encode()
    deep, shared = [], [1]
    for _ in range(100):
        deep, shared = [deep], [shared, shared]
    for value in (deep, shared, 10**5000, "\ud83d" * 999, {"a": b"x" * 10**6}):
        assert len(shown(value)) <= 60 and shown(value).isprintable()
