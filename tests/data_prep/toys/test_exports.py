"""Toy scenes as raw Visual Genome, COCO export and rows of the Hub: the readers give back what was drawn."""

import numpy as np
import pytest

from data_prep import toyworld
from data_prep.readers import open_reader
from data_prep.toys import coco, hub, vg
from data_prep.toys.scene import scene
from sgrl.errors import SgrlError

OBJECTS = {"circle": "wheel", "square": "box", "triangle": "roof", "cross": "sign"}
PREDICATES = {"inside": "in", "overlapping": "over", "left-of": "near", "above": "above"}


@pytest.mark.parametrize("layout", ["vg", "coco", "hub"])
def test_reader_gives_back_what_was_drawn(layout, tmp_path):
    counts = {"vg": vg, "coco": coco, "hub": hub}[layout].write(tmp_path / "toys", train=14, test=6, seed=3)
    assert (counts["train"], counts["test"]) == (14, 6)
    reader = open_reader(layout, tmp_path / "toys")
    records = {split: [r for r in reader.records() if r.split == split] for split in ("train", "test")}
    assert not reader.notes
    objects, predicates = (OBJECTS, PREDICATES) if layout == "vg" else ({}, {})
    for split, number in (("train", 14), ("test", 6)):
        assert len(records[split]) == number
        for index, record in enumerate(records[split]):
            drawn = scene(3, index, split)
            assert [o.label for o in record.graph.objects] == [objects.get(name, name) for name in drawn.labels]
            assert np.array_equal(record.graph.boxes, np.array(drawn.boxes, float).reshape(-1, 4))
            found = [(r.subject, r.predicate, r.object) for r in record.graph.relations]
            assert found == [(s, predicates.get(p, p), o) for s, p, o in drawn.relations]
    labels = {name for r in records["train"] + records["test"] for name in [o.label for o in r.graph.objects]}
    assert labels <= set(reader.vocabulary.objects)


@pytest.mark.parametrize("layout", ["vg", "coco", "hub"])
def test_same_scenes_are_not_drawn_twice(layout, tmp_path, capsys):
    command = ["--layout", layout, "--output", str(tmp_path / "toys"), "--train", "3", "--test", "1"]
    assert toyworld.main(command) == 0 and toyworld.main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert toyworld.main([*command[:-1], "2"]) == 0
    assert len(list(open_reader(layout, tmp_path / "toys").records())) == 5


def test_foreign_folder_and_impossible_numbers(tmp_path):
    (tmp_path / "relationships.json").write_text("[]")
    with pytest.raises(SgrlError, match="was not written by this command"):
        vg.write(tmp_path, 1, 1)
    with pytest.raises(SgrlError, match="cannot draw 0 training and 0 test"):
        hub.write(tmp_path / "new", 0, 0)
