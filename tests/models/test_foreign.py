"""Model folders from elsewhere: no code of theirs runs, nothing is asked, and what is wrong is said in a line."""

import ast
import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from sgrl.doctor import check_model
from sgrl.errors import SgrlError
from sgrl.inference import load_engine
from sgrl.models.vlm import template
from sgrl.models.vlm.folder import check_model_folder, load_config
from sgrl.models.vlm.processor import load_processor, thinks
from sgrl.training.model import load_model

CHAT = [{"role": "user", "content": "hello"}]


@pytest.fixture
def folder(toy, tmp_path, monkeypatch):
    """A copy of the model folder, to damage. Whoever asks a question on the terminal fails."""

    def ask(question=""):
        raise AssertionError(f"a question on the terminal: {question}")

    monkeypatch.setattr("builtins.input", ask)
    return shutil.copytree(toy / "model", tmp_path / "model")


def change(path: Path, **more) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def said_of(folder: Path) -> str:
    """What the inference engine says, which is what the doctor and the trainers say; one line."""
    with pytest.raises(SgrlError) as caught:
        load_engine("transformers", folder, max_new_tokens=2).chat.text(CHAT)
    said = str(caught.value)
    assert said.isprintable() and len(said) < 700
    findings = list(check_model(str(folder)))
    assert [f"{one.what}; {one.advice}".removesuffix("; ") for one in findings if one.level == "fail"] == [said]
    with pytest.raises(SgrlError) as caught:  # as recipes/sft_psg.py and recipes/grpo_psg.py
        check_model_folder(str(folder))
        load_config(str(folder))
        load_processor(str(folder))
    return said


################
# Code
################


