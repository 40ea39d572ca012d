"""Raw Visual Genome: the fixture, the published records of two images, the alias lists, and damage."""

import json

import pytest

from data_prep.clean import clean
from data_prep.readers import open_reader
from data_prep.readers.record import RecordError
from data_prep.readers.vg import VisualGenomeReader, _label, _plain, _table
from sgrl.errors import SgrlError
from sgrl.vocabulary import get_vocabulary


def make_object(object_id=1, names=("man",), box=(11, 21, 30, 40), **changes):
    x, y, w, h = box
    made = {"object_id": object_id, "x": x, "y": y, "w": w, "h": h, "synsets": [], "merged_object_ids": []}
    return {**made, "names": list(names), **changes}


def make_relation(subject=1, target=2, predicate="ON"):
    ends = ({"object_id": i, "name": "man", "x": 1, "y": 1, "w": 5, "h": 5} for i in (subject, target))
    return {"relationship_id": 1, "predicate": predicate, "subject": next(ends), "object": next(ends)}


def make_root(path, objects, relationships, ids=None):
    path.mkdir(parents=True)
    (path / "VG_100K").mkdir()
    ids = ids or range(1, len(objects) + 1)
    url = "https://cs.stanford.edu/people/rak248/VG_100K/{}.jpg"
    for name, content in (
        ("image_data", [{"image_id": i, "url": url.format(i), "width": 100, "height": 80} for i in ids]),
        ("objects", [{"image_id": i, "objects": found} for i, found in zip(ids, objects, strict=True)]),
        ("relationships", [{"image_id": i, "relationships": r} for i, r in zip(ids, relationships, strict=True)]),
    ):
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


PAIR = [make_object(1), make_object(2, ["horses", "mane"])]


def test_fixture_means_what_its_vg150_file_says(shared):
    folder = shared / "data" / "schema_examples" / "vg"
    expected = json.loads((folder / "EXPECTED_decode.json").read_text())
    reader = open_reader("vg", folder)
    records = list(reader.records())
    assert [record.image_id for record in records] == [str(entry["image_id"]) for entry in expected]
    for record, known in zip(records, expected, strict=True):
        graph = record.graph
        assert [o.label for o in graph.objects] == known["labels"]
        triples = [[r.subject, r.predicate, r.object] for r in graph.relations]
        assert triples == known["triples_local_subj_pred_obj"]
        boxes = [(x - 1, y - 1, x - 1 + w, y - 1 + h) for x, y, w, h in known["original_xywh_1based"]]
        assert [o.box for o in graph.objects] == boxes
        assert (graph.width, graph.height) == (known["width"], known["height"])
        assert record.image.is_file()
    assert [record.split for record in records] == ["train", "train", "test", "test"]
    assert reader.totals() == {"images": (4, 108073)} and not reader.notes
    assert list(reader.records()) == records


def test_published_records(shared, tmp_path):
    real = shared / "data" / "real" / "vg"
    images = json.loads((real / "image_data_REALSUBSET.json").read_text())
    images.append({**images[0], "image_id": 2, "width": 800, "height": 600})
    (tmp_path / "image_data.json").write_text(json.dumps(images))
    for name in ("objects", "relationships"):
        (tmp_path / f"{name}.json").write_bytes((real / f"{name}_REALSUBSET.json").read_bytes())
    (tmp_path / "VG_100K_2").mkdir()
    reader = VisualGenomeReader(tmp_path)
    first, second = reader.records()
    raw = json.loads((real / "objects_REALSUBSET.json").read_text())
    assert len(first.graph.objects) >= len(raw[0]["objects"]) and len(second.graph.objects) == len(raw[1]["objects"])
    names = [
        (first.graph.objects[r.subject], r.predicate, first.graph.objects[r.object]) for r in first.graph.relations
    ]
    assert [(s.label, p, o.label) for s, p, o in names] == [("shade", "on", "sidewalk"), ("bike", "near", "tree")]
    assert names[0][2].box == (77, 307, 77 + 722, 307 + 290)
    assert first.graph.objects[0].box == (0, 0, 799, 557)  # x and y are 0 here
    assert reader.notes == {"images that relationships.json lacks": 1}
    graph, counts = clean(first.graph, reader.vocabulary)
    assert counts["unknown_objects"] > 0 and counts["orphaned_relations"] == 1  # of the shade
    assert {o.label for o in graph.objects} <= set(get_vocabulary("vg150").objects)


