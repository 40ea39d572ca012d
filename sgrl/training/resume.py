"""Interrupt a run and start it again: it goes on from its last whole checkpoint, and never in another run's folder."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path
from typing import Any

from sgrl.errors import SgrlError
from sgrl.files import atomic_path

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"


class Run:
    """A training run in its `output_dir`, whose run.json says which run it is and whether it ended.

    Args:
        training_args: TRL's. `resume_from_checkpoint` may name a checkpoint; otherwise it is the last whole one in
            `output_dir`.
        identity: what makes a run the same run, by the name of the setting (recipe, model, data set, reward, ...);
            values that JSON can hold.

    Attributes:
        finished: whether the run ended, and the length asked for has not changed since.
        checkpoint: the folder that the run goes on from, or None at its start.

    Raises:
        SgrlError: if `output_dir` belongs to another run, or `resume_from_checkpoint` names no whole checkpoint.
    """

    def __init__(self, training_args, identity: dict[str, Any]):
        self._args = training_args
        self._output = Path(training_args.output_dir)
        record = self._read()
        begun = "finished" in record or any(self._output.glob("checkpoint-*"))
        for key, value in record.get("identity", {}).items():
            if begun and key in identity and identity[key] != value:
                raise SgrlError(
                    f"{self._output} belongs to a run with {key}: {value}, and this one has {key}: {identity[key]}; "
                    "choose another output_dir, or remove the folder to start anew"
                )
        self.finished = record.get("finished", {}).get("length") == self._length()
        if self.finished:
            logger.info(
                "the run in %s is finished (%d steps) and its model lies there; to train longer raise max_steps or "
                "num_train_epochs, to start anew choose another output_dir",
                self._output,
                record["finished"]["steps"],
            )
        self.checkpoint = None if self.finished else self._find_checkpoint(training_args.resume_from_checkpoint)
        self._write({**record, "identity": identity})

    def note_end(self, steps: int) -> None:
        """Note that the run ended after `steps` steps and its model is saved."""
        self._write({**self._read(), "finished": {"steps": steps, "length": self._length()}})

    def _find_checkpoint(self, named: str | None) -> str | None:
        if named is not None and str(named).lower() != "true":
            if not _is_whole(Path(named)):
                raise SgrlError(
                    f"resume_from_checkpoint: {named} is no whole checkpoint; expected a checkpoint-N folder with "
                    "trainer_state.json, or nothing, to go on from the last one in output_dir"
                )
            return str(named)
        numbers = (path.name.removeprefix("checkpoint-") for path in self._output.glob("checkpoint-*"))
        for number in sorted((int(number) for number in numbers if number.isdecimal()), reverse=True):
            checkpoint = self._output / f"checkpoint-{number}"
            if _is_whole(checkpoint):
                logger.info("going on from %s", checkpoint)
                return str(checkpoint)
            logger.warning("%s was not written to its end and is left out", checkpoint)
        return None

    def _length(self) -> dict[str, float]:
        return {"max_steps": self._args.max_steps, "num_train_epochs": self._args.num_train_epochs}

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads((self._output / RUN_FILE).read_text())
        except FileNotFoundError:
            return {}
        except (OSError, json.JSONDecodeError) as error:
            raise SgrlError(f"{self._output / RUN_FILE} cannot be read ({error}); remove it to go on") from error

    def _write(self, record: dict[str, Any]) -> None:
        if self._args.process_index == 0:
            with atomic_path(self._output / RUN_FILE) as path:
                path.write_text(json.dumps(record, indent=2) + "\n")


def _is_whole(checkpoint: Path) -> bool:
    """Whether the checkpoint was written to its end: the trainer's state is its last file."""
    try:
        return "global_step" in json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, json.JSONDecodeError):
        return False


@functools.cache
def accept_numbered_cpus() -> None:
    """Let `torch.load` put tensors on "cpu:1", as accelerate calls the CPU of the second process.

    It knows "cpu" alone, so several processes on a CPU could not go on from a checkpoint: "don't know how to restore
    data location".
    """
    import torch

    torch.serialization.register_package(
        100, lambda storage: None, lambda storage, location: storage if location.startswith("cpu:") else None
    )
