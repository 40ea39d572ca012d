"""GraphScorer, presets and similarities: what the public names promise, and what they say when misused."""

import functools
import json
import math
import pickle

import numpy as np
import pytest

import rewards.trl as functions
from rewards import R1_SGG, SCENEGRAPHVLM, SCENEGRAPHVLM_RECALL, GraphScorer, Preset, get_preset
from rewards.adapters import compute_score, ms_swift
from rewards.compute import compute
from rewards.metrics import SceneGraphMetrics
from rewards.metrics.action_genome import ActionGenomeRecall
from rewards.metrics.recall import SceneGraphRecall
from rewards.metrics.soft import SoftMetrics, soft_metrics
from rewards.metrics.video import VideoRecall
from rewards.presets import PRESETS
from rewards.reading import as_answer, text_of
from rewards.trl import reward_functions, rewards_named
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import CODECS, FormatError, ParsedGraph, answer, get_codec
from sgrl.tubes import VideoGraph

REFERENCE = """obj[3]{id,name,x1,y1,x2,y2}:
  1,person,10,20,200,400
  2,dog,220,300,330,420
  3,frisbee,300,100,340,130
rel[2]{subj,pred,obj}:
  1,beside,2
  2,looking-at,3"""
PAIRS = (
    "obj[2]{id,name,x1,y1,x2,y2}:\n1,person,0,0,100,100\n2,cup/glass/bottle,0,80,200,120\n"
    "rel_pairs[1]{subj,attention,spatial,contacting,obj}:\n1,unsure,in_front_of,holding,2"
)
GRAPH = SceneGraph(
    [
        Object("person", (10, 20, 200, 400)),
        Object("dog", (220, 300, 330, 420)),
        Object("frisbee", (300, 100, 340, 130)),
    ],
    [Relation(0, "beside", 1, "spatial"), Relation(0, "looking at", 2, "attention")],
    640,
    480,
)


@pytest.fixture
def scorer():
    return GraphScorer(codec="toon", width=640, height=480)


def test_a_perfect_graph_scores_nine_and_a_half(scorer):
    score = scorer(answer.wrap(REFERENCE), REFERENCE)
    assert score.valid and score.reason is None
    assert SCENEGRAPHVLM.total(score) == 9.5
    assert SCENEGRAPHVLM_RECALL.total(score) == 6.5
    assert score.counts == {
        "objects_predicted": 3,
        "objects_reference": 3,
        "objects_matched": 3,
        "objects_grounded": 3,
        "relations_predicted": 2,
        "relations_reference": 2,
        "relations_matched": 2,
    }
    assert score.diagnostics == {
        "no_relation": 0.0,
        "num_objects": 3.0,
        "num_relations": 2.0,
        "invalid_relation_fraction": 0.0,
        "has_answer_tags": 1.0,
    }


def test_weights_of_the_paper():
    assert SCENEGRAPHVLM.weights == {
        "format": 0.5,
        "object_class": 1.5,
        "object_box": 1.5,
        "relation_recall": 3.0,
        "relation_precision": 1.0,
        "relation_f1": 2.0,
        "object_hallucination": 1.0,
        "relation_hallucination": 1.0,
    }
    assert SCENEGRAPHVLM.maximum() == 9.5 and SCENEGRAPHVLM.maximum(relations=False) == 3.5
    assert R1_SGG.weights.keys() == {
        *("format", "object_class", "object_box", "hard_recall", "hard_recall_relax", "soft_recall")
    }


def test_a_hand_made_example(scorer):
    """One object missing, one label wrong, one relation right and one wrong."""
    text = "obj[2]{id,name,x1,y1,x2,y2}:\n1,person,10,20,200,400\n2,cat,220,300,330,420\n"
    text += "rel[2]{subj,pred,obj}:\n1,beside,2\n2,beside,1"
    score = scorer(answer.wrap(text), REFERENCE)
    assert score.terms == pytest.approx(
        {
            "format": 1.0,
            "object_class": 1 / 3,
            "object_box": 2 / 3,
            "relation_recall": 0.0,
            "relation_precision": 0.0,
            "relation_f1": 0.0,
            "object_hallucination": -0.5,
            "relation_hallucination": -1.0,
        }
    )
    right = scorer(answer.wrap(text.replace("cat", "dog")), REFERENCE)
    assert right.counts["relations_matched"] == 1
    assert right.terms["relation_f1"] == right.terms["relation_recall"] == right.terms["relation_precision"] == 0.5
    assert right.terms["relation_hallucination"] == -0.25
    assert right.terms["object_hallucination"] == 0


