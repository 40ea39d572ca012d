"""The configuration of a VOST model."""

from __future__ import annotations

from typing import Any

from transformers import DetrConfig, PreTrainedConfig, ResNetConfig

from sgrl.errors import SettingError, suggest
from sgrl.text.parsed import GROUPS
from sgrl.vocabulary import Vocabulary, get_vocabulary

TASKS = ("sgdet", "predcls", "sgcls")
CONTENTS = ("none", "priors")
BANKS = ("none", "geometry", "text", "full")
SCOPES = ("frame", "clip")


class VostConfig(PreTrainedConfig):
    """What a model is made of; saved as config.json. Defaults are the paper's.

    Args:
        task: "sgdet" (learnt slots), "predcls" (boxes and classes are given) or "sgcls" (boxes are given).
        vocabulary: as `Vocabulary.to_json` gives it, with the groups attention, spatial, contacting.
        detr: DETR's configuration: size, heads and dropout of all layers, backbone, layers of the image encoder.
        patches: instead of DETR's backbone, a small convolutional one for small images and random weights (see
            `sgrl.models.detection.backbone.PatchBackbone`): patch, channels, strides.
        frozen_norm: batch norms of the backbone are constants, which is right where its weights were loaded.
        num_slots: N, queries of SGDET.
        pair_layers, predicate_layers: of the two decoders; None: 6 for SGDET, else 3.
        content: of queries: "priors", or "none" as in OED.
        bank: what predicate queries look at: "full", "text" (without regions), "geometry" (without what a language
            model said: boxes and classes), or "none": the image.
        bank_layers, bank_ffn: of the bank's encoder. bank_scope: "frame", or "clip" for the banks of all its frames.
        text_size, visual_size: of the encoders of texts and regions.
        anchors: boxes are learnt as differences from a learnt box of each slot.
        temporal: with the temporal stage. references, window: frames that it looks at, and from how far on each side.
        min_score: of a relation in a written graph.
    """

    model_type = "vost"
    sub_configs = {"detr": DetrConfig}

    def __init__(
        self,
        task: str = "sgdet",
        vocabulary: dict[str, Any] | None = None,
        detr: DetrConfig | dict[str, Any] | None = None,
        patches: dict[str, Any] | None = None,
        frozen_norm: bool = True,
        num_slots: int = 100,
        pair_layers: int | None = None,
        predicate_layers: int | None = None,
        content: str = "priors",
        bank: str = "full",
        bank_layers: int = 6,
        bank_ffn: int = 1024,
        bank_scope: str = "frame",
        text_size: int = 512,
        visual_size: int | None = 512,
        anchors: bool = False,
        temporal: bool = False,
        references: int = 2,
        window: int = 4,
        min_score: float = 0.3,
        **kwargs: Any,
    ):
        choices = {"task": TASKS, "content": CONTENTS, "bank": BANKS, "bank_scope": SCOPES}
        given = {"task": task, "content": content, "bank": bank, "bank_scope": bank_scope}
        for name, value in given.items():
            if value not in choices[name]:
                raise SettingError(name, f"unknown value {value!r}{suggest(value, choices[name])}")
        self.task, self.content, self.bank, self.bank_scope = task, content, bank, bank_scope
        self.vocabulary = get_vocabulary("action_genome").to_json() if vocabulary is None else dict(vocabulary)
        self.detr = detr if isinstance(detr, DetrConfig) else _detr(detr or {})
        self.patches, self.frozen_norm = patches, frozen_norm
        layers = 6 if task == "sgdet" else 3
        self.num_slots = num_slots
        self.pair_layers = layers if pair_layers is None else pair_layers
        self.predicate_layers = layers if predicate_layers is None else predicate_layers
        self.bank_layers, self.bank_ffn = bank_layers, bank_ffn
        self.text_size, self.visual_size = text_size, visual_size
        self.anchors, self.temporal, self.references, self.window = anchors, temporal, references, window
        self.min_score = min_score
        super().__init__(**kwargs)

    @property
    def labels(self) -> Vocabulary:
        """The vocabulary. Raises SettingError for one without the three groups or without a person."""
        groups = self.vocabulary.get("groups") or {}
        if set(groups) == set(GROUPS):  # saved configurations are sorted
            groups = {name: groups[name] for name in GROUPS}
        found = Vocabulary.from_json({**self.vocabulary, "groups": groups})
        if tuple(found.groups or ()) != GROUPS or "person" not in found.objects:
            raise SettingError("vocabulary", f"{found.name!r} must have a person and the groups {', '.join(GROUPS)}")
        return found

    @property
    def frames(self) -> int:
        """F, the frames of a clip."""
        return 1 + self.references if self.temporal else 1

    @property
    def given(self) -> str | None:
        """What the model is told, as `losses.criterion` calls it."""
        return {"sgdet": None, "predcls": "classes", "sgcls": "boxes"}[self.task]


def _detr(given: dict[str, Any]) -> DetrConfig:
    given = {"attention_dropout": 0.1, "activation_dropout": 0.1, **given}
    if given.get("backbone_config") is None:  # by default it wants timm
        given["backbone_config"] = ResNetConfig(out_features=["stage4"])
    return DetrConfig(**given)
