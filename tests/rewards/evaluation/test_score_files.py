"""python -m rewards score on files of other programs: SceneGraphVLM's, R1-SGG's, CSV, JSON, and by --map."""

import csv
import json
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from rewards.__main__ import main
from rewards.evaluation.columns import Columns, names_of
from rewards.evaluation.records import open_records
from sgrl.errors import SgrlError

SFT = """<answer>
      obj[3]{id,name,x1,y1,x2,y2}:
        1,person,100,50,300,470
        2,traffic light,80,200,420,478
        3,road,0,300,640,480
      rel[2]{subj,pred,obj}:
        1,beside,2
        1,standing-on,3
</answer>"""
"""A reference as SceneGraphVLM's SFT stage writes it: indented, names with blanks."""

RIGHT = SFT.replace("      ", "").replace("traffic light", "traffic-light")
WRONG = RIGHT.replace("standing-on", "walking-on")

OBJECTS = [{"id": "person.1", "bbox": [50, 60, 250, 360]}, {"id": "tree.2", "bbox": [300, 0, 380, 90]}]
RELATIONS = [{"subject": "person.1", "predicate": "looking at", "object": "tree.2"}]
WIDTH, HEIGHT = 500, 375


def scenegraphvlm(number, predict=RIGHT, folder="C:\\data\\psg\\val2017\\", **changes):
    """A row as metrics/qwen-bench writes it."""
    messages = [{"role": "user", "content": "<image>\nWrite."}, {"role": "assistant", "content": SFT}]
    row = {"messages": messages, "images": [f"{folder}{number:012}.jpg"], "content": SFT, "predict": predict}
    return row | {"model_name": "Qwen3.5-0.8B", "gen_time_sec": 0.25} | changes


def r1_sgg(number, scale=(1000.0, 1000.0), **changes):
    """A file as R1-SGG's inference writes it: references in pixels, the answer in the frame of the model."""
    x, y = scale[0] / WIDTH, scale[1] / HEIGHT
    objects = [o | {"bbox": [round(v * s) for v, s in zip(o["bbox"], (x, y, x, y), strict=True)]} for o in OBJECTS]
    answer = json.dumps({"objects": objects, "relationships": RELATIONS}, indent=1)
    row = {"image_id": str(number), "response": f"<answer>\n```json\n{answer}\n```\n</answer>"}
    row |= {"gt_objects": json.dumps(OBJECTS), "gt_relationships": json.dumps(RELATIONS), "box_scale": list(scale)}
    return row | changes


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" if isinstance(row, dict) else row for row in rows))
    return path


@pytest.fixture
def score(tmp_path, capsys):
    def run(path, *words):
        output = tmp_path / "figures.json"
        output.unlink(missing_ok=True)
        status = main([*map(str, ("score", path, "--output", output, *words))])
        printed = capsys.readouterr()
        return status, json.loads(output.read_text()) if output.exists() else None, printed.out + printed.err

    return run


def counts(found):
    return {name: problem["count"] for name, problem in found["input"].items() if isinstance(problem, dict)}


def test_a_file_of_scenegraphvlm_as_it_is(score, tmp_path):
    rows = [scenegraphvlm(n) for n in range(8)]
    rows += [scenegraphvlm(8, WRONG), scenegraphvlm(9, "", gen_time_sec=None, predict_error="FileNotFoundError")]
    status, found, printed = score(lines(tmp_path / "psg.jsonl", rows))
    assert status == 0 and found["samples"] == 10 and found["failures"] == 1, printed
    assert found["object_f1"] == pytest.approx(0.9) and found["relation_f1"] == pytest.approx(0.85)
    assert found["seconds_per_graph"] == 0.25 and not any(counts(found).values())
    assert (
        "Read: image_id from images, prediction from predict, reference from content, seconds from gen_time_sec"
        in (printed)
    )
    assert "frames of 640 x 480, from SceneGraphVLM's images" in printed
    _, few, printed = score(tmp_path / "psg.jsonl", "--limit", 3)
    assert few["samples"] == 3 and not any(counts(few).values()) and "Note" not in printed
    assert score(tmp_path / "psg.jsonl", "--protocol", "published")[1]["relation_f1"] == pytest.approx(0.85)