@pytest.mark.parametrize("codec", CODECS)
def test_a_scene_graph_is_a_reference_in_every_layout(codec):
    scorer = GraphScorer(codec, 640, 480)
    text = answer.wrap(get_codec(codec).encode(GRAPH))
    assert SCENEGRAPHVLM.total(scorer(text, GRAPH)) == pytest.approx(9.5)
    assert scorer(text, scorer.reference(GRAPH)) == scorer(text, GRAPH) == scorer(text, text)


@pytest.mark.parametrize(
    "completion",
    [
        answer.wrap(REFERENCE).encode(),
        {"role": "assistant", "content": answer.wrap(REFERENCE)},
        [{"role": "assistant", "content": answer.wrap(REFERENCE)}],
        [{"role": "assistant", "content": [{"type": "text", "text": answer.wrap(REFERENCE)}]}],
    ],
    ids=["bytes", "message", "messages", "parts"],
)
def test_completions_come_in_many_wrappings(scorer, completion):
    assert SCENEGRAPHVLM.total(scorer(completion, REFERENCE)) == 9.5
    assert scorer(answer.wrap(REFERENCE), completion).valid


@pytest.mark.parametrize("completion", [None, [], float("nan"), [None], {"content": None}, {"role": "assistant"}])
def test_what_is_no_text_is_an_empty_answer(scorer, completion):
    assert text_of(completion) == ""
    assert not any(scorer(completion, REFERENCE).terms.values())


@pytest.mark.parametrize("completion", [7, 3.5, True, {}, {"answer": "x"}, [7], [[{}]], object(), {1}, np.zeros(3)])
def test_what_is_neither_a_text_nor_a_graph_is_a_type_error(scorer, completion):
    metrics, recall = SceneGraphMetrics("toon", 640, 480), SceneGraphRecall("toon", 640, 480)
    video = VideoRecall()
    size = {"width": 640, "height": 480}
    calls = (
        lambda: scorer(completion, REFERENCE),
        lambda: scorer.many(["", completion], [REFERENCE] * 2),
        lambda: metrics.add(completion, REFERENCE),
        lambda: SoftMetrics("toon", 640, 480).add(completion, REFERENCE),
        lambda: recall.add(completion, REFERENCE),
        lambda: ActionGenomeRecall(640, 480).add(completion, PAIRS),
        lambda: video.add(completion, VideoGraph([], [])),
        lambda: compute(predictions=[completion], references=[REFERENCE], **size),
        lambda: functions.format([completion], [REFERENCE], **size),
        lambda: ms_swift("full")["sg_format"]()([completion], [REFERENCE], **size),
        lambda: compute_score("x", completion, REFERENCE, size),
    )
    for call in calls:
        with pytest.raises(TypeError) as caught:
            call()
        assert isinstance(caught.value, SgrlError) and "found" in str(caught.value)
    assert metrics.samples == recall.images == video.videos == 0


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("preset", ["full", "r1-sgg"])
def test_a_graph_is_scored_as_the_codec_writes_it(codec, preset):
    """A SceneGraph, what a codec read, a JSON object that has been parsed: worth what the text is worth."""
    layout, size = get_codec(codec), {"width": 640, "height": 480}
    text = layout.encode(GRAPH)
    graphs = [GRAPH, layout.parse(text, 640, 480, tags=False)]
    if codec != "toon-pairs":
        graphs.append(json.loads(get_codec("json").encode(GRAPH)))
    scorer, metrics = GraphScorer(codec, 640, 480, preset=preset), SceneGraphMetrics(codec, 640, 480)
    best = scorer.preset.maximum()
    for graph in graphs:
        assert scorer.preset.total(scorer(graph, text)) == best
        assert scorer(as_answer(text, scorer.preset.family), graph) == scorer(graph, text)
        assert metrics.add(graph, text)["sgg_score"] == metrics.add(text, graph)["sgg_score"] == 1
        assert metrics.compare(graph, text).matched == metrics.compare(answer.wrap(text), text).matched
        assert compute(predictions=[graph], references=[graph], codec=codec, **size)["sgg_score"] == 1
        assert soft_metrics([(graph, text)], lambda _: [], codec, 640, 480)["soft"]["sgg_score"] == 1
        chosen, weights = reward_functions(preset)
        assert sum(f([graph], [text], **size)[0] * w for f, w in zip(chosen, weights, strict=True)) == best
        assert compute_score("x", graph, text, size, preset=preset)["score"] == best
        if codec != "toon-pairs":
            assert SceneGraphRecall(codec, 640, 480).add(graph, text)["found@20"] == 2
    poor = SceneGraph(GRAPH.objects[:2], GRAPH.relations[:1], 640, 480)
    assert scorer(poor, text) == scorer(as_answer(layout.encode(poor), scorer.preset.family), text)


