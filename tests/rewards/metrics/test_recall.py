"""Recall@K of images: known answers of R1-SGG's evaluator, where ours differs on purpose, and properties."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.metrics.ranking import ranked
from rewards.metrics.recall import PairScores, SceneGraphRecall, triplets
from sgrl.boxes import iou
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.scores import ScoredGraph, ScoreWriter, read_scores
from sgrl.text import FormatError, ParsedGraph, get_codec
from sgrl.vocabulary import Vocabulary

OURS = {
    "R": "recall",
    "ngR": "ng_recall",
    "mR": "mean_recall",
    "ng_mR": "ng_mean_recall",
    "zR": "zero_shot_recall",
    "ng_zR": "ng_zero_shot_recall",
}
KS = (20, 50, 100)
# OvSGTR's (Chen et al., ECCV 2024) split of VG150 for open vocabularies
BASE_OBJECTS = """tile drawer men railing stand towel sneaker vegetable screen vehicle animal kite cabinet sink
wire fruit curtain lamp flag pot sock boot guy kid finger basket wave lady orange number toilet post room paper
mountain paw banana rock cup hill house airplane plant skier fork box seat engine mouth letter windshield desk
board counter branch coat logo book roof tie tower glove sheep neck shelf bottle cap vase racket ski phone handle
boat tire flower child bowl pillow player trunk bag wing light laptop pizza cow truck jean eye arm leaf bird
surfboard umbrella food people nose beach sidewalk helmet face skateboard motorcycle clock bear""".split()
NOVEL_PREDICATES = (
    *("belonging to", "part of", "riding", "walking in", "in", "of", "painted on", "playing", "for", "walking on"),
    *("says", "attached to", "eating", "on", "wears"),
)
SMALL = Vocabulary("small", ("cat", "mat", "hat"), ("on", "near", "under"))


@pytest.fixture(scope="module")
def golden(known_answers):
    data = json.loads((known_answers / "vg_recall.json").read_text())
    meta = data["meta"]
    vocabulary = Vocabulary("golden", meta["classes"][1:], meta["predicates"][1:])
    listed = {
        (meta["classes"][s], meta["predicates"][p], meta["classes"][o])
        for s, o, p in meta["zero_shot_gt_triplets_subj_obj_pred"]
    }
    return data["cases"], vocabulary, listed


def ranked_image(case, image, vocabulary):
    """A detector's image: (prediction, reference)."""
    given = case["mode"] == "predcls"
    table = np.zeros((len(image["pairs"]), 1 + len(vocabulary.predicates)))
    for row, sparse in zip(table, image["rel_scores_sparse"], strict=True):
        for column, score in sparse.items():
            row[int(column)] = score
    prediction = PairScores(
        [vocabulary.objects[c - 1] for c in image["gt_labels" if given else "pred_classes"]],
        image["gt_boxes" if given else "pred_boxes"],
        np.ones(len(image["gt_boxes"])) if given else image["pred_scores"],
        image["pairs"],
        table[:, 1:],
    )
    reference = ParsedGraph(
        [vocabulary.objects[c - 1] for c in image["gt_labels"]],
        [tuple(box) for box in image["gt_boxes"]],
        [(s, vocabulary.predicates[p - 1], o) for s, o, p in image["gt_edges"]],
    )
    return prediction, reference


def written_image(image):
    """An image whose graph was written as JSON in thousandths: (prediction, reference), both in pixels."""
    width, height = image["image_size"]
    objects = image["gt"]["objects"]
    place = {o["id"]: i for i, o in enumerate(objects)}
    reference = ParsedGraph(
        [o["id"].split(".")[0] for o in objects],
        [tuple(o["bbox"]) for o in objects],
        [(place[r["subject"]], r["predicate"], place[r["object"]]) for r in image["gt"]["relationships"]],
    )
    graph, _ = get_codec("json").recover_published(image["response"])
    scale = width / 1000, height / 1000
    boxes = [(x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1]) for x1, y1, x2, y2 in graph.boxes]
    return graph._replace(boxes=boxes), reference


