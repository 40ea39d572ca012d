"""Training of the detector: rates, stages, and runs that were interrupted."""

import json

import pytest
import torch

from sgrl import data
from sgrl.errors import SgrlError
from sgrl.models.detection.images import image_processor
from sgrl.models.vost.config import VostConfig
from sgrl.models.vost.data import Clips, Frames, FrameSettings
from sgrl.models.vost.modeling import VostForSceneGraphs
from sgrl.models.vost.priors import Priors
from sgrl.models.vost.trainer import VostArguments, VostTrainer, start_stage

PROCESSOR = image_processor(96, 160)


@pytest.fixture
def trainer(world, small, tmp_path):
    """A function that makes a trainer in a folder of `tmp_path`."""

    def make(folder="run", stage="spatial", model=None, **settings):
        vocabulary = data.vocabulary_of(data.read_metadata(world / "data")).to_json()
        torch.manual_seed(0)
        if model is None:
            model = VostForSceneGraphs(VostConfig(**{**small, "vocabulary": vocabulary, "task": "predcls"}))
        start_stage(model, stage)
        frames = Frames(
            world / "data", "train", model.config, PROCESSOR, Priors(world / "priors"), FrameSettings(True, 0.5)
        )
        common = {"per_device_train_batch_size": 8, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
        common |= {"max_steps": 4, "logging_steps": 2, "save_steps": 2, "learning_rate": 1e-3, "seed": 0}
        args = VostArguments(output_dir=str(tmp_path / folder), **(common | settings))
        return VostTrainer(model, args, Clips(frames) if stage == "temporal" else frames)

    return make


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_that_was_interrupted_ends_with_the_same_weights(trainer, tmp_path):
    whole = trainer("whole", dataloader_num_workers=1)
    whole.train()
    logged = [entry for entry in whole.state.log_history if "loss" in entry]
    assert len(logged) == 2 and all(entry["loss/contacting"] > 0 for entry in logged)
    again = trainer("whole")  # another number of workers
    again.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
    assert equal(weights(again), weights(whole))


def test_the_temporal_stage_goes_on_from_the_spatial_one_and_from_itself(trainer, tmp_path):
    spatial = trainer("spatial", max_steps=1)
    spatial.train()
    spatial.save_model()
    started = weights(spatial)
    loaded = VostForSceneGraphs.from_pretrained(tmp_path / "spatial")
    temporal = trainer("temporal", "temporal", loaded)
    temporal.train()
    found = weights(temporal)
    assert all(torch.equal(found[name], value) for name, value in started.items())
    assert not torch.equal(found["temporal.heads.spatial.weight"], started["heads.spatial.weight"])
    again = trainer("temporal", "temporal", VostForSceneGraphs.from_pretrained(tmp_path / "spatial"))
    again.train(resume_from_checkpoint=str(tmp_path / "temporal/checkpoint-2"))
    assert equal(weights(again), found)
    temporal.save_model()
    assert json.loads((tmp_path / "temporal/config.json").read_text())["temporal"] is True
    with pytest.raises(SgrlError, match="stage: spatial, but"):
        start_stage(temporal.model, "spatial")
    with pytest.raises(SgrlError, match="did you mean 'temporal'"):
        start_stage(temporal.model, "temporall")


@pytest.mark.parametrize("drop, warmup, wanted", [(None, 0, 1e-3), (1, 0, 1e-4), (1, 1, 1e-4), (9, 0, 1e-3)])
def test_two_rates_and_one_drop(trainer, drop, warmup, wanted):
    settings = {"num_train_epochs": 3, "max_steps": -1, "drop_epoch": drop, "warmup_steps": warmup}
    made = trainer(**settings, lr_scheduler_type="constant")
    made.create_optimizer_and_scheduler(9)
    rates = []
    for _ in range(9):
        rates.append([group["lr"] for group in made.optimizer.param_groups])
        made.optimizer.step()
        made.lr_scheduler.step()
    other, backbone = made.optimizer.param_groups
    assert rates[0] == pytest.approx([1e-3 / (warmup + 1), 1e-4 / (warmup + 1)] if drop else [1e-3, 1e-4])
    assert rates[2] == pytest.approx([1e-3, 1e-4]) and rates[3] == pytest.approx([wanted, wanted / 10])
    named = dict(made.model.named_parameters())
    held = {name for name, p in named.items() if any(p is q for q in backbone["params"])}
    assert held == {name for name in named if name.startswith("backbone.")}
    assert sum(len(g["params"]) for g in (other, backbone)) == sum(p.requires_grad for p in named.values())


def test_loss_falls(trainer):
    made = trainer(max_steps=12, logging_steps=3, save_strategy="no", learning_rate=3e-3, warmup_steps=2)
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]


def test_evaluation_gives_a_loss(trainer, world):
    made = trainer(max_steps=1)
    frames = Frames(world / "data", "test", made.model.config, PROCESSOR, Priors(world / "priors"))
    assert made.evaluate(frames)["eval_loss"] > 0