def test_graphs_that_do_not_fit(scorer):
    small = GRAPH.resized(320, 240)
    for call in (scorer, SceneGraphMetrics("toon", 640, 480).add):
        with pytest.raises(SgrlError, match="of an image of 320 x 240, .* 640 x 480; use graph.resized"):
            call(small, REFERENCE)
    pairs = GraphScorer("toon-pairs", 640, 480)
    with pytest.raises(SgrlError, match="group"):
        pairs(SceneGraph(GRAPH.objects, [Relation(0, "beside", 1)], 640, 480), PAIRS)
    document = json.loads(get_codec("json").encode(GRAPH))
    for call in (pairs, SceneGraphMetrics("toon-pairs", 640, 480).add, ActionGenomeRecall(640, 480).add):
        with pytest.raises(TypeError, match="has no groups of predicates"):
            call(document, PAIRS)
    nowhere = ParsedGraph(["cat"], [(0.0, 0.0, 9.0, 9.0)], [(0, "on", -1)])
    assert "does not exist" in scorer(nowhere, REFERENCE).reason
    assert SceneGraphMetrics("toon", 640, 480).add(nowhere, REFERENCE)["relations_predicted"] == 1
    outside = SceneGraph([Object("cat", (0, 0, 9000, 9))], [], 640, 480)
    assert "box" in scorer(outside, REFERENCE).reason


@pytest.mark.parametrize("codec", ["toon", "json"])
@pytest.mark.parametrize(
    "document",
    [
        {"objects": 7},
        {"objects": [{"id": "a.1", "bbox": [0, 0, float("nan"), 9]}], "relationships": []},
        {"objects": [{"id": "a.1", "bbox": [0, 0, 10**5000, 9]}], "relationships": []},
        {"objects": [{"id": "\ud800.1", "bbox": [0, 0, 9, 9]}], "relationships": None},
        {"objects": functools.reduce(lambda inner, _: [inner], range(5000), [])},
        {"objects": [], "relationships": [{"subject": "a", "predicate": "b", "object": []}]},
    ],
    ids=["number", "nan", "digits", "surrogate", "deep", "relation"],
)
def test_hostile_objects_are_invalid_answers(codec, document):
    reference = get_codec(codec).encode(GRAPH)
    for preset in PRESETS:
        score = GraphScorer(codec, 640, 480, preset=preset)(document, reference)
        assert not score.valid and score.reason
    SceneGraphMetrics(codec, 640, 480).add(document, reference)
    SceneGraphRecall(codec, 640, 480).add(document, reference)


def test_invalid_text_has_a_reason_and_diagnostics(scorer):
    score = scorer(REFERENCE, REFERENCE)
    assert not score.valid and "<answer>" in score.reason
    assert SCENEGRAPHVLM.total(score) == 0
    assert score.diagnostics["num_objects"] == 3 and score.diagnostics["num_relations"] == 2
    assert score.diagnostics["has_answer_tags"] == 0
    assert score.counts["objects_predicted"] == 0 and score.counts["objects_reference"] == 3


@pytest.mark.parametrize(
    "solution, message",
    [
        ("", "malformed reference"),
        (None, "malformed reference"),
        (REFERENCE.replace("obj[3]", "obj[4]"), "malformed reference.*announces 4"),
        (REFERENCE.replace("400", "4000"), "malformed reference.*480"),
        (answer.wrap(REFERENCE)[:-3], "malformed reference"),
    ],
)
def test_a_malformed_reference_raises(scorer, solution, message):
    with pytest.raises(FormatError, match=message):
        scorer(answer.wrap(REFERENCE), solution)


