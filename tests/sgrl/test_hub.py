"""Names on the Hub in the place of folders, with a stand-in for the Hub."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from sgrl import data, hub
from sgrl.errors import SgrlError

pytest.importorskip("huggingface_hub")
COMMIT = "0" * 40


@pytest.fixture
def server():
    """A Hub with what is put into `files`: path -> bytes, for the data set me/toy alone; `asked` are the paths."""
    files, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            asked.append(self.path)
            if "/api/datasets/me/toy/tree/" in self.path:
                entries = [
                    {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                    for name, body in files.items()
                ]
                return self.answer(200, json.dumps(entries).encode())
            if "/api/datasets/me/toy" in self.path:
                siblings = [{"rfilename": name} for name in files]
                return self.answer(200, json.dumps({"id": "me/toy", "sha": COMMIT, "siblings": siblings}).encode())
            name = self.path.rpartition("/")[2]
            if "/datasets/me/toy/resolve/" in self.path and name in files:
                return self.answer(200, files[name])
            if "gated" in self.path:
                return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        def answer(self, status, body, headers=None):
            self.send_response(status)
            etag = hashlib.sha256(body).hexdigest()
            about = {"Content-Length": str(len(body)), "ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
            for pair in (about | (headers or {})).items():
                self.send_header(*pair)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield SimpleNamespace(files=files, asked=asked, url=f"http://127.0.0.1:{found.server_port}", close=found.shutdown)
    found.shutdown()
    found.server_close()


CODE = """
import sys
from sgrl import data, hub
from sgrl.errors import SgrlError
for what, name in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        if what == "model":
            hub.check_model(name)
        else:
            train = [file.name for file in data.files(name, "train")]
            print(train, data.read_metadata(name)["codec"], data.splits(name))
    except SgrlError as error:
        print(error)
"""


def _child(folder, url, *words, **environment):
    settings = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
    out = subprocess.run(
        [sys.executable, "-c", CODE, *words], env=os.environ | settings | environment, cwd=folder, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    return out.stdout.splitlines()


def test_a_data_set_by_its_name(toy, server, tmp_path):
    server.files.update({path.name: path.read_bytes() for path in (toy / "data").glob("*.parquet")})
    server.files["big.bin"] = b"never loaded"
    rows = "['train-00000-of-00001.parquet'] toon ['train', 'test']"
    found = _child(tmp_path, server.url, "data", "me/toy", "data", "me/nope", "model", "me/nope", "model", "me/gated")
    assert found[0] == rows
    assert found[1] == (
        "me/nope does not exist here, and the Hub has no data set of that name; check it, or `hf auth login` if it is "
        "private"
    )
    assert "the Hub has no model of that name" in found[2] and "is gated: ask for access" in found[3]
    assert not any("big.bin" in path for path in server.asked)
    heads = len(server.asked)
    offline = _child(tmp_path, server.url, "data", "me/toy", "data", "me/nope", HF_HUB_OFFLINE="1")
    assert offline[0] == rows and len(server.asked) == heads  # from the cache
    assert offline[1].endswith(
        "cannot be asked for a data set of that name (HF_HUB_OFFLINE is set); check the path, or connect"
    )


def test_without_a_network(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*_, **__):
        raise LocalEntryNotFoundError("many lines\nof it")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(SgrlError) as raised:
        hub.check_model("me/elsewhere")
    assert str(raised.value) == (
        "me/elsewhere does not exist here, and the Hub cannot be asked for a model of that name (no network); check "
        "the path, or connect"
    )


def test_what_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "sft").mkdir(parents=True)
    assert hub.is_name("me/toy") and hub.is_name("Qwen/Qwen3.5-0.8B")
    for path in (
        "runs/sft",
        "runs/stf",
        "toy",
        "/me/toy",
        "./toy",
        "../me/toy",
        "~/toy",
        "a/b/c",
        "me/",
        "mé/toy",
        "",
    ):
        assert not hub.is_name(path), path
    with pytest.raises(SgrlError, match="runs/stf does not exist; expected a data set"):
        data.files("runs/stf")  # is no name: the folder that it would be in is here
