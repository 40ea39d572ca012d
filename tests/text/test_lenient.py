"""Lenient readers: what they make of a broken text, and that no text breaks them."""

import json
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


TABS = (
    "obj[2\t]{id\tname\tx1\ty1\tx2\ty2}:\n  1\tdog\t1\t2\t30\t40\n  2\tcat\t50\t60\t70\t80\n"
    "rel[1\t]{subj\tpred\tobj}:\n  1\tnear\t2\n"
)


@pytest.mark.parametrize(
    "text",
    [
        TABS,
        TABS.replace("\t", "|"),
        TABS.replace("\t]", "]").replace("\t", "|"),
        (OBJECTS + RELATIONS).replace("[2]", "[#2]").replace("[1]", "[#1]"),
        (OBJECTS + RELATIONS).replace("[2]", "[2|]").replace("[1]", "[1|]"),
        *[(OBJECTS + RELATIONS).replace("[2]", f"[{n}]").replace("[1]", f"[{m}]") for n, m in ("NM", "nn", ("", ""))],
        (OBJECTS + RELATIONS).replace("{id,name,x1,y1,x2,y2}", "{...}").replace("[2]", "[N]"),
        (OBJECTS + RELATIONS).replace("{", "{{").replace("}", "}}"),
        (OBJECTS + RELATIONS).replace("obj[", "obj [").replace("rel[", "rel  ["),
        (OBJECTS + RELATIONS).replace("{id,name,x1,y1,x2,y2}", "").replace("{subj,pred,obj}", ""),
        OBJECTS.partition("\n")[2] + RELATIONS,
        "<think>1,a,2</think>\n<answer>" + OBJECTS.partition("\n")[2] + RELATIONS,
        "<think>obj</think>\n<answer>" + (OBJECTS + RELATIONS).replace("obj[", "obj  [") + "</answer>",
        (OBJECTS + RELATIONS).replace("}:\n", "}: "),
        " ".join((OBJECTS + RELATIONS).split()),
        "Here it is: " + OBJECTS + "and " + RELATIONS,
        "- **" + (OBJECTS + "## " + RELATIONS).replace(":\n", ":**\n"),
        "```obj" + (OBJECTS + RELATIONS).removeprefix("obj") + "```",
        (OBJECTS + RELATIONS).replace("1,2,30,40", ".1e1,2e0,+3E+1,40."),
    ],
)
def test_variants_of_toon_are_toon(text):
    labels, relations, _ = recover(text)
    assert (labels, relations) == BOTH
    parsed, _ = get_codec("toon").recover_parsed(text, W, H)
    assert parsed.boxes == [(1, 2, 30, 40), (50, 60, 70, 80)]
    with pytest.raises(FormatError):
        get_codec("toon").parse(answer.wrap(text.strip()), W, H)


@pytest.mark.parametrize("delimiter", ["\t", "|"])
def test_variants_of_the_other_layouts(delimiter):
    lean = (
        f"obj[2{delimiter}]{{name,x1}}:\n dog,1,2,3,4\n cat,5,6,7,8\nrel[1{delimiter}]{{pred,subj,obj}}:\n near,1,2\n"
    )
    assert recover(lean.replace(",", delimiter), "toon-lean")[:2] == BOTH
    pairs = OBJECTS + PAIRS.replace("1,a,b,c,2", '1,a,"",c,2\n  1,,b,"c|d",2')
    expected = [(0, "a", 1), (0, "c", 1), (0, "b", 1), (0, "c", 1), (0, "d", 1)]
    assert recover(pairs.replace(",", delimiter), "toon-pairs")[1] == expected


def test_a_relation_without_a_predicate_is_one():
    """No reference has it: it is said, and wrong. As a graph it would mean nothing."""
    codec = get_codec("toon")
    text = OBJECTS + "rel[2]{subj,pred,obj}:\n  1,,2\n  1,near,2\n"
    assert codec.recover_parsed(text, W, H)[0].relations == [(0, "", 1), (0, "near", 1)]
    assert recover(text)[:2] == BOTH


def test_numbers_beyond_any_image_are_none():
    for number in ("1e10", "-1e99", "nan", "inf", "1e999", "1_0", "0x1"):
        assert recover((OBJECTS + RELATIONS).replace("30,40", f"{number},40"))[0] == ["cat"], number


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


DOG, CAT = '{"id": "dog.1", "bbox": [1, 2, 30, 40]}', '{"id": "cat.2", "bbox": [50, 60, 70, 80]}'
NEAR = '{"subject": "dog.1", "predicate": "near", "object": "cat.2"}'
JSON = f'{{"objects": [{DOG}, {CAT}], "relationships": [{NEAR}]}}'


