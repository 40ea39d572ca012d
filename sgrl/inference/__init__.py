"""Inference: images in, graphs as text out."""

from sgrl.inference.engine import Engine, EngineSettings, Generation, asker
from sgrl.inference.engines import ENGINES, load_engine
from sgrl.inference.video import SceneGraphStream

__all__ = ["ENGINES", "Engine", "EngineSettings", "Generation", "SceneGraphStream", "asker", "load_engine"]
