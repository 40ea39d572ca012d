"""A disk without room and a file where a folder should be end every command in one line; with room it finishes.

The system's limit on the size of files stands in for the disk: a write past it fails in the middle, as on a full one.
"""

import json
import runpy
import sys
from contextlib import contextmanager

import pytest
from PIL import Image

from data_prep import to_toon, toyworld
from sgrl.__main__ import main as sgrl
from sgrl.inference.judge import EngineJudge
from sgrl.process import one_line

resource = pytest.importorskip("resource")

GRAPH = "obj[1]{id,name,x1,y1,x2,y2}:\n  1,circle,8,8,32,32\nrel[0]{subj,pred,obj}:"
IMAGES = 6


@contextmanager
def no_room(size):
    """No file can grow past so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A toy world, its data set, own images and a run of predictions of them."""
    folder = tmp_path_factory.mktemp("room")
    assert toyworld.main(["--output", str(folder / "world"), "--train", "12", "--test", "4"]) == 0
    words = ["--layout", "psg", "--root", str(folder / "world"), "--output", str(folder / "data"), "--resize", "keep"]
    assert to_toon.main([*words, "--prompt", "short"]) == 0
    (folder / "own").mkdir()
    (folder / "run").mkdir()
    rows = []
    for number in range(IMAGES):
        Image.effect_noise((96, 96), 90).convert("RGB").save(folder / "own" / f"{number}.png")
        row = {"dataset": "files", "image_id": f"own/{number}.png", "prediction": GRAPH, "solution": None}
        rows.append(row | {"width": 96, "height": 96, "tokens": 5, "seconds": 0.1, "finish_reason": "stop"})
    (folder / "run" / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    info = {"model": "m", "codec": "toon", "dataset": str(folder / "data"), "input": [str(folder / "own")]}
    (folder / "run" / "run.json").write_text(json.dumps(info))
    return folder


@pytest.fixture
def commands(place, serve, root, monkeypatch):
    """Name -> a function that runs the command with an output and returns its exit status."""
    server = serve(otherwise=lambda body: "word " * 300 + GRAPH)

    def predict(output):
        words = ["--model", "m", "--engine", "openai", "--base-url", server.url, "--dataset", str(place / "data")]
        words += ["--input", str(place / "own"), "--output", output, "--attempts", "1", "--batch-size", "1"]
        monkeypatch.setattr(sys, "argv", ["recipes/predict.py", *words])
        try:
            runpy.run_path(str(root / "recipes/predict.py"), run_name="__main__")
        except SystemExit as error:
            return error.code
        return 0

    data, run = str(place / "data"), str(place / "run")
    return {
        "toyworld": lambda output: toyworld.main(["--output", output, "--train", "6", "--test", "2"]),
        "to_toon": lambda output: to_toon.main(
            ["--layout", "psg", "--root", str(place / "world"), "--output", output, "--resize", "keep"]
        ),
        "inspect": lambda output: sgrl(["inspect", data, "--output", output]),
        "report": lambda output: sgrl(["report", run, "--output", output]),
        "report of one file": lambda output: sgrl(["report", run, "--output", f"{output}/page.html"]),
        "draw": lambda output: sgrl(["draw", run, "--output", output]),
        "predict": predict,
    }


NAMES = ("toyworld", "to_toon", "inspect", "report", "report of one file", "draw", "predict")


def last_line(printed):
    assert "Traceback" not in printed.err
    line = printed.err.rstrip("\n").split("\n")[-1].split("\r")[-1]
    assert printed.err.endswith("\n") and ": " in line
    return line


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_one_line_and_with_room_the_command_finishes(commands, tmp_path, capsys, name):
    output = tmp_path / "out"
    with no_room(2600 if name == "predict" else 600):  # a run's own file fits
        assert commands[name](str(output)) == 1
    line = last_line(capsys.readouterr())
    assert "File too large" in line and ("make room" in line or "cannot be written" in line)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".part", ".lock"))]
    if name == "predict":  # half of one
        lines = (output / "predictions.jsonl").read_text()
        assert 0 < lines.count("\n") < IMAGES and not lines.endswith("\n")
    assert commands[name](str(output)) == 0
    if name == "predict":
        rows = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
        assert sorted(row["image_id"] for row in rows) == [f"own/{number}.png" for number in range(IMAGES)]
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".lock")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("deep", [False, True])
def test_a_file_where_a_folder_should_be_is_one_line(commands, tmp_path, capsys, name, deep):
    (tmp_path / "out").write_text("mine")
    assert commands[name](str(tmp_path / "out" / "deeper" if deep else tmp_path / "out")) == 1
    line = last_line(capsys.readouterr())
    assert str(tmp_path / "out") in line and ("choose another" in line)
    assert (tmp_path / "out").read_text() == "mine"


def test_answers_of_a_judge_are_not_cut_in_silence(tmp_path):
    """What is written without a buffer may be written in part, which is no error to the system."""
    judge = EngineJudge(None, "m", tmp_path / "judge.jsonl")
    row = {"judge": "m", "question": "q", "answer": "yes", "tokens": 1, "prompt_tokens": 1}
    with no_room(150), pytest.raises(OSError) as found:
        judge._append([row] * 3)
    assert one_line(found.value).startswith(f"{tmp_path / 'judge.jsonl'}: No space left on device; make room")
    judge._append([row | {"question": "r"}])
    assert list(judge._read({"q", "r"})) == ["q", "r"]


def test_checkpoints_on_a_full_disk_are_one_line(tmp_path):
    """What the libraries that write them say, in their own words."""
    import torch
    from safetensors.torch import save_file

    with no_room(1000):
        for write in (save_file, torch.save):
            arguments = {"x": torch.zeros(5000)}, str(tmp_path / "file")
            with pytest.raises(Exception) as found:
                write(*arguments)
            assert "make room and run the same command again" in one_line(found.value)
