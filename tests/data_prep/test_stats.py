"""Lengths of the layouts: the same graphs, the lean profile shortest, and the tokens are the tokenizer's."""

import numpy as np
import pytest

from data_prep import stats, to_toon, toyworld
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import get_codec

GRAPH = SceneGraph((Object("cat", (0, 0, 9, 9)), Object("mat", (0, 5, 9, 9))), (Relation(0, "on", 1),), 9, 9)


def test_lengths_are_those_of_the_texts():
    rows = stats.measure([GRAPH] * 3, lambda texts: [len(text) for text in texts], grouped=False)
    found = {row.name: row.lengths for row in rows}
    assert list(found) == ["json", "json-compact", "toon", "toon-lean"]
    for name in ("json", "toon", "toon-lean"):
        assert found[name].tolist() == [len(get_codec(name).encode(GRAPH))] * 3
    text = stats.table([stats.Row("json", np.array([10, 30])), stats.Row("toon", np.array([10, 10]))], "tokens")
    assert "| JSON of R1-SGG | 20.0 | 20 | 29 | 30 | 1.00 x |" in text
    assert "| TOON | 10.0 | 10 | 10 | 10 | 2.00 x |" in text


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stats")
    for layout, more in (("psg", []), ("action_genome", ["--frames", "4"])):
        arguments = ["--layout", layout, "--output", str(folder / layout), "--train", "9", "--test", "2", *more]
        assert toyworld.main(arguments) == 0
        arguments = ["--dataset", layout, "--root", str(folder / layout), "--output", str(folder / f"{layout}-out")]
        assert to_toon.main([*arguments, "--no-images"]) == 0
    return folder


def test_command(converted, capsys):
    assert stats.main([str(converted / "psg-out"), "--limit", "5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("5 graphs of train") and "TOON, lean profile" in out and "a row per pair" not in out
    assert stats.main([str(converted / "action_genome-out")]) == 0
    assert "TOON, a row per pair" in capsys.readouterr().out
    for wrong, message in (
        (["--split", "tain"], "did you mean 'train'"),
        (["--limit", "0"], "--limit is 0"),
        (["--tokenizer", "/nowhere"], "--tokenizer /nowhere"),
    ):
        assert stats.main([str(converted / "psg-out"), *wrong]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_tokens(converted, tmp_path, capsys):
    from transformers import AutoTokenizer

    from sgrl.tiny import build_tiny_vlm

    build_tiny_vlm(tmp_path / "model")
    count = stats.token_counter(str(tmp_path / "model"))
    texts = ["a b", get_codec("toon").encode(GRAPH)]
    encode = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert count(texts) == [len(ids) for ids in encode(texts, add_special_tokens=False)["input_ids"]]
    assert stats.main([str(converted / "psg-out"), "--tokenizer", str(tmp_path / "model")]) == 0
    assert "mean tokens" in capsys.readouterr().out
