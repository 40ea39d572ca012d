"""What must hold of every score, whatever the graphs and whatever the text."""

import json
import math
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import R1_SGG, SCENEGRAPHVLM, SCENEGRAPHVLM_RECALL, GraphScorer
from rewards.adapters import ms_swift
from rewards.metrics.strict import VALUES, SceneGraphMetrics
from rewards.presets import PRESETS
from rewards.trl import reward_functions
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import CODECS, answer, get_codec
from sgrl.text.parsed import GROUPS

WIDTH, HEIGHT = 640, 480
LABELS = ("person", "dog", "traffic-light")
PREDICATES = ("on", "beside", "looking-at")
PENALTIES = ("object_hallucination", "relation_hallucination")


def scorer(codec="toon", **options):
    return GraphScorer(codec, WIDTH, HEIGHT, **options)


@st.composite
def boxes(draw):
    x1, y1 = draw(st.integers(0, WIDTH - 2)), draw(st.integers(0, HEIGHT - 2))
    return x1, y1, draw(st.integers(x1 + 1, WIDTH)), draw(st.integers(y1 + 1, HEIGHT))


@st.composite
def graphs(draw, grouped=False, largest=7):
    n = draw(st.integers(1, largest))
    objects = [Object(draw(st.sampled_from(LABELS)), draw(boxes())) for _ in range(n)]
    if grouped:
        objects[0] = Object("person", objects[0].box)
    people = [i for i, o in enumerate(objects) if o.label == "person"] if grouped else range(n)
    ends = st.tuples(st.sampled_from(people), st.integers(0, n - 1), st.sampled_from(PREDICATES))
    chosen = draw(st.lists(ends, max_size=8, unique=True)) if n > 1 else []
    # the predicate decides the group, and a row of Action Genome has at most one attention label
    group = dict(zip(PREDICATES, GROUPS, strict=True)) if grouped else {}
    relations = [Relation(s, p, o, group.get(p)) for s, o, p in chosen if s != o]
    return SceneGraph(objects, relations, WIDTH, HEIGHT)


@st.composite
def pairs(draw, grouped=False):
    """A reference and a prediction that shares part of it."""
    reference = draw(graphs(grouped))
    if draw(st.booleans()):
        return reference, draw(graphs(grouped))
    shift = draw(st.lists(st.integers(-9, 9), min_size=len(reference.objects), max_size=len(reference.objects)))
    objects = []
    for o, d in zip(reference.objects, shift, strict=True):
        x1, y1, x2, y2 = o.box
        moved = (min(max(x1 + d, 0), WIDTH - 1), y1, min(max(x2 + d, 1), WIDTH), y2)
        objects.append(Object(o.label, moved if moved[0] < moved[2] else o.box))
    kept = [r for r in reference.relations if draw(st.booleans())]
    return reference, SceneGraph(objects, kept, WIDTH, HEIGHT)


def write(graph, codec="toon"):
    return answer.wrap(get_codec(codec).encode(graph))


def shuffled(graph, seed):
    """The same graph in another order."""
    order = list(range(len(graph.objects)))
    random.Random(seed).shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    relations = [Relation(place[r.subject], r.predicate, place[r.object], r.group) for r in graph.relations]
    random.Random(seed + 1).shuffle(relations)
    return SceneGraph([graph.objects[i] for i in order], relations, graph.width, graph.height)


def check_range(score):
    for name, value in score.terms.items():
        low, high = (-1, 0) if name in PENALTIES else (0, 1 + 1e-12)
        assert low <= value <= high, (name, value)


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
def test_gold_scores_the_maximum_and_terms_stay_in_range(codec, data):
    reference, prediction = data.draw(pairs(grouped=codec == "toon-pairs"))
    score = scorer(codec)(write(reference, codec), reference)
    for preset in (SCENEGRAPHVLM, SCENEGRAPHVLM_RECALL):
        assert preset.total(score) == pytest.approx(preset.maximum(relations=bool(reference.relations)), abs=1e-9)
    other = scorer(codec)(write(prediction, codec), get_codec(codec).encode(reference))
    assert other.valid, other.reason
    check_range(other)
    assert SCENEGRAPHVLM.total(other) <= SCENEGRAPHVLM.total(score) + 1e-9


@given(pairs(), st.integers(0, 1000))
def test_order_never_matters(pair, seed):
    reference, prediction = pair
    score = scorer()(write(prediction), reference)
    for other in (
        scorer()(write(shuffled(prediction, seed)), reference),
        scorer()(write(prediction), shuffled(reference, seed)),
    ):
        assert other.terms == pytest.approx(score.terms, abs=1e-9)
        assert other.counts == score.counts


