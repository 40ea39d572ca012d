"""Action Genome's two pickles: known readings, the frame rules, real samples, damage."""

import copy
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from data_prep.readers import open_reader
from data_prep.readers.action_genome import FRAME_RULES, ActionGenomeReader
from data_prep.readers.record import RecordError
from sgrl.errors import SgrlError
from sgrl.text import get_codec


def entry(name="table", box=(10.0, 20.0, 30.0, 40.0), split="train", **changes):
    """One object as the official file has it; `box=None` makes it invisible."""
    visible = box is not None
    return {
        "class": name,
        "bbox": box,
        "attention_relationship": ["looking_at"] if visible else None,
        "spatial_relationship": ["in_front_of", "above"] if visible else None,
        "contacting_relationship": ["touching"] if visible else None,
        "metadata": {"tag": f"AAAAA.mp4/{name}/000001", "set": split},
        "visible": visible,
        **changes,
    }


def person(boxes=((1.0, 2.0, 50.0, 60.0),), size=(100, 80)):
    n = len(boxes)
    return {
        "bbox": np.array(boxes, np.float32).reshape(n, 4),
        "bbox_score": np.ones(n, np.float32),
        "bbox_size": size,
        "bbox_mode": "xyxy",
        "keypoints": np.zeros((n, 17, 3), np.float32),
        "keypoints_logits": np.zeros((n, 17), np.float32),
    }


def make_root(path, objects, persons=None):
    folder = path / "annotations"
    folder.mkdir(parents=True)
    (path / "frames").mkdir()
    persons = {key: person() for key in objects} if persons is None else persons
    (folder / "object_bbox_and_relationship.pkl").write_bytes(pickle.dumps(objects, 3))
    (folder / "person_bbox.pkl").write_bytes(pickle.dumps(persons, 3))
    return path


def keys(video, *numbers):
    return [f"{video}.mp4/{number:06d}.png" for number in numbers]


def ids(root, rule, **options):
    return [record.image_id for record in ActionGenomeReader(root, frame_rule=rule, **options).records()]


def test_fixture_reads_as_expected(layouts):
    root = layouts / "action_genome"
    expected = json.loads((root / "EXPECTED_parse.json").read_text())
    reader = open_reader("action_genome", root, frame_rule="all")
    records = {f"{record.video_id}.mp4/{record.frame:06d}.png": record for record in reader.records()}
    assert list(records) == list(expected)
    for key, known in expected.items():
        record = records[key]
        assert (record.split, record.image) == (known["set"], root / "frames" / key)
        assert record.image_id == f"{record.video_id}_{record.frame}" and record.image.is_file()
        objects = [{"class": o.label, "xyxy": list(o.box)} for o in record.graph.objects]
        if known["person_xyxy"] is not None:
            assert objects.pop(0) == {"class": "person", "xyxy": known["person_xyxy"]}
        assert objects == [{name: found[name] for name in ("class", "xyxy")} for found in known["objects"]]
        labels = [[] for _ in record.graph.objects]
        for relation in record.graph.relations:
            assert relation.subject == 0
            assert relation.predicate in reader.vocabulary.groups[relation.group]
            labels[relation.object].append(relation.predicate)
        if known["person_xyxy"] is not None:
            assert labels[1:] == [found["person_to_object"] for found in known["objects"]]
    with_person = [key for key in expected if expected[key]["kept_by_STTran"]]
    oed = open_reader("action_genome", root, frame_rule="oed")
    assert [f"{r.video_id}.mp4/{r.frame:06d}.png" for r in oed.records()] == with_person
    assert ids(root, "sttran") == ["SYN02_5", "SYN02_15", "SYN02_40"]  # the others have one or two such frames
    assert (reader.name, reader.codec) == ("action_genome", "toon-pairs")
    assert oed.notes["frames left out: no person was detected"] == 1


