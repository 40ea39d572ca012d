"""What is counted of predictions: each metric adds samples one by one, in constant memory.

    from rewards.metrics import SceneGraphMetrics

    metrics = SceneGraphMetrics(codec="toon", width=640, height=480)
    metrics.add(prediction_text, reference)
    metrics.compute()

Each is a `Metric` (rewards/metrics/protocol.py): what several of a kind have counted can be merged.
"""

from rewards.metrics.action_genome import ActionGenomeRecall
from rewards.metrics.protocol import Metric, Option, Settings
from rewards.metrics.ranking import PairScores
from rewards.metrics.recall import SceneGraphRecall, triplets
from rewards.metrics.soft import SoftMetrics, soft_metrics
from rewards.metrics.strict import SceneGraphMetrics
from rewards.metrics.sttran import sttran_frames
from rewards.metrics.video import VideoRecall, videos_of_rows
from rewards.metrics.written import WrittenRecall

METRICS: dict[str, type[Metric]] = {
    metric.name: metric for metric in (SceneGraphMetrics, SceneGraphRecall, ActionGenomeRecall, VideoRecall)
}
"""By name, as `python -m rewards score --metric` takes them."""

__all__ = [
    "METRICS",
    "ActionGenomeRecall",
    "Metric",
    "Option",
    "PairScores",
    "SceneGraphMetrics",
    "SceneGraphRecall",
    "Settings",
    "SoftMetrics",
    "VideoRecall",
    "WrittenRecall",
    "soft_metrics",
    "sttran_frames",
    "triplets",
    "videos_of_rows",
]
