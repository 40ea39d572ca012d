"""Action Genome's recall: properties of every graph, and texts that are no graph."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.matching import count_matches
from rewards.metrics.action_genome import CONSTRAINTS, PROTOCOLS, TASKS, ActionGenomeRecall
from rewards.metrics.action_genome_counts import own_partner
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import answer
from sgrl.vocabulary import get_vocabulary

AG = get_vocabulary("action_genome")
OBJECTS = "obj[2]{id,name,x1,y1,x2,y2}:\n1,person,10,10,100,200\n2,chair,120,50,300,200\n"
HEADER = "rel_pairs[1]{subj,attention,spatial,contacting,obj}:\n"
REFERENCE = OBJECTS + HEADER + "1,unsure,above|behind,holding,2"


@st.composite
def graphs(draw, crowded=True):
    """References: a person and up to four objects, some of one class and near each other."""
    number = draw(st.integers(1, 4))
    objects = [Object("person", (0, 0, 100, 200))]
    for i in range(number):
        label = draw(st.sampled_from(AG.objects[1:4]))
        x = draw(st.integers(0, 3)) * 4 if crowded else 150 * i
        objects.append(Object(label, (x, 10, x + 100, 110)))
    relations = set()
    for i in range(1, number + 1):
        for group, names in AG.groups.items():
            most = 1 if group == "attention" else 3
            for name in draw(st.lists(st.sampled_from(names), max_size=most, unique=True)):
                relations.add((0, name, i, group))
    return SceneGraph(objects, [Relation(*r) for r in sorted(relations)], 640, 480)


def shuffled(graph, seed):
    rng = random.Random(seed)
    order = list(range(len(graph.objects)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    relations = [Relation(place[r.subject], r.predicate, place[r.object], r.group) for r in graph.relations]
    rng.shuffle(relations)
    return SceneGraph([graph.objects[i] for i in order], relations, 640, 480)


numbers = st.lists(st.floats(0, 1), min_size=40, max_size=40)


@given(graphs(), graphs(), numbers, st.integers(0, 99), st.sampled_from(CONSTRAINTS), st.sampled_from(TASKS))
def test_the_order_of_the_reference_never_matters(prediction, reference, given_numbers, seed, constraint, task):
    confidences = given_numbers[: len(prediction.relations)]
    counts = [ActionGenomeRecall(constraint=constraint, task=task, ks=(1, 3, 20)) for _ in range(2)]
    values = [
        c.add(prediction, r, confidences=confidences)
        for c, r in zip(counts, (reference, shuffled(reference, seed)), strict=True)
    ]
    assert values[0] == values[1]
    assert counts[0].compute() == pytest.approx(counts[1].compute())


@given(graphs(crowded=False), st.integers(0, 99))
def test_a_perfect_graph_has_recall_one(reference, seed):
    number = max(1, len(reference.relations))
    values = ActionGenomeRecall(constraint="no", ks=(number, 100)).add(shuffled(reference, seed), reference)
    for k in (number, 100):
        assert values[f"recall@{k}"] == values[f"precision@{k}"] == values[f"f1@{k}"] == 1


@given(graphs(), graphs(), numbers)
def test_recall_grows_with_k_and_without_constraint(prediction, reference, given_numbers):
    """Without a limit; with one, a constraint makes room for other pairs among the K best."""
    confidences = given_numbers[: len(prediction.relations)]
    free, held, semi = (
        ActionGenomeRecall(constraint=c, ks=(1, 2, 5, 1000)).add(prediction, reference, confidences=confidences)
        for c in ("no", "with", "semi")
    )
    assert held["found@1000"] <= free["found@1000"] and semi["found@1000"] <= free["found@1000"]
    for values in (free, held, semi):
        found = [values[f"found@{k}"] for k in (1, 2, 5, 1000)]
        right = [values[f"right@{k}"] for k in (1, 2, 5, 1000)]
        assert found == sorted(found) and right == sorted(right)
        assert all(r <= f for r, f in zip(right, found, strict=True))


@given(graphs(), graphs(), numbers, st.sampled_from(("person", "bed")), st.sampled_from(CONSTRAINTS))
def test_a_wrong_relation_at_the_end_never_raises_anything(prediction, reference, given_numbers, label, constraint):
    confidences = [0.1 + 0.9 * number for number in given_numbers[: len(prediction.relations)]]
    wrong = Object(label, (600, 400, 640, 480))
    more = SceneGraph(
        [*prediction.objects, wrong],
        [*prediction.relations, Relation(0, "in", len(prediction.objects), "spatial")],
        640,
        480,
    )
    ks = (1, 5, 100)
    before = ActionGenomeRecall(constraint=constraint, ks=ks).add(prediction, reference, confidences=confidences)
    after = ActionGenomeRecall(constraint=constraint, ks=ks).add(more, reference, confidences=[*confidences, 0.05])
    for k in ks:
        for name in ("recall", "precision", "f1"):
            assert after[f"{name}@{k}"] <= before[f"{name}@{k}"]
        assert after[f"found@{k}"] == before[f"found@{k}"]


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=8))
def test_own_partners_are_a_greatest_matching_of_every_prefix(partners):
    hit = np.zeros((len(partners), 6), dtype=bool)
    for row, columns in zip(hit, partners, strict=True):
        row[columns] = True
    owns = own_partner(hit)
    for k in range(1, len(hit) + 1):
        assert owns[:k].sum() == count_matches([np.flatnonzero(row).tolist() for row in hit[:k] if row.any()])


@settings(max_examples=60)
@given(st.text(alphabet='01239,|[]{}:<>/answerthikobjl_p \n"-', max_size=200), st.sampled_from(PROTOCOLS[:2]))
def test_no_text_raises(garbage, protocol):
    for prediction in (garbage, answer.wrap(OBJECTS + garbage), answer.wrap(REFERENCE + "\n" + garbage)):
        values = ActionGenomeRecall(640, 480, protocol=protocol).add(prediction, REFERENCE)
        assert all(math.isfinite(value) for value in values.values())


def test_hostile_texts_take_bounded_time():
    for prediction in (
        "<think>" * 100_000,
        answer.wrap(OBJECTS + HEADER + "1,unsure,above,holding,2\n" * 20_000),
        answer.wrap(OBJECTS + "1,[" * 100_000),
        answer.wrap("1,person,1,1,9,9\n" * 20_000 + "1,[unsure],[],[],1\n" * 20_000),
    ):
        for protocol in ("default", "published"):
            ActionGenomeRecall(640, 480, protocol=protocol).add(prediction, REFERENCE)
