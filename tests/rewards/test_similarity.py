"""Similarity of labels as a configuration names it: exact, a JSON table, a local sentence-transformers model."""

import json
import pickle

import pytest

from rewards import GraphScorer
from rewards.similarity import get_similarity
from rewards.trl import reward_functions, rewards_named
from sgrl.errors import SgrlError

REFERENCE = {
    "objects": [{"id": "man.1", "bbox": [10, 10, 200, 400]}, {"id": "cup.1", "bbox": [100, 100, 150, 180]}],
    "relationships": [{"subject": "man.1", "predicate": "holding", "object": "cup.1"}],
}
TRUE = json.dumps(REFERENCE)
NEAR = TRUE.replace("man.1", "person.1")
SIZE = {"width": 640, "height": 480}


def recall(function, text=NEAR):
    return function([f"<answer>{text}</answer>"], [TRUE], **SIZE)[0]


def soft_recall(similarity):
    functions, weights = rewards_named(["r1-sgg-soft-recall"], similarity)
    assert weights == [1.0, 2.0, 2.0, 5.0]
    return functions[-1]


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """A sentence-transformers model with random weights and a handful of words."""
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("embeddings")
    words = ["[PAD]", "[UNK]", "man", "person", "cup", "holding"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder / "bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder / "bert")
    SentenceTransformer(modules=[Transformer(str(folder / "bert")), Pooling(16)]).save(str(folder / "model"))
    return folder / "model"


def test_exact():
    assert recall(soft_recall("exact")) == recall(soft_recall(None)) == 0
    assert recall(soft_recall(None), TRUE) == 1


def test_a_table_from_a_file(tmp_path):
    (tmp_path / "table.json").write_text('{"person": {"man": 0.5}}')
    assert recall(soft_recall(str(tmp_path / "table.json"))) == pytest.approx(0.5)
    assert recall(soft_recall(str(tmp_path / "table.json")), TRUE) == 1


def test_single_functions_take_it_too(tmp_path):
    (tmp_path / "table.json").write_text('{"person": {"man": 0.5}}')
    (function,), weights = rewards_named(["hard_recall_relax"], str(tmp_path / "table.json"))
    assert recall(function) == pytest.approx(0.5) and weights == [5.0]


@pytest.mark.slow
def test_embeddings_of_a_local_model(embeddings):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(embeddings), device="cpu")
    a, b = model.encode(["man", "person"], normalize_embeddings=True)
    similarity = get_similarity(str(embeddings))
    assert similarity("man", "person") == pytest.approx(float(a @ b), abs=1e-5)
    assert similarity("man", "man") == pytest.approx(1.0)
    assert recall(soft_recall(str(embeddings))) == pytest.approx(float(a @ b), abs=1e-5)


@pytest.mark.slow
def test_each_label_is_embedded_once_and_the_model_loaded_once(embeddings, monkeypatch):
    similarity = get_similarity(str(embeddings))
    asked = []
    encode = similarity._model.encode
    monkeypatch.setattr(similarity._model, "encode", lambda labels, **more: asked.extend(labels) or encode(labels))
    for width in (640, 320):
        scorer = GraphScorer("json", width, 480, preset="r1-sgg", similarity=str(embeddings))
        for _ in range(3):
            scorer(f"<answer>{NEAR.replace('person', 'woman')}</answer>", TRUE)
    assert asked.count("woman") == 1
    functions, _ = reward_functions("r1-sgg", similarity=str(embeddings))
    assert recall(pickle.loads(pickle.dumps(functions[-1]))) == recall(functions[-1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("no JSON", "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"a": {"b": "x"}}', "read"),
    ],
)
def test_refused_before_anything_loads(tmp_path, content, message):
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SgrlError, match=message):
        rewards_named(["r1-sgg-soft-recall"], str(path))


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(SgrlError, match="sentence-transformers"):
        get_similarity(str(tmp_path))
