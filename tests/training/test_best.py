"""load_best_model_at_end with the settings of the YAML files, by transformers' own trainer."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import Trainer, TrainingArguments

from sgrl.errors import SgrlError
from sgrl.training.checks import check_best

CONFIGS = sorted(Path(__file__).parents[2].glob("recipes/configs/*/grpo_*.yaml"))
CONFIGS = [path for path in CONFIGS if "load_best_model_at_end" in path.read_text()]
PEAK = 27  # evaluations


class Step(torch.nn.Module):
    """Its one weight is the number of steps that trained it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, labels=None):
        return {"loss": -self.weight.sum() * x.mean()}


def trained(folder, **settings) -> float:
    """The weight that comes back when the reward is highest at evaluation PEAK."""

    class Scored(Trainer):
        def evaluate(self, *_, **__):
            metrics = {"eval_reward": -abs(self.model.weight.item() / settings["eval_steps"] - PEAK)}
            self.log(metrics)
            return metrics

    rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 2
    args = TrainingArguments(
        folder, use_cpu=True, report_to="none", optim="sgd", learning_rate=1.0, lr_scheduler_type="constant",
        max_grad_norm=0.0, max_steps=40 * settings["eval_steps"], disable_tqdm=True, save_only_model=True, **settings,
    )  # fmt: skip
    check_best(args)
    trainer = Scored(Step(), args, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    return trainer.model.weight.item() / settings["eval_steps"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_best_comes_back(path, tmp_path):
    """With 100 steps as one."""
    settings = yaml.safe_load(path.read_text())
    names = ("eval_strategy", "save_strategy", "save_total_limit", "load_best_model_at_end", "metric_for_best_model")
    steps = {name: settings[name] // 100 for name in ("eval_steps", "save_steps")}
    assert trained(tmp_path, **{name: settings[name] for name in names if name in settings}, **steps) == PEAK


def test_settings_that_lose_the_best_are_refused(tmp_path):
    settings = {"eval_strategy": "steps", "load_best_model_at_end": True, "metric_for_best_model": "eval_reward"}
    with pytest.raises(SgrlError, match="every 1 steps one is evaluated, every 10 one is saved; set save_steps: 1"):
        trained(tmp_path, eval_steps=1, save_steps=10, **settings)
    assert trained(tmp_path, eval_steps=1, save_strategy="best", save_steps=10, **settings) == PEAK
