"""Inference: images in, graphs as text out."""

from sgrl.inference.engines import ENGINES, Engine, Generation, asker, load_engine
from sgrl.inference.video import SceneGraphStream

__all__ = ["ENGINES", "Engine", "Generation", "SceneGraphStream", "asker", "load_engine"]
