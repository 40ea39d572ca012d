"""Teach multimodal LLMs to write scene graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sgrl import moved as _moved  # noqa: F401  old names of modules can be imported
from sgrl.telemetry import turn_off as _turn_telemetry_off

if TYPE_CHECKING:
    from sgrl.graph import Object, Relation, SceneGraph
    from sgrl.inference.prediction import Prediction, SceneGraphPredictor
    from sgrl.inference.scene_graph_model import SceneGraphModel
    from sgrl.task import Task

__all__ = ["Object", "Prediction", "Relation", "SceneGraph", "SceneGraphModel", "SceneGraphPredictor", "Task"]
__version__ = "0.1.0"

_turn_telemetry_off()  # before the libraries that would send are imported

_NAMES = {
    **dict.fromkeys(("Object", "Relation", "SceneGraph"), "sgrl.graph"),
    **dict.fromkeys(("Prediction", "SceneGraphPredictor"), "sgrl.inference.prediction"),
    "SceneGraphModel": "sgrl.inference.scene_graph_model",
    "Task": "sgrl.task",
}
"""What `from sgrl import ...` gives and where it is, imported when it is asked for: `import sgrl` stays light."""


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'sgrl' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