def test_real_frames(shared, tmp_path):
    source = shared / "data" / "real" / "action_genome"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "frames").mkdir()
    for name in ("object_bbox_and_relationship", "person_bbox"):
        shutil.copy(source / f"{name}_REALSUBSET.pkl", tmp_path / "annotations" / f"{name}.pkl")
    for name in ("object_classes.txt", "relationship_classes.txt"):
        shutil.copy(source / name, tmp_path / "annotations")
    raw = json.loads((source / "object_bbox_and_relationship_REALSUBSET.json").read_text())
    boxes = json.loads((source / "person_bbox_REALSUBSET.json").read_text())
    reader = ActionGenomeReader(tmp_path, frame_rule="oed")
    records = {f"{record.video_id}.mp4/{record.frame:06d}.png": record for record in reader.records()}
    visible = {key: [o for o in objects if o["visible"]] for key, objects in raw.items()}
    assert sorted(records) == sorted(key for key in boxes if visible.get(key)) and records
    for key, record in records.items():
        graph = record.graph
        assert [graph.width, graph.height] == boxes[key]["bbox_size"]
        assert graph.objects[0].box == tuple(boxes[key]["bbox"][0])
        assert [o.label for o in graph.objects] == ["person", *(o["class"] for o in visible[key])]
        codec = get_codec("toon-pairs")
        assert codec.decode(codec.encode(graph), graph.width, graph.height, tags=False).relations == graph.relations
    totals = reader.totals()
    assert totals["annotated frames"] == (len(raw), 288782)
    assert totals["objects, visible or not"] == (sum(map(len, raw.values())), 737427)
    # without its entry in person_bbox.pkl a frame has no size, and these have no image either
    damaged = []
    everything = list(ActionGenomeReader(tmp_path, frame_rule="all").records(damaged.append))
    assert len(everything) + len(damaged) == len(raw)
    assert "which gives the size of the frame" in str(damaged[0])


def test_frame_rules_and_order(tmp_path):
    long, short = keys("LONGA", 30, 9, 20, 10), keys("SHORT", 1, 2)
    objects = {key: [entry()] for key in (long[0], short[1], long[1], *long[2:], short[0])}
    objects[long[2]] = [entry(box=None)]
    persons = {key: person() for key in objects}
    persons[long[3]] = person(boxes=())
    make_root(tmp_path, objects, persons)
    assert ids(tmp_path, "all") == ["LONGA_9", "LONGA_10", "LONGA_20", "LONGA_30", "SHORT_1", "SHORT_2"]
    assert ids(tmp_path, "oed") == ["LONGA_9", "LONGA_30", "SHORT_1", "SHORT_2"]
    assert ids(tmp_path, "sttran") == []
    reader = ActionGenomeReader(tmp_path)
    assert list(reader.records()) == list(reader.records()) == []
    assert reader.notes == {
        "objects left out: not visible": 1,
        "frames left out: no visible object": 1,
        "frames left out: no person was detected": 1,
        "frames left out: their video has only one or two": 4,
    }
    assert reader.totals()["train frames with a visible object and a person"] == (4, 177330)
    with pytest.raises(SgrlError, match="unknown frame rule 'strtan'; did you mean 'sttran'"):
        ActionGenomeReader(tmp_path, frame_rule="strtan")


def test_without_a_person_there_are_no_relations(tmp_path):
    key = keys("AAAAA", 1)[0]
    reader = ActionGenomeReader(make_root(tmp_path, {key: [entry()]}, {key: person(boxes=())}), frame_rule="all")
    (record,) = reader.records()
    assert [o.label for o in record.graph.objects] == ["table"] and not record.graph.relations
    assert reader.notes["relations left out: no person was detected"] == 4


def test_the_first_of_several_persons_is_the_subject(tmp_path):
    key = keys("AAAAA", 1)[0]
    boxes = ((5, 6, 7, 8), (1, 2, 3, 4))
    reader = ActionGenomeReader(make_root(tmp_path, {key: [entry()]}, {key: person(boxes)}), frame_rule="oed")
    (record,) = reader.records()
    assert record.graph.objects[0].box == (5, 6, 7, 8)
    assert reader.notes["persons left out: not the first of their frame"] == 1


