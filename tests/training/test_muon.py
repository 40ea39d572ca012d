"""Muon: orthogonal updates for matrices, AdamW's for the rest."""

import copy

import pytest
import torch
from torch import nn

from sgrl.errors import SgrlError
from sgrl.training.muon import Muon, is_matrix, muon, orthogonal


def model():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "embed_tokens": nn.Embedding(8, 12),
            "fc": nn.Linear(12, 24),
            "norm": nn.LayerNorm(24),
            "out": nn.Linear(24, 3),
        }
    )


def loss(modules):
    hidden = modules["norm"](modules["fc"](modules["embed_tokens"](torch.arange(8))))
    return nn.functional.cross_entropy(modules["out"](hidden), torch.arange(8) % 3)


def steps(modules, optimizer, count):
    for _ in range(count):
        optimizer.zero_grad()
        loss(modules).backward()
        optimizer.step()


def by_definition(matrix):
    """Newton-Schulz as its authors write it (https://kellerjordan.github.io/posts/muon)."""
    x = matrix / matrix.norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * (x @ x.T) @ x + 2.0315 * (x @ x.T) @ (x @ x.T) @ x
    return x


@pytest.mark.parametrize("shape", [(24, 12), (12, 24), (16, 16)])
def test_updates_are_nearly_orthogonal(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    found = orthogonal(matrices)
    values = torch.linalg.svdvals(found)
    assert 0.3 < values.min() and values.max() < 1.3
    for matrix, one in zip(matrices, found, strict=True):  # each on its own
        assert torch.allclose(orthogonal(matrix[None])[0], one, atol=1e-5)
        assert torch.allclose(by_definition(matrix), one, atol=1e-5)


def test_who_gets_what():
    names = {name for name, parameter in model().named_parameters() if is_matrix(name, parameter)}
    assert names == {"fc.weight", "out.weight"}
    assert is_matrix("visual.patch_embed.proj.weight", torch.zeros(4, 3, 1, 2, 2))
    assert not is_matrix("visual.pos_embed.weight", torch.zeros(4, 4))
    assert not is_matrix("lm_head.weight", torch.zeros(4, 4))


def test_the_rest_moves_as_with_adamw():
    ours, theirs = model(), model()
    lookup = ("embed_tokens", "norm", "fc.bias", "out.bias")
    rest = [p for name, p in theirs.named_parameters() if name.startswith(lookup)]
    adamw = torch.optim.AdamW(rest, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    optimizer = Muon(ours.named_parameters(), lr=1e-2)
    for _ in range(3):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        optimizer.step()
        adamw.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6) == name.startswith(lookup)


def test_it_learns_and_resumes():
    modules = model()
    optimizer = Muon(modules.named_parameters(), lr=1e-2)
    steps(modules, optimizer, 5)
    resumed = copy.deepcopy(modules)
    again = Muon(resumed.named_parameters(), lr=1e-2)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(modules, optimizer, 30)
    steps(resumed, again, 30)
    assert loss(modules) < 0.1
    for a, b in zip(modules.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_frozen_parameters_stay_and_shards_are_refused():
    modules = model()
    modules["fc"].requires_grad_(False)
    before = modules["fc"].weight.clone()
    steps(modules, Muon(modules.named_parameters(), lr=1e-2), 1)
    assert torch.equal(modules["fc"].weight, before)

    class Arguments:
        deepspeed, fsdp = "zero3.json", None

    with pytest.raises(SgrlError, match="set `muon: false`"):
        muon(modules, Arguments())


@pytest.mark.parametrize("name", ["DEEPSPEED", "FSDP"])
def test_shards_of_accelerates_launcher_are_refused(name, monkeypatch):
    class Arguments:
        deepspeed = fsdp = None

    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(SgrlError, match="set `muon: false`"):
        muon(model(), Arguments())
