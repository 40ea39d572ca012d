"""python -m rewards score: the figures of any file of predictions, and what it does with bad ones."""

import json
import re
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from rewards.__main__ import main
from rewards.metrics import SceneGraphMetrics
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import answer, get_codec

W, H = 640, 480
PREDICATES = ("on", "on", "on", "near", "looking-at")


def graph(number, predicate=None, second=False):
    """Two objects and a relation; `second` adds one with `near` in front."""
    objects = (Object("cat", (number, 0, 100 + number, 100)), Object("mat", (0, 80, 200, 120)))
    relations = [Relation(1, "near", 0)] * second + [Relation(0, predicate or PREDICATES[number % 5], 1)]
    return SceneGraph(objects, relations, W, H)


def text(number, codec="toon", **changes):
    return answer.wrap(get_codec(codec).encode(graph(number, **changes)))


@pytest.fixture
def references(tmp_path):
    """Ten images to test on, and twenty to train on, in which `looking-at` is the most frequent predicate."""
    encode = get_codec("toon").encode
    row = {"width": W, "height": H, "dataset": "toy"}
    test = [row | {"image_id": f"i{n}", "solution": encode(graph(n))} for n in range(10)]
    train = [row | {"image_id": f"t{n}", "solution": encode(graph(n, "looking-at" if n else "on"))} for n in range(20)]
    for name, rows in (("test", test), ("train", train)):
        (tmp_path / "data").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"data/{name}-0.parquet")
    return tmp_path / "data"


@pytest.fixture
def score(tmp_path, references, capsys):
    """Scores rows or lines; returns (exit status, metrics.json, what was printed)."""

    def run(rows, *arguments, name="predictions.jsonl", reference=references):
        path = tmp_path / name
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        elif name.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        output = tmp_path / "metrics.json"
        output.unlink(missing_ok=True)
        words = ["score", path, "--reference", reference, "--output", output, *arguments]
        status = main(list(map(str, words)))
        printed = capsys.readouterr()
        return status, json.loads(output.read_text()) if output.exists() else None, printed.out + printed.err

    return run


def good(count=10, **columns):
    return [{"image_id": f"i{n}", "prediction": text(n)} | columns for n in range(count)]


@pytest.mark.parametrize("name", ["predictions.jsonl", "predictions.parquet"])
def test_perfect_predictions(score, name):
    status, found, printed = score(good()[::-1], name=name)  # in any order
    assert status == 0 and found["samples"] == 10 and found["sgg_score"] == found["valid_rate"] == 1
    assert found["intervals"]["relation_f1"] == [1, 1] and found["calibration"] is None
    assert [row["predicate"] for row in found["predicates"]] == ["on", "looking-at", "near"]
    # training decides on the groups: looking-at is frequent there, and `near` does not occur
    assert {row["predicate"]: row["group"] for row in found["predicates"]} == {
        **{"on": "tail", "looking-at": "body", "near": "tail"}
    }
    assert not any(found["input"][kind]["count"] for kind in ("missing", "unknown", "duplicates", "damaged"))
    assert "Note:" not in printed and "SGG score 1.000 [1.000, 1.000]" in printed


def test_figures_are_those_of_the_metric(score):
    rows = good(confidence=[0.9])
    rows[0]["prediction"] = "no graph"
    rows[1] |= {"prediction": text(1, predicate="riding"), "confidence": [0.1]}
    rows[2] |= {"prediction": text(2).removeprefix("<answer>\n"), "finish_reason": "length", "tokens": 30}
    _, found, printed = score(rows)
    expected = SceneGraphMetrics("toon", W, H)
    for n, row in enumerate(rows):
        expected.add(row["prediction"], graph(n))
    assert {key: found[key] for key in expected.compute()} == expected.compute()
    assert found["failure_reasons"] == {"the completion must begin with <answer>": 1}
    assert found["format_errors"] == {"the completion must begin with <answer> (cut off at the limit of tokens)": 1}
    assert found["valid_rate"] == 0.8 and found["mean_tokens"] == 30 and found["seconds_per_graph"] is None
    assert found["unknown_predicates"] == {"relations": 1, "most": {"riding": 1}}
    assert found["calibration"]["auroc"] == 1 and found["calibration"]["relations"] == 9
    assert found["calibration"]["ece"] == pytest.approx(0.1)
    low, high = found["intervals"]["relation_f1"]
    assert low < found["relation_f1"] == 0.8 < high
    assert "AUROC of right against wrong 1.000" in printed


def test_the_published_protocol(score):
    rows = good()
    rows[0]["prediction"] = rows[0]["prediction"].replace("rel[1]{subj,pred,obj}:\n  1,on,2\n", "")
    assert score(rows)[1]["failures"] == 0
    _, found, _ = score(rows, "--protocol", "published")
    assert found["failures"] == 1 and found["protocol"] == "published"
    status, _, printed = score(rows, "--protocol", "publishd")
    assert status == 2 and "did you mean 'published'" in printed


