"""PSFR: the key frames of the published code, corner by corner, and what the default protocol does better."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrl.errors import SgrlError

cv2 = pytest.importorskip("cv2")

from data_prep.thin import psfr  # noqa: E402
from data_prep.thin.psfr import keyframes, read  # noqa: E402


@pytest.fixture(scope="module")
def golden(known_answers) -> dict:
    return json.loads((known_answers / "thinning.json").read_text())


@pytest.fixture(scope="module")
def video(known_answers):
    """Makes a video of the known answers: its frames after JPEG compression, as the published code read them."""
    spec = importlib.util.spec_from_file_location("videos", known_answers / "thinning_videos.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def frames(name: str):
        kind, seed, n = name.split("_")
        for frame in module.frames(kind, int(n[1:]), int(seed[1:])):
            jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            yield cv2.imdecode(jpeg, cv2.IMREAD_COLOR)

    return frames


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("slow_s1_n300", marks=pytest.mark.slow),
        pytest.param("cuts_s2_n600", marks=pytest.mark.slow),
    ],
)
def test_key_frames_are_the_published_ones(golden, video, name):
    runs = [run for run in golden["psfr"] if run["video"] == name]
    frames = list(video(name))
    assert len(runs) == 2
    for run in runs:
        settings = run["params"]["retention_tau"], run["params"]["min_patches_k"]
        assert keyframes(frames, *settings, "published") == run["keyframes"]
        ours, known = set(keyframes(frames, *settings)), set(run["keyframes"])
        # what the specification measured when the grid is laid on the right image
        expected = {("slow_s1_n300", 5): 0.25, ("slow_s1_n300", 3): 0.07, ("cuts_s2_n600", 5): 1.0}
        expected[("cuts_s2_n600", 3)] = 0.73
        assert len(ours & known) / len(ours | known) == pytest.approx(expected[name, settings[1]], abs=0.006)


def test_a_cut_is_found(golden, video):
    """The beginning of a video of the known answers, up to its first cut."""
    frames = []
    for frame in video("cuts_s2_n600"):
        frames.append(frame)
        if len(frames) == 85:
            break
    (run,) = (
        run for run in golden["psfr"] if run["video"] == "cuts_s2_n600" and run["params"]["retention_tau"] == 0.3
    )
    known = [frame for frame in run["keyframes"] if frame < 85]
    assert keyframes(frames, protocol="published") == keyframes(frames) == known == [0, 82]


def slow_corners(grey: np.ndarray, limit: int) -> np.ndarray:
    """The definition, with OpenCV's detector once per patch."""
    height, width = grey.shape
    response = cv2.cornerMinEigenVal(grey, 3, ksize=3)
    scored = []
    for patch in psfr._grid(width, height):
        mask = np.zeros(grey.shape, np.uint8)
        mask[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width] = 255
        found = cv2.goodFeaturesToTrack(grey, 10, 0.3, 15, mask=mask, blockSize=3, gradientSize=3)
        found = np.empty((0, 2)) if found is None else found.reshape(-1, 2)
        for rank, (x, y) in enumerate(found):
            score = float(response[int(y), int(x)])
            sigmoid = 1 / (1 + np.exp(-(score - 0.3)))
            scored.append((np.float32(score - 0.2 * rank * (1 - sigmoid)), x, y))
    cells, corners = set(), []
    for _, x, y in sorted(scored, key=lambda corner: -corner[0]):
        if (x // 10, y // 10) not in cells:
            cells.add((x // 10, y // 10))
            corners.append((x, y))
    return np.array(corners[:limit], np.float32).reshape(-1, 2)


def slow_follow(before: np.ndarray, now: np.ndarray, points: np.ndarray) -> dict[int, tuple]:
    """The definition: every point in every patch that it lies in; the first success counts."""
    height, width = before.shape
    places: dict[int, tuple] = {}
    for patch in psfr._grid(width, height):
        right, bottom = patch.x + patch.width, patch.y + patch.height
        inside = [i for i, (x, y) in enumerate(points) if patch.x <= x <= right and patch.y <= y <= bottom]
        if inside:
            crop = np.s_[patch.y : bottom, patch.x : right]
            shift = np.array([patch.x, patch.y], np.float32)
            ends, status, error = cv2.calcOpticalFlowPyrLK(
                before[crop], now[crop], (points[inside] - shift)[:, None], None, **psfr._FLOW
            )
            for i, end, good, wrong in zip(inside, ends[:, 0] + shift, status[:, 0], error[:, 0], strict=True):
                if good and wrong <= 15:
                    places.setdefault(i, tuple(end.tolist()))
    return places


@st.composite
def pictures(draw):
    """Rectangles and noise: corners of equal strength, empty patches, corners on borders."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grey = np.full((360, 640), int(rng.integers(256)), np.uint8)
    for _ in range(draw(st.integers(0, 30))):
        x, y = rng.integers(0, 640), rng.integers(0, 360)
        grey[y : y + rng.integers(1, 90), x : x + rng.integers(1, 120)] = rng.integers(256)
    noise = draw(st.sampled_from([0, 1, 3, 40]))
    return np.clip(grey + rng.integers(-noise, noise + 1, grey.shape), 0, 255).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(pictures(), st.integers(0, 60))
def test_corners_are_those_of_a_detector_per_patch(grey, limit):
    np.testing.assert_array_equal(psfr._corners(grey, psfr._grid(640, 360), limit), slow_corners(grey, limit))


@settings(max_examples=15, deadline=None)
@given(pictures(), st.integers(-9, 9), st.integers(-9, 9))
def test_points_are_followed_patch_by_patch(before, dx, dy):
    now = np.roll(before, (dy, dx), (0, 1))
    grid = psfr._grid(640, 360)
    points = psfr._corners(before, grid, 60)
    expected = slow_follow(before, now, points)
    followed, places = psfr._follow(before, now, points, grid)
    assert dict(zip(followed.tolist(), map(tuple, places.tolist()), strict=True)) == expected


def scene(seed: int, shift: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((120, 200, 3), 90, np.uint8)
    for _ in range(60):
        x, y = rng.integers(0, 200) + shift, rng.integers(0, 120)
        image[y : y + rng.integers(4, 20), max(x, 0) : max(x + rng.integers(4, 30), 0)] = rng.integers(256, size=3)
    return image


BLACK = np.zeros((120, 200, 3), np.uint8)


def test_static_video_has_one_key_frame():
    assert keyframes([scene(1)] * 20) == [0]
    assert keyframes([]) == [] and keyframes([None, None]) == []
    assert keyframes([BLACK] * 5) == [0]


def test_cuts_between_scenes():
    frames = [scene(seed) for seed in (1, 1, 2, 2, 2, 3)]
    assert keyframes(frames) == [0, 2, 5]


def test_unreadable_frames_are_passed_over():
    frames = [None, scene(1), scene(1), None, scene(2), scene(2), None]
    assert keyframes(frames) == [1, 4]


def test_a_video_that_starts_black():
    """Without corners at a key frame there is nothing to lose, so the published code never leaves it."""
    frames = [BLACK, BLACK, scene(1), scene(1), scene(2), BLACK, BLACK, scene(3)]
    assert keyframes(frames, protocol="published") == [0]
    assert keyframes(frames) == [0, 2, 4, 5, 7]


def test_frames_are_consumed_one_at_a_time():
    alive = []

    def frames():
        for seed in range(4):
            alive.append(seed)
            yield scene(seed)

    assert keyframes(frames()) == [0, 1, 2, 3] and alive == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (40, 30), (1000, 20)])
@pytest.mark.parametrize("protocol", ["default", "published"])
def test_any_frame_size(size, protocol):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8) for _ in range(3)]
    assert keyframes(frames, protocol=protocol)[0] == 0


def test_files_are_whole_or_refused(tmp_path):
    for name in ("a.jpg", "a.png", "a.bmp"):
        cv2.imwrite(str(tmp_path / name), scene(1))
        assert read(tmp_path / name).shape == (120, 200, 3)
    for name in ("a.jpg", "a.png"):
        raw = (tmp_path / name).read_bytes()
        for part in (0.3, 0.9):
            (tmp_path / name).write_bytes(raw[: int(len(raw) * part)])
            with pytest.raises(SgrlError, match=f"{name} does not open: OSError: image file is truncated"):
                read(tmp_path / name)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("no image")
    for name in ("empty.jpg", "text.png"):
        with pytest.raises(SgrlError, match=f"{name} does not open: it is damaged, or none of"):
            read(tmp_path / name)
    with pytest.raises(SgrlError, match="does not exist"):
        read(tmp_path / "nowhere.jpg")
    with pytest.raises(SgrlError, match="is a folder"):
        read(Path(tmp_path))


@pytest.mark.parametrize(
    "message, arguments",
    {
        "retention must be a number above 0 and at most 1, found 0": {"retention": 0},
        "patches must be a whole number above 0 and at most 13, found 14": {"patches": 14},
        "did you mean 'published'": {"protocol": "publish"},
    }.items(),
)
def test_wrong_settings(message, arguments):
    with pytest.raises(SgrlError, match=message):
        keyframes([], **arguments)


def test_what_is_no_image():
    with pytest.raises(SgrlError, match=r"frame 0: expected an image of shape \(H, W, 3\).*float64 \(4, 4\)"):
        keyframes([np.zeros((4, 4))])
