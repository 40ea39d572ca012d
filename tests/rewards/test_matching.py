"""Assignments and geometry against slow, obvious versions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.matching import Reference, count_matches, geometry, in_order
from sgrl import boxes as slow
from sgrl.text import ParsedGraph


def brute_force(candidates):
    """The largest number of different partners that can be handed out."""
    best = 0
    for choice in itertools.product(*[[None, *partners] for partners in candidates]):
        given_out = [partner for partner in choice if partner is not None]
        if len(set(given_out)) == len(given_out):
            best = max(best, len(given_out))
    return best


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True), max_size=5))
def test_count_matches_is_maximum(candidates):
    assert count_matches(candidates) == brute_force(candidates)


def test_count_matches_beats_greedy():
    assert count_matches([[0, 1], [0]]) == 2
    assert count_matches([[0, 1], [0, 2], [0], [1]]) == 3
    assert count_matches([]) == 0


def test_count_matches_of_a_large_crowd():
    assert count_matches([list(range(400))] * 399 + [[0]]) == 400


coordinates = st.lists(st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(1, 50)] * 2), min_size=1, max_size=5)


@given(coordinates, coordinates)
def test_geometry_is_that_of_boxes(a, b):
    a, b = (np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], dtype=float) for boxes in (a, b))
    found = geometry(a, b, 640, 480)
    np.testing.assert_allclose(found.iou, slow.iou(a, b), atol=1e-12)
    np.testing.assert_allclose(found.giou, slow.giou(a, b), atol=1e-12)
    np.testing.assert_allclose(found.l1, slow.l1(a, b, 640, 480), atol=1e-12)


def test_geometry_of_nothing():
    assert geometry(np.zeros((0, 4)), np.zeros((3, 4)), 10, 10).iou.shape == (0, 3)


def test_objects_in_order_keep_their_relations():
    graph = ParsedGraph(["b", "a"], [(5, 5, 9, 9), (0, 0, 2, 2)], [(0, "on", 1), (-1, "on", 0)])
    ordered, order = in_order(graph)
    assert ordered == ParsedGraph(["a", "b"], [(0, 0, 2, 2), (5, 5, 9, 9)], [(1, "on", 0), (-1, "on", 1)])
    assert order == [1, 0]
    assert Reference(graph).labels == ["a", "b"]


def test_relation_candidates_need_labels_predicate_and_both_boxes():
    truth = Reference(ParsedGraph(["cat", "mat"], [(0, 0, 9, 9), (5, 5, 20, 20)], [(0, "on", 1)]))
    graph = ParsedGraph(["cat", "mat", "cat"], [], [(0, "on", 1), (0, "by", 1), (1, "on", 0), (2, "on", 1)])
    offsets = [0, 2, 4]
    both_cats_near = {0 + 0, 2 + 1, 4 + 0}
    assert truth.candidates(graph, offsets, both_cats_near) == [[0], [0]]
    assert truth.candidates(graph, offsets, {0 + 0, 2 + 1}) == [[0]]
    assert truth.candidates(graph, offsets, {0 + 0}) == []
    assert count_matches(truth.candidates(graph, offsets, both_cats_near)) == 1


@pytest.mark.parametrize("iou, near", [(0.5, True), (0.49, False)])
def test_a_threshold_is_reached_by_equality(iou, near):
    a = np.array([[0.0, 0.0, 100.0, 100.0]])
    b = np.array([[0.0, 0.0, 100.0, 100.0 * iou]])
    assert (geometry(a, b, 640, 480).iou[0, 0] >= 0.5) == near
