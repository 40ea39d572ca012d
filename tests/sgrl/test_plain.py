"""Graphs as dictionaries and JSON, and back: nothing is lost, and what is wrong is named in one line."""

import copy
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrl.errors import SgrlError
from sgrl.graph import GraphError, Object, Relation, SceneGraph, tracks_of
from sgrl.tubes import BoxTube, MaskTube, TimedRelation, TubeObject, VideoGraph

TEXT = st.text(st.characters(), max_size=12)  # with control characters and halves of characters
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
SCORE = st.none() | st.floats(0, 1)

GRAPH = SceneGraph(
    [Object("person", (1, 2, 30, 40.5), 0.9), Object("horse", (10, 20, 90, 45))],
    [Relation(0, "riding", 1, score=0.25), Relation(1, "under", 0, "spatial", (0, 3))],
    100,
    50,
)
PLAIN = {
    "width": 100,
    "height": 50,
    "objects": [
        {"id": 1, "label": "person", "box": [1.0, 2.0, 30.0, 40.5], "score": 0.9, "track": 7},
        {"id": 2, "label": "horse", "box": [10.0, 20.0, 90.0, 45.0]},
    ],
    "relations": [
        {"subject": 1, "predicate": "riding", "object": 2, "score": 0.25},
        {"subject": 2, "predicate": "under", "object": 1, "group": "spatial", "span": [0, 3]},
    ],
}


@st.composite
def graphs(draw):
    objects = draw(st.lists(st.builds(Object, TEXT, st.tuples(*[NUMBER] * 4), SCORE), max_size=4))
    ends = st.integers(0, len(objects) - 1) if objects else st.nothing()
    group, span = st.none() | TEXT, st.none() | st.tuples(NUMBER, NUMBER)
    relations = draw(st.lists(st.builds(Relation, ends, TEXT, ends, group, span, SCORE), max_size=4))
    return SceneGraph(objects, relations, draw(st.integers(1, 10**6)), draw(st.integers(1, 10**6)))


def test_the_layout_is_that_of_the_documentation():
    assert GRAPH.to_dict(tracks=[7, None]) == PLAIN
    assert tracks_of(PLAIN) == [7, None] and SceneGraph.from_dict(PLAIN) == GRAPH


@given(graphs())
def test_a_graph_comes_back_as_it_was(graph):
    text = graph.to_json()
    assert text.isascii() and "\n" not in text
    assert SceneGraph.from_json(text) == graph and SceneGraph.from_dict(graph.to_dict()) == graph


def test_numbers_of_numpy_become_plain_and_unknown_scores_are_left_out():
    box, score = np.array([1, 2, 3, 4], np.float32), np.float32(0.5)
    objects = [Object("a", box, score), Object("b", box, float("nan"))]
    span = (np.int64(0), np.float64(2.5))
    graph = SceneGraph(objects, [Relation(np.int64(0), "on", np.int64(1), span=span, score=float("inf"))], 9, 9)
    found = json.loads(graph.to_json(tracks=[np.int64(3), "x"]))
    assert found["objects"][0]["score"] == 0.5 and "score" not in found["objects"][1]
    assert found["relations"] == [{"subject": 1, "predicate": "on", "object": 2, "span": [0, 2.5]}]
    assert [o["track"] for o in found["objects"]] == [3, "x"]
    with pytest.raises(ValueError, match="zip"):
        graph.to_dict(tracks=[1])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((), [], r"a graph must be a dictionary, found \[\]"),
        (("width",), "100", "width must be a finite number above 0, found '100'"),
        (("height",), 0, "height must be a finite number above 0, found 0"),
        (("height",), True, "height must be a finite number above 0, found True"),
        (("objects",), {}, "objects must be a list, found {}"),
        (("objects", 1), None, "object 2 must be a dictionary, found None"),
        (("objects", 1), {"id": 3, "lable": ""}, "object 2 has no 'label' and no 'box', only id, lable"),
        (("objects", 0, "label"), 3, "object 1: label must be a string, found 3"),
        (("objects", 0, "box"), [1, 2, 3], "object 1: box must be four finite numbers x1, y1, x2, y2"),
        (("objects", 0, "box"), [1, 2, 3, float("nan")], "object 1: box must be four finite numbers"),
        (("objects", 0, "box"), [1, 2, 3, 10**400], "object 1: box must be four finite numbers"),
        (("objects", 0, "box"), "1234", "object 1: box must be four finite numbers"),
        (("objects", 0, "score"), "high", "object 1: score must be a finite number, found 'high'"),
        (("objects", 0, "track"), 1.5, "object 1: track must be a whole number or a string, found 1.5"),
        (("objects", 1, "id"), 1, "object 2: id 1 is that of object 1, too"),
        (("objects", 1, "id"), None, "object 2: id must be a whole number or a string, found None"),
        (("relations",), 5, "relations must be a list, found 5"),
        (("relations", 0, "subject"), 3, "relation 1: subject must be the id of one of the 2 objects, found 3"),
        (("relations", 0, "object"), [1], r"relation 1: object must be the id of one of the 2 objects, found \[1\]"),
        (("relations", 0, "object"), True, "relation 1: object must be the id"),
        (("relations", 0, "predicate"), None, "relation 1: predicate must be a string, found None"),
        (("relations", 1, "group"), 1, "relation 2: group must be a string, found 1"),
        (("relations", 1, "span"), [1], r"relation 2: span must be two finite numbers, first and last, found \[1\]"),
        (("relations", 1, "span"), [1, 10**400], "relation 2: span must be two finite numbers"),
    ],
)
def test_what_is_wrong_is_named(place, value, message):
    data = copy.deepcopy(PLAIN)
    target = data
    for step in place[:-1]:
        target = target[step]
    if place:
        target[place[-1]] = value
    else:
        data = value
    with pytest.raises(GraphError, match=message) as found:
        SceneGraph.from_dict(data)
    assert len(str(found.value).splitlines()) == 1 and len(str(found.value)) < 300


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '{"width": NaN}', b"\xff\xfe\x00", "9" * 5000, None, '"\x1b[2J' + "x" * 9999],
)
def test_a_text_that_is_no_graph_is_one_line(text):
    with pytest.raises(GraphError, match="not a graph") as found:
        SceneGraph.from_json(text)
    assert len(str(found.value)) < 400 and str(found.value).isprintable()