@pytest.mark.parametrize(
    "text",
    [
        JSON.replace('"', "'"),
        JSON.replace('"', "“").replace("}", ",}").replace("]", ",]"),
        JSON.replace("}, {", "},, {").replace("60,", "60,,"),
        JSON.replace("}, {", "} {").replace("60,", "60 ").replace('1", "', '1" "'),
        JSON.replace("[", "(").replace("]", ")"),
        JSON.replace("[{", "{{").replace("}]", "}}"),
        JSON.replace('"id"', "id").replace('"bbox"', "bbox"),
        JSON.replace("40]}", "40}").replace("80]}, ", "80], "),
        JSON.replace("40]}", "40]"),
        JSON.replace('"objects": [', '"objects" '),
        JSON[:-2],
        JSON[:-3],
        JSON.removesuffix("]}") + ', {"subject": "cat.2", "predicate": "on", "object": "d',
        f'{{"scene_graph": {JSON}}}',
        f"[{DOG}, {CAT}]\n[{NEAR}]",
        f"```json\n{JSON}\n```\nThe dog is near the cat.",
        JSON.replace('1", "bbox"', '1", "attributes": {"colour": "brown"}, "bbox"') + "}",
        f"<answer>{JSON[:-1]}</answer>",
    ],
)
def test_json_is_recovered_entry_by_entry(text):
    parsed, issues = get_codec("json").recover_parsed(text, W, H)
    assert parsed == (["dog", "cat"], [(1, 2, 30, 40), (50, 60, 70, 80)], [(0, "near", 1)]) and issues
    assert get_codec("json").recover_published(text)[0].labels == []  # R1-SGG reads all or nothing
    assert get_codec("json").diagnose(text)["num_objects"] == 0
    with pytest.raises(FormatError):
        get_codec("json").parse(text, W, H, None)


@pytest.mark.parametrize(
    "entry",
    [
        '{"id": "cow.3", "bbox": [1, 2, 3, 4',  # perhaps 48
        '{"id": "cow.3", "bbox": [1, 2, , 4]}',
        '{"id": "cow.3", "bbox": [1, 2, NaN, 4]}',
        '{"id": "cow.3", "bbox": [1, 2, 1e99, 4]}',
        '{"id": "cow.3", "bbox": "1, 2, 3, 4"}',
    ],
)
def test_what_an_entry_does_not_say_is_not_made_up(entry):
    parsed, issues = get_codec("json").recover_parsed(f'{{"objects": [{DOG}, {entry}', W, H)
    assert parsed.labels == ["dog"] and issues[-1].startswith("object 1: ")


LABEL_TEXT = st.text(
    st.characters(exclude_characters='{}"\\', exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8
)


@given(data=st.data())
def test_damage_to_a_json_answer_costs_one_entry(data):
    n = data.draw(st.integers(1, 6))
    objects = [{"id": f"{data.draw(LABEL_TEXT)}.{i}", "bbox": [i, 0, 9 + i, 9]} for i in range(n)]
    relations = [{"subject": objects[0]["id"], "predicate": f"p{i}", "object": objects[-1]["id"]} for i in range(n)]
    text = json.dumps({"objects": objects, "relationships": relations}, ensure_ascii=data.draw(st.booleans()))
    place = data.draw(st.integers(0, len(text) - 1))
    kind = data.draw(st.sampled_from(["cut", "delete", *"{}[]\"',:x"]))
    broken = text[:place] + {"cut": "", "delete": text[place + 1 :]}.get(kind, kind + text[place:])
    found = get_codec("json").recover_parsed(broken, W, H)[0]
    boxes = [tuple(map(float, o["bbox"])) for o in objects]
    predicates = [r["predicate"] for r in relations]
    lost = len([box for box in boxes if box not in found.boxes])
    lost += len(predicates) - len([p for _, p, _ in found.relations if p in predicates])
    if kind == "cut":
        assert found.boxes == boxes[: len(found.boxes)] and len(found.boxes) >= text[:place].count("]}")
        assert [p for _, p, _ in found.relations] == predicates[: len(found.relations)]
    else:
        assert lost <= 1


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
        parsed, namesakes = codec.recover_published(text)
        assert len(parsed.labels) <= MAX_RECOVERED and len(parsed.relations) <= MAX_RECOVERED
        assert all(0 <= first < later < len(parsed.labels) for later, first in namesakes.items())
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
FRAGMENTS += [
    "rel [1]{",
    "{'id': '",
    "“id”: “",
    ": {",
    "id:",
    "bbox: [",
    "1\t",
    "1|",
    "</answer",
    "obj [",
    "}:",
    "nan,",
    "1e9,",
]
FRAGMENTS += ["<|im_end|>", "'<|im_end|>' ", "1,person,1,2,3,4\n", "1,on,2\n", "1,[a],[b],[c],2\n", '1,"a,\n']


@given(st.text() | st.binary() | st.lists(st.sampled_from(FRAGMENTS)).map("".join) | st.none())
def test_no_text_raises(text):
    exercise(text)


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=ascii)
def test_two_hundred_thousand_characters_take_less_than_a_second(fragment):
    """In CPU time, each way of reading; measured: at most 0.2 s. Quadratic behaviour would take many seconds."""
    body = fragment * (200_000 // len(fragment))
    for name in CODECS:
        codec = get_codec(name)
        table = PAIRS if codec.grouped else RELATIONS
        for text in (body, f"<answer>\n{OBJECTS}{body}\n</answer>", OBJECTS + table + body):
            recover, parse = (lambda t, read=read: read(t, W, H) for read in (codec.recover, codec.parse))
            for read in (recover, codec.recover_published, codec.diagnose, parse):
                start = time.process_time()
                try:
                    read(text)
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
