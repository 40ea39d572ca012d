"""Own photographs are shown as training showed images, and their graphs are in their own pixels."""

import argparse
import json

import pytest
from PIL import Image

from data_prep import to_toon
from sgrl.errors import SgrlError
from sgrl.inference import SceneGraphModel, SceneGraphStream
from sgrl.inference.engine import Generation
from sgrl.inference.predict import Predictor, units_of
from sgrl.inference.predictions import PredictionFolder
from sgrl.inference.presentation import Presentation
from sgrl.inference.rows import FileRows
from sgrl.models.vlm.coordinates import CONVENTIONS
from sgrl.prompts import split_previous
from sgrl.report.pictures import Pictures
from sgrl.report.runs import read_run
from sgrl.task import UNTRAINED_PIXELS, Task
from sgrl.text import answer, get_codec

PHOTO = (300, 150)  # other than any training image in size and in shape
SHARES = ((0.1, 0.2, 0.5, 0.6), (0.4, 0.1, 0.9, 1.0))  # of two objects' boxes in the photograph
BOXES = [(30, 30, 150, 90), (120, 15, 270, 150)]

KINDS = {
    "one size": (["--resize", "64x48"], (64, 48), (64, 48)),
    "one size, full prompt": (["--resize", "64x48", "--prompt", "full"], (64, 48), (64, 48)),
    "one size, JSON": (["--resize", "64x48", "--codec", "json"], (64, 48), (64, 48)),
    "one size, thousandths": (["--resize", "64x48", "--coords", "norm1000"], (64, 48), (1000, 1000)),
    "sizes kept": (["--resize", "keep"], (135, 67), (135, 67)),  # as many pixels as 96 x 96
    "sizes kept, thousandths": (["--resize", "keep", "--coords", "norm1000"], PHOTO, (1000, 1000)),
}
"""Conversion -> its options, the size that the model is to see, the frame in which it writes."""


class Seeing:
    """Writes the two objects where they are in the frame that it was trained to write in."""

    name, batch_size = "transformers", 4

    def __init__(self, frame, codec, words=("inside",)):
        self.frame, self.codec, self.words = frame, codec, iter(words * 9)
        self.sizes, self.prompts = [], []

    def text(self):
        cat, mat = ([round(v * side) for v, side in zip(box, 2 * self.frame, strict=True)] for box in SHARES)
        predicate = next(self.words)
        if self.codec.name == "json":
            objects = [{"id": "cat.1", "bbox": cat}, {"id": "mat.2", "bbox": mat}]
            relation = {"subject": "cat.1", "predicate": predicate, "object": "mat.2"}
            return answer.wrap(json.dumps({"objects": objects, "relationships": [relation]}))
        first, second = (",".join(map(str, box)) for box in (cat, mat))
        rows = f"obj[2]{{id,name,x1,y1,x2,y2}}:\n  1,cat,{first}\n  2,mat,{second}"
        return answer.wrap(f"{rows}\nrel[1]{{subj,pred,obj}}:\n  1,{predicate},2")

    def generate(self, images, prompts, grammars=None):
        self.sizes += [image.size for image in images]
        self.prompts += [prompt[0]["content"] for prompt in prompts]
        texts = [self.text() for _ in images]
        return [
            Generation(text, len(text), 0.1, "stop", 5, tuple(text), (-0.01,) * len(text))  # a letter a token
            for text in texts
        ]


@pytest.fixture(scope="module")
def converted(toy, tmp_path_factory):
    """A function that gives the toy world in one of KINDS, each converted once."""
    folder = tmp_path_factory.mktemp("converted")

    def convert(kind):
        target = folder / kind.replace(" ", "_")
        if not target.exists():
            words = ["--layout", "psg", "--root", toy / "world", "--prompt", "short", "--limit", "4"]
            assert to_toon.main([str(word) for word in (*words, "--output", target, *KINDS[kind][0])]) == 0
        return str(target)

    return convert


