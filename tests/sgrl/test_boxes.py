import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sgrl import boxes

A = [[0, 0, 10, 10], [0, 0, 5, 10]]
B = [[0, 0, 10, 10], [10, 10, 20, 20], [5, 0, 15, 10]]

some_boxes = arrays(np.float64, st.tuples(st.integers(0, 5), st.just(4)), elements=st.floats(-1e6, 1e6))


def test_iou_of_half_open_boxes():
    assert boxes.iou(A, B) == pytest.approx(np.array([[1, 0, 1 / 3], [0.5, 0, 0]]))
    assert boxes.iou([[0, 0, 2, 1]], [[0, 0, 1, 1]])[0, 0] == 0.5  # no "+1 pixel"


def test_giou_punishes_distance():
    giou = boxes.giou(A, B)
    assert giou[0, 0] == 1
    assert giou[0, 1] == pytest.approx(-(400 - 200) / 400)
    assert giou[1, 2] == pytest.approx(0 - 0)  # touching boxes fill their hull


def test_l1_is_a_fraction_of_the_image():
    assert boxes.l1([[0, 0, 64, 48]], [[64, 0, 64, 96]], 640, 480) == pytest.approx(np.array([[0.1 + 0.1]]))


def test_empty_inputs_keep_their_shape():
    for measure in (boxes.iou, boxes.giou):
        assert measure([], B).shape == (0, 3) and measure(A, []).shape == (2, 0)
    assert boxes.l1([], [], 1, 1).shape == (0, 0)


def test_boxes_without_area_overlap_nothing():
    point = [[5, 5, 5, 5]]
    assert boxes.iou(point, point)[0, 0] == 0 and boxes.giou(point, point)[0, 0] == 0
    assert boxes.iou([[10, 10, 0, 0]], A).tolist() == [[0, 0]]


@given(some_boxes, some_boxes)
def test_iou_of_pairs_is_that_of_the_table(a, b):
    table = boxes.iou(a, b)
    i, j = (places.ravel() for places in np.indices(table.shape))
    assert (boxes.iou_of_pairs(a, b, i, j).reshape(table.shape) == table).all()
    assert boxes.iou_of_pairs(a, b, i[::-1], j[::-1]).tolist() == table.ravel()[::-1].tolist()


@given(some_boxes, some_boxes)
def test_ranges_and_symmetry(a, b):
    iou, giou = boxes.iou(a, b), boxes.giou(a, b)
    assert iou.shape == giou.shape == (len(a), len(b))
    assert ((iou >= 0) & (iou <= 1 + 1e-9)).all() and np.isfinite(giou).all()
    assert np.allclose(iou, boxes.iou(b, a).T) and np.allclose(giou, boxes.giou(b, a).T)
    assert (boxes.l1(a, b, 640, 480) >= 0).all()


@given(some_boxes, st.integers(1, 4000), st.integers(1, 4000))
def test_norm1000_comes_back(a, width, height):
    there = boxes.scale(a, (width, height), (1000, 1000))
    assert np.allclose(boxes.scale(there, (1000, 1000), (width, height)), a, rtol=1e-9, atol=1e-6)


def test_coordinate_frames():
    assert boxes.COORDS == ("pixel", "norm1000")
    assert boxes.scale([[0, 0, 640, 240]], (640, 480), (1000, 1000)).tolist() == [[0, 0, 1000, 500]]
    assert boxes.scale([[0, 0, 640, 240]], (640, 480), (320, 960)).tolist() == [[0, 0, 320, 480]]
