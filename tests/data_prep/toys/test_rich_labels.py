"""Rich labels of the toy Action Genome: what time and class say, and shapes out of focus."""

import pickle

import numpy as np
import pytest

from data_prep import toyworld
from data_prep.readers import open_reader
from data_prep.toys import action_genome
from data_prep.toys.action_genome import carried, relations, rich_relations
from data_prep.toys.video import PERSON, Video, video


def ways(*boxes_of_shapes):
    """A video of shapes with these boxes, the person's first."""
    boxes = [list(frame) for frame in zip(*boxes_of_shapes, strict=True)]
    return Video(np.zeros(0), np.zeros(0), [PERSON, "cross"], boxes, [1] * len(boxes), [])


A, B, C = (0, 0, 40, 40), (4, 0, 44, 40), (8, 0, 48, 40)
a, b, c = (8, 8, 20, 20), (12, 8, 24, 20), (16, 8, 28, 20)


@pytest.mark.parametrize(
    ("person", "target", "expected"),
    [
        ((A, B, B), (a, b, b), [True, True, False]),  # to the next frame, from the one before
        ((A, A, A), (a, a, a), [False, False, False]),  # still
        ((A, B, C), (a, a, a), [False, False, False]),  # the person goes away
        ((A, A, A), (a, b, c), [False, False, False]),
        ((A, B, C), (a, None, c), [False, False, False]),
        ((None, A, B), (a, a, b), [False, True, True]),
        ((A,), (a,), [False]),
    ],
)
def test_carried_is_moved_with_the_person(person, target, expected):
    drawn = ways(person, target)
    assert [carried(drawn, frame, 1) for frame in range(len(expected))] == expected


PERSON_BOX = (20, 20, 50, 50)


@pytest.mark.parametrize(
    ("label", "target", "moved", "expected"),
    [
        ("square", (24, 24, 36, 36), True, "carrying"),
        ("square", (24, 24, 36, 36), False, "holding"),
        ("circle", (24, 24, 36, 36), False, "drinking_from"),
        ("circle", (24, 24, 36, 36), True, "carrying"),
        ("square", (20, 44, 48, 72), False, "sitting_on"),
        ("square", (20, 0, 48, 28), False, "touching"),
        ("cross", (44, 24, 72, 52), False, "writing_on"),
        ("cross", (20, 44, 48, 72), False, "touching"),
        ("triangle", (20, 0, 48, 28), False, "wearing"),
        ("triangle", (20, 44, 48, 72), True, "touching"),
        ("triangle", (70, 70, 90, 90), True, "not_contacting"),
    ],
)
def test_names_of_contacts(label, target, moved, expected):
    plain = relations(PERSON_BOX, target, 1)
    assert rich_relations(plain, label, moved) == {**plain, "contacting": [expected]}


def test_blobs_change_the_picture_alone():
    grey = shapes = 0
    for index in range(30):
        plain, blurred = (video(3, index, frames=8, person=True, blurred=share) for share in (0.0, 0.1))
        assert (plain.boxes, plain.relations, plain.facing) == (blurred.boxes, blurred.relations, blurred.facing)
        for layer, image, boxes in zip(blurred.layers, blurred.images, blurred.boxes, strict=True):
            assert set(np.unique(layer)) - {-1} == {i for i, box in enumerate(boxes) if box is not None}
            for i, box in enumerate(boxes):
                if box is None:
                    continue
                y, x = np.nonzero(layer == i)
                assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == box
                is_grey = bool((np.abs(image[layer == i].astype(int) - 128) <= 6).all())
                assert not (is_grey and i == 0)
                grey, shapes = grey + is_grey, shapes + (i > 0)
    assert 0.06 < grey / shapes < 0.11  # a few would hide what they must not


def test_the_folder_is_read_and_has_every_predicate(tmp_path, capsys, caplog):
    command = ["--layout", "action_genome", "--labels", "rich", "--output", str(tmp_path), "--frames", "16"]
    assert toyworld.main([*command, "--train", "30", "--test", "2"]) == 0
    assert "no test frame has" in caplog.text  # rare ones
    assert toyworld.main([*command, "--train", "30", "--test", "2"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    reader = open_reader("action_genome", tmp_path, frame_rule="all")
    read = {relation.predicate for record in reader.records() for relation in record.graph.relations}
    with open(tmp_path / action_genome.ANNOTATIONS, "rb") as file:
        entries = [entry for frame in pickle.load(file).values() for entry in frame]
    groups = [f"{group}_relationship" for group in ("attention", "spatial", "contacting")]
    written = {label for entry in entries for group in groups for label in entry[group] or ()}
    assert read == written and {"carrying", "holding", "drinking_from", "sitting_on", "writing_on"} <= read


def test_plain_and_rich_are_two_drawings(tmp_path):
    arguments = {"train": 1, "test": 1, "frames": 4}
    assert action_genome.write(tmp_path, **arguments) and not action_genome.write(tmp_path, **arguments)
    assert action_genome.write_rich(tmp_path, **arguments)
    assert not action_genome.write_rich(tmp_path, **arguments)


def test_only_action_genome_has_them(tmp_path, capsys):
    assert toyworld.main(["--layout", "pvsg", "--labels", "rich", "--output", str(tmp_path)]) != 0
    assert "--labels rich is for --layout action_genome, found pvsg" in capsys.readouterr().err
