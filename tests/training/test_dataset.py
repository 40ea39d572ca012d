"""The rows of a run."""

import io
import re
import shutil
import struct
import zlib
from types import SimpleNamespace

import pytest

from sgrl.errors import SgrlError
from sgrl.models.vlm.processor import load_processor
from sgrl.training.dataset import HEADER, _sizes, check_prompts, check_room, count_tokens, drop_long_rows, load_rows
from sgrl.training.launch import SceneGraphArguments
from sgrl.training.sft import SceneGraphCollator

COLUMNS = ("image", "prompt", "completion")


@pytest.fixture(scope="module")
def processor(toy):
    return load_processor(str(toy / "model"))


def arguments(toy, **changed):
    return SceneGraphArguments(**{"dataset": str(toy / "data")} | changed)


def test_eval_rows_are_read_only_when_asked_for(toy, processor):
    train, evaluation = load_rows(arguments(toy), SimpleNamespace(eval_strategy="no"), COLUMNS, processor)
    assert train.column_names == list(COLUMNS) and len(train) > 50 and evaluation is None
    with pytest.raises(SgrlError, match="has no split 'val'; choose one of: train, test"):
        load_rows(arguments(toy), SimpleNamespace(eval_strategy="steps"), COLUMNS, processor)
    _, evaluation = load_rows(
        arguments(toy, eval_split="test"), SimpleNamespace(eval_strategy="steps"), COLUMNS, processor
    )
    assert len(evaluation) > 10
    _, evaluation = load_rows(
        arguments(toy, eval_split="test", eval_rows=3), SimpleNamespace(eval_strategy="steps"), COLUMNS, processor
    )
    assert len(evaluation) == 3


def test_rows_held_out_of_training(toy, processor):
    everything, _ = load_rows(arguments(toy), SimpleNamespace(eval_strategy="no"), COLUMNS, processor)
    script = arguments(toy, eval_split="train", eval_rows=5)
    train, evaluation = load_rows(script, SimpleNamespace(eval_strategy="steps"), COLUMNS, processor)
    assert list(train["completion"]) + list(evaluation["completion"]) == list(everything["completion"])
    assert len(evaluation) == 5
    for count in (None, len(everything)):
        script = arguments(toy, eval_split="train", eval_rows=count)
        with pytest.raises(SgrlError, match=f"(?s)are both 'train'.* eval_rows must say .*it is {count}"):
            load_rows(script, SimpleNamespace(eval_strategy="steps"), COLUMNS, processor)


def test_missing_column_and_missing_folder(toy, processor):
    with pytest.raises(SgrlError, match="split 'train', has no column 'depth'; it has image, .*sgrl convert"):
        load_rows(arguments(toy), SimpleNamespace(eval_strategy="no"), ("image", "depth"), processor)
    with pytest.raises(SgrlError, match="does not exist"):
        load_rows(arguments(toy, dataset=str(toy / "dat")), SimpleNamespace(eval_strategy="no"), COLUMNS, processor)


