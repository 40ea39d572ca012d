"""Toy videos: masks, boxes and relations say what moves; the readers of PVSG and Action Genome give it back."""

import json
import pickle

import numpy as np
import pytest

from data_prep import to_toon, toyworld
from data_prep.readers import open_reader
from data_prep.readers.pvsg import SOURCES
from data_prep.toys import action_genome, pvsg
from data_prep.toys.action_genome import relations
from data_prep.toys.scene import OBJECTS, PREDICATES, SIZE, relations_of
from data_prep.toys.video import PERSON, video
from sgrl.data import load
from sgrl.errors import SgrlError
from sgrl.text import get_codec


@pytest.fixture(scope="module")
def videos():
    return [video(1, index, frames=12, person=index % 2 == 1) for index in range(40)]


def test_masks_and_boxes_are_one_thing(videos):
    for drawn in videos:
        for layer, boxes in zip(drawn.layers, drawn.boxes, strict=True):
            assert set(np.unique(layer)) - {-1} == {i for i, box in enumerate(boxes) if box is not None}
            for i, box in enumerate(boxes):
                if box is not None:
                    y, x = np.nonzero(layer == i)
                    assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == box


def test_relations_follow_from_the_boxes_of_each_frame(videos):
    for drawn in videos:
        for boxes, found in zip(drawn.boxes, drawn.relations, strict=True):
            there = sorted((box, i) for i, box in enumerate(boxes) if box is not None)
            expected = relations_of([box for box, _ in there]) if len(there) > 1 else []
            assert found == sorted((there[s][1], p, there[o][1]) for s, p, o in expected)


def test_there_is_motion_and_coming_and_going(videos):
    steps, absent = [], 0
    for drawn in videos:
        for before, after in zip(drawn.boxes, drawn.boxes[1:], strict=False):
            for a, b in zip(before, after, strict=True):
                absent += b is None
                if a and b:
                    steps.append(max(abs(a[0] - b[0]), abs(a[1] - b[1])))
    assert set(steps) == {0, 4} and 0.2 < np.mean(np.array(steps) > 0) < 0.8
    assert absent > 20


def test_a_person_comes_first_and_points_where_it_goes(videos):
    for drawn in videos[1::2]:
        assert drawn.labels[0] == PERSON and set(drawn.labels[1:]) <= set(OBJECTS)
        assert set(drawn.facing) <= {-1, 1}
        for frame in range(1, len(drawn.boxes)):
            before, now = drawn.boxes[frame - 1][0], drawn.boxes[frame][0]
            if before and now and before[0] != now[0]:
                assert drawn.facing[frame] == np.sign(now[0] - before[0])
    assert all(PERSON not in drawn.labels and set(drawn.facing) == {0} for drawn in videos[::2])


def test_a_video_depends_on_its_arguments_only(videos):
    again = video(1, 3, frames=12, person=True)
    assert np.array_equal(again.images, videos[3].images) and again.relations == videos[3].relations
    for other in (video(2, 3, frames=12, person=True), video(1, 3, "test", 12, True), video(1, 5, "train", 12, True)):
        assert not np.array_equal(other.images, again.images)
    with pytest.raises(SgrlError, match="expected 'train' or 'test'"):
        video(0, 0, "val")
    with pytest.raises(SgrlError, match="a video of 0 frames"):
        video(0, 0, frames=0)