def counted(case, vocabulary, **options):
    recall = SceneGraphRecall(vocabulary=vocabulary, **options)
    for image in case["images"]:
        ranked = case["type"] == "ranked"
        recall.add(*(ranked_image(case, image, vocabulary) if ranked else written_image(image)))
    return recall.compute()


def differences(case, vocabulary, listed, **options):
    found = counted(case, vocabulary, zero_shot_triplets=listed, **options)
    return {
        f"{name}@{k}"
        for name, ours in OURS.items()
        for k in KS
        if not math.isclose(found[f"{ours}@{k}"], case["expected"][name][str(k)], abs_tol=1e-5, rel_tol=0)
    }


@pytest.mark.parametrize("protocol", ["default", "published"])
def test_detectors_agree_under_both_protocols(golden, protocol):
    cases, vocabulary, listed = golden
    cases = [case for case in cases if case["type"] == "ranked"]
    assert {case["mode"] for case in cases} == {"sgdet", "sgcls", "predcls"}
    for case in cases:
        assert not differences(case, vocabulary, listed, protocol=protocol), case["id"]
        found = counted(case, vocabulary, zero_shot_triplets=listed, protocol=protocol)
        assert found["images_zero_shot"] == case["expected"]["n_images_zero_shot"]


def test_recall_of_each_image_agrees(golden):
    cases, vocabulary, _ = golden
    for case in (case for case in cases if case["type"] == "ranked"):
        for i, image in enumerate(case["images"]):
            counts = SceneGraphRecall(vocabulary=vocabulary).add(*ranked_image(case, image, vocabulary))
            for k in KS:
                for ours, theirs in (("found", "per_image_R"), ("ng_found", "per_image_ngR")):
                    share = counts[f"{ours}@{k}"] / counts["relations_reference"]
                    assert math.isclose(share, case["expected"][theirs][str(k)][i], abs_tol=1e-5)


def test_open_vocabulary_recall_is_recall_of_the_triplets_that_are_novel(golden):
    """OvSGTR's splits: both classes novel (OvD), or the predicate (OvR)."""
    cases, vocabulary, _ = golden
    novel = {
        "ovd_zR": lambda t: t[0] not in BASE_OBJECTS and t[2] not in BASE_OBJECTS,
        "ovr_zR": lambda t: t[1] in NOVEL_PREDICATES,
    }
    for case in (case for case in cases if case["type"] == "ranked"):
        seen = set().union(*(triplets(ranked_image(case, image, vocabulary)[1]) for image in case["images"]))
        seen = {(s, vocabulary.from_text(p), o) for s, p, o in seen}
        for name, wanted in novel.items():
            found = counted(case, vocabulary, zero_shot_triplets=set(filter(wanted, seen)))
            for k in KS:
                expected = case["expected"][name][str(k)]
                if expected is None:
                    assert found["images_zero_shot"] == 0
                else:
                    assert math.isclose(found[f"zero_shot_recall@{k}"], expected, abs_tol=1e-5)


# what R1-SGG's ngR at 20 depends on is the order in which numpy sorts equal scores
ARBITRARY = {"ngR@20", "ng_mR@20", "ng_zR@20"}


def written(golden):
    cases, vocabulary, listed = golden
    return next(case for case in cases if case["type"] == "generated"), vocabulary, listed


def test_written_graphs_agree_under_the_published_protocol(golden):
    case, vocabulary, listed = written(golden)
    assert differences(case, vocabulary, listed, protocol="published") == ARBITRARY
    assert ARBITRARY == set(case["tie_sensitive_range"])
    found = counted(case, vocabulary, zero_shot_triplets=listed, protocol="published")
    assert found["images"] - found["images_left_out"] == case["expected"]["n_images_counted"] == 18
    assert found["images_zero_shot"] == case["expected"]["n_images_zero_shot"]


