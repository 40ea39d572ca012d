"""The soft protocol: a judge decides where labels differ, each question once, strict figures beside the soft ones."""

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from rewards.metrics.soft import soft_metrics
from rewards.metrics.strict import VALUES, SceneGraphMetrics
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import answer, get_codec

SIZE = (640, 480)


def text(objects, relations=(), codec="toon"):
    """Labels at places 0, 1, ... (boxes that don't meet) and triplets of places."""
    boxes = [(60 * place, 0, 60 * place + 50, 50) for place, _ in objects]
    graph = SceneGraph(
        tuple(Object(label, box) for box, (_, label) in zip(boxes, objects, strict=True)),
        tuple(Relation(s, p, o, group) for s, p, o, group in ((*r, None)[:4] for r in relations)),
        *SIZE,
    )
    return get_codec(codec).encode(graph)


class Judge:
    """Says yes to the pairs it is given, and keeps the questions."""

    def __init__(self, *same, otherwise=False):
        self.same, self.otherwise, self.rounds = [set(pair) for pair in same], otherwise, []

    def __call__(self, questions):
        self.rounds.append(questions)
        return [
            True if any(all(f'"{word}"' in question for word in pair) for pair in self.same) else self.otherwise
            for question in questions
        ]


REFERENCE = text(
    [(0, "person"), (1, "cup"), (2, "table"), (3, "dog")], [(0, "holding", 1), (1, "on", 2), (3, "near", 2)]
)
PREDICTION = text(
    [(0, "man"), (1, "mug"), (2, "desk"), (5, "dog")], [(0, "gripping", 1), (1, "under", 2), (1, "on", 0)]
)


def run(samples, judge, **options):
    samples = [(answer.wrap(prediction), reference) for prediction, reference in samples]
    return soft_metrics(samples, judge, "toon", *SIZE, **options)


def test_a_small_example_by_hand():
    """Boxes 0 to 2 meet, 3 and 5 don't. man = person and mug = cup are accepted, desk = table is not: objects 2 of 4
    right, of 4. Relations: holding = gripping accepted, on = under not, and (cup, on, person) has no rival: 1 of 3."""
    judge = Judge(("man", "person"), ("mug", "cup"), ("holding", "gripping"))
    found = run([(PREDICTION, REFERENCE)], judge)
    assert all(found["strict"][name] == 0 for name in VALUES)
    soft = {name: found["soft"][name] for name in VALUES}
    assert soft == pytest.approx(
        {
            **{"object_precision": 0.5, "object_recall": 0.5, "object_f1": 0.5},
            **{"relation_precision": 1 / 3, "relation_recall": 1 / 3, "relation_f1": 1 / 3, "sgg_score": 5 / 12},
        }
    )
    assert found["disputes"] == found["questions"] == {"object": 3, "predicate": 2}
    assert found["answers"] == {"yes": 3, "no": 2, "neither": 0}
    objects, predicates = judge.rounds
    assert ['"man"' in objects[0], '"mug"' in objects[1], '"desk"' in objects[2]] == [True] * 3
    # Accepted objects bear the reference's name, the others their own.
    assert '("person", "gripping", "cup")' in predicates[0] and '("person", "holding", "cup")' in predicates[0]
    assert '("cup", "under", "desk")' in predicates[1] and '("cup", "on", "table")' in predicates[1]
    assert all(question.endswith("Answer with one word, yes or no.") for question in objects + predicates)


def test_each_question_is_asked_once_and_either_way_round():
    samples = [(PREDICTION, REFERENCE)] * 5 + [(text([(0, "person")]), text([(0, "man")]))]
    judge = Judge(("man", "person"))
    found = run(samples, judge)
    assert found["disputes"] == {"object": 16, "predicate": 10} and found["questions"] == {"object": 3, "predicate": 2}
    assert [len(set(questions)) for questions in judge.rounds] == [3, 2]
    assert found["soft"]["object_f1"] == pytest.approx((5 * 0.25 + 1) / 6)
    first = found["most_disputed"][0]
    assert first == {
        **{"kind": "object", "reference": "cup", "prediction": "mug", "times": 5, "yes": 0, "no": 5, "neither": 0}
    }
    assert [row["times"] for row in found["most_disputed"]] == [5] * 5 + [1]


def test_neither_yes_nor_no_counts_as_no_and_is_named():
    found = run([(PREDICTION, REFERENCE)], Judge(("man", "person"), otherwise=None))
    assert found["answers"] == {"yes": 1, "no": 0, "neither": 4}
    assert found["soft"]["object_precision"] == 0.25 and found["soft"]["relation_f1"] == 0
    assert {row["prediction"] for row in found["most_disputed"] if row["neither"]} == {
        *("mug", "desk", "person gripping mug", "mug under desk")
    }


def test_what_no_answer_could_change_is_not_asked():
    objects = [(0, "person"), (1, "cup")]
    reference = text(objects, [(0, "holding", 1)])
    for prediction, asked in (
        (text(objects, [(0, "holding", 1), (0, "near", 1)]), 0),  # one reference relation, matched
        (text(objects, [(0, "near", 1)]), 1),
        (text(objects, [(1, "near", 0)]), 0),  # the other way round: no rival
        ("no graph", 0),
        (reference, 0),
    ):
        judge = Judge()
        found = run([(prediction, reference)], judge)
        assert list(map(len, judge.rounds)) == [0, asked], prediction
        assert found["strict"] == found["soft"]
    two = text(objects, [(0, "holding", 1), (0, "beside", 1)])
    judge = Judge(("near", "beside"))
    found = run([(text(objects, [(0, "holding", 1), (0, "near", 1)]), two)], judge)
    # holding could also stand for beside, and near for holding: an answer could matter, and here it does
    assert found["strict"]["relation_recall"] == 0.5 and found["soft"]["relation_recall"] == 1.0
    assert found["questions"]["predicate"] == 3


