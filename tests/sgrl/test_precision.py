"""Which precision a device gets, whoever asks; and the patch embedding that is a matrix product."""

import copy
import logging

import pytest
import torch
from torch import nn

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


@pytest.mark.parametrize(
    "other", [{"stride": 2}, {"padding": 1}, {"dilation": 2}, {"groups": 2}, {"padding": "valid", "stride": 1}]
)
def test_other_convolutions_stay(other):
    model = nn.Sequential(nn.Conv3d(4, 4, **{"kernel_size": 3, "stride": 3} | other))
    faster_on_cpu(model)
    assert "forward" not in vars(model[0])
