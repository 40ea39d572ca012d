"""python -m rewards validate."""

import json

import pytest

from rewards.__main__ import main
from sgrl.text import answer

pyarrow = pytest.importorskip("pyarrow")

TOON = "obj[2]{id,name,x1,y1,x2,y2}:\n1,cat,0,0,100,100\n2,mat,0,80,200,120\nrel[1]{subj,pred,obj}:\n1,on,2"
EMPTY = TOON.replace("rel[1]{subj,pred,obj}:\n1,on,2", "rel[0]{subj,pred,obj}:")


def write(path, rows):
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def row(solution=TOON, completion=None, **columns):
    completion = [{"role": "assistant", "content": answer.wrap(solution) if completion is None else completion}]
    columns = {"solution": solution, "completion": completion, "width": 640, "height": 480, "image_id": "7"} | columns
    return columns


def test_a_good_data_set(tmp_path, capsys):
    write(tmp_path / "train-00000-of-00001.parquet", [row(), row(EMPTY)])
    write(tmp_path / "test-00000-of-00001.parquet", [row()])
    assert main(["validate", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "3 references, 1 of them without relations; preset full: maximum 9.5 (3.5 without relations)" in out
    assert "OK  every reference scores the maximum" in out
    assert main(["validate", str(tmp_path / "test-00000-of-00001.parquet"), "--reward", "recall-only"]) == 0


def test_failing_rows_are_named(tmp_path, capsys):
    rows = [
        row(),
        row(TOON.replace("obj[2]", "obj[3]"), image_id="a"),
        row(width=150, image_id="b"),
        row("no graph", image_id="c"),
        row(completion=TOON, image_id="d"),
        row(width=0, image_id="e"),
    ]
    write(tmp_path / "train.parquet", rows)
    assert main(["validate", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "train.parquet, row 1 (a): malformed reference: obj[3] announces 3" in out
    assert "train.parquet, row 2 (b): malformed reference" in out and "150" in out
    assert "row 3 (c): malformed reference" in out
    assert "row 4 (d): SFT answer below the maximum: 0.0000 instead of 9.5000" in out
    assert "row 5 (e): unusable row" in out
    assert "FAILED  malformed reference: 3" in out and "OK" not in out
    assert main(["validate", str(tmp_path), "--show", "1"]) == 1
    assert "... and 4 more" in capsys.readouterr().out


def test_rows_without_a_reference_are_counted_and_left_out(tmp_path, capsys):
    rows = [row(), row(width=None), row(height=None), row() | {"solution": None}]
    write(tmp_path / "train.parquet", rows)
    assert main(["validate", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "1 references" in out and "3 rows have no reference (a null in solution, width or height)" in out


def test_r1_sgg_wants_its_format_and_says_so(tmp_path, capsys):
    graph = json.dumps(
        {
            "objects": [{"id": "cat.1", "bbox": [0, 0, 50, 50]}, {"id": "mat.2", "bbox": [0, 40, 90, 60]}],
            "relationships": [{"subject": "cat.1", "predicate": "on", "object": "mat.2"}],
        }
    )
    write(tmp_path / "train.parquet", [row(graph)])
    assert main(["validate", str(tmp_path)]) == 0
    assert main(["validate", str(tmp_path), "--reward", "r1-sgg"]) == 1
    out = capsys.readouterr().out
    assert "SFT answer below the maximum: 19.0000 instead of 20.0000: expected <think>...</think>" in out
    assert "reference below" not in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "nowhere does not exist"),
        (["."], "holds no train-"),
        (["broken.parquet"], "not a readable Parquet file"),
        (["other.parquet"], "has no column solution, width, height; it has text"),
        (["good.parquet", "--reward", "ful"], "did you mean 'full'"),
    ],
)
def test_what_cannot_be_read(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    write(tmp_path / "other.parquet", [{"text": "x"}])
    write(tmp_path / "good.parquet", [row()])
    assert main(["validate", *arguments]) == (2 if "did you mean" in message else 1)
    assert message in capsys.readouterr().err


def test_an_empty_data_set_is_no_success(tmp_path, capsys):
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([row()]).slice(0, 0)
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    assert main(["validate", str(tmp_path)]) == 1
    assert "the data set is empty" in capsys.readouterr().out
