"""What every recipe does first: settings of the machine and of the log, and an end that a launcher understands."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from sgrl.arguments import program_name
from sgrl.errors import SettingError, UsageError
from sgrl.process import end_with_launcher, end_with_parent, run_command
from sgrl.terminal import LogFormatter

# Set before torch and vLLM are imported, wherever the user has not set them.
ENVIRONMENT = {
    # vLLM on a CPU; it reads neither on a GPU.
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; by default vLLM takes half of a CPU machine's memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # pinned threads starve when anything else runs on their core
    # Work on a CPU, in machines with GPUs as well.
    "GOMP_SPINCOUNT": "10000",  # idle threads wait some microseconds for work: asleep at once, two are slower than one
    "TOKENIZERS_PARALLELISM": "false",  # the data loaders' workers are processes of their own
}


def set_environment() -> None:
    """Set ENVIRONMENT where the user has not; before torch and vLLM are imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def command(main: Callable[[], int | None]) -> Callable[[], None]:
    """Decorate a recipe's `main`, which may return an exit status: settings of the machine first, log lines,
    `run_command`."""

    if main.__module__ == "__mp_main__":  # in a new interpreter that vLLM started: it imports the recipe, too
        end_with_parent()

    @functools.wraps(main)
    def wrapped() -> None:
        set_environment()
        end_with_launcher()
        first = os.environ.get("RANK", "0") == "0"
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
        for package in ("sgrl", "recipes"):
            logging.getLogger(package).setLevel(logging.INFO if first else logging.WARNING)
        status = run_command(program_name(Path(sys.argv[0]).name), lambda: _placed(main))
        if status > 128 and (status != 128 + signal.SIGINT or _in_process_group()):
            # What else runs in here may wait for others of the group, or for ended children, for ever.
            os._exit(status)
        if status:
            sys.exit(status)
        _leave_process_group()

    return wrapped


def _placed(main: Callable[[], int | None]) -> int | None:
    """Run `main`; an error about a setting says where that was written."""
    try:
        return main()
    except SettingError as error:
        words = sys.argv[1:]
        if any(word.partition("=")[0] == f"--{error.setting}" for word in words):
            raise UsageError(f"the option --{error}") from error
        if "--config" not in words[:-1]:
            raise
        raise UsageError(f"{place_of(words[words.index('--config') + 1], error.setting)}, {error}") from error


def place_of(config: str, key: str) -> str:
    """Where a YAML file has a key, as "FILE, line N"."""
    lines = Path(config).read_text(encoding="utf-8").splitlines()
    line = next((number for number, text in enumerate(lines, 1) if text.startswith(f"{key}:")), None)
    return f"{config}, line {line}" if line else config


def _in_process_group() -> bool:
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    return distributed is not None and distributed.is_initialized()


def _leave_process_group() -> None:
    """Left to the interpreter's exit, gloo's threads may abort or hang a process, and the launcher ends the others."""
    if _in_process_group():
        import torch.distributed as distributed

        vllm = sys.modules.get("vllm.distributed.parallel_state")
        if vllm is not None and vllm.model_parallel_is_initialized():
            vllm.cleanup_dist_env_and_memory()  # an engine in this process has groups of its own
        if distributed.is_initialized():
            distributed.destroy_process_group()