def test_labels_of_another_group_or_of_none(tmp_path):
    key = keys("AAAAA", 1)[0]
    objects = [entry(attention_relationship=["holding"]), entry("unicorn", contacting_relationship=["riding"])]
    reader = ActionGenomeReader(make_root(tmp_path, {key: objects}), frame_rule="oed")
    (record,) = reader.records()
    first = record.graph.relations[0]
    assert (first.predicate, first.group) == ("holding", "contacting")
    assert reader.notes["relations listed under another group than theirs"] == 1
    assert record.graph.objects[2].label == "unicorn"  # the vocabulary is the business of cleaning
    assert record.graph.relations[-1].predicate == "riding"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class": 3}, "object 0: class must be a name, found 3"),
        ({"bbox": (1, 2, 3)}, r"object 0 \(table\): bbox must be x, y, width, height, found \[1, 2, 3\]"),
        ({"bbox": (1, 2, 3, float("nan"))}, "bbox must be x, y, width, height"),
        ({"spatial_relationship": "above"}, "spatial_relationship must list labels, found 'above'"),
        ({"metadata": {"set": "dev"}}, "metadata must say which set, 'train' or 'test', found 'dev'"),
        ({"metadata": None}, "metadata must say which set"),
    ],
)
@pytest.mark.parametrize("rule", FRAME_RULES)
def test_a_damaged_frame_is_named_and_skipped(tmp_path, rule, changes, message):
    good, bad = keys("AAAAA", 1, 2, 3), keys("AAAAA", 4)[0]
    root = make_root(tmp_path, {key: [entry()] for key in good} | {bad: [entry(**changes)]})
    damaged = []
    reader = ActionGenomeReader(root, frame_rule=rule)
    assert [record.frame for record in reader.records(damaged.append)] == [1, 2, 3]
    with pytest.raises(RecordError, match=message):
        raise damaged[0]
    assert str(damaged[0]).startswith("object_bbox_and_relationship.pkl, frame AAAAA.mp4/000004.png")
    with pytest.raises(RecordError, match=message):
        list(reader.records())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox_size": (0, 80)}, "bbox_size must be the frame's width and height"),
        ({"bbox_size": None}, "bbox_size the frame's width and height, found .* and None"),
        ({"bbox": np.zeros((1, 3), np.float32)}, r"bbox must be an \(N, 4\) array"),
        ({"bbox": np.full((1, 4), np.inf, np.float32)}, "of finite numbers"),
        ({"bbox": None}, "bbox must be an"),
        ({"bbox_mode": "xywh"}, "bbox_mode must be 'xyxy', found 'xywh'"),
    ],
)
def test_a_damaged_person_is_named(tmp_path, changes, message):
    key = keys("AAAAA", 1)[0]
    reader = ActionGenomeReader(make_root(tmp_path, {key: [entry()]}, {key: person() | changes}), frame_rule="oed")
    with pytest.raises(RecordError, match=f"person_bbox.pkl: .*{message}"):
        list(reader.records())


def test_the_size_comes_from_the_image_when_nothing_else_has_it(tmp_path):
    from PIL import Image

    key = keys("AAAAA", 1)[0]
    reader = ActionGenomeReader(make_root(tmp_path, {key: [entry()]}, {}), frame_rule="all")
    (tmp_path / "frames" / key).parent.mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "frames" / key)
    (record,) = reader.records()
    assert (record.graph.width, record.graph.height) == (64, 48)
    assert reader.notes["frames that person_bbox.pkl lacks"] == 1


def test_truncated_and_hostile_pickles(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was-run"),)

    root = make_root(tmp_path / "ag", {key: [entry()] for key in keys("AAAAA", 1, 2, 3)})
    for name in ("object_bbox_and_relationship.pkl", "person_bbox.pkl"):
        path = root / "annotations" / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(SgrlError, match=f"{name} is truncated: its {len(whole) // 2:,} bytes"):
            next(ActionGenomeReader(root).records())
        path.write_bytes(pickle.dumps({"AAAAA.mp4/000001.png": Runs()}, 3))
        with pytest.raises(SgrlError, match=rf"{name} is refused: it asks for (posix|nt)\.mkdir"):
            next(ActionGenomeReader(root).records())
        path.write_bytes(whole)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([1, 2], "holds list, expected a dictionary of frames"),
        ({}, "not empty"),
        ({"frame7": []}, "has the key 'frame7'; expected frames such as '001YG.mp4/000089.png'"),
        ({"../../x.mp4/000001.png": []}, "has the key '../../x.mp4/000001.png'"),
    ],
)
def test_other_pickles(tmp_path, objects, message):
    with pytest.raises(SgrlError, match=message):
        next(ActionGenomeReader(make_root(tmp_path, objects, {})).records())


