"""Scored predictions in the report and as drawings."""

import json

import numpy as np
import pyarrow.parquet
import pytest

from rewards.__main__ import main as score
from sgrl import data
from sgrl.__main__ import main
from sgrl.report.scored import RELATIONS, keep_rows, open_run
from sgrl.report.verdicts import RIGHT, hits, verdicts
from sgrl.scores import ScoredGraph, ScoreWriter
from sgrl.text import ParsedGraph, get_codec

CODEC = get_codec("toon")


@pytest.fixture(scope="module")
def scores(toy, tmp_path_factory):
    """What a detector that sees everything says of toy scenes: all pairs, right ones surest, and a damaged image."""
    folder = tmp_path_factory.mktemp("scores")
    vocabulary = data.vocabulary_of(data.read_metadata(toy / "data"))
    with ScoreWriter(folder, vocabulary, dataset=str(toy / "data"), about={"model": "m", "command": "c"}) as writer:
        for row in pyarrow.parquet.read_table(data.files(toy / "data", "test")[0]).to_pylist():
            graph = CODEC.recover(row["solution"], row["width"], row["height"])[0]
            n = len(graph.objects)
            pairs = [(s, o) for s in range(n) for o in range(n) if s != o]
            table = np.full((len(pairs), len(vocabulary.predicates)), 0.125)
            for r in graph.relations:
                column = [vocabulary.to_text(name) for name in vocabulary.predicates].index(r.predicate)
                table[pairs.index((r.subject, r.object)), column] = 0.875
            given = {"labels": [o.label for o in graph.objects], "boxes": graph.boxes * 2, "pairs": pairs}
            given |= {"width": 2 * row["width"], "height": 2 * row["height"], "predicate_scores": table}
            writer.add(ScoredGraph(image_id=row["image_id"], **given))
    return folder


def test_the_surest_relations_are_shown(scores):
    run = open_run("detector", scores)
    assert len(run.keys) > 10 and run.keys[0][0] and not run.scored
    keep_rows(run, run.keys[:5], CODEC)
    assert list(run.rows) == run.keys[:5]
    for row in run.rows.values():
        truth = CODEC.parse(row["solution"], row["width"], row["height"], tags=None)
        graph = row["graph"]
        assert len(graph.relations) <= RELATIONS and row["confidence"] == sorted(row["confidence"], reverse=True)
        right = [verdict.match for verdict in verdicts(graph, truth, row["matched"])[1] if verdict.state == RIGHT]
        assert sorted(right) == list(range(len(truth.relations)))
        assert row["prediction"].count("\n") == max(0, len(graph.relations) - 1)


def test_the_report_has_rankings_and_graphs(scores, toy, tmp_path, capsys):
    words = [scores, "--reference", toy / "data", "--metrics", "recall", "--output", scores / "metrics.json"]
    assert score(["score", *map(str, words)]) == 0
    assert main(["report", f"detector={scores}", "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert '<section id="rankings">' in page and "mean recall" in page
    chunk = json.loads(page.partition('id="chunk-0">')[2].partition("</script>")[0])
    assert chunk[0]["runs"][0]["objects"] and chunk[0]["reference"]["objects"]
    figures = json.loads((scores / "metrics.json").read_text())["rankings"]["recall"]
    assert f"{figures['recall@20']:.3f}<small>[" in page


def test_scores_are_drawn(scores, tmp_path):
    assert main(["draw", str(scores), "--output", str(tmp_path), "--limit", "2"]) == 0
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_what_cannot_be_shown_is_said(scores, tmp_path, toy, capsys):
    with ScoreWriter(tmp_path, data.vocabulary_of(data.read_metadata(toy / "data")), dataset="nowhere") as writer:
        writer.add(ScoredGraph(image_id="x", width=9, height=9))
    assert main(["draw", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "was made from nowhere, which is neither here nor above" in capsys.readouterr().err
    assert main(["draw", str(tmp_path), "--output", str(tmp_path / "out"), "--dataset", str(toy / "data")]) == 1
    assert "predicts no image of" in capsys.readouterr().err


def test_an_object_is_right_once():
    near, far = (0, 0, 10, 10), (50, 50, 60, 60)
    truth = ParsedGraph(["cat", "mat"], [near, far], [(0, "on", 1)])
    graph = ParsedGraph(["cat", "cat", "mat"], [(0, 0, 10, 9), near, far], [(0, "on", 2), (1, "on", 2), (1, "on", 2)])
    assert hits(graph, truth) == {"objects": [(1, 0), (2, 1)], "relations": [(1, 0)]}
    assert (
        hits(ParsedGraph([], [], []), truth)
        == hits(graph, ParsedGraph([], [], []))
        == {"objects": [], "relations": []}
    )
