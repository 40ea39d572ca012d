"""The strict metric: known answers of the published evaluator, and where ours differs on purpose."""

import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import GraphScorer
from rewards.metrics.strict import VALUES, SceneGraphMetrics
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import FormatError, answer

PUBLISHED_NAME = {f"strict_{name.split('_')[1]}_{name.split('_')[0]}s": name for name in VALUES[:6]} | {
    "strict_sgg_score": "sgg_score",
    "bbox_mean_iou_matched": "matched_iou",
}
REFERENCE = "obj[2]{id,name,x1,y1,x2,y2}:\n1,cat,0,0,100,100\n2,mat,0,80,200,120\nrel[1]{subj,pred,obj}:\n1,on,2"
NO_RELATION = REFERENCE.replace("rel[1]{subj,pred,obj}:\n1,on,2", "rel[0]{subj,pred,obj}:")


def metrics(**options):
    return SceneGraphMetrics(codec="toon", width=640, height=480, **options)


def texts(case):
    """Reference and prediction of a case, wherever its layout keeps them."""
    if "conversations" in case:
        by_role = {turn["from"]: turn["value"] for turn in case["conversations"]}
        return by_role["gpt"], by_role["predict"]
    predict = case["messages"][-1]["content"] if "messages" in case else case["predict"]
    return case["content"], predict


def differences(case, protocol):
    reference, prediction = texts(case)
    try:
        ours = metrics(protocol=protocol).add(prediction, reference)
    except FormatError:
        return {"raises"}
    found = {name: (ours[name], case["expected"][theirs]) for theirs, name in PUBLISHED_NAME.items()}
    found["failure"] = (ours["failure"], 1.0 - case["expected"]["toon_valid"])
    found = {name: pair for name, pair in found.items() if not math.isclose(*pair, abs_tol=1e-6, rel_tol=0)}
    for theirs, (low, high) in case.get("tie_sensitive_range", {}).items():
        name = theirs if theirs == "sgg_score" else "_".join(reversed(theirs.removesuffix("s").split("_")))
        if name in found and low - 1e-6 <= ours[name] <= high + 1e-6:
            del found[name]
    return set(found)


def deviation(case):
    """Which deviation a case falls under; None where we must agree."""
    if case["kind"] in ("gt_unparseable", "gt_empty_string", "duplicate_gt_relations"):
        return 3
    detail = case.get("detail", {})
    if detail and detail["n_gt_rel"] == detail["n_pred_rel"] == 0:
        return 4
    if case["kind"] == "ag_format_in_psg_metric":
        return 6
    if case["kind"] == "think_after_answer":
        return 7
    return None


@pytest.fixture(scope="module")
def golden(known_answers):
    return json.loads((known_answers / "metrics_strict.json").read_text())["cases"]


def test_metrics_agree_but_for_the_deviations(golden):
    differing = {case["id"] for case in golden if differences(case, "default")}
    deviating = {case["id"] for case in golden if deviation(case)}
    assert differing == deviating
    assert len(differing) == 7


def test_the_published_protocol_agrees_with_all_readable_references(golden):
    assert {case["id"] for case in golden if differences(case, "published")} == {
        case["id"] for case in golden if deviation(case) == 3
    }


def test_deviation_3_a_malformed_reference_raises(golden):
    """Published: a reference that cannot be read makes a valid sample of zeros, or counts as a failure."""
    for case in golden:
        if deviation(case) == 3:
            counted = metrics()
            with pytest.raises(FormatError, match="malformed reference"):
                counted.add("", texts(case)[0])
            assert counted.samples == 0


def test_deviation_7_an_answer_inside_a_thought_is_none(golden):
    """Published: with nothing behind the thought, the thought is read; a reward of 0 would be an SGG score of 1."""
    (case,) = [case for case in golden if deviation(case) == 7]
    reference, prediction = texts(case)
    assert prediction.endswith("</think>") and not GraphScorer("toon", 640, 480)(prediction, reference).valid
    assert metrics().add(prediction, reference)["failure"] == 1
    assert metrics(protocol="published").add(prediction, reference)["object_f1"] == 1


