"""The model: image and priors in, scored pairs out (figure 2 of the paper; OED is the same without the priors)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DetrConfig, PreTrainedModel
from transformers import initialization as init
from transformers.models.detr.modeling_detr import DetrDecoderLayer, DetrEncoderLayer, DetrSinePositionEmbedding
from transformers.utils import ModelOutput

from sgrl.models.detection.backbone import Backbone, PatchBackbone, reduced_mask
from sgrl.models.vost.bank import FeatureBank
from sgrl.models.vost.config import VostConfig
from sgrl.models.vost.decoder import additive_mask, decode
from sgrl.models.vost.geometry import GEOMETRY_SIZE
from sgrl.models.vost.heads import Heads
from sgrl.models.vost.losses import object_loss
from sgrl.models.vost.objective import objective
from sgrl.models.vost.queries import ContentQueries
from sgrl.models.vost.temporal import PERCENTS, TemporalLayer, reference_scores, same_class_mask, select_references

Priors = Mapping[str, Tensor]


@dataclass
class VostOutput(ModelOutput):
    """What the model says of the target frame of each clip.

    loss: with targets. losses: its terms, see `losses.criterion`; of other layers with a number behind the name.
    object_logits (B, N, C+1), attention_logits (B, N, A+1), spatial_logits, contacting_logits.
    subject_boxes, object_boxes: (B, N, 4) centres in 0..1; those that were given, where they were.
    mask: (B, N) bool, the queries that are there; None: all. labels: (B, N) classes that were given.
    person_logits: (B, N, 2) of SGCLS, person first.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    object_logits: Tensor | None = None
    attention_logits: Tensor | None = None
    spatial_logits: Tensor | None = None
    contacting_logits: Tensor | None = None
    subject_boxes: Tensor | None = None
    object_boxes: Tensor | None = None
    mask: Tensor | None = None
    labels: Tensor | None = None
    person_logits: Tensor | None = None


