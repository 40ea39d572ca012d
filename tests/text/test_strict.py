"""What each strict reader accepts and refuses, and what its errors say."""

import pickle

import pytest

from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import CODECS, Codec, FormatError, answer, detect_codec, get_codec
from sgrl.text.toon_pairs import ToonPairs

TOON = """obj[3]{id,name,x1,y1,x2,y2}:
  1,person,10,20,30,40
  2,traffic-light,0,0,640,480
  3,dog,5,5,6,6
rel[2]{subj,pred,obj}:
  1,looking-at,2
  3,on,1"""
PAIRS = """obj[3]{id,name,x1,y1,x2,y2}:
  1,person,10,20,30,40
  2,cup/glass/bottle,0,0,640,480
  3,sofa,5,5,6,6
rel_pairs[2]{subj,attention,spatial,contacting,obj}:
  1,unsure,"",holding|touching,2
  1,"",in_front_of,sitting_on,3"""
LEAN = """obj[2]{name,x1,y1,x2,y2}:
 person,10,20,30,40
 dog,0,0,640,480
rel[1]{pred,subj,obj}:
 looking-at,1,2"""
JSON = (
    '{"objects": [{"id": "person.1", "bbox": [10, 20, 30, 40]}, {"id": "dog.2", "bbox": [0, 0.5, 640, 480]}], '
    '"relationships": [{"subject": "person.1", "predicate": "looking at", "object": "dog.2"}]}'
)


def parse(name, text, tags=False):
    return get_codec(name).parse(text, 640, 480, tags)


def refused(name, text, tags=False):
    with pytest.raises(FormatError) as error:
        parse(name, text, tags)
    return error.value


def test_toon():
    parsed = parse("toon", TOON)
    assert parsed.labels == ["person", "traffic-light", "dog"]
    assert parsed.boxes[1] == (0.0, 0.0, 640.0, 480.0) and isinstance(parsed.boxes[0][0], float)
    assert parsed.relations == [(0, "looking-at", 1), (2, "on", 0)]


def test_toon_pairs_in_both_forms():
    expected = [
        (0, "attention__unsure", 1),
        (0, "contacting__holding", 1),
        (0, "contacting__touching", 1),
        (0, "spatial__in_front_of", 2),
        (0, "contacting__sitting_on", 2),
    ]
    assert parse("toon-pairs", PAIRS).relations == expected
    bracketed = PAIRS.replace('1,unsure,"",holding|touching,2', "1, [unsure], [] ,[holding, ,touching,],2")
    bracketed = bracketed.replace('1,"",in_front_of,sitting_on,3', "1,[],[in_front_of],[sitting_on],3")
    assert parse("toon-pairs", bracketed).relations == expected
    assert [r.group for r in get_codec("toon-pairs").decode(PAIRS, 640, 480, False).relations][:2] == [
        "attention",
        "contacting",
    ]


def test_lean_counts_rows():
    assert parse("toon-lean", LEAN).relations == [(0, "looking-at", 1)]


def test_json():
    parsed = parse("json", JSON)
    assert parsed.labels == ["person", "dog"] and parsed.boxes[1] == (0.0, 0.5, 640.0, 480.0)
    assert parsed.relations == [(0, "looking at", 1)]
    assert parse("json", f"<think>x</think><answer>```json\n{JSON}```</answer>", True) == parsed
    assert parse("json", '{"objects": [], "relationships": [], "caption": "x"}').labels == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  1,person", "\t \t1 ,\tPERSON "),
        ("\n", "\r\n"),
        ("\n  ", "\n"),
        ("obj[3]{id", "  OBJ[3]{ID"),
        ("}:", "}: \t"),
        ("10,20,30,40", "-0,020,30,00040"),
        ("dog", "42"),
        ("dog", '"42"'),
        (",on,1", ',"true",1'),
    ],
)
def test_toon_takes_what_the_published_reward_takes(old, new):
    text = TOON.replace(old, new)
    assert text != TOON
    assert len(parse("toon", text).labels) == 3
    assert len(parse("toon", f"<answer>\n{text}\n</answer>", True).labels) == 3


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("obj[3]", "obj[4]", None, r"obj\[4\] announces 4 rows, but 3 follow"),
        ("rel[2]", "rel[1]", None, r"rel\[1\] announces 1 rows, but 2 follow"),
        ("{id,name", "{id,label", 1, "expected obj"),
        ("1,person", "1,person-", 2, "label 'person-'"),
        ("traffic-light", "traffic--light", 3, "label 'traffic--light'"),
        ("traffic-light", "traffic light", 3, "expected a row"),
        ("traffic-light", '"traffic-light"', 3, "expected a row"),
        ("traffic-light", "", 3, "expected a row"),
        ("3,dog", "2,dog", None, "ids must be 1 to 3"),
        ("3,dog", "9" * 5000 + ",dog", 4, "expected a row"),
        ("3,dog", "٣,dog", 4, "expected a row"),
        ("5,5,6,6", "5,5,5,6", 4, r"box 5,5,5,6: expected 0 <= x1 < x2 <= 640"),
        ("640,480", "640,481", 3, "481"),
        ("640,480", "640.0,480", 3, "expected a row"),
        ("640,480", "nan,480", 3, "expected a row"),
        ("640,480", "1e2,480", 3, "expected a row"),
        ("  3,on,1", "  3,on,4", None, "names object 4, but ids run from 1 to 3"),
        ("  3,on,1", "  3,on,3", None, "runs from object 3 to itself"),
        ("  3,on,1", "  1,LOOKING-AT,2", None, "1,looking-at,2 stands twice"),
        ("  3,on,1", "\n  3,on,1", 7, "blank line"),
        ("  3,on,1", "  3,on,1\n  3,under", 8, "expected a row of rel"),
        ("rel[2]{subj,pred,obj}:\n", "", 5, "expected a row of obj"),
        ("rel[2]", "rel_pairs[2]", 5, "expected a row"),
    ],
)
def test_errors_name_the_line_and_the_reason(old, new, line, reason):
    text = TOON.replace(old, new, 1)
    assert text != TOON
    error = refused("toon", text)
    assert error.line == line
    with pytest.raises(FormatError, match=reason):
        raise error
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("ending", "fine"), [("", True), ("\n", True), ("\r\n", True), ("\n ", False), ("\n\n", False)]
)
def test_one_line_break_may_stand_before_the_closing_tag(ending, fine):
    text = answer.wrap(TOON + ending)
    if fine:
        assert parse("toon", text, True)
    else:
        assert refused("toon", text, True).reason == "blank line inside the graph"