@pytest.mark.parametrize("model_type", ["qwen3_vl", "evil"])
def test_code_that_a_model_brings_does_not_run(folder, model_type):
    mark = folder.parent / "mark"
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass C: pass\n")
    named = {name: "evil.C" for name in ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor")}
    for name in ("config.json", "processor_config.json"):
        change(folder / name, auto_map=named)
    change(folder / "config.json", model_type=model_type)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.C"]})
    if model_type == "evil":
        assert "it needs code of its own, which is not run; take a model of an architecture" in said_of(folder)
        with pytest.raises(SgrlError, match="it needs code of its own"):
            load_model(str(folder))
    else:  # transformers has this one itself
        assert "hello" in load_engine("transformers", folder, max_new_tokens=2).chat.text(CHAT)
        load_model(str(folder))
    assert not mark.exists()


def test_pickles_are_not_loaded(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert "has its weights as pickles (pytorch_model.bin), which may hold code and are not loaded" in said_of(folder)
    with pytest.raises(SgrlError, match="cannot be loaded"):
        load_model(str(folder))


def test_who_loads_says_that_no_code_is_trusted(root):
    """transformers asks on the terminal where `trust_remote_code` is left out."""
    silent = []
    for path in (*root.glob("sgrl/**/*.py"), *root.glob("data_prep/**/*.py"), *root.glob("recipes/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                ours = path.name == "foreign.py" or ast.unparse(node.func.value).startswith("Peft")
                if not ours and "trust_remote_code" not in [word.arg for word in node.keywords]:
                    silent.append(f"{path.relative_to(root)}:{node.lineno}")
    assert not silent


################
# Damage
################


def cut(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def settings(**more):
    return lambda folder: change(folder / "config.json", **more)


def header_of(length):
    return lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")


def shards(names):
    return write("model.safetensors.index.json", json.dumps({"weight_map": names}))


DAMAGES = {
    "config.json empty": (write("config.json", ""), r"config.json is no JSON object \(JSONDecodeError"),
    "config.json a list": (write("config.json", "[1]"), r"config.json is no JSON object \(it is a list\)"),
    "config.json nested": (write("config.json", "[" * 10**5), r"config.json is no JSON object \(RecursionError"),
    "config.json cut": (cut("config.json", 100), "config.json is no JSON object"),
    "no model_type": (write("config.json", "{}"), "cannot be loaded: "),
    "unknown model_type": (settings(model_type="evil"), "cannot be loaded: .*evil"),
    "model_type a list": (settings(model_type=["qwen3_vl"]), "cannot be loaded: "),
    "text_config a number": (settings(text_config=5), "cannot be loaded: "),
    "weights cut": (cut("model.safetensors", 5000), "the weights .*model.safetensors cannot be read"),
    "weights empty": (cut("model.safetensors", 0), "the weights .*model.safetensors cannot be read"),
    "weights of a huge header": (header_of(2**62), "the weights .*model.safetensors cannot be read"),
    "weights no safetensors": (header_of(2), "has no tensors|lack|cannot be"),
    "a shard is missing": (shards({"a": "model-00002.safetensors"}), "names 1 files that are not there, model-00002"),
    "shards of nothing": (shards([]), "names 1 files that are not there, none"),
    "tokenizer.json cut": (cut("tokenizer.json", 1000), "the processor of .* cannot be loaded"),
    "tokenizer.json a list": (write("tokenizer.json", "[]"), "the processor of .* cannot be loaded"),
    "tokenizer_config.json a list": (write("tokenizer_config.json", "[]"), "the processor of .* cannot be loaded"),
    "processor_config.json cut": (cut("processor_config.json", 50), "the processor of .* cannot be loaded"),
    "processor_config.json a list": (write("processor_config.json", "[]"), "the processor of .* cannot be loaded"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named_in_a_line(folder, kind):
    damage, message = DAMAGES[kind]
    damage(folder)
    with pytest.raises(SgrlError, match=message) as caught:
        load_engine("transformers", folder, max_new_tokens=2).chat.text(CHAT)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700
    findings = list(check_model(str(folder)))  # the doctor does not load weights
    assert kind == "weights no safetensors" or findings[-1].level == "fail"


def test_weights_that_are_missing_are_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "layers.1" in name and "down_proj" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SgrlError, match="lack 1 tensors that its config.json wants, .*layers.1.*down_proj"):
        load_model(str(folder))


################
# Chat templates
################

ESCAPE = "{{ cycler.__init__.__globals__.os.system('touch /nowhere/mark') }}"
LOOPS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
TEMPLATES = {
    "escape": (ESCAPE, "SecurityError"),
    "syntax": ("{% for %}", "TemplateSyntaxError"),
    "raises": ("{{ raise_exception('no\x1b[2J\nway') }}", r"TemplateError: no.*way"),
    "undefined": ("{{ nothing.more }}", "UndefinedError"),
    "range": ("{% for a in range(10**9) %}{% endfor %}", "OverflowError"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "loops": (LOOPS, "it does not end within 1 s"),
    "power": ("{{ 10 ** (10 ** 9) }}", "it does not end|MemoryError"),
    "memory": ("{{ 'a' * 10**10 }}", "MemoryError"),
    "length": ("{{ messages[0].role * 10**6 }}", "it makes 4,000,000 characters of"),
    "doubling": (
        "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "MemoryError|it does not end",  # whichever bound is reached first on this processor
    ),
    "only without thinking": ("{% if enable_thinking is false %}" + LOOPS + "{% endif %}", "it does not end"),
    "only for long prompts": ("{% if messages|string|length > 5000 %}" + LOOPS + "{% endif %}", "it does not end"),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_that_fails_or_never_ends_is_found_out(folder, kind, monkeypatch):
    monkeypatch.setattr(template, "TRY_SECONDS", 1)  # of a processor
    text, message = TEMPLATES[kind]
    (folder / "chat_template.jinja").write_text(text)
    with pytest.raises(
        SgrlError, match=f"the model's chat template fails: .*({message}).*; take chat_template.jinja"
    ) as caught:
        load_processor(str(folder))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_every_command_says_so(folder):
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    assert said_of(folder).startswith("the model's chat template fails: TemplateError: no")


def test_a_template_that_fails_later_is_one_line_too(toy):
    tokenizer = AutoTokenizer.from_pretrained(toy / "model")
    with pytest.raises(SgrlError, match="the model's chat template fails: .*; take chat_template.jinja of the base"):
        template.render(tokenizer, CHAT, chat_template="{{ messages[7].content.more }}")


def test_a_template_is_tried_once(toy, monkeypatch):
    load_processor(str(toy / "model"))
    monkeypatch.setattr("os.fork", lambda: pytest.fail("tried again"))
    load_processor(str(toy / "model"))


def test_a_template_that_is_no_text(folder):
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe{{ x }}")
    assert not thinks(str(folder))
    with pytest.raises(SgrlError, match="cannot be loaded: UnicodeDecodeError"):
        load_processor(str(folder))
