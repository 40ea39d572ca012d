"""recipes/predict.py against servers that fail: nothing is lost, nothing is asked twice, no video touches another."""

import _thread
import base64
import collections
import io
import json
import os
import re
import runpy
import shutil
import signal
import sys

import datasets
import pyarrow.parquet
import pytest
from PIL import Image

from data_prep import to_toon, toyworld
from sgrl.files import folder_lock
from sgrl.prompts import split_previous
from sgrl.task import Task
from sgrl.text import answer

VIDEOS, FRAMES = 3, 4


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three toy videos of four frames."""
    folder = tmp_path_factory.mktemp("clips")
    draw = ["--layout", "pvsg", "--output", str(folder / "world"), "--train", "1", "--test", "9"]
    assert toyworld.main([*draw, "--frames", str(FRAMES)]) == 0
    convert = ["--layout", "pvsg", "--root", str(folder / "world"), "--output", str(folder / "data")]
    assert to_toon.main([*convert, "--resize", "keep", "--prompt", "short", "--keep-empty"]) == 0
    (file,) = (folder / "data").glob("val-*.parquet")
    table = pyarrow.parquet.read_table(file)
    names = table["video_id"].to_pylist()  # a frame without an object is left out, and with it its video here
    whole = sorted(name for name, count in collections.Counter(names).items() if count == FRAMES)[:VIDEOS]
    assert len(whole) == VIDEOS
    pyarrow.parquet.write_table(table.filter([name in whole for name in names]), file)
    return folder / "data"


@pytest.fixture
def predict(root, tmp_path, monkeypatch, capsys, caplog):
    """Runs the recipe in this process and returns (exit status, the rows on disk, what was printed and logged)."""

    def run(server, dataset, *words, output=tmp_path / "run"):
        words = ["--model", "m", "--engine", "openai", "--base-url", server.url, *words]
        words += ["--dataset", dataset] if dataset else []
        words += ["--output", output, "--attempts", "1"]
        monkeypatch.setattr(sys, "argv", ["recipes/predict.py", *map(str, words)])
        try:
            runpy.run_path(str(root / "recipes/predict.py"), run_name="__main__")
            status = 0
        except SystemExit as error:
            status = error.code
        printed = capsys.readouterr()
        path = output / "predictions.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return status, rows, printed.out + printed.err + caplog.text

    return run


def picture(body):
    """The image of a request, as the server sees it."""
    return body["messages"][0]["content"][0]["image_url"]["url"]


def text_of(body):
    return body["messages"][0]["content"][1]["text"]


def graph(label):
    return f"obj[1]{{id,name,x1,y1,x2,y2}}:\n  1,{label},1,1,20,40\nrel[0]{{subj,pred,obj}}:"


DOWN = (503, {"error": {"message": "overloaded"}}, {})


@pytest.mark.parametrize("trouble", [DOWN, (401, {}, {}), (200, b"<html>", {}), "drop", "hang"])
def test_an_api_that_stops_half_way(serve, predict, toy, trouble):
    """Of 12 images in batches of 4 (two at a time), the server answers 5."""
    server = serve(*[lambda body: "graph"] * 5, otherwise=trouble)
    words = ["--limit", "12", "--batch-size", "4", "--timeout", "0.3"]
    status, rows, log = predict(server, toy / "data", *words)
    assert status == 1 and ("got an answer" in log or "refuses the request" in log)
    assert len(rows) == 5
    asked = {picture(body) for body in server.received}
    server.otherwise, server.received = lambda body: "graph", []
    status, rows, log = predict(server, toy / "data", *words)
    assert status == 0 and len(rows) == 12 == len({row["image_id"] for row in rows})
    assert len(server.received) == 7  # none of the five was asked again
    assert len(asked | {picture(body) for body in server.received}) == 12
    assert "12 images" in log


def test_a_second_process_in_one_folder_is_refused(serve, predict, toy, tmp_path):
    """As two jobs of one queue would: nothing is asked, and the first one's folder stays as it is."""
    server = serve(otherwise=lambda body: "graph")
    with folder_lock(tmp_path / "run"):
        status, rows, log = predict(server, toy / "data", "--limit", "2")
    assert status == 1 and f"run is being written by process {os.getpid()} " in log and not server.received
    shards = [["--limit", "2", "--num-shards", "2", "--shard-index", str(index)] for index in range(2)]
    with folder_lock(tmp_path / "run", shared=True), folder_lock(tmp_path / "run/shard-00000-of-00002"):
        assert predict(server, toy / "data", *shards[0])[0] == 1  # this part is somebody's
        assert predict(server, toy / "data", *shards[1])[0] == 0  # the other is free
        assert predict(server, toy / "data", "--limit", "2")[0] == 1
    status, rows, _ = predict(server, toy / "data", *shards[0])
    assert status == 0 and len({row["image_id"] for row in rows}) == 2


