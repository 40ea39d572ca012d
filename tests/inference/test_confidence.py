"""Tokens are mapped to the relations that they wrote."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrl.graph import Object, Relation, SceneGraph
from sgrl.inference.confidence import relation_confidences
from sgrl.text import CODECS, answer, get_codec

OBJECTS = (Object("person", (1, 2, 30, 40)), Object("dog", (5, 5, 20, 22)), Object("person", (40, 4, 60, 50)))
PLAIN = SceneGraph(OBJECTS, (Relation(0, "holding", 1), Relation(2, "behind", 1), Relation(0, "behind", 2)), 96, 96)
GROUPED = SceneGraph(
    OBJECTS,
    (
        Relation(0, "looking_at", 1, "attention"),
        Relation(0, "in_front_of", 1, "spatial"),
        Relation(0, "holding", 1, "contacting"),
        Relation(2, "touching", 1, "contacting"),
    ),
    96,
    96,
)


def confidences(name, text, pieces, logprobs):
    codec = get_codec(name)
    return relation_confidences(codec, codec.recover_parsed(text, 96, 96)[0], text, pieces, logprobs)


@pytest.mark.parametrize("name", CODECS)
def test_only_the_tokens_of_a_relation_count(name):
    """One character per token: every relation's confidence is made of its ids and its predicate, nothing else."""
    graph = GROUPED if name == "toon-pairs" else PLAIN
    text = answer.wrap(get_codec(name).encode(graph))
    parsed = get_codec(name).recover_parsed(text, 96, 96)[0]
    assert confidences(name, text, tuple(text), [0.0] * len(text)) == [1.0] * len(graph.relations)
    for index, (_, predicate, _) in enumerate(parsed.relations):
        label = predicate.partition("__")[2] or predicate
        place = text.index(label, text.index("rel"))  # of its first occurrence
        logprobs = [0.0] * len(text)
        logprobs[place + 1] = -2.0
        first = [p.partition("__")[2] or p for _, p, _ in parsed.relations].index(label)
        found = confidences(name, text, tuple(text), logprobs)
        expected = [1.0] * len(found)
        expected[first] = round(math.exp(-2.0), 6)
        assert found == expected, (index, label)


def test_tokens_of_several_characters_count_once():
    text = answer.wrap(get_codec("toon").encode(PLAIN))
    row = "  1,holding,2"
    start = text.index(row)
    pieces = (text[:start], "  1,", "hold", "ing", ",2\n", text[start + len(row) + 1 :])
    assert "".join(pieces) == text
    found = confidences("toon", text, pieces, [-9.0, -0.1, -0.2, -0.4, -0.8, 0.0])
    assert found[0] == pytest.approx(math.exp(-1.5), abs=1e-6)
    assert found[1:] == [1.0, 1.0]


def test_a_repaired_graph_keeps_the_confidences_of_what_is_left():
    body = get_codec("toon").encode(PLAIN).replace("  3,behind,2", "  1,holding,2")  # the second repeats the first
    text = answer.wrap(body)
    logprobs = [0.0] * len(text)
    logprobs[text.rindex("1,behind,3") + 2] = -1.0
    kept = get_codec("toon").recover_parsed(text, 96, 96)[0]
    kept = kept._replace(relations=[kept.relations[0], kept.relations[2]])
    found = relation_confidences(get_codec("toon"), kept, text, tuple(text), logprobs)
    assert found == [1.0, pytest.approx(math.exp(-1), abs=1e-6)]


def test_ids_in_any_order_and_missing_ones():
    text = (
        "<answer>\nobj[2]{id,name,x1,y1,x2,y2}:\n  7,cat,1,1,5,5\n  3,dog,2,2,9,9\nrel[2]{subj,pred,obj}:\n"
        "  7,on,3\n  9,near,3\n</answer>"
    )
    logprobs = [0.0] * len(text)
    logprobs[text.index("near")] = -1.0
    assert confidences("toon", text, tuple(text), logprobs) == [1.0, pytest.approx(math.exp(-1), abs=1e-6)]


def test_without_tokens_there_is_no_confidence():
    text = answer.wrap(get_codec("toon").encode(PLAIN))
    assert confidences("toon", text, (), ()) == [None] * 3
    assert confidences("toon", text, ("other",), (0.0,)) == [None] * 3


@given(text=st.text(alphabet='rel[]_pairs{}:,0123 ab\n|"<>/answer', max_size=120), name=st.sampled_from(tuple(CODECS)))
def test_any_text_has_one_entry_per_relation(text, name):
    codec = get_codec(name)
    graph = codec.recover_parsed(text, 96, 96)[0]
    found = relation_confidences(codec, graph, text, tuple(text), [-0.5] * len(text))
    assert len(found) == len(graph.relations)
    assert all(value is None or 0 <= value <= 1 for value in found)