def test_predictions_in_another_layout(score):
    rows = [{"image_id": f"i{n}", "prediction": text(n, "json")} for n in range(10)]
    assert score(rows)[1]["failures"] == 10
    assert score(rows, "--codec", "json")[1]["sgg_score"] == 1
    status, _, printed = score(rows, "--codec", "toon-pairs")
    assert status == 1 and "only one of them has groups" in printed


def test_missing_unknown_double_and_damaged_ones_are_counted_and_named(score):
    rows = good(8) + [{"image_id": "i3", "prediction": "another"}, {"image_id": "x9", "prediction": text(9)}]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    lines = b'{"image_id": "i8"}\n\xff\xfe\n[1]\n\n' + lines + json.dumps(good()[9]).encode()[:-5]
    status, found, printed = score(lines)
    assert status == 0
    problems = {name: problem for name, problem in found["input"].items() if isinstance(problem, dict)}
    assert {name: problem["count"] for name, problem in problems.items()} == {
        **{"missing": 2, "unknown": 1, "duplicates": 1, "damaged": 4}
    }
    assert problems["missing"]["examples"] == ["'i8'", "'i9'"] and problems["unknown"]["examples"] == ["'x9'"]
    assert problems["duplicates"]["examples"] == ["'i3' (line 13)"]
    assert "line 1 (no image_id or no prediction)" in problems["damaged"]["examples"]
    # what is missing is a failure, not left out of the mean
    assert found["samples"] == 10 and found["failures"] == found["missing"] == 2
    assert found["failure_reasons"] == {"no prediction": 2} and found["sgg_score"] == pytest.approx(0.8)
    assert "Note: 2 no prediction (they count as failures, zero in every figure): 'i8', 'i9'" in printed
    assert "Note: 4 damaged lines (left out)" in printed
    status, found, printed = score(lines, "--strict")
    assert status == 1 and found is None and "2 x no prediction: 'i8', 'i9'; --strict allows none" in printed
    assert score(good(), "--strict")[0] == 0


def test_a_last_line_that_ends_in_the_middle(score):
    lines = "".join(json.dumps(row) + "\n" for row in good()).encode()
    _, found, printed = score(lines[:-20])
    assert found["input"]["damaged"]["examples"][0].startswith("line 10, which ends in the middle")
    assert found["missing"] == 1
    assert score(lines[:-1])[1]["missing"] == 0  # only the line break is gone


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "holds no prediction"),
        (b"\x00\x01\n" * 5, "holds no prediction: line 1"),
        ([{"id": "i1", "text": ""}], "has no image_id and no prediction"),
        ([{"image_id": "i1", "predictions": ""}], "has no prediction; did you mean 'predictions'?"),
        ([{"image_id": 7, "prediction": ""}], "not one of 1 predictions is for an image of"),
    ],
)
def test_files_that_hold_no_predictions(score, rows, message):
    status, found, printed = score(rows)
    assert status == 1 and found is None and message in printed and "Traceback" not in printed


def test_names_reach_the_terminal_in_one_printable_line(score, tmp_path):
    """Ids of images, labels of predicates, and what an unreadable answer held."""
    predicate = "on\x1b[2J\u202e"
    row = {"width": W, "height": H, "dataset": "toy"}
    rows = [row | {"image_id": f"i{n}", "solution": get_codec("toon").encode(graph(n, predicate))} for n in range(3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "hostile.parquet")
    said = [{"image_id": f"i{n}", "prediction": text(n, predicate=predicate)} for n in range(2)]
    said += [{"image_id": "x\x1b]0;mine\x07\nNote: all is well", "prediction": ""}]
    said += [{"image_id": "i2", "prediction": "obj[1]{id\x1b[2J\u2028}:\n  1,\x9b31m"}]
    status, _, printed = score(said, reference=tmp_path / "hostile.parquet")
    assert status == 0 and r"x\x1b]0;mine\x07\nNote: all is well" in printed
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", printed)


def test_other_bad_input(score, tmp_path, references):
    assert "nowhere does not exist" in score(good(), reference=tmp_path / "nowhere")[2]
    assert "has no split 'tset'; did you mean 'test'?" in score(good(), "--split", "tset")[2]
    assert "--limit is 0" in score(good(), "--limit", "0")[2]
    assert "is not a readable Parquet file" in score(b"PAR1", name="predictions.parquet")[2]
    assert "has no prediction" in score([{"image_id": "i1"}], name="predictions.parquet")[2]
    (tmp_path / "empty").mkdir()
    assert main(["score", str(tmp_path / "empty"), "--reference", str(references)]) == 1
    table = pyarrow.parquet.read_table(references / "test-0.parquet")
    (tmp_path / "none").mkdir()
    pyarrow.parquet.write_table(table.slice(0, 0), tmp_path / "none/test-0.parquet")
    assert "has no rows" in score(good(), reference=tmp_path / "none")[2]
    rows = table.to_pylist()
    rows[3]["solution"] = rows[3]["solution"].replace("obj[2]", "obj[3]")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "none/test-0.parquet")
    _, found, printed = score(good(), reference=tmp_path / "none")
    assert found is None and "row 3 (i3): malformed reference: " in printed
    rows[3] = rows[4]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "none/test-0.parquet")
    assert "image_id 'i4' occurs more than once" in score(good(), reference=tmp_path / "none")[2]


