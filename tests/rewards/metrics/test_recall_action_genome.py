"""Action Genome's recall: where ours differs from the published evaluators on purpose; texts, detectors and sums."""

import math

import numpy as np
import pytest

from rewards.metrics.action_genome import CONSTRAINTS, PROTOCOLS, TASKS, ActionGenomeRecall, sttran_frames
from rewards.metrics.action_genome_counts import Triplets, suppressed
from rewards.metrics.ranking import ranked
from rewards.metrics.recall import PairScores
from sgrl.errors import SgrlError
from sgrl.graph import Relation, SceneGraph
from sgrl.text import FormatError, ParsedGraph, answer, get_codec
from sgrl.vocabulary import Vocabulary, get_vocabulary

AG = get_vocabulary("action_genome")
PAIRS = get_codec("toon-pairs")
HEADER = "rel_pairs[{}]{{subj,attention,spatial,contacting,obj}}:\n"
OBJECTS = "obj[2]{id,name,x1,y1,x2,y2}:\n1,person,10,10,100,200\n2,chair,120,50,300,200\n"
REFERENCE = OBJECTS + HEADER.format(1) + "1,unsure,above|behind,holding,2"
EMPTY = OBJECTS + HEADER.format(0).rstrip()
COUNTED = {"found": "tp", "right": "tp", "predicted": "pred"}


def text(*rows, objects=OBJECTS):
    return answer.wrap(objects + HEADER.format(len(rows)) + "\n".join(rows))


def recall(constraint="with", **options):
    return ActionGenomeRecall(640, 480, constraint, **options)


def one(prediction, reference=REFERENCE, constraint="with", confidences=None, **options):
    return recall(constraint, **options).add(prediction, reference, confidences=confidences)


# --- where the default differs from the published reading of texts --------------------------------------------------


def test_deviation_a_failed_prediction_counts_as_zero():
    """Published: left out of every average."""
    for protocol, expected in (("default", 0.5), ("published", 1.0)):
        counts = recall("no", protocol=protocol)
        counts.add(answer.wrap(REFERENCE), REFERENCE)
        assert counts.add("I see a person.", REFERENCE)["failure"] == 1
        found = counts.compute()
        assert found["recall@10"] == found["mean_recall@10"] * 26 / 4 == found["pooled_recall@10"] == expected
        assert (found["images"], found["failures"], found["failure_rate"]) == (2, 1, 0.5)
        assert found["images_left_out"] == (protocol == "published")
        assert found["precision@100"] == (0.5 if protocol == "default" else pytest.approx(4 / 78))


def test_rows_are_what_the_published_pattern_takes():
    """It knows three closed brackets between two ids, over line breaks too; another row proposes nothing at all."""
    for row, proposed in (
        ("1,[unsure],[above,behind],[holding],2", 3),
        ("1,[unsure,[above],[holding],2", 0),  # two brackets: no row, though it has five cells
        ("1,[unsure],[above],[holding,2", 0),
        ("1,[unsure,[above],[behind],[holding],2", 3),
        ("1,\n[unsure]\n,[above],[holding],\n2", 3),
        ("1,[unsure,\n2\n1,[above],[behind],[holding],2", 3),
        ("1,[unsure],[above],[holding],2 and so on", 0),
        ("1,[" * 50_000, 0),  # nothing is searched twice
    ):
        assert one(text(row), protocol="published")["predicted@10"] == proposed, row[:50]
    objects = OBJECTS.replace("2,chair,120", "2,\nchair ,\n120")
    assert one(text("1,[unsure],[above],[holding],2", objects=objects), protocol="published")["failure"] == 0


def test_deviation_an_empty_group_proposes_nothing():
    """Published: a row proposes "looking_at" wherever a group is empty, which may even be right."""
    reference = OBJECTS + HEADER.format(1) + '1,looking_at,in,"",2'
    prediction = text('1,"",in,"",2')
    ours, theirs = one(prediction, reference), one(prediction, reference, protocol="published")
    assert (ours["recall@10"], ours["predicted@10"], ours["precision@10"]) == (0.5, 1, 1)
    assert (theirs["recall@10"], theirs["predicted@10"]) == (1, 3)


