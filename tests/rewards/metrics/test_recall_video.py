"""Recall@K of videos: known answers of OpenPVSG's and PSG4D's evaluators, and properties."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.metrics.video import KINDS, VideoRecall, videos_of_rows
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import FormatError, answer, get_codec
from sgrl.tubes import BoxTube, MaskTube, TimedRelation, TubeObject, VideoGraph, tubes_of_maps

# the published weak recall counts several predictions for one relation
WEAK = {f"{prefix}{name}" for prefix in ("", "soft_") for name in ("weak_recall", "weak_mean_recall")}


@pytest.fixture(scope="module")
def golden(known_answers):
    data = json.loads((known_answers / "psg4d_recall.json").read_text())
    return data["cases"], tuple(data["meta"]["mask_size_HxW"])


def filled(box, size):
    mask = np.zeros(size, dtype=bool)
    if box is not None:
        x1, y1, x2, y2 = box
        mask[y1:y2, x1:x2] = True
    return mask


def painted(objects, frames, size):
    """One panoptic map per frame, later objects over earlier ones."""
    for frame in range(frames):
        canvas = np.zeros(size, dtype=np.int64)
        for o in objects:
            canvas[filled(o["tube"][frame], size)] = o["id"]
        yield canvas


def graph(video, kind, size, paint=False):
    objects, frames = video[f"{kind}_objects"], video["num_frames"]
    hidden = MaskTube.from_masks([None] * frames, *size)
    if paint:
        tubes = tubes_of_maps(painted(objects, frames, size))
    else:
        tubes = {o["id"]: MaskTube.from_masks(filled(box, size) for box in o["tube"]) for o in objects}
    place = {o["id"]: i for i, o in enumerate(objects)}
    relations = [
        TimedRelation(
            place[r["s"]], str(r["rel"]), place[r["o"]], tuple(tuple(span) for span in r["spans0"]), r.get("score")
        )
        for r in video[f"{kind}_relations"]
    ]
    return VideoGraph([TubeObject(f"class {o['cls']}", tubes.get(o["id"], hidden)) for o in objects], relations)


def counted(case, size, paint, **options):
    recall = VideoRecall(**options)
    each = [recall.add(graph(v, "pred", size), graph(v, "gt", size, paint)) for v in case["videos"]]
    return recall.compute(), each


def differences(case, size, protocol):
    found, _ = counted(case, size, True, protocol=protocol)
    names = set()
    for prefix, published in (("", "hard"), ("soft_", "soft")):
        for k, values in case["expected_openpvsg"][published].items():
            for name, value in values.items():
                if not math.isclose(found[f"{prefix}{name}@{k}"], value, abs_tol=1e-6, rel_tol=0):
                    names.add(f"{prefix}{name}")
    return names


def test_openpvsg_agrees(golden):
    cases, size = golden
    assert len(cases) == 5
    assert not [case["id"] for case in cases if differences(case, size, "published")]


def test_deviation_a_relation_is_found_weakly_once(golden):
    """Published: every prediction of 0.1 until the one that finds the relation counts, so that the share exceeds 1."""
    cases, size = golden
    found = {case["id"]: differences(case, size, "default") for case in cases}
    assert set().union(*found.values()) == WEAK
    assert [i for i, names in found.items() if names] == [5, 10]
    for case in cases:
        ours, _ = counted(case, size, True)
        for k in (20, 50, 100):
            assert ours[f"recall@{k}"] <= ours[f"weak_recall@{k}"] <= 1
            assert ours[f"soft_recall@{k}"] <= ours[f"soft_weak_recall@{k}"] <= ours[f"weak_recall@{k}"]
            assert ours[f"weak_recall@{k}"] <= case["expected_openpvsg"]["hard"][str(k)]["weak_recall"] + 1e-6


@pytest.mark.parametrize("threshold", ["0.5", "0.1"])
def test_psg4d_agrees(golden, threshold):
    cases, size = golden
    for case in cases:
        expected = case["expected_psg4d_metric"][threshold]
        found, each = counted(case, size, False, viou_threshold=float(threshold), ks=(10, 20, 50, 100))
        assert math.isclose(found["volume_map"], expected["mean_ap"], abs_tol=1e-6)
        for k, value in expected["recall_at"].items():
            assert math.isclose(found[f"volume_recall@{k}"], value, abs_tol=1e-6)
        for counts, video in zip(each, expected["per_video"], strict=True):
            assert math.isclose(counts["average_precision"], video["ap"], abs_tol=1e-6)
            assert all(counts[f"volume_found@{k}"] == sum(video["hits"][:k]) for k in (10, 20, 50, 100))


def test_boxes_give_what_their_masks_give(golden):
    cases, size = golden
    for case in cases:
        recall, masks = VideoRecall(), VideoRecall()
        for video in case["videos"]:
            graphs = []
            for kind in ("pred", "gt"):
                tubes = [TubeObject(str(o["cls"]), BoxTube(o["tube"])) for o in video[f"{kind}_objects"]]
                graphs.append(VideoGraph(tubes, graph(video, kind, size).relations))
            recall.add(*graphs)
            masks.add(graph(video, "pred", size), graph(video, "gt", size))
        assert recall.compute() == pytest.approx(masks.compute())


STILL = [(0, 0, 10, 10)] * 6
OBJECTS = [TubeObject("cat", BoxTube(STILL)), TubeObject("mat", BoxTube([(0, 5, 20, 20)] * 6))]


def said(*spans, score=None, predicate="on", objects=OBJECTS):
    return VideoGraph(objects, [TimedRelation(0, predicate, 1, spans, score)])


def test_viou_by_hand():
    """The reference holds in frames 1 to 4; in frame 3 the cat is nowhere near where it is."""
    reference = said((1, 4))
    strayed = [TubeObject("cat", BoxTube([*STILL[:3], (50, 50, 60, 60), *STILL[4:]])), OBJECTS[1]]
    counts = VideoRecall().add(said((0, 4), objects=strayed), reference)
    assert counts["soft_found@20"] == 0.75  # frames 1, 2, 4 of 1 to 4; 0 is free
    assert VideoRecall(viou_threshold=0.6).add(said((0, 4), objects=strayed), reference)["symmetric_found@20"] == 1
    assert VideoRecall(viou_threshold=0.61).add(said((0, 4), objects=strayed), reference)["symmetric_found@20"] == 0
    # volume: the cat's intersection is 3 frames of 4 in one and 5 in the other: 3 / 6
    assert VideoRecall().add(said((0, 4), objects=strayed), reference)["volume_found@20"] == 1
    assert VideoRecall(viou_threshold=0.51).add(said((0, 4), objects=strayed), reference)["volume_found@20"] == 0
    gone = [TubeObject("cat", BoxTube([None, None, *STILL[2:]])), OBJECTS[1]]
    hidden = VideoGraph(gone, reference.relations)  # frame 1 is no part of the reference
    assert VideoRecall().add(said((2, 4)), hidden)["soft_found@20"] == 1


def test_spans_that_are_too_long_are_free_but_for_the_symmetric_recall():
    short = said((0, 1))
    counts = VideoRecall().add(said(), short)
    assert counts["found@20"] == 1 and counts["symmetric_found@20"] == 0
    assert VideoRecall().add(said((0, 2)), short)["symmetric_found@20"] == 1


def test_ranks_are_those_of_scores_and_then_of_order():
    relations = [
        TimedRelation(0, p, 1, (), s) for p, s in (("near", 0.2), ("on", 9.5), ("by", math.nan), ("at", None))
    ]
    reference = VideoGraph(OBJECTS, relations)
    for predicate, rank in (("on", 1), ("near", 2), ("by", 3), ("at", 4)):
        counts = VideoRecall(ks=(1, 2, 3, 4)).add(reference, said(predicate=predicate))
        assert [counts[f"found@{k}"] for k in (1, 2, 3, 4)] == [float(rank <= k) for k in (1, 2, 3, 4)]


def test_by_volume_each_reference_relation_is_taken_once():
    twice = VideoGraph(OBJECTS, [TimedRelation(0, "on", 1, ((0, 5),)), TimedRelation(0, "on", 1, ((0, 4),))])
    counts = VideoRecall(ks=(1, 2)).add(said((0, 4)), twice)
    assert counts["volume_found@1"] == 1 and counts["found@1"] == 2
    counts = VideoRecall(ks=(1, 2)).add(twice, twice)
    assert counts["volume_found@1"] == 1 and counts["volume_found@2"] == 2 and counts["average_precision"] == 1


def test_what_is_missing_is_counted():
    recall = VideoRecall()
    recall.add(said(), said())
    assert recall.add(None, said())["found@20"] == 0
    recall.add(VideoGraph(OBJECTS, []), said())
    assert recall.add(said(), VideoGraph(OBJECTS, []))["average_precision"] is None
    found = recall.compute()
    assert found["videos"] == 4 and found["videos_without_relations"] == 1 and found["videos_without_predictions"] == 2
    assert found["recall@20"] == found["volume_map"] == pytest.approx(1 / 3) and found["relations_reference"] == 3
    assert recall.per_predicate()["on"]["relations"] == 3
    assert recall.per_predicate()["on"]["recall@50"] == pytest.approx(1 / 3)
    assert VideoRecall().compute()["recall@20"] == VideoRecall().compute()["volume_map"] == 0


def test_parts_add_up():
    videos = [said((0, 3)), said((2, 5), predicate="near"), VideoGraph(OBJECTS, [])]
    whole, *parts = (VideoRecall() for _ in range(3))
    for i, (a, b) in enumerate((a, b) for a in videos for b in videos):
        whole.add(a, b)
        parts[i % 2].add(a, b)
    parts[0].merge(parts[1])
    assert parts[0].compute() == pytest.approx(whole.compute())
    assert parts[0].per_predicate() == whole.per_predicate()
    with pytest.raises(SgrlError, match="different settings"):
        whole.merge(VideoRecall(ks=(20,)))


def test_predictions_of_other_lengths():
    short = [TubeObject(o.label, BoxTube(o.tube.boxes[:4])) for o in OBJECTS]
    assert VideoRecall().add(said(objects=short), said())["soft_found@20"] == pytest.approx(4 / 6)
    assert VideoRecall().add(said(), said(objects=short))["soft_found@20"] == 1


def test_videos_of_rows():
    """A ball rolls under a table and is lost for a frame; the model loses it once more, and sees a second one."""
    codec = get_codec("toon")

    def row(frame, solution, prediction, **more):
        graphs = [
            SceneGraph(
                [Object("ball", (x, 50, x + 40, 90)), Object("table", (100, 0, 500, 400))],
                [Relation(0, predicate, 1)],
                640,
                480,
            )
            for x, predicate in (solution, prediction)
        ]
        texts = [answer.wrap(codec.encode(graph)) for graph in graphs]
        return {"video_id": "v", "frame": frame, "solution": texts[0], "prediction": texts[1]} | more

    rows = [row(5 * t, (5 * t, "near"), (5 * t + 2, "near"), width=640, height=480) for t in range(4)]
    rows += [row(20, (20, "under"), (24, "under"), width=640, height=480, confidence=[0.3])]
    rows += [row(25, (25, "under"), (300, "under"), width=640, height=480, confidence=["high"])]
    rows[2]["prediction"] = None
    rows += [{"video_id": None, "frame": None}]
    ((video_id, prediction, reference),) = videos_of_rows(reversed(rows), "toon")
    assert video_id == "v" and [o.label for o in reference.objects] == ["ball", "table"]
    assert [(r.predicate, r.spans, r.score) for r in reference.relations] == [
        ("near", ((0, 3),), pytest.approx(4 / 6)),
        ("under", ((4, 5),), pytest.approx(2 / 6)),
    ]
    assert [o.label for o in prediction.objects] == ["ball", "table", "ball"]
    assert [(r.subject, r.predicate, r.spans, r.score) for r in prediction.relations] == [
        (0, "near", ((0, 1), (3, 3)), 0.5),
        (0, "under", ((4, 4),), pytest.approx(0.05)),
        (2, "under", ((5, 5),), pytest.approx(1 / 6)),
    ]
    recall = VideoRecall()
    recall.add(prediction, reference)
    found = recall.compute()
    assert found["recall@20"] == 1  # near in 3 of 4 frames, under in 1 of 2
    assert found["soft_recall@20"] == pytest.approx((0.75 + 0.5) / 2)
    with pytest.raises(FormatError, match="malformed reference"):
        list(videos_of_rows([rows[0] | {"solution": "a ball"}], "toon"))


def test_errors():
    with pytest.raises(SgrlError, match="did you mean 'published'"):
        VideoRecall(protocol="publishd")
    with pytest.raises(SgrlError, match=r"viou_threshold must lie in \[0, 1\]"):
        VideoRecall(viou_threshold=2)
    with pytest.raises(SgrlError, match="positive whole numbers"):
        VideoRecall(ks=())
    masks = [TubeObject(o.label, MaskTube.from_masks([np.ones((4, 4))] * 6)) for o in OBJECTS]
    recall = VideoRecall()
    with pytest.raises(SgrlError, match="cannot compare"):
        recall.add(said(objects=masks), said())
    assert recall.compute()["videos"] == 0


# Properties

FRAMES = 5
coordinate = st.integers(0, 12)
boxes = st.tuples(coordinate, coordinate, coordinate, coordinate).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1)
)
present = st.lists(boxes, min_size=FRAMES, max_size=FRAMES)
tubes = present | st.lists(boxes | st.none(), min_size=FRAMES, max_size=FRAMES)
spans = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=2).map(tuple)


@st.composite
def videos(draw, least=0, tube=tubes):
    n = draw(st.integers(1, 3))
    objects = [TubeObject(draw(st.sampled_from(["cat", "mat"])), BoxTube(draw(tube))) for _ in range(n)]
    end = st.integers(0, n - 1)
    score = st.none() | st.integers(0, 4).map(lambda x: x / 4)
    relation = st.builds(TimedRelation, end, st.sampled_from(["on", "near"]), end, spans, score)
    return VideoGraph(objects, draw(st.lists(relation, min_size=least, max_size=6)))


few = (1, 2, 3, 20)


@settings(max_examples=50)
@given(videos(1, present))
def test_a_perfect_video_has_recall_one(video):
    """But for the soft kinds: another relation of the same triplet may rank first and find it with a smaller vIoU."""
    held = [r for r in video.relations if r.holds(FRAMES).any()]
    video = VideoGraph(video.objects, held)
    recall = VideoRecall(ks=few)
    recall.add(video, video)
    found = recall.compute()
    if held:
        assert all(found[f"{kind}@20"] == pytest.approx(1) for kind in KINDS if "soft" not in kind)
        assert found["volume_map"] == found["mean_recall@20"] == pytest.approx(1)


@settings(max_examples=50)
@given(videos(), videos(1))
def test_recall_grows_with_k_and_its_kinds_are_ordered(prediction, reference):
    recall = VideoRecall(ks=few)
    counts = recall.add(prediction, reference)
    for kind in KINDS:
        values = [counts[f"{kind.replace('recall', 'found')}@{k}"] for k in few]
        assert values == sorted(values) and 0 <= values[0] and values[-1] <= len(reference.relations) + 1e-9
    for k in few:
        assert counts[f"soft_found@{k}"] <= counts[f"found@{k}"] <= counts[f"weak_found@{k}"]
        assert counts[f"symmetric_found@{k}"] <= counts[f"found@{k}"]
    assert 0 <= counts["average_precision"] <= 1


@settings(max_examples=50)
@given(videos(), videos(1), st.randoms())
def test_the_order_of_the_reference_does_not_matter(prediction, reference, random):
    """By volume it decides between relations that fit equally well, which leave others free."""
    relations = list(reference.relations)
    random.shuffle(relations)
    a, b = VideoRecall(ks=few), VideoRecall(ks=few)
    a.add(prediction, reference)
    b.add(prediction, VideoGraph(reference.objects, relations))
    a, b = a.compute(), b.compute()
    assert {k: x for k, x in a.items() if "volume" not in k} == pytest.approx(
        {k: x for k, x in b.items() if "volume" not in k}
    )


@settings(max_examples=50)
@given(videos(), videos(1))
def test_a_wrong_relation_at_the_end_never_helps(prediction, reference):
    worse = VideoGraph(prediction.objects, [*prediction.relations, TimedRelation(0, "beside", 0)])
    before, after = (VideoRecall(ks=few).add(p, reference) for p in (prediction, worse))
    after["relations_predicted"] -= 1
    assert before == after


wild = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([1e308, -1e308, 5e-324])


@settings(max_examples=50)
@given(st.data(), videos(1))
def test_hostile_numbers_never_raise(data, reference):
    frames = st.lists(st.none() | st.tuples(wild, wild, wild, wild), max_size=FRAMES + 2)
    objects = [TubeObject(label, BoxTube(data.draw(frames))) for label in ("cat", "mat")]
    relation = st.builds(
        TimedRelation,
        st.integers(0, 1),
        st.sampled_from(["on", "near"]),
        st.integers(0, 1),
        st.lists(st.tuples(wild, wild), max_size=2).map(tuple),
        wild,
    )
    prediction = VideoGraph(objects, data.draw(st.lists(relation, min_size=1, max_size=5)))
    recall = VideoRecall(ks=few)
    recall.add(prediction, reference)
    assert all(math.isfinite(x) for x in recall.compute().values())
