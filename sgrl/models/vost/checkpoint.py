"""From a DETR that was trained on COCO to the beginning of a VOST model."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import DetrForObjectDetection, PreTrainedConfig

from sgrl.errors import SgrlError
from sgrl.models.vost.config import VostConfig
from sgrl.terminal import printable

logger = logging.getLogger(__name__)

_TIMM = (
    "{name} has a backbone of timm, whose names differ; load the weights without timm (of facebook/detr-resnet-50: "
    "revision no_timm)"
)


@dataclass
class Taken:
    """What became of the tensors: taken (new name -> DETR's), new ones, and what DETR has and this model has not."""

    taken: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def log(self) -> None:
        for name, source in self.taken.items():
            logger.info("taken  %s  from  %s", name, source)
        for kind in ("new", "left"):
            for name in getattr(self, kind):
                logger.info("%s  %s", kind.ljust(5), name)
        logger.info("%d tensors taken, %d new, %d of DETR left", len(self.taken), len(self.new), len(self.left))


def model_from_detr(cls: type, name: str, config: VostConfig, revision: str | None = None):
    """See `VostForSceneGraphs.from_detr`."""
    detr = load_detr(name, revision)
    config = copy.deepcopy(config)
    dropout = {key: getattr(config.detr, key) for key in ("dropout", "attention_dropout", "activation_dropout")}
    config.detr, config.patches, config.frozen_norm = copy.deepcopy(detr.config), None, True
    for key, value in dropout.items():
        setattr(config.detr, key, value)
    model = cls(config)
    take(model, detr).log()
    return model


def load_detr(name: str, revision: str | None = None) -> DetrForObjectDetection:
    """A DETR with a backbone of transformers. Raises SgrlError for one of timm, or for something else."""
    try:
        found, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
    except (OSError, ValueError) as error:
        raise SgrlError(f"{name} cannot be loaded as a DETR ({printable(error, 200)})") from None
    if found.get("model_type") != "detr":
        kind = printable(found.get("model_type"), 40)
        raise SgrlError(f"{name} is a model of type {kind!r}; expected 'detr', such as facebook/detr-resnet-50")
    backbone = found.get("backbone_config") or {}
    if found.get("use_timm_backbone", not backbone) or backbone.get("model_type") == "timm_backbone":
        raise SgrlError(_TIMM.format(name=name))
    model, info = DetrForObjectDetection.from_pretrained(
        name, revision=revision, output_loading_info=True, trust_remote_code=False
    )
    missing = sorted(info["missing_keys"])
    if any("backbone" in key for key in missing):
        raise SgrlError(_TIMM.format(name=name))
    if missing:
        raise SgrlError(f"{name} lacks {missing[0]} and {len(missing) - 1} more tensors of a DETR")
    return model


@torch.no_grad()
def take(model: nn.Module, detr: DetrForObjectDetection) -> Taken:
    """Copy what both have: backbone, projection, encoder, the first layers of the decoder into both decoders, queries
    into the slots, the head of boxes into those of both boxes."""
    theirs, done, found = detr.state_dict(), set(), Taken()
    for name, tensor in model.state_dict().items():
        source = _source(name)
        if source is None or source not in theirs:
            found.new.append(name)
            continue
        value = theirs[source]
        if name == "pair_position.weight":  # as many slots as it has queries
            value = torch.cat([value, tensor[len(value) :]])[: len(tensor)]
        if value.shape != tensor.shape:
            raise SgrlError(f"{name} is of shape {tuple(tensor.shape)}, DETR's {source} of {tuple(value.shape)}")
        tensor.copy_(value)
        found.taken[name] = source
        done.add(source)
    found.left = [name for name in theirs if name not in done]
    return found


_SAME = (
    ("backbone.model.", "model.backbone.model."),
    ("input_projection.", "model.input_projection."),
    ("encoder.layers.", "model.encoder.layers."),
    ("pair_decoder.layers.", "model.decoder.layers."),
    ("predicate_decoder.layers.", "model.decoder.layers."),
    ("pair_decoder.norm.", "model.decoder.layernorm."),
    ("predicate_decoder.norm.", "model.decoder.layernorm."),
    ("heads.subject_box.", "bbox_predictor."),
    ("heads.object_box.", "bbox_predictor."),
)


def _source(name: str) -> str | None:
    """The name in DETR of one of ours."""
    if name == "pair_position.weight":
        return "model.query_position_embeddings.weight"
    return next((theirs + name.removeprefix(ours) for ours, theirs in _SAME if name.startswith(ours)), None)