def test_garbage_for_one_image_is_named_and_tried_again(serve, predict, toy, tmp_path):
    server = serve("first", (200, {"choices": [{"message": {"content": 5}}]}, {}), otherwise=lambda body: "graph")
    server.script[0] = lambda body: "first"
    status, rows, log = predict(server, toy / "data", "--limit", "6", "--batch-size", "1")
    assert status == 1 and len(rows) == 5
    assert re.search(r"1 of 6 images have no prediction \(\d+: an answer that is no chat completion", log)
    words = ["--limit", "6", "--batch-size", "1", "--format", "jsonl"]
    status, rows, log = predict(server, toy / "data", *words)
    assert status == 0 and len(rows) == 6 and len(server.received) == 7
    graphs = [json.loads(line) for line in (tmp_path / "run/graphs.jsonl").read_text().splitlines()]
    assert [found["image_id"] for found in graphs] == [row["image_id"] for row in rows]


def test_interrupted_it_goes_on_there(serve, predict, toy):
    old = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores

    def interrupt(body):
        _thread.interrupt_main()
        return "graph"

    try:
        server = serve(*[lambda body: "graph"] * 5, interrupt, otherwise=lambda body: "graph")
        status, rows, log = predict(server, toy / "data", "--limit", "8", "--batch-size", "1")
    finally:
        signal.signal(signal.SIGINT, old)
    assert status == 130 and "interrupted after 4 images; the same command goes on there\n" in log and len(rows) == 4
    status, rows, _ = predict(server, toy / "data", "--limit", "8", "--batch-size", "1")
    assert status == 0 and len({row["image_id"] for row in rows}) == 8


class Camera:
    """A server that knows which frame it is asked about and writes a graph that names it, unless a frame is bad."""

    def __init__(self, serve, clips):
        rows = datasets.load_dataset("parquet", data_files=str(clips / "val-*.parquet"), split="train")
        self.rows = [row for row in rows.cast_column("image", datasets.Image(decode=False))]
        self.bad, self.contexts = {}, {}
        self.places, count = {}, {}
        for row in self.rows:
            count[row["video_id"]] = number = count.get(row["video_id"], -1) + 1
            with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                self.places[image.convert("RGB").tobytes()] = (row["video_id"], number)
        self.names = {place: f"{'abc'[sorted(count).index(place[0])]}{place[1]}" for place in self.places.values()}
        self.server = serve(otherwise=self)

    def __call__(self, body):
        with Image.open(io.BytesIO(base64.b64decode(picture(body).partition("base64,")[2]))) as image:
            name = self.names[self.places[image.convert("RGB").tobytes()]]
        found = re.search(r"[abc]\d", split_previous(text_of(body))[1] or "none")
        if name in self.bad:
            return self.bad[name]
        self.contexts[name] = found and found[0]
        return answer.wrap(graph(name))