def test_deviation_without_constraint_only_what_was_written_is_ranked():
    """Published: the list is filled up to 100 with triplets of score 0, so a perfect graph has a precision near 0."""
    ours, theirs = (one(answer.wrap(REFERENCE), constraint="no", protocol=name) for name in ("default", "published"))
    assert ours["recall@100"] == theirs["recall@100"] == 1
    assert (ours["predicted@100"], ours["precision@100"], ours["f1@100"]) == (4, 1, 1)
    assert theirs["predicted@100"] == 78 and theirs["precision@100"] == pytest.approx(4 / 78)


def test_deviation_a_relation_with_an_unknown_object_hits_nothing():
    """Published: an unknown object means the first one."""
    prediction = text("1,unsure,above,holding,2").replace(",2\n</answer>", ",2\n9,unsure,above,holding,2\n</answer>")
    only = text("9,unsure,above,holding,2")
    assert one(only)["recall@10"] == 0 and one(only, protocol="published")["recall@10"] == 0.75
    assert one(prediction)["precision@10"] == 0.5


def test_deviation_a_class_is_its_whole_name():
    """Published: any part of a name will do."""
    reference = REFERENCE.replace("chair", "cup/glass/bottle")
    for name in ("cup", "big cup/glass/bottle"):
        prediction = text("1,unsure,above,holding,2", objects=OBJECTS.replace("chair", name))
        assert one(prediction, reference)["recall@10"] == 0
        assert one(prediction, reference, protocol="published")["recall@10"] == 0.75
    spelled = text("1,unsure,above,holding,2", objects=OBJECTS.replace("chair", "Cup-Glass-Bottle"))
    assert one(spelled, reference)["recall@10"] == 0.75


def test_deviation_the_constraint_is_on_pairs_not_rows():
    """Published: a pair whose labels stand in two rows proposes two predicates of a group."""
    prediction = text("1,unsure,above,holding,2", '1,"",behind,"",2')
    assert one(prediction)["found@10"] == 3
    assert one(prediction, protocol="published")["found@10"] == 4


def test_deviation_ranks_follow_the_writing():
    """Published: all attention labels come first or last, whatever was written first."""
    first = '1,"",above,holding,2'
    prediction = text('2,"",above,"",1', '1,"",behind,"",2', first, objects=OBJECTS)
    values = one(prediction, constraint="no", ks=(1, 2, 3, 4))
    assert [values[f"found@{k}"] for k in (1, 2, 3, 4)] == [0, 1, 2, 3]


def test_deviation_a_frame_without_relations_is_counted_and_reported():
    """Published: left out silently (SceneGraphVLM) or a crash (STTran, OED)."""
    for protocol in PROTOCOLS:
        counts = recall("no", protocol=protocol)
        counts.add(answer.wrap(REFERENCE), REFERENCE)
        perfect = counts.add(answer.wrap(EMPTY), EMPTY)
        wrong = counts.add(answer.wrap(REFERENCE), EMPTY)
        found = counts.compute()
        assert found["images"] == 3 and found["images_without_relations"] == 2 and found["recall@10"] == 1
        assert found["images_left_out"] == (0 if protocol == "default" else 2)
        if protocol == "default":
            assert perfect["recall@10"] == perfect["precision@10"] == perfect["f1@10"] == 1
            assert wrong["recall@10"] == wrong["precision@10"] == wrong["f1@10"] == 0
            assert found["precision@10"] == found["f1@10"] == pytest.approx(2 / 3)
            assert found["pooled_precision@10"] == 0.5
        elif protocol != "published":  # which fills its list
            assert found["precision@10"] == 1


