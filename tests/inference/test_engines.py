"""Engines give the same text for the same image, and predictions on disk survive interruptions."""

import json
import logging
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from sgrl.errors import SgrlError
from sgrl.files import fingerprint
from sgrl.inference import load_engine
from sgrl.inference.predictions import PredictionFolder, model_fingerprint
from sgrl.inference.video import generate_apart
from sgrl.models.vlm.chat import ChatRenderer

PROMPT = [{"role": "user", "content": "Write the scene graph."}]
LONGER = [{"role": "user", "content": "Please look closely, then write the scene graph. " * 3}]


def scenes(count, size=96):
    generator = np.random.default_rng(3)
    return [Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from sgrl.tiny import build_tiny_vlm

    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_vlm(folder, seed=4)
    return folder


@pytest.fixture(scope="module")
def transformers_engine(model):
    return load_engine("transformers", model, max_new_tokens=12, batch_size=3)


def test_a_padded_batch_gives_what_single_images_give(transformers_engine):
    images = scenes(5)
    prompts = [PROMPT, LONGER, PROMPT, LONGER, PROMPT]
    together = transformers_engine.generate(images, prompts)
    alone = [transformers_engine.generate([image], [prompt])[0] for image, prompt in zip(images, prompts, strict=True)]
    assert [generation.text for generation in together] == [generation.text for generation in alone]
    assert len({generation.text for generation in together}) > 1
    for generation in together:
        assert generation.tokens == 12 and generation.finish_reason == "length" and generation.seconds > 0


def test_generation_ends_at_the_end_token(model, transformers_engine):
    first = transformers_engine.chat.tokenizer(transformers_engine.generate(scenes(1), [PROMPT])[0].text)["input_ids"][
        0
    ]
    engine = load_engine("transformers", model, max_new_tokens=12)
    engine._ends = {first}
    engine._model.generation_config.eos_token_id = [first]
    (generation,) = engine.generate(scenes(1), [PROMPT])
    assert (generation.tokens, generation.finish_reason) == (1, "stop")


def test_placeholders_are_never_written(transformers_engine):
    processor = transformers_engine.chat.processor
    assert transformers_engine._banned == sorted([processor.image_token_id, processor.video_token_id])


def test_an_image_that_the_processor_refuses_is_refused_alone(transformers_engine):
    images = [Image.new("RGB", size) for size in ((96, 96), (3000, 14), (96, 96))]
    found = generate_apart(transformers_engine, images, [PROMPT] * 3, [None] * 3)
    assert [one.finish_reason == "refused" for one in found] == [False, True, False]
    assert "refuses an image of 3000 x 14 pixels" in found[1].error and found[0].tokens > 0


def test_prompts_hold_one_placeholder_before_the_text(model):
    chat = ChatRenderer(str(model), thinking=False)
    ids = chat.token_ids(PROMPT)
    assert ids.count(chat.processor.image_token_id) == 1
    text = chat.text(PROMPT)
    assert text.index("<|image_pad|>") < text.index("Write the scene graph.")
    parts = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Write the scene graph."}]}]
    assert chat.text(parts) == text
    assert PROMPT == [{"role": "user", "content": "Write the scene graph."}]  # rendering changes no row


def test_a_count_that_does_not_fit_is_named(transformers_engine):
    with pytest.raises(SgrlError, match="2 images and 1 prompts"):
        transformers_engine.generate(scenes(2), [PROMPT])


def test_misspelt_choices_are_named(model):
    with pytest.raises(SgrlError, match="unknown engine 'vlm'; did you mean 'vllm'"):
        load_engine("vlm", model)
    with pytest.raises(SgrlError, match="unknown dtype 'float'; did you mean"):
        load_engine("transformers", model, dtype="float")


def test_a_folder_without_processor_is_refused(model, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(model, folder)
    (folder / "processor_config.json").unlink()
    with pytest.raises(SgrlError, match="has no processor .* save the base model's there"):
        load_engine("auto", folder)
    with pytest.raises(SgrlError, match="does not exist"):
        load_engine("auto", tmp_path / "nowhere")


def test_without_vllm_auto_takes_transformers_and_says_so(model, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not installed
    with pytest.raises(
        SgrlError, match="'vllm' was asked for, but vLLM is not installed; install it .* 'transformers'"
    ):
        load_engine("vllm", model)
    with caplog.at_level(logging.WARNING, logger="sgrl"):
        engine = load_engine("auto", model, max_new_tokens=2)
    assert engine.name == "transformers"
    assert "Using transformers, because vLLM is not installed." in caplog.text


def test_a_broken_vllm_does_not_stop_auto(model, monkeypatch, tmp_path, caplog):
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    for name in [name for name in sys.modules if name == "vllm" or name.startswith("vllm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_engine("auto", model, max_new_tokens=2).name == "transformers"
    assert "libcudart" in caplog.text


@pytest.mark.slow
def test_vllm_gives_the_text_of_transformers(model):
    pytest.importorskip("vllm")
    images = scenes(6)
    prompts = [PROMPT, LONGER] * 3
    slow = load_engine("transformers", model, max_new_tokens=30)
    fast = load_engine("vllm", model, max_new_tokens=30, batch_size=4)
    expected, found = slow.generate(images, prompts), fast.generate(images, prompts)
    assert [(g.text, g.tokens, g.finish_reason) for g in found] == [
        (g.text, g.tokens, g.finish_reason) for g in expected
    ]
    with pytest.raises(SgrlError, match="too long"):
        fast.generate(images[:1], [[{"role": "user", "content": "word " * 9000}]])
    fast.close()


RUN = {"model": "m", "model_fingerprint": "1", "dataset": "d", "engine": "vllm"}
IDENTITY = ("model_fingerprint", "engine")


def row(number):
    return {"dataset": "toy", "image_id": str(number), "prediction": "\ud800 half a character"}


def test_half_a_line_is_cut_off_and_the_rest_kept(tmp_path, caplog):
    folder = PredictionFolder(tmp_path, RUN, IDENTITY)
    folder.append([row(1), row(2)])
    whole = folder.path.read_bytes()
    for length in (1, 40, len(whole) // 2 - 1):
        folder.path.write_bytes(whole + whole[:length])
        again = PredictionFolder(tmp_path, RUN, IDENTITY)
        assert again.keys == {("toy", "1"), ("toy", "2")}
        assert folder.path.read_bytes() == whole
    assert "half a line" in caplog.text
    folder.path.write_bytes(whole[:10])
    assert PredictionFolder(tmp_path, RUN, IDENTITY).keys == set()
    assert list(folder) == []


def test_a_long_half_line_is_cut_off(tmp_path):
    folder = PredictionFolder(tmp_path, RUN, IDENTITY)
    folder.append([row(1)])
    whole = folder.path.read_bytes()
    folder.path.write_bytes(whole + b'{"prediction": "' + b"x" * 200_000)
    assert PredictionFolder(tmp_path, RUN, IDENTITY).keys == {("toy", "1")}
    assert folder.path.read_bytes() == whole


def test_other_runs_and_damage_are_refused(tmp_path):
    folder = PredictionFolder(tmp_path, RUN, IDENTITY)
    folder.append([row(1), row(2)])
    assert PredictionFolder(tmp_path, RUN | {"model": "moved"}, IDENTITY).run["model"] == "m"
    with pytest.raises(SgrlError, match="holds another run: its model_fingerprint is '1', this one's '2'"):
        PredictionFolder(tmp_path, RUN | {"model_fingerprint": "2"}, IDENTITY)
    lines = folder.path.read_text()
    folder.path.write_text(lines + lines)
    with pytest.raises(SgrlError, match="line 3: a second prediction for image '1'"):
        PredictionFolder(tmp_path, RUN, IDENTITY)
    folder.path.write_text("{}\n" + lines)
    with pytest.raises(SgrlError, match="line 1 is damaged .* remove this line"):
        PredictionFolder(tmp_path, RUN, IDENTITY)
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(SgrlError, match="run.json cannot be read"):
        PredictionFolder(tmp_path, RUN, IDENTITY)
    (tmp_path / "run.json").unlink()
    with pytest.raises(SgrlError, match="has no run.json beside it"):
        PredictionFolder(tmp_path, RUN, IDENTITY)


def test_fingerprints_tell_models_apart(model, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    assert model_fingerprint(folder) == model_fingerprint(model)
    (folder / "trainer_state.json").write_text("{}")
    assert model_fingerprint(folder) == model_fingerprint(model)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    for place in range(len(weights) // 2, len(weights)):  # a step of training changes weights all over the file
        weights[place] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert model_fingerprint(folder) != model_fingerprint(model)
    assert model_fingerprint("Qwen/Qwen3.5-0.8B") == "Qwen/Qwen3.5-0.8B"
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").write_bytes(json.dumps(RUN).encode())
    assert fingerprint([tmp_path / "a"]) != fingerprint([tmp_path / "b"])