def test_what_is_beside_a_graph_is_passed_over():
    more = PLAIN | {"image_id": "7.jpg", "relations": []}
    assert SceneGraph.from_dict(more).relations == ()
    del more["relations"]
    assert len(SceneGraph.from_dict(more).objects) == 2
    texts = {"a": 1, "b": 2}
    named = {
        "width": 1,
        "height": 1,
        "objects": [{"id": k, "label": k, "box": [0, 0, 1, v]} for k, v in texts.items()],
    }
    named["relations"] = [{"subject": "b", "predicate": "on", "object": "a"}]
    assert SceneGraph.from_dict(named).relations == (Relation(1, "on", 0),)


def test_a_video_comes_back_as_it_was():
    objects = [TubeObject("cat", BoxTube([(0, 0, 4, 4), None, (1, 1, 5, 5)])), TubeObject("mat", BoxTube([None] * 3))]
    relations = [TimedRelation(0, "on", 1, ((0, 0), (2, 2)), 0.5), TimedRelation(1, "under", 0)]
    video = VideoGraph(objects, relations)
    found = json.loads(video.to_json())
    assert found["frames"] == 3 and found["objects"][0]["boxes"] == [[0, 0, 4, 4], None, [1, 1, 5, 5]]
    assert found["relations"][0]["spans"] == [[0, 0], [2, 2]] and "spans" not in found["relations"][1]
    again = VideoGraph.from_json(video.to_json())
    assert again.relations == video.relations and [o.label for o in again.objects] == ["cat", "mat"]
    for one, other in zip(video.objects, again.objects, strict=True):
        assert np.array_equal(one.tube.boxes, other.tube.boxes)


def test_masks_of_a_video_come_back_as_they_were():
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    video = VideoGraph([TubeObject("cat", MaskTube.from_masks([mask, None, ~mask]))], [])
    found = json.loads(video.to_json())
    assert (found["width"], found["height"], found["frames"]) == (7, 5, 3) and found["objects"][0]["masks"][1] is None
    tube = VideoGraph.from_dict(found).objects[0].tube
    assert np.array_equal(tube.starts, video.objects[0].tube.starts)
    assert np.array_equal(tube.ends, video.objects[0].tube.ends) and tube.frames == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 1}, "object 1: 3 frames in a video of 1"),
        ({"frames": None}, "frames must be a whole number"),
        ({"objects": [{"id": 1, "label": "a", "boxes": [[1, 2]]}]}, "object 1, frame 0: box must be four"),
        ({"objects": [{"id": 1, "label": "a"}]}, "object 1: expected a list of boxes or masks"),
        ({"objects": [{"id": 1, "label": "a", "masks": []}]}, "object 1: masks need the video's width and height"),
        ({"relations": [{"subject": 1, "predicate": "on", "object": 1, "spans": [3]}]}, "relation 1: span 0 must be"),
    ],
)
def test_what_is_wrong_with_a_video_is_named(change, message):
    data = VideoGraph([TubeObject("cat", BoxTube([(0, 0, 4, 4)] * 3))], []).to_dict()
    assert VideoGraph.from_dict(data).frames == 3
    with pytest.raises(SgrlError, match=message):
        VideoGraph.from_dict(data | change)


def test_the_data_model_needs_no_pillow():
    import subprocess

    code = "import sys; sys.modules['PIL'] = None\nfrom sgrl.graph import SceneGraph\n"
    code += "print(SceneGraph.from_json(SceneGraph((), (), 1, 1).to_json()))"
    subprocess.run([sys.executable, "-c", code], check=True)
