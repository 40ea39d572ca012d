"""VOST-SGG: a detector of scene graphs in video whose queries begin with what a language model said of the frame.

from sgrl.models.vost import VostConfig, VostForSceneGraphs

model = VostForSceneGraphs.from_detr("facebook/detr-resnet-50", VostConfig(task="sgdet"), revision="no_timm")

docs/vost.md says what is the paper's, and what was decided here.
"""

_LAZY = {"VostConfig": "config", "VostForSceneGraphs": "modeling"}  # both need transformers

__all__ = ["VostConfig", "VostForSceneGraphs"]  # noqa: F822


def __getattr__(name: str):
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
