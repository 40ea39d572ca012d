"""The reward functions as trainers call them."""

import importlib
import json
import pickle
from collections import defaultdict

import pytest

from rewards import SCENEGRAPHVLM, GraphScorer, get_preset
from rewards import trl as functions
from rewards.adapters import compute_score, ms_swift
from rewards.presets import FAMILIES, PRESETS
from rewards.trl import FUNCTIONS, BatchScorer, Term, get_function, reward_functions, rewards_named
from sgrl.errors import SgrlError
from sgrl.text import FormatError, answer

TOON = "obj[2]{id,name,x1,y1,x2,y2}:\n1,cat,0,0,100,100\n2,mat,0,80,200,120\nrel[1]{subj,pred,obj}:\n1,on,2"
PAIRS = (
    "obj[2]{id,name,x1,y1,x2,y2}:\n1,person,0,0,100,100\n2,cup,0,80,200,120\n"
    "rel_pairs[1]{subj,attention,spatial,contacting,obj}:\n1,unsure,in,holding|touching,2"
)
JSON = (
    '{"objects": [{"id": "cat.1", "bbox": [0, 0, 50, 50]}, {"id": "mat.2", "bbox": [0, 40, 90, 60]}], '
    '"relationships": [{"subject": "cat.1", "predicate": "on", "object": "mat.2"}]}'
)


def chat(text):
    return [{"role": "assistant", "content": text}]


class Trainer:
    """Calls reward functions with the keywords of TRL's GRPOTrainer and keeps what they log."""

    def __init__(self):
        self.metrics, self.columns = defaultdict(list), defaultdict(list)

    def __call__(self, function, completions, **columns):
        return function(
            prompts=[chat("describe")] * len(completions),
            completions=completions,
            completion_ids=[[1, 2]] * len(completions),
            trainer_state=None,
            log_metric=lambda name, value: self.metrics[name].append(value),
            log_extra=lambda column, values: self.columns[column].extend(values),
            image=[None] * len(completions),
            **columns,
        )


BATCH = {
    "completions": [chat(answer.wrap(TOON)), chat(TOON), chat(answer.wrap(PAIRS)), chat("")],
    "solution": [TOON, TOON, PAIRS, PAIRS],
    "width": [640, 640, 320, 320],
    "height": [480, 480, 240, 240],
}


@pytest.fixture(autouse=True)
def fresh():
    for function in FUNCTIONS.values():
        function.scorer._batch = None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_dotted_paths_with_names_that_pickle(name):
    function = getattr(importlib.import_module("rewards.trl"), name)
    assert function.__name__ == name and callable(function)
    assert pickle.loads(pickle.dumps(function)) is function
    assert get_function(name) is function


def test_terms_of_mixed_layouts_and_sizes():
    trainer = Trainer()
    assert trainer(functions.format, **BATCH) == [1.0, 0.0, 1.0, 0.0]
    assert trainer(functions.relation_f1, **BATCH) == [1.0, 0.0, 1.0, 0.0]
    chosen, weights = reward_functions("full")
    totals = [
        sum(w * v for w, v in zip(weights, row, strict=True))
        for row in zip(*(trainer(f, **BATCH) for f in chosen), strict=True)
    ]
    assert totals == [9.5, 0, 9.5, 0]


def test_plain_texts_and_one_size_for_all():
    assert functions.format([answer.wrap(TOON)] * 2, [TOON] * 2, width=640, height=480) == [1.0, 1.0]


def test_a_batch_is_scored_and_logged_once(monkeypatch):
    calls = []
    many = GraphScorer.many
    monkeypatch.setattr(GraphScorer, "many", lambda self, *batch: calls.append(len(batch[0])) or many(self, *batch))
    trainer = Trainer()
    chosen, _ = reward_functions("full")
    for function in chosen:
        trainer(function, **BATCH)
    assert sum(calls) == 4
    assert all(len(values) == 1 for values in trainer.metrics.values())
    assert all(len(values) == 4 for values in trainer.columns.values())
    # an equal batch, as a deterministic evaluation gives: a new batch for the log
    for function in chosen:
        trainer(function, **BATCH)
    assert sum(calls) == 8
    assert all(len(values) == 2 for values in trainer.metrics.values())
    assert all(len(values) == 8 for values in trainer.columns.values())


