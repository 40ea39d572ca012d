"""Every format is read back by the library that it is for, and what labels hold stays what they are."""

import csv
import json
import re
from collections import Counter

import networkx
import pytest
import rdflib
from hypothesis import given, settings
from hypothesis import strategies as st
from networkx.readwrite.graphml import read_graphml
from pycocotools.coco import COCO
from supervision import Detections

from data_prep.readers.coco import CocoReader
from sgrl import plain
from sgrl.errors import SgrlError
from sgrl.export import FORMATS, format_of
from sgrl.export.coco import to_coco
from sgrl.export.cypher import STATEMENT, literal, statements
from sgrl.export.fiftyone import detections_of
from sgrl.export.items import Frame, Source, Video
from sgrl.export.networkx import from_networkx, to_networkx
from sgrl.export.rdf import to_rdf
from sgrl.export.supervision import to_supervision
from sgrl.graph import GraphError, Object, Relation, SceneGraph
from sgrl.inference.prediction import Prediction
from sgrl.tubes import BoxTube, MaskTube, TimedRelation, TubeObject, VideoGraph
from sgrl.vocabulary import Vocabulary

HOSTILE = [
    "'}) DETACH DELETE n //",
    "\\' OR 1=1 //",
    "\\u0027}) MATCH (n) DETACH DELETE n //",
    "a`b\"c'd",
    "line\nbreak\r\n\ttab",
    "]]></data><script>&amp;",
    "\x00\x01\x1b[2J\x7f\x85",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    '"""',
    "<urn:x> . <urn:y>",
    "=cmd|' /C calc'!A0",
    "@id",
    " ",
    "\U0001f600 \u2028 \u2029",
    "half \ud83d of a character",
]

BOX = st.tuples(*[st.floats(-1e6, 1e6)] * 2, *[st.floats(1e6, 2e6)] * 2)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(HOSTILE[:-1])


@st.composite
def graphs(draw):
    score = st.none() | st.floats(0, 1)
    objects = draw(st.lists(st.builds(Object, TEXT, BOX, score), max_size=3))
    ends = st.integers(0, len(objects) - 1) if objects else st.nothing()
    span = st.none() | st.tuples(st.floats(0, 9), st.floats(9, 99))
    relations = draw(st.lists(st.builds(Relation, ends, TEXT, ends, st.none() | TEXT, span, score), max_size=4))
    return SceneGraph(objects, relations, draw(st.integers(1, 9999)), draw(st.integers(1, 9999)))


def graph(label="person", predicate="riding"):
    objects = [Object(label, (10, 20, 110, 220), 0.75), Object("horse", (40, 100, 300, 400.5))]
    return SceneGraph(objects, [Relation(0, predicate, 1, score=0.5), Relation(1, "under", 0, "spatial")], 640, 480)


def written(name, items, path, vocabulary=None):
    """The file of a format, and what it could not hold."""
    lost = Counter()
    format_of(name)(iter(items), path, Source("test", vocabulary), lost)
    return path, +lost


def clip(fps=None):
    """Four frames of a video, each third frame looked at: a cat sits on a mat, but not in the third."""
    frames = []
    for position in range(4):
        objects = [Object("mat", (0, 50, 100, 90)), Object("cat", (position, 0, 40, 60))]
        relations = [Relation(1, "on", 0, score=0.25 * (position + 1))] if position != 2 else []
        found = SceneGraph(objects, relations, 100, 90)
        frames.append(Frame(found, "d", f"v/{position}", "v", 3 * position, fps, None, (7, 9)))
    return Video("v", "d", tuple(frames), fps=fps)


def tubes():
    objects = [
        TubeObject("cat", BoxTube([(0, 0, 4, 4), None, (1, 1, 5, 5)])),
        TubeObject("mat", BoxTube([(0, 3, 9, 9)] * 3)),
    ]
    relations = [TimedRelation(0, "on", 1, ((0, 0), (2, 2)), 0.5), TimedRelation(1, "spatial__below", 0)]
    return Video("w", "d", graph=VideoGraph(objects, relations), numbers=(10, 20, 30), width=9, height=9, fps=10.0)


