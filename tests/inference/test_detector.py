"""A detector as a predictor: loaded by its folder, graphs of images and of streams."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sgrl import SceneGraphModel
from sgrl.errors import SgrlError
from sgrl.inference.detect import FileSource, detect
from sgrl.inference.detector import SceneGraphDetector, scored_graph
from sgrl.models.detection.images import image_processor
from sgrl.models.vost.config import VostConfig
from sgrl.models.vost.modeling import VostForSceneGraphs
from sgrl.models.vost.postprocess import Detections
from sgrl.models.vost.priors import write_text
from sgrl.scores import read_scores
from sgrl.task import Task
from sgrl.text import get_codec
from sgrl.vocabulary import get_vocabulary

SIZES = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
SMALL = {
    **{"detr": {"d_model": 16, "encoder_layers": 1, **SIZES}, "patches": {"channels": 8, "strides": [2]}},
    **{"num_slots": 5, "pair_layers": 1, "predicate_layers": 1, "bank_layers": 1, "bank_ffn": 16},
    **{"text_size": 4, "visual_size": 4, "min_score": 0.01},
}
AG = get_vocabulary("action_genome")


def folder_of(path, temporal=False, **settings):
    torch.manual_seed(0)
    model = VostForSceneGraphs(VostConfig(**SMALL | settings))
    if temporal:
        model.add_temporal()
    model.save_pretrained(path)
    image_processor(32, 64).save_pretrained(path)
    write_text(path, np.ones((36, 4)), np.ones((26, 4)))
    Task(AG, "toon-pairs", kind="vost", dataset="action_genome").write(path)
    return str(path)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40 + 8 * i, 64, 3), np.uint8)) for i in range(3)]


def test_it_is_loaded_like_any_other_model(tmp_path, pictures):
    (tmp_path / "damaged.png").write_bytes(b"no image")
    with SceneGraphModel.from_pretrained(folder_of(tmp_path / "model"), batch_size=2) as model:
        assert isinstance(model, SceneGraphDetector) and model.task.kind == "vost"
        found = model([*pictures, tmp_path / "damaged.png"])
        assert [one.error is None for one in found] == [True, True, True, False]
        for picture, one in zip(pictures, found[:3], strict=True):
            graph = one.graph
            assert (graph.width, graph.height) == picture.size and graph.relations
            assert graph.objects[0].label == "person" and all(0 < r.score <= 1 for r in graph.relations)
            boxes = np.array([o.box for o in graph.objects])
            assert boxes.min() >= 0 and (boxes.max(0) <= [*picture.size] * 2).all()
            parsed = get_codec("toon-pairs").parse(one.answer, *picture.size)
            scores = {(r.subject, f"{r.group}__{r.predicate}", r.object): r.score for r in graph.relations}
            assert [scores[relation] for relation in parsed.relations] == list(one.confidence)
            assert json.loads(one.to_json())["relations"][0]["score"] == graph.relations[0].score
        alone = model(pictures[2])
        np.testing.assert_allclose(alone.confidence, found[2].confidence, atol=1e-5)
        with pytest.raises(SgrlError, match="got no graph"):
            model(tmp_path / "damaged.png")


def test_a_stream_looks_back(tmp_path, pictures):
    model = SceneGraphModel.from_pretrained(folder_of(tmp_path / "model", temporal=True))
    picture, other = pictures[0], pictures[0].rotate(180)
    found = list(model.stream([picture, picture, b"no image", other, picture]))
    assert [one.error is None for one in found] == [True, True, False, True, True]
    assert found[1].tracks == found[0].tracks and found[2].tracks == ()

    def scores(one):
        return [r.score for r in one.graph.relations][:5]

    np.testing.assert_allclose(scores(found[0]), scores(found[1]), atol=1e-5)  # nothing else to look at
    assert not np.allclose(scores(found[1]), scores(found[4]), atol=1e-6)  # the frame between is looked at


def test_what_cannot_be_is_said(tmp_path, pictures):
    folder = folder_of(tmp_path / "model", task="predcls")
    model = SceneGraphModel.from_pretrained(folder)
    with pytest.raises(SgrlError, match="trained for predcls: it is given boxes"):
        model(pictures[0])
    with pytest.raises(SgrlError, match="is a detector, which the engine 'vllm' does not run"):
        SceneGraphModel.from_pretrained(folder, engine="vllm")
    with pytest.raises(SgrlError, match="'batchsize'; did you mean 'batch_size'"):
        SceneGraphModel.from_pretrained(folder, batchsize=3)
    (tmp_path / "model/model.safetensors").write_bytes(b"cut")
    with pytest.raises(SgrlError, match="cannot be loaded as a detector"):
        SceneGraphModel.from_pretrained(folder)


def test_own_files_are_looked_at_again_where_they_did_not_open(tmp_path, pictures):
    frames, output = tmp_path / "walk", tmp_path / "out"
    frames.mkdir()
    for i in range(4):
        pictures[0].rotate(90 * i).save(frames / f"{i}.png")
    (frames / "2.png").write_bytes(b"no image")
    folder = folder_of(tmp_path / "model", temporal=True)
    with SceneGraphModel.from_pretrained(folder, batch_size=2) as model:
        _, failed = detect(model, FileSource(model, [str(frames)]), folder, output)
        assert [name for _, name in failed] == ["walk/2.png"]
        pictures[0].rotate(180).save(frames / "2.png")
        with pytest.raises(SgrlError, match="another run"):  # other files
            detect(model, FileSource(model, [str(frames)]), folder, output)
        (frames / "2.png").write_bytes(b"no image")
        before = (output / "predictions.jsonl").read_text()
        detect(model, FileSource(model, [str(frames)]), folder, output)
    assert (output / "predictions.jsonl").read_text() == before
    rows = [json.loads(line) for line in before.splitlines()]
    assert [(row["video_id"], row["frame"], row["solution"]) for row in rows] == [("walk", i, None) for i in (0, 1, 3)]
    scores = {graph.key: graph for graph in read_scores(output / "scores")}
    assert {key[1] for key in scores} == {row["image_id"] for row in rows}
    assert scores["files", rows[0]["image_id"]].predicate_scores.shape == (5, 26)


def test_all_pairs_are_a_scored_prediction():
    pairs = Detections(
        ["person", "bed"], np.array([[0, 0, 4, 4], [1, 1, 3, 3.0]]), np.array([1, 0.5]), np.array([[0, 1]]),
        np.full((1, 26), 0.25),
    )  # fmt: skip
    graph = scored_graph(pairs, 8, 8, dataset="ag", image_id="v/1")
    assert graph.key == ("ag", "v/1") and graph.best(1, AG)[0].score == 0.125
