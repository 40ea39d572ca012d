"""What a codec writes, it reads back, and so does the official TOON package."""

import math

import pytest
import toon_format
from hypothesis import example, given
from hypothesis import strategies as st

from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import CODECS, FormatError, answer, detect_codec, get_codec
from sgrl.text.labels import MAX_LABEL, quote
from sgrl.text.parsed import GROUPS
from sgrl.text.tables import pixels
from sgrl.vocabulary import canonical

W, H = 640, 480
TRICKY = [
    "true",
    "false",
    "null",
    "42",
    "007",
    "1e5",
    "1e-5",
    "3.14",
    "-x",
    "a:b",
    "",
    '"',
    "a,b",
    "a|b",
    "a\nb",
    "#",
    "\ud800",
]
labels = st.sampled_from(["person", "traffic light", "cup/glass/bottle", "in_front_of", *TRICKY]) | st.text(
    max_size=12
)


def whole_boxes(draw):
    x1, y1 = draw(st.integers(0, W - 1)), draw(st.integers(0, H - 1))
    return (x1, y1, draw(st.integers(x1 + 1, W)), draw(st.integers(y1 + 1, H)))


@st.composite
def any_graphs(draw):
    """Whatever can be constructed: any labels, any finite boxes, self-relations, duplicates."""
    number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-2000, 2000)
    objects = draw(st.lists(st.builds(Object, labels, st.tuples(*[number] * 4)), max_size=8))
    index = st.integers(0, max(0, len(objects) - 1))
    relation = st.builds(Relation, index, labels, index, st.sampled_from(GROUPS))
    return SceneGraph(objects, draw(st.lists(relation, max_size=8 if objects else 0)), W, H)


@st.composite
def good_graphs(draw, wide=False):
    """Graphs that a strict reader must accept: boxes in the image, no relation twice, persons as subjects."""
    n = draw(st.integers(1, 12))
    objects = [Object("Person", whole_boxes(draw))]
    objects += [Object(draw(labels), whole_boxes(draw)) for _ in range(n - 1)]
    pair = st.tuples(st.just(0) if wide else st.integers(0, n - 1), st.integers(0, n - 1)).filter(
        lambda p: p[0] != p[1]
    )
    triplet = st.tuples(pair, labels, st.sampled_from(GROUPS))
    key = (lambda t: (t[0], canonical(t[1], True), t[2])) if wide else (lambda t: (t[0], canonical(t[1])))
    triplets = draw(st.lists(triplet, max_size=12 if n > 1 else 0, unique_by=key))
    return SceneGraph(objects, [Relation(s, p, o, group if wide else None) for (s, o), p, group in triplets], W, H)


def as_tables(name, graph):
    """What TOON should decode to."""
    wide = name == "toon-pairs"
    objects = []
    for i, o in enumerate(graph.objects, 1):
        corners = dict(zip(("x1", "y1", "x2", "y2"), pixels(o.box), strict=True))
        row = {"id": i, "name": canonical(o.label, wide), **corners}
        objects.append({k: v for k, v in row.items() if not (name == "toon-lean" and k == "id")})
    return objects


@pytest.mark.parametrize("name", ["toon", "toon-lean", "toon-pairs"])
@given(graph=any_graphs())
def test_the_toon_package_reads_the_same_values(name, graph):
    data = toon_format.loads(get_codec(name).encode(graph), indent_size=1 if name == "toon-lean" else 2)
    assert data["obj"] == as_tables(name, graph)
    if name == "toon-pairs":
        found = [
            (row["subj"] - 1, label, row["obj"] - 1, group)
            for row in data["rel_pairs"]
            for group in GROUPS
            for label in (row[group].split("|") if row[group] else ())
        ]
        wanted = [(r.subject, canonical(r.predicate, wide=True), r.object, r.group) for r in graph.relations]
        assert sorted(found) == sorted(wanted)
    else:
        rows = [{"subj": r.subject + 1, "pred": canonical(r.predicate), "obj": r.object + 1} for r in graph.relations]
        assert data["rel"] == rows


@given(st.text(max_size=12) | st.from_regex(r"[a-z0-9._/-]{0,6}", fullmatch=True), st.booleans())
@example("1e-5", False)
@example("3.14", True)
def test_labels_are_quoted_exactly_when_toon_says_so(label, wide):
    text = canonical(label, wide)
    assert quote(text) == toon_format.dumps(text)


@pytest.mark.parametrize("name", ["toon", "toon-lean", "json"])
@given(graph=good_graphs())
@example(graph=SceneGraph((Object("JSON", (0, 0, 1, 1)),), (), W, H))
def test_strict_reading_gives_the_graph_back(name, graph):
    codec = get_codec(name)
    text = codec.encode(graph)
    for parsed in (
        codec.parse(text, W, H, tags=False),
        codec.parse(answer.wrap(text), W, H),
        codec.parse(text, W, H, None),
    ):
        assert parsed.labels == [canonical(o.label) for o in graph.objects]
        assert parsed.boxes == [o.box for o in graph.objects]
        assert parsed.relations == [(r.subject, canonical(r.predicate), r.object) for r in graph.relations]
    decoded = codec.decode(text, W, H, tags=False)
    assert decoded == codec.decode(codec.encode(decoded), W, H, tags=False)
    assert codec.recover_parsed(answer.wrap(text), W, H) == (parsed, [])
    assert codec.recover(text, W, H) == (decoded, [])
    assert detect_codec(text) == detect_codec(answer.wrap(text)) == name


