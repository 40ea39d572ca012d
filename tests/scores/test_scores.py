"""Scored predictions as files: what is written is read, what is wrong is named, and memory stays flat."""

import json
import math

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.scores import (
    ScoredGraph,
    ScoreError,
    ScoreFolder,
    ScoreWriter,
    by_group,
    from_graph,
    from_predictions,
    from_text,
    holds_scores,
    read_scores,
)
from sgrl.text import get_codec
from sgrl.tubes import BoxTube, MaskTube, tubes_of_maps
from sgrl.vocabulary import Vocabulary, get_vocabulary

WORDS = Vocabulary("small", ("cat", "mat", "traffic light"), ("on", "near"))
AG = get_vocabulary("action_genome")


UNICORN = "obj[1]{id,name,x1,y1,x2,y2}:\n 1,ünicorn,9,9,1,1\nrel[1]{subj,pred,obj}:\n 1,rides,7"


def scored(number=0, **changes):
    """A cat on a mat, with all fields of a detector."""
    values = {
        **{"image_id": f"i{number}", "dataset": "toy", "width": 640, "height": 480, "labels": ["cat", "mat"]},
        **{"boxes": [(number, 0, 100 + number, 100), (0, 80, 200.25, 120)], "scores": [0.5, 0.25]},
        **{"label_scores": [[0.5, 0.25, 0.125], [0, 0.25, 0]], "pairs": [(0, 1), (1, 0)]},
        **{"predicate_scores": [[0.5, 0.25], [0.75, 0]]},
    }
    return ScoredGraph(**values | changes)


def listed(**changes):
    """The same with one predicate for each pair."""
    relations = {"predicates": ["on", "near"], "relation_scores": [0.25, None], "spans": [[(0, 2)], ()]}
    return scored(**{"predicate_scores": None, **relations, **changes})


def video(tubes=None, **changes):
    tubes = tubes or [BoxTube([(0, 0, 9, 9), None, (1, 0, 10, 9)]), BoxTube([(0, 5, 20, 15)] * 3)]
    whole = {"image_id": None, "video_id": "v", "boxes": None, "tubes": tubes, "width": 24, "height": 16}
    return listed(**whole | changes)


def fields(graph):
    """Everything in it, so that two compare."""
    found = {}
    for name in ScoredGraph.__dataclass_fields__:
        value = getattr(graph, name)
        if isinstance(value, np.ndarray):
            value = value.dtype, value.shape, [None if x != x else x for x in value.ravel().tolist()]
        elif name == "tubes" and value:
            value = [tube.to_rle() if isinstance(tube, MaskTube) else tube.boxes.tolist() for tube in value]
        found[name] = value
    return found


def write(folder, graphs, vocabulary=WORDS, **options):
    with ScoreWriter(folder, vocabulary, **{"dataset": "toy", **options}) as writer:
        for graph in graphs:
            writer.add(graph)
    return folder


def masks(seed=0, size=(16, 24)):
    maps = np.random.default_rng(seed).integers(0, 3, (3, *size))
    maps[1][maps[1] == 1] = 0  # not in the middle frame
    return list(tubes_of_maps(maps).values())


@pytest.mark.parametrize(
    "graph",
    [
        scored(),
        scored(labels=(), boxes=(), scores=(), label_scores=None, pairs=(), predicate_scores=None),
        scored(pairs=(), predicate_scores=np.zeros((0, 2)), video_id="v", frame=7),
        listed(),
        listed(relation_scores=None, spans=None),
        video(),
        video(masks(), frames=[3, 5, 8], fps=29.97),
        from_text(UNICORN, "toon", 64, 64, image_id="t"),
        from_text(None, "toon", 64, 64, image_id="n"),
    ],
    ids=["detector", "nothing", "frame", "listed", "unranked", "boxes", "masks", "text", "none"],
)
def test_what_is_written_is_read(tmp_path, graph):
    write(tmp_path, [graph, graph])
    found = list(read_scores(tmp_path))
    assert [fields(one) for one in found] == [fields(graph)] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]


