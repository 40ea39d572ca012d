"""From raw Action Genome files through priors and both stages of training to figures and a page."""

import json
import runpy
import sys

import pytest

from data_prep import to_toon
from data_prep.toys import action_genome
from sgrl import SceneGraphModel, data
from sgrl.__main__ import main
from sgrl.inference.priors import extract
from sgrl.models.vost.priors import Priors
from sgrl.scores import ScoreFolder
from tests.inference.test_priors import RUN, Witness, settings, words  # noqa: F401

DETECTOR = {
    "patches": {"patch": 4, "channels": 16, "strides": [2, 2]},
    "detr": {
        "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "dropout": 0.0,
    },
    "num_slots": 6, "pair_layers": 1, "predicate_layers": 1, "bank_layers": 1, "bank_ffn": 32,
}  # fmt: skip


@pytest.fixture
def recipe(root, monkeypatch):
    def run(name, *options):
        monkeypatch.chdir(root)
        monkeypatch.setattr(sys, "argv", [name, *map(str, options)])
        runpy.run_path(name, run_name="__main__")

    return run


@pytest.mark.slow
def test_from_annotations_to_a_page(recipe, tmp_path, capsys, caplog):
    world, rows, told = tmp_path / "world", tmp_path / "data", tmp_path / "priors"
    action_genome.write_rich(world, 6, 4, frames=5)
    command = ["--dataset", "action_genome", "--root", str(world), "--output", str(rows), "--resize", "keep"]
    assert to_toon.main(command) == 0
    extract(settings(rows, told), RUN, lambda name: Witness(rows, name))
    common = ["--config", "recipes/configs/toy/vost_ag.yaml", "--dataset", rows, "--priors", told, "--use_cpu", "true"]
    common += ["--detector", json.dumps(DETECTOR), "--save_steps", "500"]
    spatial, model = tmp_path / "spatial", tmp_path / "model"
    recipe("recipes/vost/train.py", *common, "--output_dir", spatial, "--max_steps", "40")
    temporal = ["--stage", "temporal", "--model_name_or_path", spatial, "--max_steps", "2"]
    recipe("recipes/vost/train.py", *common, "--output_dir", model, *temporal)

    output = tmp_path / "eval"
    evaluate = ["recipes/vost/evaluate.py", "--model", model, "--dataset", rows, "--priors", told, "--output", output]
    recipe(*evaluate)
    printed = capsys.readouterr().out
    assert "with constraint" in printed and "rare predicates, recall" in printed
    found = json.loads((output / "metrics.json").read_text())
    count = len(data.load(rows, "test"))
    ours = found["action_genome"]
    assert found["samples"] == count and ours["units"] == {"videos": 4} and ours["missing"] == 0
    low, high = ours["with"]["intervals"]["recall@10"]
    assert 0 < low < ours["with"]["recall@10"] < high and ours["no"]["recall@50"] >= ours["with"]["recall@50"]
    assert ours["priors"]["all"]["prior_wrong"] == 0  # the witness said all that is true
    assert ours["priors"]["all"]["prior_right"] == ours["with"]["relations_reference"] > 0
    assert 0 <= ours["priors"]["all"]["spoiled"] < 1
    assert ScoreFolder(output / "scores").vocabulary == data.vocabulary_of(data.read_metadata(rows))

    # the same without what was told
    recipe(*evaluate[:-4], "--priors", "none", "--output", tmp_path / "alone")
    alone = json.loads((tmp_path / "alone/metrics.json").read_text())["action_genome"]
    assert "priors" not in alone and alone["no"]["recall@20"] != ours["no"]["recall@20"]

    # ended early: what is done stays, and the end is the same
    lines = (output / "predictions.jsonl").read_text().splitlines()
    (output / "predictions.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])
    (output / "scores/scores.parquet").unlink()
    recipe(*evaluate)
    again = json.loads((output / "metrics.json").read_text())
    assert again["action_genome"] == ours and again["sgg_score"] == found["sgg_score"]
    with pytest.raises(SystemExit):
        recipe(*evaluate, "--min-score", "0.9")
    assert "another run: its min_score" in caplog.text + capsys.readouterr().err

    assert main(["report", str(output), "--output", str(tmp_path / "page")]) == 0
    assert main(["score", str(output / "scores"), "--reference", str(rows), "--metrics", "ag-recall"]) == 0
    assert len(Priors(told)) == sum(len(data.load(rows, split)) for split in ("train", "test"))
    assert SceneGraphModel.from_pretrained(model).task.settings["stage"] == "temporal"
