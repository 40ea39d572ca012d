import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrl.graph import GraphError, Object, Relation, SceneGraph

DOG = Object("dog", (10, 20, 30, 40))
CAR = Object("car", (0, 0, 100, 50), score=0.5)


def test_a_graph_keeps_what_it_was_given_as_tuples_of_floats():
    graph = SceneGraph([DOG, CAR], [Relation(0, "in front of", 1, group="spatial")], 100, 50)
    assert graph.objects == (DOG, CAR) and isinstance(graph.relations, tuple)
    assert graph.objects[0].box == (10.0, 20.0, 30.0, 40.0) and isinstance(graph.objects[0].box[0], float)
    assert graph.boxes.shape == (2, 4) and graph.boxes.dtype == np.float64
    assert SceneGraph((), (), 1, 1).boxes.shape == (0, 4)


def test_numpy_boxes_and_indices_are_welcome():
    box = np.array([1, 2, 3, 4], dtype=np.float32)
    graph = SceneGraph((Object("a", box), Object("b", box)), (Relation(np.int64(0), "on", np.int64(1)),), 9, 9)
    assert graph.objects[0].box == (1.0, 2.0, 3.0, 4.0)
    assert hash(graph) == hash(dataclasses.replace(graph))


@pytest.mark.parametrize(
    "box", [(1, 2, 3), (1, 2, 3, float("nan")), (1, 2, 3, float("inf")), (1, 2, 3, 10**400), None, "abcd"]
)
def test_a_bad_box_names_its_object(box):
    with pytest.raises(GraphError, match="'dog'.*four finite numbers"):
        Object("dog", box)


@pytest.mark.parametrize(
    ("relation", "message"),
    [
        (Relation(0, "on", 2), "relation 0 .*object must be the position of one of the 2 objects, found 2"),
        (Relation(-1, "on", 1), "subject must be"),
        (Relation(0.0, "on", 1), "found 0.0"),
        (Relation(0, None, 1), "predicate must be a string"),
    ],
)
def test_a_relation_that_points_nowhere_is_named(relation, message):
    with pytest.raises(GraphError, match=message):
        SceneGraph((DOG, CAR), (relation,), 100, 50)


def test_an_image_without_area_is_refused():
    with pytest.raises(GraphError, match="0 x 50"):
        SceneGraph((), (), 0, 50)
    with pytest.raises(GraphError, match="label must be a string"):
        Object(3, (0, 0, 1, 1))


def test_cleaned_counts_every_fault():
    objects = (
        Object("dog", (10, 20, 30, 40)),
        Object("dog", (10, 20, 30, 40)),  # duplicate of 0
        Object("cat", (10, 20, 30, 40)),  # same box, other label: stays
        Object("car", (5, 5, 5, 9)),  # degenerate
        Object("bus", (90, 40, 130, 60)),  # leaves the image
        Object("kite", (200, 200, 300, 300)),  # outside: nothing is left of it
    )
    relations = (
        Relation(0, "on", 2),
        Relation(1, "on", 2),  # the same after merging
        Relation(0, "on", 1),  # a self-relation after merging
        Relation(0, "on", 3),
        Relation(5, "over", 0),
        Relation(0, "near", 2),
        Relation(2, "on", 4, span=(0, 1)),
        Relation(2, "on", 4, span=(2, 3)),
    )
    graph, report = SceneGraph(objects, relations, 100, 50).cleaned()
    assert [o.label for o in graph.objects] == ["dog", "cat", "bus"]
    assert graph.objects[2].box == (90, 40, 100, 50)
    assert [(r.subject, r.predicate, r.object) for r in graph.relations] == [
        (0, "on", 1),
        (0, "near", 1),
        (1, "on", 2),
        (1, "on", 2),
    ]
    assert report == {
        "out_of_image_boxes": 2,
        "degenerate_boxes": 2,
        "duplicate_objects": 1,
        "orphaned_relations": 2,
        "self_relations": 1,
        "duplicate_relations": 1,
    }
    again, report = graph.cleaned()
    assert again == graph and not any(report.values())


def test_resized_scales_boxes():
    graph = SceneGraph((DOG,), (), 100, 50).resized(200, 25)
    assert graph.objects[0].box == (20, 10, 60, 20) and (graph.width, graph.height) == (200, 25)


@given(st.data())
def test_cleaned_is_idempotent_and_keeps_boxes_in_the_image(data):
    number = st.floats(-50, 150) | st.integers(-50, 150)
    objects = data.draw(st.lists(st.builds(Object, st.sampled_from("ab"), st.tuples(*[number] * 4)), max_size=6))
    index = st.integers(0, max(0, len(objects) - 1))
    relations = data.draw(
        st.lists(st.builds(Relation, index, st.sampled_from("xy"), index), max_size=6 if objects else 0)
    )
    graph, report = SceneGraph(objects, relations, 100, 60).cleaned()
    assert graph.cleaned() == (graph, dict.fromkeys(report, 0))
    assert len(graph.objects) + report["degenerate_boxes"] + report["duplicate_objects"] == len(objects)
    lost = sum(report[key] for key in ("orphaned_relations", "self_relations", "duplicate_relations"))
    assert len(graph.relations) + lost == len(relations)
    boxes = graph.boxes
    assert (boxes >= 0).all() and (boxes[:, 2:] <= (100, 60)).all() and (boxes[:, :2] < boxes[:, 2:]).all()
