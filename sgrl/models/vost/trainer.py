"""Training of the detector, in two stages, with transformers' Trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainingArguments

from sgrl.errors import SettingError, suggest
from sgrl.models.vost.data import Clips, Frames, collate
from sgrl.models.vost.modeling import VostForSceneGraphs

STAGES = ("spatial", "temporal")


@dataclass
class VostArguments(TrainingArguments):
    """transformers' arguments, and what the detector takes besides."""

    backbone_learning_rate: float | None = field(
        default=None, metadata={"help": "Of the backbone. Default: a tenth of learning_rate."}
    )
    drop_epoch: float | None = field(
        default=None,
        metadata={"help": "After so many epochs both learning rates are divided by ten. Default: lr_scheduler_type."},
    )

    def __post_init__(self):
        self.remove_unused_columns = False  # what is read is no table
        self.label_names = ["targets"]
        self.prediction_loss_only = True
        super().__post_init__()
        if self.drop_epoch is not None and self.drop_epoch <= 0:
            raise SettingError("drop_epoch", f"expected more than 0, found {self.drop_epoch}")


def start_stage(model: VostForSceneGraphs, stage: str) -> None:
    """Prepare a loaded model for a stage: the temporal one gets its layers, unless it has them already.

    Raises:
        SettingError: another stage, or the spatial stage for a model that has the temporal one.
    """
    if stage not in STAGES:
        raise SettingError("stage", f"unknown value {stage!r}{suggest(stage, STAGES)}")
    if stage == "temporal" and model.temporal is None:
        model.add_temporal()
    elif stage == "spatial" and model.temporal is not None:
        raise SettingError(
            "stage", "spatial, but the model has its temporal stage already; start from the spatial one"
        )
    model.set_trainable()


class Epoch(TrainerCallback):
    """Tells data sets which epoch it is: what is random is another in each, and the same when a run goes on."""

    def __init__(self, *sets: Frames | Clips):
        self.sets = sets

    def on_epoch_begin(self, args, state, control, **kwargs):
        for each in self.sets:
            each.epoch = int((state.epoch or 0) + 1e-6)


class VostTrainer(Trainer):
    """Two learning rates, OED's step schedule, and batches of frames or clips.

    Args:
        model: prepared by `start_stage`. args: VostArguments.
        train_dataset, eval_dataset: Frames for the spatial stage, Clips for the temporal one.
    """

    def __init__(
        self, model: VostForSceneGraphs, args: VostArguments, train_dataset=None, eval_dataset=None, **kwargs
    ):
        model.set_trainable()  # `from_pretrained` has forgotten it
        args.ddp_find_unused_parameters = False  # every trained parameter takes part in every step
        super().__init__(
            model, args, data_collator=collate, train_dataset=train_dataset, eval_dataset=eval_dataset, **kwargs
        )
        if train_dataset is not None:
            self.add_callback(Epoch(train_dataset))

    optimizer: Any
    lr_scheduler: Any

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """AdamW with a rate for the backbone and one for the rest; weight decay is on everything, as in DETR."""
        if self.optimizer is None:
            args, groups = self.args, self.accelerator.unwrap_model(self.model).parameter_groups()
            slow = args.backbone_learning_rate
            rates = {"other": args.learning_rate, "backbone": args.learning_rate / 10 if slow is None else slow}
            found = {name: list(groups[name]) for name in rates}
            self.optimizer = torch.optim.AdamW(
                [{"params": found[name], "lr": rate} for name, rate in rates.items() if found[name]],
                betas=(args.adam_beta1, args.adam_beta2),
                eps=args.adam_epsilon,
                weight_decay=args.weight_decay,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """One drop by ten, if there is a `drop_epoch`; else what `lr_scheduler_type` says."""
        if self.args.drop_epoch is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        warmup = self.args.get_warmup_steps(num_training_steps)
        drop = num_training_steps * min(1.0, self.args.drop_epoch / self._epochs(num_training_steps))

        def rate(step: int) -> float:
            return min(1.0, (step + 1) / (warmup + 1)) * (1.0 if step < drop else 0.1)

        self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, rate)
        return self.lr_scheduler

    def _epochs(self, steps: int) -> float:
        """How many epochs so many steps are."""
        if self.args.max_steps <= 0:
            return self.args.num_train_epochs
        rows = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return max(1e-9, steps * rows / len(self.train_dataset))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss; its terms are means of what is logged next."""
        outputs = model(**inputs)
        if model.training:
            for name, value in (outputs.losses or {}).items():
                if not name.startswith("layer_"):
                    total, count = self._terms.get(name, (0.0, 0))
                    self._terms[name] = total + value.detach(), count + 1
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    _terms: dict[str, tuple[torch.Tensor | float, int]] = {}

    def train(self, *args, **kwargs):
        self._terms = {}
        return super().train(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # not the summaries
            logs |= {f"loss/{name}": float(total) / count for name, (total, count) in self._terms.items()}
            self._terms = {}
        super().log(logs, start_time)
