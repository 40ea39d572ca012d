"""COCO exports with relations: the fixture, lists in any order, and damage."""

import json
import random
import shutil

import pytest

from data_prep.readers import open_reader
from data_prep.readers.coco import FILE, CocoReader
from data_prep.readers.record import RecordError
from sgrl.errors import SgrlError


def make_content(images=2, **changes):
    """Each image has two objects (ids 2i, 2i + 1) and one relation."""
    content = {
        "info": {"description": "toy"},
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 60, "height": 40} for i in range(images)],
        "annotations": [
            {"id": 2 * i + k, "image_id": i, "category_id": 5 + k, "bbox": [1, 2, 10 + k, 20]}
            for i in range(images)
            for k in range(2)
        ],
        "rel_annotations": [
            {"id": i, "image_id": i, "subject_id": 2 * i, "object_id": 2 * i + 1, "predicate_id": 1}
            for i in range(images)
        ],
        "categories": [{"id": 6, "name": "dog"}, {"id": 5, "name": "cat"}],
        "rel_categories": [{"id": 1, "name": "on"}],
    }
    return {**content, **changes}


def make_root(path, content, split="train"):
    (path / split).mkdir(parents=True)
    (path / split / FILE).write_text(json.dumps(content))
    return path


def test_fixture_reads_as_psg_json(layouts):
    reader = open_reader("coco", layouts / "hf_mirrors" / "maelic_style" / "PSG_coco_format")
    expected = json.loads((layouts / "psg" / "EXPECTED_parse.json").read_text())
    records = list(reader.records())
    assert [record.image_id for record in records] == ["900001", "900002"]
    for record in records:
        known = expected[record.image_id]
        found = [(o.label, list(o.box)) for o in record.graph.objects]
        assert found == [(entry["class"], entry["xyxy"]) for entry in known["objects"]]
        assert [[r.subject, r.predicate, r.object] for r in record.graph.relations] == known["raw_triples"]
        assert record.split == "train" and record.image.name == f"000000{record.image_id}.jpg"
    assert reader.name == "psg" and not reader.notes
    assert list(reader.records()) == records


def test_splits_and_lists_in_any_order(tmp_path):
    content = make_content(20)
    root = make_root(tmp_path / "root", content)
    sorted_records = list(CocoReader(root).records())
    shuffled = {key: random.Random(1).sample(value, len(value)) for key, value in content.items() if key != "info"}
    shuffled["images"] = content["images"]
    (root / "train" / FILE).write_text(json.dumps(dict(reversed(shuffled.items()))))
    for folder in ("valid", "test"):
        make_root(root, make_content(1), folder)
    records = list(CocoReader(root).records())
    assert [record.split for record in records] == ["test"] + ["train"] * 20 + ["val"]
    for record, known in zip(records[1:-1], sorted_records, strict=True):
        assert record.image == known.image

        def triples(graph):
            return [(graph.objects[r.subject], r.predicate, graph.objects[r.object]) for r in graph.relations]

        assert triples(record.graph) == triples(known.graph) != []
    reader = CocoReader(root / "test")
    assert reader.vocabulary.objects == ("cat", "dog") and [r.split for r in reader.records()] == ["test"]


def changed(name, **changes):
    content = make_content()
    content[name][0] |= changes
    return content


