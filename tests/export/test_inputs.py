"""Folders of predictions, of scores and data sets become graphs; what is damaged is named, and the rest is done."""

import json
from collections import Counter
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest

from sgrl import data
from sgrl.errors import SgrlError
from sgrl.export import export
from sgrl.export.command import main
from sgrl.export.inputs import open_input
from sgrl.export.items import Frame, Video
from sgrl.export.reading import Reading
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.scores import ScoredGraph, ScoreWriter
from sgrl.task import Task
from sgrl.text import answer, get_codec
from sgrl.tubes import BoxTube
from sgrl.vocabulary import Vocabulary

WORDS = Vocabulary("small", ("cat", "mat", "traffic light"), ("on", "near to"))
TEXT = """obj[2]{id,name,x1,y1,x2,y2}:
  1,cat,0,0,40,60
  2,traffic-light,0,50,100,90
rel[2]{subj,pred,obj}:
  1,near-to,2
  2,on,1"""
GRAPH = SceneGraph(
    [Object("cat", (0, 0, 40, 60)), Object("traffic light", (0, 50, 100, 90))],
    [Relation(0, "near to", 1), Relation(1, "on", 0)],
    100,
    90,
)


def predictions(folder, rows, codec="toon", **run):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"codec": codec, "model": "m"} | run))
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "predictions.jsonl").write_text("".join(line + "\n" for line in lines))
    return folder


def line(number=0, **changes):
    row = {"dataset": "d", "image_id": str(number), "prediction": f"<answer>\n{TEXT}\n</answer>", "width": 100}
    return row | {"height": 90, "confidence": [0.5, 0.25], "solution": None} | changes


def dataset(folder, rows=3, split="test", **columns):
    """Rows as data_prep writes them; their images are never opened."""
    folder.mkdir(parents=True, exist_ok=True)
    message = {"role": "user", "content": "?"}
    values = {"image": {"bytes": b"nothing", "path": None}, "prompt": [message], "completion": [message]}
    values |= {"solution": TEXT, "width": 100, "height": 90, "dataset": "d", "length": 1}
    table = [values | {"image_id": str(i)} | {name: given(i) for name, given in columns.items()} for i in range(rows)]
    metadata = {"codec": "toon", "coords": "pixels", "vocabulary": WORDS.to_json()}
    columns = data.schema(metadata, video="video_id" in columns)
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(table, schema=columns), folder / f"{split}-00000-of-00001.parquet"
    )
    return folder


def read(path, **reading):
    reading = Reading(**reading)
    source, items = open_input(path, reading)
    return list(items), source, reading


def scored(graph, scores=(0.5, 0.25)):
    relations = [replace(r, score=s) for r, s in zip(graph.relations, scores, strict=True)]
    return SceneGraph(graph.objects, relations, graph.width, graph.height)


def test_predictions_have_confidences_and_official_names_where_the_vocabulary_is_known(tmp_path):
    place = dataset(tmp_path / "data")
    (item,), source, _ = read(predictions(tmp_path / "run", [line(7)], dataset=str(place)))
    assert item == Frame(scored(GRAPH), "d", "7") and source.vocabulary == WORDS
    Task(WORDS).write(tmp_path / "model")
    (item,), source, _ = read(predictions(tmp_path / "own", [line(7)], model=str(tmp_path / "model"), input=["a.jpg"]))
    assert item.graph.objects[1].label == "traffic light" and source.vocabulary == WORDS
    (item,), source, _ = read(predictions(tmp_path / "alone", [line(7)], dataset="gone"))
    assert item.graph.objects[1].label == "traffic-light" and source.vocabulary is None


def test_damaged_predictions_are_named_and_the_rest_is_read(tmp_path):
    broken = ["{", "[" * 99_999, "[]", line(1, width=0), line(2, height=None), line(3, prediction=["x"]), "\x00"]
    good = [
        line(4, prediction="I see nothing"),
        line(5, confidence=[0.5]),
        line(6, prediction=None),
        line(8, prediction=TEXT.replace("2,on,1", "2,on,9"), confidence=["x", None]),
    ]
    items, _, reading = read(predictions(tmp_path / "run", [*broken, *good]))
    assert [item.image_id for item in items] == ["4", "5", "6", "8"]
    assert [len(item.graph.relations) for item in items] == [0, 2, 0, 1]
    assert items[1].graph.relations[0].score is None
    assert reading.damaged_count == len(broken) and "predictions.jsonl, line 1: " in reading.damaged[0]
    assert all(place.isprintable() and len(place) < 500 for place in reading.damaged)
    assert +reading.lost == {"answers without a graph": 2, "relations that name no object or no predicate": 1}