def test_long_rows_are_dropped_by_the_tokens_that_the_trainer_makes(toy, processor, caplog):
    rows, _ = load_rows(arguments(toy), SimpleNamespace(eval_strategy="no"), COLUMNS, processor)

    collator = SceneGraphCollator(processor, completion_only_loss=True)
    batch = collator([dict(row) for row in rows])
    with_answer = batch["attention_mask"].sum(1).tolist()
    prompt = (batch["attention_mask"].sum(1) - (batch["labels"] != -100).sum(1)).unique().item()
    limit = sorted(with_answer)[len(rows) // 2]
    kept = drop_long_rows(rows, processor, limit, {}, answers=True)
    assert kept["completion"] == [row["completion"] for row, n in zip(rows, with_answer, strict=True) if n <= limit]
    with caplog.at_level("INFO", "sgrl"):
        drop_long_rows(rows, processor, limit, {}, answers=True)
    assert f"left out {len(rows) - len(kept)} of {len(rows)} rows with more than {limit} tokens" in caplog.text

    assert len(drop_long_rows(rows, processor, prompt, {}, answers=False)) == len(rows)
    with pytest.raises(SgrlError, match=f"all {len(rows)} rows have .* {prompt - 1} tokens .*{prompt}.*; raise max_"):
        drop_long_rows(rows, processor, prompt - 1, {}, answers=False)
    assert drop_long_rows(rows, processor, None, {}, answers=True) is rows


def test_too_few_rows_for_a_batch_of_rollouts(toy, processor):
    rows, _ = load_rows(arguments(toy), SimpleNamespace(eval_strategy="no"), COLUMNS, processor)
    check_prompts(rows.take(8), SimpleNamespace(generation_batch_size=64, num_generations=8))
    with pytest.raises(SgrlError, match="7 rows to train on, but one batch of rollouts takes 8 images .*64 / num_gen"):
        check_prompts(rows.take(7), SimpleNamespace(generation_batch_size=64, num_generations=8))


def test_room_for_an_answer(toy, processor):
    rows, _ = load_rows(arguments(toy), SimpleNamespace(eval_strategy="no"), COLUMNS, processor)
    longest = max(next(count_tokens(rows, processor, {}, answers=False)))
    settings = {"use_vllm": True, "vllm_mode": "colocate", "max_completion_length": 80}

    def check(total, script=None, **changed):
        script = SimpleNamespace(**({"context": None, "max_tokens": None} | (script or {})))
        training = SimpleNamespace(**(settings | {"vllm_max_model_length": total} | changed))
        check_room(rows, processor, {}, script, training)

    check(longest + 80)
    check(None)
    check(1, vllm_mode="server")
    check(1, use_vllm=False)
    message = f"up to {longest} tokens, and answers up to 80 .* vllm_max_model_length is {longest + 79}; raise it to "
    with pytest.raises(SgrlError, match=f"{message}{longest + 80}"):
        check(longest + 79)
    with pytest.raises(SgrlError, match=message):
        check(longest + 79, {"max_tokens": longest})
    check_room(None, processor, {}, SimpleNamespace(), SimpleNamespace(vllm_max_model_length=1))


def test_room_for_a_corrupted_graph(toy, processor):
    rows, _ = load_rows(arguments(toy), SimpleNamespace(eval_strategy="no"), (*COLUMNS, "solution"), processor)
    bare = next(count_tokens(rows, processor, {}, answers=False))
    rows = rows.rename_column("solution", "previous")
    texts = rows["previous"][:]
    counts = next(count_tokens(rows, processor, {}, answers=False))
    assert all(n < m for n, m in zip(bare, counts, strict=True))
    graphs = [len(ids) for ids in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]]
    needed = max(n + -(-graph // 4) for n, graph in zip(counts, graphs, strict=True))
    training = {"use_vllm": True, "vllm_mode": "colocate", "max_completion_length": 80}
    script = SimpleNamespace(context="corrupted", max_tokens=max(counts))
    check_room(rows, processor, {}, script, SimpleNamespace(**training, vllm_max_model_length=needed + 80))
    with pytest.raises(SgrlError, match=f"up to {needed} tokens with context: corrupted"):
        check_room(rows, processor, {}, script, SimpleNamespace(**training, vllm_max_model_length=needed + 79))


def test_sizes_of_images_come_from_their_first_bytes(tmp_path):
    """PNG and JPEG, one with more before its size than is read at first, and one that is a file."""
    import pyarrow as pa
    from PIL import Image

    image, exif = Image.new("RGB", (300, 200)), Image.Exif()
    exif[270] = "words " * 5000
    files = []
    for name, more in (("a.png", {}), ("b.jpg", {}), ("c.jpg", {"exif": exif}), ("d.png", {})):
        image.save(tmp_path / name, **more)
        files.append({"bytes": (tmp_path / name).read_bytes(), "path": str(tmp_path / name)})
    assert len(files[2]["bytes"]) > HEADER > len(files[0]["bytes"]) and len(exif[270]) > HEADER
    files[3]["bytes"] = None
    column = pa.array(files, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    assert _sizes(column) == _sizes(pa.chunked_array([column])) == [(200, 300)] * 4


def test_rows_whose_image_cannot_be_used_are_left_out_and_named(toy, processor, tmp_path, caplog):
    """Cut, past the limit of pixels, and so thin that the processor refuses it; the first row among them."""
    import pyarrow.parquet
    from PIL import Image

    shutil.copytree(toy / "data", tmp_path / "data")
    (file,) = (tmp_path / "data").glob("train-*.parquet")
    table = pyarrow.parquet.read_table(file)
    rows = table.to_pylist()
    thin = io.BytesIO()
    Image.new("RGB", (3000, 14)).save(thin, "PNG")
    whole = thin.getvalue()
    wide = struct.pack(">IIBBBBB", 40000, 25000, 8, 2, 0, 0, 0)
    huge = whole[:16] + wide + struct.pack(">I", zlib.crc32(b"IHDR" + wide)) + whole[33:]
    for i, data in ((0, rows[0]["image"]["bytes"][:-40]), (7, huge), (9, whole)):
        rows[i]["image"]["bytes"] = data
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), file)
    script, training = arguments(toy, dataset=str(tmp_path / "data")), SimpleNamespace(eval_strategy="no")
    found, _ = load_rows(script, training, COLUMNS, processor)
    assert len(found) == len(rows) - 3
    assert found["completion"][0] == rows[1]["completion"] and found["completion"][7] == rows[10]["completion"]
    assert found[0]["image"].size == (96, 96)
    assert f"3 of {len(rows)} rows are left out for their images" in caplog.text
    for i, reason in (
        (0, "does not open"),
        (7, "more than 178,956,970 pixels"),
        (9, "processor refuses an image of 3000 x 14"),
    ):
        assert re.search(rf"row {i} \(image_id {rows[i]['image_id']}\): [^;]*{reason}", caplog.text)
    for row in rows:
        row["image"]["bytes"] = b""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), file)
    with pytest.raises(SgrlError, match="no row has an image that can be used"):
        load_rows(script, training, COLUMNS, processor)