def test_deviation_4_an_image_without_a_usable_relation_counts_as_zero(golden):
    """Published: four images whose graphs have objects, but no relation of the vocabulary, are not in the mean."""
    case, vocabulary, listed = written(golden)
    found = counted(case, vocabulary, zero_shot_triplets=listed)
    for k in KS:
        assert math.isclose(found[f"recall@{k}"], case["expected"]["R"][str(k)] * 18 / 22, abs_tol=1e-5)
    assert found["images"] == 22 and found["images_left_out"] == 0 and found["images_zero_shot"] == 15
    assert found["failures"] == case["failure"]["fails_total"][0]
    assert math.isclose(100 * found["failure_rate"], case["failure"]["failure_rate_pct"], abs_tol=1e-4)


def test_all_relations_of_written_graphs(golden):
    """R1-SGG's second script: no limit, all images; it rounds the recall of a predicate to four digits."""
    case, _, _ = written(golden)
    found, expected = counted(case, None), case["expected_unranked"]
    assert math.isclose(found["pooled_recall@all"], expected["whole_ngR"], abs_tol=1e-5)
    assert math.isclose(found["recall@all"], expected["ngR_per_image"], abs_tol=1e-5)
    assert math.isclose(found["pooled_mean_recall@all"], expected["whole_mean_ngR"], abs_tol=5e-5)
    assert math.isclose(found["mean_recall@all"], expected["mean_ngR_per_image"], abs_tol=5e-5)
    assert found["relations_reference"] == expected["n_gt_rels"]


def test_of_an_answer_that_was_cut_off_the_rest_is_read(golden):
    """Published: an answer that ends in the middle has no graph."""
    case, vocabulary, _ = written(golden)
    cut_off = [image for image in case["images"] if not image["response"].endswith("</answer>")]
    assert len(cut_off) == 2
    for image in cut_off:
        _, reference = written_image(image)
        for protocol, failure in (("default", 0), ("published", 1)):
            counted = SceneGraphRecall("json", 1000, 1000, vocabulary=vocabulary, protocol=protocol)
            counts = counted.add(image["response"], reference)
            assert counts["failure"] == failure and (counts["relations_predicted"] > 0) != failure


REFERENCE = ParsedGraph(["cat", "mat"], [(0.0, 0.0, 10.0, 10.0), (0.0, 5.0, 20.0, 20.0)], [(0, "on", 1)])


def test_published_boxes_are_a_pixel_larger():
    moved = REFERENCE._replace(boxes=[(0.0, 0.0, 10.0, 4.9), (0.0, 5.0, 20.0, 20.0)])
    assert SceneGraphRecall().add(moved, REFERENCE)["found@20"] == 0
    assert SceneGraphRecall(vocabulary=SMALL, protocol="published").add(moved, REFERENCE)["found@20"] == 1


def test_published_rankings_of_pairs_are_not_sorted():
    boxes = [*REFERENCE.boxes, (50.0, 50.0, 60.0, 60.0)]
    scores = PairScores(["cat", "mat", "hat"], boxes, [1, 1, 1], [(2, 1), (0, 1)], [[0.1, 0, 0], [0.9, 0.5, 0]])
    options = {"vocabulary": SMALL, "ks": (1, 2)}
    ours = SceneGraphRecall(**options).add(scores, REFERENCE)
    assert ours["found@1"] == 1
    theirs = SceneGraphRecall(**options, protocol="published").add(scores, REFERENCE)
    assert theirs["found@1"] == 0 and theirs["found@2"] == 1 and theirs["ng_found@1"] == 1


def test_published_ranks_are_given_to_the_vocabulary_only():
    graph = REFERENCE._replace(relations=[(0, "loves", 1), (0, "on", -1), (0, "on", 1)])
    assert SceneGraphRecall(ks=(1,)).add(graph, REFERENCE)["found@1"] == 0
    assert SceneGraphRecall(vocabulary=SMALL, protocol="published", ks=(1,)).add(graph, REFERENCE)["found@1"] == 1