def test_deviation_4_nothing_to_find_and_nothing_found_counts_as_one(golden):
    """Published: a perfect answer to an image without relations gets half of the score."""
    found = [case for case in golden if deviation(case) == 4]
    assert len(found) == 2
    for case in found:
        assert case["expected"]["strict_f1_relations"] == 0
        reference, prediction = texts(case)
        ours = metrics().add(prediction, reference)
        assert ours["relation_precision"] == ours["relation_recall"] == ours["relation_f1"] == 1
    assert metrics().add(NO_RELATION, NO_RELATION)["sgg_score"] == 1
    assert metrics(protocol="published").add(NO_RELATION, NO_RELATION)["sgg_score"] == 0.5
    assert metrics().add(REFERENCE, NO_RELATION)["relation_f1"] == 0
    assert metrics().add(NO_RELATION, REFERENCE)["relation_f1"] == 0


def test_deviation_6_objects_survive_a_missing_relation_header(golden):
    """Published: without its relation header a graph is a failure."""
    case = next(case for case in golden if deviation(case) == 6)
    reference, prediction = texts(case)
    assert not case["expected"]["toon_valid"]
    ours = metrics().add(prediction, reference)
    assert ours["failure"] == 0 and ours["object_f1"] == 1 and ours["relation_f1"] == 0
    truncated = answer.wrap(NO_RELATION.removesuffix("rel[0]{subj,pred,obj}:").rstrip())
    assert metrics().add(truncated, REFERENCE)["object_f1"] == 1
    assert metrics(protocol="published").add(truncated, REFERENCE)["failure"] == 1


HEADERS = ("obj[2]{id,name,x1,y1,x2,y2}:", "rel[1]{subj,pred,obj}:")
LOST = (0.0, 0.0)
WHOLE = '{"objects": [{"id": "cat.1", "bbox": [0, 0, 9, 9]}], "relationships": []}'


@pytest.mark.parametrize(
    ("text", "here", "published"),
    [
        (REFERENCE.replace("obj[", "obj [").replace("rel[", "rel [ "), (1, 1), (1, 1)),
        (REFERENCE.replace("}:\n", "}: "), (1, 1), (1, 1)),
        (REFERENCE.replace("100,100", "1e2,1_00"), (2 / 3, 0), (1, 1)),
        (REFERENCE.replace("100,100", "1e2,1.e2"), (1, 1), (1, 1)),
        (REFERENCE.replace("1,on,2", "1,,2\n1,on,2"), (1, 2 / 3), (1, 2 / 3)),
        (REFERENCE.replace("1,on,2", "1," + 300 * "x" + ",2\n1,on,2"), (1, 1), (1, 2 / 3)),
        (REFERENCE.replace("\n1,cat", "\n3,dog,0,0,nan,inf\n1,cat"), (1, 1), (0.8, 1)),
        # the first object is taken for a header and lost
        (REFERENCE.replace(HEADERS[0], "obj[2]:"), (1, 1), (2 / 3, 0)),
        (REFERENCE.replace(HEADERS[0] + "\n", ""), (1, 1), (2 / 3, 0)),
        # the relations are taken to begin with the first object
        (REFERENCE.replace(HEADERS[1] + "\n", ""), (1, 0), LOST),
        (REFERENCE.replace(HEADERS[1], "rel[1]:"), (1, 1), LOST),
        (REFERENCE.replace("[2]", "[N]").replace("[1]", "[M]"), (1, 1), LOST),
        (REFERENCE.replace("[2]", "[#2]").replace("[1]", "[#1]"), (1, 1), LOST),
        (REFERENCE.replace("[2]", "[2|]").replace("[1]", "[1|]"), (1, 1), LOST),
        (REFERENCE.replace("[2]", "[2,]").replace("[1]", "[1,]").replace(",", "|"), (1, 1), LOST),
        (REFERENCE.replace("[2]", "[2,]").replace("[1]", "[1,]").replace(",", "\t"), (1, 1), LOST),
        (REFERENCE.replace("\n", " "), (1, 1), LOST),
        (HEADERS[1] + "\n1,on,2\n" + REFERENCE.partition("\n" + HEADERS[1])[0], (1, 1), LOST),
        # of two objects with one id the reference's last one is meant, here the first
        (REFERENCE.replace("1,on,2", "1,on,1").replace("2,mat", "1,mat"), (1, 0), (1, 0)),
        (REFERENCE.replace("2,mat", "3,mat").replace("rel[1]", "3,dog,0,300,9,309\n2,cup,0,400,9,409\nrel[1]")
            .replace("1,on,2", "1,on,3"), (2 / 3, 1), (2 / 3, 1)),
        (REFERENCE.replace("\n2,mat", "\n2,dog,0,300,9,309\n2,mat"), (0.8, 0), (0.8, 1)),
    ],
)  # fmt: skip
def test_where_the_default_reads_more_than_the_published_evaluator(text, here, published):
    """Object F1 and relation F1; the published ones are what its code gives."""
    for protocol, expected in (("default", here), ("published", published)):
        for prediction in (answer.wrap(text), f"<think>\n\n</think>\n\n{answer.wrap(text)}"):
            found = metrics(protocol=protocol).add(prediction, REFERENCE)
            assert (found["object_f1"], found["relation_f1"]) == pytest.approx(expected), protocol
            assert found["failure"] == (expected is LOST)


