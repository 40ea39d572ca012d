"""The converter on videos, with workers, in jobs, interrupted and resumed, and what lies beside the Parquet files."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import datasets
import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from data_prep import card, to_toon, toyworld
from data_prep.images import Job, encode_all, encoded, scaled
from data_prep.report import Report
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.prompts import with_context
from sgrl.vocabulary import get_vocabulary

VIDEOS = ("pvsg", "action_genome", "psg4d_hoi")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """layout -> folder"""
    folder = tmp_path_factory.mktemp("worlds")
    for layout in VIDEOS:
        arguments = ["--layout", layout, "--output", str(folder / f"toy-{layout}"), "--train", "5", "--test", "4"]
        assert toyworld.main([*arguments, "--frames", "6"]) == 0
    assert toyworld.main(["--output", str(folder / "toy-psg"), "--train", "30", "--test", "6"]) == 0
    return {layout: folder / f"toy-{layout}" for layout in (*VIDEOS, "psg")}


def run(layout, root, output, *more):
    arguments = ["--layout", layout, "--root", str(root), "--output", str(output), "--prompt", "short"]
    return to_toon.main([*arguments, "--resize", "keep", *more])


def rows(output):
    """image_id -> row, with the bytes of the image"""
    found = {}
    for split, part in datasets.load_dataset(str(output)).items():
        for row in part.cast_column("image", datasets.Image(decode=False)):
            assert found.setdefault(row["image_id"], {**row, "split": split}) == {**row, "split": split}
    return found


@pytest.mark.parametrize("layout", VIDEOS)
def test_previous_graph_of_the_video(worlds, tmp_path, layout):
    assert run(layout, worlds[layout], tmp_path / "out", "--context", "gt") == 0
    assert run(layout, worlds[layout], tmp_path / "none") == 0
    codec = "toon-pairs" if layout == "action_genome" else "toon"
    assert data.read_metadata(tmp_path / "out")["codec"] == codec
    for split in datasets.load_dataset(str(tmp_path / "out")):
        before, seen = None, set()
        plain = data.load(tmp_path / "none", split)
        for row, other in zip(data.load(tmp_path / "out", split), plain, strict=True):
            previous = row["previous"]
            assert row["prompt"] == other["prompt"] and row["solution"] == other["solution"]
            assert other["previous"] is None
            assert row["image_id"] == f"{row['video_id']}_{row['frame']}"
            if before is not None and before["video_id"] == row["video_id"]:
                assert previous == before["solution"] and row["frame"] > before["frame"]
            else:
                assert previous is None and row["video_id"] not in seen
            prompt = with_context(row["prompt"], previous)
            assert row["length"] == len(prompt[0]["content"]) + len(row["completion"][0]["content"])
            seen.add(row["video_id"])
            before = row


def test_previous_graph_needs_videos(worlds, tmp_path, capsys):
    assert run("psg", worlds["psg"], tmp_path / "out", "--context", "gt") == 2
    assert "--context gt is for videos; the images of toy-psg belong to none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["base-annot", "psfr"])
def test_thinned(worlds, tmp_path, method, capsys):
    if method == "psfr":
        pytest.importorskip("cv2")
    assert run("pvsg", worlds["pvsg"], tmp_path / "all") == 0
    capsys.readouterr()
    options = ["--thin-options", "retention=0.9", "patches=1"] if method == "psfr" else []
    assert run("pvsg", worlds["pvsg"], tmp_path / "out", "--thin", method, *options, "--context", "gt") == 0
    table = capsys.readouterr().out
    assert f"thinned by {method}" in table and "object labels kept" in table
    found, everything = rows(tmp_path / "out"), rows(tmp_path / "all")
    assert 0 < len(found) < len(everything) and set(found) < set(everything)
    previous = [row["previous"] for row in found.values()]
    assert {text for text in previous if text} <= {row["solution"] for row in found.values()}
    assert f"Thinned by {method}" in (tmp_path / "out" / "README.md").read_text()
    assert data.read_metadata(tmp_path / "out")["thin"]["method"] == method


WRONG = {
    "unknown thinning method 'psrf'; did you mean 'psfr'": ["--thin", "psrf"],
    "thinning by psfr has no option 'retenton'; did you mean 'retention'": [
        *("--thin", "psfr", "--thin-options", "retenton=1")
    ],
    "--thin-options has 'x'; expected NAME=VALUE": ["--thin", "base-annot", "--thin-options", "x"],
    "--thin-options without --thin": ["--thin-options", "x=1"],
    "pvsg has no option 'frame_rule'; choose one of: annotations": ["--frame-rule", "all"],
    "unknown previous graph 'g'": ["--context", "g"],
    "--workers is 0": ["--workers", "0"],
    "--shard-index is 2; expected a number from 0 to 1": ["--shard-index", "2", "--num-shards", "2"],
    "--limit counts rows of the whole data set": ["--limit", "2", "--num-shards", "2"],
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments(worlds, tmp_path, capsys, message):
    assert run("pvsg", worlds["pvsg"], tmp_path / "out", *WRONG[message]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("layout", "more"), [("pvsg", ("--context", "gt")), ("psg", ()), ("pvsg", ("--thin", "psfr"))]
)
def test_jobs_make_one_data_set(worlds, tmp_path, capsys, layout, more):
    if "psfr" in more:
        pytest.importorskip("cv2")
    assert run(layout, worlds[layout], tmp_path / "one", *more) == 0
    one = capsys.readouterr().out
    for index in (2, 0, 0):  # the second call finds its work done
        job = ["--num-shards", "3", "--shard-index", str(index), "--shard-size", "4"]
        assert run(layout, worlds[layout], tmp_path / "out", *more, *job) == 0
        assert f"job {index} of 3 is done" in capsys.readouterr().out
        with pytest.raises(SgrlError, match="holds no train"):
            data.files(tmp_path / "out")
    job = ["--num-shards", "3", "--shard-index", "1", "--shard-size", "4"]
    assert run(layout, worlds[layout], tmp_path / "out", *more, *job) == 0
    together = capsys.readouterr().out
    assert rows(tmp_path / "one") == rows(tmp_path / "out")
    assert not (tmp_path / "out" / ".partial").exists()
    assert one[one.rindex("kept") :].splitlines()[0] in together  # the table is that of all jobs
    assert run(layout, worlds[layout], tmp_path / "out", *more, *job) == 0
    assert "nothing to do" in capsys.readouterr().out
    known, found = ((tmp_path / name / "README.md").read_text() for name in ("one", "out"))
    assert known[known.index("## What") :] == found[found.index("## What") :]


def test_workers_change_nothing(worlds, tmp_path, capsys):
    root = tmp_path / "root"
    (root / "psg").mkdir(parents=True)
    content = json.loads((worlds["psg"] / "psg" / "psg.json").read_text())
    content["data"][3]["file_name"] = content["data"][20]["file_name"] = "nowhere.jpg"
    (root / "psg" / "psg.json").write_text(json.dumps(content))
    (root / "coco").symlink_to(worlds["psg"] / "coco")
    tables = []
    for workers in ("1", "2"):
        assert (
            run("psg", root, tmp_path / workers, "--workers", workers, "--resize", "64x48", "--shard-size", "5") == 0
        )
        out, err = capsys.readouterr()
        assert "2 damaged records were skipped" in err
        tables.append(out[: out.index("files,") - 3])
    assert tables[0] == tables[1]
    assert rows(tmp_path / "1") == rows(tmp_path / "2")
    assert (tmp_path / "1" / "damaged.txt").read_text() == (tmp_path / "2" / "damaged.txt").read_text()


def test_a_worker_that_dies_is_named(tmp_path):
    class Deadly:
        def __reduce__(self):
            return os._exit, (9,)

    with pytest.raises(SgrlError, match="a process that reads or draws images died.*fewer --workers"):
        list(encode_all([(0, Job(Deadly(), (1, 1), None, 95))], workers=2))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_resumes_behind_finished_shards(worlds, tmp_path, sign, workers):
    """An image comes from a pipe, so that the command surely stands in the middle when the signal comes."""
    root, out = tmp_path / "root", tmp_path / "out"
    layout = "pvsg"
    more = ["--context", "gt", "--shard-size", "4", "--workers", workers]
    assert run(layout, worlds[layout], tmp_path / "known", *more) == 0
    subprocess.run(["cp", "-r", str(worlds[layout]), str(root)], check=True)
    known = rows(tmp_path / "known")
    late = [row for row in known.values() if row["split"] == "train"][-2]
    (image,) = [path for path in root.glob(f"*/frames/{late['video_id']}/*") if int(path.stem) == late["frame"]]
    content = image.read_bytes()
    image.unlink()
    os.mkfifo(image)
    command = [sys.executable, to_toon.__file__, "--layout", layout, "--root", str(root), "--output", str(out)]
    command += ["--prompt", "short", "--resize", "keep", *more]
    process = subprocess.Popen(
        command,
        **{"stderr": subprocess.PIPE, "text": True, "start_new_session": True},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )
    while not list(out.glob(".partial/*/train-00001.parquet")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.killpg(process.pid, sign) if sign == signal.SIGKILL else process.send_signal(sign)
    if sign == signal.SIGINT and workers == "2":
        image.write_bytes(content) if not image.is_fifo() else image.open("wb").close()  # frees the one that reads it
    error = process.communicate()[1]
    if sign == signal.SIGINT:
        assert process.returncode == 130 and "the same command goes on from there" in error
    with pytest.raises(SgrlError, match="holds no train"):
        data.files(out)
    finished = {path.name: path.stat().st_ino for path in out.glob(".partial/*/*.parquet")}
    assert len(finished) >= 2
    image.unlink()
    image.write_bytes(content)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on behind" in done.stderr
    assert rows(out) == {
        key: {**row, "dataset": "root"} for key, row in known.items()
    }  # but for the name, which is the folder's
    kept = {path.stat().st_ino for path in out.glob("*.parquet")}
    assert set(finished.values()) <= kept
    table = (out / "README.md").read_text()
    other = (tmp_path / "known" / "README.md").read_text()
    assert table[table.index("## What") :] == other[other.index("## What") :]


def test_killed_while_the_files_move_into_place(worlds, tmp_path, monkeypatch, capsys):
    from data_prep import writer

    moves = []

    def replace(source, target):
        if str(target).endswith(("of-00001.parquet", "of-00008.parquet")):
            moves.append(target)
            if len(moves) == 3:
                raise KeyboardInterrupt
        real(source, target)

    real = os.replace
    monkeypatch.setattr(writer.os, "replace", replace)
    assert run("psg", worlds["psg"], tmp_path / "out", "--shard-size", "4") == 130
    monkeypatch.undo()
    with pytest.raises(SgrlError, match="the conversion or a copy was interrupted; run it again"):
        data.load(tmp_path / "out", "train")
    assert run("psg", worlds["psg"], tmp_path / "out", "--shard-size", "4") == 0
    assert "nothing to do" in capsys.readouterr().out
    run("psg", worlds["psg"], tmp_path / "known")
    assert rows(tmp_path / "out") == rows(tmp_path / "known")


def test_two_processes_do_not_write_to_one_place(worlds, tmp_path, capsys):
    from data_prep.writer import DatasetWriter

    with pytest.raises(SgrlError, match=f"is being written by process {os.getpid()} "):
        with DatasetWriter(tmp_path / "out", {}), DatasetWriter(tmp_path / "out", {}):
            pass


def test_full_disk(worlds, tmp_path):
    """A limit on the size of files stands for it."""
    command = [sys.executable, to_toon.__file__, "--layout", "psg", "--root", str(worlds["psg"])]
    command += ["--output", str(tmp_path / "out"), "--prompt", "short", "--resize", "keep"]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert not (tmp_path / "out").exists()
    subprocess.run(command, capture_output=True, check=True)
    assert len(rows(tmp_path / "out")) > 20


def test_json_lines(worlds, tmp_path, capsys):
    assert run("pvsg", worlds["pvsg"], tmp_path / "out", "--jsonl", "--context", "gt") == 0
    assert any(row["previous"] for row in rows(tmp_path / "out").values())
    found = rows(tmp_path / "out")
    for split in ("train", "val"):
        lines = [json.loads(line) for line in (tmp_path / "out" / "jsonl" / f"{split}.jsonl").open()]
        assert len(lines) == len(data.load(tmp_path / "out", split))
        for line in lines:
            row = found[line["image_id"]]
            assert line["messages"] == with_context(row["prompt"], row["previous"]) + row["completion"]
            assert (line["solution"], line["video_id"], line["frame"]) == (
                *(row["solution"], row["video_id"], row["frame"]),
            )
            (image,) = line["images"]
            assert (tmp_path / "out" / "jsonl" / image).read_bytes() == row["image"]["bytes"]
    assert not (tmp_path / "out" / ".jsonl.part").exists()


def test_card(worlds, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert run("psg", worlds["psg"], tmp_path / "out", "--no-images") == 0
    text = (tmp_path / "out" / "README.md").read_text()
    loaded = huggingface_hub.DatasetCard(text)
    assert loaded.data.license == "other" and "does not know it" in text
    assert loaded.data.configs[0]["data_files"][0] == {"split": "train", "path": "train-*.parquet"}
    assert "sgrl convert --layout psg" in text
    metadata = {**data.read_metadata(tmp_path / "out"), "dataset": "psg"}
    report = Report()
    report.counts["train"].update(records=5, records_kept=3)
    assert "does not know it" in card.card(metadata, report)  # the name alone does not make it PSG
    metadata["vocabulary"] = data.vocabulary_to_json(get_vocabulary("psg"))
    assert "OpenPSG, MIT" in card.card(metadata, report)
    (tmp_path / "out" / "README.md").write_text("my own notes")
    assert run("psg", worlds["psg"], tmp_path / "out", "--no-images", "--overwrite") == 0
    assert (tmp_path / "out" / "README.md").read_text() == "my own notes"


def test_the_code_of_the_card_runs(toy, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (toy / "data" / "README.md").read_text(), re.DOTALL)
    exec(code, {})
    assert "[" in capsys.readouterr().out


def test_push(worlds, tmp_path, monkeypatch, capsys):
    calls = []

    class Api:
        def create_repo(self, name, **options):
            calls.append((name, options))
            return type("Address", (), {"repo_id": name, "__str__": lambda self: f"https://hub/{name}"})()

        def upload_large_folder(self, **options):
            calls.append(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert run("psg", worlds["psg"], tmp_path / "out", "--push-to-hub", "me/toy") == 0
    assert "pushed to https://hub/me/toy" in capsys.readouterr().out
    assert calls[0] == ("me/toy", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert calls[1]["allow_patterns"] == ["*.parquet", "README.md"]
    assert 'load("me/toy", "train")' in (tmp_path / "out" / "README.md").read_text()
    assert run("psg", worlds["psg"], tmp_path / "out", "--push-to-hub", "me/toy") == 0  # done already: only the push
    monkeypatch.undo()
    assert run("psg", worlds["psg"], tmp_path / "out", "--push-to-hub", "me/toy") == 1
    error = capsys.readouterr().err
    assert "is complete, but pushing it to me/toy failed" in error and "Traceback" not in error


def test_notes_and_totals_are_printed(layouts, tmp_path, capsys):
    folder = layouts / "pvsg"
    assert to_toon.main(["--layout", "pvsg", "--root", str(folder), "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "2 relations listed again, merged" in out
    assert "3 videos: the official data set has 400" in out
    assert "2 relations listed again, merged" in (tmp_path / "out" / "README.md").read_text()


def test_frame_rule(worlds, tmp_path):
    run("action_genome", worlds["action_genome"], tmp_path / "all", "--frame-rule", "all")
    run("action_genome", worlds["action_genome"], tmp_path / "out", "--frame-rule", "oed")
    assert data.read_metadata(tmp_path / "out")["reader_options"] == {"frame_rule": "oed"}
    assert set(rows(tmp_path / "out")) <= set(rows(tmp_path / "all"))
    assert run("action_genome", worlds["action_genome"], tmp_path / "out", "--frame-rule", "al") == 2


@pytest.mark.parametrize("size", [(640, 480), (97, 128), (64, 200), (50, 40)])
def test_scaling_is_pillows_to_within_a_level(size):
    """Larger images are OpenCV's; those that shrink in any direction are averaged as Pillow does."""
    pixels = np.random.default_rng(0).integers(0, 256, (128, 97, 3), np.uint8)
    image = Image.fromarray(pixels)
    expected = np.asarray(image.resize(size, Image.Resampling.BILINEAR)).astype(int)
    found = scaled(image, size)[..., ::-1].astype(int)
    assert found.shape == expected.shape and abs(found - expected).max() <= 1


def test_a_jpeg_file_is_scaled_as_its_pixels_are(tmp_path):
    path = tmp_path / "image.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 97, 3), np.uint8)).save(path, subsampling=2)
    with Image.open(path) as image:
        of_file, of_pixels = scaled(image, (150, 140), path.read_bytes()), scaled(image, (150, 140))
    assert np.array_equal(of_file, of_pixels)
    path.write_bytes(path.read_bytes()[:-200])
    for size in (None, (150, 140), (50, 40)):
        with pytest.raises(SgrlError, match="image.jpg does not open: OSError: image file is truncated"):
            encoded(path, (97, 128), size)