@settings(max_examples=50)
@given(graphs())
def test_networkx_holds_all_of_a_graph(found):
    assert from_networkx(to_networkx(found)) == found


def test_networkx_reads_its_lines(tmp_path):
    path, lost = written("networkx", [Frame(graph(HOSTILE[-1]), "d", "1"), Frame(graph(), "d", "2")], tmp_path / "g")
    found = [networkx.node_link_graph(json.loads(line)) for line in path.read_text().splitlines()]
    assert [from_networkx(one) for one in found] == [graph(HOSTILE[-1]), graph()] and not lost
    assert found[1].graph["image_id"] == "2" and found[1].is_multigraph() and found[1].is_directed()
    with pytest.raises(GraphError, match="no graph of an image: 'label' is missing"):
        from_networkx(networkx.MultiDiGraph([(1, 2)]))


@pytest.mark.parametrize("label", HOSTILE)
def test_networkx_reads_graphml(tmp_path, label):
    folder, lost = written("graphml", [Frame(graph(label, label), "d", "../a/1.jpg")], tmp_path / "g")
    (path,) = folder.iterdir()
    assert path.name == "000001-a_1.graphml"
    found = from_networkx(read_graphml(path, node_type=int, force_multigraph=True))
    clean = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", label)
    assert found == graph(clean, clean)
    assert lost == ({"texts with characters that XML cannot hold": 2} if clean != label else {})


def test_a_folder_is_new_and_whole_or_not_there(tmp_path):
    def broken():
        yield Frame(graph())
        raise OSError("torn")

    with pytest.raises(OSError, match="torn"):
        written("graphml", broken(), tmp_path / "g")
    assert not list(tmp_path.iterdir())
    written("graphml", [Frame(graph())], tmp_path / "g")
    with pytest.raises(SgrlError, match="g exists already"):
        written("graphml", [Frame(graph())], tmp_path / "g")


@settings(max_examples=25)
@given(graphs())
def test_rdf_holds_all_of_a_graph(found):
    assert of_rdf(to_rdf(found)) == found


def of_rdf(triples):
    """The graph of the statements."""
    sg = rdflib.Namespace("urn:sgrl:")
    (place,) = triples.subjects(rdflib.RDF.type, sg.SceneGraph)

    def number(node):
        return int(str(node).rpartition("#")[2][1:])

    def value(node, *names):
        found = [triples.value(node, sg[name]) for name in names]
        found = [None if one is None else one.toPython() for one in found]
        return found if len(found) > 1 else found[0]

    things = sorted(triples.subjects(rdflib.RDF.type, sg.Object), key=number)
    objects = []
    for thing in things:
        label = str(triples.value(thing, rdflib.RDFS.label))
        objects.append(Object(label, value(thing, "x1", "y1", "x2", "y2"), value(thing, "score")))
    relations = []
    for r in sorted(triples.subjects(rdflib.RDF.type, sg.Relation), key=number):
        ends = [triples.value(r, sg[end]) for end in ("subject", "object")]
        span = None if value(r, "first") is None else (value(r, "first"), value(r, "last"))
        assert any(str(p).startswith("urn:sgrl:predicate:") for p in triples.predicates(*ends))
        predicate, group, score = value(r, "predicate", "group", "score")
        relations.append(Relation(number(ends[0]) - 1, predicate, number(ends[1]) - 1, group, span, score))
    return SceneGraph(objects, relations, value(place, "width"), value(place, "height"))