@given(pairs(), st.data())
def test_an_added_wrong_relation_never_raises_a_score(pair, data):
    reference, prediction = pair
    n = len(prediction.objects)
    if n < 2:
        return
    subject, target = data.draw(st.permutations(range(n)))[:2]
    predicate = data.draw(st.sampled_from((*PREDICATES, "unheard-of")))
    added = Relation(subject, predicate, target)
    if added in prediction.relations:
        return
    before = scorer()(write(prediction), reference)
    more = SceneGraph(prediction.objects, (*prediction.relations, added), WIDTH, HEIGHT)
    after = scorer()(write(more), reference)
    if after.counts["relations_matched"] > before.counts["relations_matched"]:
        return  # it was right
    assert all(after.terms[name] <= before.terms[name] + 1e-12 for name in before.terms)
    assert SCENEGRAPHVLM.total(after) <= SCENEGRAPHVLM.total(before) + 1e-12


MONSTERS = ("nan", "NaN", "inf", "-Infinity", "1e999", "9" * 30, "9" * 5000, "99999999", "-1", "0x10", "٣", "1.0")


@pytest.mark.parametrize("codec", ["toon", "toon-lean", "toon-pairs"])
@given(data=st.data(), monster=st.sampled_from(MONSTERS))
def test_no_number_out_of_place_ever_helps(codec, data, monster):
    reference = data.draw(graphs(grouped=codec == "toon-pairs"))
    text = write(reference, codec)
    numbers = [match.span() for match in re.finditer(r"(?<=[\[,\n ])\d+(?=[\],\n])", text)]
    start, end = data.draw(st.sampled_from(numbers))
    score = scorer(codec)(text[:start] + monster + text[end:], reference)
    assert not score.valid and score.reason
    assert not any(score.terms.values())


@given(graphs(), st.sampled_from(("NaN", "Infinity", "-Infinity", "1e999", "1e300", "9" * 400, "9" * 5000)), st.data())
def test_no_number_out_of_place_ever_helps_json(graph, monster, data):
    document = json.loads(get_codec("json").encode(graph))
    data.draw(st.sampled_from(document["objects"]))["bbox"][data.draw(st.integers(0, 3))] = "MONSTER"
    text = f"<think></think><answer>{json.dumps(document)}</answer>".replace('"MONSTER"', monster)
    for preset in (SCENEGRAPHVLM, R1_SGG):
        score = scorer("json", preset=preset)(text, graph)
        assert not score.valid and not any(score.terms.values())
    assert SceneGraphMetrics("json", WIDTH, HEIGHT).add(text, graph)["object_recall"] < 1


@given(pairs())
def test_r1_sgg_stays_in_range_and_gold_scores_the_maximum(pair):
    reference, prediction = pair
    r1 = scorer("json", preset=R1_SGG)
    gold = r1(f"<think></think><answer>{get_codec('json').encode(reference)}</answer>", reference)
    pairs_of_objects = {(r.subject, r.object) for r in reference.relations}
    wanted = dict.fromkeys(gold.terms, 1.0)
    if not reference.relations:
        wanted |= dict.fromkeys(("soft_recall", "hard_recall", "hard_recall_relax"), 0.0)
    if len(pairs_of_objects) < len(reference.relations):
        del wanted["soft_recall"]  # it hears one predicate per pair of objects
    assert {name: gold.terms[name] for name in wanted} == pytest.approx(wanted)
    check_range(r1(write(prediction, "json"), reference))


# Hostile text

SNIPPETS = (
    *("<answer>", "</answer>", "<think>", "</think>", "\n", "```", "json", "<|im_end|>", ",", "[", "]", "{", "}", ":"),
    *("obj[2]{id,name,x1,y1,x2,y2}:", "rel[1]{subj,pred,obj}:", "1,person,0,0,5,5", "1,on,2", "nan", "\x00", "\ud800"),
    *("rel_pairs[1]{subj,attention,spatial,contacting,obj}:", "1,[unsure],[in],[],2", '"objects": [', '"bbox": [NaN,'),
)
hostile = st.one_of(
    st.text(),
    st.binary(),
    st.lists(st.sampled_from(SNIPPETS), max_size=40).map("".join),
    st.lists(st.sampled_from(SNIPPETS), max_size=40).map("\n".join),
)
REFERENCE = SceneGraph(
    [Object("person", (0, 0, 50, 50)), Object("dog", (20, 20, 90, 90))],
    [Relation(0, "looking_at", 1, "attention")],
    WIDTH,
    HEIGHT,
)
SCORERS = [scorer(codec) for codec in CODECS] + [scorer("json", preset=R1_SGG), scorer("toon", preset=R1_SGG)]
SCORERS += [scorer(codec, protocol="published") for codec in ("toon", "toon-pairs")]
SCORERS += [scorer("json", preset=R1_SGG, task=task) for task in ("det", "cls")]


