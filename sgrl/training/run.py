"""What any training run needs, whatever it trains: a folder of its own, a place to go on from, a card, the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sgrl.files import folder_lock
from sgrl.task import Task
from sgrl.training.checks import check_best
from sgrl.training.publish import model_card, publish, take_push_settings, write_card
from sgrl.training.resume import Run, accept_numbered_cpus
from sgrl.training.watch import check_report_to


class TaskWriter(TrainerCallback):
    """Gives each checkpoint its model's task: it may outlive its run."""

    def __init__(self, task: Task):
        self.task = task

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if args.process_index == 0 and folder.is_dir():
            self.task.write(folder)


class TrainingRun(Run):
    """A run that trains, finishes and publishes; made by `open_run`.

    Attributes:
        recipe: "sft" or "grpo". base: the model that it starts from.
        finished: it was finished before, and is where it should be: nothing is left to do. checkpoint: see `Run`.
        task: how the model is asked, which each of its folders says; set it before `train`.
    """

    task: Task | None = None

    def __init__(self, recipe: str, script_args, training_args, base: str, identity: Mapping[str, Any]):
        self.recipe, self.base, self._script_args = recipe, base, script_args
        self._target = take_push_settings(training_args)
        super().__init__(training_args, {"recipe": recipe, "model_name_or_path": base} | dict(identity))
        if self.finished:
            self._publish()

    def train(self, trainer) -> None:
        """From the last whole checkpoint, if there is one, to the end."""
        if trainer.args.device.type == "cpu":
            accept_numbered_cpus()
        if self.task is not None:
            trainer.add_callback(TaskWriter(self.task))
        trainer.train(resume_from_checkpoint=self.checkpoint)

    def finish(self, trainer, rewards: Mapping[str, float] | None = None) -> None:
        """Write the card of the saved model, note that the run ended, and publish it.

        rewards: name -> weight, for GRPO.
        """
        args = trainer.args
        if args.process_index == 0:
            for folder in (Path(args.output_dir), Path(args.output_dir, "adapter")):
                if self.task is not None and folder.is_dir():
                    self.task.write(folder)
            card = model_card(self.recipe, self._script_args, args, self.base, trainer.state.log_history, rewards)
            write_card(args.output_dir, card)
        self.note_end(trainer.state.global_step)
        self._publish()

    def _publish(self) -> None:
        publish(self._args.output_dir, self._target, self._args.process_index == 0)


@contextmanager
def open_run(recipe: str, script_args, training_args, base: str, identity: Mapping[str, Any]) -> Iterator[TrainingRun]:
    """A run whose `output_dir` no other one writes inside this block. The first process locks it for all.

    Args:
        recipe: "sft" or "grpo".
        script_args, training_args: what `sgrl.training.launch.parse` gives.
        base: the model that the run starts from.
        identity: settings that make a run the same run, besides recipe and model; see `Run`.

    Raises:
        SgrlError: a folder that another process writes or that belongs to another run, a tracker that is not
            installed, checkpoints or pushes that could not be.
    """
    first = training_args.process_index == 0
    with folder_lock(training_args.output_dir) if first else nullcontext():
        check_report_to(training_args.report_to)
        check_best(training_args)
        yield TrainingRun(recipe, script_args, training_args, base, identity)