def test_frames_of_videos_come_together_in_their_order_with_tracks(tmp_path):
    rows = [line(0)]
    for frame in (4, 0, 2):
        rows += [line(f"{v}/{frame}", video_id=v, frame=frame) for v in ("a", "b")]
    items, _, _ = read(predictions(tmp_path / "run", [*rows, line(9)]), fps=2.0)
    assert [type(item) for item in items] == [Frame, Video, Video, Frame]
    assert [[f.frame for f in item.frames] for item in items[1:3]] == [[0, 2, 4]] * 2
    assert {f.tracks for f in items[1].frames} == {(1, 2)} and items[1].fps == 2.0
    assert [f.seconds for f in items[1].frames] == [0, 1, 2] and items[0].fps is None and items[0].seconds is None


def test_frames_that_stand_apart_are_counted(tmp_path):
    place = dataset(tmp_path, 3, video_id=lambda i: "ab"[i % 2], frame=lambda i: i)
    items, _, reading = read(place)
    assert [item.video_id for item in items] == ["a", "b", "a"]
    assert list((+reading.lost).values()) == [1]


def test_grouped_predicates_become_groups(tmp_path):
    names = (("attention", "looking_at"), ("spatial", "in_front_of"), ("contacting", "holding"))
    objects = [Object("person", (0, 0, 40, 60)), Object("cup", (0, 50, 100, 90))]
    graph = SceneGraph(objects, [Relation(0, name, 1, group) for group, name in names], 100, 90)
    text = answer.wrap(get_codec("toon-pairs").encode(graph))
    (item,), _, _ = read(predictions(tmp_path / "run", [line(prediction=text, confidence=None)], "toon-pairs"))
    assert item.graph == graph


def test_the_references_of_a_data_set_are_graphs(tmp_path):
    place = dataset(tmp_path / "data", 2)
    dataset(place, 1, "train")
    items, source, _ = read(place)
    assert [(item.split, item.image_id) for item in items] == [("train", "0"), ("test", "0"), ("test", "1")]
    assert items[0].graph == GRAPH and source.vocabulary == WORDS
    assert len(read(place, split="test")[0]) == 2 and len(read(place / "train-00000-of-00001.parquet")[0]) == 1
    with pytest.raises(SgrlError, match="has no split 'val'"):
        read(place, split="val")


def test_scores_give_the_surest_relations_and_whole_videos(tmp_path):
    image = ScoredGraph(
        **{"image_id": "i", "dataset": "d", "width": 100, "height": 90, "labels": ["cat", "mat"]},
        **{"boxes": [(0, 0, 40, 60), (0, 50, 100, 90)], "scores": [0.5, 1.0], "pairs": [(0, 1), (1, 0)]},
        predicate_scores=[[0.5, 0.25], [0.75, 0]],
    )
    tubes = [BoxTube([(0, 0, 9, 9), None]), BoxTube([(0, 5, 20, 15)] * 2)]
    video = ScoredGraph(
        **{"video_id": "v", "dataset": "d", "width": 100, "height": 90, "labels": ["cat", "mat"], "tubes": tubes},
        **{"pairs": [(0, 1)], "predicates": ["on"], "spans": [[(0, 0)]], "frames": [10, 20], "fps": 10},
    )
    with ScoreWriter(tmp_path / "s", WORDS, dataset="d") as writer:
        writer.add(image)
        writer.add(video)
    items, _, _ = read(tmp_path / "s", relations=1)
    assert [(r.subject, r.predicate, r.score) for r in items[0].graph.relations] == [(1, "on", 0.375)]
    assert items[0].graph.objects[0].score == 0.5 and len(read(tmp_path / "s")[0][0].graph.relations) == 4
    things, events = items[1].story()
    assert [(t.label, t.first, t.last) for t in things] == [("cat", 10, 10), ("mat", 10, 20)]
    assert [(e.who, e.predicate, e.whom, e.first, e.last, e.start, e.stop) for e in events] == [
        (1, "on", 2, 10, 10, 1, 2)
    ]


@pytest.mark.parametrize("to", ["json", "jsonl"])
def test_what_is_exported_as_json_lines_is_an_input_again(tmp_path, to):
    rows = [line(0), *(line(f"v/{f}", video_id="v", frame=f) for f in (0, 5))]
    run = predictions(tmp_path / "run", rows)
    export(run, to, tmp_path / f"a.{to}", Reading(fps=5.0))
    text = (tmp_path / f"a.{to}").read_text()
    found = json.loads(text) if to == "json" else [json.loads(row) for row in text.splitlines()]
    assert [row["image_id"] for row in found] == ["0", "v/0", "v/5"] and found[2]["seconds"] == 1.0
    assert [o["track"] for o in found[2]["objects"]] == [1, 2]
    assert SceneGraph.from_dict(found[0]) == read(run)[0][0].graph
    if to == "jsonl":
        assert read(tmp_path / "a.jsonl")[0] == [*read(run)[0][:1], *read(run, fps=5.0)[0][1:]]
        export(tmp_path / "a.jsonl", to, tmp_path / "b.jsonl")
        assert (tmp_path / "b.jsonl").read_text() == text