@pytest.mark.parametrize("label", HOSTILE)
def test_turtle_and_json_ld_say_the_same(tmp_path, label):
    items = [Frame(graph(label, label), label, f"{label}/1.jpg"), Frame(graph("cat"), "d", "2")]
    turtle, lost = written("turtle", items, tmp_path / "g.ttl")
    json_ld, _ = written("jsonld", items, tmp_path / "g.jsonld")
    one, other = rdflib.Graph().parse(turtle, format="turtle"), rdflib.Graph().parse(json_ld, format="json-ld")
    assert set(one) == set(other)
    clean = label.replace("\ud83d", "\ufffd")
    assert rdflib.Literal(clean) in set(one.objects()) and bool(lost) == (clean != label)
    question = "SELECT ?a WHERE { ?p <urn:sgrl:predicate:riding> ?h . ?p rdfs:label ?a }"
    assert [str(row.a) for row in one.query(question)] == ["cat"]


def test_pycocotools_and_our_reader_read_coco(tmp_path):
    words = Vocabulary("own", ("horse", "person", "dog"), ("riding", "under"))
    path, lost = written(
        "coco", [Frame(graph(), "d", "a.jpg"), Frame(graph("person"), "d", "b")], tmp_path / "c", words
    )
    coco = COCO(str(path))
    assert [coco.cats[i]["name"] for i in sorted(coco.cats)] == ["horse", "person", "dog"] and not lost
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[2]))
    assert [(a["id"], a["category_id"], a["bbox"], a.get("score")) for a in annotations] == [
        (3, 2, [10, 20, 100, 200], 0.75),
        (4, 1, [40, 100, 260, 300.5], None),
    ]
    folder = tmp_path / "train"
    folder.mkdir()
    path.rename(folder / "_annotations.coco.json")
    records = list(CocoReader(tmp_path).records())
    unscored = SceneGraph(
        [Object(o.label, o.box) for o in graph().objects],
        [Relation(r.subject, r.predicate, r.object) for r in graph().relations],
        640,
        480,
    )
    assert [record.graph for record in records] == [unscored, unscored]


@pytest.mark.parametrize("label", HOSTILE)
def test_coco_keeps_any_label(tmp_path, label):
    found = to_coco([Frame(graph(label, label))])
    assert json.loads(plain.text(found)) == found
    path, _ = written("coco", [Frame(graph(label, label))], tmp_path / "c")
    assert {c["name"] for c in COCO(str(path)).cats.values()} == {label, "horse"}


def test_coco_orders_corners_and_says_so(tmp_path):
    turned = SceneGraph([Object("a", (9, 8, 1, 2))], [], 10, 10)
    path, lost = written("coco", [Frame(turned)], tmp_path / "c")
    assert json.loads(path.read_text())["annotations"][0]["bbox"] == [1, 2, 8, 6]
    assert lost == {"boxes whose corners were put in order": 1}


def test_videos_in_coco_have_tracks_and_seconds(tmp_path):
    path, lost = written("coco", [clip(fps=30.0), tubes()], tmp_path / "c")
    assert lost == {"relations in frames that lack one of their objects": 1}  # the cat is away, the mat still below it
    found = json.loads(path.read_text())
    assert found["videos"] == [{"id": 1, "name": "v"}, {"id": 2, "name": "w"}]
    images = [(i["video_id"], i["frame_id"], i["seconds"]) for i in found["images"]]
    assert images == [(1, 0, 0), (1, 3, 0.1), (1, 6, 0.2), (1, 9, 0.3), (2, 10, 1), (2, 20, 2), (2, 30, 3)]
    tracks = [a["track_id"] for a in found["annotations"]]
    assert tracks == [1, 2] * 4 + [1, 2, 2, 1, 2]
    assert found["rel_annotations"][-1]["group"] == "spatial"


NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?")
STRING = re.compile(r"'((?:[^'\\\n\r]|\\.)*)'")
SHORT = {"n": "\n", "r": "\r", "t": "\t", "'": "'", "\\": "\\"}


