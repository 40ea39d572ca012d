"""Every architecture family that the recipes name, built tiny: what trains, what the processor does, and a whole run."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from sgrl.errors import SgrlError
from sgrl.tiny import build_tiny_vlm
from sgrl.tiny.families import FAMILIES
from sgrl.training import model as m

# The modules of the vision tower, of the aligner and of the language model.
PARTS = {
    "qwen3_vl": ("model.visual.", "model.visual.merger.", "model.language_model."),
    "qwen3_5": ("model.visual.", "model.visual.merger.", "model.language_model."),
    "qwen2_5_vl": ("model.visual.", "model.visual.merger.", "model.language_model."),
    "internvl": ("model.vision_tower.", "model.multi_modal_projector.", "model.language_model."),
    "smolvlm": ("model.vision_model.", "model.connector.", "model.text_model."),
}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request) -> str:
    if request.param == "smolvlm":
        pytest.importorskip("num2words", reason="transformers' processor of SmolVLM needs num2words")
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory) -> str:
    """A model folder of the family, with random weights."""
    path = tmp_path_factory.mktemp(family) / "model"
    build_tiny_vlm(path, seed=3, family=family)
    return str(path)


@pytest.fixture(scope="module")
def processor(folder):
    return m.load_processor(folder)


def scene(seed: int = 0, width: int = 96, height: int = 96) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_published_names():
    """The names are those of the architectures; a typing error is told the right one."""
    assert set(PARTS) == set(FAMILIES)
    with pytest.raises(SgrlError, match="unknown family 'qwen3_6'; did you mean 'qwen3_5'"):
        build_tiny_vlm("unused", family="qwen3_6")


def test_model_sees_the_image(family, folder, processor):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.config.model_type == family
    assert sum(parameter.numel() for parameter in model.parameters()) < 1.1e6
    content = [{"type": "image"}, {"type": "text", "text": "Write the scene graph."}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[text] * 2, images=[[scene(0)], [scene(1)]], add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        first, second = model(**inputs).logits[:, -1].log_softmax(-1)
    assert (first - second).abs().mean() > 0.02


@pytest.mark.parametrize("trainable", ["decoder", "decoder+aligner", "all"])
def test_what_trains(family, folder, trainable):
    model = m.load_model(folder, trainable)
    vision, aligner, decoder = PARTS[family]
    frozen = {
        "decoder": lambda name: name.startswith((vision, aligner)),
        "decoder+aligner": lambda name: name.startswith(vision) and not name.startswith(aligner),
        "all": lambda name: False,
    }[trainable]
    names = [name for name, _ in model.named_parameters()]
    for prefix in (vision, aligner, decoder):
        assert any(name.startswith(prefix) for name in names)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        name for name in names if not frozen(name)
    }
    assert set(names) == {name for name in names if name.startswith((vision, aligner, decoder, "lm_head."))}


def test_what_lora_trains(family, folder):
    from peft import get_peft_model
    from trl import ModelConfig

    model = m.load_model(folder, "lora")
    linear = {
        f"base_model.model.{name}"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(PARTS[family][2])
    }
    wrapped = get_peft_model(model, m.lora_config(model, ModelConfig(lora_r=2)))
    adapted = {name.split(".lora_")[0] for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    assert adapted == linear and len(linear) >= 3 * 7


def test_pixel_budget(family, folder):
    """Qwen's processors have one; the others cut tiles, and say so."""
    processor = m.load_processor(folder)
    if family.startswith("qwen"):
        assert m.set_pixel_budget(processor, 2304, 4096)
        inputs = processor.image_processor(images=[scene(width=640, height=480)], return_tensors="pt")
        assert 2304 <= inputs["image_grid_thw"].prod() * 8 * 8 <= 4096
    else:
        with pytest.raises(SgrlError, match="has no pixel budget; remove min_pixels and max_pixels and resize"):
            m.set_pixel_budget(processor, None, 4096)