def test_the_graph_constraint_holds_for_scores_and_not_for_what_is_written():
    two = REFERENCE._replace(relations=[(0, "on", 1), (0, "near", 1)])
    scores = PairScores(two.labels, two.boxes, [1, 1], [(0, 1)], [[0.9, 0.8, 0.1]])
    found = SceneGraphRecall(vocabulary=SMALL).add(scores, two)
    assert found["found@20"] == found["found@all"] == 1 and found["ng_found@20"] == 2
    objects = [Object(label, box) for label, box in zip(two.labels, two.boxes, strict=True)]
    graph = SceneGraph(objects, [Relation(0, "near", 1, score=0.2), Relation(0, "on", 1, score=0.7)], 20, 20)
    found = SceneGraphRecall(ks=(1, 2)).add(graph, two)
    assert found["found@2"] == 1 and found["ng_found@2"] == 2
    assert SceneGraphRecall().add(two, two)["found@20"] == SceneGraphRecall().add(ranked(two), two)["found@20"] == 2


def test_texts_are_ranked_by_confidence_or_in_the_order_of_writing():
    codec = get_codec("toon")
    objects = [Object("cat", (0, 0, 10, 10)), Object("mat", (0, 5, 20, 20))]
    reference = SceneGraph(objects, [Relation(0, "on", 1)], 640, 480)
    text = codec.encode(SceneGraph(objects, [Relation(0, "near", 1), Relation(0, "on", 1)], 640, 480))
    recall = SceneGraphRecall("toon", 640, 480, ks=(1, 20))
    assert recall.add(text, reference)["found@1"] == 0
    assert recall.add(text, codec.encode(reference), confidences=[0.1, 0.6])["found@1"] == 1
    found = recall.compute()
    assert found["recall@1"] == 0.5 and found["recall@20"] == 1
    with pytest.raises(SgrlError, match="3 confidences for 2 relations"):
        recall.add(text, reference, confidences=[0.1, 0.2, 0.3])
    assert recall.images == 2


def test_images_without_relations_are_counted_and_are_in_no_mean():
    recall = SceneGraphRecall()
    recall.add(REFERENCE, REFERENCE)
    assert recall.add(REFERENCE, REFERENCE._replace(relations=[]))["relations_reference"] == 0
    found = recall.compute()
    assert found["images"] == 2 and found["images_without_relations"] == 1 and found["recall@20"] == 1


def test_failures_count_as_zero():
    recall = SceneGraphRecall("toon", 640, 480)
    recall.add(REFERENCE, REFERENCE)
    for text in (None, "", "I see a cat.", "obj[0]{id,name,x1,y1,x2,y2}:"):
        assert recall.add(text, REFERENCE)["failure"] == 1
    assert SceneGraphRecall().add(None, REFERENCE, confidences=[])["failure"] == 1
    found = recall.compute()
    assert found["failures"] == 4 and found["recall@20"] == found["mean_recall@20"] == 0.2
    assert found["f1@20"] == pytest.approx(0.2)


def test_zero_shot_recall_of_what_training_lacks():
    other = REFERENCE._replace(labels=["cat", "hat"])
    recall = SceneGraphRecall(training_triplets=triplets(REFERENCE))
    recall.add(REFERENCE, REFERENCE)
    assert recall.compute()["zero_shot_recall@20"] == 0 and recall.compute()["images_zero_shot"] == 0
    recall.add(other, other)
    recall.add(REFERENCE, other)
    assert recall.compute()["zero_shot_recall@20"] == 0.5 and recall.compute()["images_zero_shot"] == 2
    assert "zero_shot_recall@20" not in SceneGraphRecall().compute()


