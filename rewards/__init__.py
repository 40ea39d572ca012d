"""Rewards and metrics for scene graphs written by language models. Needs numpy and scipy, never torch.

    from rewards import GraphScorer, SCENEGRAPHVLM

    scorer = GraphScorer(codec="toon", width=640, height=480)
    score = scorer(completion, solution)
    SCENEGRAPHVLM.total(score)  # 9.5 for a perfect graph

For TRL see `rewards.trl`, for ms-swift and verl `rewards.adapters`, for evaluation `rewards.metrics` and
`rewards.evaluation`, for other harnesses `rewards.compute`; `python -m rewards` scores files.
"""

from rewards.presets import R1_SGG, SCENEGRAPHVLM, SCENEGRAPHVLM_RECALL, Preset, get_preset
from rewards.scorer import GraphScorer
from rewards.terms import GraphScore

__all__ = ["GraphScore", "GraphScorer", "Preset", "R1_SGG", "SCENEGRAPHVLM", "SCENEGRAPHVLM_RECALL", "get_preset"]
