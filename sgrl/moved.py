"""Names that modules had in version 0.1, for programs that import them: each is the module of today, with a warning.

from rewards.recall import SceneGraphRecall  # is rewards.metrics.recall
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "data_prep.toy_action_genome": "data_prep.toys.action_genome",
    "data_prep.toy_psg4d": "data_prep.toys.psg4d",
    "data_prep.toy_pvsg": "data_prep.toys.pvsg",
    "data_prep.toy_vg150": "data_prep.toys.vg150",
    "data_prep.toyvideo": "data_prep.toys.video",
    "rewards.ranking": "rewards.metrics.ranking",
    "rewards.recall": "rewards.metrics.recall",
    "rewards.recall_action_genome": "rewards.metrics.action_genome",
    "rewards.recall_video": "rewards.metrics.video",
    "rewards.recall_written": "rewards.metrics.written",
    "rewards.rows": "rewards.evaluation.files",
    "rewards.score": "rewards.evaluation.score",
    "rewards.soft": "rewards.metrics.soft",
    "sgrl.training.context": "sgrl.training.previous",
    "sgrl.training.rows": "sgrl.training.dataset",
}

NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "data_prep.toyworld": {
        "data_prep.toys": ("Layout",),
        "data_prep.toys.psg": ("write",),
        "data_prep.toys.scene": ("COLOURS", "GRID", "NEAR", "OBJECTS", "PREDICATES", "SIZE", "SPLITS", "Scene")
        + ("all_visible", "paint", "place", "relations_of", "scene", "shape_mask"),
    },
    "sgrl.inference.engines": {
        "sgrl.inference.engine": ("asker", "check_batch"),
        "sgrl.models.vlm.chat": ("ChatRenderer", "RefusedPrompt"),
    },
    "sgrl.inference.zeroshot": {"sgrl.models.vlm.coordinates": ("CONVENTIONS", "convention_of")},
    "sgrl.training.checks": {
        "sgrl.models.vlm.folder": ("load_config",),
        "sgrl.models.vlm.template": ("check_template",),
    },
    "sgrl.training.launch": {"sgrl.command": ("ENVIRONMENT", "command")},
    "sgrl.training.model": {
        "sgrl.models.vlm.folder": ("check_model_folder", "model_folder"),
        "sgrl.models.vlm.parts": ("placeholder_ids", "uses_linear_attention"),
        "sgrl.models.vlm.processor": ("check_same_processor", "load_processor", "pixel_budget", "set_pixel_budget")
        + ("thinks",),
        "sgrl.models.vlm.template": ("store_thinking", "template_arguments"),
    },
}


def moved_names(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module, some of whose names stand elsewhere now."""
    places = {name: place for place, names in NAMES[module].items() for name in names}

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {places[name]}.{name}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(places[name]), name)

    return find


class MovedFinder(MetaPathFinder, Loader):
    """Finds the old names after every other finder has failed."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        warnings.warn(f"{old} is now {MOVED[old]}", DeprecationWarning, stacklevel=2)
        sys.modules[old] = importlib.import_module(MOVED[old])  # what the import statement then takes


sys.meta_path.append(MovedFinder())