def test_thoughts_as_the_published_evaluator_reads_them():
    """It keeps a thought in which a line begins with a header, and reads the last closed answer that has one."""
    for prediction, here, published in (
        (f"<think>{' '.join(REFERENCE.split())}\n</think>\nnothing", 0, 0),
        (f"<think>\n{REFERENCE}\n</think>\nnothing", 0, 1),
        (f"{answer.wrap(REFERENCE)}\n<answer>none</answer>", 1, 1),
        (f"{answer.wrap(REFERENCE)}\n<answer>{NO_RELATION}", 0, 1),
    ):
        assert metrics().add(prediction, REFERENCE)["relation_f1"] == here, prediction
        assert metrics(protocol="published").add(prediction, REFERENCE)["relation_f1"] == published, prediction


def test_the_reason_for_no_graph_is_the_graphs_own():
    """Not that a tag is missing, where there would be no graph with it either."""
    codecs = {codec: SceneGraphMetrics(codec, 640, 480) for codec in ("toon", "json")}
    for codec, prediction, reason in (
        ("toon", "I see a cat.", "the completion must begin with <answer>, found 'I see a cat.'"),
        ("toon", "<answer>\nobj[1]", "expected obj[N]{id,name,x1,y1,x2,y2}:, found 'obj[1]'"),
        ("toon", "obj[0]{id,name,x1,y1,x2,y2}:\nrel[0]{subj,pred,obj}:", "obj[0]: expected 1 to 200 rows"),
        ("toon", "<think>a cat", "<think> is not closed; expected the end of the thought before <answer>"),
        (
            "json",
            '<answer>{"objects": [{"id": "cat.1"',
            "not JSON: Expecting ',' delimiter: line 1 column 28 (char 27)",
        ),
        ("json", "[1, 2]", "expected a JSON object with a list 'objects'"),
    ):
        found = codecs[codec].compare(prediction, REFERENCE if codec == "toon" else WHOLE)
        assert found.graph is None and found.error.reason == reason


def test_json_counts_as_published_where_it_is_whole():
    for protocol, cut_off in (("default", 1), ("published", 0)):
        counted = SceneGraphMetrics("json", 640, 480, protocol=protocol)
        assert counted.add(WHOLE, WHOLE)["object_f1"] == 1
        assert counted.add(WHOLE[:-3], WHOLE)["object_f1"] == cut_off


def test_failures_count_as_zero_everywhere():
    counted = metrics()
    counted.add(answer.wrap(REFERENCE), REFERENCE)
    for prediction in ("", None, "I see a cat.", "<answer>\nobj[0]{id,name,x1,y1,x2,y2}:\n</answer>"):
        values = counted.add(prediction, REFERENCE)
        assert values["failure"] == 1 and not any(values[name] for name in VALUES)
    assert counted.compute() == {
        "samples": 5,
        "failures": 4,
        "failure_rate": 0.8,
        "object_precision": 0.2,
        "object_recall": 0.2,
        "object_f1": 0.2,
        "relation_precision": 0.2,
        "relation_recall": 0.2,
        "relation_f1": 0.2,
        "sgg_score": 0.2,
        "pooled_object_precision": 1.0,
        "pooled_object_recall": 0.2,
        "pooled_object_f1": pytest.approx(1 / 3),
        "pooled_relation_precision": 1.0,
        "pooled_relation_recall": 0.2,
        "pooled_relation_f1": pytest.approx(1 / 3),
    }


def test_pooled_precision_does_not_punish_caution():
    """Two images with one relation each; leaving the doubtful one out costs the mean precision, not the pooled one."""
    guessed, cautious = metrics(), metrics()
    wrong = REFERENCE.replace("1,on,2", "1,under,2")
    for counted, second in ((guessed, wrong), (cautious, NO_RELATION)):
        counted.add(REFERENCE, REFERENCE)
        counted.add(second, REFERENCE)
    assert guessed.compute()["relation_precision"] == cautious.compute()["relation_precision"] == 0.5
    assert guessed.compute()["pooled_relation_precision"] == 0.5
    assert cautious.compute()["pooled_relation_precision"] == 1
    assert guessed.compute()["pooled_relation_recall"] == cautious.compute()["pooled_relation_recall"] == 0.5