def test_a_folder_says_what_it_is(tmp_path):
    write(tmp_path, [scored()], AG_WORDS, dataset="data/ag", fingerprint="f", about={"model": "m"})
    folder = ScoreFolder(tmp_path)
    assert (folder.vocabulary, folder.dataset, folder.fingerprint) == (AG_WORDS, "data/ag", "f")
    assert folder.about == {"model": "m"} and folder.versions["pyarrow"] == pyarrow.__version__
    assert holds_scores(tmp_path) and holds_scores(tmp_path / "scores.parquet") and not holds_scores(tmp_path / "no")


AG_WORDS = Vocabulary("grouped", ("cat", "mat", "hat"), ("on", "near"), {"spatial": ("on",), "attention": ("near",)})


def test_rows_are_had_by_their_place(tmp_path):
    write(tmp_path, [scored(n) for n in range(2500)])
    folder = ScoreFolder(tmp_path)
    places = {graph.image_id: place for place, graph in folder.places()}
    assert len({place[:2] for place in places.values()}) == 3  # row groups
    for number in (2400, 3, 999, 1000):
        assert fields(folder.get(places[f"i{number}"])) == fields(scored(number))


def test_jobs_write_a_file_each(tmp_path):
    for index in (1, 0):
        with pytest.raises(SgrlError, match="does not exist" if index else "holds 1 files, but their names say 00002"):
            ScoreFolder(tmp_path / "run")
        write(tmp_path / "run", [scored(index)], job=(index, 2))
    assert [graph.image_id for graph in read_scores(tmp_path / "run")] == ["i0", "i1"]
    write(tmp_path / "run", [scored()])
    with pytest.raises(SgrlError, match="different runs, scores-00000-of-00002.parquet and scores.parquet"):
        ScoreFolder(tmp_path / "run")


@pytest.mark.parametrize("changes, name", [({"dataset": "other"}, "dataset"), ({"fingerprint": "x"}, "fingerprint")])
def test_scores_of_two_data_sets_are_not_mixed(tmp_path, changes, name):
    write(tmp_path, [scored()], job=(0, 2))
    write(tmp_path, [scored(1)], job=(1, 2), **changes)
    with pytest.raises(SgrlError, match=f"mixes scores of {name}"):
        list(read_scores(tmp_path))


def test_nothing_appears_before_the_end(tmp_path):
    write(tmp_path, [scored(1)])
    before = (tmp_path / "scores.parquet").read_bytes()
    with pytest.raises(KeyboardInterrupt), ScoreWriter(tmp_path, WORDS, dataset="toy") as writer:
        writer.add(scored(2))
        with pytest.raises(SgrlError, match="is being written by process"):
            write(tmp_path, [])
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"scores.parquet": before}
    (tmp_path / ".scores.parquet.1-abc.part").write_bytes(b"of a process that was killed")
    write(tmp_path, [scored(3)])
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]


def test_a_writer_that_was_killed_is_followed_by_another(tmp_path):
    options = {"dataset": "toy", "about": {"model": "m"}, "resume": True}
    with pytest.raises(KeyboardInterrupt), ScoreWriter(tmp_path, WORDS, **options) as writer:
        for number in range(250):
            writer.add(scored(number))
        raise KeyboardInterrupt
    assert not (tmp_path / "scores.parquet").exists()
    with pytest.raises(SgrlError, match="holds parts of another run, whose about is {'model': 'm'}; remove"):
        write(tmp_path, [], **options | {"about": {"model": "n"}})
    with ScoreWriter(tmp_path, WORDS, **options) as writer:
        assert writer.done == {("toy", f"i{number}") for number in range(200)} and writer.rows == 200
        for number in range(200, 320):
            writer.add(scored(number))
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]
    assert [graph.image_id for graph in read_scores(tmp_path)] == [f"i{number}" for number in range(320)]
    assert ScoreFolder(tmp_path).about == {"model": "m"}


