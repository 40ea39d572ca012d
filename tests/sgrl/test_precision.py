"""Which precision a device gets, whoever asks; and the patch embedding that is a matrix product."""

import copy
import importlib
import logging

import pytest
import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from sgrl import machine, precision
from sgrl.models.vlm.cpu import faster_on_cpu


@pytest.fixture(params=[False, True], ids=["no units", "units"])
def units(request, monkeypatch):
    """A CPU with or without bfloat16 units, whatever this one has."""
    monkeypatch.setattr(precision, "has_units", lambda dtype: request.param or dtype == "float32")
    return request.param


def test_a_cpu_gets_float32_with_and_without_units(units, caplog):
    assert precision.choose("cpu") == precision.choose("mps") == "float32"
    assert precision.choose("cuda") == "bfloat16"
    assert not caplog.records


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_what_is_asked_for_is_done_with_a_warning_where_it_is_slow(dtype, where, units, caplog):
    assert precision.choose(where, dtype) == dtype
    slow = where == "cpu" and dtype != "float32" and not units
    assert [f"{dtype} is slow on this CPU" in record.message for record in caplog.records] == [True] * slow


def test_vllm_has_linear_attention_on_cpus_in_bfloat16_alone(units, caplog):
    caplog.set_level(logging.INFO)
    assert precision.for_vllm(True, "auto", False) == "float32" and not caplog.records
    assert precision.for_vllm(True, "auto", True) == precision.for_vllm(True, "float32", True) == "bfloat16"
    assert "on CPUs it has linear attention in nothing else" in caplog.text
    assert ("bfloat16 is slow" in caplog.text) == (not units)
    assert (
        precision.for_vllm(False, "auto", True) == "bfloat16"
        and precision.for_vllm(False, "float32", True) == "float32"
    )


def test_units_are_those_that_oneDNN_finds(monkeypatch):
    assert precision.has_units("float32")
    assert precision.has_units("bfloat16") == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    monkeypatch.setattr(torch.ops, "mkldnn", object())  # a build without it
    assert not precision.has_units("bfloat16") and not precision.has_units("float16")


def test_device(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: gpu)
    assert precision.device() == "cuda" and precision.device(use_cpu=True) == "cpu"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert precision.device() == "cpu"
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert precision.device() == "cpu"


def test_doctor_says_which_it_is(units, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (line,) = [finding.what for finding in machine.check_devices() if "float32" in finding.what]
    assert ("no units for bfloat16" in line) == (not units)


@pytest.mark.parametrize("bias", [True, False])
def test_patch_embedding_is_a_matrix_product(bias):
    torch.manual_seed(0)
    shape = (2, 4, 4)
    slow = nn.Sequential(nn.Conv3d(3, 10, kernel_size=shape, stride=shape, bias=bias))
    fast = copy.deepcopy(slow)
    faster_on_cpu(fast)
    assert list(fast.state_dict()) == list(slow.state_dict())
    patches = torch.randn(7, 3, *shape)
    assert torch.allclose(fast(patches), slow(patches), atol=1e-6) and fast(patches).shape == (7, 10, 1, 1, 1)
    for model in (slow, fast):
        model(patches).square().sum().backward()
    for ours, theirs in zip(fast.parameters(), slow.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    image = torch.randn(2, 3, 4, 8, 8)  # several patches: a convolution as ever
    assert torch.equal(fast(image), slow(image))
    again = copy.deepcopy(fast)  # as TRL's reference model: with the copy's weights, not ours
    again[0].weight.data.zero_()
    assert torch.equal(again(patches).flatten(1), torch.zeros(7, 10) + (again[0].bias if bias else 0))


@pytest.mark.parametrize("family", ["qwen2_5_vl:Qwen2_5_VL", "qwen3_vl:Qwen3VL", "qwen3_5:Qwen3_5"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_takes_images_of_one_size_together(family, implementation, monkeypatch):
    torch.manual_seed(0)
    module, _, name = family.partition(":")
    code = importlib.import_module(f"transformers.models.{module}.modeling_{module}")
    config = getattr(code, f"{name}VisionConfig")(hidden_size=16, num_heads=2)
    config._attn_implementation = implementation
    slow = nn.Sequential(getattr(code, f"{name}VisionAttention")(config))
    fast = copy.deepcopy(slow)
    faster_on_cpu(fast)
    calls = []
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, code.eager_attention_forward)
    monkeypatch.setattr(
        ALL_ATTENTION_FUNCTIONS, "get_interface", lambda *args: lambda *a, **k: calls.append(1) or attend(*a, **k)
    )
    states, angles = torch.randn(24, 16), torch.randn(24, 8)
    places = (angles.cos(), angles.sin())
    for ends, together in (([0, 6, 12, 18, 24], 1), ([0, 4, 12, 24], 3)):
        found = []
        for model in (slow, fast):
            calls.clear()
            model.zero_grad()
            out = model[0](states, cu_seqlens=torch.tensor(ends), position_embeddings=places, max_seqlen=12)
            out.square().sum().backward()
            found += [[out, *(parameter.grad for parameter in model.parameters())]]
            assert len(calls) == (together if model is fast else len(ends) - 1)
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*found, strict=True))
    again = copy.deepcopy(fast)  # has its own weights
    again[0].proj.weight.data.zero_()
    assert again[0](states, torch.tensor([0, 12, 24]), places).std(0).max() == 0


@pytest.mark.parametrize(
    "other", [{"stride": 2}, {"padding": 1}, {"dilation": 2}, {"groups": 2}, {"padding": "valid", "stride": 1}]
)
def test_other_convolutions_stay(other):
    model = nn.Sequential(nn.Conv3d(4, 4, **{"kernel_size": 3, "stride": 3} | other))
    faster_on_cpu(model)
    assert "forward" not in vars(model[0])
