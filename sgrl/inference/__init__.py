"""Inference: images in, graphs as text out."""

from sgrl.inference.engines import ENGINES, Engine, Generation, load_engine

__all__ = ["ENGINES", "Engine", "Generation", "load_engine"]