def test_pvsg_gives_back_what_was_drawn(tmp_path):
    counts = pvsg.write(tmp_path, train=7, test=3, seed=4, frames=6)
    assert (counts["train"], counts["test"], counts["frames"]) == (7, 3, 60)
    reader = open_reader("pvsg", tmp_path)
    assert reader.vocabulary.objects == OBJECTS and reader.vocabulary.predicates == PREDICATES
    records = list(reader.records())
    assert len(records) == 60 and not reader.notes
    assert {record.image.relative_to(tmp_path).parts[0] for record in records} == set(SOURCES)
    for number, record in enumerate(records):
        split, index = ("train", number // 6) if number < 42 else ("test", number // 6 - 7)
        drawn, frame = video(4, index, split, 6), number % 6
        there = [i for i, box in enumerate(drawn.boxes[frame]) if box is not None]
        assert (record.frame, record.split) == (frame, "train" if split == "train" else "val")
        assert [o.box for o in record.graph.objects] == [drawn.boxes[frame][i] for i in there]
        assert [o.label for o in record.graph.objects] == [drawn.labels[i] for i in there]
        found = sorted((there[r.subject], r.predicate, there[r.object]) for r in record.graph.relations)
        assert found == drawn.relations[frame]
        assert record.image.is_file()


def test_spans_of_pvsg_are_runs_with_both_ends():
    assert pvsg.spans([0, 1, 2, 5, 7, 8]) == [[0, 2], [5, 5], [7, 8]]


def test_action_genome_gives_back_what_was_drawn(tmp_path):
    action_genome.write(tmp_path, train=5, test=2, seed=4, frames=6)
    reader = open_reader("action_genome", tmp_path, frame_rule="all")
    assert reader.vocabulary.objects == (PERSON, *OBJECTS)
    records = list(reader.records())
    assert len(records) == 42
    for number, record in enumerate(records):
        split, index = ("train", number // 6) if number < 30 else ("test", number // 6 - 5)
        drawn, frame = video(4, index, split, 6, person=True), number % 6
        boxes = [box for box in drawn.boxes[frame] if box is not None]
        assert [o.box for o in record.graph.objects] == boxes and record.split == split
        assert record.image.is_file()
        if drawn.boxes[frame][0] is not None:
            expected = [
                (group, label, i)
                for i, box in enumerate(boxes[1:], 1)
                for group, labels in relations(boxes[0], box, drawn.facing[frame]).items()
                for label in labels
            ]
            assert [(r.group, r.predicate, r.object) for r in record.graph.relations] == expected
            assert {r.subject for r in record.graph.relations} <= {0}
    kept = list(open_reader("action_genome", tmp_path, frame_rule="oed").records())
    assert 0 < len(kept) < len(records)
    first = pickle.loads((tmp_path / "annotations" / "person_bbox.pkl").read_bytes())
    lines = (tmp_path / "annotations" / "frame_list.txt").read_text().splitlines()
    assert sorted(first) == sorted(lines) and len(lines) == 42


@pytest.mark.parametrize(
    ("target", "facing", "expected"),
    [
        ((60, 20, 80, 40), 1, ("looking_at", ["on_the_side_of"], "not_contacting")),
        ((60, 20, 80, 40), -1, ("not_looking_at", ["on_the_side_of"], "not_contacting")),
        ((24, 60, 44, 80), 1, ("unsure", ["beneath"], "not_contacting")),
        ((20, 0, 40, 12), 1, ("unsure", ["above"], "not_contacting")),
        ((24, 24, 36, 36), 1, ("unsure", ["in_front_of", "on_the_side_of"], "holding")),
        ((40, 4, 92, 56), 1, ("looking_at", ["behind", "on_the_side_of"], "touching")),
    ],
)
def test_relations_of_a_person(target, facing, expected):
    attention, spatial, contacting = expected
    found = relations((20, 20, 50, 50), target, facing)
    assert found == {"attention": [attention], "spatial": spatial, "contacting": [contacting]}


@pytest.mark.parametrize(
    ("layout", "codec", "splits"),
    [("pvsg", "toon", ("train", "val")), ("action_genome", "toon-pairs", ("train", "test"))],
)
def test_command_and_converter(tmp_path, capsys, layout, codec, splits):
    world, rows = tmp_path / "world", tmp_path / "rows"
    command = ["--layout", layout, "--output", str(world), "--train", "4", "--test", "2", "--frames", "5"]
    assert toyworld.main(command) == 0
    assert "6 videos of 5 frames" in capsys.readouterr().out
    assert toyworld.main(command) == 0
    assert "nothing to do" in capsys.readouterr().out
    arguments = ["--dataset", layout, "--root", str(world), "--output", str(rows), "--resize", "keep"]
    assert to_toon.main([*arguments, "--codec", codec]) == 0
    for split in splits:
        for row in load(rows, split):
            assert row["image"].size == (SIZE, SIZE)
            assert get_codec(codec).decode(row["solution"], SIZE, SIZE, tags=False).relations


@pytest.mark.parametrize("layout", ["pvsg", "action_genome"])
def test_bad_arguments(tmp_path, capsys, layout):
    output = ["--layout", layout, "--output", str(tmp_path)]
    for more, message in (
        (["--train", "-1"], "cannot draw -1 training"),
        (["--train", "1", "--frames", "0"], "videos of 0 frames"),
        (["--train", "10001"], "give numbers from 0 to 10,000"),
    ):
        assert toyworld.main([*output, *more]) == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    annotations = tmp_path / toyworld.LAYOUTS[layout].annotations
    annotations.parent.mkdir(exist_ok=True)
    annotations.write_text("{}")
    assert toyworld.main([*output, "--train", "1"]) == 1
    assert "was not written by this command" in capsys.readouterr().err


def test_unknown_layout(tmp_path, capsys):
    assert toyworld.main(["--layout", "pvgs", "--output", str(tmp_path)]) == 2
    assert "unknown layout 'pvgs'; did you mean 'pvsg'" in capsys.readouterr().err
    assert toyworld.main(["--frames", "3", "--output", str(tmp_path)]) == 2
    assert "--frames is for videos" in capsys.readouterr().err


def test_interrupted_drawing_is_done_again(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    pvsg.write(tmp_path, train=3, test=1, frames=2)
    with monkeypatch.context() as patched:
        patched.setattr(pvsg, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            pvsg.write(tmp_path, train=4, test=1, frames=2)
    assert not (tmp_path / "pvsg.json").exists()
    assert pvsg.write(tmp_path, train=4, test=1, frames=2)["train"] == 4
    assert len(json.loads((tmp_path / "pvsg.json").read_text())["data"]) == 5


def convert(root, output, layout, capsys, *more):
    arguments = ["--dataset", layout, "--root", str(root), "--output", str(output), "--resize", "keep", "--keep-empty"]
    code = to_toon.main([*arguments, "--codec", "toon-pairs" if layout == "action_genome" else "toon", *more])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_pvsg_with_faults_is_converted_but_for_them(tmp_path, capsys):
    """Missing files, a mask of another size, foreign labels, spans and ids beyond the video, one without relations."""
    from PIL import Image

    pvsg.write(tmp_path, train=4, test=1, frames=3)
    path = tmp_path / "pvsg.json"
    content = json.loads(path.read_text())
    first, second, third, fourth, _ = content["data"]
    folder = tmp_path / "vidor"
    (folder / "frames" / first["video_id"] / "0000.png").unlink()
    Image.new("P", (50, 50), 1).save(folder / "masks" / first["video_id"] / "0001.png")
    second["objects"][0]["category"] = "unicorn"
    second["relations"].append([1, 2, "dreaming of", [[0, 99]]])
    third["relations"].append([1, 99, "inside", [[0, 1]]])
    fourth["relations"] = []
    path.write_text(json.dumps(content))
    code, printed = convert(tmp_path, tmp_path / "rows", "pvsg", capsys)
    assert code == 0
    assert "0001.png has 96 x 96 pixels, its annotation says 50 x 50" in printed
    assert "relation" in printed and "the object 99 is not the object_id" in printed
    assert "label outside the vocabulary" in printed and "predicate outside the vocabulary" in printed
    assert sorted(row["image_id"].rsplit("_", 1)[0] for row in load(tmp_path / "rows", "train")) == sorted(
        [first["video_id"]] + 3 * [second["video_id"]] + 3 * [third["video_id"]] + 3 * [fourth["video_id"]]
    )


def test_action_genome_with_faults_is_converted_but_for_them(tmp_path, capsys):
    action_genome.write(tmp_path, train=3, test=1, frames=4)
    path = tmp_path / toyworld.LAYOUTS["action_genome"].annotations
    objects = pickle.loads(path.read_bytes())
    keys = [key for key in objects if key.startswith("T")]
    objects[keys[0]][0] |= {"class": "unicorn", "bbox": (1.0, 2.0, 30.0, 40.0), "visible": True}
    objects[keys[1]] = "nothing"
    for key in keys[2:4]:
        (tmp_path / "frames" / key).unlink()
    path.write_bytes(pickle.dumps(objects, 3))
    # all frames are asked for: the standard rule may leave out those with the faults
    reader = open_reader("action_genome", tmp_path, frame_rule="all")
    damaged = []
    assert len(list(reader.records(damaged.append))) == 15 and len(damaged) == 1
    code, printed = convert(tmp_path, tmp_path / "rows", "action_genome", capsys)
    assert code == 0
    assert "T0000.mp4/000009.png: expected a list of objects, found 'nothing'" in printed
    path.write_bytes(pickle.dumps(objects, 3)[:-20])
    code, printed = convert(tmp_path, tmp_path / "other", "action_genome", capsys)
    assert code == 1 and "object_bbox_and_relationship.pkl is truncated" in printed
    assert not list((tmp_path / "other").glob("*"))