def test_deviation_a_malformed_reference_raises():
    counts = recall()
    for reference in (
        REFERENCE.replace("obj[2]", "obj[3]"),
        REFERENCE.replace("chair", "stool"),
        REFERENCE.replace("holding", "hugging"),
        REFERENCE.replace("unsure,above|behind", "above,unsure"),
        ranked(ParsedGraph([], [], [])),
    ):
        with pytest.raises(SgrlError, match="malformed reference|must be a text or a graph"):
            counts.add(text(), reference)
    with pytest.raises(SgrlError, match="did you mean 'holding'"):
        counts.add(text(), REFERENCE.replace("holding", "holdin"))
    assert counts.compute()["images"] == 0


# --- the same text, more closely ------------------------------------------------------------------------------------


def test_confidences_rank_and_writing_order_ranks_without_them():
    """Two rows: the first is wrong, the second right."""
    prediction = text('1,"",in,"",2', '1,"",above,"",2')
    written = one(prediction, constraint="no", ks=(1, 2))
    sure = one(prediction, constraint="no", ks=(1, 2), confidences=[0.3, 0.8])
    unknown = one(prediction, constraint="no", ks=(1, 2), confidences=[None, 0.8])
    assert (written["found@1"], written["found@2"]) == (0, 1)
    assert sure["found@1"] == unknown["found@1"] == 1
    # with the constraint one spatial predicate of the pair remains: the surest, or the first that was written
    assert one(prediction)["found@10"] == 0 and one(prediction, confidences=[0.3, 0.8])["found@10"] == 1
    with pytest.raises(SgrlError, match="1 confidences for 2 relations"):
        one(prediction, confidences=[0.3])


def test_the_semi_constraint_asks_for_probability():
    prediction = text("1,unsure,above|behind|in,holding,2")
    assert one(prediction, constraint="semi")["predicted@10"] == 5
    values = one(prediction, constraint="semi", confidences=[0.1, 0.95, 0.91, 0.9, 0.2])
    assert values["predicted@10"] == 3 and values["found@10"] == 3


def test_the_tasks_of_texts():
    """A model that was given boxes or classes is judged on the rest."""
    moved = text("1,unsure,above,holding,2", objects=OBJECTS.replace("120,50,300,200", "200,60,420,330"))
    renamed = moved.replace("chair", "table")
    found = {task: [one(t, task=task)["found@10"] for t in (moved, renamed)] for task in TASKS}
    assert found == {"sgdet": [0, 0], "sgcls": [3, 0], "predcls": [3, 3]}
    far = text("1,unsure,above,holding,2", objects=OBJECTS.replace("120,50,300,200", "500,300,620,430"))
    assert one(far, task="predcls")["found@10"] == 0
    swapped = text("2,unsure,above,holding,1", objects=OBJECTS.replace("1,p", "3,p").replace("2,c", "1,c"))
    swapped = swapped.replace("3,person", "2,person")
    assert one(swapped, task="predcls")["found@10"] == 3
    assert one(swapped, task="predcls", protocol="published")["found@10"] == 0  # the i-th is the i-th


def test_precision_counts_each_reference_relation_once():
    twice = text("1,unsure,above,holding,2", "1,unsure,above,holding,2")
    values = one(twice, constraint="no")
    assert (values["found@10"], values["right@10"], values["predicted@10"]) == (3, 3, 6)
    assert values["precision@10"] == 0.5 and values["f1@10"] == 0.6
    assert one(twice)["precision@10"] == 1  # a pair has one predicate of a group


def test_graphs_and_rankings_are_predictions_too():
    graph = PAIRS.decode(REFERENCE, 640, 480, tags=None)
    parsed = PAIRS.parse(REFERENCE, 640, 480, tags=None)
    values = one(answer.wrap(REFERENCE))
    for prediction in (graph, parsed, ranked(parsed)):
        for reference in (REFERENCE, graph, parsed):
            assert recall().add(prediction, reference) == values
    scored = SceneGraph(graph.objects, [Relation(0, "in", 1, "spatial", score=0.2)] + list(graph.relations), 640, 480)
    assert ActionGenomeRecall(ks=(1,), constraint="no").add(scored, graph)["found@1"] == 0
    scored = SceneGraph(
        graph.objects,
        [Relation(0, "in", 1, "spatial", score=0.2), Relation(0, "above", 1, "spatial", score=0.3)],
        640,
        480,
    )
    assert ActionGenomeRecall(ks=(1,)).add(scored, graph)["found@1"] == 1