USUAL = {f"{video}{i}": f"{video}{i - 1}" if i else None for video in "abc" for i in range(FRAMES)}


def test_each_frame_gets_the_graph_before_it(serve, predict, clips):
    camera = Camera(serve, clips)
    status, rows, log = predict(camera.server, clips, "--split", "val", "--context", "generated", "--batch-size", "2")
    assert status == 0, log
    assert camera.contexts == USUAL and len(rows) == VIDEOS * FRAMES


@pytest.mark.parametrize("trouble", [DOWN, (400, {"error": {"message": "too long"}}, {}), "nothing that is a graph"])
def test_the_error_of_one_video_touches_no_other(serve, predict, clips, tmp_path, trouble):
    """Frame 1 of video b fails: its frame 2 starts from frame 0, the other videos know nothing of it. Done later, the
    frame gets the graph before it, not that of the last frame of its video."""
    camera = Camera(serve, clips)
    camera.bad = {"b1": trouble}
    words = ["--split", "val", "--context", "generated", "--batch-size", "3"]
    status, rows, log = predict(camera.server, clips, *words)
    expected = {name: before for name, before in USUAL.items() if name != "b1"} | {"b2": "b0"}
    assert camera.contexts == expected
    if isinstance(trouble, str):
        assert status == 0 and len(rows) == 12
        return
    assert status == 1 and len(rows) == 11 and "1 of 12 images have no prediction" in log
    camera.bad, camera.contexts = {}, {}
    status, rows, log = predict(camera.server, clips, *words)
    assert status == 0 and len(rows) == 12 and camera.contexts == {"b1": "b0"}


def test_a_video_resumes_from_its_own_last_graph(serve, predict, clips):
    camera = Camera(serve, clips)
    camera.bad = {name: DOWN for name in USUAL if name[1] in "23"}
    words = ["--split", "val", "--context", "generated", "--batch-size", "3"]
    status, rows, log = predict(camera.server, clips, *words)
    assert status == 1 and len(rows) == 6 and "none of 3 images got an answer (status 503: overloaded)" in log
    camera.bad, camera.contexts = {}, {}
    status, rows, _ = predict(camera.server, clips, *words)
    assert status == 0 and len(rows) == 12
    assert camera.contexts == {name: before for name, before in USUAL.items() if name[1] in "23"}


def test_a_server_that_is_gone_ends_a_single_video_soon(serve, predict, toy, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(40):
        Image.new("RGB", (96, 96), (i, i, i)).save(frames / f"{i:03}.png")
    server = serve(otherwise=DOWN)
    words = ["--input", frames, "--context", "generated"]
    status, rows, log = predict(server, toy / "data", *words)
    assert status == 1 and rows == [] and "none of 8 images got an answer" in log and len(server.received) == 8


def test_a_video_with_missing_frames(serve, predict, clips, toy, tmp_path):
    """Frames that do not open are counted and named, and the video goes on from the last graph before them."""
    camera = Camera(serve, clips)
    shutil.copytree(clips, tmp_path / "damaged")
    (file,) = (tmp_path / "damaged").glob("val-*.parquet")
    table = pyarrow.parquet.read_table(file)
    rows = table.to_pylist()
    lost = [i for i, row in enumerate(camera.rows) if camera.names[row["video_id"], i % FRAMES] in ("b1", "c0")]
    for i in lost:
        rows[i]["image"]["bytes"] = rows[i]["image"]["bytes"][:200]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), file)
    words = ["--split", "val", "--context", "generated", "--batch-size", "3"]
    status, found, log = predict(camera.server, tmp_path / "damaged", *words)
    assert status == 1 and len(found) == 10
    assert "2 of 12 images have no prediction" in log and log.count("does not open") >= 2
    assert camera.contexts == {k: v for k, v in USUAL.items() if k not in ("b1", "c0")} | {"b2": "b0", "c1": None}

    # A folder with a gap in its numbers, and a file that is no image.
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in (0, 1, 4):
        Image.new("RGB", (96, 96), (60 * i, 0, 0)).save(frames / f"{i}.png")
    (frames / "3.png").write_bytes(b"no picture")
    server = serve(otherwise=lambda body: answer.wrap(graph(f"thing{len(server.received)}")))
    words = ["--input", frames, "--context", "generated"]
    status, found, log = predict(server, toy / "data", *words, output=tmp_path / "own")
    assert status == 1 and [row["image_id"] for row in found] == ["frames/0.png", "frames/1.png", "frames/4.png"]
    assert "1 of 4 images have no prediction (frames/3.png:" in log
    assert ["thing1" in text_of(body) for body in server.received] == [False, True, False]
    assert "thing2" in text_of(server.received[2])