def test_what_is_not_resumed_is_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt), ScoreWriter(tmp_path, WORDS, dataset="toy", resume=True) as writer:
        for number in range(100):
            writer.add(scored(number))
        raise KeyboardInterrupt
    write(tmp_path, [scored()])
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]
    assert len(list(read_scores(tmp_path))) == 1


NAN = math.nan


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scores": [0.5, NAN]}, "image 'i0', scores: found nan at 1; expected numbers from 0 to 1"),
        ({"scores": [0.5, 1.5]}, "scores: found 1.5 at 1"),
        ({"scores": [0.5]}, r"scores: found shape \(1\); expected shape \(2\)"),
        ({"boxes": [(0, 0, 9, 9), (0, math.inf, 9, 9)]}, "boxes: found inf at 1, 1; expected finite numbers"),
        ({"boxes": [(0, 0, 9, 9), (50, 0, 9, 9)]}, r"boxes: found \[50.0, 0.0, 9.0, 9.0\] at 1; expected x1, y1, x2"),
        ({"boxes": [(0, 0, 9), (50, 0, 9)]}, r"boxes: found shape \(2, 3\); expected shape \(2, 4\)"),
        ({"boxes": [(0, 0, 9, 9), (0, 0)]}, "boxes: found .*; expected numbers of shape"),
        ({"boxes": None}, r"boxes: found shape \(0\); expected shape \(2, 4\)"),
        ({"label_scores": [[0.5, NAN, 0], [0, 0, 0]]}, "label_scores: found nan at 0, 1"),
        ({"pairs": [(0, 1), (2, 0)]}, r"pairs: found \[2, 0\] at 1; expected positions of two of the 2 objects"),
        ({"pairs": [(0, 1), (-1, 0)]}, r"pairs: found \[-1, 0\] at 1"),
        ({"pairs": [(0.0, 1.5), (0, 1)]}, "pairs: found float64 of shape"),
        ({"pairs": [(0, 1)]}, r"predicate_scores: found shape \(2, 2\); expected shape \(1, any\)"),
        ({"predicate_scores": [[3.5, -2], [0, 0]]}, "predicate_scores: found 3.5 at 0, 0; .* softmax or sigmoid"),
        ({"predicate_scores": [[0.5, NAN], [0, 0]]}, "predicate_scores: found nan at 0, 1"),
        ({"predicate_scores": None}, "predicate_scores: found none; expected scores, or predicates, of 2 pairs"),
        ({"predicates": ["on", "on"]}, "predicates: found predicates beside predicate_scores; expected one of both"),
        ({"labels": ["cat", 3]}, "labels: found 3 at 1; expected a string"),
        ({"width": 0}, "width: found 0; expected a whole number of pixels"),
        ({"height": 480.0}, "height: found 480.0"),
        ({"image_id": None}, "image_id: found none; expected that of an image"),
        ({"image_id": 3}, "image_id: found 3; expected a string"),
        ({"frame": "x"}, "frame: found 'x'"),
        ({"spans": [[(2, 1)], ()]}, "spans: found 2 to 1 at 0; expected first and last frame"),
        ({"spans": [[(0, 1)]]}, "spans: found those of 1; expected 2"),
        ({"spans": [[(0, NAN)], ()]}, "spans: found 0 to nan"),
        ({"fps": 0}, "fps: found 0; expected a positive number"),
        ({"tubes": [BoxTube([]), BoxTube([])]}, "tubes: found tubes beside an image_id"),
    ],
)
def test_what_cannot_be_is_named(change, message):
    with pytest.raises(ScoreError, match=message):
        scored(**change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tubes": [BoxTube([None])]}, "video 'v', tubes: found 1 tubes; expected 2"),
        ({"tubes": [BoxTube([None]), BoxTube([None] * 2)]}, "tubes: found lengths 1, 2"),
        ({"tubes": [BoxTube([None]), masks()[0]]}, "tubes: found BoxTube, MaskTube"),
        ({"tubes": masks(size=(8, 8))}, "tubes: found masks of 8 x 8 at 0; expected 24 x 16"),
        ({"frames": [1, 1, 2]}, "frames: found a number that stands twice"),
        ({"frames": [1, 2]}, "tubes: found lengths 2, 3"),
        ({"boxes": np.zeros((2, 4))}, "boxes: found boxes beside tubes"),
        ({"relation_scores": [2, 0]}, "relation_scores: found 2 at 0"),
        ({"predicates": ["on"]}, "predicates: found 1 predicates; expected 2"),
    ],
)
def test_what_a_video_cannot_be_is_named(change, message):
    with pytest.raises(ScoreError, match=message):
        video(**change)


