"""The rows of a run."""

from types import SimpleNamespace

import pytest

from sgrl.errors import SgrlError
from sgrl.training.model import load_processor
from sgrl.training.rows import drop_long_rows, load_rows
from sgrl.training.sft import SceneGraphCollator

COLUMNS = ("image", "prompt", "completion")


def arguments(toy, **changed):
    script = {"dataset": str(toy / "data"), "train_split": "train", "eval_split": "val"} | changed
    return SimpleNamespace(**script)


def test_eval_rows_are_read_only_when_asked_for(toy):
    train, evaluation = load_rows(arguments(toy), SimpleNamespace(eval_strategy="no"), COLUMNS)
    assert train.column_names == list(COLUMNS) and len(train) > 50 and evaluation is None
    with pytest.raises(SgrlError, match="has no split 'val'; choose one of: train, test"):
        load_rows(arguments(toy), SimpleNamespace(eval_strategy="steps"), COLUMNS)
    _, evaluation = load_rows(arguments(toy, eval_split="test"), SimpleNamespace(eval_strategy="steps"), COLUMNS)
    assert len(evaluation) <= 16


def test_missing_column_and_missing_folder(toy):
    with pytest.raises(SgrlError, match="split 'train', has no column 'depth'; it has image, .*to_toon.py"):
        load_rows(arguments(toy), SimpleNamespace(eval_strategy="no"), ("image", "depth"))
    with pytest.raises(SgrlError, match="does not exist"):
        load_rows(arguments(toy, dataset=str(toy / "dat")), SimpleNamespace(eval_strategy="no"), COLUMNS)


def test_long_rows_are_dropped_by_the_tokens_that_the_trainer_makes(toy, caplog):
    processor = load_processor(str(toy / "model"))
    rows, _ = load_rows(arguments(toy), SimpleNamespace(eval_strategy="no"), COLUMNS)

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
    with pytest.raises(SgrlError, match=f"all {len(rows)} rows have more than {prompt - 1} tokens; raise max_tokens"):
        drop_long_rows(rows, processor, prompt - 1, {}, answers=False)
    assert drop_long_rows(rows, processor, None, {}, answers=True) is rows
