"""What the tests share."""

import multiprocessing
import os
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import hypothesis
import pytest

# Nothing may reach for the network, and vLLM must find the settings of a machine without a GPU before it is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The machine may be busy: no example fails because it took long.
hypothesis.settings.register_profile("sgrl", deadline=None)
hypothesis.settings.load_profile("sgrl")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Known answers and samples of the official data layouts. They travel beside the checkout, not in it."""
    folder = ROOT.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip("the known answers beside the checkout (../shared) are not here")
    return folder


def _traced(call: Callable, arguments: tuple) -> int:
    tracemalloc.start()
    call(*arguments)
    return tracemalloc.get_traced_memory()[1]


@pytest.fixture(scope="session")
def traced_peak() -> Callable[..., int]:
    """`traced_peak(function, *arguments)`: the most bytes that Python held during the call of a module's function.

    Measured in a new process, for in this one other tests' threads allocate as well.
    """

    def peak(call: Callable, *arguments) -> int:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_traced, call, arguments).result()

    return peak


@pytest.fixture(scope="session")
def cpu_environment() -> dict[str, str]:
    """For commands that are run as a user runs them: the interpreter of the tests first, one thread, a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",  # tests run side by side
        "MASTER_PORT": str(port),
    }


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """A toy world in `data` (64 scenes to train on, 16 held out) and a tiny model with random weights in `model`."""
    folder = tmp_path_factory.mktemp("toy")
    for command in (
        ["data_prep/toyworld.py", "--output", folder / "world", "--train", "64", "--test", "16", "--seed", "1"],
        ["data_prep/to_toon.py", "--dataset", "psg", "--root", folder / "world", "--output", folder / "data"]
        + ["--resize", "keep", "--prompt", "short"],
        ["-m", "sgrl.tiny", "--output", folder / "model"],
    ):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    return folder