def test_photographs_need_no_data_set(serve, predict, tmp_path):
    """A task by name or file says how to ask; one image that never opens is named each time, and costs nothing."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(20):
        Image.new("RGB", (1920, 1080), (i, i, i)).save(photos / f"{i:02}.jpg")
    (photos / "07.jpg").write_bytes(b"no picture")
    text = "obj[1]{id,name,x1,y1,x2,y2}:\n  1,person,100,200,500,1000\nrel[0]{subj,pred,obj}:"
    server = serve(otherwise=lambda body: answer.wrap(text))
    words = ["--input", photos, "--task", "psg", "--model", "qwen3-vl"]
    for left in (19, 0):
        status, rows, log = predict(server, None, *words)
        assert status == 1 and len(rows) == 19 and len(server.received) == left
        assert "1 of 20 images have no prediction (photos/07.jpg: image" in log and "tries these again" in log
        server.received = []
    assert "1,person,192,216,960,1080" in rows[0]["prediction"] and rows[0]["written"] == answer.wrap(text)
    assert json.loads((tmp_path / "run/usage.json").read_text())["images"] == 19
    Image.new("RGB", (1920, 1080)).save(photos / "07.jpg")
    status, rows, log = predict(server, None, *words, output=tmp_path / "again")
    assert status == 0 and len(rows) == 20
    assert "entering, exiting" in text_of(server.received[0])

    (tmp_path / "task.json").write_text('{"vocabulary": "psg", "prompt": "Name {objects}.", "system": "Be brief."}')
    words[3] = tmp_path / "task.json"
    status, rows, log = predict(server, None, *words, "--limit", "1", output=tmp_path / "own")
    system, user = server.received[-1]["messages"]
    assert status == 0 and system["content"] == "Be brief." and user["content"][1]["text"].startswith("Name person, b")

    status, _, log = predict(server, None, "--input", photos, output=tmp_path / "none")
    assert status == 2 and "not say how it is asked (it has no scene_graph.json); give --task: a name (psg," in log
    status, _, log = predict(server, None, output=tmp_path / "none")
    assert status == 2 and "nothing to look at is given; add --input PATH" in log


def test_a_task_of_another_layout_is_brought_into_that_of_the_references(serve, predict, toy, tmp_path):
    """A model that writes JSON in thousandths, on a data set of TOON in pixels."""
    task = {
        "codec": "json",
        "coordinates": "norm1000",
        "vocabulary": Task.of_dataset(toy / "data").vocabulary.to_json(),
    }
    (tmp_path / "task.json").write_text(json.dumps(task | {"prompt": "short"}))
    written = {"objects": [{"id": "circle.1", "bbox": [0, 250, 500, 1000]}], "relationships": []}
    server = serve(otherwise=lambda body: answer.wrap(json.dumps(written)))
    status, rows, log = predict(server, toy / "data", "--task", tmp_path / "task.json", "--limit", "2")
    assert status == 0 and "1,circle,0,24,48,96" in rows[0]["prediction"] and rows[0]["seen"] == [1000, 1000]
    assert rows[0]["solution"].startswith("obj[")
