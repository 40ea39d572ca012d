"""Ranking the relations of a graph."""

import math

import numpy as np
import pytest

from rewards.metrics.ranking import ranked
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import ParsedGraph

GRAPH = ParsedGraph(
    ["person", "cup"],
    [(0.0, 0.0, 9.0, 9.0), (1.0, 1.0, 2.0, 2.0)],
    [(0, "a", 1), (1, "b", 0), (0, "c", -1), (0, "a", 1)],
)


def test_without_confidences_the_order_of_writing():
    found = ranked(GRAPH)
    assert found.predicates == ["a", "b", "c", "a"]
    assert found.subjects.tolist() == [0, 1, 0, 0] and found.objects.tolist() == [1, 0, -1, 1]
    assert found.scores.tolist() == [1, 1, 1, 1]
    assert found.boxes.shape == (2, 4) and found.labels == ["person", "cup"]


def test_confidences_from_high_to_low_ties_in_the_order_of_writing_unknown_ones_last():
    found = ranked(GRAPH, [0.5, None, 0.5, 0.75])
    assert found.predicates == ["a", "a", "c", "b"]
    assert found.scores.tolist() == [0.75, 0.5, 0.5, 0]
    assert found.objects.tolist() == [1, 1, -1, 0]
    assert ranked(GRAPH, [None, 0.0, math.nan, 7.0]).predicates == ["a", "b", "a", "c"]
    assert ranked(GRAPH, [None, 0.0, -math.inf, 7.0]).scores.tolist() == [1, 0, 0, 0]
    assert ranked(GRAPH, np.array([0.1, 0.2, 0.3, 0.4])).predicates == ["a", "c", "b", "a"]


def test_scene_graphs_carry_their_groups():
    objects = [Object("person", (0, 0, 9, 9)), Object("cup", (1, 1, 2, 2))]
    graph = SceneGraph(objects, [Relation(0, "in_front_of", 1, "spatial"), Relation(0, "near", 1)], 9, 9)
    assert ranked(graph, [0.1, 0.2]).predicates == ["near", "spatial__in_front_of"]


def test_an_empty_graph():
    found = ranked(ParsedGraph([], [], []), [])
    assert found.boxes.shape == (0, 4) and found.subjects.dtype == found.objects.dtype == np.int64
    assert len(found.scores) == len(found.predicates) == 0


def test_confidences_of_another_graph():
    with pytest.raises(SgrlError, match="3 confidences for 4 relations"):
        ranked(GRAPH, [0.1, 0.2, 0.3])


def test_a_scene_graph_with_scores_is_ranked_by_them():
    objects = [Object("cat", (0, 0, 9, 9)), Object("mat", (0, 5, 9, 9))]
    graph = SceneGraph(objects, [Relation(0, "near", 1), Relation(0, "on", 1, score=0.3)], 10, 10)
    assert ranked(graph).predicates == ["on", "near"]
    assert ranked(graph).scores.tolist() == [0.3, 0.0]
    assert ranked(graph, [0.9, 0.1]).predicates == ["near", "on"]
    assert ranked(graph, [2.5, 7.5]).predicates == ["on", "near"] and ranked(graph, [2.5, 7.5]).scores.tolist() == [
        1,
        1,
    ]