@pytest.mark.parametrize(
    "graph, message",
    [
        (scored(labels=["cat", "dog"]), "labels: found 'dog' at 1; expected one of 'small'"),
        (scored(label_scores=[[1], [1]]), "label_scores: found 1 columns; expected 3"),
        (scored(predicate_scores=[[1, 0, 0]] * 2), "predicate_scores: found 3 columns; expected 2"),
        (listed(predicates=["on", "neer"]), "predicates: found 'neer' at 1; .*did you mean 'near'"),
    ],
)
def test_a_vocabulary_is_kept_by_writer_and_reader(tmp_path, graph, message):
    with pytest.raises(ScoreError, match=message), ScoreWriter(tmp_path, WORDS, dataset="toy") as writer:
        writer.add(graph)
    assert not list(tmp_path.glob("*"))
    other = Vocabulary("wide", ("cat", "dog", "mat"), ("on", "near", "neer"))
    if graph.label_scores.shape[1] == 3 and graph.predicate_scores is None:  # as another program would write it
        write(tmp_path, [scored(5, predicate_scores=None, pairs=(), label_scores=None), graph], other)
        renamed(tmp_path, other, WORDS)
        told = []
        assert [one.image_id for one in read_scores(tmp_path, told.append)] == ["i5"]
        assert len(told) == 1 and told[0].startswith("scores.parquet, row 1: image 'i0', predicates: found 'neer'")


def renamed(folder, vocabulary, other):
    """The file with another vocabulary in its metadata."""
    path = folder / "scores.parquet"
    table = pyarrow.parquet.read_table(path)
    about = json.loads(table.schema.metadata[b"sgrl_scores"]) | {"vocabulary": other.to_json()}
    pyarrow.parquet.write_table(table.replace_schema_metadata({b"sgrl_scores": json.dumps(about)}), path)


def test_labels_may_be_spelt_as_in_texts(tmp_path):
    write(tmp_path, [scored(labels=["traffic-light", "traffic light"])])
    graph = listed(labels=["person", "cup/glass/bottle"], predicates=["holding", "contacting__holding"])
    graph = listed(labels=graph.labels, predicates=graph.predicates, label_scores=None)
    write(tmp_path / "ag", [graph], AG)
    with pytest.raises(ScoreError, match="found 'spatial__holding' at 0"):
        write(
            tmp_path / "ag", [listed(labels=graph.labels, predicates=["spatial__holding"] * 2, label_scores=None)], AG
        )


