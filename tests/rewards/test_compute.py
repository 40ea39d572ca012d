"""The metric as others call it: `compute(predictions, references)`, and a real Seq2SeqTrainer."""

import numpy as np
import pytest

from rewards.compute import compute, compute_metrics
from rewards.metrics import SceneGraphMetrics
from sgrl.errors import SgrlError
from sgrl.text import answer

W, H = 96, 96
GRAPH = (
    "obj[2]{id,name,x1,y1,x2,y2}:\n  1,circle,0,0,20,20\n  2,square,8,8,40,40\nrel[1]{subj,pred,obj}:\n  1,inside,2"
)
OTHER = GRAPH.replace("circle", "cross").replace("8,8,40,40", "12,12,44,44")


def test_texts_and_rows_give_the_figures_of_the_metric():
    predictions = [answer.wrap(GRAPH), answer.wrap(GRAPH), "no graph"]
    references = [GRAPH, OTHER, OTHER]
    expected = SceneGraphMetrics("toon", W, H)
    for prediction, reference in zip(predictions, references, strict=True):
        expected.add(prediction, reference)
    assert compute(predictions=predictions, references=references, width=W, height=H) == expected.compute()
    rows = [{"solution": reference, "width": W, "height": H, "image_id": "1"} for reference in references]
    assert compute(predictions=predictions, references=rows) == expected.compute()
    chats = [[{"role": "assistant", "content": text}] for text in predictions]
    assert compute(predictions=chats, references=rows) == expected.compute()
    assert expected.compute()["failures"] == 1 and 0 < expected.compute()["sgg_score"] < 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"references": [GRAPH, GRAPH]}, "1 predictions, but 2 references"),
        ({"predictions": [], "references": []}, "the mean of nothing is no figure"),
        ({"width": None}, "width and height, the frame of the boxes, are missing"),
        ({"references": ["no graph"]}, "reference 0: no graph: expected a text that begins with"),
        ({"references": [GRAPH.replace("obj[2]", "obj[3]")]}, "reference 0: .*obj.3. announces 3 rows"),
        ({"protocol": "publishd"}, "did you mean 'published'"),
    ],
)
def test_bad_input(arguments, message):
    given = {"predictions": [GRAPH], "references": [GRAPH], "width": W, "height": H} | arguments
    with pytest.raises(SgrlError, match=message):
        compute(**given)


@pytest.fixture(scope="module")
def tokenizer():
    from sgrl.tiny.tokenizer import build_tokenizer

    return build_tokenizer(("circle", "square", "cross"), ("inside",), W)


def test_token_ids_as_a_trainer_collects_them(tokenizer):
    from transformers import EvalPrediction

    texts = [answer.wrap(GRAPH), answer.wrap(OTHER)]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    width = max(map(len, ids)) + 3
    padded = np.array([row + [-100] * (width - len(row)) for row in ids])
    prompted = np.array([tokenizer("Write the scene graph.")["input_ids"] + row.tolist() for row in padded])
    figures = compute_metrics(tokenizer, W, H)
    assert figures(EvalPrediction(padded, padded))["sgg_score"] == 1
    assert figures(EvalPrediction((prompted,), padded))["sgg_score"] == 1
    swapped = figures(EvalPrediction(padded[::-1], padded))
    assert swapped == compute(predictions=texts[::-1], references=texts, width=W, height=H)
    with pytest.raises(SgrlError, match="set predict_with_generate=True"):
        figures(EvalPrediction(np.zeros((2, 5, 9)), padded))


@pytest.mark.slow
def test_a_real_trainer_reports_the_figures(tokenizer, tmp_path):
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    labels = tokenizer(answer.wrap(GRAPH))["input_ids"]
    rows = [{"input_ids": labels[:5], "attention_mask": [1] * 5, "labels": labels} for _ in range(3)]
    options = {"predict_with_generate": True, "generation_max_length": 8, "report_to": [], "use_cpu": True}
    trainer = Seq2SeqTrainer(
        T5ForConditionalGeneration(config),
        Seq2SeqTrainingArguments(str(tmp_path), per_device_eval_batch_size=2, **options),
        eval_dataset=rows,
        compute_metrics=compute_metrics(tokenizer, W, H),
    )
    found = trainer.evaluate()
    assert found["eval_samples"] == 3 and found["eval_failure_rate"] == 1 and found["eval_sgg_score"] == 0
