"""Lenient readers: what they make of a broken text, and that no text breaks them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrl.graph import SceneGraph
from sgrl.text import CODECS, FormatError, answer, get_codec
from sgrl.text.parsed import MAX_RECOVERED

W, H = 640, 480
OBJECTS = "obj[2]{id,name,x1,y1,x2,y2}:\n  1,dog,1,2,30,40\n  2,cat,50,60,70,80\n"
RELATIONS = "rel[1]{subj,pred,obj}:\n  1,near,2\n"
PAIRS = "rel_pairs[1]{subj,attention,spatial,contacting,obj}:\n  1,a,b,c,2\n"


def recover(text, name="toon"):
    graph, issues = get_codec(name).recover(text, W, H)
    return [o.label for o in graph.objects], [(r.subject, r.predicate, r.object) for r in graph.relations], issues


BOTH = (["dog", "cat"], [(0, "near", 1)])


@pytest.mark.parametrize(
    "text",
    [
        OBJECTS + RELATIONS,
        f"```toon\n{OBJECTS}{RELATIONS}```",
        f"Sure! Here it is:\n\n{OBJECTS}\n\n{RELATIONS}\nHope this helps.",
        f"<think>obj[1] ...</think><answer>{OBJECTS}{RELATIONS}",
        (OBJECTS + RELATIONS).replace("obj[2]", "OBJ[7]").replace("rel[1]", "rel [3]"),
        (OBJECTS + RELATIONS).replace("}:", "}"),
        (OBJECTS + RELATIONS).replace("dog", '"Dog"').replace("1,2,30,40", "1.5,2.,30,40,0.93"),
        (OBJECTS + RELATIONS).replace("1,2,30,40", "30,40,1,2"),
        (OBJECTS + RELATIONS).replace("\n", "\r\n"),
        RELATIONS + OBJECTS,  # misplaced header
        (OBJECTS + RELATIONS).encode() + b"\xff\xfe",
    ],
)
def test_broken_layouts_are_understood(text):
    labels, relations, _ = recover(text)
    assert (labels, relations) == BOTH


def test_objects_survive_a_missing_relation_header():
    labels, relations, issues = recover(OBJECTS + "  1,near,2\n")
    assert labels == ["dog", "cat"] and relations == []
    assert "rel header is missing" in issues and "1 lines ignored" in issues


def test_relations_to_nowhere_are_reported():
    codec = get_codec("toon")
    text = OBJECTS + "rel[3]{subj,pred,obj}:\n  1,near,2\n  1,on,9\n  1,on,1\n"
    parsed, issues = codec.recover_parsed(text, W, H)
    assert parsed.relations == [(0, "near", 1), (0, "on", -1), (0, "on", 0)]
    assert "1 relations name an unknown object" in issues
    assert len(codec.recover(text, W, H)[0].relations) == 2


def test_labels_with_blanks_and_repeated_ids():
    labels, relations, issues = recover(
        "obj[2]{id,name,x1,y1,x2,y2}:\n1,traffic light,1,2,3,4\n1,dining_table,1,2,3,4\n"
        "rel[1]{subj,pred,obj}:\n1,in front of,1"
    )
    assert labels == ["traffic light", "dining_table"] and relations == [(0, "in front of", 0)]
    assert "object 1: id used twice" in issues


def test_pairs_in_either_form():
    for row in ("1,a,b,c,2", '1,[a],["B"],[c],2', "1, [a,], [ b ], [c], 2"):
        labels, relations, _ = recover(OBJECTS + PAIRS.replace("1,a,b,c,2", row), "toon-pairs")
        assert relations == [(0, "a", 1), (0, "b", 1), (0, "c", 1)], row


def test_json_drops_only_what_is_broken():
    text = """Sure: <answer>```json
    {"objects": [{"id": "Dog.1", "bbox": [1, 2, 3, 4]}, {"id": "cat.2", "bbox": [1, 2, NaN, 4]}, 7,
                 {"id": "traffic_light.3", "bbox": [1, 2, 3, 4.5]}],
     "relationships": [{"subject": "dog.1", "predicate": "ON", "object": "Traffic-Light.3"},
                       {"subject": "dog.1", "predicate": 3, "object": "dog.1"},
                       {"subject": "cat.2", "predicate": "on", "object": "dog.1"}]}```</answer>"""
    parsed, issues = get_codec("json").recover_parsed(text, W, H)
    assert parsed.labels == ["dog", "traffic_light"]
    assert parsed.relations == [(0, "on", 1), (-1, "on", 0)]
    assert issues == [
        "object 1: the bbox is not finite",
        "object 2: expected an id, a string",
        "relation 1: expected subject, predicate and object, three strings",
        "relation 2: names an unknown object",
    ]
    assert get_codec("json").diagnose(text) == {
        "no_relation": 0.0,
        "num_objects": 2.0,
        "num_relations": 1.0,
        "invalid_relation_fraction": pytest.approx(2 / 3),
        "has_answer_tags": 1.0,
    }


def test_diagnostics_of_lean_texts():
    text = "obj[2]{name,x1,y1,x2,y2}:\n dog,1,2,3,4\n cat,1,2,3,4\nrel[2]{pred,subj,obj}:\n on,1,2\n on,1,3"
    assert get_codec("toon-lean").diagnose(answer.wrap(text)) == {
        "no_relation": 0.0,
        "num_objects": 2.0,
        "num_relations": 1.0,
        "invalid_relation_fraction": 0.5,
        "has_answer_tags": 1.0,
    }


def exercise(text):
    for name in CODECS:
        codec = get_codec(name)
        parsed, issues = codec.recover_parsed(text, W, H)
        assert len(parsed.labels) == len(parsed.boxes) <= MAX_RECOVERED and len(parsed.relations) <= MAX_RECOVERED
        assert all(isinstance(issue, str) for issue in issues)
        graph, _ = codec.recover(text, W, H)
        assert isinstance(graph, SceneGraph)
        diagnostics = codec.diagnose(text)
        assert len(diagnostics) == 5 and 0 <= diagnostics["invalid_relation_fraction"] <= 1
        for tags in (True, False, None):
            try:
                codec.parse(text, W, H, tags)
            except FormatError as error:
                assert len(str(error)) < 400


FRAGMENTS = [OBJECTS, RELATIONS, PAIRS, *"<>[]{}\"',|:.-0123456789abz \t\r\n\0\ud800\u2028é٣"]
FRAGMENTS += ["<answer>", "</answer>", "<think>", "</think>", "obj[", "rel[", "rel_pairs[", "1,a,", "[a],", "```json"]
FRAGMENTS += ['{"objects": [', '{"id": "a.1", "bbox": [1, 2, 3, 4]}', '], "relationships": [', "]}", "NaN", "1e999"]
FRAGMENTS += ["<|im_end|>", "'<|im_end|>' ", "1,person,1,2,3,4\n", "1,on,2\n", "1,[a],[b],[c],2\n", '1,"a,\n']


@given(st.text() | st.binary() | st.lists(st.sampled_from(FRAGMENTS)).map("".join) | st.none())
def test_no_text_raises(text):
    exercise(text)


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=ascii)
def test_a_megabyte_takes_less_than_a_second(fragment):
    """In CPU time, each way of reading; measured: at most 0.3 s. Quadratic behaviour would take minutes."""
    body = fragment * (1_000_000 // len(fragment))
    for name in CODECS:
        codec = get_codec(name)
        table = PAIRS if codec.grouped else RELATIONS
        for text in (body, f"<answer>\n{OBJECTS}{body}\n</answer>", OBJECTS + table + body):
            for read in (codec.recover, lambda t, w, h, codec=codec: codec.diagnose(t), codec.parse):
                start = time.process_time()
                try:
                    read(text, W, H)
                except FormatError:
                    pass
                assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "text",
    [
        "<answer>\nobj[" + "9" * 1_000_000 + "]{id,name,x1,y1,x2,y2}:\n</answer>",
        "<answer>\n" + OBJECTS.replace("1,dog", "1" * 1_000_000 + ",dog") + RELATIONS + "</answer>",
        OBJECTS.replace("dog", "d-" * 500_000) + RELATIONS,
        OBJECTS.replace("1,2,30", "1,2," + "9" * 1_000_000),
        '{"objects": ' + "[" * 1_000_000,
        '{"objects": [{"id": "a.1", "bbox": [' + "9" * 1_000_000 + ', 1, 2, 3]}], "relationships": []}',
    ],
    ids=["count", "id", "label", "coordinate", "nesting", "integer"],
)
def test_huge_values(text):
    exercise(text)