@pytest.mark.parametrize("kind", ["objects", "predicates"])
def test_aliases_are_those_of_the_published_lists(shared, kind):
    target, lines = {}, shared / "data" / "real" / "vg" / f"danfeiX_{kind[:-1]}_alias.txt"
    for line in lines.read_text().splitlines():
        names = line.split(",")
        target.update(dict.fromkeys(names, target.get(names[0], names[0])))
    known, aliases = _table(kind)
    expected = {}
    for name, meant in target.items():  # some names differ in their spaces alone: the one that leads to a label counts
        if _plain(meant) in known and _plain(name) not in known:
            expected.setdefault(_plain(name), _plain(meant))
    assert aliases == expected


def test_labels():
    assert _label("objects", "Trees ") == "tree" and _label("objects", "zinnia", "T-Shirt", "shirts") == "shirt"
    assert _label("predicates", "Wearing  a") == "wearing" and _label("predicates", "ON") == "on"
    assert _label("predicates", "is juggling") == "is juggling"


def test_ends_of_relations(tmp_path):
    """By id, by the id of an object that was merged, or by standing in the relation alone."""
    objects = [[make_object(1), make_object(2, merged_object_ids=[7])]]
    relations = [[make_relation(1, 7), make_relation(9, 2, "sits  On"), make_relation(9, 1)]]
    (record,) = VisualGenomeReader(make_root(tmp_path / "root", objects, relations)).records()
    assert [(r.subject, r.predicate, r.object) for r in record.graph.relations] == [
        (0, "on", 1), (2, "sits on", 1), (2, "on", 0)
    ]  # fmt: skip
    assert record.graph.objects[2].box == (0, 0, 5, 5)


DAMAGE = {
    "no name": ([make_object(names=[])], [], "object 0: expected a name or a list of names"),
    "name null": ([make_object(names=[None])], [], "list of names, found .None"),
    "no box": ([{"object_id": 1, "name": "man"}], [], "object 0 .'man'.: expected the numbers x, y, w, h"),
    "box of words": ([make_object(x="1")], [], "expected the numbers"),
    "infinite box": ([make_object(w=float("inf"))], [], "four finite numbers"),
    "no end": (PAIR, [{"predicate": "on", "subject": {"object_id": 1}}], "relation 0: the object must be an object"),
    "no predicate": (PAIR, [{**make_relation(), "predicate": None}], "relation 0: the predicate must be a string"),
    "no list": ({}, [], "objects must be a list of objects, found {}"),
    "numbers": (PAIR, [3], "relationships must be a list of objects"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_image_is_named_and_the_rest_goes_on(tmp_path, name):
    objects, relations, message = DAMAGE[name]
    root = make_root(tmp_path / "root", [objects, PAIR], [relations, [make_relation()]])
    reader, found = VisualGenomeReader(root), []
    (record,) = reader.records(found.append)
    assert (record.image_id, record.split) == ("2", "test")
    assert [o.label for o in record.graph.objects] == ["man", "horse"]
    assert found[0].place == "relationships.json, image_id 1"
    with pytest.raises(RecordError, match=message):
        list(reader.records())


def test_files_of_different_releases(tmp_path):
    root = make_root(tmp_path / "root", [PAIR] * 20, [[]] * 20)
    content = json.loads((root / "objects.json").read_text())
    (root / "objects.json").write_text(json.dumps(content[::-1]))
    with pytest.raises(SgrlError, match="objects.json: image_id '[0-9]+' was not found .* in the same order"):
        list(VisualGenomeReader(root).records())
    (root / "objects.json").write_text(json.dumps([5]))
    with pytest.raises(SgrlError, match="objects.json, entry 0: expected an object with an image_id, found 5"):
        list(VisualGenomeReader(root).records())
    (root / "objects.json").write_text(json.dumps(content)[:-40])
    with pytest.raises(SgrlError, match="objects.json is truncated"):
        list(VisualGenomeReader(root).records())
    (root / "objects.json").unlink()
    with pytest.raises(SgrlError, match="holds no objects.json, only VG_100K"):
        VisualGenomeReader(root)
    with pytest.raises(SgrlError, match="is not a folder"):
        VisualGenomeReader(root / "nowhere")


def read_all(root, count):
    assert sum(1 for _ in VisualGenomeReader(root).records()) == count


def test_memory_is_flat(tmp_path, traced_peak):
    peaks = []
    for count in (300, 6000):
        root = make_root(tmp_path / str(count), [PAIR] * count, [[make_relation()]] * count, range(5000, 5000 + count))
        peaks.append(traced_peak(read_all, root, count))
    assert peaks[1] < 12e6  # three windows of a quarter of a megabyte; the files are 5 MB
