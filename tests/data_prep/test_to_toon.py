"""The converter, from PSG's files to rows that `datasets` decodes."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import datasets
import numpy as np
import pytest
from PIL import Image

from data_prep import to_toon
from data_prep.convert import Converter, Options, convert, metadata_of
from data_prep.images import encoded
from data_prep.readers import open_reader
from data_prep.toys import psg
from data_prep.toys.scene import OBJECTS, scene
from data_prep.writer import DatasetWriter
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.images import open_image
from sgrl.text import answer, get_codec


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "toy"
    psg.write(root, train=40, test=10)
    return root


def edited(toy, folder, change, keep=8):
    """A copy of the toy root whose annotations went through `change(records)`; images are shared."""
    (folder / "psg").mkdir(parents=True)
    (folder / "coco").symlink_to(toy / "coco")
    content = json.loads((toy / "psg" / "psg.json").read_text())
    content["data"] = [record for record in content["data"] if record["relations"]][:keep]
    change(content["data"])
    (folder / "psg" / "psg.json").write_text(json.dumps(content))
    return folder


def run(root, output, *arguments):
    return to_toon.main(["--layout", "psg", "--root", str(root), "--output", str(output), *arguments])


def test_toy_world_end_to_end(toy, tmp_path, capsys):
    assert run(toy, tmp_path / "out", "--resize", "keep", "--prompt", "short") == 0
    table = capsys.readouterr().out
    assert "images read" in table and "without relations" in table and "files," in table
    found = datasets.load_dataset(str(tmp_path / "out"))
    assert set(found) == {"train", "test"}
    codec = get_codec("toon")
    by_id = {str(index + 1): scene(0, index) for index in range(40)}
    assert found["train"].num_rows == sum(bool(drawn.relations) for drawn in by_id.values())
    for row in found["train"]:
        drawn = by_id[row["image_id"]]
        raw = (toy / "coco" / "train2017" / f"{int(row['image_id']):012d}.jpg").read_bytes()
        assert np.array_equal(np.asarray(row["image"]), np.asarray(Image.open(io.BytesIO(raw))))
        parsed = codec.parse(row["completion"][0]["content"], row["width"], row["height"])
        assert parsed.labels == drawn.labels
        assert parsed.boxes == [tuple(map(float, box)) for box in drawn.boxes]
        assert parsed.relations == drawn.relations
        assert row["completion"] == [{"role": "assistant", "content": answer.wrap(row["solution"])}]
        assert row["prompt"] == [{"role": "user", "content": "Write the scene graph."}]
        assert (row["width"], row["height"], row["dataset"]) == (96, 96, "toy")
        assert row["length"] == len(row["prompt"][0]["content"]) + len(row["completion"][0]["content"])
    metadata = data.read_metadata(tmp_path / "out")
    assert (metadata["codec"], metadata["coords"], metadata["prompt"]) == ("toon", "pixel", "short")
    assert data.vocabulary_of(metadata).objects == OBJECTS
    assert "sgrl convert --layout psg" in metadata["command"]


def test_bytes_of_the_image_are_untouched_when_nothing_changes(toy, tmp_path):
    import pyarrow.parquet as parquet

    run(toy, tmp_path / "out", "--resize", "keep", "--split", "test")
    (file,) = (tmp_path / "out").glob("*.parquet")
    for row in parquet.read_table(file, columns=["image", "image_id"]).to_pylist():
        original = toy / "coco" / "val2017" / f"{int(row['image_id']):012d}.jpg"
        assert row["image"]["bytes"] == original.read_bytes()


def test_real_record(shared, tmp_path):
    assert run(shared / "data" / "real" / "psg" / "as_official", tmp_path / "out") == 0
    (row,) = data.load(tmp_path / "out", "train")
    assert row["image"].size == (row["width"], row["height"]) == (640, 480)
    assert row["dataset"] == "psg" and row["image_id"] == "107902"
    assert row["solution"].splitlines()[1] == "  1,person,65,122,276,463"  # 49,162,207,617 of 480 x 640
    assert "  5,in-front-of,4" in row["solution"]
    assert "in-front-of" in row["prompt"][0]["content"]


def test_fixtures_keep_what_the_published_loader_keeps(layouts, tmp_path, capsys):
    folder = layouts / "psg"
    expected = json.loads((folder / "EXPECTED_parse.json").read_text())
    assert run(folder, tmp_path / "out") == 0
    table = capsys.readouterr().out
    found = {
        row["image_id"]: row["solution"] for split in ("train", "test") for row in data.load(tmp_path / "out", split)
    }
    assert set(found) == {name for name, known in expected.items() if known["kept_by_OpenPSG_loader"]}
    assert "rel[5]" in found["900001"] and "rel[2]" in found["900004"]
    assert "repeated" in table and "to itself" in table
    assert run(folder, tmp_path / "all", "--keep-empty") == 0
    assert len(data.load(tmp_path / "all", "train")) == 3 and len(data.load(tmp_path / "all", "test")) == 2


@pytest.mark.parametrize("codec", ["toon", "toon-lean", "json"])
def test_coordinate_frames_say_the_same(shared, tmp_path, codec):
    root = shared / "data" / "real" / "psg" / "as_official"
    run(root, tmp_path / "pixel", "--codec", codec)
    run(root, tmp_path / "norm", "--codec", codec, "--coords", "norm1000")
    run(root, tmp_path / "keep", "--codec", codec, "--resize", "keep")
    boxes = {}
    for name, frame in (("pixel", (640, 480)), ("norm", (1000, 1000)), ("keep", (480, 640))):
        (row,) = data.load(tmp_path / name, "train")
        assert (row["width"], row["height"]) == frame
        assert row["image"].size == ((480, 640) if name == "keep" else (640, 480))
        graph = get_codec(codec).decode(row["solution"], *frame, tags=False)
        boxes[name] = graph.resized(480, 640).boxes
    assert np.abs(boxes["pixel"] - boxes["keep"]).max() <= 0.5 * 640 / 480 + 1e-9
    assert np.abs(boxes["norm"] - boxes["keep"]).max() <= 0.5
    assert np.array_equal(boxes["keep"], np.round(boxes["keep"]))


def test_a_name_forges_no_line_and_no_escape_sequence(toy, tmp_path, capsys):
    def forge(records):
        records[1]["file_name"] = "a.jpg\nall.jpg is fine\x1b[2J\u2028\u202egnp\ud83d"

    assert run(edited(toy, tmp_path / "root", forge), tmp_path / "out", "--resize", "keep") == 0
    (line,) = (tmp_path / "out" / "damaged.txt").read_text(encoding="utf-8").splitlines()
    assert r"a.jpg\nall.jpg is fine\x1b[2J\u2028\u202egnp\ud83d" in line
    printed = capsys.readouterr()
    assert line in printed.err and "\x1b" not in printed.err + printed.out


def test_damage_is_counted_and_named(toy, tmp_path, capsys):
    images = sorted((toy / "coco" / "train2017").iterdir())

    def spoil(records):
        (toy / "coco" / "train2017" / "broken.jpg").write_bytes(images[0].read_bytes()[:900])
        Image.new("RGB", (50, 60)).save(toy / "coco" / "train2017" / "other.jpg")
        records[1]["annotations"][0]["bbox"][2] = float("nan")
        records[2]["file_name"] = "train2017/broken.jpg"
        records[3]["file_name"] = "train2017/nowhere.jpg"
        records[4]["file_name"] = "train2017/other.jpg"
        records[5]["annotations"][0]["category_id"] = 99

    root = edited(toy, tmp_path / "root", spoil)
    assert run(root, tmp_path / "out", "--resize", "keep") == 0
    out, err = capsys.readouterr()
    assert "5 damaged records were skipped" in err
    assert "box must be four finite numbers" in err
    assert "broken.jpg does not open" in err
    assert "nowhere.jpg does not exist" in err
    assert "other.jpg has 50 x 60 pixels, its annotation says 96 x 96" in err
    assert "category_id must be a whole number from 0 to 3, found 99" in err
    assert len((tmp_path / "out" / "damaged.txt").read_text().splitlines()) == 5
    assert len(data.load(tmp_path / "out", "train")) == 3
    assert set(datasets.load_dataset(str(tmp_path / "out"))) == {"train"}  # damaged.txt does not disturb it
    assert run(root, tmp_path / "strict", "--strict") == 1
    assert "psg.json, record 1 (image_id" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()


def test_the_table_adds_up(toy, tmp_path):
    def spoil(records):
        for record in records[:3]:
            record["annotations"].append(record["annotations"][0])
            record["segments_info"].append(record["segments_info"][0])
            record["relations"] += [record["relations"][0], [0, len(record["annotations"]) - 1, 0]]
        records[3]["annotations"][0]["bbox"] = [10, 10, 10, 50]
        records[4]["annotations"][0]["bbox"][0] = -7
        records[5]["file_name"] = "nowhere.jpg"

    reader = open_reader("psg", edited(toy, tmp_path / "root", spoil))
    converter = Converter(reader, Options(size=None, prompt="short"))
    with DatasetWriter(tmp_path / "out", metadata_of(reader, converter.options)) as writer:
        report = convert(converter, writer)
    counts = report.counts["train"]
    assert counts["records"] == counts["records_kept"] + counts["no_relations"] + counts["damaged"] == 8
    gone = ("unknown_objects", "degenerate_boxes", "duplicate_objects", "objects_dropped", "objects_kept")
    assert counts["objects"] == sum(counts[name] for name in gone)
    gone = ("orphaned_relations", "self_relations", "duplicate_relations", "relations_dropped", "relations_kept")
    assert counts["relations"] == sum(counts[name] for name in gone)
    assert counts["duplicate_objects"] == counts["self_relations"] == counts["duplicate_relations"] == 3
    assert counts["degenerate_boxes"] == counts["out_of_image_boxes"] == counts["damaged"] == 1


def test_labels_outside_the_vocabulary_go(toy):
    from data_prep.clean import clean
    from sgrl.graph import Object, Relation, SceneGraph
    from sgrl.vocabulary import Vocabulary

    vocabulary = Vocabulary("v", ("cat", "dog"), ("on",))
    box = (0, 0, 5, 5)
    graph = SceneGraph(
        (Object("cow", box), Object("cat", box), Object("dog", box)),
        (Relation(0, "on", 1), Relation(1, "on", 2), Relation(1, "under", 2)),
        10,
        10,
    )
    cleaned, counts = clean(graph, vocabulary)
    assert [o.label for o in cleaned.objects] == ["cat", "dog"]
    assert cleaned.relations == (Relation(0, "on", 1),)
    assert (counts["unknown_objects"], counts["unknown_predicates"], counts["orphaned_relations"]) == (1, 1, 1)


def test_shards_and_limit(toy, tmp_path):
    assert run(toy, tmp_path / "out", "--limit", "7", "--shard-size", "3", "--prompt", "short") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["README.md"] + [f"{s}-{i:05d}-of-00003.parquet" for s in ("test", "train") for i in range(3)]
    assert len(data.load(tmp_path / "out", "train")) == 7
    assert run(toy, tmp_path / "out", "--limit", "2", "--overwrite") == 0
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 2


def test_finished_conversion_is_kept_and_another_is_not_overwritten(toy, tmp_path, capsys):
    assert run(toy, tmp_path / "out", "--limit", "2") == 0
    before = [path.stat().st_mtime_ns for path in data.files(tmp_path / "out")]
    assert run(toy, tmp_path / "out", "--limit", "2") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run(toy, tmp_path / "out", "--limit", "3") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert before == [path.stat().st_mtime_ns for path in data.files(tmp_path / "out")]


def test_failure_in_the_middle_leaves_what_was_there(toy, tmp_path):
    run(toy, tmp_path / "out", "--limit", "2")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "out").iterdir())
    root = edited(toy, tmp_path / "root", lambda records: None)
    text = (root / "psg" / "psg.json").read_text()
    position = text.index('"relations"', len(text) // 2)
    (root / "psg" / "psg.json").write_text(text[:position] + "oops" + text[position:])
    assert run(root, tmp_path / "out", "--overwrite", "--shard-size", "1") == 1
    after = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "out").iterdir())
    assert before == [entry for entry in after if entry[0] != ".partial"]  # there, finished shards wait
    assert run(root, tmp_path / "new" / "deep") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_command_leaves_no_data_set(toy, tmp_path, sign):
    """The images come from a pipe, so that the command surely stands in the middle when the signal comes."""
    os.mkfifo(tmp_path / "pipe.jpg")

    def wait(records):
        records[5]["file_name"] = "pipe.jpg"

    root = edited(toy, tmp_path / "root", wait)
    (root / "coco").unlink()
    (root / "coco").mkdir()
    (root / "coco" / "train2017").symlink_to(toy / "coco" / "train2017")
    (root / "coco" / "pipe.jpg").symlink_to(tmp_path / "pipe.jpg")
    command = [sys.executable, to_toon.__file__, "--layout", "psg", "--root", str(root), "--shard-size", "2"]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out")],
        **{"stderr": subprocess.PIPE, "text": True},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )
    while not list((tmp_path / "out").glob(".partial/*/train-00002.parquet.part")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(sign)
    error = process.communicate()[1]
    if sign == signal.SIGINT:
        assert process.returncode == 130
        said = "to_toon: interrupted; what is finished is kept, and the same command goes on from there"
        assert error.splitlines()[-1] == said and "Traceback" not in error
    with pytest.raises(SgrlError, match="holds no train"):
        data.files(tmp_path / "out")
    assert run(toy, tmp_path / "out", "--limit", "3") == 0  # what was left does not disturb
    assert not (tmp_path / "out" / ".partial").exists()


WRONG = {
    "unknown data set 'pgs'; did you mean 'psg'": ["--layout", "pgs"],
    "nowhere is not a folder": ["--root", "nowhere"],
    "unknown format 'tooon'; did you mean 'toon'": ["--codec", "tooon"],
    "unknown coordinates 'norm'; did you mean 'norm1000'": ["--coords", "norm"],
    "unknown prompt style 'shor'; did you mean 'short'": ["--prompt", "shor"],
    "unknown split 'tests'; did you mean 'test'": ["--split", "tests"],
    "--resize is '640'; expected WIDTHxHEIGHT": ["--resize", "640"],
    "cannot be scaled to 0x480": ["--resize", "0x480"],
    "--limit is 0": ["--limit", "0"],
    "quality must be from 1 to 100, found 0": ["--quality", "0"],
    "no record of the split val, only test, train": ["--split", "val"],
    "toon-pairs is for relations in groups": ["--codec", "toon-pairs"],
    "did you mean 'psg.json'": ["--annotations", "pgs.json"],
}
FAILED = {"nowhere is not a folder", "no record of the split val, only test, train", "did you mean 'psg.json'"}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_get_a_message(toy, tmp_path, capsys, message):
    assert run(toy, tmp_path / "out", *WRONG[message]) == (1 if message in FAILED else 2)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_length_in_tokens(toy, tmp_path, capsys):
    from transformers import AutoTokenizer

    from sgrl.tiny import build_tiny_vlm

    build_tiny_vlm(tmp_path / "model")
    tokenizer = str(tmp_path / "model")
    assert run(toy, tmp_path / "out", "--tokenizer", tokenizer, "--prompt", "short", "--resize", "keep") == 0
    assert data.read_metadata(tmp_path / "out")["length"] == f"tokens of {tokenizer}"
    encode = AutoTokenizer.from_pretrained(tokenizer)
    for found in data.load(tmp_path / "out", "test"):
        texts = [found["prompt"][0]["content"], found["completion"][0]["content"]]
        assert found["length"] == sum(map(len, encode(texts)["input_ids"]))
    assert run(toy, tmp_path / "other", "--tokenizer", "/nowhere") == 2
    assert "--tokenizer /nowhere" in capsys.readouterr().err


def test_no_images(toy, tmp_path):
    run(toy, tmp_path / "out", "--no-images", "--limit", "2")
    assert data.load(tmp_path / "out", "train")[0]["image"] is None


def test_encoded_image(tmp_path):
    def save(name, image, **more):
        image.save(tmp_path / name, **more)
        return tmp_path / name

    colour = Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint8).reshape(20, 40, 3))
    path = save("a.png", colour)
    assert encoded(path, (40, 20)) == path.read_bytes()
    assert Image.open(io.BytesIO(encoded(path, (40, 20), (10, 10)))).size == (10, 10)
    grey = Image.open(io.BytesIO(encoded(save("grey.jpg", colour.convert("L")), (40, 20))))
    assert (grey.mode, grey.size) == ("RGB", (40, 20))  # models expect three channels
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = save("turned.jpg", colour, exif=exif)
    for expected in ((40, 20), (20, 40)):
        image = Image.open(io.BytesIO(encoded(turned, expected)))
        assert image.size == expected and image.getexif().get(0x0112, 1) == 1
    with pytest.raises(SgrlError, match="has 40 x 20 pixels, its annotation says 41 x 20"):
        encoded(path, (41, 20))
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(SgrlError, match="text.jpg does not open: it is damaged, or none of"):
        encoded(tmp_path / "text.jpg", (1, 1))


def test_converted_images_look_as_own_ones(tmp_path):
    """Those that change, and those that may not stay as they are: every image has one look, wherever it is opened."""
    steps = np.tile(np.linspace(0, 1, 32).repeat(2), (48, 1))
    grey = Image.fromarray((255 * steps).astype(np.uint8))
    clear, cyan = grey.convert("RGBA"), Image.merge("CMYK", [grey, grey, *[Image.new("L", grey.size)] * 2])
    clear.putalpha(grey)
    turned = {}
    for turn in (3, 6):
        turned[turn] = Image.Exif()
        turned[turn][0x0112] = turn
    colour = grey.convert("RGB")
    for name, image, more in (
        ("16.png", Image.fromarray((65535 * steps).astype(np.uint16)), {}),
        ("float.tif", Image.fromarray(steps.astype(np.float32)), {}),
        ("clear.png", clear, {}),
        ("keyed.png", colour, {"transparency": (0, 0, 0)}),
        ("palette.gif", grey.quantize(16), {"transparency": 0}),
        ("cyan.jpg", cyan, {}),
        ("head.jpg", colour, {"exif": turned[3]}),
        ("side.png", colour, {"exif": turned[6]}),
        ("plain.jpg", colour, {}),
    ):
        image.save(tmp_path / name, **more)
        own = open_image(tmp_path / name)
        for size in (None, own.size, (own.width * 2, own.height * 2)):
            found = open_image(encoded(tmp_path / name, own.size, size, quality=100))
            difference = np.asarray(found.resize(own.size)).astype(int) - np.asarray(own)
            assert found.size == (size or own.size) and np.abs(difference).mean() < 3, (name, size)
