"""Loading, freezing and saving a model, and the pixel budget, on the tiny model."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sgrl import machine
from sgrl.errors import SgrlError
from sgrl.models.vlm import parts
from sgrl.models.vlm.folder import check_model_folder, model_folder
from sgrl.models.vlm.parts import aligners, missing_kernels
from sgrl.models.vlm.processor import check_same_processor, load_processor, pixel_budget, set_pixel_budget, thinks
from sgrl.models.vlm.template import store_thinking, template_arguments
from sgrl.task import Task
from sgrl.training import model as m


@pytest.fixture(scope="module")
def processor(toy):
    return load_processor(str(toy / "model"))


@pytest.fixture
def folder(toy, tmp_path):
    """A copy of the model folder, to damage."""
    return shutil.copytree(toy / "model", tmp_path / "model")


def test_what_trains(toy):
    model = m.load_model(str(toy / "model"))
    assert model.config._attn_implementation == "sdpa"
    counts = m.parameter_counts(model)
    assert counts["visual"][0] == 0 < counts["visual"][1]
    assert counts["language_model"][0] == counts["language_model"][1] > 0

    m.freeze(model, "decoder+aligner")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("visual.merger" in name for name in trained)
    assert not any("visual.blocks" in name for name in trained)

    m.freeze(model, "all")
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {trained == total for trained, total in m.parameter_counts(model).values()} == {True}

    m.freeze(model, "lora")
    assert m.parameter_counts(model) == counts


def test_unknown_trainable(toy):
    model = m.load_model(str(toy / "model"))
    with pytest.raises(SgrlError, match="unknown trainable: 'decoder\\+alinger'; did you mean 'decoder\\+aligner'"):
        m.freeze(model, "decoder+alinger")


def test_unknown_aligner():
    """A family whose aligner has none of the known names is told so, with the names."""
    decoder = torch.nn.Linear(2, 2)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.language_model = decoder
            self.bridge = torch.nn.Linear(2, 2)

        def get_decoder(self):
            return decoder

    with pytest.raises(SgrlError, match="Model has no module called merger, .*trainable: decoder or all"):
        aligners(Model())


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("Qwen2_5_VL", "visual.merger"),
        ("Qwen3_5", "visual.merger"),
        ("InternVL", "multi_modal_projector"),
        ("SmolVLM", "connector"),
        ("Gemma3", "multi_modal_projector"),
    ],
)
def test_aligner_of_other_families(family, name):
    """The families' own classes, without weights: the names are theirs, and only the aligner is found."""
    import transformers

    config = getattr(transformers, f"{family}Config")()
    config.get_text_config().pad_token_id = 0  # SmolVLM's default lies outside the default vocabulary
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    found = aligners(model)
    assert [n.removeprefix("model.") for n, module in model.named_modules() if module in found] == [name]


def test_lora_touches_the_language_model_alone(toy):
    from peft import get_peft_model
    from trl import ModelConfig

    model = m.load_model(str(toy / "model"), "lora")
    wrapped = get_peft_model(model, m.lora_config(model, "lora", ModelConfig(lora_r=4)))
    adapted = {name.split(".lora_")[0] for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    assert len(adapted) == 3 * 7  # layers x (q, k, v, o, gate, up, down)
    assert all(".language_model.layers." in name for name in adapted)


def test_merged_adapter_equals_model_with_adapter(toy, tmp_path, processor):
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText
    from trl import ModelConfig

    model = m.load_model(str(toy / "model"), "lora")
    wrapped = get_peft_model(model, m.lora_config(model, "lora", ModelConfig(lora_r=4)))
    torch.manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # zero at first, so that the adapter would change nothing
    wrapped.save_pretrained(tmp_path / "adapter")
    Task.read("psg").write(tmp_path / "adapter")
    m.merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert Task.find(tmp_path / "merged").vocabulary.name == "psg"  # what it is asked goes along

    tokens = processor.tokenizer("Write the scene graph.", return_tensors="pt")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    base = AutoModelForImageTextToText.from_pretrained(toy / "model")
    with torch.no_grad():
        expected, found, before = (model(**tokens).logits for model in (wrapped.eval(), merged, base))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - before).abs().max() > 0.01


def test_good_folder_and_hub_name(toy):
    check_model_folder(str(toy / "model"))
    with pytest.raises(SgrlError, match="Qwen/Qwen3.5-0.8B does not exist here, and the Hub cannot be asked"):
        check_model_folder("Qwen/Qwen3.5-0.8B")


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        (["config.json"], "has no config.json; expected a folder that `save_pretrained` wrote"),
        (["model.safetensors"], "has no weights"),
        (["processor_config.json"], "has no processor .*AutoProcessor.from_pretrained\\(BASE\\).save_pretrained"),
        (["tokenizer.json", "tokenizer_config.json"], "has no tokenizer"),
    ],
)
def test_damaged_folders(folder, removed, message):
    for name in removed:
        (folder / name).unlink()
    with pytest.raises(SgrlError, match=message):
        check_model_folder(str(folder))


