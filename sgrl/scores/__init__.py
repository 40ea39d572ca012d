"""Scored predictions as files: what detectors, video models and written graphs say, in one format for every metric.

from sgrl.scores import ScoredGraph, ScoreWriter, read_scores

with ScoreWriter("build/scores", vocabulary, dataset="psg") as writer:
    writer.add(ScoredGraph(image_id="1", width=640, height=480, labels=["cat", "mat"], boxes=boxes, scores=scores,
                           pairs=[(0, 1)], predicate_scores=probabilities))
for graph in read_scores("build/scores"):
    print(graph.best(20))

docs/evaluation.md has the columns of the files.
"""

from sgrl.scores.columns import by_group
from sgrl.scores.files import ScoreFolder, ScoreWriter, holds_scores, read_scores
from sgrl.scores.graph import ScoredGraph, ScoreError
from sgrl.scores.written import from_graph, from_predictions, from_text

__all__ = [
    "ScoreError",
    "ScoreFolder",
    "ScoreWriter",
    "ScoredGraph",
    "by_group",
    "from_graph",
    "from_predictions",
    "from_text",
    "holds_scores",
    "read_scores",
]
