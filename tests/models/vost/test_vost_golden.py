"""Known answers of the detector's parts: tests/golden/vost.json, in single and double precision."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DetrConfig, ResNetConfig
from transformers.models.detr.modeling_detr import DetrDecoderLayer

from sgrl.models.vost import answers, bank, decoder, geometry, losses, matching, postprocess, queries, temporal
from sgrl.vocabulary import Vocabulary, get_vocabulary

CASES = json.loads((Path(__file__).parents[2] / "golden" / "vost.json").read_text())["cases"]


def tensors(given, dtype):
    """Lists of numbers as tensors; flags stay flags."""
    if isinstance(given, dict):
        return {name: tensors(value, dtype) for name, value in given.items()}
    if isinstance(given, list):
        found = torch.tensor(given)
        return found.to(dtype) if found.is_floating_point() else found
    return given


def loaded(module, state, dtype):
    module = module.to(dtype).eval()
    module.load_state_dict({name: torch.as_tensor(value, dtype=dtype) for name, value in state.items()})
    return module


def pair_geometry(given, dtype):
    return geometry.pair_geometry(given["subject"], given["object"])


def generalized_iou(given, dtype):
    return geometry.generalized_iou(given["a"], given["b"])


def content_queries(given, dtype):
    module = queries.ContentQueries(given["text_size"], given["hidden_size"], given["slots"])
    module = loaded(module, given["state"], dtype)
    return {
        "pair": module.pair(given["subject"], given["object"], given["mask"]),
        "predicate": module.predicate(given["predicate"], given["mask"]),
    }


def same(found, expected, place):
    if isinstance(expected, dict):
        assert found.keys() >= expected.keys(), place
        for name, value in expected.items():
            same(found[name], value, f"{place}/{name}")
    elif isinstance(found, torch.Tensor):
        wanted = torch.tensor(expected, dtype=found.dtype).reshape(found.shape if not found.numel() else -1)
        torch.testing.assert_close(found.reshape(wanted.shape), wanted, atol=1e-5, rtol=1e-5, msg=lambda m: place + m)
    else:
        assert found == expected, place


def feature_bank(given, dtype):
    module = bank.FeatureBank(
        given["text_size"], None if given["visual"] is None else given["visual_size"], given["hidden_size"]
    )
    module = loaded(module, given["state"], dtype)
    return module(*(given[name] for name in ("text", "predicate", "visual", "geometry", "mask")))


def match(given, dtype):
    outputs, target = given["outputs"], given["target"]
    weights = matching.CostWeights(**given["weights"])
    cost = matching.pair_costs(outputs, target, weights)
    ((rows, columns),) = matching.match({name: value[None] for name, value in outputs.items()}, [target], weights)
    return {"cost": cost, "queries": rows.tolist(), "targets": columns.tolist(), "total": cost[rows, columns].sum()}


def focal_loss(given, dtype):
    return losses.focal_loss(given["logits"], given["targets"], given["alpha"], given["gamma"])


def object_loss(given, dtype):
    return losses.object_loss(given["logits"], given["labels"], given["no_object_weight"])


def attention_loss(given, dtype):
    return losses.attention_loss(given["logits"], given["targets"])


def box_losses(given, dtype):
    box, giou = losses.box_losses(given["boxes"], given["targets"], given["count"])
    return {"box": box, "giou": giou}


def select_references(given, dtype):
    scores = temporal.reference_scores(given["outputs"])
    selected = temporal.select_references(scores, given["percents"].tolist())
    return {"scores": scores, "selected": [rows.tolist() for rows in selected]}


def temporal_layer(given, dtype):
    module = loaded(temporal.TemporalLayer(given["size"], given["heads"], given["feedforward"]), given["state"], dtype)
    return module(given["query"][None], given["references"][None], given["allowed"])[0]


PARTS = [pair_geometry, generalized_iou, content_queries, match, focal_loss, object_loss, attention_loss, box_losses]
PARTS += [select_references, temporal_layer]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_parts(part, dtype):
    for case in CASES[part.__name__]:
        found = part(tensors(case["input"], dtype), dtype)
        same(found, case["expected"], case["id"])
        of_floats = found.values() if isinstance(found, dict) else [found]
        assert all(value.dtype == dtype for value in of_floats if isinstance(value, torch.Tensor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_bank(dtype):
    for case in CASES["feature_bank"]:
        tokens, positions, mask = feature_bank(tensors(case["input"], dtype), dtype)
        expected = case["expected"]
        assert mask.tolist() == expected["mask"] and len(tokens[0]) == len(expected["tokens"][0])
        same(positions, expected["positions"], case["id"])
        for found, rows in zip(tokens, expected["tokens"], strict=True):
            for token, row in zip(found, rows, strict=True):
                if row is not None:  # what is padding may be anything
                    same(token, row, case["id"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_criterion(dtype):
    for case in CASES["criterion"]:
        given = case["input"]
        indices = [tuple(torch.tensor(rows, dtype=torch.long) for rows in pair) for pair in given["indices"]]
        targets = [tensors(target, dtype) for target in given["targets"]]
        found = losses.criterion(tensors(given["outputs"], dtype), targets, indices)
        assert found.keys() == case["expected"].keys()
        same(found, case["expected"], case["id"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_decoder(dtype):
    for case in CASES["decode"]:
        given = case["input"]
        sizes = {"d_model": given["size"], "decoder_attention_heads": given["heads"]}
        sizes |= {"encoder_attention_heads": given["heads"], "decoder_ffn_dim": given["feedforward"]}
        config = DetrConfig(backbone_config=ResNetConfig(out_features=["stage4"]), **sizes)
        layers = [loaded(DetrDecoderLayer(config), state, dtype) for state in given["layers"]]
        norm = loaded(torch.nn.LayerNorm(given["size"]), given["norm"], dtype)
        names = ("content", "query_position", "memory", "memory_position", "memory_mask")
        found = decoder.decode(layers, norm, *(tensors(given[name], dtype)[None] for name in names))
        assert found.dtype == dtype
        same(found[:, 0], case["expected"], case["id"])


def test_frames_and_classes():
    for case in CASES["reference_frames"]:
        same(temporal.reference_frames(**case["input"]), case["expected"], case["id"])
    for case in CASES["same_class_mask"]:
        given = [torch.tensor(case["input"][name]) for name in ("current", "references")]
        same(temporal.same_class_mask(*given).tolist(), case["expected"], case["id"])


def vocabulary_of(given, objects):
    return Vocabulary("small", objects, given["predicates"], given["groups"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_detections(dtype):
    for case in CASES["detections"]:
        given = case["input"]
        outputs = {name: value[None] for name, value in tensors(given["outputs"], dtype).items()}
        size, vocabulary = (given["width"], given["height"]), vocabulary_of(given, given["objects"])
        (found,) = postprocess.detections(outputs, [size], vocabulary)
        for name, expected in case["expected"].items():
            value = getattr(found, name)
            same(value if name == "labels" else torch.tensor(value), expected, f"{case['id']}/{name}")


def test_ranking():
    for case in CASES["ranked_triplets"]:
        given, said = case["input"], case["input"]["detections"]
        arrays = (np.array(said[name]) for name in ("boxes", "scores", "pairs", "predicate_scores"))
        vocabulary = vocabulary_of(given, sorted(set(said["labels"])))
        settings = (given[name] for name in ("constraint", "top", "overlap", "pixel"))
        found = postprocess.ranked_triplets(postprocess.Detections(said["labels"], *arrays), vocabulary, *settings)
        assert [row[:2] for row in found] == [tuple(row[:2]) for row in case["expected"]], case["id"]
        np.testing.assert_allclose([row[2] for row in found], [row[2] for row in case["expected"]], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_texts_of_predicates(dtype):
    for case in CASES["predicate_text"]:
        given = case["input"] | {"table": torch.tensor(case["input"]["table"], dtype=dtype)}
        found = queries.predicate_text(torch.tensor(given["present"]), given["table"], given["groups"])
        assert found.dtype == dtype
        same(found, case["expected"], case["id"])


def test_folds():
    for case in CASES["fold_of"]:
        same(answers.fold_of(**case["input"]), case["expected"], case["id"])


def test_answers():
    for name, parse in (("parse_pair", answers.parse_pair), ("parse_frame", answers.parse_frame)):
        for case in CASES[name]:
            given = case["input"] | {"vocabulary": get_vocabulary(case["input"]["vocabulary"])}
            same(dataclasses.asdict(parse(**given)), case["expected"], case["id"])
