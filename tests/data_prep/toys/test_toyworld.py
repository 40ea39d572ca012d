"""The toy world: what its documentation promises, and the official layout on disk."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data_prep import toyworld
from data_prep.toys import psg
from data_prep.toys.scene import OBJECTS, PREDICATES, SIZE, scene
from sgrl.errors import SgrlError


@pytest.fixture(scope="module")
def scenes():
    return [scene(0, index) for index in range(400)]


def test_a_scene_depends_on_its_arguments_alone(scenes):
    again = scene(0, 7)
    assert np.array_equal(again.image, scenes[7].image) and again[1:4] == scenes[7][1:4]
    for other in (scene(1, 7), scene(0, 8), scene(0, 7, "test")):
        assert not np.array_equal(other.image, again.image)
    with pytest.raises(SgrlError, match="'val', expected 'train' or 'test'"):
        scene(0, 0, "val")


def test_boxes_are_what_can_be_seen(scenes):
    for drawn in scenes:
        assert drawn.image.shape == (SIZE, SIZE, 3) and drawn.image.dtype == np.uint8
        assert 2 <= len(drawn.boxes) == len(drawn.labels) == len(drawn.segment_ids) <= 4
        assert drawn.boxes == sorted(drawn.boxes)
        assert set(np.unique(drawn.segments)) == {0, *drawn.segment_ids}
        for box, segment in zip(drawn.boxes, drawn.segment_ids, strict=True):
            y, x = np.nonzero(drawn.segments == segment)
            assert box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
            assert all(value % 4 == 0 and 0 <= value <= SIZE for value in box)
            assert box[2] - box[0] == box[3] - box[1] and 12 <= box[2] - box[0] <= 40


def test_background_is_light_and_shapes_are_not(scenes):
    for drawn in scenes[:50]:
        background = drawn.image[drawn.segments == 0]
        assert background.min() >= 225 - 6 and background.max() <= 255
        for segment in drawn.segment_ids:
            assert drawn.image[drawn.segments == segment].mean() < 200


def test_relations_follow_from_the_boxes(scenes):
    for drawn in scenes:
        pairs = [frozenset((s, o)) for s, _, o in drawn.relations]
        assert len(set(pairs)) == len(pairs) and all(len(pair) == 2 for pair in pairs)
        centres = np.array([[(b[0] + b[2]) / 2, (b[1] + b[3]) / 2] for b in drawn.boxes])
        distances = np.linalg.norm(centres[:, None] - centres[None], axis=2) + np.diag([np.inf] * len(centres))
        for s, predicate, o in drawn.relations:
            a, b = np.array(drawn.boxes[s]), np.array(drawn.boxes[o])
            assert distances[s, o] in (distances[s].min(), distances[o].min())
            inside = (b[:2] <= a[:2]).all() and (a[2:] <= b[2:]).all()
            meet = (a[:2] < b[2:]).all() and (b[:2] < a[2:]).all()
            dx, dy = centres[o] - centres[s]
            expected = {
                "inside": inside,
                "overlapping": meet and not inside and s < o,
                "left-of": not meet and dx > 0 and dx >= abs(dy) and distances[s, o] < 50,
                "above": not meet and dy > 0 and dy > abs(dx) and distances[s, o] < 50,
            }
            assert expected[predicate]


def test_statistics_are_near_the_published_trial(scenes):
    relations = Counter(predicate for drawn in scenes for _, predicate, _ in drawn.relations)
    total = sum(relations.values())
    assert 1.6 < total / len(scenes) < 1.9
    assert 0.03 < sum(not drawn.relations for drawn in scenes) / len(scenes) < 0.12
    assert 0.4 < relations["overlapping"] / total < 0.56
    assert set(relations) == set(PREDICATES)
    classes = Counter(label for drawn in scenes for label in drawn.labels)
    assert all(0.2 < classes[label] / classes.total() < 0.3 for label in OBJECTS)


def test_writes_the_official_layout(tmp_path):
    counts = psg.write(tmp_path, train=6, test=3, seed=5)
    assert (counts["train"], counts["test"]) == (6, 3)
    found = json.loads((tmp_path / "psg" / "psg.json").read_text())
    keys = ["data", "thing_classes", "stuff_classes", "predicate_classes", "test_image_ids"]
    assert list(found) == keys and len(found["data"]) == 9
    record_keys = (
        "file_name height width image_id pan_seg_file_name segments_info relations annotations coco_image_id".split()
    )
    for number, record in enumerate(found["data"]):
        assert list(record) == record_keys
        assert (record["image_id"] in found["test_image_ids"]) == (number >= 6)
        drawn = scene(5, number % 6, "train" if number < 6 else "test")
        photo = np.asarray(Image.open(tmp_path / "coco" / record["file_name"]), int)
        assert np.abs(photo - drawn.image).mean() < 3  # JPEG keeps small shapes: mean error of a few grey levels
        worst = max(np.abs(photo - drawn.image)[drawn.segments == segment].mean() for segment in drawn.segment_ids)
        assert worst < 4
        rgb = np.asarray(Image.open(tmp_path / "coco" / record["pan_seg_file_name"]), int)
        segments = rgb @ [1, 256, 65536]
        for info, annotation in zip(record["segments_info"], record["annotations"], strict=True):
            assert info["area"] == np.count_nonzero(segments == info["id"])
            assert info["category_id"] == annotation["category_id"]
        assert [tuple(annotation["bbox"]) for annotation in record["annotations"]] == drawn.boxes


def test_complete_output_is_kept_and_other_arguments_replace_it(tmp_path):
    psg.write(tmp_path, train=2, test=1)
    before = (tmp_path / "psg" / "psg.json").stat()
    assert psg.write(tmp_path, train=2, test=1) is None
    assert (tmp_path / "psg" / "psg.json").stat().st_mtime_ns == before.st_mtime_ns
    assert psg.write(tmp_path, train=1, test=1)["train"] == 1
    assert len(list((tmp_path / "coco" / "train2017").iterdir())) == 1


def test_interrupted_drawing_leaves_no_annotations(tmp_path, monkeypatch):
    def stop(seed, index, split):
        if index == 2:
            raise KeyboardInterrupt
        return scene(seed, index, split)

    monkeypatch.setattr(psg, "scene", stop)
    with pytest.raises(KeyboardInterrupt):
        psg.write(tmp_path, train=5, test=1)
    assert list((tmp_path / "psg").iterdir()) == []
    monkeypatch.undo()
    assert psg.write(tmp_path, train=5, test=1)["train"] == 5


def test_several_processes_draw_the_same(tmp_path, capsys):
    """40 scenes: more than the processes get at once."""
    options = ["--train", "37", "--test", "3"]
    for workers in ("1", "2"):
        assert toyworld.main(["--output", str(tmp_path / workers), *options, "--workers", workers]) == 0
    alone, together = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in "12"
    )
    assert alone == together and len(alone) == 82
    first, second = (
        text.partition("\n")[2].rpartition("\n  ")[0] for text in capsys.readouterr().out.split("scenes in")[1:]
    )
    assert first == second and "relations:" in second  # counts alike
    assert toyworld.main(["--output", str(tmp_path / "x"), "--layout", "vg", "--workers", "2"]) == 2
    assert "--workers 2 is for --layout psg" in capsys.readouterr().err


def test_command(tmp_path, capsys):
    assert toyworld.main(["--output", str(tmp_path), "--train", "3", "--test", "1"]) == 0
    assert "4 scenes" in capsys.readouterr().out
    assert toyworld.main(["--output", str(tmp_path), "--train", "3", "--test", "1"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert toyworld.main(["--output", str(tmp_path / "x"), "--train", "-3"]) == 2
    assert "cannot draw -3" in capsys.readouterr().err


def test_never_touches_somebody_elses_annotations(tmp_path, capsys):
    (tmp_path / "psg").mkdir()
    (tmp_path / "psg" / "psg.json").write_text("{}")
    assert toyworld.main(["--output", str(tmp_path), "--train", "3"]) == 1
    assert "was not written by this command" in capsys.readouterr().err
    assert (tmp_path / "psg" / "psg.json").read_text() == "{}"