def test_what_is_logged():
    trainer = Trainer()
    trainer(functions.relation_recall, **BATCH)
    assert {name: values[0] for name, values in trainer.metrics.items()} == {
        "sg/without_reference": 0.0,
        "sg/malformed_references": 0.0,
        "sg/valid": 0.5,
        "sg/no_relation": 0.25,
        "sg/num_objects": 1.5,
        "sg/num_relations": 1.5,
        "sg/invalid_relation_fraction": 0.0,
        "sg/has_answer_tags": 0.5,
    }
    assert set(trainer.columns) == {"sg/reason", *(f"sg/{term}" for term in SCENEGRAPHVLM.weights)}
    assert trainer.columns["sg/object_class"] == [1.0, 0.0, 1.0, 0.0]
    assert trainer.columns["sg/reason"][0] is None and "<answer>" in trainer.columns["sg/reason"][1]


def test_changed_solutions_or_sizes_are_another_batch():
    texts = [answer.wrap(TOON)]
    assert functions.format(texts, [TOON], width=640, height=480) == [1.0]
    assert functions.object_class(texts, [TOON.replace("cat", "dog")], width=640, height=480) == [0.5]
    assert functions.relation_recall(texts, [TOON], width=100, height=480) == [None], "the reference leaves the image"


def test_a_malformed_reference_is_left_out_with_a_warning(caplog):
    trainer = Trainer()
    batch = BATCH | {"solution": [TOON, "no graph", PAIRS.replace("2]", "3]", 1), None]}
    assert trainer(functions.format, **batch) == [1.0, None, None, None]
    assert trainer.metrics["sg/without_reference"] == [0.25]
    assert trainer.metrics["sg/malformed_references"] == [pytest.approx(2 / 3)]
    assert trainer.columns["sg/format"] == [1.0, None, None, None]
    assert "malformed reference" in caplog.text and "no graph" in caplog.text