def test_the_reference_may_stand_in_the_messages_alone(score, tmp_path):
    rows = [{k: v for k, v in scenegraphvlm(n).items() if k != "content"} for n in range(3)]
    _, found, printed = score(lines(tmp_path / "a.jsonl", rows))
    assert found["sgg_score"] == 1 and "reference from messages" in printed
    # ms-swift's own files have the answer there: nothing to compare with
    rows = [{"response": RIGHT, "messages": row["messages"]} for row in rows]
    status, found, printed = score(lines(tmp_path / "a.jsonl", rows))
    assert status == 1 and "holds no references" in printed and "--map COLUMN=reference" in printed


def test_action_genome_of_scenegraphvlm(score, tmp_path):
    reference = """<answer>
      obj[2]{id,name,x1,y1,x2,y2}:
        1,person,10,10,99,99
        2,cup/glass/bottle,50,50,80,80
      rel_pairs[1]{subj,attention,spatial,contacting,obj}:
        1,[looking_at],[in_front_of],[holding,touching],2
</answer>"""
    rows = [{"content": reference, "predict": reference, "images": [f"v/{n}.png"]} for n in range(3)]
    path = lines(tmp_path / "ag.jsonl", rows)
    assert score(path)[1]["sgg_score"] == 1
    _, found, printed = score(path, "--metric", "ag-recall", "--constraint", "no")
    assert found["by_writing"]["recall@20"] == 1, printed


@pytest.mark.parametrize("scale", [(1000.0, 1000.0), (504, 364)])
def test_a_folder_of_r1_sgg(score, tmp_path, scale):
    """The frame of the answers is not that of the references: without their scale no box would fit."""
    folder, images = tmp_path / "vg150", tmp_path / "images"
    folder.mkdir(), images.mkdir()
    for n in range(12):
        (folder / f"{n}.json").write_text(json.dumps(r1_sgg(n, scale)))
        Image.new("RGB", (WIDTH, HEIGHT)).save(images / f"{n}.jpg")
    (folder / "9.json").write_text('{"image_id": "9", "resp')
    for words in (("--size", f"{WIDTH}x{HEIGHT}"), ("--images", images)):
        status, found, printed = score(folder, *words)
        assert status == 0 and found["samples"] == 11 and found["failures"] == 0, printed
        assert found["sgg_score"] == 1 and "9.json" in found["input"]["damaged"]["examples"][0]
        assert "reference from gt_objects and gt_relationships, scale from box_scale" in printed
    _, found, _ = score(folder, *words, "--metric", "recall", "--vocabulary", "vg150", "--protocol", "published")
    assert found["by_writing"]["recall@20"] == 1 and found["by_writing"]["images"] == 11
    status, found, printed = score(folder)
    if scale[0] == 1000:
        assert status == 1 and "unknown size; give --images, --size or --reference" in printed
    else:  # about the original's size: the boxes still fit
        assert found["sgg_score"] == 1 and "from the answer, whose model saw" in printed