@pytest.fixture
def photos(tmp_path):
    """A folder of four photographs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", PHOTO, (60 * number, 0, 0)).save(folder / f"{number}.png")
    return str(folder)


def asked(dataset):
    return Presentation(Task.of_dataset(dataset))


def predictor(rows, output, engine, context="none", constrain=False):
    folder = PredictionFolder(output, {"model": "x"}, ())
    asks = rows.presentation
    model = SceneGraphModel(engine, asks.task, constrain=constrain, convention=asks.convention)
    return Predictor(argparse.Namespace(context=context, output=output), rows, folder, model), folder


def boxes_of(text, codec, frame=PHOTO):
    return [o.box for o in codec.decode(text, *frame, tags=True).objects]


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_are_in_the_photographs_own_pixels(kind, converted, photos, tmp_path):
    _, size, frame = KINDS[kind]
    rows = FileRows([photos], asked(converted(kind)), False)
    row = rows[0]
    assert (row["width"], row["height"], row["seen"]) == (*PHOTO, frame)
    assert row["image"].size == size and rows.picture(0).size == PHOTO
    if "full" in kind:
        assert "64 wide and 48 high" in row["prompt"][0]["content"]
    engine = Seeing(frame, rows.codec)
    run, folder = predictor(rows, tmp_path / "out", engine)
    assert run.run(units_of(rows, "none")) == {} and set(engine.sizes) == {size}
    for found in folder:
        assert (found["width"], found["height"], found["seen"]) == (*PHOTO, list(frame))
        # a pixel of what the model saw is up to five of the photograph
        for box, expected in zip(boxes_of(found["prediction"], rows.codec), BOXES, strict=True):
            assert box == pytest.approx(expected, abs=0.51 * max(PHOTO[0] / frame[0], PHOTO[1] / frame[1]) + 0.5)
        (confidence,) = found["confidence"]
        assert 0.8 < confidence < 1 and found["written"] == engine.text()


def test_an_image_of_the_size_that_was_trained_stays_as_it_is(converted, tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    rows = FileRows([str(tmp_path / "a.png")], asked(converted("one size")), False)
    engine = Seeing((64, 48), rows.codec)
    run, folder = predictor(rows, tmp_path / "out", engine)
    run.run(units_of(rows, "none"))
    (found,) = folder
    assert found["prediction"] == engine.text() and not found.keys() & {"written", "seen"}


@pytest.mark.parametrize("constrain", [False, True])
@pytest.mark.parametrize("kind", ["one size", "sizes kept, thousandths"])
def test_the_next_frame_gets_the_graph_as_the_model_wrote_it(kind, constrain, converted, photos, tmp_path):
    """In the frame that the model writes in, to the pixel, and the same after an interruption."""
    rows = FileRows([photos], asked(converted(kind)), True)
    frame = KINDS[kind][2]
    written = [answer.body(Seeing(frame, rows.codec, (word,)).text(), True) for word in ("w0", "w1", "w2")]

    def contexts(engine):
        return [split_previous(prompt)[1] for prompt in engine.prompts[1:]]  # the first is the warm-up

    engine = Seeing(frame, rows.codec, ("warm", "w0", "w1", "w2", "w3"))
    run, _ = predictor(rows, tmp_path / "whole", engine, "generated", constrain=constrain)
    run.run(units_of(rows, "generated"))
    assert contexts(engine) == [None, *written]

    first = FileRows([photos], asked(converted(kind)), True, limit=2)
    run, _ = predictor(first, tmp_path / "two", Seeing(frame, rows.codec, ("warm", "w0", "w1")), "generated")
    run.run(units_of(first, "generated"))
    engine = Seeing(frame, rows.codec, ("warm", "w2", "w3"))
    run, _ = predictor(rows, tmp_path / "two", engine, "generated", constrain=constrain)
    run.run(units_of(rows, "generated"))
    assert contexts(engine) == written[1:]


def test_frames_of_several_sizes_hand_on_graphs_in_the_next_ones_frame(converted, tmp_path):
    (tmp_path / "clip").mkdir()
    for number, size in enumerate(((96, 96), (48, 192))):
        Image.new("RGB", size).save(tmp_path / f"clip/{number}.png")
    rows = FileRows([str(tmp_path / "clip")], asked(converted("sizes kept")), True)
    engine = Seeing((96, 96), rows.codec)
    run, _ = predictor(rows, tmp_path / "out", engine, "generated")
    run.run(units_of(rows, "generated"))
    (first, second) = boxes_of(answer.wrap(split_previous(engine.prompts[-1])[1]), rows.codec, (48, 192))
    assert first == pytest.approx((5, 38, 24, 115), abs=1) and second == pytest.approx((19, 19, 43, 192), abs=1)


def test_pictures_of_a_run_are_the_photographs(converted, photos, tmp_path):
    rows = FileRows([photos], asked(converted("one size")), False)
    run, folder = predictor(rows, tmp_path / "out", Seeing((64, 48), rows.codec))
    run.run(units_of(rows, "none"))
    info = {"dataset": converted("one size"), "input": [photos], "codec": "toon", "split": None}
    (folder.folder / "run.json").write_text(json.dumps(info))
    found = read_run("own", folder.folder)
    assert Pictures(found, found.keys)[found.keys[0]].size == PHOTO


@pytest.mark.parametrize("size", [(3000, 14), (14, 3000), (1, 1), (4000, 3000), (96, 96), (97, 96), (20, 20)])
def test_pixels_stay_in_the_range_of_training(size, converted, tmp_path):
    """All images of the toy world have 96 x 96 pixels; the shape stays."""
    Image.new("RGB", size).save(tmp_path / "a.png")
    row = FileRows([str(tmp_path / "a.png")], asked(converted("sizes kept")), False)[0]
    width, height = row["image"].size
    assert width * height == pytest.approx(96 * 96, rel=0.15 if min(width, height) < 20 else 0.02)
    assert row["seen"] == (width, height) and (row["width"], row["height"]) == size
    if min(width, height) > 20:
        assert width / height == pytest.approx(size[0] / size[1], rel=0.03)


def test_a_model_without_training_sees_the_photograph_itself(converted, tmp_path):
    """Neither squashed nor larger than servers take it; its graph is in the photograph's pixels all the same."""
    Image.new("RGB", (4000, 1500)).save(tmp_path / "a.png")
    Image.new("RGB", (300, 150)).save(tmp_path / "b.png")
    asks = Presentation(Task.of_dataset(converted("one size")).untrained("norm1000"), "", CONVENTIONS["norm1000"])
    rows = FileRows([str(tmp_path / name) for name in ("a.png", "b.png")], asks, False)
    width, height = rows[0]["image"].size
    assert width * height <= UNTRAINED_PIXELS and width / height == pytest.approx(8 / 3, rel=0.01)
    assert rows[1]["image"].size == (300, 150)
    engine = Seeing((1000, 1000), rows.codec)
    run, folder = predictor(rows, tmp_path / "out", engine)
    run.run(units_of(rows, "none"))
    large = next(iter(folder))
    expected = [(400, 300, 2000, 900), (1600, 150, 3600, 1500)]
    assert boxes_of(large["prediction"], rows.codec, (4000, 1500)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_graphs_in_the_pixels_of_its_frames(kind, converted):
    _, size, frame = KINDS[kind]
    codec = get_codec("json" if "JSON" in kind else "toon")
    engine = Seeing(frame, codec)
    stream = SceneGraphStream(SceneGraphModel(engine, Task.of_dataset(converted(kind))), "generated")
    for _ in range(2):
        found = stream.push(Image.new("RGB", PHOTO))
        assert (found.graph.width, found.graph.height) == PHOTO
        for o, expected in zip(found.graph.objects, BOXES, strict=True):
            assert o.box == pytest.approx(expected, abs=0.51 * max(PHOTO[0] / frame[0], PHOTO[1] / frame[1]))
    assert engine.sizes == [size] * 2
    assert split_previous(engine.prompts[1])[1] == codec.encode(codec.decode(engine.text(), *frame))


def test_a_broken_photograph_is_named_and_the_others_are_done(converted, photos, tmp_path):
    with open(f"{photos}/1.png", "r+b") as file:
        file.truncate(60)
    rows = FileRows([photos], asked(converted("one size")), False)
    with pytest.raises(SgrlError, match="1.png"):
        rows.picture(1)
    run, folder = predictor(rows, tmp_path / "out", Seeing((64, 48), rows.codec))
    failed = run.run(units_of(rows, "none"))
    assert list(failed) == [("files", "photos/1.png")] and len(list(folder)) == 3