def test_unreadable_texts_are_failures_and_unknown_labels_false_positives():
    counts = recall("no")
    for prediction in ("", None, b"\xff\x00", "<answer></answer>", [{"role": "assistant", "content": "no"}]):
        values = counts.add(prediction, REFERENCE)
        assert values["failure"] == 1 and values["f1@10"] == 0
    values = counts.add(text("1,staring,above,holding,2"), REFERENCE)
    assert values["right@10"] == 2 and values["predicted@10"] == 3
    assert counts.compute()["failure_rate"] == pytest.approx(5 / 6)


# --- detectors, more closely ----------------------------------------------------------------------------------------


def scores_of(probabilities, objects=(1.0, 0.5), boxes=((10, 10, 100, 200), (120, 50, 300, 200))):
    rows = np.zeros((len(probabilities), 26))
    for row, given_scores in zip(rows, probabilities, strict=True):
        for name, probability in given_scores.items():
            row[AG.predicates.index(name)] = probability
    return PairScores(["person", "chair"], boxes, objects, [(0, 1)] * len(rows), rows)


def test_constraints_of_detectors():
    prediction = scores_of(
        [{"unsure": 0.6, "looking_at": 0.4, "above": 0.8, "behind": 0.95, "in": 0.91, "holding": 0.3}]
    )
    found = {constraint: recall(constraint, ks=(1, 2, 3, 26)).add(prediction, REFERENCE) for constraint in CONSTRAINTS}
    assert {c: [v[f"found@{k}"] for k in (1, 2, 3, 26)] for c, v in found.items()} == {
        "with": [1, 2, 3, 3],
        "semi": [1, 1, 2, 2],  # behind, in, unsure
        "no": [1, 1, 2, 4],  # behind, in, above
    }
    assert {c: v["predicted@26"] for c, v in found.items()} == {"with": 3, "semi": 3, "no": 26}


def test_equal_scores_keep_their_order():
    prediction = scores_of([dict.fromkeys(AG.predicates, 0.5)])
    values = recall("no", ks=(2, 3, 4)).add(prediction, REFERENCE)
    assert [values[f"found@{k}"] for k in (2, 3, 4)] == [0, 1, 2]  # unsure is the third, above the fourth


def brute_force_suppression(graph):
    """Proposal by proposal, box by box."""

    def overlap(a, b):
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
        areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
        return width * height / (sum(areas) - width * height)

    kept = []
    triplets = list(zip(graph.subjects, graph.predicates, graph.objects, strict=True))
    for s, p, o in triplets:
        if not any(
            p == q
            and (graph.labels[s], graph.labels[o]) == (graph.labels[t], graph.labels[u])
            and overlap(graph.boxes[s], graph.boxes[t]) * overlap(graph.boxes[o], graph.boxes[u]) > 0.9
            for t, q, u in kept
        ):
            kept.append((s, p, o))
    return kept


def test_suppression_of_repeated_proposals():
    rng = np.random.default_rng(3)
    suppressions = 0
    for _ in range(40):
        corners = rng.integers(0, 3, (12, 2)) + rng.integers(0, 2, (12, 1)) * 100
        boxes = np.concatenate([corners, corners + rng.integers(60, 64, (12, 2))], axis=1).astype(float)
        parts = (rng.integers(0, 12, 60), rng.integers(0, 3, 60), rng.integers(0, 12, 60))
        graph = Triplets(boxes, rng.integers(0, 2, 12), *parts)
        kept = suppressed(graph, (1.0, 1.0))
        expected = brute_force_suppression(graph)
        assert list(zip(kept.subjects, kept.predicates, kept.objects, strict=True)) == expected
        suppressions += 60 - len(expected)
    assert suppressions > 500