def test_mean_recall_is_over_the_vocabulary_and_new_predicates():
    recall = SceneGraphRecall(vocabulary=SMALL)
    recall.add(REFERENCE, REFERENCE)
    assert recall.compute()["mean_recall@20"] == pytest.approx(1 / 3)
    assert recall.compute()["predicates_absent"] == 2
    strange = REFERENCE._replace(relations=[(0, "loves", 1)])
    recall.add(strange, strange)
    assert recall.compute()["mean_recall@20"] == 0.5 and recall.compute()["pooled_mean_recall@20"] == 1


def test_per_predicate():
    recall = SceneGraphRecall(vocabulary=SMALL, ks=(20,))
    recall.add(REFERENCE, REFERENCE)
    twice = ParsedGraph(
        ["cat", "mat", "mat"],
        [*REFERENCE.boxes, (60.0, 60.0, 90.0, 90.0)],
        [(0, "on", 1), (0, "on", 2), (0, "on", 1)],
    )
    recall.add(REFERENCE._replace(boxes=[REFERENCE.boxes[0], twice.boxes[2]]), twice)
    found = recall.per_predicate()
    assert list(found) == ["on", "near", "under"]
    assert found["on"]["images"] == 2 and found["on"]["relations"] == 4
    assert found["on"]["recall@20"] == pytest.approx((1 + 1 / 3) / 2) and found["on"]["pooled_recall@20"] == 0.5
    assert found["near"]["relations"] == found["near"]["recall@20"] == 0


def test_many_predicates_fit_in_the_table():
    recall = SceneGraphRecall()
    for i in range(300):
        graph = REFERENCE._replace(relations=[(0, f"p{i}", 1)])
        recall.add(graph if i % 2 else REFERENCE, graph)
    assert recall.compute()["predicates"] == 300 and recall.compute()["mean_recall@20"] == 0.5


def test_overlap_is_that_of_the_boxes():
    rng = np.random.default_rng(0)
    boxes = [tuple(map(float, b)) for b in rng.integers(0, 9, (40, 4))] + [(0.0, 0.0, 1e-200, 1e-200)]
    expected = iou(boxes, boxes)
    for a, row in zip(boxes, expected, strict=True):
        for b, value in zip(boxes, row, strict=True):
            for threshold in (0.3, 0.5):
                mine, theirs = REFERENCE._replace(boxes=[a, a]), REFERENCE._replace(boxes=[b, b])
                found = SceneGraphRecall(iou_threshold=threshold).compare(mine, theirs)
                assert (found.ranks == [0]) == (value >= threshold)


def test_parts_add_up():
    graphs = [REFERENCE, REFERENCE._replace(relations=[(0, "loves", 1)]), REFERENCE._replace(relations=[])]
    options = {"vocabulary": SMALL, "training_triplets": triplets(REFERENCE)}
    whole, *parts = (SceneGraphRecall(**options) for _ in range(3))
    for i, (a, b) in enumerate((a, b) for a in graphs for b in graphs):
        whole.add(a, b)
        parts[i % 2].add(a, b)
    parts[0].merge(parts[1])
    assert parts[0].compute() == pytest.approx(whole.compute())
    for predicate, figures in whole.per_predicate().items():
        assert parts[0].per_predicate()[predicate] == pytest.approx(figures)
    with pytest.raises(SgrlError, match="different settings"):
        whole.merge(SceneGraphRecall(vocabulary=SMALL))


def test_many_images_are_summed_in_pieces():
    recall = SceneGraphRecall(ks=(1,))
    for i in range(6000):
        recall.add(REFERENCE if i % 3 else None, REFERENCE)
        assert len(recall._counts._pending) < 4096
    found = recall.compute()
    assert found["images"] == found["relations_reference"] == 6000
    assert found["recall@1"] == found["pooled_recall@1"] == found["mean_recall@1"] == pytest.approx(2 / 3)


def test_nothing_yet():
    found = SceneGraphRecall(vocabulary=SMALL).compute()
    assert found["images"] == 0 and found["recall@20"] == found["mean_recall@100"] == found["ng_f1@50"] == 0
    assert SceneGraphRecall().compute()["mean_recall@20"] == 0