def test_folders_that_are_something_else(tmp_path):
    with pytest.raises(SgrlError, match="does not exist; check `model_name_or_path`"):
        check_model_folder(str(tmp_path / "nothing"))
    with pytest.raises(SgrlError, match="no model is given"):
        check_model_folder(None)
    (tmp_path / "run" / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(SgrlError, match="holds checkpoints but no finished model"):
        check_model_folder(str(tmp_path / "run"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(SgrlError, match="holds a LoRA adapter alone"):
        check_model_folder(str(tmp_path / "adapter"))


def test_model_without_eyes(folder):
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SgrlError, match="cannot be loaded: .*[Qq]wen3"):
        m.load_model(str(folder))


def test_damaged_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SgrlError, match="cannot be loaded: .*header"):
        m.load_model(str(folder))


def test_processor_without_chat_template(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(SgrlError, match="has no chat template; expected chat_template.jinja"):
        load_processor(str(folder))


def test_thinking(processor):
    assert template_arguments(processor, False) == {}
    with pytest.raises(SgrlError, match="no `enable_thinking`"):
        template_arguments(processor, True)
    thinker = SimpleNamespace(chat_template="{% if enable_thinking %}<think>{% endif %}")
    assert template_arguments(thinker, False) == {"enable_thinking": False}
    assert template_arguments(thinker) == {"enable_thinking": False}


@pytest.mark.parametrize("name", ["qwen3_5_think", "qwen3_5_nothink"])
def test_the_chat_template_keeps_whether_it_thinks(name, toy, tmp_path):
    """The template's own default becomes the run's, for those that know nothing of this project too."""
    import trl
    from transformers import AutoProcessor

    closed, opened = "<think>\n\n</think>\n\n", "<think>\n"
    processor = load_processor(str(toy / "model"))
    processor.chat_template = (Path(trl.__file__).parent / f"chat_templates/{name}.jinja").read_text()
    published = processor.chat_template
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Write."}]}]
    for thinking in (True, False, True):
        store_thinking(processor, {"enable_thinking": thinking})
        assert processor.chat_template.endswith(published) and processor.chat_template.count("is not defined") == 1
        processor.save_pretrained(tmp_path)
        saved = AutoProcessor.from_pretrained(tmp_path)
        for reader in (saved, saved.tokenizer):
            text = reader.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            assert text.endswith(opened if thinking else closed), text
            told = {"add_generation_prompt": True, "tokenize": False, "enable_thinking": not thinking}
            assert reader.apply_chat_template(chat, **told).endswith(closed if thinking else opened)
        assert template_arguments(saved) == {"enable_thinking": thinking} and thinks(str(tmp_path)) is thinking
        assert template_arguments(saved, not thinking) == {"enable_thinking": not thinking}
    store_thinking(processor, {})
    assert thinks(str(tmp_path)) and not thinks(str(toy / "model"))


def test_pixel_budget(toy):
    processor = load_processor(str(toy / "model"))
    assert pixel_budget(processor) == (9216, 9216)
    assert not set_pixel_budget(processor, None, None)
    assert not set_pixel_budget(processor, 9216, 9216)
    assert set_pixel_budget(processor, 2304, 4096)
    assert pixel_budget(processor) == (2304, 4096)
    assert pixel_budget(load_processor(str(toy / "model"))) == (9216, 9216)  # the class's default is not touched
    with pytest.raises(SgrlError, match="min_pixels must be positive and at most max_pixels; they are 5000 and 4096"):
        set_pixel_budget(processor, 5000, None)


def test_families_without_a_pixel_budget():
    from transformers import SmolVLMImageProcessor

    processor = SimpleNamespace(image_processor=SmolVLMImageProcessor())
    assert pixel_budget(processor) is None
    with pytest.raises(SgrlError, match="SmolVLMImageProcessor has no pixel budget; .*resize the images"):
        set_pixel_budget(processor, None, 1000)


def test_changed_budget_reaches_vllm(toy, tmp_path):
    """The trainer's processor and that of the folder must agree; a folder of links carries a changed one."""
    source = str(toy / "model")
    processor = load_processor(source)
    check_same_processor(source, processor)
    set_pixel_budget(processor, 2304, 4096)
    with pytest.raises(
        SgrlError, match="the trainer's image processor has size = .*4096.*which vLLM reads, has .*9216"
    ):
        check_same_processor(source, processor)

    for _ in range(2):  # a resumed run writes it again
        linked = model_folder(source, processor, tmp_path / "start")
    check_model_folder(linked)
    check_same_processor(linked, processor)
    check_same_processor(source, load_processor(source))  # the source is as it was
    assert (tmp_path / "start" / "model.safetensors").is_symlink()
    assert not (tmp_path / "start" / "processor_config.json").is_symlink()
    assert m.load_model(linked).name_or_path == linked


def test_kernels_of_linear_attention(monkeypatch):
    """Only a model that has linear attention is slow without them, and the message names those that are missing."""
    linear = SimpleNamespace(
        get_text_config=lambda: SimpleNamespace(layer_types=["linear_attention", "full_attention"])
    )
    other = SimpleNamespace(get_text_config=lambda: SimpleNamespace(layer_types=["full_attention"]))
    here = {"causal_conv1d"}
    monkeypatch.setattr(parts.importlib.util, "find_spec", lambda name: name if name in here else None)
    assert missing_kernels(other) is None
    assert missing_kernels(linear).endswith("pip install --no-build-isolation flash-linear-attention")
    here.add("fla")
    assert missing_kernels(linear) is None
    here.clear()
    assert "without flash-linear-attention and causal-conv1d;" in missing_kernels(linear)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [(each.level, each.advice) for each in machine.check_kernels(linear)] == [
        ("warn", "pip install --no-build-isolation flash-linear-attention causal-conv1d")
    ]
    assert not list(machine.check_kernels(other))