def test_ids_that_two_data_sets_share_need_the_data_set(score, tmp_path, references):
    rows = pyarrow.parquet.read_table(references / "test-0.parquet").to_pylist()[:2]
    rows += [row | {"dataset": "other", "solution": get_codec("toon").encode(graph(4))} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "both.parquet")
    predictions = [{"image_id": f"i{n}", "prediction": text(n), "dataset": "toy"} for n in range(2)]
    predictions += [{"image_id": f"i{n}", "prediction": text(4), "dataset": "other"} for n in range(2)]
    assert score(predictions, reference=tmp_path / "both.parquet")[1]["sgg_score"] == 1
    for row in predictions:
        del row["dataset"]
    assert "not one of 4 predictions" in score(predictions, reference=tmp_path / "both.parquet")[2]


def test_hostile_columns_change_nothing(score):
    odd = [None, "x", -1, 1e400, [], {}, True, float("nan"), [["a"]], ["0.5"]]
    rows = [
        row | dict.fromkeys(("confidence", "tokens", "seconds", "finish_reason"), odd[n])
        for n, row in enumerate(good())
    ]
    _, found, _ = score(rows)
    assert found["sgg_score"] == 1 and found["mean_tokens"] is None and found["calibration"] is None
    _, found, _ = score(rows, "--metric", "recall")
    assert found["by_writing"]["recall@20"] == 1 and "by_confidence" not in found
    _, found, _ = score([row | {"prediction": odd[n]} for n, row in enumerate(rows)])
    assert found["failures"] == 10 and found["missing"] == 5  # null, and what is neither a text nor a graph
    assert found["input"]["damaged"]["count"] == 4 and "found int" in found["input"]["damaged"]["examples"][0]
    _, found, _ = score([row | {"prediction": odd[n]} for n, row in enumerate(rows)], "--metric", "recall")
    assert found["by_writing"]["failures"] == 10 and found["by_writing"]["recall@20"] == 0


@pytest.mark.parametrize("name", ["predictions.jsonl", "predictions.parquet"])
def test_graphs_that_have_been_parsed_are_scored(score, name):
    def parsed(n):
        return json.loads(get_codec("json").encode(get_codec("toon").decode(text(n), 640, 480)))

    rows = [{"image_id": f"i{n}", "prediction": parsed(n)} for n in range(10)]
    for metric, best in (("strict", "sgg_score"), ("recall", "recall@20")):
        status, found, printed = score(rows, "--metric", metric, name=name)
        assert status == 0, printed
        assert (found if metric == "strict" else found["by_writing"])[best] == 1


def test_a_column_of_another_type_is_refused(score):
    rows = [{"image_id": f"i{n}", "prediction": n} for n in range(10)]
    for name in ("predictions.jsonl", "predictions.parquet"):
        status, _, printed = score(rows, name=name)
        assert status == 1 and "holds no prediction" in printed and "found int" in printed


@pytest.mark.parametrize("metric, protocol", [("strict", "default"), ("strict", "published"), ("recall", "default")])
def test_the_protocol_is_printed(score, metric, protocol):
    _, found, printed = score(good(), "--metric", metric, "--protocol", protocol)
    assert found["protocol"] == protocol and f"Protocol: {protocol}." in printed


def test_differences_are_paired(score, tmp_path):
    worse = good()
    for n in range(0, 10, 2):
        worse[n]["prediction"] = text(n, predicate="under")
    (tmp_path / "worse.jsonl").write_text("".join(json.dumps(row) + "\n" for row in worse))
    _, found, printed = score(good(), "--against", tmp_path / "worse.jsonl")
    difference, low, high = found["differences"]["relation_f1"]
    assert difference == 0.5 and 0.1 <= low < 0.5 < high <= 0.9
    assert found["differences"]["object_f1"] == [0, 0, 0] and "relation_f1                 +0.500 [" in printed
    assert score(worse, "--against", tmp_path / "worse.jsonl")[1]["differences"]["relation_f1"] == [0, 0, 0]


