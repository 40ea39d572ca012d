"""Small detectors, and inputs for them."""

import numpy as np
import pytest
import torch

from data_prep import to_toon
from data_prep.toys import action_genome
from sgrl import data
from sgrl.files import fingerprint
from sgrl.models.vost.config import VostConfig
from sgrl.models.vost.inputs import Labels
from sgrl.models.vost.modeling import VostForSceneGraphs
from sgrl.models.vost.priors import (
    AskedModel,
    FramePriors,
    PriorPair,
    PriorsInfo,
    write_features,
    write_priors,
    write_text,
)
from sgrl.text import get_codec

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


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A small data set `data`, and `priors` which say what is true of every frame but the first."""
    folder = tmp_path_factory.mktemp("vost")
    action_genome.write_rich(folder / "world", 6, 2, frames=6)
    command = ["--dataset", "action_genome", "--root", str(folder / "world"), "--output", str(folder / "data")]
    assert to_toon.main([*command, "--resize", "keep"]) == 0
    vocabulary = data.vocabulary_of(data.read_metadata(folder / "data"))
    rng = np.random.default_rng(0)
    write_text(folder / "priors", rng.normal(size=(5, 8)), rng.normal(size=(26, 8)))
    frames, prints, labels = [], {}, Labels(vocabulary)
    for split in ("train", "test"):
        prints[split] = fingerprint(data.files(folder / "data", split))
        rows = data.load(folder / "data", split)
        name = rows[0]["dataset"]
        for row in rows.remove_columns("image"):
            graph = get_codec("toon-pairs").parse(row["solution"], row["width"], row["height"], tags=False)
            size = np.array([row["width"], row["height"]] * 2)
            held = {}
            for s, predicate, o in graph.relations:
                held.setdefault((s, o), []).append(labels.official(predicate.partition("__")[2]))
            boxes = np.array(graph.boxes).reshape(-1, 4) / size
            pairs = [
                PriorPair("person", tuple(boxes[s]), labels.official(graph.labels[o]), tuple(boxes[o]), tuple(said))
                for (s, o), said in held.items()
            ]
            frames.append(FramePriors(row["image_id"], tuple(pairs), row["video_id"], row["frame"]))
    write_features(folder / "priors", "0", {f.image_id: rng.normal(size=(len(f.pairs), 3, 6)) for f in frames[1:]})
    info = PriorsInfo(name, prints, vocabulary, (AskedModel("a witness"),))
    write_priors(folder / "priors", info, frames[1:])
    return folder