class Decoder(nn.Module):
    """Layers of DETR's decoder and the norm of their states, for `decode`."""

    def __init__(self, config: DetrConfig, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(DetrDecoderLayer(config) for _ in range(layers))
        self.norm = nn.LayerNorm(config.d_model)


class Encoder(nn.Module):
    """Layers of DETR's encoder, without the dropout that transformers has before them and DETR has not."""

    def __init__(self, config: DetrConfig, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(DetrEncoderLayer(config) for _ in range(layers))

    def forward(self, states: Tensor, position: Tensor, valid: Tensor) -> Tensor:
        """(B, S, d), (S, d) or (B, S, d), (B, S) bool -> (B, S, d)."""
        mask, position = additive_mask(valid, states.dtype), position.expand_as(states)
        for layer in self.layers:
            states = layer(states, mask, spatial_position_embeddings=position)
        return states


class Temporal(nn.Module):
    """The temporal stage: layers over pairs of the clip, and heads of their own."""

    def __init__(self, config: VostConfig):
        super().__init__()
        detr = config.detr
        self.layers = nn.ModuleList(
            TemporalLayer(2 * detr.d_model, detr.decoder_attention_heads, detr.decoder_ffn_dim, detr.dropout)
            for _ in PERCENTS
        )
        self.heads = Heads(config)


class VostForSceneGraphs(PreTrainedModel):
    """Scene graphs of frames, each with the priors of a language model.

    `forward` takes clips of `config.frames` frames, the target first; without the temporal stage a clip is a frame.
    """

    config_class = VostConfig
    base_model_prefix = "vost"
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _no_split_modules = ["DetrEncoderLayer", "DetrDecoderLayer", "Backbone", "TemporalLayer"]

    def __init__(self, config: VostConfig):
        super().__init__(config)
        detr = _for_layers(config.detr, config._attn_implementation)
        size, slots = detr.d_model, config.num_slots
        if config.patches is not None:
            self.backbone = PatchBackbone(**config.patches)
        else:
            self.backbone = Backbone(config.detr.backbone_config, config.frozen_norm)
        self.input_projection = nn.Conv2d(self.backbone.channels, size, 1)
        self.position = DetrSinePositionEmbedding(size // 2, normalize=True)
        self.encoder = Encoder(detr, detr.encoder_layers)
        self.pair_decoder = Decoder(detr, config.pair_layers)
        self.predicate_decoder = Decoder(detr, config.predicate_layers)
        if config.given is None:
            self.pair_position = nn.Embedding(slots, size)
        else:
            self.pair_position = nn.Sequential(nn.Linear(GEOMETRY_SIZE, size), nn.ReLU(), nn.Linear(size, size))
        # parts that not every configuration has
        self.content: Any = None
        self.bank: Any = None
        self.bank_encoder: Any = None
        self.anchors: Any = None
        self.temporal: Any = None
        if config.content == "priors" or config.task == "predcls" or config.bank != "none":
            self.content = ContentQueries(config.text_size, size, slots)
        if config.bank != "none":
            visual = config.visual_size if config.bank == "full" else None
            self.bank = FeatureBank(config.text_size, visual, size)
            wide = _for_layers(config.detr, config._attn_implementation, encoder_ffn_dim=config.bank_ffn)
            self.bank_encoder = Encoder(wide, config.bank_layers)
        if config.anchors and config.given is None:
            self.anchors = nn.Embedding(2 * slots, 4)
        if config.bank_scope == "clip" and self.bank is not None:
            self.frame_kinds = nn.Embedding(1 + config.references, size)
        self.heads = Heads(config, background=True)
        if config.temporal:
            self.temporal = Temporal(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            else:
                init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.MultiheadAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, FeatureBank):
            init.normal_(module.null, std=0.02)
            init.normal_(module.kinds, std=0.02)
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            if isinstance(module, nn.BatchNorm2d):
                init.zeros_(module.running_mean)
                init.ones_(module.running_var)

    @classmethod
    def from_detr(cls, name: str, config: VostConfig, revision: str | None = None) -> VostForSceneGraphs:
        """A model that begins with the weights of a DETR, and logs tensor by tensor what was taken and what is new.

        Args:
            name: folder or name of a `DetrForObjectDetection`, such as facebook/detr-resnet-50.
            config: its `detr` is replaced by the checkpoint's, with the dropout of `config`.
            revision: of the Hub; "no_timm" for facebook's.

        Raises:
            SgrlError: a checkpoint whose backbone is timm's, or with other sizes.
        """
        from sgrl.models.vost.checkpoint import model_from_detr

        return model_from_detr(cls, name, config, revision)

    def add_temporal(self) -> None:
        """Turn a spatial model into one with the temporal stage, whose heads begin as copies of the spatial ones."""
        self.config.temporal = True
        self.temporal = Temporal(self.config).to(self.device, self.dtype)
        self.temporal.apply(self._init_weights)
        self.temporal.heads.copy_from(self.heads)

    def set_trainable(self) -> None:
        """Which parameters are trained: the temporal stage alone, if there is one; else all but the first stages of a
        backbone whose weights were loaded. `from_pretrained` forgets it, so trainers ask."""
        self.requires_grad_(self.temporal is None)
        if self.temporal is not None:
            self.temporal.requires_grad_(True)
            return
        if self.config.frozen_norm:
            for parameter in self.backbone.frozen_parameters():
                parameter.requires_grad_(False)
        if self.content is not None:  # what takes no part must not be waited for by other processes
            said = self.config.content == "priors"
            self.content.pair_projection.requires_grad_(said or self.config.task == "predcls")
            self.content.predicate_projection.requires_grad_(said or self.bank is not None)

    def train(self, mode: bool = True) -> VostForSceneGraphs:
        """With the temporal stage all else stays as in evaluation: what is not trained must not vary."""
        super().train(mode and self.temporal is None)
        self.training = mode
        if self.temporal is not None:
            self.temporal.train(mode)
        return self

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        priors: Priors | None = None,
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        return_dict: bool | None = None,
    ) -> VostOutput:
        """
        Args:
            pixel_values: (B * F, 3, H, W), frames of a clip behind each other, the target first.
            pixel_mask: (B * F, H, W), 1 for what is no padding; None: there is none.
            priors: mask (B * F, P) bool; text (B * F, P, 2, L) of subject and object; predicate (B * F, P, L);
                geometry (B * F, P, 12); visual (B * F, P, 3, V), if there are any; told (B * F, P) bool, the pairs of
                which something was said (None: all). Where pairs are given, they are these, with labels (B * F, P).
                None: no pairs.
            targets: of the B target frames, see `matching.pair_costs`; where pairs are given, target i is pair
                `pairs[i]` of the frame (without "pairs": pair i).
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.temporal is None):
            priors = self._with_empty(priors, pixel_values)
            pairs, predicates = self._states(pixel_values, pixel_mask, priors)
        anchors = None if self.anchors is None else self.anchors.weight.unflatten(0, (2, -1))
        layers = min(len(pairs), len(predicates))
        if self.temporal is None:
            said = self.heads(pairs[-layers:], predicates[-layers:], anchors)
        else:
            said, priors = self._temporal(pairs[-1], predicates[-1], anchors, priors)
        last = {name: value[-1] for name, value in said.items()}
        if self.config.given is not None:
            last |= {"mask": priors["mask"], "subject_boxes": priors["geometry"][..., :4]}
            last |= {"object_boxes": priors["geometry"][..., 4:8]}
            if self.config.given == "classes":
                last["labels"] = priors["labels"]
        loss, losses = None, None
        if targets is not None:
            losses = objective(said, last, targets, self.config.given)
            if "person_logits" in last:
                losses["person"] = self._person_loss(last, targets)
                losses["total"] = losses["total"] + losses["person"]
            loss = losses.pop("total")
        return VostOutput(loss=loss, losses=losses, **last)

    def _with_empty(self, priors: Priors | None, images: Tensor) -> dict[str, Tensor]:
        """Priors with everything that the configuration needs; without pairs where there are none."""
        batch, like = len(images), self.input_projection.weight
        priors = dict(priors or {})
        mask = priors.setdefault("mask", torch.zeros(batch, 0, dtype=torch.bool, device=images.device))
        if self.config.given is not None and mask.shape[1] == 0:  # attention wants a query
            priors = {"mask": mask.new_zeros(batch, 1)}
        mask = priors["mask"]
        sizes = {"text": (2, self.config.text_size), "predicate": (self.config.text_size,)}
        sizes |= {"geometry": (GEOMETRY_SIZE,), "visual": (3, self.config.visual_size or 0)}
        for name, size in sizes.items():
            if priors.get(name) is None:
                priors[name] = like.new_zeros(*mask.shape, *size)
            priors[name] = priors[name].to(like.dtype)
        priors.setdefault("told", mask)
        priors.setdefault("labels", torch.zeros_like(mask, dtype=torch.long))
        return priors

    def _states(self, images: Tensor, pixel_mask: Tensor | None, priors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """States of all layers of the pair decoder and of the predicate decoder, (L, B * F, N, d)."""
        memory, position, valid = self._encode(images, pixel_mask)
        given, mask = self.config.given, priors["mask"]
        if given is None:
            pair_position, query_mask = self.pair_position.weight, None
            content = memory.new_zeros(len(memory), *pair_position.shape)
        else:
            pair_position, query_mask = self.pair_position(priors["geometry"]), mask
            content = torch.zeros_like(pair_position)
        predicate_content, text = content, None
        if self.content is not None:
            text = self.content.predicate_projection(priors["predicate"])
            of_pair = self._pair_content(priors)
            if of_pair is not None:
                content = of_pair
            if self.config.content == "priors":
                told = mask & priors["told"]
                predicate_content = self.content.slotted(text, told) if given is None else _masked(text, told)
        decoder = self.pair_decoder
        pairs = decode(decoder.layers, decoder.norm, content, pair_position, memory, position, valid, query_mask)
        if self.bank is not None:
            memory, position, valid = self._bank(priors, text)
        decoder, place = self.predicate_decoder, pairs[-1]
        states = decode(decoder.layers, decoder.norm, predicate_content, place, memory, position, valid, query_mask)
        return pairs, states

    def _encode(self, images: Tensor, pixel_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Memory (B * F, S, d), its positions, and what of it is no padding."""
        if pixel_mask is None:
            pixel_mask = images.new_ones(len(images), *images.shape[-2:])
        found = self.input_projection(self.backbone(images.to(self.input_projection.weight.dtype)))
        valid = reduced_mask(pixel_mask, found.shape[-2:])
        position = self.position(shape=found.shape, device=found.device, dtype=found.dtype, mask=valid)
        states, position = (value.flatten(2).transpose(1, 2) for value in (found, position))
        valid = valid.flatten(1)
        return self.encoder(states, position, valid), position, valid

    def _pair_content(self, priors: dict[str, Tensor]) -> Tensor | None:
        """Content of the pair decoder; None for zeros. Of given classes OED knows the names, too."""
        mask, (subject, object) = priors["mask"], priors["text"].unbind(2)
        if self.config.task == "predcls":
            return _masked(self.content.pair_projection(torch.cat([subject, object], dim=-1)), mask)
        if self.config.content == "none":
            return None
        if self.config.task == "sgcls":
            projected = self.content.pair_projection(torch.cat([subject, object], dim=-1))
            return _masked(projected, mask & priors["told"])
        return self.content.pair(subject, object, mask)

    def _bank(self, priors: dict[str, Tensor], text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The bank, encoded, as memory."""
        silent = self.config.bank == "geometry"  # without what a language model said of the pair
        said = _masked(text, priors["mask"] & priors["told"] & (not silent))
        visual = priors["visual"] if self.config.bank == "full" else None
        tokens, position, valid = self.bank(priors["text"], said, visual, priors["geometry"], priors["mask"])
        if self.config.bank_scope == "clip":
            frames = self.config.frames
            tokens = (tokens.unflatten(0, (-1, frames)) + self.frame_kinds.weight[:frames, None]).flatten(1, 2)
            position, valid = position.repeat(frames, 1), valid.unflatten(0, (-1, frames)).flatten(1)
        found = self.bank_encoder(tokens, position, valid)
        if self.config.bank_scope == "clip":
            found, valid = (value.repeat_interleave(frames, dim=0) for value in (found, valid))
        return found, position, valid

    def _temporal(
        self, pairs: Tensor, predicates: Tensor, anchors: Tensor | None, priors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is said of the target frames (1, B, N, .), and their priors."""
        frames, given = self.config.frames, self.config.given
        clips = {name: value.unflatten(0, (-1, frames)) for name, value in priors.items()}
        states = torch.cat([pairs, predicates], dim=-1).unflatten(0, (-1, frames))
        query, references = states[:, 0], states[:, 1:].flatten(1, 2)
        query_mask, allowed = None, None
        if given is None:
            with torch.no_grad():
                scores = reference_scores(self.heads(pairs, predicates, anchors)).unflatten(0, (-1, frames))
            chosen = select_references(scores[:, 1:].flatten(1))
            seen = [references.take_along_dim(rows[..., None], dim=1) for rows in chosen]
        else:
            query_mask, valid = clips["mask"][:, 0], clips["mask"][:, 1:].flatten(1)
            labels = clips["labels"].masked_fill(~clips["mask"], -1)
            labels[:, 0].masked_fill_(~query_mask, -2)  # padding sees what is there
            current = labels[:, 0]
            allowed = same_class_mask(current, labels[:, 1:].flatten(1)) & valid[:, None]
            # where no reference has a pair, a frame looks at itself
            own = same_class_mask(current, current) & ~valid.any(dim=1)[:, None, None]
            allowed = torch.cat([allowed, own], dim=2)
            seen = [torch.cat([references, query], dim=1)] * len(self.temporal.layers)
        for layer, rows in zip(self.temporal.layers, seen, strict=True):
            query = layer(query, rows, allowed, query_mask)
        said = self.temporal.heads(*query.chunk(2, dim=-1), anchors)
        return {name: value[None] for name, value in said.items()}, {
            name: value[:, 0] for name, value in clips.items()
        }

    @staticmethod
    def _person_loss(last: dict[str, Tensor], targets: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Whether a pair begins with the person, over the pairs that are there (OED's second head of SGCLS)."""
        labels = torch.ones_like(last["mask"], dtype=torch.long)
        for row, target in zip(labels, targets, strict=True):
            row[target["pairs"].to(row.device)] = 0
        return object_loss(last["person_logits"], labels, 0.1, last["mask"])

    def parameter_groups(self) -> dict[str, Iterator[nn.Parameter]]:
        """What is trained, by its rate: "backbone" and "other"."""
        trained = [(name.startswith("backbone."), p) for name, p in self.named_parameters() if p.requires_grad]
        return {"backbone": (p for of, p in trained if of), "other": (p for of, p in trained if not of)}


def _masked(vectors: Tensor, mask: Tensor) -> Tensor:
    return vectors.masked_fill(~mask[..., None], 0)


def _for_layers(config: DetrConfig, attention: str | None, **changes: int) -> DetrConfig:
    """DETR's configuration for its layers; the backbone's must not hear of their attention."""
    config = copy.deepcopy(config)
    for name, value in changes.items():
        setattr(config, name, value)
    config._attn_implementation = {"": attention or "eager", "backbone_config": "eager"}
    return config
