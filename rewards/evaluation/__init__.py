"""Files of predictions and references, the figures of a set of predictions with intervals, and how they print."""

from rewards.evaluation.evaluation import Evaluation, differences
from rewards.evaluation.tables import table

__all__ = ["Evaluation", "differences", "table"]