NAN = float("nan")
MIXTURE = {  # rows of another task have nulls, which tables may turn into NaN
    "completions": [chat(answer.wrap(TOON)), chat("4"), chat(answer.wrap(TOON)), chat(answer.wrap(TOON)), chat("")],
    "solution": [TOON, None, TOON, TOON, None],
    "width": [640, 640, None, 640.0, None],
    "height": [480, 480, 480, NAN, NAN],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_row_without_a_reference_gets_none(name, caplog):
    trainer = Trainer()
    values = trainer(get_function(name), **MIXTURE)
    assert values[1:] == [None] * 4 and values[0] is not None
    assert trainer.metrics["sg/without_reference"] == [0.8] and trainer.metrics["sg/malformed_references"] == [0.0]
    assert trainer.columns["sg/reason"] == [None] * 5 or name.startswith(("r1", "hard", "soft"))
    assert all(len(column) == 5 and column[1:] == [None] * 4 for column in trainer.columns.values())
    assert not caplog.text


def test_a_batch_of_rows_without_a_reference():
    trainer = Trainer()
    nothing = {"completions": ["a", "b"], "solution": [None] * 2, "width": [None] * 2, "height": [None] * 2}
    for function in reward_functions("full")[0]:
        assert trainer(function, **nothing) == [None, None]
    assert trainer.metrics == {"sg/without_reference": [1.0], "sg/malformed_references": [0.0]}


@pytest.mark.parametrize("solution", [42, 0.5, {}, [], ["x"], {"objects": []}, "", "4", True])
def test_the_answer_of_another_task_is_a_malformed_reference(solution, caplog):
    """A mixture may also have answers of its other tasks in the same column."""
    trainer = Trainer()
    batch = {"completions": [answer.wrap(TOON)] * 2, "solution": [TOON, solution], "width": 640, "height": 480}
    assert trainer(functions.relation_f1, **batch) == [1.0, None]
    assert trainer.metrics["sg/malformed_references"] == [0.5] and "left out of the rewards" in caplog.text


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_that_is_none_is_left_out(size):
    assert functions.format([answer.wrap(TOON)] * 2, [TOON] * 2, width=[640, size], height=480) == [1.0, None]


def test_a_reference_may_be_a_parsed_json_object():
    reference = json.loads(JSON)
    for f in reward_functions("r1-sgg")[0]:
        assert f([f"<think></think><answer>{JSON}</answer>"], [reference], width=100, height=100) == [1.0]
    score = compute_score("x", f"<answer>{JSON}</answer>", reference, {"width": 100, "height": 100})
    assert score["score"] == 9.5


def test_null_rows_in_the_adapters():
    for orm in ms_swift("full").values():
        assert orm()(**MIXTURE)[1:] == [0.0] * 4
    size = {"width": 640, "height": 480}
    zeros = dict.fromkeys(compute_score("x", "", TOON, size), 0.0)
    for reference, info in (
        (None, size),
        (None, None),
        (TOON, size | {"width": None}),
        (TOON, size | {"height": NAN}),
    ):
        assert compute_score("x", answer.wrap(TOON), reference, info) == zeros
    assert compute_score("x", "", None, None, preset="r1-sgg").keys() == {"score", *FAMILIES["r1-sgg"]}
    with pytest.raises(SgrlError, match="extra_info needs width and height"):
        compute_score("x", "", TOON, {"width": 640})
    with pytest.raises(SgrlError, match="'width' holds 'wide'"):
        compute_score("x", "", TOON, size | {"width": "wide"})


@pytest.mark.parametrize("completion", [None, [], chat(None), [None], chat("\ud800"), chat("\x00" * 1000)])
def test_no_completion_raises(completion):
    assert functions.format([completion], [TOON], width=640, height=480) == [0.0]
    assert functions.hard_recall([completion], [JSON], width=100, height=100) == [0.0]


def test_missing_columns_and_wrong_lengths():
    with pytest.raises(SgrlError, match="need the column 'width'"):
        functions.format([""], [TOON], height=480)
    with pytest.raises(SgrlError, match="need the column 'solution'"):
        functions.format([""], width=640, height=480)
    with pytest.raises(SgrlError, match="'height' holds 'tall'; expected a number of pixels, or null"):
        functions.format([""], [TOON], width=640, height=["tall"])
    with pytest.raises(SgrlError, match="2 completions, but 1 values in the column 'height'"):
        functions.format(["", ""], [TOON, TOON], width=[640, 640], height=[480])
    with pytest.raises(SgrlError, match="2 completions, but 1 solutions"):
        functions.format(["", ""], [TOON], width=640, height=480)


def test_misspelt_names():
    with pytest.raises(SgrlError, match="did you mean 'relation_f1'"):
        get_function("relation_f2")
    with pytest.raises(SgrlError, match="did you mean 'recall-only'"):
        reward_functions("recall_only")


@pytest.mark.parametrize("preset", PRESETS)
def test_reward_functions_follow_the_preset(preset):
    chosen, weights = reward_functions(preset)
    assert [f.term for f in chosen] == list(get_preset(preset).weights)
    assert weights == list(get_preset(preset).weights.values())
    assert len({f.__name__ for f in chosen}) == len(chosen)


def test_r1_sgg_in_training():
    text = f"<think></think><answer>{JSON}</answer>"
    values = {f.__name__: f([text, JSON], [JSON] * 2, width=100, height=100) for f in reward_functions("r1-sgg")[0]}
    assert values == {
        "r1_format": [1.0, 0.0],
        "r1_object_class": [1.0, 1.0],
        "r1_object_box": [1.0, 1.0],
        "hard_recall": [1.0, 1.0],
        "hard_recall_relax": [1.0, 1.0],
        "soft_recall": [1.0, 1.0],
    }


def test_options_make_functions_of_their_own_that_still_share():
    chosen, _ = reward_functions("full", iou_threshold=0.9)
    moved = answer.wrap(TOON.replace("0,0,100,100", "0,0,100,80"))
    by_name = {f.__name__: f for f in chosen}
    assert by_name["object_hallucination"]([moved], [TOON], width=640, height=480) == [-0.5]
    assert functions.object_hallucination([moved], [TOON], width=640, height=480) == [0.0]
    assert len({id(f.scorer) for f in chosen}) == 1
    copies = pickle.loads(pickle.dumps(chosen))
    assert len({id(f.scorer) for f in copies}) == 1
    assert copies[6]([moved], [TOON], width=640, height=480) == [-0.5]
    with pytest.raises(SgrlError, match="did you mean 'format'"):
        Term("fromat", BatchScorer())


@pytest.mark.parametrize("preset", PRESETS)
def test_the_adapters_cover_every_preset(preset):
    chosen = get_preset(preset)
    reference = JSON if chosen.family == "r1-sgg" else TOON
    text = f"<think></think>\n{answer.wrap(reference)}"
    size = {"width": 640, "height": 480}
    orms = ms_swift(preset)
    assert list(orms) == [f"sg_{function.__name__}" for function in reward_functions(preset)[0]]
    columns = {name: [value] for name, value in size.items()}
    values = [orm()([text], [reference], **columns)[0] for orm in orms.values()]
    total = sum(value * weight for value, weight in zip(values, chosen.weights.values(), strict=True))
    assert total == compute_score("x", text, reference, size, preset=preset)["score"] == chosen.maximum()


def test_ms_swift():
    orms = ms_swift("recall-only")
    assert list(orms) == ["sg_format", "sg_object_class", "sg_object_box", "sg_relation_recall"]
    reward = orms["sg_relation_recall"]()
    columns = {"width": [640] * 3, "height": [480] * 3, "messages": [[]] * 3}
    assert reward([answer.wrap(TOON), "", "x"], solution=[TOON, TOON, "malformed"], **columns) == [1.0, 0.0, 0.0]
    assert type(reward).__name__ == "sg_relation_recall"


def test_verl():
    result = compute_score("psg", answer.wrap(TOON), TOON, {"width": 640, "height": 480})
    assert result["score"] == 9.5 and result["relation_f1"] == 1.0
    assert compute_score("psg", "", TOON, {"width": 640, "height": 480}, preset="recall-only")["score"] == 0
    with pytest.raises(SgrlError, match="extra_info needs width and height"):
        compute_score("psg", "", TOON, None)
    with pytest.raises(FormatError):
        compute_score("psg", "", "no graph", {"width": 640, "height": 480})


@pytest.mark.slow
def test_a_step_of_grpo(tmp_path):
    """TRL itself calls the functions, takes None for an answer, and writes what they log."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("trl")
    import datasets
    import pandas
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    words = ["<pad>", "<eos>", "describe", "<answer>", "</answer>", "cat", "on", "mat"]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>")
    model = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    rows = {"prompt": ["describe"] * 4, "solution": [TOON] * 3 + ["no graph"], "width": [640] * 4, "height": [480] * 4}
    chosen, weights = reward_functions("full")
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=chosen,
        args=GRPOConfig(
            output_dir=str(tmp_path),
            reward_weights=weights,
            num_generations=2,
            per_device_train_batch_size=8,
            max_completion_length=4,
            max_steps=1,
            logging_steps=1,
            log_completions=True,
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
        ),
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "sg/valid" in entry)
    assert logged["sg/malformed_references"] == 0.25
    assert logged["sg/valid"] == 0 and logged["rewards/relation_f1/mean"] == 0
    (table,) = tmp_path.rglob("completions_*.parquet")
    columns = pandas.read_parquet(table)
    assert len(columns) == 8 and columns["sg/reason"].notna().sum() == 6
    assert columns["sg/relation_precision"].isna().sum() == 2


def test_rewards_that_a_configuration_names():
    assert rewards_named(["recall-only"]) == reward_functions("recall-only")
    chosen, weights = rewards_named(["r1_format", "soft_recall"])
    assert chosen == [functions.r1_format, functions.soft_recall] and weights == [1.0, 5.0]
    with pytest.raises(SgrlError, match="unknown reward 'relation_f2'; did you mean 'relation_f1'?"):
        rewards_named(["format", "relation_f2"])
    with pytest.raises(SgrlError, match="unknown reward 'ful'; did you mean 'full'?"):
        rewards_named(["ful"])


def test_weights_of_a_configuration():
    names = ["format", "relation_f1"]
    assert rewards_named(names, None, [1, 0.25])[1] == [1.0, 0.25]
    preset = reward_functions("balanced")[1]
    assert rewards_named(["balanced"], None, preset)[1] == preset
    with pytest.raises(SgrlError, match="sum to 6, but those of the preset 'recall-only' are .* sum to 6.5; remove"):
        rewards_named(["recall-only"], None, [0.5, 1.5, 1.5, 2.5])
    with pytest.raises(SgrlError, match=r"has 3 numbers, but reward names 2 terms \(format, relation_f1\)"):
        rewards_named(names, None, [1, 1, 1])
    for weights in ([0, 0], [1, float("nan")], [float("inf"), 1]):
        with pytest.raises(SgrlError, match="must be finite and not all zero"):
            rewards_named(names, None, weights)