def test_a_reference_for_another_image_size_raises(scorer):
    with pytest.raises(SgrlError, match="320 x 240.*640 x 480.*resized"):
        scorer("", GRAPH.resized(320, 240))


def test_many_wants_one_reference_each(scorer):
    with pytest.raises(SgrlError, match="2 completions, but 1 solutions"):
        scorer.many(["", ""], [REFERENCE])
    assert scorer.many([], []) == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"codec": "tooon"}, "did you mean 'toon'"),
        ({"preset": "recal-only"}, "did you mean 'recall-only'"),
        ({"iou_threshold": 50}, "iou_threshold must lie in"),
        ({"relation_iou_threshold": -1}, "relation_iou_threshold must lie in"),
        ({"matching_weights": (1, 2)}, "three numbers"),
        ({"matching_weights": (1, 2, float("nan"))}, "three numbers"),
        ({"matching_weights": (1, 2, float("inf"))}, "three numbers"),
        ({"hallucination_power": 0}, "hallucination_power must be positive"),
        ({"hallucination_power": float("inf")}, "hallucination_power must be positive"),
        ({"width": 0}, "must be positive"),
        ({"width": None}, "must be positive"),
        ({"height": float("nan")}, "must be positive"),
        ({"task": "ssg"}, "did you mean 'sgg'"),
        ({"similarity": 3}, "similarity: expected"),
        ({"similarity": (["a", "b"], [[1.0]])}, "2 words must be square"),
        ({"similarity": {("a", "b"): float("nan")}}, "expected a finite number"),
    ],
)
def test_arguments_that_make_no_sense(options, message):
    with pytest.raises(SgrlError, match=message):
        GraphScorer(**{"codec": "toon", "width": 640, "height": 480} | options)


def test_presets_check_their_terms_and_weights():
    assert get_preset("full") is SCENEGRAPHVLM and get_preset("recall-only") is SCENEGRAPHVLM_RECALL
    assert get_preset(R1_SGG) is R1_SGG
    with pytest.raises(SgrlError, match="did you mean 'full'"):
        get_preset("ful")
    with pytest.raises(SgrlError, match="did you mean 'relation_recall'"):
        Preset("mine", {"relation_recal": 1.0})
    with pytest.raises(SgrlError, match="unknown reward term 'soft_recall' in family 'scenegraphvlm'"):
        Preset("mine", {"soft_recall": 1.0})
    with pytest.raises(SgrlError, match="did you mean 'r1-sgg'"):
        Preset("mine", {}, family="r1sgg")
    with pytest.raises(SgrlError, match="weight of format must be a finite number"):
        Preset("mine", {"format": float("nan")})


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_and_scorers_travel_between_processes(preset):
    scorer = GraphScorer("json", 640, 480, preset=preset, similarity={("a", "b"): 0.5})
    other = pickle.loads(pickle.dumps(scorer))
    text = f"<think></think>{answer.wrap(get_codec('json').encode(GRAPH))}"
    assert other.preset == scorer.preset
    assert other(text, GRAPH) == scorer(text, GRAPH)
    assert scorer.preset.total(scorer(text, GRAPH)) == pytest.approx(scorer.preset.maximum())


def test_a_score_of_another_family_is_refused(scorer):
    with pytest.raises(SgrlError, match="needs the term 'hard_recall'.*preset='r1-sgg'"):
        R1_SGG.total(scorer("", REFERENCE))


def test_thresholds_for_objects_and_relations(scorer):
    moved = answer.wrap(REFERENCE.replace("10,20,200,400", "10,20,200,250"))  # IoU 0.605
    assert scorer(moved, REFERENCE).counts["objects_grounded"] == 3
    strict = GraphScorer("toon", 640, 480, iou_threshold=0.7)(moved, REFERENCE).counts
    assert (strict["objects_grounded"], strict["relations_matched"]) == (2, 1)
    mixed = GraphScorer("toon", 640, 480, iou_threshold=0.7, relation_iou_threshold=0.5)(moved, REFERENCE).counts
    assert (mixed["objects_grounded"], mixed["relations_matched"]) == (2, 2)


def half(a, b):
    return 1.0 if a == b else 0.5


