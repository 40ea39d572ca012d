"""Small detectors, and inputs for them."""

import pytest
import torch

from sgrl.models.vost.config import VostConfig
from sgrl.models.vost.modeling import VostForSceneGraphs

SIZES = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
SMALL = {
    **{"detr": {"d_model": 32, "encoder_layers": 1, **SIZES}, "patches": {"channels": 16, "strides": [2]}},
    **{"num_slots": 7, "pair_layers": 2, "predicate_layers": 2, "bank_layers": 1, "bank_ffn": 32},
    **{"text_size": 8, "visual_size": 6},
}


@pytest.fixture
def detector():
    """A function that makes a small model, the same for the same settings; `temporal=True` adds the stage."""

    def make(temporal=False, **settings):
        torch.manual_seed(0)
        model = VostForSceneGraphs(VostConfig(**{**SMALL, **settings}))
        if temporal:
            model.add_temporal()
        model.set_trainable()
        return model.eval()

    return make


@pytest.fixture
def priors_of():
    return _priors


@pytest.fixture
def target_of():
    return _target


@pytest.fixture
def small():
    """The settings of `detector`."""
    return SMALL


def _priors(frames, pairs, seed=0):
    """Priors of so many frames, the first two pairs of which are there."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(frames, pairs, generator=g) > 0.4
    mask[:, :2] = True
    sizes = {"text": (2, 8), "predicate": (8,), "visual": (3, 6)}
    found = {name: torch.randn(frames, pairs, *size, generator=g) for name, size in sizes.items()}
    found |= {"geometry": torch.rand(frames, pairs, 12, generator=g), "mask": mask}
    return found | {"labels": torch.randint(36, (frames, pairs), generator=g), "told": mask.clone()}


def _target(pairs, seed=0):
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(2, pairs, 4, generator=g) / 2 + 0.2
    tables = {"attention": 3, "spatial": 6, "contacting": 17}
    found = {name: (torch.rand(pairs, width, generator=g) > 0.5).float() for name, width in tables.items()}
    found |= {"labels": torch.randint(36, (pairs,), generator=g), "pairs": torch.arange(pairs)}
    return found | {"subject_boxes": boxes[0], "object_boxes": boxes[1]}
