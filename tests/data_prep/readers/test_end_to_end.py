"""Every layout of images and RGB-D videos through the command: rows come out, with the pictures they belong to."""

import io
import json

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from data_prep import to_toon
from data_prep.toys import psg4d
from sgrl.data import load
from sgrl.text import get_codec

EXAMPLES = {  # data set -> folder of the example, rows per split
    "vg": ("vg", {"train": 1, "test": 1}),
    "vg150": ("vg", {"val": 1, "test": 1}),
    "psg4d_gta": ("psg4d_gta", {"train": 4, "val": 3}),
    "psg4d_hoi": ("psg4d_hoi", {"train": 3}),
}


def convert(dataset, root, output, *more):
    return to_toon.main(["--layout", dataset, "--root", str(root), "--output", str(output), *more])


@pytest.mark.parametrize("dataset", EXAMPLES)
def test_examples_of_the_official_layouts(shared, tmp_path, dataset, capsys):
    folder, splits = EXAMPLES[dataset]
    assert convert(dataset, shared / "data" / "schema_examples" / folder, tmp_path / "rows") == 0
    for split, number in splits.items():
        rows = load(tmp_path / "rows", split)
        assert len(rows) == number
        for row in rows:
            graph = get_codec("toon").decode(row["solution"], row["width"], row["height"], tags=False)
            assert graph.relations and row["image"].size == (row["width"], row["height"])


def test_rows_of_the_hub(layouts, tmp_path):
    """Both mirrors' layouts give the rows that psg.json gives, the picture byte for byte."""
    source = layouts / "hf_mirrors"
    rows = [json.loads(line) for line in (source / "psg_train_sg_rows.jsonl").read_text().splitlines()]
    for row in rows:
        row["image"] = {"bytes": (source / row.pop("image_file")).read_bytes(), "path": None}
    hub, coco = tmp_path / "psg_train_sg", tmp_path / "coco" / "train"
    hub.mkdir()
    coco.mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), hub / "train-00000-of-00001.parquet")
    annotations = (source / "maelic_style/PSG_coco_format/train/_annotations.coco.json").read_text()
    (coco / "_annotations.coco.json").write_text(annotations)
    for row, entry in zip(rows, json.loads(annotations)["images"], strict=True):
        (coco / entry["file_name"]).write_bytes(row["image"]["bytes"])
    found = {}
    for dataset, root in (("hub", hub), ("coco", coco.parent), ("psg", layouts / "psg")):
        assert convert(dataset, root, tmp_path / dataset, "--resize", "keep", "--split", "train") == 0
        found[dataset] = {row["image_id"]: row for row in load(tmp_path / dataset, "train")}
    for dataset in ("hub", "coco"):
        (row,) = found[dataset].values()
        known = found["psg"][row["image_id"]]
        assert (row["solution"], row["prompt"], row["dataset"]) == (known["solution"], known["prompt"], "psg")
        assert np.array_equal(np.asarray(row["image"]), np.asarray(known["image"]))


def test_psg4d_with_faults_is_converted_but_for_them(tmp_path, capsys):
    """A picture and a mask that are missing, a mask of another size, a relation of nobody, spans beyond the video."""
    root = tmp_path / "toys"
    psg4d.write_gta(root, train=3, test=0, seed=1, frames=6)
    path = root / "sailvos3d.json"
    content = json.loads(path.read_text())
    first, second, third = content["data"]
    first["relations"].append([17, "above", 5, [0, 1]])
    second["relations"] = [[*second["relations"][0][:3], [0, 99]]] if second["relations"] else []
    second["object"][0]["category"] = "tank"
    third["relations"] = []
    path.write_text(json.dumps(content))
    folder = root / "psg4d_gta"
    (folder / "images" / first["video_id"] / "000001.bmp").unlink()
    (folder / "masks" / first["video_id"] / "000002.npy").unlink()
    mask = folder / "masks" / first["video_id"] / "000003.npy"
    np.save(mask, np.load(mask)[:50])
    assert convert("psg4d_gta", root, tmp_path / "rows", "--resize", "keep", "--keep-empty") == 0
    rows = load(tmp_path / "rows", "train")
    assert sorted(row["image_id"] for row in rows) == sorted(
        [f"{first['video_id']}_{frame}" for frame in (0, 4, 5)]
        + [f"{video['video_id']}_{frame}" for video in (second, third) for frame in range(6)]
    )
    captured = capsys.readouterr()
    said = captured.out + captured.err
    damaged = (tmp_path / "rows" / "damaged.txt").read_text()
    assert len(damaged.splitlines()) == 3
    for message in ("000001.bmp does not exist", "96 x 50 pixels, its image 96 x 96", "is of the object 5; expected"):
        assert message in damaged
    assert "label outside the vocabulary" in said


def test_embedded_pictures_are_scaled_like_files(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), (200, 10, 10)).save(buffer, "PNG")
    row = {
        "image_id": "1",
        "image": {"bytes": buffer.getvalue(), "path": None},
        "objects": json.dumps([{"id": "person.1", "bbox": [0, 0, 30, 40]}, {"id": "car.1", "bbox": [30, 0, 60, 40]}]),
        "relationships": json.dumps([{"subject": "person.1", "predicate": "beside", "object": "car.1"}]),
    }
    (tmp_path / "psg_test_sg").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "psg_test_sg" / "train-0.parquet")
    assert convert("hub", tmp_path / "psg_test_sg", tmp_path / "rows", "--resize", "120x60") == 0
    (found,) = load(tmp_path / "rows", "test")
    assert found["image"].size == (120, 60) and "1,person,0,0,60,60" in found["solution"]