def test_line_numbers_count_the_graph_and_not_the_tags():
    assert refused("toon", answer.wrap(TOON.replace("dog", "a b")), True).line == 4


@pytest.mark.parametrize(("n", "fine"), [(200, True), (201, False)])
def test_at_most_200_objects(n, fine):
    rows = "".join(f"\n  {i},dog,1,1,2,2" for i in range(1, n + 1))
    text = f"obj[{n}]{{id,name,x1,y1,x2,y2}}:{rows}\nrel[0]{{subj,pred,obj}}:"
    if fine:
        assert len(parse("toon", text).labels) == n
    else:
        assert "1 to 200" in refused("toon", text).reason


@pytest.mark.parametrize(("m", "fine"), [(400, True), (401, False)])
def test_at_most_400_relations(m, fine):
    rows = "".join(f"\n  1,p{i},2" for i in range(m))
    text = TOON.partition("\nrel")[0] + f"\nrel[{m}]{{subj,pred,obj}}:{rows}"
    if fine:
        assert len(parse("toon", text).relations) == m
    else:
        assert "0 to 400" in refused("toon", text).reason


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("text", ["", "\n", "obj[0]{id,name,x1,y1,x2,y2}:\nrel[0]{subj,pred,obj}:", None, 3, b"obj"])
def test_nothing_is_no_graph(name, text):
    for tags in (True, False, None):
        assert refused(name, text, tags).reason


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1,unsure", "1,unsure|looking_at", "2 attention labels; at most 1"),
        ("holding|touching", "a|b|c|d|e", "5 contacting labels; at most 4"),
        ("holding|touching", "holding|HOLDING", "stands twice in one cell"),
        ("holding|touching", "holding||touching", "empty label"),
        ("holding|touching", "holding|_touching", "separators"),
        ("holding|touching", "", "expected a row"),
        ("holding|touching", "holding touching", "expected a row"),
        ("holding|touching", "[holding,touching]", "expected a row"),
        ('1,unsure,"",holding|touching,2', "1,[unsure],[],[holding],2", "are mixed"),
        ('1,unsure,"",holding|touching,2', '1,"","","",2', "without any label"),
        ('1,unsure,"",holding|touching,2', '2,unsure,"",holding,1', "must be a person, found 'cup/glass/bottle'"),
        ("1,person", "1,man", "must be a person"),
        ("sitting_on,3", "sitting_on,1", "runs from object 1 to itself"),
        ('1,"",in_front_of,sitting_on,3', '1,unsure,"","",2', "stands twice"),
        ("cup/glass/bottle", "cup/glass/", "separators"),
    ],
)
def test_pairs_are_refused_with_a_reason(old, new, reason):
    text = PAIRS.replace(old, new, 1)
    assert text != PAIRS
    assert reason in str(refused("toon-pairs", text))


def test_the_rules_of_pairs_can_be_changed():
    text = PAIRS.replace("1,unsure", "2,unsure|looking_at").replace(",2\n", ",3\n")
    assert refused("toon-pairs", text)
    assert ToonPairs(limits=(2, 5, 4), person_subject=False).parse(text, 640, 480, False).labels


