"""The tiny model is an ordinary model folder, and its tokenizer loses nothing."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from sgrl.text import answer, get_codec
from sgrl.tiny import build_tiny_vlm
from sgrl.tiny.model import TOY_OBJECTS, TOY_PREDICATES
from sgrl.tiny.tokenizer import build_tokenizer

TEXT = (
    "<answer>\nobj[3]{id,name,x1,y1,x2,y2}:\n  1,circle,4,8,40,44\n  2,square,0,12,96,44\n  3,cross,8,8,16,16\n"
    "rel[2]{subj,pred,obj}:\n  1,inside,2\n  3,left-of,1\n</answer>"
)
TOKENIZER = build_tokenizer(TOY_OBJECTS, TOY_PREDICATES, texts=["Write the scene graph."])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_vlm(path, seed=1)
    return path


def scene(width=96, height=96):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def chat(processor, image, text="Write the scene graph."):
    content = [{"type": "image", "image": image}, {"type": "text", "text": text}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def test_each_cell_of_a_graph_is_one_token():
    pieces = [TOKENIZER.decode([token]) for token in TOKENIZER.encode(TEXT)]
    assert pieces[:8] == ["<answer>", "\nobj[3]{id,name,x1,y1,x2,y2}:", "\n  1", ",circle", ",4", ",8", ",40", ",44"]
    assert pieces[-7:] == ["\n  1", ",inside", ",2", "\n  3", ",left-of", ",1", "\n</answer>"]
    assert "".join(pieces) == TEXT
    assert len(pieces) == 2 + 1 + 3 * 6 + 1 + 2 * 3


@pytest.mark.parametrize("codec, tokens", [("toon", 28), ("toon-lean", 25), ("json", 43)])
def test_each_layout_can_have_its_tokens(codec, tokens):
    """The ratios are about those of general tokenizers; nothing of a graph is spelt in letters."""
    tokenizer = build_tokenizer(TOY_OBJECTS, TOY_PREDICATES, codec=codec)
    graph = get_codec("toon").decode(TEXT, 96, 96)
    text = answer.wrap(get_codec(codec).encode(graph))
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text and len(pieces) == tokens
    assert all(len(piece) > 1 or piece.isdigit() for piece in pieces)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT  # another layout is spelt out


def test_pairs_have_their_tokens():
    text = "<answer>\nobj[1]{id,name,x1,y1,x2,y2}:\n  1,cup/glass/bottle,4,8,40,44\n"
    text += 'rel_pairs[1]{subj,attention,spatial,contacting,obj}:\n  1,unsure,"",holding|touching,2\n</answer>'
    tokenizer = build_tokenizer(["cup/glass/bottle"], ["unsure", "holding", "touching"], codec="toon-pairs")
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert pieces[8:] == [
        "\nrel_pairs[1]{subj,attention,spatial,contacting,obj}:",
        *("\n  1", ",unsure", ',""', ",holding", "|touching", ",2", "\n</answer>"),
    ]


@given(st.text())
def test_any_text_survives(text):
    for special in TOKENIZER.all_special_tokens:
        text = text.replace(special, "")
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_prompt_words_are_single_tokens():
    assert len(TOKENIZER.encode("Write the scene graph.")) == 5


def test_the_seed_decides_the_weights(folder, tmp_path):
    build_tiny_vlm(tmp_path / "same", seed=1)
    build_tiny_vlm(tmp_path / "other", seed=2)
    weights = (folder / "model.safetensors").read_bytes()
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == weights
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != weights
    build_tiny_vlm(tmp_path / "other", seed=1)  # an existing folder is replaced
    assert (tmp_path / "other" / "model.safetensors").read_bytes() == weights


def test_boxes_stay_in_pixels_and_photos_fit_the_budget(folder):
    processor = AutoProcessor.from_pretrained(folder)
    inputs = chat(processor, scene())
    assert inputs["image_grid_thw"].tolist() == [[1, 12, 12]]
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 36
    height, width = chat(processor, scene(640, 480))["image_grid_thw"][0, 1:].tolist()
    assert height * width <= 144 and width >= height


@pytest.mark.parametrize("size", [(96, 96), (640, 480)])
def test_transformers_generates(folder, size):
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) < 1.1e6
    inputs = chat(processor, scene(*size))
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=8, min_new_tokens=8)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 8


@pytest.mark.slow
def test_vllm_agrees_with_transformers(folder, monkeypatch):
    vllm = pytest.importorskip("vllm")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setitem(os.environ, "VLLM_CPU_KVCACHE_SPACE", "1")
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    inputs = chat(processor, scene())
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=12, min_new_tokens=12)
    expected = output[0, inputs["input_ids"].shape[1] :].tolist()
    engine = vllm.LLM(str(folder), dtype="float32", enforce_eager=True, max_model_len=512, seed=0)
    content = [
        {"type": "image_pil", "image_pil": scene()},
        {"type": "text", "text": "Write the scene graph."},
    ]
    sampling = vllm.SamplingParams(temperature=0, max_tokens=12, min_tokens=12)
    result = engine.chat([[{"role": "user", "content": content}]], sampling, use_tqdm=False)
    assert list(result[0].outputs[0].token_ids) == expected