def test_a_whole_video_comes_back_from_json_lines(tmp_path):
    tubes = [BoxTube([(0, 0, 9, 9), None]), BoxTube([(0, 5, 20, 15)] * 2)]
    video = ScoredGraph(
        **{"video_id": "v", "dataset": "d", "width": 100, "height": 90, "labels": ["cat", "mat"], "tubes": tubes},
        **{"pairs": [(0, 1)], "predicates": ["on"], "spans": [[(0, 0)]], "frames": [10, 20], "scores": [0.5, 1]},
    )
    with ScoreWriter(tmp_path / "s", WORDS, dataset="d") as writer:
        writer.add(video)
    export(tmp_path / "s", "jsonl", tmp_path / "a.jsonl")
    (first,), (again,) = read(tmp_path / "s")[0], read(tmp_path / "a.jsonl")[0]
    assert again.story() == first.story() and list(again.by_frame()) == list(first.by_frame())
    rows = [(tmp_path / "a.jsonl").read_text(), "{}\n", '{"frames": 1, "objects": [], "numbers": [2, 3]}\n', "\n"]
    (tmp_path / "a.jsonl").write_text("".join(rows))
    items, _, reading = read(tmp_path / "a.jsonl")
    assert len(items) == 1 and reading.damaged_count == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "gone", "is no input: expected a folder of predictions"),
        (lambda p: p / "gone.jsonl", "does not exist"),
        (lambda p: p, "holds no train"),
        (lambda p: predictions(p / "r", []), "holds no graphs$"),
        (lambda p: predictions(p / "r", ["{"]), r"holds no graphs; 1 records cannot be used: .*line 1"),
        (lambda p: predictions(p / "r", [line()], codec=None), "does not say the layout of the texts"),
        (lambda p: predictions(p / "r", [line()], codec="tooon"), "did you mean 'toon'"),
    ],
)
def test_an_input_without_graphs_is_named_and_nothing_is_written(tmp_path, make, message):
    place = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SgrlError, match=message):
        export(place, "coco", tmp_path / "out" / "x.json")
    assert sorted(p for p in tmp_path.rglob("*") if p.name != "out") == before


def test_the_command_says_what_was_written_lost_and_left_out(tmp_path, capsys):
    run = predictions(tmp_path / "run", [line(0), line(1, prediction="nothing"), "{"])
    assert main([str(run), "--to", "fiftyone", "--output", str(tmp_path / "l.json")]) == 1
    out, err = capsys.readouterr()
    assert out == f"Wrote 2 images with 2 relations to {tmp_path / 'l.json'}\n"
    assert "warning: 1 answers without a graph\n" in err and "1 records were left out: " in err
    assert "warning: 2 scores of relations\n" in err
    assert main([str(predictions(tmp_path / "good", [line(0)])), "--to", "csv", "--output", str(tmp_path / "e")]) == 0
    for words, message in (("--relations 0", "--relations is 0"), ("--fps nan", "--fps is nan")):
        with pytest.raises(SgrlError, match=message):
            main([str(run), "--to", "csv", "--output", "x", *words.split()])


def test_a_format_of_ones_own_is_named_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "own_format.py").write_text(
        "def write(items, path, source, lost):\n    path.write_text(','.join(i.image_id for i in items))\n"
        "    lost['colours'] += 3\n"
    )
    monkeypatch.chdir(tmp_path)
    done = export(predictions(tmp_path / "run", [line(0), line(1)]), "own_format:write", tmp_path / "x")
    assert (tmp_path / "x").read_text() == "0,1" and done.images == 2 and done.lost == Counter(colours=3)


def grown(folder, names):
    """Export a data set in formats."""
    for name in names:
        export(folder, name, folder.parent / f"{folder.name}.{name}")


def test_memory_does_not_grow_with_the_number_of_graphs(tmp_path, traced_peak):
    peaks = []
    for rows in (300, 1500):
        place = predictions(tmp_path / str(rows), [line(i) for i in range(rows)])
        peaks.append(traced_peak(grown, place, ["coco", "jsonl"]))
    assert peaks[1] < peaks[0] + 150_000