def test_r1_sgg_against_a_data_set(score, tmp_path):
    """The reference's frame is the data set's, the answer's its own."""
    solution = json.dumps({"objects": OBJECTS, "relationships": RELATIONS})
    rows = [{"image_id": str(n), "solution": solution, "width": WIDTH, "height": HEIGHT} for n in range(3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    path = lines(tmp_path / "r1.jsonl", [r1_sgg(n) for n in range(3)])
    _, found, printed = score(path, "--reference", tmp_path / "test.parquet")
    assert found["sgg_score"] == found["valid_rate"] == 1, printed
    rows = [row | {"box_scale": None} for row in map(r1_sgg, range(3))]
    assert score(lines(tmp_path / "r1.jsonl", rows), "--reference", tmp_path / "test.parquet")[1]["object_f1"] == 0


def test_every_format_gives_the_same_figures(score, tmp_path):
    rows = [{"image_id": f"{n}", "prediction": RIGHT if n else WRONG, "reference": SFT} for n in range(6)]
    rows = [row | {"width": 640, "height": 480, "seconds": 0.5, "tokens": 90} for row in rows]
    lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "nested.json").write_text(json.dumps({"model": "m", "predictions": rows}))
    by_image = {row["image_id"]: {k: v for k, v in row.items() if k != "image_id"} for row in rows}
    (tmp_path / "by_image.json").write_text(json.dumps(by_image))
    lines(tmp_path / "lines.json", rows)
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader(), writer.writerows(rows)
    names = ["a.jsonl", "list.json", "nested.json", "by_image.json", "lines.json", "a.csv"]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    figures = []
    for name in [*names, "a.parquet"]:
        status, found, printed = score(tmp_path / name)
        assert status == 0 and found["samples"] == 6 and found["mean_tokens"] == 90, (name, printed)
        assert found["valid_rate"] == 1 and found["seconds_per_graph"] == 0.5, name
        figures.append({key: value for key, value in found.items() if key != "input"})
    assert all(each == figures[0] for each in figures) and figures[0]["relation_f1"] == pytest.approx(11 / 12)


def test_any_column_by_map(score, tmp_path):
    rows = [{"picture": f"i{n}", "gold": SFT, "ours": RIGHT} for n in range(3)]
    path = lines(tmp_path / "a.jsonl", rows)
    maps = ("--map", "picture=image_id", "--map", "gold=reference", "--map", "ours=prediction")
    _, found, printed = score(path, *maps)
    assert found["sgg_score"] == 1 and "prediction from ours, reference from gold" in printed
    status, _, printed = score(path, *maps[:-1], "ours=predicted")
    assert status == 2 and "--map ours=predicted: expected COLUMN=WHAT" in printed and "'prediction'" in printed
    assert "say --map ours=prediction" in score(path, "--map", "prediction=ours")[2]
    status, _, printed = score(path, *maps[:-1], "hours=prediction")
    assert status == 2 and "there is no column 'hours'; did you mean 'ours'?" in printed
    status, _, printed = score(path, *maps[:4])
    assert status == 1 and "has no prediction" in printed and "--map COLUMN=prediction" in printed
    assert "--size is '640'" in score(path, *maps, "--size", "640")[2]


def test_predictions_and_references_in_two_files_of_two_machines(score, tmp_path):
    """A path is found by its end where folders and systems differ; an ambiguous end is not."""
    references = lines(tmp_path / "gold.jsonl", [scenegraphvlm(n, folder="D:\\psg\\val2017\\") for n in range(4)])
    rows = [{"image": f"/data/val2017/{n:012}.jpg", "predict": RIGHT} for n in range(3)]
    rows += [{"image_id": "3", "predict": RIGHT}, {"image_id": "other", "predict": RIGHT}]
    path = lines(tmp_path / "ours.jsonl", [{"image_id": row.get("image_id", row.get("image")), **row} for row in rows])
    _, found, printed = score(path, "--reference", references)
    assert found["sgg_score"] == 1 and found["samples"] == 4, printed
    assert counts(found) == counts(found) | {"unknown": 1, "missing": 0, "damaged": 0}
    _, found, printed = score(references, "--against", path)
    assert found["differences"]["relation_f1"][0] == 0, printed


def test_damaged_rows_are_named_and_the_rest_is_scored(score, tmp_path):
    rows = [scenegraphvlm(n) for n in range(5)]
    rows += [scenegraphvlm(5, content="no graph at all"), scenegraphvlm(6, content=None), scenegraphvlm(0)]
    rows += ["[1, 2]\n", '{"content": \n', scenegraphvlm(7, predict=7), scenegraphvlm(8, content=SFT[:30])]
    rows += ["[" * 100_000 + "\n"]
    path = lines(tmp_path / "a.jsonl", rows)
    status, found, printed = score(path)
    assert status == 0 and found["samples"] == 6 and found["failures"] == found["missing"] == 1, printed
    assert counts(found) == {
        **{"missing": 1, "unknown": 0, "duplicates": 1, "damaged": 4, "unreadable": 3, "doubles": 1}
    }
    assert "Note: 3 rows without a readable reference (left out): line 6 " in printed
    assert "Traceback" not in printed
    status, found, printed = score(path, "--strict")
    assert status == 1 and "--strict allows none" in printed
    status, _, printed = score(lines(tmp_path / "b.jsonl", [scenegraphvlm(n, content="") for n in range(3)]))
    assert status == 1 and "holds no reference that can be read: line 1" in printed


def test_csv_rows_that_are_cut_or_do_not_end(score, tmp_path):
    text = "image_id,prediction,reference\n"
    good = f'a,"{RIGHT}","{SFT}"\n'
    path = tmp_path / "a.csv"
    path.write_bytes(f'{text}{good}b,only\n"c\x00","{RIGHT}","{SFT}"\n\nd,"{RIGHT}'.encode() + b"\xff\xfe")
    status, found, printed = score(path)
    assert status == 0 and found["sgg_score"] >= 0.5, printed
    assert found["input"]["damaged"]["count"] == 2 and "2 cells, expected 3" in printed


def test_hostile_files_take_linear_time(score, tmp_path):
    """A run over what would take hours if anything were quadratic; only that it ends is asserted."""
    big = "obj[" + "1,a,1,1,2,2 " * 100_000
    rows = [scenegraphvlm(0), scenegraphvlm(1, big), scenegraphvlm(2, "<answer>" * 100_000)]
    rows += [scenegraphvlm(3, content="obj[2]{id" * 50_000), scenegraphvlm(4, images=["/" * 500_000])]
    status, found, _ = score(lines(tmp_path / "a.jsonl", rows))
    assert status == 0 and found["samples"] == 4
    (tmp_path / "deep.json").write_text('{"a":' * 100_000)
    assert "is no JSON" in score(tmp_path / "deep.json")[2]
    (tmp_path / "b.json").write_text("7")
    assert "holds a int, expected a list of rows" in score(tmp_path / "b.json")[2]


def test_names_of_images():
    assert names_of("a1") == ["a1"] and names_of("v1.5") == ["v1.5"]
    assert "vidor/0001" in names_of("/data/vidor/0001.png") and names_of("0.png")[-1] == "0"
    columns = Columns.of(["images", "response"])
    assert columns.names({"images": [{"path": "a\\b\\7.jpg"}]})[0] == "a/b/7.jpg"
    assert columns.names({"images": []}) == [] == columns.names({})


def test_a_folder_without_rows(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SgrlError, match="nor a file of JSON for each image"):
        open_records(tmp_path)


def test_scores_with_numpy_scipy_and_pillow_alone(tmp_path):
    """As after a bare installation."""
    path = lines(tmp_path / "psg.jsonl", [scenegraphvlm(n) for n in range(3)])
    blocked = ("torch", "transformers", "datasets", "pyarrow", "tqdm", "pandas", "yaml", "httpx", "h5py", "cv2")
    code = "import sys\n" + "\n".join(f"sys.modules[{name!r}] = None" for name in blocked)
    code += "\nfrom rewards.__main__ import main\nsys.exit(main(sys.argv[1:]))"

    def run(*words):
        return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)

    done = run("score", path)
    assert done.returncode == 0 and "SGG score 1.000" in done.stdout, done.stderr
    done = run("score", path, "--reference", tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    done = run("score", tmp_path / "a.parquet")
    assert done.returncode == 1 and "reading Parquet needs pyarrow: pip install 'sgrl[data]'" in done.stderr