def test_no_sample_yet():
    computed = metrics().compute()
    assert computed["samples"] == 0 and computed["sgg_score"] == 0


def test_a_relation_does_not_need_the_labels_of_its_objects():
    ours = metrics().add(REFERENCE.replace("cat", "dog").replace("mat", "rug"), REFERENCE)
    assert ours["object_f1"] == 0 and ours["relation_f1"] == 1


def test_self_relations_unknown_ids_and_repetitions_are_false_positives():
    text = REFERENCE.replace("rel[1]", "rel[4]") + "\n1,on,2\n1,on,1\n1,on,9"
    ours = metrics().add(text, REFERENCE)
    assert ours["relation_precision"] == 0.25 and ours["relation_recall"] == 1


def test_threshold_and_scene_graph_references():
    graph = SceneGraph(
        [Object("cat", (0, 0, 100, 100)), Object("mat", (0, 80, 200, 120))], [Relation(0, "on", 1)], 640, 480
    )
    moved = REFERENCE.replace("0,0,100,100", "0,0,100,60")
    assert metrics().add(moved, graph)["object_f1"] == 1
    assert metrics(iou_threshold=0.7).add(moved, graph)["object_f1"] == 0.5


def test_matches_name_the_right_objects_and_relations():
    text = "obj[3]{id,name,x1,y1,x2,y2}:\n1,mat,0,80,200,120\n2,dog,300,300,310,310\n3,cat,0,0,100,100\n"
    text += "rel[4]{subj,pred,obj}:\n3,on,2\n3,on,1\n3,on,1\n3,near,1"
    counted = metrics()
    found = counted.compare(text, REFERENCE)
    assert found.matched == {"objects": [(0, 1), (2, 0)], "relations": [(1, 0)]}
    assert "must begin with <answer>" in found.error.reason and found.graph.labels == ["mat", "dog", "cat"]
    failed = counted.compare("no graph", REFERENCE)
    assert failed.matched == {"objects": [], "relations": []} and failed.graph is None
    assert counted.compare(answer.wrap(REFERENCE), REFERENCE).error is None
    assert counted.samples == 0
    values = counted.add(text, REFERENCE)
    assert values["object_recall"] == 1 and values["relation_precision"] == 0.25


@given(data=st.data())
def test_many_at_once_are_compared_as_one_by_one(data):
    corner = st.integers(0, 3)  # a small grid: boxes meet, coincide and are empty
    label = st.sampled_from(["cat", "dog", "Cat"])
    graphs = []
    for _ in range(data.draw(st.integers(1, 6))):
        rows = data.draw(st.lists(st.tuples(label, corner, corner, corner, corner), max_size=5))
        graphs.append("obj[]{}:\n" + "".join(f"{i},{','.join(map(str, row))}\n" for i, row in enumerate(rows)))
    counted = metrics(iou_threshold=data.draw(st.sampled_from([0, 0.5])))
    samples = [(graph, REFERENCE.replace("0,0,100,100", "1,1,3,3")) for graph in graphs] + [(REFERENCE, REFERENCE)]
    large = "obj[]{}:\n" + "".join(f"{i},cat,{i},0,{i + 9},9\n" for i in range(300))
    samples.insert(data.draw(st.integers(0, len(samples))), (large, NO_RELATION))
    together = [found._replace(error=str(found.error)) for found in counted.compare_many(samples)]
    alone = [counted.compare(*sample) for sample in samples]
    assert together == [found._replace(error=str(found.error)) for found in alone]
    assert counted.samples == 0 and counted.compare_many([]) == []


def test_images_of_other_sizes():
    counted = metrics()
    large = REFERENCE.replace("0,80,200,120", "0,80,1200,900")
    assert counted.add(large, large, 1280, 960)["sgg_score"] == 1
    with pytest.raises(FormatError, match="malformed reference"):
        counted.add(large, large)


def test_memory_does_not_grow_with_samples():
    counted, sizes = metrics(), []
    for _ in range(2):
        for _ in range(500):
            counted.add(REFERENCE, REFERENCE)
        counted.compute(), counted.per_predicate()
        sizes.append(len(pickle.dumps(counted)))
    assert sizes[1] < sizes[0] + 50


def test_an_unknown_protocol():
    with pytest.raises(SgrlError, match="did you mean 'published'"):
        metrics(protocol="publishd")