def unquoted(text, position):
    """The value of the literal that begins there, and where it ends: the grammar of openCypher."""
    parts = []
    while match := STRING.match(text, position):
        body = re.sub(r"\\(?:u([0-9A-F]{4})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else SHORT[m[2]], match[1])
        parts.append(body)
        position = match.end()
        if text[position : position + 3] != " + ":
            return "".join(parts), position
        position += 3
    match = NUMBER.match(text, position)
    return (float(match[0]) if match[1] or match[2] else int(match[0])), match.end()


def values_of(statement):
    """The literals of a statement, and the statement without them."""
    found, rest, position = [], [], 0
    while position < len(statement):
        if statement[position] == "'" or (statement[position].isdigit() and statement[position - 1] == " "):
            value, position = unquoted(statement, position)
            found.append(value)
            rest.append("?")
        else:
            rest.append(statement[position])
            position += 1
    return found, "".join(rest)


@pytest.mark.parametrize("label", HOSTILE)
def test_an_injected_label_stays_a_text_in_cypher(tmp_path, label):
    clean = label.replace("\ud83d", "\ufffd")
    path, lost = written("cypher", [Frame(graph(label, label), label, label)], tmp_path / "g.cypher")
    statement = path.read_text(encoding="utf-8")
    values, rest = values_of(statement)
    harmless, _ = written("cypher", [Frame(graph(), "d", "i")], tmp_path / "h.cypher")
    assert rest == values_of(harmless.read_text())[1]  # but for the values, the statement is the same
    assert values.count(clean) == 4 and bool(lost) == (clean != label)
    # as Neo4j sees it, which replaces \uXXXX before all else
    before = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda m: "?" if int(m[1], 16) < 32 else chr(int(m[1], 16)), statement)
    assert values_of(before.replace("\x7f", "?"))[1] == rest
    ((text, parameters),) = statements([graph(label, label)])
    assert text == STATEMENT and parameters["objects"][0]["label"] == clean
    assert parameters["relations"][0]["properties"] == {"id": 1, "predicate": clean, "score": 0.5}


@given(TEXT | st.integers(0, 2**62) | st.floats(allow_nan=False, allow_infinity=False, min_value=0))
def test_cypher_literals_mean_what_they_were(value):
    text = literal(value)
    assert unquoted(text, 0) == (value, len(text))


def test_supervision_has_the_objects():
    found = to_supervision(Frame(graph(), tracks=(4, None)), classes=["horse", "dog"])
    assert isinstance(found, Detections) and len(found) == 2
    assert found.xyxy.tolist() == [[10, 20, 110, 220], [40, 100, 300, 400.5]]
    assert found.class_id.tolist() == [2, 0] and found["class_name"].tolist() == ["person", "horse"]
    assert found.confidence.tolist() == [0.75, 1.0] and found.tracker_id.tolist() == [4, -1]
    assert found.metadata["relations"][0] == (0, "riding", 1, 0.5)
    assert found[found["class_name"] == "horse"].xyxy.tolist() == [[40, 100, 300, 400.5]]
    assert to_supervision(SceneGraph((), (), 1, 1)).is_empty()
    assert to_supervision(Prediction(graph(), tracks=(4, 5))).tracker_id.tolist() == [4, 5]
    assert to_networkx(Prediction(graph(), tracks=(4, 5))).nodes[2]["track"] == 5
    with pytest.raises(SgrlError, match="supervision has no file format; from Python: sgrl.export.supervision"):
        format_of("supervision")


def test_fiftyone_has_shares_of_the_image_and_relations_as_attributes(tmp_path):
    path, lost = written(
        "fiftyone", [Frame(graph(), "d", "a/b.jpg"), Frame(graph(HOSTILE[-1]), "d", "2")], tmp_path / "l"
    )
    found = json.loads(path.read_text())["labels"]
    assert list(found) == ["a/b", "2"] and found["2"][0]["label"] == HOSTILE[-1]
    first, second = found["a/b"]
    assert first["bounding_box"] == [10 / 640, 20 / 480, 100 / 640, 200 / 480] and first["confidence"] == 0.75
    assert first["attributes"] == {"index": 1, "predicates": ["riding"], "objects": [2]}
    assert "confidence" not in second and second["attributes"]["objects"] == [1]
    assert lost == {"scores of relations": 2, "groups of relations": 2}
    assert detections_of(next(clip().by_frame()))[1]["attributes"]["track"] == 9


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("label", HOSTILE)
def test_the_event_table_keeps_any_label(tmp_path, label):
    path, lost = written("csv", [Frame(graph(label, label), "d", "1")], tmp_path / "e.csv")
    clean = label.replace("\ud83d", "\ufffd")
    rows = table(path)
    assert [(r["subject"], r["predicate"], r["object"], r["score"]) for r in rows] == [
        (clean, clean, "horse", "0.5"),
        ("horse", "under", clean, ""),
    ]
    assert bool(lost) == (clean != label)


