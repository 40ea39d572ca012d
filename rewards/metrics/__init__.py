"""What is counted of predictions: each metric adds samples one by one, in constant memory.

from rewards.metrics import SceneGraphMetrics

metrics = SceneGraphMetrics(codec="toon", width=640, height=480)
metrics.add(prediction_text, reference)
metrics.compute()
"""

from rewards.metrics.action_genome import ActionGenomeRecall, sttran_frames
from rewards.metrics.ranking import PairScores
from rewards.metrics.recall import SceneGraphRecall, triplets
from rewards.metrics.soft import SoftMetrics, soft_metrics
from rewards.metrics.strict import SceneGraphMetrics
from rewards.metrics.video import VideoRecall, videos_of_rows
from rewards.metrics.written import WrittenRecall

__all__ = [
    "ActionGenomeRecall",
    "PairScores",
    "SceneGraphMetrics",
    "SceneGraphRecall",
    "SoftMetrics",
    "VideoRecall",
    "WrittenRecall",
    "soft_metrics",
    "sttran_frames",
    "triplets",
    "videos_of_rows",
]
