"""Known answers of the detector's parts: tests/golden/vost.json, in single and double precision."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from sgrl.models.vost import answers, geometry, queries
from sgrl.vocabulary import get_vocabulary

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


def pair_geometry(given):
    return geometry.pair_geometry(given["subject"], given["object"])


def generalized_iou(given):
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
@pytest.mark.parametrize("name", ["pair_geometry", "generalized_iou"])
def test_parts_of_tensors(name, dtype):
    for case in CASES[name]:
        found = globals()[name](tensors(case["input"], dtype))
        assert found.dtype == dtype
        same(found, case["expected"], case["id"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_texts_of_predicates(dtype):
    for case in CASES["predicate_text"]:
        given = case["input"] | {"table": torch.tensor(case["input"]["table"], dtype=dtype)}
        found = queries.predicate_text(torch.tensor(given["present"]), given["table"], given["groups"])
        assert found.dtype == dtype
        same(found, case["expected"], case["id"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_content_of_queries(dtype):
    for case in CASES["content_queries"]:
        same(content_queries(tensors(case["input"], dtype), dtype), case["expected"], case["id"])


def test_folds():
    for case in CASES["fold_of"]:
        same(answers.fold_of(**case["input"]), case["expected"], case["id"])


def test_answers():
    for name, parse in (("parse_pair", answers.parse_pair), ("parse_frame", answers.parse_frame)):
        for case in CASES[name]:
            given = case["input"] | {"vocabulary": get_vocabulary(case["input"]["vocabulary"])}
            same(dataclasses.asdict(parse(**given)), case["expected"], case["id"])