def test_errors():
    with pytest.raises(SgrlError, match="did you mean 'published'"):
        SceneGraphRecall(protocol="publishd")
    with pytest.raises(SgrlError, match="give vocabulary="):
        SceneGraphRecall(protocol="published")
    with pytest.raises(SgrlError, match="not both"):
        SceneGraphRecall(training_triplets=[], zero_shot_triplets=[])
    with pytest.raises(SgrlError, match="positive whole numbers"):
        SceneGraphRecall(ks=(0, 20))
    with pytest.raises(SgrlError, match=r"in \[0, 1\]"):
        SceneGraphRecall(iou_threshold=2)
    with pytest.raises(SgrlError, match="codec, width and height"):
        SceneGraphRecall().add("text", REFERENCE)
    with pytest.raises(SgrlError, match="predictions come first"):
        SceneGraphRecall().add(REFERENCE, PairScores([], [], [], [], []))
    with pytest.raises(FormatError, match="malformed reference"):
        SceneGraphRecall("toon", 640, 480).add("", "cat on mat")
    right = PairScores(["cat", "mat"], REFERENCE.boxes, [1, 1], [(0, 1)], [[1, 0, 0]])
    recall = SceneGraphRecall(vocabulary=SMALL)
    with pytest.raises(SgrlError, match="give vocabulary="):
        SceneGraphRecall().add(right, REFERENCE)
    with pytest.raises(SgrlError, match="3 columns, one for each predicate"):
        recall.add(right._replace(predicate_scores=[[1, 0, 0, 0]]), REFERENCE)
    with pytest.raises(SgrlError, match="1 labels, 2 boxes"):
        recall.add(right._replace(labels=["cat"]), REFERENCE)
    with pytest.raises(SgrlError, match="positions of the 2 objects"):
        recall.add(right._replace(pairs=[(0, 2)]), REFERENCE)
    assert recall.images == 0
    assert recall.add(right._replace(pairs=[], predicate_scores=[]), REFERENCE)["found@20"] == 0


# Properties

number = st.integers(0, 60).map(float)
box = st.tuples(number, number, number, number).map(lambda b: (min(b[0], b[2]), min(b[1], b[3]), b[2] + 1, b[3] + 1))
box = box.map(lambda b: (b[0], b[1], max(b[0] + 1, b[2]), max(b[1] + 1, b[3])))


@st.composite
def graphs(draw, least=0):
    boxes = draw(st.lists(box, min_size=1, max_size=5))
    labels = draw(st.lists(st.sampled_from(SMALL.objects), min_size=len(boxes), max_size=len(boxes)))
    end = st.integers(0, len(boxes) - 1)
    relation = st.tuples(end, st.sampled_from(SMALL.predicates), end)
    return ParsedGraph(labels, boxes, draw(st.lists(relation, min_size=least, max_size=12)))


@st.composite
def scores(draw):
    graph = draw(graphs())
    pairs = [(s, o) for s in range(len(graph.boxes)) for o in range(len(graph.boxes)) if s != o]
    share = st.floats(0, 1).map(lambda x: round(x, 1))  # ties are likely
    table = draw(st.lists(st.lists(share, min_size=3, max_size=3), min_size=len(pairs), max_size=len(pairs)))
    certain = draw(st.lists(share, min_size=len(graph.boxes), max_size=len(graph.boxes)))
    return PairScores(graph.labels, graph.boxes, certain, pairs, table)


few = (1, 2, 3, 5, 20)


def found_at(prediction, reference, **options):
    options = {"vocabulary": SMALL, "ks": few} | options
    return SceneGraphRecall(**options).add(prediction, reference)


@given(graphs(least=1))
def test_a_perfect_graph_has_recall_one(graph):
    recall = SceneGraphRecall(ks=few)
    recall.add(graph, graph)
    found = recall.compute()
    for name in ("recall", "ng_recall", "mean_recall", "pooled_recall", "pooled_mean_recall", "f1"):
        assert found[f"{name}@20"] == pytest.approx(1)


