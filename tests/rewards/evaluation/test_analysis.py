"""Intervals, tables of predicates and calibration: known answers and properties."""

import numpy as np
import pytest
from scipy.stats import binom

from rewards.evaluation.calibration import Calibration, auroc
from rewards.metrics.bootstrap import interval, resampled_sums
from rewards.metrics.predicates import LARGEST_COUNTER, PredicateCounts, group_rows, head_body_tail


def test_resampled_sums_are_a_bootstrap():
    """Each resample draws as many images as there are; sums of a 0/1 column are binomial."""
    values = np.zeros((50, 2))
    values[:10, 0] = 1
    values[:, 1] = 1
    sums = resampled_sums(values, resamples=4000)
    assert sums.shape == (4000, 2) and (sums[:, 1] == 50).all()
    low, high = interval(sums[:, 0])
    assert abs(low - binom.ppf(0.025, 50, 0.2)) <= 1 and abs(high - binom.ppf(0.975, 50, 0.2)) <= 1
    assert sums[:, 0].mean() == pytest.approx(10, abs=0.2) and sums[:, 0].var() == pytest.approx(8, rel=0.1)


def test_resampling_does_not_depend_on_blocks_or_companions():
    values = np.random.default_rng(0).random((3000, 3))
    whole = resampled_sums(values, resamples=800)  # more than one block
    assert np.allclose(resampled_sums(values[:, :1], resamples=800), whole[:, :1])
    assert np.allclose(resampled_sums(values, resamples=10), whole[:10])
    generator = np.random.default_rng(0)
    one_by_one = [values[generator.integers(0, 3000, 3000)].sum(axis=0) for _ in range(800)]
    assert np.allclose(whole, one_by_one)
    assert not np.allclose(resampled_sums(values, resamples=10, seed=1), whole[:10])


def test_groups_are_thirds_by_frequency():
    groups = head_body_tail({f"p{i:02}": 100 - i for i in range(50)})
    assert [list(groups.values()).count(name) for name in ("head", "body", "tail")] == [16, 17, 17]
    assert groups["p00"] == "head" and groups["p16"] == "body" and groups["p49"] == "tail"
    assert head_body_tail({"b": 1, "a": 1}) == {"a": "body", "b": "tail"} and head_body_tail({}) == {}


def test_predicates_one_by_one():
    counts = PredicateCounts({"on": 100, "looking-at": 10, "riding": 3, "eating": 1})
    counts.add(["on", "on", "looking-at"], ["on", "Looking_At", "hugging"], ["on", "looking-at"])
    counts.add(["kissing"], ["riding"], [])
    rows = {row.pop("predicate"): row for row in counts.rows()}
    assert list(rows) == ["on", "kissing", "looking-at", "riding"]
    assert rows["on"] == {
        **{"reference": 2, "predicted": 1, "right": 1, "precision": 1.0, "recall": 0.5},
        **{"f1": pytest.approx(2 / 3), "group": "head"},
    }
    assert rows["looking-at"]["f1"] == 1 and rows["looking-at"]["group"] == "body"
    assert rows["riding"] == {
        **{"reference": 0, "predicted": 1, "right": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "group": "tail"}
    }
    assert rows["kissing"]["group"] == "tail" and rows["kissing"]["precision"] == 0
    assert counts.unknown() == {"relations": 1, "most": {"hugging": 1}}
    head, body, tail = group_rows(counts.rows())
    assert head["predicates"] == ["on"] and tail["predicates"] == ["kissing", "riding"]
    assert (tail["reference"], tail["predicted"], tail["right"], tail["mean_recall"]) == (1, 1, 0, 0.0)
    assert body["mean_recall"] == 1


def test_any_number_of_invented_predicates_takes_bounded_memory():
    counts = PredicateCounts()
    for i in range(200):
        counts.add(["on"], [f"invented {i} {j}" for j in range(500)] + ["on"], ["on"])
    assert len(counts.counters["predicted"]) <= LARGEST_COUNTER
    assert counts.unknown()["relations"] == 100_000 and "" not in counts.unknown()["most"]
    assert counts.rows()[0]["predicted"] == 200


def test_calibration_of_known_answers():
    calibration = Calibration()
    assert calibration.compute() is None
    calibration.add([0.95, 0.95, 0.95, 0.05], {0, 1, 2}, 4)
    calibration.add([None, 0.25, float("nan"), 7, "0.5", True, 1], {1}, 7)
    calibration.add([0.5], set(), 2)  # not as many confidences as relations
    calibration.add(None, set(), 3)
    found = calibration.compute()
    assert found["relations"] == 6 and found["without_confidence"] == 5 + 2 + 3
    assert [row["relations"] for row in found["bins"]] == [1, 0, 1, 0, 0, 0, 0, 0, 0, 4]
    assert found["bins"][9]["precision"] == 0.75 and found["bins"][9]["confidence"] == pytest.approx(0.9625)
    assert "precision" not in found["bins"][1]
    assert found["ece"] == pytest.approx((4 * 0.2125 + 0.05 + 0.75) / 6)


def test_perfect_confidences_have_no_error():
    generator = np.random.default_rng(0)
    calibration = Calibration()
    for _ in range(200):
        confidence = generator.random(100)
        calibration.add(confidence.tolist(), set(np.flatnonzero(generator.random(100) < confidence).tolist()), 100)
    found = calibration.compute()
    assert found["ece"] < 0.02 and found["auroc"] == pytest.approx(5 / 6, abs=0.01)


def test_auroc():
    generator = np.random.default_rng(0)
    scores, right = generator.integers(0, 20, 300) / 20, generator.random(300) < 0.3
    pairs = scores[right][:, None] - scores[~right][None, :]
    assert auroc(scores, right) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert auroc([0.1, 0.2], [1, 1]) is None and auroc([0.1, 0.2], [0, 0]) is None
