"""The graph of the frame before, as a column: the prompts made from it, older data sets, and rows that belong nowhere.

`golden/words_in_prompts` is a data set written when the graph stood in the words of the prompt.
"""

from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest

from data_prep import to_toon, toyworld
from sgrl import data
from sgrl.context import ContextTransform
from sgrl.errors import SgrlError
from sgrl.inference.rows import DatasetRows
from sgrl.prompts import with_context
from sgrl.training.launch import SceneGraphArguments

OLD = Path(__file__).parents[1] / "golden/words_in_prompts"


@pytest.fixture(scope="module")
def stored():
    """The prompts of the old data set as they stand in its file."""
    (file,) = OLD.glob("*.parquet")
    return parquet.read_table(file)["prompt"].to_pylist()


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """The same data set, written today."""
    folder = tmp_path_factory.mktemp("new")
    world = ["--layout", "pvsg", "--output", str(folder / "world"), "--train", "2", "--test", "1", "--frames", "3"]
    assert toyworld.main(world) == 0
    convert = ["--layout", "pvsg", "--root", str(folder / "world"), "--resize", "32x32", "--context", "gt"]
    assert to_toon.main([*convert, "--output", str(folder / "data"), "--quality", "60"]) == 0
    return folder / "data"


def test_old_and_new_data_sets_give_the_same_prompts(new, stored):
    assert "The scene graph of the frame before it in the video:\nobj[3]" in stored[1][0]["content"]
    for path in (OLD, new):
        rows = data.load(path, "train")
        assert list(rows.features) == [*data.COLUMNS, *data.VIDEO_COLUMNS]
        read = rows.with_transform(ContextTransform("gt", data.read_metadata(path)))
        assert [row["prompt"] for row in read] == stored
        assert list(map(with_context, rows["prompt"], rows["previous"])) == stored
        assert rows["previous"][:] == [None, *rows["solution"][:-1]]


def test_a_data_set_of_old_is_read_as_one_of_today(new):
    old, now = data.load(OLD, "train"), data.load(new, "train")
    assert old.features == now.features
    assert old.remove_columns("image")[:] == now.remove_columns("image")[:]
    rows = DatasetRows(str(OLD), "train")
    assert "frame before" not in rows[1]["prompt"][0]["content"] and rows[1]["previous"] == rows.solution(0)


BAD = {
    "a single image": ({"video_id": None}, "row 1 .*'previous' holds .* but the row is a single image"),
    "empty": ({"previous": ""}, "row 1 .*'previous' is empty; where there is no frame before it is null"),
    "placeholder": ({"previous": "obj[0]: <image>"}, "row 1 .*'previous' contains '<image>'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_previous_graph_that_belongs_nowhere_is_named(new, tmp_path, name):
    changes, message = BAD[name]
    table = parquet.read_table(data.files(new, "train")[0])
    rows = table.to_pylist()
    rows[1].update(changes)
    parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), tmp_path / "train-0.parquet")
    with pytest.raises(SgrlError, match=message):
        data.load(tmp_path)


def test_the_column_alone_on_single_images_is_named(new, tmp_path):
    table = parquet.read_table(data.files(new, "train")[0])
    parquet.write_table(table.drop_columns(["video_id", "frame"]), tmp_path / "train-0.parquet")
    with pytest.raises(SgrlError, match="it has no video_id.; leave 'previous' out for images, or name the video"):
        data.load(tmp_path)


def test_a_column_that_the_metadata_do_not_know_is_named(new, tmp_path):
    table = parquet.read_table(data.files(new, "train")[0])
    schema = data.schema(data.read_metadata(new) | {"previous": "none"}, video=True)
    parquet.write_table(pyarrow.Table.from_pylist(table.to_pylist(), schema), tmp_path / "train-0.parquet")
    with pytest.raises(SgrlError, match="the metadata of the file say previous: none, so no prompt would"):
        data.load(tmp_path)


@pytest.mark.parametrize("context", [None, "none"])
def test_supervised_fine_tuning_reads_it(new, toy, tmp_path, context, stored):
    """From the rows of a run to the tokens of a batch, through TRL, which takes columns away that no model knows."""
    from types import SimpleNamespace

    from transformers import AutoModelForImageTextToText
    from trl import SFTConfig

    from sgrl.models.vlm.processor import load_processor
    from sgrl.training.dataset import count_tokens, load_rows
    from sgrl.training.previous import add_context
    from sgrl.training.sft import COLUMNS, build_sft_trainer

    processor = load_processor(str(toy / "model"))
    args = SFTConfig(
        output_dir=tmp_path,
        max_length=None,
        report_to=[],
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=3,
        dataloader_persistent_workers=False,
    )
    script = SceneGraphArguments(dataset=str(new), eval_split="train", context=context)
    rows, _ = load_rows(script, SimpleNamespace(eval_strategy="no"), COLUMNS, processor)
    counts = next(count_tokens(rows, processor, {}, answers=True))
    train, _, callbacks = add_context(rows, None, script, args)
    model = AutoModelForImageTextToText.from_pretrained(toy / "model")
    trainer = build_sft_trainer(model, processor, args, train, callbacks=callbacks)
    (batch,) = trainer.get_train_dataloader()
    texts = processor.batch_decode(batch["input_ids"], skip_special_tokens=True)
    held = ["The scene graph of the frame before it in the video" in text for text in texts]
    assert sum(held) == (0 if context == "none" else 2)
    assert sorted(batch["attention_mask"].sum(1).tolist()) == sorted(counts)