@settings(max_examples=50)
@given(scores() | graphs(), graphs(least=1))
def test_recall_grows_with_k(prediction, reference):
    recall = SceneGraphRecall(vocabulary=SMALL, training_triplets=[("cat", "on", "mat")], ks=few)
    counts = recall.add(prediction, reference)
    for name in ("found", "ng_found"):
        values = [counts[f"{name}@{k}"] for k in few]
        assert values == sorted(values)
    assert counts["found@20"] <= counts["found@all"] <= counts["relations_reference"]
    found = recall.compute()
    for name in ("recall", "mean_recall", "pooled_recall", "pooled_mean_recall", "zero_shot_recall"):
        values = [found[f"{name}@{k}"] for k in (*few, "all")]
        assert values == sorted(values) and 0 <= values[0] and values[-1] <= 1


@settings(max_examples=50)
@given(scores(), graphs(least=1))
def test_the_constraint_finds_no_more_where_all_is_ranked(prediction, reference):
    """At a smaller K the constraint may find more, because no pair takes two places."""
    wide = found_at(prediction, reference, ks=(100,))  # at most 20 pairs with 3 predicates
    assert wide["found@100"] <= wide["ng_found@100"]


@settings(max_examples=50)
@given(scores() | graphs(), graphs(least=1), st.randoms())
def test_the_order_of_the_reference_does_not_matter(prediction, reference, random):
    order = list(range(len(reference.labels)))
    random.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    relations = [(place[s], p, place[o]) for s, p, o in reference.relations]
    random.shuffle(relations)
    shuffled = ParsedGraph([reference.labels[i] for i in order], [reference.boxes[i] for i in order], relations)
    a, b = SceneGraphRecall(vocabulary=SMALL, ks=few), SceneGraphRecall(vocabulary=SMALL, ks=few)
    assert a.add(prediction, reference) == b.add(prediction, shuffled)
    assert a.compute() == pytest.approx(b.compute())


@given(graphs(), graphs(least=1))
def test_a_wrong_relation_at_the_end_never_helps(prediction, reference):
    worse = prediction._replace(relations=[*prediction.relations, (0, "beside", 0)])
    before, after = found_at(prediction, reference), found_at(worse, reference)
    after["relations_predicted"] -= 1
    assert before == after
    first = prediction._replace(relations=[(0, "beside", 0), *prediction.relations])
    assert all(found_at(first, reference)[f"found@{k}"] <= before[f"found@{k}"] for k in few)


@settings(max_examples=50)
@given(scores(), graphs(least=1))
def test_ranks_are_those_of_a_plain_sort(prediction, reference):
    """Against the definition, written out."""
    table = np.array(prediction.predicate_scores, dtype=float).reshape(-1, 3)
    entries = []
    for row, (s, o) in enumerate(prediction.pairs):
        for column, p in enumerate(SMALL.predicates):
            value = prediction.scores[s] * prediction.scores[o] * table[row, column]
            entries.append((-value, row, column, s, p, o))
    best = [min(e for e in entries if e[1] == row) for row in range(len(prediction.pairs))]
    graph = ParsedGraph(prediction.labels, prediction.boxes, [])
    counts = found_at(prediction, reference)
    for name, listed in (("found", sorted(best)), ("ng_found", sorted(entries))):
        plain = graph._replace(relations=[e[3:] for e in listed])
        expected = found_at(plain, reference)
        assert all(counts[f"{name}@{k}"] == expected[f"found@{k}"] for k in few)


wild = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([1e308, -1e308, 5e-324])