def test_oed_suppresses_before_it_ranks():
    """Two detections of one chair: the worse one takes no place among the K best."""
    rows = np.zeros((3, 26))
    for row, name, probability in zip(rows, ("in", "in", "above"), (0.9, 0.9, 0.5), strict=True):
        row[AG.predicates.index(name)] = probability
    boxes = ((10, 10, 100, 200), (120, 50, 300, 200), (121, 50, 300, 201))
    prediction = PairScores(["person", "chair", "chair"], boxes, (1, 1, 0.9), [(0, 1), (0, 2), (0, 1)], rows)
    for constraint in ("with", "no"):
        found = {
            p: recall(constraint, protocol=p, ks=(2,)).add(prediction, REFERENCE)["found@2"] for p in PROTOCOLS[2:]
        }
        assert found == {"sttran": 0, "oed": 0, "oed-nms": 1, "oed-published": 1}


def in_unit(boxes):
    return np.asarray(boxes) / (640, 480, 640, 480)


IN_PIXELS = PAIRS.decode(REFERENCE, 640, 480, tags=False)
IN_UNIT = IN_PIXELS.resized(1, 1)


@pytest.mark.parametrize("shift", [2, 4, 8, 60])
def test_oed_suppresses_alike_in_pixels_and_in_the_unit_square(shift):
    """A second chair `shift` pixels aside; OED's code, with its whole unit, takes it for the same much longer."""
    boxes = ((10, 10, 100, 200), (120, 50, 300, 200), (120 + shift, 50, 300 + shift, 200))
    scores = (1, 1, 0.9), [(0, 1), (0, 2)], np.full((2, 26), 0.5)

    def left(protocol, boxes, reference, **size):
        metric = recall("no", protocol=protocol, ks=(100,))
        return metric.add(PairScores(["person", "chair", "chair"], boxes, *scores), reference, **size)["predicted@100"]

    def pixels_wider(pixel):
        w, h = 180 + pixel[0], 150 + pixel[1]
        return 26 if (w - shift) * h / (w * h * 2 - (w - shift) * h) > 0.9 else 52

    for protocol, pixel in (("oed-nms", (1, 1)), ("oed-published", (640, 480))):
        assert left(protocol, boxes, REFERENCE) == pixels_wider(pixel)
        for size in ({}, {"width": 640, "height": 480}):
            assert left(protocol, in_unit(boxes), IN_UNIT, **size) == pixels_wider(pixel)
    assert left("oed", boxes, REFERENCE) == 52


def test_oed_published_needs_the_size_of_the_image():
    graph = ParsedGraph(["person", "chair"], [o.box for o in IN_PIXELS.objects], [])
    with pytest.raises(SgrlError, match="'oed-published' needs width and height"):
        ActionGenomeRecall(protocol="oed-published").add(graph, graph)


def test_hostile_numbers_never_raise():
    numbers = (math.nan, math.inf, -math.inf, 1e308, -1.0, 0.0)
    settings_of = [(constraint, "sttran") for constraint in CONSTRAINTS] + [("no", "oed-nms")]
    for constraint, protocol in settings_of:
        for a in numbers:
            for b in numbers:
                prediction = scores_of([{"unsure": a, "above": b}], (b, a), ((a, b, 100, 200), (120, 50, b, a)))
                values = recall(constraint, protocol=protocol).add(prediction, REFERENCE)
                assert all(math.isfinite(value) for value in values.values())
    finite = scores_of([{"unsure": math.nan, "above": 0.1, "holding": math.inf}])
    values = recall("no", ks=(1,)).add(finite, REFERENCE)
    assert values["found@1"] == 1  # what is not finite ranks last


def test_no_pairs():
    values = recall().add(PairScores([], [], [], [], []), REFERENCE)
    assert values["recall@10"] == values["predicted@10"] == 0
    entry = {name: [] for name in ("boxes", "pred_labels", "pred_scores", "pair_idx", "im_idx")}
    entry |= {f"{group}_distribution": [] for group in AG.groups}
    frames = list(sttran_frames(entry, "sgdet", 2))
    assert len(frames) == 2 and recall().add(frames[0], REFERENCE)["recall@10"] == 0


