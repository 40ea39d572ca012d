"""How an input is read, and what was met."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

RELATIONS = 20
"""How many of the surest relations of a graph are taken where every pair has scores."""


NAMELESS = "relations that name no object or no predicate"


@dataclass
class Reading:
    """How an input is read, and what was met.

    Args:
        split: of a data set; all unless given.
        relations: most relations of a graph whose relations have scores, the surest; None: all that a model wrote, and
            RELATIONS where every pair has scores.
        fps: frames per second of the numbers of the frames, where the input does not say.

    Attributes:
        damaged: place and reason of each record that was left out.
        lost: what could not be read of the others.
    """

    split: str | None = None
    relations: int | None = None
    fps: float | None = None
    damaged: list[str] = field(default_factory=list)
    damaged_count: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def tell(self, place: str) -> None:
        """Count a record that is left out; the first few are kept."""
        self.damaged_count += 1
        if len(self.damaged) < 10:
            self.damaged.append(place)
