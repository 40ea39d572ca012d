"""Toy scenes in VG150's layout: the reader gives back what was drawn, in the encoding of the official files."""

import json

import numpy as np
import pytest

from data_prep import to_toon
from data_prep.readers.vg150 import VG150Reader
from data_prep.toys import vg150, writing
from data_prep.toys.scene import OBJECTS, PREDICATES, scene
from sgrl.data import load
from sgrl.errors import SgrlError
from sgrl.text import get_codec


def test_box_encoding_is_the_official_one(shared):
    """The fixture's rows were written by the official formula, from boxes that count pixels from 1."""
    import h5py

    folder = shared / "data" / "schema_examples" / "vg"
    known = json.loads((folder / "EXPECTED_decode.json").read_text())
    with h5py.File(folder / "VG-SGG.h5") as file:
        for long_side in (1024, 512):
            rows = file[f"boxes_{long_side}"][:].tolist()
            for entry in known:
                for x, y, w, h in entry["original_xywh_1based"]:
                    size = entry["width"], entry["height"]
                    box = (x - 1, y - 1, x - 1 + w, y - 1 + h)
                    assert vg150.encode_box(box, *size, long_side) == rows.pop(0)


def test_reader_gives_back_what_was_drawn(tmp_path):
    counts = vg150.write(tmp_path, train=20, test=5, seed=3)
    assert (counts["train"], counts["test"]) == (20, 5)
    reader = VG150Reader(tmp_path)
    records = list(reader.records())
    assert reader.vocabulary.objects == OBJECTS and reader.vocabulary.predicates == PREDICATES
    assert [record.split for record in records] == ["train"] * 20 + ["test"] * 5 and not reader.notes
    for number, record in enumerate(records):
        drawn = scene(3, number % 20, record.split)
        assert [o.label for o in record.graph.objects] == drawn.labels
        assert np.abs(record.graph.boxes - drawn.boxes).max() < 0.3  # the encoding rounds outwards
        assert [(r.subject, r.predicate, r.object) for r in record.graph.relations] == drawn.relations
        assert record.image.is_file()


def test_corrupt_images_are_listed_and_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(vg150, "CORRUPT", frozenset((2, 3)))
    monkeypatch.setattr("data_prep.readers.vg_images.CORRUPT", frozenset((2, 3)))
    monkeypatch.setattr("data_prep.readers.vg_images.ImageList.corrupt", frozenset((2, 3)))
    vg150.write(tmp_path, train=2, test=1)
    assert len(json.loads((tmp_path / "image_data.json").read_text())) == 5
    assert [record.image_id for record in VG150Reader(tmp_path).records()] == ["1", "4", "5"]


def test_through_the_converter(tmp_path):
    vg150.write(tmp_path / "world", train=8, test=2)
    arguments = ["--layout", "vg150", "--root", tmp_path / "world", "--output", tmp_path / "rows", "--keep-empty"]
    assert to_toon.main([str(argument) for argument in arguments]) == 0
    for split, number in (("train", 8), ("test", 2)):
        rows = load(tmp_path / "rows", split)
        assert len(rows) == number
        for i, row in enumerate(rows):
            drawn, graph = scene(0, i, split), get_codec("toon").decode(row["solution"], 96, 96, tags=False)
            assert [o.box for o in graph.objects] == drawn.boxes  # rounded to whole pixels they are exact


def test_complete_output_is_kept_and_other_arguments_replace_it(tmp_path):
    vg150.write(tmp_path, train=2, test=1)
    before = (tmp_path / "VG-SGG.h5").stat().st_mtime_ns
    assert vg150.write(tmp_path, train=2, test=1) is None
    assert (tmp_path / "VG-SGG.h5").stat().st_mtime_ns == before
    assert vg150.write(tmp_path, train=1, test=1)["train"] == 1
    assert len(list((tmp_path / "VG_100K").iterdir())) == 1
    with pytest.raises(SgrlError, match="cannot draw -1 training"):
        vg150.write(tmp_path, train=-1, test=1)
    (tmp_path / "toyworld.json").unlink()
    with pytest.raises(SgrlError, match="VG-SGG.h5 exists and was not written by this command"):
        vg150.write(tmp_path, train=1, test=1)


def test_interrupted_drawing_leaves_no_annotations(tmp_path, monkeypatch):
    def stop(seed, index, split):
        if index == 2:
            raise KeyboardInterrupt
        return scene(seed, index, split)

    monkeypatch.setattr(writing, "scene", stop)
    with pytest.raises(KeyboardInterrupt):
        vg150.write(tmp_path, train=5, test=1)
    assert not (tmp_path / "VG-SGG.h5").exists()
    monkeypatch.undo()
    assert vg150.write(tmp_path, train=5, test=1)["train"] == 5
