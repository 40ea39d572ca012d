"""Several processes and DeepSpeed, on CPUs: the recipes are the same, the launcher differs."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

GRPO = [
    *("recipes/grpo_psg.py", "--config", "recipes/configs/toy/grpo.yaml"),
    *("--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1"),
    *("--num_generations", "4", "--max_completion_length", "16"),
    *("--max_steps", "2", "--save_steps", "2", "--warmup_steps", "0", "--trainable", "all"),
    *("--vllm_engine_kwargs", '{"enforce_eager": true}'),  # tests of one process compile it, where they can
]

# Python runs a sitecustomize module at its start: in here, nobody finds vLLM.
WITHOUT_VLLM = """
import importlib.machinery

find_spec = importlib.machinery.PathFinder.find_spec


class PathFinder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "vllm" else find_spec(name, path, target)


import sys

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = PathFinder
"""

# DeepSpeed compiles shared-memory collectives at its first use on CPUs: most of a minute, and one process needs none.
WITHOUT_COMPILER = """
import runpy
import sys

import deepspeed.ops

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# accelerate takes FSDP only where there are accelerators, and on CPUs goes on with DDP without a word. Here it finds
# some; PyTorch's FSDP2 itself runs on CPUs.
FSDP_ON_CPUS = """
import runpy
import sys

from accelerate.state import AcceleratorState, DistributedType, PartialState

init = PartialState.__init__


def with_accelerators(self, *args, **kwargs):
    init(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self._shared_state["distributed_type"] = DistributedType.MULTI_GPU


PartialState.__init__ = with_accelerators
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert AcceleratorState().is_fsdp2
"""


def run(command, environment) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout + done.stderr


def state(folder: Path) -> dict:
    return json.loads((folder / "checkpoint-2" / "trainer_state.json").read_text())


def test_two_processes(toy, tmp_path, preloaded_environment):
    """They talk over gloo, and what is logged is of both."""
    output = tmp_path / "run"
    environment = {name: value for name, value in preloaded_environment.items() if name != "MASTER_PORT"}  # a free one
    paths = ["--model_name_or_path", toy / "model", "--dataset", toy / "data", "--output_dir", output]
    command = ["accelerate", "launch", "--config_file", "recipes/accelerate/cpu.yaml", *GRPO, *paths]
    run([*command, "--use_vllm", "false"], environment)
    log = state(output)["log_history"]
    assert [entry["step"] for entry in log] == [1, 2]
    # 2 processes x 8 graphs: prompts of 53 tokens at least
    assert log[0]["num_tokens"] > 2 * 8 * 50
    record = json.loads((output / "run.json").read_text())
    assert record["finished"]["steps"] == 2
    assert (output / "model.safetensors").exists()


def test_without_vllm(toy, tmp_path, cpu_environment):
    """`use_vllm: true` where vLLM is not installed goes on with transformers and says so."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_VLLM)
    environment = cpu_environment | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    output = tmp_path / "run"
    paths = ["--model_name_or_path", toy / "model", "--dataset", toy / "data", "--output_dir", output]
    printed = run(["python", *GRPO, *paths, "--use_cpu", "true"], environment)
    assert "vLLM is not installed in this environment, so rollouts come from transformers' generate" in printed
    log = state(output)["log_history"]
    assert [entry["step"] for entry in log] == [1, 2]
    assert "sampling/sampling_logp_difference/mean" not in log[0]
    assert (output / "model.safetensors").exists()


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_deepspeed(stage, toy, tmp_path, preloaded_environment):
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    (tmp_path / "without_compiler.py").write_text(WITHOUT_COMPILER)
    output = tmp_path / "run"
    paths = ["--model_name_or_path", toy / "model", "--dataset", toy / "data", "--output_dir", output]
    launcher = ["accelerate", "launch", "--config_file", f"recipes/accelerate/{stage}.yaml", "--num_processes", "1"]
    launcher += ["--mixed_precision", "no", "--main_process_port", preloaded_environment["MASTER_PORT"]]
    environment = preloaded_environment | {"DS_ACCELERATOR": "cpu"}
    run([*launcher, tmp_path / "without_compiler.py", *GRPO, *paths], environment)
    assert [entry["step"] for entry in state(output)["log_history"] if "loss" in entry] == [1, 2]
    assert (output / "model.safetensors").exists()


def test_fsdp2(toy, tmp_path, preloaded_environment):
    """Two processes with half of each weight: SFT, then GRPO with colocated vLLM from the model that SFT saved."""
    from safetensors.torch import load_file

    pytest.importorskip("vllm", reason="vLLM is not installed")
    (tmp_path / "fsdp_on_cpus.py").write_text(FSDP_ON_CPUS)
    launcher = ["accelerate", "launch", "--config_file", "recipes/accelerate/fsdp2.yaml", "--num_processes", "2"]
    launcher += ["--mixed_precision", "no", "--main_process_port", preloaded_environment["MASTER_PORT"]]
    sft = ["recipes/sft_psg.py", "--config", "recipes/configs/toy/sft.yaml", "--model_name_or_path", toy / "model"]
    sft += ["--dataset", toy / "data", "--output_dir", tmp_path / "sft", "--muon", "false"]
    sft += ["--max_steps", "2", "--save_steps", "2", "--warmup_steps", "0", "--global_batch_size", "8"]
    sft += ["--logging_steps", "1"]
    paths = ["--model_name_or_path", tmp_path / "sft", "--dataset", toy / "data", "--output_dir", tmp_path / "grpo"]
    for recipe in (sft, [*GRPO, *paths]):
        run([*launcher, tmp_path / "fsdp_on_cpus.py", *recipe], preloaded_environment)

    start, trained = (load_file(folder / "model.safetensors") for folder in (toy / "model", tmp_path / "sft"))
    # the full state holds tied embeddings under both names
    assert (trained.pop("lm_head.weight") == trained["model.language_model.embed_tokens.weight"]).all()
    assert {name: weight.shape for name, weight in trained.items()} == {n: w.shape for n, w in start.items()}
    assert all((trained[name] != weight).any() for name, weight in start.items() if weight.ndim == 2)
    log = state(tmp_path / "grpo")["log_history"]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2]
    # vLLM got whole weights, and they are those that train
    assert all(entry["sampling/sampling_logp_difference/mean"] < 0.01 for entry in log if "loss" in entry)
    assert (tmp_path / "grpo/model.safetensors").exists()