DAMAGE = {
    "category": (changed("annotations", category_id=7), "object 0: category_id must be from 5 to 6, found 7"),
    "predicate": (changed("rel_annotations", predicate_id=0), "relation 0: predicate_id must be from 1 to 1, found 0"),
    "other image": (
        changed("rel_annotations", object_id=3),
        "relation 0: object_id must be the id of one of the image's 2 annotations, found 3",
    ),
    "no end": (changed("rel_annotations", subject_id=None), "subject_id must be .* found None"),
    "twice": (changed("annotations", id=1), "object 1: expected an id of its own, found 1"),
    "box": (changed("annotations", bbox=[1, 2]), "object 0: bbox must be x, y, width, height"),
    "infinite": (changed("annotations", bbox=[1, 2, float("inf"), 1]), "four finite numbers"),
    "size": (changed("images", width=0), "whole numbers above 0, found 0 and 40"),
    "climbs": (changed("images", file_name="../a.jpg"), "file_name '../a.jpg' points outside .*train"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_image_is_named_and_the_rest_goes_on(tmp_path, name):
    content, message = DAMAGE[name]
    reader, found = CocoReader(make_root(tmp_path / "root", content)), []
    assert [record.image_id for record in reader.records(found.append)] == ["1"]
    assert found[0].place == "train/_annotations.coco.json, image 0"
    with pytest.raises(RecordError, match=message):
        list(reader.records())


def test_entries_of_no_image_are_counted(tmp_path):
    reader = CocoReader(make_root(tmp_path / "root", changed("annotations", image_id=77)))
    found = []
    assert len(list(reader.records(found.append))) == 1 and "subject_id must be" in str(found[0])
    assert reader.notes == {"annotations of an image that _annotations.coco.json does not list": 1}


def test_files_that_cannot_be_used(tmp_path):
    root = make_root(tmp_path / "root", make_content())
    path = root / "train" / FILE
    whole = path.read_text()
    path.write_text(whole[:-40])
    with pytest.raises(SgrlError, match="is truncated: its .* bytes end"):
        CocoReader(root)
    path.write_text(json.dumps(make_content(rel_annotations=[])))
    with pytest.raises(SgrlError, match="has no 'rel_annotations' or it is empty, found info, images"):
        CocoReader(root)
    path.write_text(json.dumps(make_content(images=1, annotations=[3])))
    with pytest.raises(RecordError, match="entry 0 of annotations: expected an object with image_id, found 3"):
        list(CocoReader(root).records())
    path.write_text(json.dumps(make_content(categories=[{"id": 1}])))
    with pytest.raises(SgrlError, match="categories must be objects with a name"):
        CocoReader(root)
    path.write_text(whole)
    make_root(root, make_content(categories=[{"id": 5, "name": "cow"}]), "val")
    with pytest.raises(SgrlError, match="val.* has other classes than .*train"):
        CocoReader(root)
    shutil.rmtree(root)
    with pytest.raises(SgrlError, match="is not a folder"):
        CocoReader(root)
    root.mkdir()
    with pytest.raises(SgrlError, match="holds no _annotations.coco.json, only nothing"):
        CocoReader(root)


def read_all(root, count):
    assert sum(1 for _ in CocoReader(root).records()) == count


def test_memory_is_flat(tmp_path, traced_peak):
    peaks = []
    for count in (300, 6000):
        root = make_root(tmp_path / str(count), make_content(count))
        peaks.append(traced_peak(read_all, root, count))
    assert peaks[1] < 6e6  # the file is 2 MB; SQLite's own cache is bounded and not traced


def test_ids_may_be_texts(tmp_path):
    """Of some lists or of all; whole numbers that a table made floats too."""

    def spelt(kind):
        content = make_content()
        for name, keys in (
            ("images", ["id"]),
            ("annotations", ["id", "image_id", "category_id"]),
            ("rel_annotations", ["image_id", "subject_id", "object_id", "predicate_id"]),
            ("categories", ["id"]),
        ):
            for entry in content[name]:
                entry |= {key: kind(entry[key]) for key in keys}
        return content

    plain = list(CocoReader(make_root(tmp_path / "plain", make_content())).records())
    texts, floats = spelt(str), spelt(float)
    mixed = {**make_content(), "rel_annotations": texts["rel_annotations"], "categories": floats["categories"]}
    for number, content in enumerate((texts, floats, mixed)):
        root = make_root(tmp_path / str(number), content)
        reader = CocoReader(root)
        assert reader.vocabulary.objects == ("cat", "dog")
        assert [(r.image_id, r.graph) for r in reader.records()] == [(r.image_id, r.graph) for r in plain]