def foreign(folder, **columns):
    """A row of another program, in the right schema."""
    write(folder, [scored(1), scored(2), scored(3)])
    path = folder / "scores.parquet"
    table = pyarrow.parquet.read_table(path)
    rows = table.to_pylist()
    rows[1] |= columns
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), path)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"scores": [0.5, NAN]}, "image 'i2', scores: found nan at 1"),
        ({"pairs": [0, 1, 5, 0]}, r"image 'i2', pairs: found \[5, 0\] at 1; expected positions of two"),
        ({"pairs": [0, 1, 1]}, "image 'i2', pairs: found 3 numbers; expected any x 2"),
        ({"boxes": [0.0] * 7}, "image 'i2', boxes: found 7 numbers; expected 2 x 4"),
        ({"predicate_scores": [0.5] * 3}, "image 'i2', predicate_scores: found 3 numbers; expected 2 x any"),
        ({"predicate_scores": [0.5] * 6}, "image 'i2', predicate_scores: found 3 columns; expected 2"),
        ({"width": None}, "image 'i2', width: found None"),
        ({"image_id": None, "video_id": "v", "boxes": None, "masks": [["zz"], ["zz"]]}, "frame 0: "),
        ({"spans": [[0.0], []]}, "image 'i2', spans: found 1 numbers"),
    ],
)
def test_a_damaged_row_is_left_out_or_refused(tmp_path, columns, message):
    foreign(tmp_path, **columns)
    told = []
    assert [graph.image_id for graph in read_scores(tmp_path, told.append)] == ["i1", "i3"]
    assert len(told) == 1 and told[0].startswith("scores.parquet, row 1: ")
    with pytest.raises(ScoreError, match=message):
        list(read_scores(tmp_path))


def test_damaged_files_are_refused(tmp_path):
    path = write(tmp_path, [scored(n) for n in range(1500)]) / "scores.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SgrlError, match="scores.parquet is not a readable Parquet file: .*; write or copy it again"):
        list(read_scores(tmp_path))
    column = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(whole)).metadata.row_group(0).column(12)
    place = column.data_page_offset + column.total_compressed_size // 2
    path.write_bytes(whole[:place] + b"?" + whole[place + 1 :])
    told = []
    assert [graph.image_id for graph in read_scores(tmp_path, told.append)] == [f"i{n}" for n in range(1000, 1500)]
    assert len(told) == 1 and told[0].startswith("scores.parquet, rows 0 to 999: ")
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)
    with pytest.raises(SgrlError, match="says nothing of its vocabulary"):
        list(read_scores(tmp_path))
    path.unlink()
    with pytest.raises(SgrlError, match="holds no scores.parquet"):
        list(read_scores(tmp_path))
    with pytest.raises(SgrlError, match="does not exist"):
        list(read_scores(tmp_path / "no"))


def test_columns_that_a_program_leaves_out_are_empty(tmp_path):
    path = write(tmp_path, [scored()]) / "scores.parquet"
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.drop(["label_scores", "masks", "spans", "written", "fps", "scores"]), path)
    assert fields(next(read_scores(tmp_path))) == fields(scored(label_scores=None, scores=None))
    pyarrow.parquet.write_table(table.drop(["pairs"]), path)
    with pytest.raises(SgrlError, match="has no column pairs"):
        next(read_scores(tmp_path))


def test_best_ranks_by_the_product():
    assert [(s, p, o, score) for s, p, o, score, _ in scored().best(3, WORDS)] == [
        (1, "on", 0, 0.09375),
        (0, "on", 1, 0.0625),
        (0, "near", 1, 0.03125),
    ]
    assert [relation.predicate for relation in listed().best()] == ["on", "near"]
    assert [relation.predicate for relation in listed(relation_scores=[None, 0.1]).best()] == ["near", "on"]
    with pytest.raises(SgrlError, match="give vocabulary="):
        scored().best(3)


def test_a_graph_has_its_best_relations():
    graph = scored().graph(2, WORDS)
    assert graph.objects[0] == Object("cat", (0, 0, 100, 100), 0.5) and (graph.width, graph.height) == (640, 480)
    assert graph.relations == (Relation(1, "on", 0, score=0.09375), Relation(0, "on", 1, score=0.0625))
    assert fields(from_graph(graph, image_id="i"))["predicates"] == ("on", "on")


def test_a_video_has_its_tubes():
    graph = video(masks()).video()
    assert [tube.label for tube in graph.objects] == ["cat", "mat"] and graph.frames == 3
    assert [(r.predicate, r.spans, r.score) for r in graph.relations] == [("on", ((0, 2),), 0.25), ("near", (), None)]
    with pytest.raises(ScoreError, match="found boxes of an image"):
        scored().video()


