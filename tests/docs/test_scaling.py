"""docs/scaling.md: its table is the script's, and its commands are understood by the programs that they start."""

import os
import re
import runpy
import shlex
import subprocess
import sys

import pytest

from sgrl.memory import Shape
from sgrl.training.launch import GRPOArguments, SFTArguments, parse


@pytest.fixture(scope="module")
def text(root) -> str:
    return (root / "docs/scaling.md").read_text()


@pytest.fixture(scope="module")
def commands(text) -> list[list[str]]:
    """Words of the commands in all blocks."""
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```$", text, flags=re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").strip().splitlines()
    return [shlex.split(line) for line in lines]


def test_the_table_is_the_scripts(root, text, commands):
    (command,) = (words for words in commands if "tools/memory.py" in words)
    done = subprocess.run([sys.executable, *command[1:]], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in text


def test_estimates_follow_from_the_shape(root):
    memory = runpy.run_path(str(root / "tools/memory.py"))
    training, shape = memory["training"], Shape(8e9, 8e9, 4096, 32, 32, 1024)
    # 6 + 12 bytes for each parameter: weights, their copies, gradients, Adam
    assert training(shape, "DDP", False, 8, False) == 18 * 8e9
    assert training(shape, "ZeRO-2", False, 8, False) == (2 + 14 / 8) * 8e9
    assert training(shape, "ZeRO-2", False, 8, True) == (4 + 14 / 8) * 8e9
    for way in memory["WAYS"]:
        assert training(shape, way, True, 8, False) < training(shape, way, False, 8, False)
    # keys and values of 32 layers x 1,024 in bfloat16
    assert memory["engine"](shape, 2, 100) - memory["engine"](shape, 1, 100) == 100 * 32 * 1024 * 2 * 2


def test_commands_of_accelerate(root, commands, tmp_path):
    from accelerate.commands.launch import launch_command_parser
    from trl import GRPOConfig, ModelConfig, SFTConfig

    found = [words for words in commands if words[:2] == ["accelerate", "launch"]]
    assert len(found) == 6
    for words in found:
        args = launch_command_parser().parse_args(words[2:])
        assert (root / args.config_file).is_file() and (root / args.training_script).is_file()
        assert bool(args.num_machines) == bool(args.main_process_ip)
        sft = "sft" in args.training_script
        classes = (SFTArguments, SFTConfig, ModelConfig) if sft else (GRPOArguments, GRPOConfig, ModelConfig)
        options = [*args.training_script_args, "--output_dir", str(tmp_path), "--use_cpu", "true"]
        parse(classes, [str(root / word) if word.endswith(".yaml") else word for word in options])


def test_every_accelerate_file_is_in_the_table(root, text):
    for path in (root / "recipes/accelerate").glob("*.yaml"):
        assert f"`{path.name}`" in text or path.name == "cpu.yaml"


def test_options_of_the_server(commands):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    (words,) = (words for words in commands if "vllm" in words)
    assert words[:3] == ["VLLM_SERVER_DEV_MODE=1", "vllm", "serve"]
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(words[3:])
    assert args.enable_scale_out and args.tensor_parallel_size == 2
    # what TRL's own launcher imposes
    from trl.scripts.vllm_serve import ScriptArguments, build_command

    imposed = build_command(ScriptArguments(model="runs/sft"))
    assert set(imposed[imposed.index("--enable-scale-out") :]) <= set(words)


STUBS = {
    "scontrol": 'echo "node-a"; for i in {1..20000}; do echo "node-$i"; done',  # more than a pipe holds
    "srun": 'for node in 0 1; do SLURM_NODEID=$node "$@"; done',
    "accelerate": 'printf "%s\\n" "$*"',
}


def test_slurm(root, tmp_path):
    """With stand-ins for SLURM's commands: each node gets its rank, the first node's address and all GPUs' number."""
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node-[a-b]",
    }
    environment |= {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "123456"}
    command = ["bash", "recipes/accelerate/slurm.sh", "zero3", "recipes/grpo_psg.py", "--config", "a b.yaml"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"launch --config_file recipes/accelerate/zero3.yaml --num_machines 2 --machine_rank {rank} "
        "--num_processes 16 --main_process_ip node-a --main_process_port 23456 recipes/grpo_psg.py --config a b.yaml"
        for rank in (0, 1)
    ]
