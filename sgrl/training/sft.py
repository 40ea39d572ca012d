"""Supervised fine-tuning on rows of image, prompt and completion, with TRL's SFTTrainer."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from sgrl.errors import SgrlError
from sgrl.upstream import SFT, check_inside

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, ProcessorMixin

logger = logging.getLogger(__name__)

COLUMNS = ("image", "prompt", "completion")


@dataclass
class SceneGraphCollator(DataCollatorForVisionLanguageModeling):
    """TRL's collator, whose chat template hears `template_kwargs` (e.g. `{"enable_thinking": False}`).

    TRL reads them from a `chat_template_kwargs` column, which no data set has: without it the model would be trained
    on a prompt that it never meets again.
    """

    template_kwargs: dict[str, Any] = field(default_factory=dict)

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return super().torch_call([{**example, "chat_template_kwargs": self.template_kwargs} for example in examples])


def check_config(args: SFTConfig) -> None:
    """Refuse settings that would train on something else than the rows say.

    Raises:
        SgrlError: names the line to change.
    """
    if args.max_length is not None:
        raise SgrlError(
            f"max_length is {args.max_length} and would cut image tokens from prompts; set `max_length: null` and, to "
            "leave out long rows, max_tokens"
        )
    if args.completion_only_loss is False:
        raise SgrlError("completion_only_loss: false trains on prompts too; remove the line")
    if args.packing or args.padding_free:
        raise SgrlError("packing and padding_free do not work with images; remove them")


def build_sft_trainer(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    args: SFTConfig,
    train_rows: Dataset,
    eval_rows: Dataset | None = None,
    template_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> SFTTrainer:
    """A trainer whose loss is on the answers alone.

    Args:
        model, processor: see `sgrl.training.model`, `sgrl.models.vlm.processor`.
        args: with `max_length=None`.
        train_rows, eval_rows: with the columns of `COLUMNS`; others are ignored.
        template_kwargs: for the chat template, the same as in GRPO and at inference.
        **kwargs: of `SFTTrainer`, e.g. `peft_config`, `callbacks`.
    """
    check_config(args)
    check_inside(SFT)
    # The prompt is made from `previous` when a row is read, so that column has to stay where the trainer reads.
    args.remove_unused_columns = False
    columns = [name for name in (*COLUMNS, "images", "previous") if name in train_rows.column_names]
    collator = SceneGraphCollator(processor, completion_only_loss=True, template_kwargs=template_kwargs or {})
    return SFTTrainer(
        model=model,
        args=args,
        data_collator=collator,
        train_dataset=train_rows.select_columns(columns),
        eval_dataset=None if eval_rows is None else eval_rows.select_columns(columns),
        processing_class=processor,
        **kwargs,
    )