@pytest.mark.parametrize(
    "similarity",
    [half, {("dog", "cat"): 0.5}, (["cat", "dog"], [[1.0, 0.5], [0.5, 1.0]])],
    ids=["function", "mapping", "matrix"],
)
def test_similar_labels_earn_part_of_the_class_term(similarity):
    text = answer.wrap(REFERENCE.replace("dog", "cat"))
    assert GraphScorer("toon", 640, 480)(text, REFERENCE).terms["object_class"] == pytest.approx(2 / 3)
    score = GraphScorer("toon", 640, 480, similarity=similarity)(text, REFERENCE)
    assert score.terms["object_class"] == pytest.approx(2.5 / 3)
    assert score.counts["objects_matched"] == 2, "counts are exact"


def test_a_similarity_that_is_not_a_number_counts_for_nothing():
    score = GraphScorer("toon", 640, 480, similarity=lambda a, b: float("nan"))(answer.wrap(REFERENCE), REFERENCE)
    assert score.terms["object_class"] == 0


def test_r1_sgg_reads_other_layouts_strictly():
    scorer = GraphScorer("toon", 640, 480, preset=R1_SGG)
    assert set(scorer(answer.wrap(REFERENCE), REFERENCE).terms.values()) == {1.0}
    assert not any(scorer(REFERENCE, REFERENCE).terms.values())


def test_r1_sgg_text_inside_think_never_scores():
    gold, poor = get_codec("json").encode(GRAPH), '{"objects": [], "relationships": []}'
    scorer = GraphScorer("json", 640, 480, preset=R1_SGG)
    score = scorer(f"<think><answer>{gold}</answer></think><answer>{poor}</answer>", GRAPH)
    assert score.terms == dict.fromkeys(score.terms, 0.0) | {"format": 1.0}


EMPTY_JSON = '{"objects": [], "relationships": []}'


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("similarity", [None, {("cat", "dog"): 0.5}])
def test_an_empty_graph_is_an_answer_like_any_other(preset, similarity):
    scorer = GraphScorer("json", 640, 480, preset=preset, similarity=similarity)
    full = get_codec("json").encode(GRAPH)

    def total(text, reference):
        score = scorer(f"<think></think>\n<answer>{text}</answer>", reference)
        assert score.valid and math.isfinite(scorer.preset.total(score)), score
        return scorer.preset.total(score)

    assert total(EMPTY_JSON, full) == scorer.preset.weights["format"]
    assert total(EMPTY_JSON, EMPTY_JSON) == scorer.preset.maximum(relations=False)
    format_only = scorer.preset.weights["format"]
    made_up = sum(weight for term, weight in scorer.preset.weights.items() if term.endswith("_hallucination"))
    assert total(full, EMPTY_JSON) == format_only - made_up
    # in one group with others, and in any order
    texts = [f"<answer>{text}</answer>" for text in (EMPTY_JSON, full, EMPTY_JSON)]
    assert scorer.many(texts, [full] * 3) == [scorer(text, full) for text in texts]


def test_an_empty_graph_in_the_metrics():
    full = get_codec("json").encode(GRAPH)
    wrapped = f"<answer>{EMPTY_JSON}</answer>"
    metrics = SceneGraphMetrics("json", 640, 480)
    right = metrics.add(wrapped, EMPTY_JSON)
    assert right["sgg_score"] == 1 and right["failure"] == 0
    assert metrics.add(wrapped, full)["failure"] == metrics.add("no graph", EMPTY_JSON)["failure"] == 1
    both = [(wrapped, EMPTY_JSON), (f"<answer>{full}</answer>", full), (f"<answer>{full}</answer>", EMPTY_JSON)]
    assert [found.values["sgg_score"] for found in metrics.compare_many(both)] == [1, 1, 0]
    assert SceneGraphMetrics("json", 640, 480, protocol="published").add(wrapped, EMPTY_JSON)["failure"] == 1


