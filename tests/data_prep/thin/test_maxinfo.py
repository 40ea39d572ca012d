"""MaxInfo: the published selections, and its behaviour on features that are degenerate or broken."""

import importlib.util
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.thin import maxinfo
from data_prep.thin.maxinfo import leading_vectors, select
from sgrl.errors import SgrlError


def published(features: np.ndarray, tolerance: float, rank: int = 8) -> tuple[list[int], np.ndarray]:
    """The definition, as it stands: singular vectors of the whole matrix, a column of coefficients per chosen row.

    Returns the order of choice and the vectors.
    """
    n, d = features.shape
    rows = np.linalg.svd(features.astype(np.float64), full_matrices=False)[0][:, : min(rank, d, n - 1)]
    chosen, square = maxinfo._square(rows)
    coefficients = square.T
    norms = (coefficients**2).sum(1)
    norms[chosen] = 0
    while norms.max() > tolerance**2 and len(chosen) < n:
        best = int(norms.argmax())
        row = coefficients[best].copy()
        column = coefficients @ row
        coefficients = np.hstack([coefficients - np.outer(column, row) / (1 + column[best]), np.zeros((n, 1))])
        coefficients[:, -1] = column / (1 + column[best])
        norms = (coefficients**2).sum(1)
        chosen.append(best)
        norms[chosen] = 0
    return chosen, rows


@pytest.fixture(scope="module")
def golden_features(known_answers):
    """The two kinds of features of the known answers, computed from the videos' frames."""
    cv2 = pytest.importorskip("cv2")
    spec = importlib.util.spec_from_file_location("videos", known_answers / "thinning_videos.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    projection = np.random.default_rng(0).standard_normal((5184, 768)).astype(np.float32) / 72

    def features(name: str) -> dict[str, np.ndarray]:
        kind, seed, n = name.split("_")
        randproj, histogram = [], []
        for frame in module.frames(kind, int(n[1:]), int(seed[1:])):
            frame = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])[1], cv2.IMREAD_COLOR)
            small = cv2.resize(frame, (48, 36), interpolation=cv2.INTER_AREA)
            randproj.append((small.astype(np.float32) / 255).ravel() @ projection)
            hsv = cv2.cvtColor(frame, cv2.COLOR_BGR2HSV)
            counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 8, 8], [0, 180, 0, 256, 0, 256])
            histogram.append(counts.ravel() / 307200)
        return {"randproj": np.array(randproj), "hsvhist": np.array(histogram)}

    return features


@pytest.mark.slow
@pytest.mark.parametrize("video", ["slow_s1_n300", "cuts_s2_n600"])
def test_selections_are_the_published_ones(known_answers, golden_features, video):
    runs = json.loads((known_answers / "thinning.json").read_text())["maxinfo"]["runs"]
    features = golden_features(video)
    for run in (run for run in runs if run["video"] == video):
        found = features[run["feat"]]
        assert select(found, run["tol"], protocol="published").tolist() == run["indices"]
        assert len(select(found, run["tol"])) == run["raw"]


