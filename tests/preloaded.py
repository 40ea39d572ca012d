"""Commands as a user types them, run in copies of one process that has imported what they import.

A training command spends most of its time in a test on `import trl` and `import vllm`. Each command still has a
process of its own, with the argument vector, the environment and the folder that a shell would give it.

`run` starts one. What starts commands itself (a shell script, a launcher of several processes) finds `interpreter`
in the place of Python.
"""

import json
import multiprocessing
import os
import runpy
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path

MODULES = ("accelerate.commands.launch", "datasets", "peft", "scipy.optimize", "torch.distributed.run")
MODULES += ("trl.trainer.sft_trainer", "trl.trainer.grpo_trainer", "vllm")

# What stands in the place of Python: it hands its command and its files on and ends as that ends. `-c` is Python's.
CLIENT = """
import array, json, os, signal, socket, sys
path, python, *words = sys.argv[1:]
plain = [word for word in words[:1] if word != "-u"] + words[1:]
if not plain or plain[0].startswith("-") and plain[0] != "-m":
    os.execv(python, [python, *words])
server = socket.socket(socket.AF_UNIX)
server.connect(path)
given = json.dumps([["python", *plain], os.getcwd(), dict(os.environ)]).encode()
files = array.array("i", [0, 1, 2])
server.sendmsg([len(given).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
server.sendall(given)
signal.signal(signal.SIGTERM, lambda *_: server.send(b"T"))
sys.exit(int(server.recv(8) or b"1"))
"""


def run(words: Sequence[object], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    """Like `subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)`, for commands of Python's.

    `accelerate launch` starts one process, with the environment that it gives it.
    """
    words = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _context().Process(target=_written, args=(words, str(cwd), env, str(out), str(err)))
        process.start()
        process.join()
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err)]
    return subprocess.CompletedProcess(words, process.exitcode, *texts)


@contextmanager
def interpreter(env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Programs `python` and `accelerate` that hand their commands on; yields `env` such that commands find them.

    They hand SIGTERM on; killed, they take with them what runs for them.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, client = Path(folder, "socket"), Path(folder, "client.py")
        client.write_text(CLIENT)
        words = shlex.join([sys.executable, "-IS", str(client), str(path), sys.executable])
        for name, more in (("python", ""), ("accelerate", "-m accelerate.commands.accelerate_cli")):
            Path(folder, name).write_text(f'#!/bin/sh\nexec {words} {more} "$@"\n')
            Path(folder, name).chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            process = _context().Process(target=_serve, args=(listener,))
            process.start()
        try:
            yield env | {"PATH": f"{folder}{os.pathsep}{env['PATH']}", "PYTHON_EXEC": str(Path(folder, "python"))}
        finally:
            process.terminate()
            process.join()


def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(MODULES))
    return context


def _serve(listener: socket.socket) -> None:
    """Run what clients hand over, each in a copy of this process."""
    running = {}  # sentinel of a process -> it, its client
    while True:
        clients = {client: process for process, client in running.values()}
        for ready in wait([listener, *running, *clients]):
            if ready is listener:
                client, _ = listener.accept()
                size, files, _, _ = socket.recv_fds(client, 8, 3)
                with client.makefile("rb") as stream:
                    given = stream.read(int.from_bytes(size, "big"))
                if not given or len(given) < int.from_bytes(size, "big"):  # killed as it wrote
                    for file in (client.detach(), *files):
                        os.close(file)
                    continue
                command = (*json.loads(given), files)
                process = multiprocessing.get_context("fork").Process(target=_command, args=command)
                process.start()
                running[process.sentinel] = (process, client)
                for file in files:
                    os.close(file)
            elif ready in clients:
                if clients[ready].sentinel in running:  # else its process has ended at the same moment
                    clients[ready].terminate() if ready.recv(1) else clients[ready].kill()
            else:
                process, client = running.pop(ready)
                process.join()
                with client, suppress(OSError):
                    client.sendall(str(process.exitcode % 256).encode())


def _written(words: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in (out, err)]
    _command(words, cwd, env, [os.open(os.devnull, os.O_RDONLY), *files])


def _command(words: list[str], cwd: str, env: dict[str, str], files: list[int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.executable = env.get("PYTHON_EXEC", sys.executable)
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