@given(st.lists(hostile, max_size=6))
@settings(max_examples=200)
def test_never_raises_and_many_equals_one_by_one(texts):
    for each in SCORERS:
        scores = each.many(texts, [REFERENCE] * len(texts))
        assert scores == [each(text, REFERENCE) for text in texts]
        for score in scores:
            check_range(score)
    for codec in CODECS:
        metrics = SceneGraphMetrics(codec, WIDTH, HEIGHT)
        for text in texts:
            metrics.add(text, REFERENCE)
        assert metrics.samples == len(texts)


KEYS = st.sampled_from(("objects", "relationships", "id", "bbox", "subject", "object", "predicate"))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(LABELS)
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner), max_leaves=12
)
ANSWERS = DOCUMENTS.map(lambda document: f"<answer>{json.dumps(document)}</answer>")
SIZE = {"width": WIDTH, "height": HEIGHT}


@given(st.lists(hostile | ANSWERS, min_size=1, max_size=4))
@settings(max_examples=60)
def test_every_preset_gives_finite_numbers_or_none(texts):
    """GraphScorer, and the functions and adapters that trainers call, for good, empty and unusable references."""
    empty = '{"objects": [], "relationships": []}'
    references = [get_codec("json").encode(REFERENCE), empty, get_codec("toon").encode(REFERENCE), texts[-1], None]
    for preset in PRESETS:
        for reference in references[:3]:
            each = scorer("toon" if "obj[" in reference else "json", preset=preset)
            for score in each.many(texts, [reference] * len(texts)):
                assert math.isfinite(each.preset.total(score))
        for reference in references:
            for function in reward_functions(preset)[0]:
                for value in function(texts, [reference] * len(texts), **SIZE):
                    assert value is None or math.isfinite(value)
    for orm in ms_swift("full").values():
        assert all(map(math.isfinite, orm()(texts, [empty] * len(texts), **SIZE)))


@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * 100_000,
        "<think></think><answer>" * 40_000 + "</answer>",
        "</think>" * 100_000,
        "<|im_end|>" * 100_000,
        "obj[1]{" * 100_000,
        "obj[1]{id,name,x1,y1,x2,y2}:\n" * 30_000,
        "<answer>\nobj[1]{id,name,x1,y1,x2,y2}:\n" + "1,cat,0,0,9,9\n" * 60_000 + "</answer>",
        "<answer>\nobj[1]{id,name,x1,y1,x2,y2}:\n1," + "a-" * 400_000 + ",0,0,9,9\n</answer>",
        "[" * 1_000_000,
        "<think>" * 100_000,
        "[/THINK]<think>" * 50_000,
        '<think></think><answer>{"objects": [' + '{"id": "a.1", "bbox": [0, 0, 9, 9]},' * 20_000,
        " " * 1_000_000,
        "9" * 1_000_000,
    ],
    ids=lambda text: text[:24].replace("\n", " "),
)
def test_a_megabyte_of_anything_is_read_in_linear_time(text):
    for each in SCORERS:
        assert not each(text, REFERENCE).valid
    SceneGraphMetrics("toon", WIDTH, HEIGHT).add(text, REFERENCE)


def test_a_draft_of_a_megabyte_is_read_in_linear_time():
    published = scorer(protocol="published")
    for draft in ("obj[1]{" * 100_000, "obj[1]{}:" + "\n1,a,1,1,2,2" * 90_000, "rel[1]{}:" + "\n" * 1_000_000):
        text = f"<think><answer>{draft}</answer></think>{write(REFERENCE)}"
        assert published(text, REFERENCE).valid


@given(st.lists(pairs(), min_size=1, max_size=5), st.data())
def test_many_equals_one_by_one(cases, data):
    completions, solutions = [], []
    for reference, prediction in cases:
        for text in (write(prediction), write(prediction), write(reference), write(prediction)[:-4]):
            completions.append(text)
            solutions.append(get_codec("toon").encode(reference))
    order = data.draw(st.permutations(range(len(completions))))
    completions, solutions = [completions[i] for i in order], [solutions[i] for i in order]
    many = scorer().many(completions, solutions)
    for score, completion, solution in zip(many, completions, solutions, strict=True):
        one = scorer()(completion, solution)
        assert score.terms == pytest.approx(one.terms, abs=1e-12)
        assert (score.counts, score.diagnostics, score.valid) == (one.counts, one.diagnostics, one.valid)


# Metrics


@given(pairs(), st.integers(0, 1000))
def test_metrics_stay_in_range_and_do_not_depend_on_order(pair, seed):
    reference, prediction = pair
    gold = SceneGraphMetrics("toon", WIDTH, HEIGHT).add(write(reference), reference)
    assert gold["object_f1"] == gold["relation_f1"] == gold["sgg_score"] == 1
    values = SceneGraphMetrics("toon", WIDTH, HEIGHT).add(write(prediction), reference)
    assert all(0 <= values[name] <= 1 for name in VALUES)
    other = SceneGraphMetrics("toon", WIDTH, HEIGHT).add(write(shuffled(prediction, seed)), reference)
    assert other["object_f1"] == pytest.approx(values["object_f1"])
