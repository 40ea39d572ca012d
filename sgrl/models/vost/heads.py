"""What is read off the states of the decoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.detr.modeling_detr import DetrMLPPredictionHead

from sgrl.models.vost.config import VostConfig


class Heads(nn.Module):
    """Object, relations of the three groups, and both boxes (SGDET) or whether the subject is a person (SGCLS).

    background: with OED's last row of the head of objects, which is no class and never a target. It takes no part in
    the logits; it is here because the count of OED's parameters, with which ours is compared, has it in the spatial
    heads.
    """

    def __init__(self, config: VostConfig, background: bool = False):
        super().__init__()
        size, labels = config.detr.d_model, config.labels
        attention, spatial, contacting = (len(group) for group in (labels.groups or {}).values())
        self.logits = len(labels.objects) + 1
        self.object = nn.Linear(size, self.logits + background)
        self.attention = nn.Linear(size, attention + 1)
        self.spatial = nn.Linear(size, spatial)
        self.contacting = nn.Linear(size, contacting)
        self.subject_box = self.object_box = self.person = None
        if config.task == "sgdet":
            self.subject_box, self.object_box = (DetrMLPPredictionHead(size, size, 4, 3) for _ in range(2))
        elif config.task == "sgcls":
            self.person = nn.Linear(size, 2)

    def forward(self, pairs: Tensor, predicates: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        """Logits and boxes (..., N, .) from states (..., N, d) of both decoders; anchors: (2, N, 4) before sigmoid."""
        found = {
            "object_logits": self.object(pairs)[..., : self.logits],
            "attention_logits": self.attention(predicates),
            "spatial_logits": self.spatial(predicates),
            "contacting_logits": self.contacting(predicates),
        }
        if self.person is not None:
            found["person_logits"] = self.person(pairs)
        if self.subject_box is not None:
            for i, name in enumerate(("subject", "object")):
                box = getattr(self, f"{name}_box")(pairs)
                found[f"{name}_boxes"] = torch.sigmoid(box if anchors is None else box + anchors[i])
        return found

    def copy_from(self, other: Heads) -> None:
        """Begin with the weights of other heads, all but the background's."""
        state = other.state_dict()
        for name in ("object.weight", "object.bias"):
            state[name] = state[name][: self.logits]
        self.load_state_dict(state)
