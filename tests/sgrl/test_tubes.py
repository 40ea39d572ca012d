"""Tubes of masks and boxes, and graphs of videos."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.linking import linked
from sgrl.tubes import BoxTube, MaskTube, TimedRelation, TubeObject, VideoGraph, tubes_of_maps

videos = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 3)
)


def compressed(counts):
    """COCO's string of run lengths, as its C code writes it."""
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = x & 31
            x >>= 5
            more = x != -1 if bits & 16 else x != 0
            text += chr(48 + (bits | 32 if more else bits))
    return text


def run_lengths(mask):
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff([0, *edges, flat.size]).tolist()


@given(videos)
def test_all_ways_to_a_tube_agree_and_count_pixels(video):
    tubes = tubes_of_maps(video, background=None)
    size = video.shape[1:]
    assert set(tubes) == set(np.unique(video).tolist())
    for i, tube in tubes.items():
        masks = [frame == i for frame in video]
        rle = [{"size": list(size), "counts": run_lengths(mask)} for mask in masks]
        short = [r | {"counts": compressed(r["counts"])} for r in rle]
        as_bytes = [r | {"counts": r["counts"].encode()} for r in short]
        given_none = [mask if mask.any() else None for mask in masks]
        for other in (
            MaskTube.from_masks(iter(masks)),
            MaskTube.from_masks(given_none, *size),
            MaskTube.from_rle(rle),
            MaskTube.from_rle(short),
            MaskTube.from_rle(as_bytes),
        ):
            assert other.starts.tolist() == tube.starts.tolist() and other.ends.tolist() == tube.ends.tolist()
            assert other.frames == len(video) and (other.height, other.width) == size
        assert tube.areas.tolist() == [mask.sum() for mask in masks]
        written = [r["counts"] if mask.any() else None for r, mask in zip(short, masks, strict=True)]
        assert tube.to_rle() == written
        around = [bounds(mask) for mask in masks]
        assert tube.boxes().boxes.tolist() == [list(box or (0,) * 4) for box in around]


def bounds(mask):
    """The box around a mask, pixel by pixel."""
    rows, columns = np.nonzero(mask)
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None


@given(videos, st.randoms(use_true_random=False))
def test_intersections_are_those_of_the_pixels(video, random):
    seed = random.randrange(1000)
    other = np.random.default_rng(seed).integers(0, 2, video.shape)
    a, b = MaskTube.from_masks(video > 1), MaskTube.from_masks(other)
    expected = ((video > 1) & (other > 0)).sum(axis=(1, 2)).tolist()
    assert a.intersections(b).tolist() == b.intersections(a).tolist() == expected
    shorter = MaskTube.from_masks(other[:1])
    assert a.intersections(shorter).tolist() == [expected[0]] + [0] * (len(video) - 1)
    assert shorter.intersections(a).tolist() == expected[:1]


def test_a_known_compressed_mask():
    """5 x 4, the second column and the first pixel of the third: runs of 5, 6 and 9."""
    mask = np.zeros((5, 4), dtype=bool)
    mask[:, 1] = mask[0, 2] = True
    assert run_lengths(mask) == [5, 6, 9]
    tube = MaskTube.from_rle([{"size": [5, 4], "counts": "569"}])
    assert tube.starts.tolist() == [5] and tube.ends.tolist() == [11] and tube.areas.tolist() == [6]


def test_no_unpacking():
    """Hours of large frames as run lengths take no more memory than the runs."""
    size, counts = (4000, 4000), [1000, 2000, 16_000_000 - 3000]
    tube = MaskTube.from_rle({"size": size, "counts": counts} for _ in range(5000))
    assert tube.areas.tolist() == [2000] * 5000
    assert tube.intersections(tube).sum() == 5000 * 2000
    assert tube.starts.nbytes + tube.ends.nbytes + tube._knots.nbytes + tube._covered.nbytes < 500_000


