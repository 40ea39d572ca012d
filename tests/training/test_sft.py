"""SFT: what the loss is on, and what the chat template hears."""

from types import SimpleNamespace

import pytest

from sgrl.data import load
from sgrl.errors import SgrlError
from sgrl.models.vlm.processor import load_processor
from sgrl.training.sft import COLUMNS, SceneGraphCollator, check_config


@pytest.fixture(scope="module")
def rows(toy):
    return load(toy / "data", "train").select_columns(list(COLUMNS))


def learnt_texts(batch, processor) -> list[str]:
    return [processor.tokenizer.decode(labels[labels != -100]) for labels in batch["labels"]]


def test_loss_is_on_the_answer_and_its_end(toy, rows):
    processor = load_processor(str(toy / "model"))
    collator = SceneGraphCollator(processor, completion_only_loss=True)
    picked = [rows[i] for i in (0, 5, 9)]
    batch = collator([dict(row) for row in picked])
    end = processor.tokenizer.eos_token
    expected = [row["completion"][0]["content"] + end for row in picked]
    assert [text.removesuffix("\n") for text in learnt_texts(batch, processor)] == expected
    assert len(batch["image_grid_thw"]) == 3
    assert (batch["input_ids"] == processor.image_token_id).sum() == 3 * 36
    assert (batch["labels"] == processor.image_token_id).sum() == 0


def test_template_hears_the_thinking_setting(toy, rows):
    """TRL drops the column that tells it, see `SceneGraphCollator`; a closed thinking block must be in the prompt."""
    processor = load_processor(str(toy / "model"))
    opening = "{{- '<|im_start|>assistant\\n' -}}"
    closed = opening + "{%- if not enable_thinking -%}{{- '<think></think>' -}}{%- endif -%}"
    assert opening in processor.chat_template
    processor.chat_template = processor.chat_template.replace(opening, closed).replace(
        "{{- '<|im_start|>' + message.role + '\\n' -}}",
        "{{- '<|im_start|>' + message.role + '\\n' -}}"
        "{%- if message.role == 'assistant' and not enable_thinking -%}{{- '<think></think>' -}}{%- endif -%}",
    )
    for thinking in (False, True):
        collator = SceneGraphCollator(
            processor, completion_only_loss=True, template_kwargs={"enable_thinking": thinking}
        )
        batch = collator([dict(rows[0])])
        whole = processor.tokenizer.decode(batch["input_ids"][0])
        assert ("<think></think>" in whole) is not thinking
        assert learnt_texts(batch, processor)[0].startswith("<answer>")  # the block belongs to the prompt


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_length": 1024}, "max_length is 1024 and would cut image tokens .*`max_length: null`"),
        ({"completion_only_loss": False}, "trains on prompts too; remove the line"),
        ({"packing": True}, "do not work with images"),
    ],
)
def test_settings_that_would_train_on_something_else(changed, message):
    good = {"max_length": None, "completion_only_loss": None, "packing": False, "padding_free": False}
    check_config(SimpleNamespace(**good))
    with pytest.raises(SgrlError, match=message):
        check_config(SimpleNamespace(**(good | changed)))