@pytest.mark.parametrize("name", ["toon", "toon-lean", "toon-pairs"])
@given(data=st.data())
def test_what_the_strict_reader_takes_the_lenient_one_reads_alike(name, data):
    codec = get_codec(name)
    text = codec.encode(data.draw(good_graphs(wide=name == "toon-pairs")))
    for old, new in [(",", " ,\t"), ("\n", "\r\n"), ("  ", ""), ("obj[", "OBJ["), ("person", "PERSON")]:
        text = text.replace(old, new) if data.draw(st.booleans()) else text
    before = data.draw(st.sampled_from(["", "<think>obj[</think>", "\n<think><answer>\n</think>\n"]))
    text = before + answer.wrap(text) + data.draw(st.sampled_from(["", "<|im_end|>", "\n '<|endoftext|>' "]))
    try:
        parsed = codec.parse(text, W, H)
    except FormatError:  # headers may hold no blanks
        return
    assert codec.recover_parsed(text, W, H) == (parsed, [])


def test_no_reader_takes_a_label_of_any_length():
    text = "obj[2]{id,name,x1,y1,x2,y2}:\n1,cat,0,0,9,9\n2,LABEL,0,0,9,9\nrel[1]{subj,pred,obj}:\n1,PREDICATE,2"
    codec = get_codec("toon")
    for place, left in (("LABEL", (1, 1)), ("PREDICATE", (2, 0))):
        assert codec.parse(text.replace(place, MAX_LABEL * "a"), W, H, False) is not None
        long = text.replace(place, (MAX_LABEL + 1) * "a")
        with pytest.raises(FormatError, match="a label of more than 200 characters"):
            codec.parse(long, W, H, False)
        graph, _ = codec.recover_parsed(long, W, H)
        assert (len(graph.labels), len(graph.relations)) == left


@given(graph=good_graphs(wide=True))
def test_pairs_come_back_with_their_groups(graph):
    codec = get_codec("toon-pairs")
    text = codec.encode(graph)
    parsed = codec.parse(answer.wrap(text), W, H)
    assert parsed.labels == [canonical(o.label, wide=True) for o in graph.objects]
    wanted = {(r.subject, f"{r.group}__{canonical(r.predicate, wide=True)}", r.object) for r in graph.relations}
    assert set(parsed.relations) == wanted and len(parsed.relations) == len(graph.relations)
    decoded = codec.decode(text, W, H, tags=False)
    assert {(r.subject, r.predicate, r.object, r.group) for r in decoded.relations} == {
        (r.subject, canonical(r.predicate, wide=True), r.object, r.group) for r in graph.relations
    }
    assert codec.recover(text, W, H) == (decoded, [])
    assert detect_codec(text) == "toon-pairs"


@pytest.mark.parametrize("name", CODECS)
@given(graph=any_graphs())
def test_lenient_reading_gets_everything_that_was_written(name, graph):
    codec = get_codec(name)
    parsed, issues = codec.recover_parsed(answer.wrap(codec.encode(graph)), W, H)
    if all(abs(v) < 1e9 for o in graph.objects for v in o.box):
        assert len(parsed.labels) == len(graph.objects)
        assert len(parsed.relations) == len(graph.relations)
        assert not [issue for issue in issues if "swapped" not in issue]


@pytest.mark.parametrize("name", CODECS)
@given(st.data())
def test_a_valid_box_stays_valid_in_whole_pixels(name, data):
    def span(size):
        a = data.draw(st.floats(0, size, exclude_max=True, allow_subnormal=False))
        return a, data.draw(st.floats(a, size, exclude_min=True).filter(math.isfinite))

    (x1, x2), (y1, y2) = span(W), span(H)
    codec = get_codec(name)
    text = codec.encode(SceneGraph([Object("person", (x1, y1, x2, y2))], [], W, H))
    (box,) = codec.parse(text, W, H, tags=False).boxes
    assert all(abs(a - b) <= 1 for a, b in zip(box, (x1, y1, x2, y2), strict=True))


@pytest.mark.parametrize("name", CODECS)
def test_an_empty_graph_is_written_and_recovered(name):
    empty = SceneGraph((), (), W, H)
    codec = get_codec(name)
    text = codec.encode(empty)
    assert codec.recover(answer.wrap(text), W, H) == (empty, [])
    assert detect_codec(text) == name
    if name != "json":
        assert not any(toon_format.loads(text).values())
