"""Commands as a user types them, run in copies of one process that has imported what they import.

A training command spends most of its time in a test on `import trl` and `import vllm`. Each command still has a
process of its own, with the argument vector, the environment and the folder that a shell would give it.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MODULES = ("datasets", "peft", "scipy.optimize", "trl.trainer.sft_trainer", "trl.trainer.grpo_trainer", "vllm")


def run(words: Sequence[object], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    """Like `subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)`, for commands of Python's.

    `accelerate launch` starts one process, with the environment that it gives it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(MODULES))
    words = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = context.Process(target=_command, args=(words, str(cwd), env, str(out), str(err)))
        process.start()
        process.join()
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err)]
    return subprocess.CompletedProcess(words, process.exitcode, *texts)


def _command(words: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    if words[:2] == ["accelerate", "launch"]:
        words = _launched(words[2:])
    name, *arguments = words[1:]
    if name == "-m":
        name, *arguments = arguments
        sys.argv, sys.path[0] = [name, *arguments], cwd
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [name, *arguments], str(Path(cwd, name).parent)
        runpy.run_path(name, run_name="__main__")


def _launched(options: list[str]) -> list[str]:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    args, *_ = _validate_launch_command(launch_command_parser().parse_args(["--num_processes", "1", *options]))
    assert args.use_cpu
    words, environment = prepare_simple_launcher_cmd_env(args)
    os.environ.update(environment)
    return words
