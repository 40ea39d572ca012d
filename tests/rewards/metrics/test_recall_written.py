"""Recall of written graphs by confidence and in the order of writing."""

import math

import pytest

from rewards.metrics.recall import SceneGraphRecall
from rewards.metrics.written import KS, WrittenRecall, recall_lines
from sgrl.text import ParsedGraph

BOXES = [(0.0, 0.0, 9.0, 9.0), (0.0, 5.0, 20.0, 20.0)]
TRUTH = ParsedGraph(["cat", "mat"], BOXES, [(0, "on", 1)])
WRITTEN = TRUTH._replace(relations=[(0, f"p{i}", 1) for i in range(7)] + [(0, "on", 1)])


def counted(*images):
    recall = WrittenRecall()
    for image in images:
        recall.add(*image)
    return recall.compute()


def test_a_sure_relation_moves_up():
    sure = [0.1] * 7 + [0.8]
    found = counted((WRITTEN, TRUTH, sure), (TRUTH, TRUTH), (None, TRUTH, None))
    assert found["images"] == 3 and found["images_with_confidences"] == 1
    assert found["writing"]["recall@5"] == pytest.approx(1 / 3)
    assert found["confidence"]["recall@5"] == found["writing"]["recall@10"] == pytest.approx(2 / 3)
    assert found["difference"]["recall@5"] == pytest.approx(1 / 3) and found["difference"]["recall@10"] == 0
    assert "by confidence" in "\n".join(recall_lines(found)) and "  +0.333" in recall_lines(found)[7]


def test_it_is_the_recall_of_all_images_in_one():
    images = [(WRITTEN, TRUTH, [0.1] * 7 + [0.8]), (TRUTH, TRUTH, None), (TRUTH, TRUTH._replace(relations=[]), None)]
    writing, confidence = SceneGraphRecall(ks=KS), SceneGraphRecall(ks=KS)
    for graph, truth, numbers in images:
        writing.add(graph, truth)
        confidence.add(graph, truth, confidences=numbers)
    found = counted(*images)
    for name, recall in (("writing", writing), ("confidence", confidence)):
        whole = recall.compute()
        assert found[name] == pytest.approx({key: whole[key] for key in found[name]})
    assert found["images_without_relations"] == 1
    assert recall_lines(found)[-1] == "1 images without relations are in no recall."


@pytest.mark.parametrize(
    "confidences", [None, [], [0.5], "high", 7, [None] * 8, [math.nan] * 8, ["0.5"] * 8, [True] * 8]
)
def test_confidences_that_are_none(confidences):
    found = counted((WRITTEN, TRUTH, confidences))
    assert found["confidence"] is found["difference"] is None and found["writing"]["recall@5"] == 0
    assert len(recall_lines(found)) == 5 and found["intervals"]["writing"]["recall@5"] == (0, 0)


def test_intervals_are_those_of_the_mean_over_images():
    """Half the images are found: the mean of N coins. What confidence adds is the same everywhere: it is certain."""
    sure = [0.1] * 7 + [0.8]
    half = counted(*[(TRUTH, TRUTH), (None, TRUTH)] * 200)["intervals"]["writing"]["recall@5"]
    spread = 1.96 * math.sqrt(0.25 / 400)
    assert half == pytest.approx((0.5 - spread, 0.5 + spread), abs=0.01)
    found = counted(*[(WRITTEN, TRUTH, sure)] * 20)["intervals"]
    assert found["difference"]["recall@5"] == (1, 1) and found["difference"]["recall@10"] == (0, 0)
    both = counted(*[(TRUTH, TRUTH), (None, TRUTH)] * 50, *[(WRITTEN, TRUTH, sure)] * 100)["intervals"]
    low, high = both["difference"]["recall@5"]  # paired: narrower than either
    assert 0.4 < low < 0.5 < high < 0.6
    assert high - low < sum(b - a for a, b in (both["writing"]["recall@5"], both["confidence"]["recall@5"]))


def test_no_image_yet():
    assert counted()["writing"]["recall@5"] == 0 and counted()["intervals"] == {}