def walk(seed: int, n: int, d: int = 64, jump: float = 1.0, noise: float = 0.05) -> np.ndarray:
    """Features of a made-up video: a random walk of ten directions with some noise."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.standard_normal((n, 10)) * 0.1, 0)
    return 3 + jump * path @ rng.standard_normal((10, d)) + noise * rng.standard_normal((n, d))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 120), st.integers(1, 100), st.sampled_from([0.1, 0.23, 0.42, 1.0]))
def test_same_as_the_definition(seed, n, d, tolerance):
    features = walk(seed, n, d)
    expected = sorted(published(features, tolerance)[0])
    assert select(features, tolerance).tolist() == expected
    dropped = expected[:-1] if len(expected) > 1 and len(expected) % 2 else expected
    assert select(features, tolerance, protocol="published").tolist() == dropped


@pytest.mark.parametrize("moves", [1e-2, 1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("shape", [(200, 64), (64, 200)])
def test_near_static_video(moves, shape):
    """One direction carries nearly everything; squared in a Gram matrix, the others would be lost."""
    rng = np.random.default_rng(0)
    n, d = shape
    features = np.ones((n, 1)) * rng.standard_normal((1, d)) + moves * walk(1, n, d, 0.3)
    vectors = leading_vectors(features, 8)
    exact = np.linalg.svd(features, full_matrices=False)[0][:, :8]
    assert vectors.shape == (n, 8)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-9)
    np.testing.assert_allclose(np.abs((vectors * exact).sum(0)), 1, atol=1e-6)
    assert select(features).tolist() == sorted(published(features, 0.23)[0])


def test_single_precision_is_not_taken_for_motion():
    """Directions that are only the rounding of the features do not count."""
    row = np.random.default_rng(0).standard_normal(50)
    static = (np.outer(1 + np.arange(90) / 90, row)).astype(np.float32)
    assert leading_vectors(static, 8).shape == (90, 1)
    moving = static + 1e-3 * walk(0, 90, 50).astype(np.float32)
    assert leading_vectors(moving, 8).shape == (90, 8)


def test_duplicates_and_fewer_directions_than_the_rank():
    distinct = walk(3, 5, noise=0)
    features = np.repeat(distinct, 20, axis=0)
    assert leading_vectors(features, 8).shape[1] == 5
    kept = select(features, tolerance=1.0)
    assert {position // 20 for position in kept} == set(range(5))
    assert {position // 20 for position in select(features, count=5)} == set(range(5))
    assert len(select(features, count=37)) == 37
    identical = np.ones((40, 16))
    assert select(identical, count=3).tolist() == [0, 1, 2]
    assert len(select(identical)) == 19  # 1 / 0.23^2: the leverage of a frame like K others is 1 / K


@pytest.mark.parametrize("protocol, kept", [("default", [2, 3, 2]), ("published", [2, 2, 2])])
def test_short_videos(protocol, kept):
    features = walk(0, 3)
    assert select(features[:0], protocol=protocol).tolist() == []
    assert select(features[:1], protocol=protocol).tolist() == [0]
    assert len(select(features[:2], protocol=protocol)) == kept[0]
    assert len(select(features, protocol=protocol)) == kept[1]
    assert len(select(np.zeros((9, 4)), count=2, protocol=protocol)) == kept[2]


def test_features_of_nothing():
    assert select(np.zeros((7, 5))).tolist() == [0]
    assert select(np.zeros((7, 5)), count=3).tolist() == [0, 1, 2]
    assert select(np.ones((7, 0))).tolist() == [0]


def test_frames_without_finite_features_are_not_kept():
    features = walk(0, 60)
    broken = np.insert(features, [0, 17, 60], np.nan, axis=0)
    broken[18, 3] = np.inf
    whole = np.setdiff1d(np.arange(63), [0, 18, 62])
    broken[whole] = features
    assert select(broken).tolist() == whole[select(features)].tolist()
    assert select(np.full((5, 4), np.nan)).tolist() == []
    assert len(select(broken, ratio=0.5)) == 30


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 40), st.integers(1, 70), st.booleans())
def test_count_is_kept(seed, n, d, count, repeated):
    features = walk(seed, n, d)
    if repeated:
        features = features[np.random.default_rng(seed).integers(0, max(1, n // 4), n)]
    for protocol in ("default", "published"):
        found = select(features, count=count, protocol=protocol)
        expected = min(count, n)
        if protocol == "published" and expected > 1:
            expected -= expected % 2
        assert len(found) == expected
        assert (np.diff(found) > 0).all() and set(found.tolist()) <= set(range(n))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 100))
def test_what_the_tolerance_means(seed, n):
    """Outside the selection every leverage is at most tolerance^2; a smaller one keeps the frames of a larger."""
    features = walk(seed, n)
    previous: set[int] = set()
    for tolerance in (1.0, 0.5, 0.3):
        chosen = select(features, tolerance)
        rows = leading_vectors(features, 8)
        inverse = np.linalg.inv(rows[chosen].T @ rows[chosen])
        leverage = np.einsum("ij,jk,ik->i", rows, inverse, rows)
        assert (np.delete(leverage, chosen) <= tolerance**2 + 1e-9).all()
        assert previous <= set(chosen.tolist())
        previous = set(chosen.tolist())
    assert set(select(features, count=len(previous)).tolist()) == previous


@given(st.integers(0, 10**6), st.sampled_from([1e-200, 1e-30, 0.1, 1e30, 1e200]))
@settings(max_examples=20, deadline=None)
def test_scale_and_rotation_do_not_matter(seed, scale):
    features = walk(seed, 50, 12)
    turned = features @ np.linalg.qr(np.random.default_rng(seed).standard_normal((12, 12)))[0]
    expected = select(features).tolist()
    assert select(features * scale).tolist() == expected
    assert select(turned).tolist() == expected


def test_ratio():
    features = walk(0, 40)
    assert len(select(features, ratio=1)) == 40
    assert select(features, ratio=0.25).tolist() == select(features, count=10).tolist()
    assert len(select(features, ratio=1e-6)) == 1


@pytest.mark.parametrize(
    "message, arguments",
    {
        "tolerance and count both say": {"tolerance": 0.2, "count": 3},
        "tolerance must be a number above 0, found 0": {"tolerance": 0},
        "tolerance must be a number above 0, found nan": {"tolerance": float("nan")},
        "count must be a whole number above 0, found 0": {"count": 0},
        "ratio must be a number above 0 and at most 1, found 1.5": {"ratio": 1.5},
        "rank must be a whole number above 0, found 0": {"rank": 0},
        "tolerance must be a number above 0, found 'much'": {"tolerance": "much"},
        "count must be a whole number above 0, found 2.5": {"count": 2.5},
        "found True": {"ratio": True},
        "found inf": {"tolerance": float("inf")},
        "did you mean 'published'": {"protocol": "publised"},
    }.items(),
)
def test_wrong_settings(message, arguments):
    with pytest.raises(SgrlError, match=message):
        select(walk(0, 5), **arguments)


@pytest.mark.parametrize("features", [np.zeros(3), np.zeros((3, 3), int), [["a"]]])
def test_what_is_no_matrix(features):
    with pytest.raises(SgrlError, match="features must be a matrix of floats"):
        select(features)
