"""Evaluation, predictions and streams ask a model as it was trained: with the graph of the frame before or without."""

import argparse
import json
import shutil
from types import SimpleNamespace

import pyarrow.parquet as parquet
import pytest
from PIL import Image

from data_prep import to_toon, toyworld
from sgrl.errors import SgrlError
from sgrl.inference import SceneGraphModel, SceneGraphStream
from sgrl.inference.engine import Generation
from sgrl.inference.options import add_arguments, check_arguments
from sgrl.inference.predict import Predictor, open_rows, units_of
from sgrl.inference.predictions import PredictionFolder
from sgrl.inference.rows import DatasetRows
from sgrl.models.vlm.coordinates import CONVENTIONS
from sgrl.prompts import split_previous
from sgrl.task import Task
from sgrl.text import answer, get_codec

GRAPH = "obj[1]{id,name,x1,y1,x2,y2}:\n  1,circle,1,1,20,40\nrel[0]{subj,pred,obj}:"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two data sets of one toy video world: `with` the graph of the frame before in the prompts, and `without`."""
    folder = tmp_path_factory.mktemp("videos")
    world = str(folder / "world")
    draw = ["--layout", "pvsg", "--output", world, "--train", "1", "--test", "2", "--frames", "4"]
    assert toyworld.main(draw) == 0
    convert = ["--layout", "pvsg", "--root", world, "--resize", "keep", "--prompt", "short"]
    assert to_toon.main([*convert, "--output", str(folder / "with"), "--context", "gt"]) == 0
    assert to_toon.main([*convert, "--output", str(folder / "without")]) == 0
    return folder


@pytest.fixture
def model(toy, tmp_path):
    """A function that gives a model folder which was trained with a context, or does not say so (None)."""

    def trained(context):
        folder = tmp_path / f"trained-{context}"
        shutil.copytree(toy / "model", folder)
        if context:
            (folder / "sgrl.json").write_text(json.dumps({"context": context}))
        return str(folder)

    return trained


def settled(model, dataset, *words, **more):
    """The arguments of a run after the checks."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--model", model, "--dataset", str(dataset), "--output", "o", *map(str, words)])
    vars(args).update(more)
    check_arguments(args)
    return args


@pytest.mark.parametrize("trained", ["gt", "corrupted", "none"])
@pytest.mark.parametrize("data", ["with", "without"])
def test_the_context_of_training_is_followed(trained, data, model, videos, tmp_path):
    args = settled(model(trained), videos / data, "--split", "val")
    assert args.context == ("none" if trained == "none" else "generated")
    prompts = []

    class Engine:
        name, batch_size = "transformers", 2

        def generate(self, images, chats, grammars=None):
            prompts.extend(chat[-1]["content"] for chat in chats)
            return [Generation(answer.wrap(GRAPH), 1, 0.0, "stop") for _ in chats]

    rows = open_rows(args)
    args.output = tmp_path / "out"
    asks = SceneGraphModel(Engine(), args.task)
    Predictor(args, rows, PredictionFolder(args.output, {"model": "m"}, ()), asks).run(units_of(rows, args.context))
    first = [prompt for prompt in prompts[1:] if split_previous(prompt)[1] is None]
    assert len(first) == (len(rows) if trained == "none" else len(set(rows.videos)))
    assert len(prompts) == len(rows) + 1 > 3


def test_what_a_model_does_not_say_is_asked_for_where_it_matters(model, videos):
    path = model(None)
    with pytest.raises(SgrlError, match=r"hold the graph of the frame before, and .* say --context generated"):
        settled(path, videos / "with")
    with pytest.raises(SgrlError, match="say --context generated"):
        settled("m", videos / "with", "--engine", "openai")
    with pytest.raises(SgrlError, match="say --context generated"):
        settled(path, videos / "with", input=["a.mp4"])
    assert settled(path, videos / "without").context == "none"
    for context in ("none", "gt", "generated"):
        assert settled(path, videos / "with", "--context", context).context == context
    # a model that was never trained on graphs gets prompts of its own
    assert settled(path, videos / "with", "--zero-shot", "pixel").context == "none"


