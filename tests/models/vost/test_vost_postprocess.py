"""From logits to what is said of a frame."""

import numpy as np
import pytest
import torch

from sgrl.errors import SgrlError
from sgrl.models.detection.suppression import kept, overlaps
from sgrl.models.vost.postprocess import Detections, detections, ranked_triplets, written_graph
from sgrl.vocabulary import Vocabulary

GROUPS = {"attention": ("looks", "looks_away"), "spatial": ("in", "on"), "contacting": ("holds",)}
WORDS = Vocabulary("small", ("person", "cup", "door"), ("on", "in", "holds", "looks", "looks_away"), GROUPS)


def said(boxes, labels, predicates, scores=None):
    """Detections of pairs of one person, box (0, 0, 10, 10), with objects."""
    n = len(labels)
    every = np.array([[0, 0, 10, 10]] * n + boxes, float).reshape(-1, 4)
    scores = np.concatenate([np.ones(n), np.ones(n) if scores is None else scores])
    pairs = np.arange(2 * n).reshape(2, n).T
    return Detections(["person"] * n + labels, every, scores, pairs, np.array(predicates, float).reshape(n, 5))


def logits(queries):
    g = torch.Generator().manual_seed(0)
    sizes = {"object_logits": 4, "attention_logits": 3, "spatial_logits": 2, "contacting_logits": 1}
    found = {name: torch.randn(2, queries, size, generator=g) for name, size in sizes.items()}
    return found | {f"{end}_boxes": torch.rand(2, queries, 4, generator=g) for end in ("subject", "object")}


def test_what_was_given_scores_one_and_padding_is_left_out():
    outputs = logits(3) | {"labels": torch.tensor([[1, 2, 0], [2, 1, 1]])}
    outputs["mask"] = torch.tensor([[True, True, False], [False] * 3])
    first, second = detections(outputs, [(100, 50), (10, 10)], WORDS)
    assert first.labels == ["person", "person", "cup", "door"] and first.scores.tolist() == [1] * 4
    assert first.pairs.tolist() == [[0, 2], [1, 3]] and first.predicate_scores.shape == (2, 5)
    columns = outputs["spatial_logits"][0, :2].sigmoid()  # in, on
    np.testing.assert_allclose(first.predicate_scores[:, :2], columns.flip(-1), atol=1e-6)
    assert second.labels == [] and second.boxes.shape == (0, 4) and second.predicate_scores.shape == (0, 5)
    assert ranked_triplets(second, WORDS, "with", 10, 0.9) == [] == ranked_triplets(second, WORDS, "no", 10)


def test_of_given_boxes_pairs_begin_with_the_surest_person():
    outputs = logits(4)
    outputs["subject_boxes"][0] = torch.tensor([[0.1] * 4, [0.2] * 4, [0.1] * 4, [0.2] * 4])
    outputs["person_logits"] = torch.zeros(2, 4, 2)
    outputs["person_logits"][0, :, 0] = torch.tensor([0.0, 2.0, 3.0, 2.0])  # the mean counts, not the best
    outputs["mask"] = torch.tensor([[True] * 4, [False] * 4])
    first, second = detections(outputs, [(10, 10)] * 2, WORDS)
    assert len(first.pairs) == 2 and np.allclose(first.boxes[:2], [[1, 1, 3, 3]] * 2)
    assert len(second.pairs) == 0


def test_a_ranking_is_stable_and_of_one_label_a_group():
    found = said([[0, 0, 5, 5]] * 2, ["cup", "cup"], [[0.5, 0.5, 0.5, 0.5, 0.5]] * 2)
    assert [row[:2] for row in ranked_triplets(found, WORDS, "with", 9)] == [
        *[(0, 0), (0, 2), (0, 3)],
        *[(1, 0), (1, 2), (1, 3)],
    ]
    assert [row[:2] for row in ranked_triplets(found, WORDS, "no", 7)] == [*((0, i) for i in range(5)), (1, 0), (1, 1)]
    with pytest.raises(SgrlError, match="did you mean 'with'"):
        ranked_triplets(found, WORDS, "wit", 3)


def test_suppression_is_of_one_class_and_predicate():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10.5], [0, 0, 10, 10]]
    found = said(boxes, ["cup", "cup", "door"], [[0.9, 0, 0, 0, 0], [0.8, 0.7, 0, 0, 0], [0.6, 0, 0, 0, 0]])
    rows = [row[:2] for row in ranked_triplets(found, WORDS, "no", 15, 0.9) if row[2] > 0]
    assert rows == [(0, 0), (1, 1), (2, 0)]
    assert len([row for row in ranked_triplets(found, WORDS, "no", 15) if row[2] > 0]) == 4
    assert kept([(0, "a"), (1, "a"), (1, "b")], np.ones((2, 2), bool)) == [0, 2]


def test_overlaps_of_boxes_without_area_are_nothing():
    hostile = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [np.nan, 0, 1, 1], [0, 0, 1e9, 1e9]])
    found = overlaps(hostile)
    assert np.isfinite(found).all() and found[0, 0] == 1 and not found[1:3, :].any()
    small = np.array([[0, 0, 0.1, 0.1], [0.05, 0, 0.15, 0.1]])
    assert overlaps(small)[0, 1] == pytest.approx(1 / 3)
    assert overlaps(small, 1)[0, 1] == pytest.approx(1.05 * 1.1 / (2 * 1.1**2 - 1.05 * 1.1))  # OED's, in 0..1


def test_a_written_graph_has_each_object_once():
    boxes = [[50, 50, 60, 60], [50, 50, 60, 61], [0, 0, 5, 5], [50, 50, 60, 60]]
    table = [[0.9, 0, 0.4, 0.6, 0.5], [0.95, 0.5, 0, 0, 0.55], [0, 0.2, 0, 0, 0], [0.7, 0, 0, 0, 0]]
    graph = written_graph(said(boxes, ["cup", "cup", "cup", "door"], table), WORDS, 100, 100)
    assert [o.label for o in graph.objects] == ["person", "cup", "door"]
    assert graph.objects[1].box == (50, 50, 60, 61)  # of the best pair
    relations = {(r.predicate, r.object): (r.group, r.score) for r in graph.relations}
    assert relations == {
        **{("on", 1): ("spatial", 0.95), ("in", 1): ("spatial", 0.5), ("looks", 1): ("attention", 0.6)},
        **{("holds", 1): ("contacting", 0.4), ("on", 2): ("spatial", 0.7)},
    }
    few = written_graph(said(boxes, ["cup", "cup", "cup", "door"], table), WORDS, 100, 100, max_pairs=1)
    assert [o.label for o in few.objects] == ["person", "cup"]
    assert written_graph(said([], [], []), WORDS, 9, 9).objects == ()
