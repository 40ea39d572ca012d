"""Inference: images in, graphs as text out."""

from sgrl.inference.engine import Engine, EngineSettings, Generation, asker
from sgrl.inference.engines import ENGINES, load_engine
from sgrl.inference.prediction import Prediction, SceneGraphPredictor
from sgrl.inference.scene_graph_model import SceneGraphModel
from sgrl.inference.stream import SceneGraphStream

__all__ = ["ENGINES", "Engine", "EngineSettings", "Generation", "Prediction", "SceneGraphModel"]
__all__ += ["SceneGraphPredictor", "SceneGraphStream", "asker", "load_engine"]
