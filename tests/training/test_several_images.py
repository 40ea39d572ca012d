"""Rows of several messages and several images: loaded, counted, trained on and asked about like all others."""

import io
from types import SimpleNamespace

import pyarrow.parquet as parquet
import pytest
from PIL import Image

from data_prep import jsonl
from data_prep.writer import DatasetWriter, Layout
from sgrl import data
from sgrl.doctor import _Images
from sgrl.errors import SgrlError
from sgrl.inference import load_engine
from sgrl.inference.engine import EngineSettings
from sgrl.inference.openai_engine import messages
from sgrl.inference.rows import DatasetRows
from sgrl.models.vlm.processor import load_processor
from sgrl.picture import most_images
from sgrl.text import answer
from sgrl.training.dataset import count_tokens, drop_long_rows, load_rows
from sgrl.training.launch import SceneGraphArguments
from sgrl.training.sft import COLUMNS, SceneGraphCollator
from sgrl.vocabulary import Vocabulary

SOLUTION = "obj[1]{id,name,x1,y1,x2,y2}:\n  1,circle,0,0,20,30\nrel[0]{subj,pred,obj}:"
METADATA = {
    "codec": "toon",
    "coords": "pixel",
    "vocabulary": data.vocabulary_to_json(Vocabulary("v", ("circle", "square"), ("inside",))),
}
CHAT = [("system", "Be brief."), ("user", "Name the objects."), ("assistant", "circle"), ("user", "Write the graph.")]
CHATS = [CHAT, CHAT[3:], CHAT[1:]]
COUNTS = [1, 2, 3]


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (96, 96), color).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def row(number):
    return {
        "images": [png((40 * number, 60 * i, 200)) for i in range(COUNTS[number])],
        "prompt": [{"role": role, "content": text} for role, text in CHATS[number]],
        "completion": [{"role": "assistant", "content": answer.wrap(SOLUTION)}],
        **{"solution": SOLUTION, "width": 96, "height": 96, "dataset": "v", "image_id": str(number), "length": 1},
    }


def write(folder, rows):
    with DatasetWriter(folder, METADATA, Layout(images=True)) as writer:
        for entry in rows:
            writer.add("train", entry)
    return folder


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return write(tmp_path_factory.mktemp("several") / "data", map(row, range(3)))


@pytest.fixture(scope="module")
def processor(toy):
    return load_processor(str(toy / "model"))


@pytest.fixture(scope="module")
def rows(stored, processor):
    script = SceneGraphArguments(dataset=str(stored))
    return load_rows(script, SimpleNamespace(eval_strategy="no"), COLUMNS, processor)[0]


def test_they_are_loaded(stored):
    found = data.load(stored)
    assert "image" not in found.column_names and most_images(found) == 3
    assert [[image.getpixel((5, 5)) for image in images] for images in found["images"]] == [
        [(40 * number, 60 * i, 200) for i in range(count)] for number, count in enumerate(COUNTS)
    ]
    assert found["prompt"][:] == [row(number)["prompt"] for number in range(3)]
    own, theirs = data.schema(METADATA, images=True), data.features(images=True).arrow_schema
    assert own.equals(theirs) and own.metadata[b"huggingface"] == theirs.metadata[b"huggingface"]
    asked = DatasetRows(str(stored), "train")
    assert asked.most_images == 3 and len(asked[2]["images"]) == 3 and asked.picture(2).size == (96, 96)
    assert _Images(str(stored), "train", True).sizes == {(96, 96): (6, "'0'")}


def test_a_row_without_any_and_two_columns_are_named(stored, tmp_path):
    write(tmp_path / "none", [row(0), row(1) | {"images": []}])
    with pytest.raises(SgrlError, match="rows 0 to 1: 'images' of a row is empty"):
        data.load(tmp_path / "none")
    table = parquet.read_table(data.files(stored)[0])
    parquet.write_table(table.append_column("image", table["image_id"]), tmp_path / "train-0.parquet")
    with pytest.raises(SgrlError, match="has a column image and a column images; leave one of them out"):
        data.load(tmp_path)
    parquet.write_table(table.drop_columns(["images"]), tmp_path / "train-0.parquet")
    with pytest.raises(SgrlError, match="lacks the column image "):
        data.load(tmp_path)


def test_damaged_ones_are_left_out(stored, processor, tmp_path, caplog):
    spoiled = row(2)
    spoiled["images"][1]["bytes"] = spoiled["images"][1]["bytes"][:-30]
    folder = str(write(tmp_path / "data", [row(0), row(1), spoiled]))
    script = SceneGraphArguments(dataset=folder)
    found, _ = load_rows(script, SimpleNamespace(eval_strategy="no"), COLUMNS, processor)
    assert len(found) == 2 and "row 2 (image_id 2)" in caplog.text


def test_tokens_are_those_that_the_trainer_makes(rows, processor):
    batch = SceneGraphCollator(processor, completion_only_loss=True)([dict(row) for row in rows])
    made = batch["attention_mask"].sum(1).tolist()
    assert next(count_tokens(rows, processor, {}, answers=True)) == made
    assert len(drop_long_rows(rows, processor, sorted(made)[1], {}, answers=True)) == 2


def test_a_server_gets_them_all(rows):
    found = messages(rows[2]["prompt"], rows[2]["images"])
    assert [part["type"] for part in found[0]["content"]] == ["image_url"] * 3 + ["text"]
    assert len({part["image_url"]["url"] for part in found[0]["content"][:3]}) == 3
    assert found[1:] == rows[2]["prompt"][1:]
    system, user, *_ = messages(rows[0]["prompt"], rows[0]["images"])
    assert system == rows[0]["prompt"][0] and [part["type"] for part in user["content"]] == ["image_url", "text"]


def test_json_lines_have_them_all(stored):
    folder = jsonl.export(stored)
    assert sorted(path.name for path in folder.glob("images/train/*")) == [
        *("00000000-0.png", "00000001-1-1.png", "00000001-1.png"),
        *("00000002-2-1.png", "00000002-2-2.png", "00000002-2.png"),
    ]


def test_an_engine_sees_them_all(rows, toy, processor):
    engine = load_engine("transformers", str(toy / "model"), EngineSettings(max_new_tokens=4, images=3))
    try:
        found = engine.generate(rows["images"][:], rows["prompt"][:])
        alone = [engine.generate([row["images"]], [row["prompt"]])[0] for row in rows]
    finally:
        engine.close()
    expected = next(count_tokens(rows, processor, {}, answers=False))
    assert [one.prompt_tokens for one in found] == [one.prompt_tokens for one in alone] == expected
    assert [one.text for one in found] == [one.text for one in alone]


@pytest.mark.slow
def test_vllm_sees_what_transformers_sees(rows, toy, processor):
    pytest.importorskip("vllm")
    engine = load_engine("vllm", str(toy / "model"), EngineSettings(max_new_tokens=4, images=3, max_model_length=1024))
    try:
        found = engine.generate(rows["images"][:], rows["prompt"][:])
    finally:
        engine.close()
    assert [one.prompt_tokens for one in found] == next(count_tokens(rows, processor, {}, answers=False))
