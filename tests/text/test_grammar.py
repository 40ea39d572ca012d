"""The grammars, run by xgrammar itself on bytes."""

import random
import re

import pytest

from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import CODECS, FormatError, answer, get_codec
from sgrl.text.grammar import Limits, ebnf
from sgrl.text.parsed import GROUPS
from sgrl.text.productions import integers
from sgrl.vocabulary import Vocabulary, get_vocabulary

W, H = 640, 480
END = 256


@pytest.fixture(scope="module")
def compiler():
    xgrammar = pytest.importorskip("xgrammar")
    tokens = [bytes([i]) for i in range(256)] + [b"</s>"]
    return xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(tokens, stop_token_ids=[END]), max_threads=1)


@pytest.fixture(scope="module")
def grammars(compiler):
    psg, genome = get_vocabulary("psg"), get_vocabulary("action_genome")
    vocabularies = {name: genome if name == "toon-pairs" else psg for name in CODECS}
    return {
        name: (vocabulary, compiler.compile_grammar(ebnf(name, vocabulary, W, H, Limits(objects=12, relations=15))))
        for name, vocabulary in vocabularies.items()
    }


def accepts(grammar, text):
    from xgrammar import GrammarMatcher

    matcher = GrammarMatcher(grammar)
    return all(matcher.accept_token(byte) for byte in text.encode()) and matcher.accept_token(END)


def random_graph(rng, vocabulary, n, m):
    objects = []
    for i in range(n):
        x1, y1 = rng.randrange(W), rng.randrange(H)
        label = rng.choice(vocabulary.objects) if i else "person"
        objects.append(Object(label, (x1, y1, rng.randint(x1 + 1, W), rng.randint(y1 + 1, H))))
    relations = {}
    while len(relations) < m and n > 1:
        if vocabulary.groups:  # one relation per pair and group: no cell grows too long
            pair, group = (0, rng.randrange(1, n)), rng.choice(GROUPS)
            relations[pair, group] = Relation(*pair[:1], rng.choice(vocabulary.groups[group]), pair[1], group)
            m = min(m, 3 * (n - 1))
        else:
            subject, target = rng.sample(range(n), 2)
            predicate = rng.choice(vocabulary.predicates)
            relations[subject, predicate, target] = Relation(subject, predicate, target)
    return SceneGraph(objects, list(relations.values()), W, H)


@pytest.mark.parametrize("name", CODECS)
def test_every_encoded_graph_is_accepted(grammars, name):
    vocabulary, grammar = grammars[name]
    rng = random.Random(0)
    for n in range(1, 13):
        graph = random_graph(rng, vocabulary, n, rng.randrange(0, 11))
        text = answer.wrap(get_codec(name).encode(graph))
        assert accepts(grammar, text), text