def test_recall_by_confidence_and_by_writing(score):
    rows = [{"image_id": f"i{n}", "prediction": text(n, second=True), "confidence": [0.2, 0.9]} for n in range(10)]
    _, found, printed = score(rows, "--metric", "recall")
    assert found["by_confidence"]["recall@20"] == found["by_writing"]["recall@20"] == 1
    assert found["by_writing"]["zero_shot_recall@20"] == 1 and found["by_writing"]["images_zero_shot"] == 2
    assert "what confidence adds" in printed and found["predicates"]["on"]["relations"] == 6
    _, found, printed = score(
        [{k: v for k, v in row.items() if k != "confidence"} for row in rows], "--metric", "recall"
    )
    assert "by_confidence" not in found and "the predictions have no confidences" in printed
    status, _, printed = score(rows, "--metric", "ag-recall")
    assert status == 2 and "use --metric recall" in printed
    assert score(rows, "--metric", "recall", "--against", "x")[0] == 2


def test_recall_of_action_genome(score, tmp_path):
    """Two relations of one group between the same objects: the graph constraint takes the one of higher confidence."""
    head = "obj[2]{id,name,x1,y1,x2,y2}:\n  1,person,10,10,99,99\n  2,cup/glass/bottle,50,50,80,80\n"
    head += "rel_pairs[1]{subj,attention,spatial,contacting,obj}:\n"
    reference = head + '  1,looking_at,"",holding,2'
    rows = [{"image_id": f"i{n}", "solution": reference, "width": W, "height": H} for n in range(3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "ag.parquet")
    said = answer.wrap(head + '  1,looking_at,"",touching|holding,2')
    rows = [{"image_id": f"i{n}", "prediction": said, "confidence": [0.5, 0.2, 0.9]} for n in range(3)]
    arguments = ("--metric", "ag-recall", "--constraint")
    _, found, printed = score(rows, *arguments, "with", reference=tmp_path / "ag.parquet")
    assert found["by_writing"]["recall@10"] == 0.5 and found["by_confidence"]["recall@10"] == 1
    assert "what confidence adds" in printed and "+0.5000" in printed
    _, found, _ = score(rows, *arguments, "no", reference=tmp_path / "ag.parquet")
    assert found["by_writing"]["recall@10"] == found["by_confidence"]["recall@10"] == 1
    rows[0]["confidence"] = [0.1]  # not one for each relation: this image is ranked as written
    _, found, _ = score(rows, *arguments, "with", reference=tmp_path / "ag.parquet")
    assert found["by_confidence"]["recall@10"] == pytest.approx(5 / 6)
    status, _, printed = score(rows, *arguments, "semi", "--protocol", "oed", reference=tmp_path / "ag.parquet")
    assert status == 2 and "has no semi constraint" in printed
    assert score(rows, reference=tmp_path / "ag.parquet")[1]["relation_recall"] == 1


def test_scores_without_torch(score, references, tmp_path):
    """As after a bare installation with pyarrow."""
    score(good())
    blocked = "import sys\n" + "\n".join(
        f"sys.modules[{name!r}] = None" for name in ("torch", "transformers", "datasets")
    )
    words = ["score", str(tmp_path / "predictions.jsonl"), "--reference", str(references)]
    code = f"{blocked}\nfrom rewards.__main__ import main\nsys.exit(main({words!r}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and "SGG score 1.000" in run.stdout, run.stderr


def test_recall_of_videos(score, references, tmp_path):
    """Two videos of four frames, one relation each: the first is written in three of them, the other not at all."""
    encode = get_codec("toon").encode
    rows = [
        {"image_id": f"{video}/{t}", "video_id": video, "frame": 10 * t, "solution": encode(graph(t, "on"))}
        | {"width": W, "height": H, "dataset": "toy"}
        for video in "ab"
        for t in range(4)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "videos.parquet")
    said = [{"image_id": f"a/{t}", "prediction": text(t, predicate="on")} for t in (3, 0, 1)]
    status, found, printed = score(said, "--metric", "video-recall", reference=tmp_path / "videos.parquet")
    assert status == 0 and (found["videos"], found["relations_reference"]) == (2, 2)
    assert found["recall@20"] == 0.5 and found["soft_recall@20"] == 0.75 / 2
    assert found["per_predicate"]["on"]["recall@100"] == 0.5 and found["input"]["missing"]["count"] == 5
    assert re.search(r"\nrecall +0.5000   0.5000   0.5000\n", printed) and "2 videos with 2 relations" in printed
    assert "Note: 5 no prediction" in printed
    status, _, printed = score(good(video_id=["a"]), "--metric", "video-recall")  # references say what is a video
    assert status == 2 and "has no videos (columns video_id and frame)" in printed
    assert "published" in score(said, "--metric", "video-recall", "--protocol", "publishe")[2]
