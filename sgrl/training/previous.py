"""The previous graph in training: what `context` and `context_noise` of a recipe do to its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

from sgrl.context import ContextTransform, Noise
from sgrl.data import read_metadata
from sgrl.errors import SgrlError

if TYPE_CHECKING:
    from datasets import Dataset


class ContextEpoch(TrainerCallback):
    """Tells a transform which epoch it is: the noise is another in each, and the same when a run goes on."""

    def __init__(self, transform: ContextTransform):
        self.transform = transform

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.transform.epoch = int((state.epoch or 0) + 1e-6)


def add_context(
    train: Dataset, evaluation: Dataset | None, script_args, training_args
) -> tuple[Dataset, Dataset | None, list[TrainerCallback]]:
    """The rows whose prompts hold what `script_args.context` says, and the callbacks that the trainer needs for it.

    To be called last: from then on a row read without its column `previous` is refused. Evaluation rows get the noise
    of the first epoch always.

    Args:
        script_args: with `dataset`, `context` (None: as the data set has it) and `context_noise`.
        training_args: TRL's; its `seed` is that of the noise.

    Raises:
        SgrlError: a context that the data set cannot give, an unknown kind of noise, or workers that live on from one
            epoch to the next and never hear of it.
    """
    context, rates = script_args.context, script_args.context_noise
    if rates and context != "corrupted":
        raise SgrlError(f"context_noise is given, but context is {context!r}; set context: corrupted")
    metadata, noise = read_metadata(script_args.dataset), Noise.named(rates)
    context = context or metadata.get("previous") or "none"
    if context == "none":
        return train, evaluation, []
    if context == "corrupted" and training_args.dataloader_persistent_workers:
        raise SgrlError("context: corrupted needs dataloader_persistent_workers: false, or the noise never changes")
    transform, fixed = (ContextTransform(context, metadata, noise, training_args.seed) for _ in range(2))
    evaluation = None if evaluation is None else evaluation.with_transform(fixed)
    return train.with_transform(transform), evaluation, [ContextEpoch(transform)]