TOON = """<answer>
obj[2]{id,name,x1,y1,x2,y2}:
  1,person,0,0,640,480
  2,traffic-light,9,10,99,100
rel[1]{subj,pred,obj}:
  1,looking-at,2
</answer>"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<answer>\n", ""),
        ("</answer>", "</answer>\n"),
        ("obj[2]", "obj[3]"),
        ("obj[2]", "obj[13]"),
        ("rel[1]", "rel[0]"),
        ("  2,traffic", "  3,traffic"),
        ("  1,person", " 1,person"),
        ("person", "unicorn"),
        ("traffic-light", "traffic light"),
        ("looking-at", "adoring"),
        ("640", "641"),
        ("480", "481"),
        ("0,0,", "640,0,"),
        ("0,0,", "00,0,"),
        ("0,0,", "-1,0,"),
        ("9,10", "9.5,10"),
        ("1,looking", "3,looking"),
        ("1,looking-at,2", "1,looking-at,1"),
        ("1,looking-at,2", "2,looking-at,2"),
    ],
)
def test_what_the_strict_reader_refuses_cannot_be_written(grammars, old, new):
    assert accepts(grammars["toon"][1], TOON)
    text = TOON.replace(old, new, 1)
    assert text != TOON and not accepts(grammars["toon"][1], text)


def test_pairs(grammars):
    good = TOON.replace("traffic-light", "cup/glass/bottle").replace("rel[1]{subj,pred,obj}", "REL")
    good = good.replace("REL", "rel_pairs[1]{subj,attention,spatial,contacting,obj}")
    for row, fine in (
        ('1,unsure,"",holding|touching,2', True),
        ('1,"","",holding,2', True),
        ('1,"",in,"",2', True),
        ('1,"","","",2', False),
        ('1,unsure|looking_at,"","",2', False),
        ('1,unsure,"",holding|touching|eating|wiping|carrying,2', False),
        ('1,unsure,holding,"",2', False),
        ("1,[unsure],[],[],2", False),
        ('1,unsure,"",holding,1', False),
    ):
        text = good.replace("1,looking-at,2", row)
        assert accepts(grammars["toon-pairs"][1], text) == fine, row


def test_json(grammars):
    good = '<answer>\n{"objects": [{"id": "person.1", "bbox": [0, 0, 640, 480]}], "relationships": []}\n</answer>'
    assert accepts(grammars["json"][1], good)
    for old, new in (
        ("person.1", "unicorn.1"),
        ("640", "641"),
        ('"bbox": ', ""),
        ("person.1", "person.13"),
        ("[]", ""),
    ):
        assert not accepts(grammars["json"][1], good.replace(old, new)), new


@pytest.mark.parametrize("name", CODECS)
def test_what_is_generated_breaks_no_rule_but_the_documented_ones(grammars, name):
    """Random walks through the grammar, read strictly."""
    from xgrammar import GrammarMatcher, allocate_token_bitmask

    codec, rng = get_codec(name), random.Random(1)
    for _ in range(30):
        matcher, out = GrammarMatcher(grammars[name][1]), bytearray()
        bitmask = allocate_token_bitmask(1, 257)
        while not matcher.is_terminated():
            matcher.fill_next_token_bitmask(bitmask)
            words = bitmask[0].tolist()
            allowed = [i for i in range(257) if words[i // 32] >> (i % 32) & 1]
            token = rng.choice(allowed)
            assert matcher.accept_token(token)
            if token != END:
                out.append(token)
            assert len(out) < 20_000
        try:
            codec.parse(out.decode(), W, H)
        except FormatError as error:
            documented = ("0 <= x1 < x2", "stands twice", "must be a person", "no object has the id", "to itself")
            assert any(reason in str(error) for reason in documented), error
            assert name in ("json", "toon-pairs") or "to itself" not in str(error)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 9), (1, 10), (0, 479), (1, 640), (7, 1234), (99, 101), (5, 4)])
def testintegers(low, high):
    parts = [re.sub(r'"(\d*)"', r"\1", part).replace(" ", "") for part in integers(low, high).split(" | ")]
    pattern = re.compile("|".join(parts) if low <= high else "(?!)")
    texts = [*map(str, range(2000)), "00", "01", "-1", ""]
    assert [t for t in texts if pattern.fullmatch(t)] == [str(i) for i in range(low, high + 1)]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(("objects", "relations"), [(1, 0), (1, 5), (2, 0), (2, 1)])
def test_small_limits(compiler, name, objects, relations):
    vocabulary = Vocabulary(
        "v", ["person", "42"], ["on", "in", "at"], {"attention": ["on"], "spatial": ["in"], "contacting": ["at"]}
    )
    grammar = compiler.compile_grammar(ebnf(name, vocabulary, W, H, Limits(objects, relations), tags=False))
    people = [Object("person", (0, 0, 1, 1)), Object("42", (0, 0, 1, 1))]
    for n in (1, 2, 3):
        graph = SceneGraph((people * 2)[:n], [], W, H)
        assert accepts(grammar, get_codec(name).encode(graph)) == (n <= objects)
    if objects == 2:
        graph = SceneGraph(people, [Relation(0, "on", 1, "attention")], W, H)
        assert accepts(grammar, get_codec(name).encode(graph)) == (relations > 0)


def test_bad_arguments_are_named():
    psg = get_vocabulary("psg")
    with pytest.raises(FormatError, match="'psg' has no 'attention'"):
        ebnf("toon-pairs", psg, W, H)
    with pytest.raises(FormatError, match="unknown codec 'yaml'"):
        ebnf("yaml", psg, W, H)
    with pytest.raises(FormatError, match="found 640, 480, 0 and 1"):
        ebnf("toon", psg, W, H, Limits(0, 1))
    assert ebnf(get_codec("toon"), psg, W, H) == ebnf("toon", psg, W, H)