MEASURE = """
import resource
import numpy as np
from sgrl.tubes import tubes_of_maps
def maps(n):
    frame = np.zeros((480, 640), dtype=np.uint8)
    for t in range(n):
        frame[100:200, 100 + t % 300:200] = 1 + t % 2
        yield frame
few = tubes_of_maps(maps(5))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tubes_of_maps(maps(200))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_hold_the_frames():
    """200 frames are 61 MB; the runs of their objects take two."""
    grown = int(subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, check=True).stdout)
    assert grown < 20_000


def test_boxes_of_absent_and_impossible_objects_have_no_area():
    tube = BoxTube([(0, 0, 4, 2), None, (3, 3, 1, 1), (0, 0, math.inf, 1), (math.nan, 0, 1, 1)])
    assert tube.areas.tolist() == [8, 0, 0, 0, 0]
    other = BoxTube([(2, 1, 8, 8), (0, 0, 1, 1)])
    assert tube.intersections(other).tolist() == [2, 0, 0, 0, 0]
    assert other.intersections(tube).tolist() == [2, 0]
    assert BoxTube([]).frames == 0


def test_spans_hold_in_both_ends_and_never_raise():
    def frames(*spans):
        return np.flatnonzero(TimedRelation(0, "on", 0, spans).holds(6)).tolist()

    assert frames() == [0, 1, 2, 3, 4, 5]
    assert frames((1, 2), (4, 4)) == [1, 2, 4]
    assert frames((-3, 0), (5, 99)) == [0, 5]
    assert frames((0.5, 2.5)) == [1, 2]
    assert frames((3, 1)) == frames((math.nan, 2)) == frames((9, 12)) == frames((-9, -2)) == []
    assert frames((-math.inf, math.inf)) == [0, 1, 2, 3, 4, 5]
    assert frames((1e300, math.inf)) == frames((math.inf, math.inf)) == frames((-math.inf, -math.inf)) == []


def test_maps_may_be_missing():
    tubes = tubes_of_maps([None, np.full((2, 2), 7), None])
    assert tubes[7].frames == 3 and tubes[7].areas.tolist() == [0, 4, 0]


def frame(*objects, relations=()):
    return SceneGraph(
        [Object(label, (x, 0, x + 10, 10)) for label, x in objects], [Relation(*r) for r in relations], 99, 99
    )


def test_graphs_of_frames_are_linked_to_tubes():
    on, near = (0, "on", 1), (0, "near", 1)
    video = linked(
        [
            frame(("cat", 0), ("mat", 50), relations=[on]),
            frame(("mat", 52), ("cat", 2), relations=[(1, "on", 0)]),  # in another order
            None,
            frame(("cat", 4), ("cat", 30), ("mat", 50), relations=[(0, "on", 2), (1, "near", 2)]),
            frame(("dog", 4), ("mat", 50), relations=[near]),  # another class is another object
        ]
    )
    assert [o.label for o in video.objects] == ["cat", "mat", "cat", "dog"]
    assert video.objects[0].tube.areas.tolist() == [100, 100, 0, 100, 0]
    assert video.objects[0].tube.boxes[3].tolist() == [4, 0, 14, 10]
    found = {(r.subject, r.predicate, r.object): (r.spans, r.score) for r in video.relations}
    assert found == {
        (0, "on", 1): (((0, 1), (3, 3)), 0.6),
        (2, "near", 1): (((3, 3),), 0.2),
        (3, "near", 1): (((4, 4),), 0.2),
    }


def test_what_has_been_away_for_long_or_moves_far_is_another_object():
    graphs = [frame(("cat", 0)), None, None, frame(("cat", 0)), frame(("cat", 8))]
    assert len(linked(graphs, gap=3).objects) == 2
    assert len(linked(graphs, gap=2).objects) == 3
    assert len(linked(graphs, iou_threshold=0.1).objects) == 1
    # two that could continue the same tube: the nearer one does
    assert linked([frame(("cat", 0)), frame(("cat", 3), ("cat", 1))]).objects[0].tube.boxes[1][0] == 1
    assert linked([]).relations == linked([None, frame()]).objects == ()


def test_errors():
    mask = np.ones((2, 3), dtype=bool)
    with pytest.raises(SgrlError, match="frame 1: a mask of 3 x 2, but of 2 x 3 before"):
        MaskTube.from_masks([mask, mask.T])
    with pytest.raises(SgrlError, match="give height and width"):
        MaskTube.from_masks([None])
    with pytest.raises(SgrlError, match="give height and width"):
        MaskTube.from_rle([])
    with pytest.raises(SgrlError, match="frame 0: counts fill 5 pixels of 2 x 3"):
        MaskTube.from_rle([{"size": [2, 3], "counts": [5]}])
    for bad in (
        {"size": [2, 3]},
        {"size": [2, 3], "counts": "\u20ac"},
        {"size": [2, 3], "counts": "h"},
        7,
        {"size": 1},
    ):
        with pytest.raises(SgrlError, match="frame 0: not a run-length encoded mask"):
            MaskTube.from_rle([bad])
    with pytest.raises(SgrlError, match="counts fill"):
        MaskTube.from_rle([{"size": [2, 3], "counts": [7, -1]}])
    with pytest.raises(SgrlError, match="no panoptic map"):
        tubes_of_maps([])
    with pytest.raises(SgrlError, match="masks of one size"):
        MaskTube.from_masks([mask]).intersections(MaskTube.from_masks([mask.T]))
    boxes = TubeObject("cat", BoxTube([None]))
    with pytest.raises(SgrlError, match="cannot compare boxes with MaskTube of 1 frames"):
        boxes.tube.intersections(MaskTube.from_masks([mask]))
    with pytest.raises(SgrlError, match="both masks and boxes"):
        VideoGraph([boxes, TubeObject("mat", MaskTube.from_masks([mask]))], [])
    with pytest.raises(SgrlError, match=r"relation 0 \('on'\): object must be the position of one of the 1 objects"):
        VideoGraph([boxes], [TimedRelation(0, "on", 1)])