def test_scores_of_groups_become_columns():
    vocabulary = Vocabulary("mixed", ("cat",), ("on", "sees", "near"), {"a": ("sees",), "b": ("near", "on")})
    table = by_group(vocabulary, {"b": [[0.1, 0.2]], "a": [[0.9]]})
    assert table.tolist() == [[0.2, 0.9, 0.1]]
    with pytest.raises(ScoreError, match="predicate scores of a; 'mixed' has a, b"):
        by_group(vocabulary, {"a": [[0.9]]})
    with pytest.raises(ScoreError, match="shapes"):
        by_group(vocabulary, {"a": [[0.9, 1]], "b": [[0.1, 0.2]]})


def test_texts_become_scored_ones(tmp_path):
    graph = SceneGraph([Object("cat", (0, 0, 9, 9)), Object("mat", (0, 5, 9, 9))], [Relation(0, "on", 1)], 64, 64)
    text = get_codec("toon").encode(graph)
    found = from_text(text, "toon", 64, 64, confidences=[0.5], image_id="a")
    assert (found.labels, found.pairs.tolist(), found.predicates) == (("cat", "mat"), [[0, 1]], ("on",))
    assert found.relation_scores.tolist() == [0.5] and found.written
    assert from_text(text, "toon", 64, 64, confidences=[0.5, 1], image_id="a").relation_scores is None
    with pytest.raises(TypeError, match="must be a text, SceneGraph, ParsedGraph or None, found int"):
        from_text(3, "toon", 64, 64, image_id="a")

    row = {"image_id": "a", "dataset": "toy", "prediction": text, "width": 64, "height": 64, "confidence": [0.5]}
    lines = [json.dumps(row), "{", json.dumps(row | {"image_id": "b", "prediction": None})]
    (tmp_path / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(SgrlError, match="does not say the layout"):
        list(from_predictions(tmp_path))
    (tmp_path / "run.json").write_text('{"codec": "toon"}')
    told = []
    first, second = from_predictions(tmp_path, damaged=told.append)
    assert fields(first) == fields(from_text(text, "toon", 64, 64, confidences=[0.5], image_id="a", dataset="toy"))
    assert second.labels == () and second.image_id == "b"
    assert len(told) == 1 and "line 2" in told[0]
    with pytest.raises(SgrlError, match="line 2"):
        list(from_predictions(tmp_path))


@settings(max_examples=100)
@given(st.text(), st.lists(st.floats() | st.none(), max_size=3))
def test_no_text_stops_it(text, confidences):
    head = "obj[1]{id,name,x1,y1,x2,y2}:\n 1,"
    for prediction in (text, f"{head}{text},0,0,1e999,9\nrel[1]{{subj,pred,obj}}:\n 1,{text},{text}"):
        graph = from_text(prediction, "toon", 64, 64, confidences=confidences, image_id="a")
        assert np.isfinite(graph.boxes).all()


def test_halves_of_characters_are_written(tmp_path):
    graph = from_text("obj[1]{id,name,x1,y1,x2,y2}:\n 1,cat\ud800,0,0,9,9", "toon", 64, 64, image_id="a")
    write(tmp_path, [graph])
    assert len(next(read_scores(tmp_path)).labels) == len(graph.labels)


def write_many(folder, count):
    table = np.full((2000, 2), 0.5)
    pairs = np.tile([0, 1], (2000, 1))
    write(folder, (scored(n, pairs=pairs, predicate_scores=table) for n in range(count)))


def read_many(folder):
    assert sum(1 for _ in read_scores(folder)) % 200 == 0


def test_memory_does_not_grow_with_the_number(tmp_path, traced_peak):
    few, many = (traced_peak(write_many, tmp_path / str(n), n) for n in (200, 800))
    assert many < 1.2 * few
    few, many = (traced_peak(read_many, tmp_path / str(n)) for n in (200, 800))
    assert many < 1.2 * few
