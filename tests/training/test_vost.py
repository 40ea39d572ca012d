"""The recipe of the detector: its files, what it starts from, and both stages as programs on two processes."""

import json
import os
import runpy
import subprocess
import sys

import numpy as np
import pytest
import yaml

from data_prep import to_toon
from data_prep.toys import action_genome
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.models.vost.priors import Priors, PriorsInfo, write_priors, write_text
from sgrl.models.vost.trainer import VostArguments
from sgrl.task import Task
from sgrl.training.launch import parse
from sgrl.training.vost import DetectorArguments, load_detector

FILES = ["vost_r50/sgdet", "vost_r50/sgdet_temporal", "vost_r50/predcls", "vost_r50/predcls_temporal", "toy/vost_ag"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small data set `data` and a folder `priors` with texts alone."""
    folder = tmp_path_factory.mktemp("vost")
    action_genome.write_rich(folder / "world", 4, 2, frames=6)
    command = ["--dataset", "action_genome", "--root", str(folder / "world"), "--output", str(folder / "data")]
    assert to_toon.main([*command, "--resize", "keep"]) == 0
    vocabulary = data.vocabulary_of(data.read_metadata(folder / "data"))
    rng = np.random.default_rng(0)
    write_text(folder / "priors", rng.normal(size=(5, 8)), rng.normal(size=(26, 8)))
    name = data.load(folder / "data", "test")[0]["dataset"]
    write_priors(folder / "priors", PriorsInfo(name, {}, vocabulary), [])
    return folder


def read(root, name, *options):
    path = root / f"recipes/configs/{name}.yaml"
    return parse((DetectorArguments, VostArguments), ["--config", str(path), *options, "--use_cpu", "true"])


@pytest.mark.parametrize("name", FILES)
def test_files_are_understood(root, name, tmp_path):
    args, training = read(root, name, "--output_dir", str(tmp_path))
    assert args.flip == (0.0 if args.stage == "temporal" else 0.5)
    if name.startswith("vost_r50"):
        epochs, drop, rows = {
            "sgdet": (30, 22, 64), "sgdet_temporal": (6, 3, 8), "predcls": (12, 9, 16), "predcls_temporal": (6, 3, 16),
        }[name.partition("/")[2]]  # fmt: skip
        assert (training.num_train_epochs, training.drop_epoch) == (epochs, drop)
        assert (training.learning_rate, training.weight_decay, training.max_grad_norm) == (1e-4, 1e-4, 0.1)
        assert args.global_batch_size == rows
        assert not args.allow_seen_priors
    text = (root / f"recipes/configs/{name}.yaml").read_text()
    assert "accelerate launch" in text and f"recipes/configs/{name}.yaml" in text
    if args.stage == "temporal":
        before = yaml.safe_load((root / f"recipes/configs/{name.replace('_temporal', '')}.yaml").read_text())
        assert args.model_name_or_path == before["output_dir"]


@pytest.mark.parametrize(
    "options, words",
    [
        (("--priors", "none"), "priors: none, but bank: text holds texts"),
        (("--stage", "temporal"), "goes on from the folder of the spatial one"),
        (("--detector", '{"num_slot": 3}'), "'num_slot'; did you mean 'num_slots'"),
        (("--task", "sgde"), "did you mean 'sgdet'"),
        (("--prior_dropout", "1.5"), "prior_dropout: expected a rate"),
        (("--model_name_or_path", "/nowhere"), "cannot be loaded as a DETR"),
        (("--bak", "none"), "did you mean 'bank'"),
    ],
)
def test_what_cannot_be_is_said(root, world, tmp_path, options, words):
    given = ["--dataset", str(world / "data"), "--priors", str(world / "priors"), "--output_dir", str(tmp_path)]
    with pytest.raises(SgrlError, match=words):
        args, _ = read(root, "toy/vost_ag", *given, *options)
        load_detector(args, None if args.priors == "none" else Priors(args.priors))


def test_a_model_of_other_switches_is_refused(root, world, tmp_path):
    given = ["--dataset", str(world / "data"), "--priors", str(world / "priors"), "--output_dir", str(tmp_path)]
    args, _ = read(root, "toy/vost_ag", *given)
    model = load_detector(args, Priors(args.priors))
    assert model.config.text_size == 8 and model.config.labels.objects[0] == "person"
    model.save_pretrained(tmp_path / "model")
    for option, value in (("--bank", "none"), ("--task", "sgdet")):
        args, _ = read(root, "toy/vost_ag", *given, "--model_name_or_path", str(tmp_path / "model"), option, value)
        with pytest.raises(SgrlError, match=f"was trained with {getattr(model.config, option[2:])}"):
            load_detector(args, Priors(args.priors))


@pytest.mark.slow
def test_both_stages_as_programs(root, world, tmp_path, monkeypatch, caplog):
    """The spatial one on two processes, with batches of one frame."""
    common = ["--config", "recipes/configs/toy/vost_ag.yaml", "--dataset", world / "data", "--priors"]
    common += [world / "priors", "--max_steps", "3", "--save_steps", "2", "--logging_steps", "1"]
    common += ["--global_batch_size", "2", "--per_device_train_batch_size", "1", "--task", "sgdet"]
    spatial = [*common, "--output_dir", tmp_path / "spatial"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/cpu.yaml"]
    done = subprocess.run(
        [*map(str, [*launch, "recipes/vost/train.py", *spatial])],
        **{"cwd": root, "env": os.environ | {"PYTHONPATH": str(root)}, "capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stderr[-3000:]

    def run(*options):
        monkeypatch.chdir(root)
        monkeypatch.setattr(sys, "argv", ["recipes/vost/train.py", *map(str, options)])
        runpy.run_path("recipes/vost/train.py", run_name="__main__")

    temporal = [*common, "--output_dir", tmp_path / "temporal", "--stage", "temporal"]
    temporal += ["--model_name_or_path", tmp_path / "spatial"]
    run(*temporal)
    state = json.loads((tmp_path / "temporal/trainer_state.json").read_text())
    assert state["global_step"] == 3 and all(e["grad_norm"] > 0 for e in state["log_history"] if "grad_norm" in e)
    task = Task.find(tmp_path / "temporal")
    assert task.kind == "vost" and task.model_type == "vost" and task.settings["stage"] == "temporal"
    assert (tmp_path / "temporal/preprocessor_config.json").is_file()
    with caplog.at_level("INFO"):
        run(*temporal)
    assert "is finished (3 steps)" in caplog.text
    with pytest.raises(SystemExit):
        run(*spatial, "--output_dir", tmp_path / "temporal")
