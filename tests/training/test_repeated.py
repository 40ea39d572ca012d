"""GRPO's passes see an image once, however many answers share it; a run with dropout keeps TRL's own passes."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from sgrl.training.correction import drops_out, follows_from_loss
from sgrl.training.repeated import are_groups, first_places, see_images_once


class Tower(nn.Module):
    """Adds up each image's patches; two patches become one feature."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.seen = []

    def forward(self, hidden_states, grid_thw, **kwargs):
        self.seen.append((len(hidden_states), grid_thw.tolist()))
        rows = grid_thw.prod(-1).tolist()
        states = torch.cat([self.weight * (image + image.sum()) for image in hidden_states.split(rows)])
        found = BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=states[::2] + states[1::2])
        found["deepstack_features"] = [states[::2], states[1::2]]
        return found


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Tower()


@pytest.fixture
def batch():
    """Images of 4, 6, 4, 4 and 6 patches: the third equals the first, and the last two others of as many."""
    torch.manual_seed(0)
    a, b, c = (torch.randn(count, 3, dtype=torch.float64) for count in (4, 6, 4))
    grids = torch.tensor([[1, 2, 2], [1, 2, 3], [1, 2, 2], [1, 2, 2], [1, 2, 3]])
    return torch.cat([a, b, a, c, b]), grids


def test_features_and_gradients_are_those_of_each_copy(batch):
    plain, once = Model(), Model()
    assert see_images_once(once)
    results = []
    for model in (plain, once):
        found = model.visual(*batch[:1], grid_thw=batch[1])
        total = sum(
            (value * torch.arange(len(value))[:, None]).sum()
            for value in (found.pooler_output, *found["deepstack_features"])
        )
        total.backward()
        results.append((found, model.visual.weight.grad))
    (first, gradient), (second, other) = results
    for name in ("last_hidden_state", "pooler_output"):
        assert torch.equal(first[name], second[name])
    assert all(map(torch.equal, first["deepstack_features"], second["deepstack_features"]))
    torch.testing.assert_close(gradient, other)
    assert plain.visual.seen[0][0] == 24
    assert once.visual.seen == [(14, [[1, 2, 2], [1, 2, 3], [1, 2, 2]])]


def test_distinct_images_pass_as_they_are(batch):
    model = Model()
    see_images_once(model)
    model.visual(batch[0][:10], grid_thw=batch[1][:2])
    assert model.visual.seen == [(10, [[1, 2, 2], [1, 2, 3]])]


def test_equal_sums_are_no_equal_images():
    one, turned = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0]])
    assert first_places((one, turned, one.clone(), turned.clone(), one.T)) == [0, 1, 0, 1, 4]


def test_groups_are_equal_in_text_and_pixels():
    def image(value: int) -> list[Image.Image]:
        return [Image.new("RGB", (4, 4), (value, 0, 0))]

    prompts, images = [[1, 2], [1, 2], [1, 2], [1, 2]], [image(0), image(0), image(9), image(9)]
    assert are_groups(prompts, images, 2) and are_groups(prompts, None, 4)
    assert not are_groups(prompts, images, 4)  # another image
    assert not are_groups(prompts, images, 3)  # a group that goes on in another process
    assert not are_groups([[1, 2], [1, 3]], None, 2)
    assert not are_groups(prompts, [image(0), None, image(9), image(9)], 2)
    assert are_groups(prompts, [None, None, image(9) * 2, image(9) * 2], 2)
    assert not are_groups(prompts, [None, None, image(9), image(9) * 2], 2)


def test_a_tower_of_another_kind_is_left_alone():
    assert not see_images_once(nn.Sequential(nn.Linear(2, 2)))


def test_what_drops_out_is_found():
    def with_rate(name: str, rate: float) -> nn.Module:
        module = nn.Linear(2, 2)
        setattr(module, name, rate)
        return nn.Sequential(nn.Dropout(0.0), nn.Sequential(module))

    assert not drops_out(with_rate("attention_dropout", 0.0))
    assert drops_out(with_rate("attention_dropout", 0.1)) and drops_out(nn.Sequential(nn.Dropout(0.05)))


@pytest.mark.parametrize(
    "changed, follows",
    [
        ({}, True),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 1}, True),
        ({"steps_per_generation": 8}, False),  # the weights change between
        ({"num_iterations": 2}, False),
        ({"vllm_importance_sampling_correction": False}, False),
        ({"vllm_importance_sampling_mode": "of_a_later_version"}, False),
        ({"use_vllm": False}, False),
    ],
)
def test_when_the_loss_has_the_same_log_probabilities(changed, follows):
    args = {
        "use_vllm": True,
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": "token_truncate",
        "gradient_accumulation_steps": 4,
        "steps_per_generation": 4,
        "num_iterations": 1,
    }
    args = SimpleNamespace(**(args | changed))
    assert follows_from_loss(args, nn.Linear(2, 2)) is follows
    assert not follows_from_loss(args, nn.Dropout(0.1))
