"""After a repair the strict reader is content, and nothing is lost that could be kept."""

import random

import pytest

from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import CODECS, answer, get_codec
from sgrl.text.grammar import Limits, ebnf
from sgrl.text.repair import repair
from sgrl.vocabulary import get_vocabulary

W, H = 640, 480
TOON = get_codec("toon")
GOOD = answer.wrap(
    "obj[2]{id,name,x1,y1,x2,y2}:\n  1,person,9,8,70,60\n  2,cup,1,2,30,40\nrel[1]{subj,pred,obj}:\n  1,on,2"
)


def test_a_valid_text_is_not_touched():
    assert repair(TOON, GOOD, W, H) == (GOOD, {})


@pytest.mark.parametrize(
    ("text", "expected", "faults"),
    [
        (GOOD.replace("9,8,70,60", "70,60,9,8"), GOOD, {"boxes": 1}),
        (GOOD.replace("9,8,70,60", "9,8,9,60"), GOOD.replace("9,8,70,60", "9,8,10,60"), {"boxes": 1}),
        (GOOD.replace("9,8,70,60", "639,8,640,900"), GOOD.replace("9,8,70,60", "639,8,640,480"), {"boxes": 1}),
        (GOOD.replace("9,8,70,60", "640,480,640,480"), GOOD.replace("9,8,70,60", "639,479,640,480"), {"boxes": 1}),
        (GOOD.replace("rel[1]", "rel[2]").replace("1,on,2", "1,on,2\n  1,on,2"), GOOD, {"relations": 1}),
        (GOOD.replace("rel[1]", "rel[2]").replace("1,on,2", "1,on,2\n  2,on,2"), GOOD, {"relations": 1}),
        (GOOD.replace("rel[1]", "rel[5]"), GOOD, {"layout": 1}),
        (GOOD[: -len("\n</answer>")], GOOD, {"layout": 1}),
        (GOOD[: GOOD.index("rel[") + 2], GOOD.replace("rel[1]", "rel[0]").replace("\n  1,on,2", ""), {"layout": 1}),
    ],
)
def test_each_fault_has_its_remedy(text, expected, faults):
    assert repair(TOON, text, W, H) == (expected, faults)


def test_a_text_without_objects_comes_back():
    for text in ("", "I see a cup.", "<answer>\nobj[2]{id,name,x1,y1,x2,y2}:\n  1,per"):
        assert repair(TOON, text, W, H) == (text, {"no_graph": 1})


def test_the_subject_of_pairs_is_a_person():
    graph = SceneGraph(
        (Object("person", (1, 1, 50, 50)), Object("cup/glass/bottle", (2, 2, 40, 40))),
        (Relation(0, "holding", 1, "contacting"), Relation(1, "touching", 0, "contacting")),
        W,
        H,
    )
    codec = get_codec("toon-pairs")
    fixed, faults = repair(codec, answer.wrap(codec.encode(graph)), W, H)
    assert codec.parse(fixed, W, H).relations == [(0, "contacting__holding", 1)] and faults == {"relations": 1}


@pytest.fixture(scope="module")
def compiler():
    xgrammar = pytest.importorskip("xgrammar")
    tokens = [bytes([i]) for i in range(256)] + [b"</s>"]
    return xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(tokens, stop_token_ids=[256]), max_threads=1)


@pytest.mark.parametrize("name", CODECS)
def test_whatever_a_grammar_lets_through_becomes_valid(name, compiler):
    """Random walks through the grammar, most of them cut off somewhere: only those without a whole object fail."""
    import numpy as np
    import xgrammar

    vocabulary = get_vocabulary("action_genome" if name == "toon-pairs" else "psg")
    codec = get_codec(name)
    grammar = compiler.compile_grammar(ebnf(name, vocabulary, W, H, Limits(objects=4, relations=6)))
    rng = random.Random(5)
    invalid = 0
    for _ in range(40):
        matcher = xgrammar.GrammarMatcher(grammar)
        bitmask = xgrammar.allocate_token_bitmask(1, 257)
        written = bytearray()
        limit = rng.choice((80, 200, 10_000))
        while len(written) < limit and not matcher.is_terminated():
            matcher.fill_next_token_bitmask(bitmask)
            bits = np.unpackbits(bitmask.numpy().view(np.uint8), bitorder="little")[:257]
            token = rng.choice(np.flatnonzero(bits).tolist())
            assert matcher.accept_token(token)
            if token < 256:
                written.append(token)
        text = written.decode()
        objects = len(codec.recover_parsed(text, W, H)[0].labels)
        fixed, faults = repair(codec, text, W, H)
        if "no_graph" in faults:
            assert objects == 0 and limit == 80
            continue
        codec.parse(fixed, W, H)  # raises if it isn't valid
        invalid += bool(faults)
    assert invalid > 10  # boxes whose corners the grammar could not compare, at least