def test_the_event_table_of_a_video_says_who_what_whom_from_when_to_when(tmp_path):
    path, lost = written("csv", [clip(fps=30.0), tubes()], tmp_path / "e.csv")
    names = ("video_id", "subject_id", "subject", "predicate", "object_id", "object", "group")
    names += ("first_frame", "last_frame", "from_seconds", "to_seconds", "score")
    rows = [",".join(row[name] for name in names) for row in table(path)]
    assert rows == [
        "v,9,cat,on,7,mat,,0,3,0.0,0.2,0.375",
        "v,9,cat,on,7,mat,,9,9,0.3,0.3333333333333333,1.0",
        "w,1,cat,on,2,mat,,10,10,1.0,2.0,0.5",
        "w,1,cat,on,2,mat,,30,30,3.0,3.1,0.5",
        "w,2,mat,below,1,cat,spatial,10,30,1.0,3.1,",
    ]
    assert not lost
    _, lost = written("csv", [clip()], tmp_path / "f.csv")
    assert lost == {"events without seconds, where the frames per second are unknown (--fps)": 2}


def test_a_video_is_one_graph_of_things_and_times(tmp_path):
    found = to_networkx(tubes())
    assert found.nodes[1] == {"label": "cat", "track": 1, "first_frame": 10, "last_frame": 30}
    assert [data["start"] for *_, data in found.edges(data=True)] == [1.0, 3.0, 1.0]
    _, lost = written("cypher", [clip()], tmp_path / "g")
    assert lost == {"boxes of a video's objects in its frames": 8}
    written("turtle", [clip()], tmp_path / "t")
    assert len(rdflib.Graph().parse(tmp_path / "t", format="turtle")) > 10


def test_masks_become_boxes_and_are_counted(tmp_path):
    tube = MaskTube.from_masks([[[False, True], [False, True]]])
    video = Video("m", graph=VideoGraph([TubeObject("cat", tube)], []), numbers=(0,), width=2, height=2)
    path, lost = written("coco", [video], tmp_path / "c")
    assert json.loads(path.read_text())["annotations"][0]["bbox"] == [1, 0, 1, 2]
    assert lost == {"masks of objects of videos, whose boxes are written": 1}
    path, lost = written("jsonl", [video], tmp_path / "j")
    assert VideoGraph.from_json(path.read_text()).objects[0].tube.to_rle() == tube.to_rle() and not lost


def test_every_format_writes_nothing_where_the_stream_breaks(tmp_path):
    def broken():
        yield Frame(graph())
        raise OSError("torn")

    for name in FORMATS:
        with pytest.raises(OSError, match="torn"):
            written(name, broken(), tmp_path / "g")
        assert not list(tmp_path.iterdir()), name


@pytest.mark.parametrize(
    ("name", "message"), [("coc", "did you mean 'coco'"), ("no:no", "to: 'no:no'"), (":", "is no dotted path")]
)
def test_an_unknown_format_is_named(name, message):
    with pytest.raises(SgrlError, match=message):
        format_of(name)


def test_a_missing_library_names_the_command_that_installs_it(monkeypatch):
    import sys

    for library, function in (("networkx", to_networkx), ("rdflib", to_rdf), ("supervision", to_supervision)):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(SgrlError, match=rf"needs {library}.* pip install 'sgrl\[export\]'"):
            function(graph())