@settings(max_examples=50)
@given(st.data(), graphs(least=1))
def test_hostile_numbers_never_raise(data, reference):
    n = data.draw(st.integers(1, 4))
    pairs = [(s, o) for s in range(n) for o in range(n)]

    def drawn(*shape):
        size = math.prod(shape)
        return np.array(data.draw(st.lists(wild, min_size=size, max_size=size))).reshape(shape)

    prediction = PairScores(["cat"] * n, drawn(n, 4), drawn(n), pairs, drawn(len(pairs), 3))
    for protocol in ("default", "published"):
        recall = SceneGraphRecall(vocabulary=SMALL, ks=few, protocol=protocol)
        counts = recall.add(prediction, reference)
        assert 0 <= counts["found@20"] <= counts["relations_reference"]
        assert all(math.isfinite(x) for x in recall.compute().values())


@settings(max_examples=50)
@given(st.text() | st.binary() | st.none())
def test_hostile_texts_never_raise(text):
    for codec in ("toon", "json", "toon-pairs", "toon-lean"):
        assert SceneGraphRecall(codec, 640, 480).add(text, REFERENCE)["found@20"] == 0


def test_recall_of_single_images_is_kept_on_request():
    truth = ParsedGraph(["cat", "mat"], [(0, 0, 9, 9), (0, 5, 9, 9)], [(0, "on", 1), (1, "under", 0)])
    images = [truth, truth._replace(relations=truth.relations[:1]), ParsedGraph([], [], [])]
    first, second = (SceneGraphRecall(ks=(1, 5), keep_images=True) for _ in range(2))
    for graph in images[:2]:
        first.add(graph, truth)
    first.add(truth, truth._replace(relations=[]))  # in no mean
    second.add(images[2], truth)
    first.merge(second)
    assert first.of_images().tolist() == [[0.5, 1, 1], [0.5, 0.5, 0.5], [0, 0, 0]]
    assert first.of_images().mean(axis=0) == pytest.approx([first.compute()[f"recall{key}"] for key in first.keys])
    with pytest.raises(SgrlError, match="keep_images=True"):
        SceneGraphRecall().of_images()
    with pytest.raises(SgrlError, match="different settings"):
        first.merge(SceneGraphRecall(ks=(1, 5)))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (("人", "骑", "马"), ("狗", "吃", "桌子")),
        (("собака", "под", "лес"), ("кошка", "на", "стол")),
        (("C#", "on", "cup"), ("C++", "on", "cup")),
        (("año", "on", "cup"), ("ano", "on", "cup")),
    ],
)
@pytest.mark.parametrize("codec", ["toon", "json"])
def test_other_names_are_other_names_in_every_script(right, wrong, codec):
    def text(subject, predicate, target):
        objects = [Object(subject, (100, 50, 300, 470)), Object(target, (80, 200, 420, 478))]
        return get_codec(codec).encode(SceneGraph(objects, [Relation(0, predicate, 1)], 640, 480))

    counted = SceneGraphRecall(codec, 640, 480)
    found = [counted.add(text(*said), text(*right))["found@20"] for said in (wrong, right)]
    assert found == [0, 1] and counted.compute()["predicates"] == 1


def test_scores_that_went_through_files_agree(golden, tmp_path):
    cases, vocabulary, listed = golden
    for case in cases:
        if case["type"] != "ranked":
            continue
        images = [ranked_image(case, image, vocabulary) for image in case["images"]]
        with ScoreWriter(tmp_path, vocabulary, dataset="golden") as writer:
            for i, ((labels, boxes, scores, pairs, table), _) in enumerate(images):
                given = {"labels": labels, "boxes": boxes, "scores": scores, "pairs": pairs, "predicate_scores": table}
                writer.add(ScoredGraph(**given, image_id=str(i), width=640, height=480))
        recall = SceneGraphRecall(vocabulary=vocabulary, zero_shot_triplets=listed)
        for graph, (_, reference) in zip(read_scores(tmp_path), images, strict=True):
            recall.add(graph, reference)
        found = recall.compute()
        for name, ours in OURS.items():
            for k in KS:
                assert math.isclose(found[f"{ours}@{k}"], case["expected"][name][str(k)], abs_tol=1e-5, rel_tol=0)