def test_the_published_protocol():
    published = GraphScorer("toon", 640, 480, protocol="published")
    malformed = REFERENCE.replace("obj[3]", "obj[9]") + "\n  1,beside,7"
    assert published.preset.total(published(answer.wrap(REFERENCE), malformed)) == 9.5
    assert published(answer.wrap(REFERENCE), "no graph").terms["object_hallucination"] == -1
    # a thought is what the model opened itself, and the first answer counts
    draft = f"hm {answer.wrap(REFERENCE)}"
    poor = answer.wrap(REFERENCE.replace("person", "cat"))
    for thought, valid in (("<think>{}</think>", True), ("{}</think>", False), ("[THINK]{}[/THINK]", False)):
        score = published(thought.format(draft) + poor, REFERENCE)
        assert score.valid is valid and published.preset.total(score) == 9.5 * valid
    own = GraphScorer("toon", 640, 480)(f"<think>{draft}</think>{poor}", REFERENCE)
    assert own.valid and own.terms["object_class"] < 1
    for change in (("dog", "собака"), ("beside", "旁边")):
        other = REFERENCE.replace(*change)
        assert GraphScorer("toon", 640, 480)(answer.wrap(other), other).terms["relation_f1"] == 1
        assert not published(answer.wrap(other), other).valid
    # bars between labels, which the published code does not know
    pairs = GraphScorer("toon-pairs", 640, 480, protocol="published")
    text = PAIRS.replace("holding", "holding|touching")
    assert pairs.preset.total(pairs(answer.wrap(text), text)) == 9.5
    for graph in (GRAPH, get_codec("toon").parse(REFERENCE, 640, 480, tags=False)):
        assert published.preset.total(published(graph, graph)) == 9.5
    with pytest.raises(SgrlError, match="unknown protocol 'publishd'; did you mean 'published'"):
        GraphScorer("toon", 640, 480, protocol="publishd")
    for options in ({"codec": "json"}, {"codec": "toon-lean"}, {"codec": "toon", "preset": "r1-sgg"}):
        with pytest.raises(SgrlError, match="'published' is that of SceneGraphVLM's rewards in toon and toon-pairs"):
            GraphScorer(**{"width": 640, "height": 480, "protocol": "published"} | options)


def test_the_published_protocol_in_training():
    malformed = REFERENCE.replace("obj[3]", "obj[9]")
    batch = {"completions": [answer.wrap(REFERENCE)] * 3, "solution": [REFERENCE, malformed, None]}
    for wanted, options in (([1.0, None, None], {}), ([1.0, 1.0, None], {"protocol": "published"})):
        for chosen, _ in (reward_functions("full", **options), rewards_named(["relation_f1"], **options)):
            assert chosen[-1](**batch, width=640, height=480)[0] in (0.0, 1.0)
        assert chosen[-1](**batch, width=640, height=480) == wanted
        assert pickle.loads(pickle.dumps(chosen))[-1](**batch, width=640, height=480) == wanted
    size = {"width": 640, "height": 480}
    assert compute_score("x", answer.wrap(REFERENCE), malformed, size, protocol="published")["score"] == 9.5
    with pytest.raises(SgrlError, match="'published' is that of SceneGraphVLM's"):
        reward_functions("r1-sgg", protocol="published")
    with pytest.raises(SgrlError, match="unknown protocol"):
        rewards_named(["full"], protocol="publishd")


THOUGHT = "Somebody sits on an animal."


@pytest.mark.parametrize("opening, closing", answer.THOUGHTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_chat_template_may_have_written_the_opening_tag(preset, opening, closing):
    """Completions of thinking models begin inside the thought: rewards and metrics read them as if they did not."""
    codec = "json" if get_preset(preset).family == "r1-sgg" else "toon"
    scorer = GraphScorer(codec, 640, 480, preset=preset)
    gold = get_codec(codec).encode(GRAPH)
    draft = answer.wrap(gold)
    poor = answer.wrap(get_codec(codec).encode(SceneGraph(GRAPH.objects[:1], [], 640, 480)))
    metrics = SceneGraphMetrics(codec, 640, 480)
    for tail, best in ((draft, True), (poor, False), ("I do not know.", False), ("", False)):
        for thought in (THOUGHT, "", draft, f"{draft}\n{THOUGHT}"):
            inside = f"{thought}\n{closing}\n\n{tail}"
            ours, whole = scorer(inside, gold), scorer(f"{opening}\n{inside}", gold)
            assert ours == whole
            total = scorer.preset.total(ours)
            assert (total == scorer.preset.maximum()) is best, inside
            assert metrics.add(inside, gold) == metrics.add(f"{opening}\n{inside}", gold)
            if tail in ("I do not know.", ""):
                assert total == 0 and metrics.add(inside, gold)["failure"] == 1