def test_pairs_split_cells_that_are_too_long():
    relations = [Relation(0, f"label{i}", 1, "spatial") for i in range(12)] + [Relation(0, "unsure", 1, "attention")]
    graph = SceneGraph([Object("person", (0, 0, 9, 9)), Object("cup", (0, 0, 9, 9))], relations, 640, 480)
    text = get_codec("toon-pairs").encode(graph)
    assert "rel_pairs[3]" in text
    assert len(parse("toon-pairs", text).relations) == 13


def test_pairs_need_groups():
    graph = SceneGraph([Object("person", (0, 0, 9, 9))] * 2, [Relation(0, "on", 1)], 640, 480)
    with pytest.raises(FormatError, match="group None; expected one of attention, spatial, contacting"):
        get_codec("toon-pairs").encode(graph)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("{", "", "not JSON"),
        ('"objects"', '"things"', "a list 'objects'"),
        ('"relationships"', '"relations"', "a list 'relationships'"),
        ('"id": "person.1"', '"id": 1', "object 0: expected an id"),
        ("[10, 20, 30, 40]", "[10, 20, 30]", "object 0: expected a bbox of four numbers"),
        ("[10, 20, 30, 40]", '[10, 20, 30, "40"]', "four numbers"),
        ("[10, 20, 30, 40]", "[10, 20, 30, true]", "four numbers"),
        ("[10, 20, 30, 40]", "[NaN, 20, 30, 40]", "not finite"),
        ("[10, 20, 30, 40]", "[10, 20, 1e999, 40]", "not finite"),
        ("[10, 20, 30, 40]", f"[10, 20, {10**400}, 40]", "not finite"),
        ("[10, 20, 30, 40]", f"[10, 20, {'9' * 5000}, 40]", "not JSON"),
        ("[10, 20, 30, 40]", "[30, 20, 10, 40]", "expected 0 <= x1 < x2"),
        ("dog.2", "person.1", "an object id stands twice"),
        ("looking at", "", "predicate ''"),
        ('"looking at"', "7", "relation 0: expected subject, predicate and object"),
        ('"object": "dog.2"', '"object": "cat.2"', "no object has the id 'cat.2'"),
        ('"object": "dog.2"', '"object": "person.1"', "to itself"),
        ("person.1", "\\\\ud800.1", "id '"),
        ("person.1", " .1", "id ' .1'"),
    ],
)
def test_json_is_refused_with_a_reason(old, new, reason):
    text = JSON.replace(old, new.replace("\\\\", "\\"), 1 if old not in ("dog.2", "person.1") else -1)
    assert text != JSON
    assert reason in str(refused("json", text))


def test_codecs_are_found_by_name():
    assert tuple(CODECS) == ("toon", "toon-pairs", "json", "toon-lean")
    for name in CODECS:
        codec = get_codec(name)
        assert codec.name == name and isinstance(codec, Codec) and get_codec(codec) is codec
    for name in ("tooon", None, []):
        with pytest.raises(FormatError, match="unknown codec"):
            get_codec(name)
    with pytest.raises(FormatError, match="did you mean 'toon'"):
        get_codec("tooon")


@pytest.mark.parametrize(
    ("text", "name"), [(TOON, "toon"), (PAIRS, "toon-pairs"), (JSON, "json"), (LEAN, "toon-lean")]
)
def test_a_reference_tells_its_codec(text, name):
    for variant in (text, answer.wrap(text), "\n  " + text.upper() if name != "json" else text):
        assert detect_codec(variant) == name


@pytest.mark.parametrize("text", ["", "a dog", None, "obj[", "obj[1]{foo}:", "rel[0]{subj,pred,obj}:"])
def test_a_text_without_graph_has_no_codec(text):
    with pytest.raises(FormatError, match="no graph"):
        detect_codec(text)


@pytest.mark.parametrize(("name", "text"), [("toon", TOON), ("toon-pairs", PAIRS), ("toon-lean", LEAN)])
def test_labels_of_other_scripts(name, text):
    """Their letters are letters; their digits, blanks and look-alikes are not, and numbers are ASCII."""
    object_label = "dog" if "dog" in text else "sofa"
    predicate = "looking-at" if "looking-at" in text else "touching"
    other = text.replace(object_label, "Кот-учёный").replace(predicate, "खाना")
    parsed = parse(name, other)
    assert "кот-учёный" in parsed.labels and any("खाना" in predicate for _, predicate, _ in parsed.relations)
    assert get_codec(name).recover_parsed(other, 640, 480) == (parsed, [])
    for wrong in ("кот--a", "-кот", "кот\u00a0a", "кот\u200b", "cafe\u0301", "\u212aot", "٣", "ａ", "\ud800"):
        error = refused(name, text.replace(object_label, wrong))
        assert "label" in error.reason and error.line == 1 + next(
            i for i, line in enumerate(text.split("\n")) if object_label in line
        )
    refused(name, text.replace("10,20", "١٠,20"))