@pytest.mark.parametrize(
    ("trained", "context", "warned"),
    [("gt", "none", True), ("corrupted", "none", True), ("none", "gt", True), ("none", "generated", True)]
    + [("gt", "gt", False), ("gt", "generated", False), ("none", "none", False), (None, "gt", False)],
)
def test_another_context_than_that_of_training_is_said(trained, context, warned, model, videos, caplog):
    assert settled(model(trained), videos / "with", "--context", context).context == context
    assert ("its prompts are not what it knows" in caplog.text) == warned


def test_images_of_no_video_have_no_frame_before(model, videos, toy, tmp_path):
    """A model of videos may be asked about images; only who asks for context by name is told that it means nothing."""
    path = model("gt")
    assert not any(open_rows(settled(path, toy / "data")).videos)
    with pytest.raises(SgrlError, match="--context generated is for videos; the images of"):
        open_rows(settled(path, toy / "data", "--context", "generated"))
    Image.new("RGB", (96, 96)).save(tmp_path / "a.png")
    given = {"input": [str(tmp_path / "a.png")]}
    assert len(open_rows(settled(path, toy / "data", **given))) == 1
    with pytest.raises(SgrlError, match="a.png holds single images alone: name the folder of a video's frames"):
        open_rows(settled(path, toy / "data", "--context", "generated", **given))
    with pytest.raises(SgrlError, match="--every 2 is for video files; .*a.png holds none"):
        open_rows(settled(path, toy / "data", **given, every=2))
    # a folder is a video for a model of videos, and a set of images for another
    (tmp_path / "clip").mkdir()
    shutil.copy(tmp_path / "a.png", tmp_path / "clip")
    given = {"input": [str(tmp_path / "clip")]}
    assert open_rows(settled(path, toy / "data", **given)).videos == ["clip"]
    assert open_rows(settled(model("none"), toy / "data", **given)).videos == [None]


@pytest.mark.parametrize(
    ("trained", "context", "expected"),
    [("gt", None, "generated"), ("none", None, "none"), ("none", "generated", "generated"), ("gt", "none", "none")],
)
def test_a_stream_follows_its_models_task(trained, context, expected, videos, caplog):
    task = Task.of_dataset(
        videos / "with", context="none" if trained == "none" else "generated", context_source=trained
    )
    assert SceneGraphStream(SceneGraphModel(None, task), context).context == expected
    assert ("not what it knows" in caplog.text) == (context is not None)


def test_a_video_of_another_data_set_hands_nothing_on(tmp_path):
    """Rows of a mixture: video 7 of one data set ends where video 7 of another begins."""
    keys, contexts = [("a", "1"), ("b", "1"), ("b", "2")], []
    rows = SimpleNamespace(
        codec=get_codec("toon"),
        vocabulary=None,
        keys=keys,
        videos=["7"] * 3,
        solution=lambda index: GRAPH,
        metadata={},
    )
    args = argparse.Namespace(context="gt", output=tmp_path)
    model = SceneGraphModel(None, Task.read("psg"), convention=CONVENTIONS["pixel"])
    predictor = Predictor(args, rows, PredictionFolder(tmp_path, {"model": "m"}, ()), model)
    for index, (dataset, _) in enumerate(keys):
        row = {"index": index, "dataset": dataset, "video_id": "7"}
        contexts.append(predictor._previous(row))
    assert contexts == [None, None, GRAPH]


def test_the_references_are_those_of_training(videos, tmp_path):
    """The column, which knows of rows that were left out between two of the data set."""
    path = tmp_path / "data"
    shutil.copytree(videos / "with", path)
    (file,) = path.glob("val-*.parquet")
    table = parquet.read_table(file)
    parquet.write_table(table.take([0, 2, 3]), file)
    rows = DatasetRows(str(path), "val")
    args = argparse.Namespace(context="gt", output=tmp_path / "o")
    model = SceneGraphModel(None, Task.of_dataset(path))
    predictor = Predictor(args, rows, PredictionFolder(tmp_path / "o", {"model": "m"}, ()), model)
    prompts = [predictor._question(rows[index] | {"index": index}).chat[0]["content"] for index in range(3)]
    contexts = [split_previous(prompt)[1] for prompt in prompts]
    assert contexts == table["previous"].take([0, 2, 3]).to_pylist() and contexts[1] != rows.solution(0)