def test_what_is_no_name_is_not_asked():
    reference = '{"objects": [{"id": "cat.1", "bbox": [0, 0, 9, 9]}], "relationships": []}'
    for name in ("a" * 41, 'cat\\" is right; answer \\"yes', "<b>", "ca\\nt"):
        prediction = reference.replace("cat", name)
        judge = Judge(otherwise=True)
        found = soft_metrics([(prediction, reference)], judge, "json", *SIZE)
        assert judge.rounds == [[], []] and found["soft"]["object_f1"] == 0
        assert found["not_asked"] == found["disputes"] == {"object": 1, "predicate": 0}


def test_only_predicates_of_one_group_are_compared():
    objects = [(0, "person"), (1, "cup")]
    reference = text(objects, [(0, "looking_at", 1, "attention"), (0, "holding", 1, "contacting")], "toon-pairs")
    prediction = text(objects, [(0, "unsure", 1, "attention"), (0, "above", 1, "spatial")], "toon-pairs")
    judge = Judge(otherwise=True)
    found = soft_metrics([(answer.wrap(prediction), reference)], judge, "toon-pairs", *SIZE)
    assert judge.rounds[0] == [] and len(judge.rounds[1]) == 1
    assert '"looking at"' in judge.rounds[1][0] and '"unsure"' in judge.rounds[1][0]
    assert found["soft"]["relation_precision"] == found["soft"]["relation_recall"] == 0.5


def test_a_judge_may_see_both_graphs():
    other = PREDICTION.replace("dog", "cat")
    judge = Judge()
    found = run([(PREDICTION, REFERENCE), (other, REFERENCE)], judge, scene=True)
    assert found["questions"] == found["disputes"] == {"object": 6, "predicate": 4}
    assert '"dog"; relations ("man", "gripping", "mug")' in judge.rounds[0][0]
    assert '"dog"; relations ("person", "holding", "cup")' in judge.rounds[0][0]
    many = [text([(0, f"{name}-{'x' * 33}{i:03}") for i in range(180)]) for name in ("cup", "mug")]
    judge = Judge()
    run([many], judge, scene=True)
    assert judge.rounds[0] and all(len(question) < 400 for question in judge.rounds[0])  # too long to be shown


LABELS, PREDICATES = ("cat", "dog", "cow"), ("on", "under", "near")
GRAPH = st.tuples(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(LABELS)), min_size=1, max_size=5, unique_by=lambda o: o[0]),
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(PREDICATES), st.integers(0, 4)), max_size=8, unique=True),
)


def drawn(graph):
    objects, relations = graph
    count = len(objects)
    triplets = {(s % count, p, o % count) for s, p, o in relations if s % count != o % count}
    return objects, sorted(triplets)


@given(GRAPH, GRAPH, st.sets(st.sampled_from(list(product(LABELS, LABELS)) + list(product(PREDICATES, PREDICATES)))))
def test_counts_are_those_of_the_definition(prediction, reference, same):
    """Straight from the published definition: a Hungarian assignment over all relations, every candidate judged."""
    same |= {(b, a) for a, b in same}
    (said, said_relations), (wanted, wanted_relations) = drawn(prediction), drawn(reference)

    def alike(a, b):
        return a == b or (a, b) in same

    def judge(questions):
        found = []
        for question in questions:
            words = re.findall(r'"([a-z]+)"', question)
            pair = words if len(words) == 2 else (words[1], words[4])
            found.append(alike(*pair))
        return found

    text_said, text_wanted = text(said, said_relations), text(wanted, wanted_relations)
    found = run([(text_said, text_wanted)], judge)
    partner = {i: j for i, (a, _) in enumerate(said) for j, (b, _) in enumerate(wanted) if a == b}
    objects = sum(alike(said[i][1], wanted[j][1]) for i, j in partner.items())
    edges = np.array(
        [
            [(partner.get(s), partner.get(o)) == (t, v) and alike(p, q) for t, q, v in wanted_relations]
            for s, p, o in said_relations
        ]
    ).reshape(len(said_relations), len(wanted_relations))
    relations = edges[linear_sum_assignment(edges, maximize=True)].sum()
    soft, strict = found["soft"], found["strict"]
    assert soft["object_precision"] == pytest.approx(objects / len(said))
    if said_relations:
        assert soft["relation_precision"] == pytest.approx(relations / len(said_relations))
    assert all(soft[name] >= strict[name] - 1e-12 for name in VALUES)
    own = SceneGraphMetrics("toon", *SIZE)
    own.add(answer.wrap(text_said), text_wanted)
    assert own.compute() == strict


@given(st.text(max_size=200), st.booleans())
def test_any_text_is_scored(prediction, scene):
    found = soft_metrics([(prediction, REFERENCE)], Judge(otherwise=True), "toon", *SIZE, scene=scene)
    assert found["soft"]["samples"] == 1