def test_arrays_that_do_not_fit_together():
    good = scores_of([{"unsure": 1.0}])
    for bad in (
        good._replace(labels=["person"]),
        good._replace(scores=[1.0]),
        good._replace(boxes=[(0, 0, 1, 1)]),
        good._replace(predicate_scores=np.zeros((1, 25))),
        good._replace(predicate_scores=np.zeros((2, 26))),
    ):
        with pytest.raises(SgrlError, match="do not fit together"):
            recall().add(bad, REFERENCE)
    with pytest.raises(SgrlError, match="positions among 2 objects, found 0..2"):
        recall().add(good._replace(pairs=[(0, 2)]), REFERENCE)


# --- sums -----------------------------------------------------------------------------------------------------------


def test_both_mean_recalls_by_hand():
    """ "above" in two frames: found once of once, and once of three times; "unsure" in one frame, found."""
    counts = recall("no")
    chairs = OBJECTS.replace("obj[2]", "obj[4]") + "3,bed,0,0,50,50\n4,box,60,60,90,90\n"
    counts.add(text('1,unsure,above,"",2'), OBJECTS + HEADER.format(1) + '1,unsure,above,"",2')
    rows = ['1,"",above,"",2', '1,"",above,"",3', '1,"",above,"",4']
    counts.add(text(rows[1], objects=chairs), chairs + HEADER.format(3) + "\n".join(rows))
    found, table = counts.compute(), counts.per_predicate()
    assert found["mean_recall@10"] == pytest.approx((1 + (1 + 1 / 3) / 2) / 26)
    assert found["pooled_mean_recall@10"] == pytest.approx((1 + 2 / 4) / 26)
    assert found["recall@10"] == pytest.approx((1 + 1 / 3) / 2) and found["pooled_recall@10"] == 3 / 5
    assert found["predicates"] == 26 and found["predicates_absent"] == 24 and found["relations_reference"] == 5
    above = table["above"]
    assert (above["images"], above["relations"], above["found@10"]) == (2, 4, 2)
    assert above["recall@10"] == pytest.approx(2 / 3) and above["pooled_recall@10"] == 0.5
    assert list(table) == list(AG.predicates) and table["holding"]["relations"] == 0


def test_no_frame_yet():
    found = recall().compute()
    assert found["images"] == 0 and not any(v for k, v in found.items() if "@" in k)


def test_settings_that_make_no_sense():
    for options, message in (
        ({"constraint": "without"}, "unknown constraint 'without'; did you mean 'with'"),
        ({"protocol": "sttrn"}, "did you mean 'sttran'"),
        ({"task": "predcl"}, "did you mean 'predcls'"),
        ({"ks": ()}, "positive whole numbers"),
        ({"ks": (0,)}, "positive whole numbers"),
        ({"iou_threshold": 2}, r"in \[0, 1\]"),
        ({"constraint": "semi", "protocol": "oed"}, "no semi constraint"),
        ({"vocabulary": get_vocabulary("psg")}, "must have the groups"),
    ):
        with pytest.raises(SgrlError, match=message):
            ActionGenomeRecall(640, 480, **options)
    with pytest.raises(SgrlError, match="texts need width and height"):
        ActionGenomeRecall().add("", REFERENCE)
    with pytest.raises(SgrlError, match="reads texts, found PairScores"):
        one(scores_of([{}]), protocol="published")
    with pytest.raises(FormatError, match="malformed reference"):
        one("", "no graph")


def test_other_vocabularies():
    own = Vocabulary(
        "toy",
        ("person", "ball"),
        ("rolls", "sees", "left_of"),
        {"attention": ("sees",), "spatial": ("left_of",), "contacting": ("rolls",)},
    )
    reference = REFERENCE.replace("chair", "ball").replace("unsure,above|behind,holding", "sees,left_of,rolls")
    values = one(answer.wrap(reference), reference, vocabulary=own)
    assert values["recall@10"] == values["precision@10"] == 1