def test_missing_files_say_what_is_expected(tmp_path):
    with pytest.raises(SgrlError, match="is not a folder; give Action Genome's root"):
        ActionGenomeReader(tmp_path / "nowhere")
    with pytest.raises(SgrlError, match="holds no annotations/object_bbox_and_relationship.pkl, only nothing"):
        ActionGenomeReader(tmp_path)
    root = make_root(tmp_path / "ag", {keys("AAAAA", 1)[0]: [entry()]})
    with pytest.raises(SgrlError, match="did you mean 'object_bbox_and_relationship.pkl'"):
        ActionGenomeReader(root, annotations="object_bbox_and_relationships.pkl")
    (root / "frames").rmdir()
    with pytest.raises(SgrlError, match="frames is not a folder; expected the frames of the videos there"):
        ActionGenomeReader(root)
    (root / "annotations" / "person_bbox.pkl").unlink()
    with pytest.raises(SgrlError, match="person_bbox.pkl does not exist"):
        ActionGenomeReader(root)


def test_other_class_lists(tmp_path, shared):
    root = make_root(tmp_path, {keys("AAAAA", 1)[0]: [entry()]})
    lists = shared / "data" / "real" / "action_genome"
    shutil.copy(lists / "relationship_classes.txt", root / "annotations")
    shutil.copy(lists / "object_classes.txt", root / "annotations")
    assert ActionGenomeReader(root).vocabulary.name == "action_genome"  # spelt without slashes and underscores there
    (root / "annotations" / "object_classes.txt").write_text("person\nsquare\n")
    reader = ActionGenomeReader(root)
    assert reader.vocabulary.objects == ("person", "square") and reader.vocabulary.groups
    assert reader.name == tmp_path.name and reader.totals() == {}
    (root / "annotations" / "object_classes.txt").write_text("square\n")
    with pytest.raises(SgrlError, match="has no 'person'"):
        ActionGenomeReader(root)
    (root / "annotations" / "relationship_classes.txt").write_text("lookingat\n")
    with pytest.raises(SgrlError, match="does not have Action Genome's 26 relationships"):
        ActionGenomeReader(root)


def test_records_can_be_read_again(layouts):
    reader = ActionGenomeReader(layouts / "action_genome", frame_rule="oed")
    first, notes = list(reader.records()), copy.copy(reader.notes)
    assert list(reader.records()) == first and reader.notes == notes


@pytest.mark.parametrize("folder", ["AAAAA.mp4", "AAAAA"])
@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png"])
def test_frames_of_other_suffixes(tmp_path, folder, suffix):
    root = make_root(tmp_path, {key: [entry()] for key in keys("AAAAA", 3, 5, 9)})
    (root / "frames" / folder).mkdir()
    for number in (3, 4, 5):
        (root / "frames" / folder / f"{number:06d}.{suffix}").touch()
    found = [record.image.relative_to(root / "frames") for record in ActionGenomeReader(root).records()]
    assert list(map(str, found)) == [f"{folder}/{n:06d}.{suffix}" for n in (3, 5)] + ["AAAAA.mp4/000009.png"]


def test_frames_numbered_from_zero_are_refused(tmp_path):
    root, damaged = make_root(tmp_path, {key: [entry()] for key in keys("AAAAA", 3, 5, 9)}), []
    (root / "frames" / "AAAAA.mp4").mkdir()
    (root / "frames" / "AAAAA.mp4" / "000000.jpg").touch()
    assert not list(ActionGenomeReader(root).records(damaged.append))
    assert len(damaged) == 3 and "has a frame 0, Action Genome counts from 1" in str(damaged[0])


def test_byte_order_marks_of_class_lists(tmp_path):
    root = make_root(tmp_path, {key: [entry()] for key in keys("AAAAA", 3, 5, 9)})
    (root / "annotations" / "object_classes.txt").write_text("person\ngadget\n", encoding="utf-8-sig")
    assert ActionGenomeReader(root).vocabulary.objects == ("person", "gadget")


def test_items_that_are_no_frame_are_damage(tmp_path):
    objects = {key: [entry()] for key in keys("AAAAA", 3, 5, 9)} | {"BBBBB/1.png": [entry()], 7: [entry()]}
    reader, damaged = ActionGenomeReader(make_root(tmp_path, objects)), []
    assert len(list(reader.records(damaged.append))) == 3
    assert "it has the key 'BBBBB/1.png'; expected frames such as" in str(damaged[0]) and len(damaged) == 2
