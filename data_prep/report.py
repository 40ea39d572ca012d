"""The table at the end of a conversion: what was kept, what was dropped and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from data_prep.readers.record import RecordError
from sgrl.data import SPLITS
from sgrl.graph import SceneGraph

# Lines of the table. Within each block the kept ones are what is left of those read.
_LINES = {
    "records": "images read",
    "no_relations": "  without relations",
    "damaged": "  damaged",
    "records_kept": "images kept",
    "objects": "objects read",
    "unknown_objects": "  label outside the vocabulary",
    "degenerate_boxes": "  box without area",
    "duplicate_objects": "  duplicates",
    "objects_dropped": "  on dropped images",
    "objects_kept": "objects kept",
    "out_of_image_boxes": "  of all: boxes clipped to the image",
    "relations": "relations read",
    "unknown_predicates": "  predicate outside the vocabulary",
    "orphaned_relations": "  of a dropped object",
    "self_relations": "  of an object to itself",
    "duplicate_relations": "  repeated",
    "relations_dropped": "  on dropped images",
    "relations_kept": "relations kept",
}
_ALWAYS = ("records", "records_kept", "objects", "objects_kept", "relations", "relations_kept")
_SHOWN = 20


class Report:
    """Counters per split, and the damaged records by name."""

    def __init__(self):
        self.counts: dict[str, Counter] = defaultdict(Counter)
        self.damaged: list[str] = []
        self.other_splits: set[str] = set()  # that were there but not asked for

    def kept(self, split: str) -> int:
        """Rows written so far."""
        return self.counts[split]["records_kept"] if split in self.counts else 0

    def read(self, split: str, graph: SceneGraph) -> None:
        """A record came in."""
        self.counts[split].update(records=1, objects=len(graph.objects), relations=len(graph.relations))

    def cleaned(self, split: str, counts: dict[str, int]) -> None:
        """What `data_prep.clean.clean` did to it."""
        self.counts[split].update(counts)

    def keep(self, split: str, graph: SceneGraph) -> None:
        """It became a row with this graph."""
        self.counts[split].update(records_kept=1, objects_kept=len(graph.objects), relations_kept=len(graph.relations))

    def drop(self, split: str, reason: str, graph: SceneGraph) -> None:
        """It did not, for the reason "no_relations" or "damaged"; `graph` is what was left of it."""
        self.counts[split].update(
            {reason: 1, "objects_dropped": len(graph.objects), "relations_dropped": len(graph.relations)}
        )

    def damage(self, error: RecordError) -> None:
        """Remember the name of a damaged record."""
        self.damaged.append(str(error))

    def table(self) -> str:
        """The counters, a column per split; lines of zeros are left out."""
        splits = [split for split in SPLITS if split in self.counts]
        lines = ["".ljust(36) + "".join(f"{split:>12}" for split in splits)]
        for key, title in _LINES.items():
            numbers = [self.counts[split][key] for split in splits]
            if any(numbers) or key in _ALWAYS:
                lines.append(title.ljust(36) + "".join(f"{number:>12,}" for number in numbers))
        return "\n".join(lines)

    def damage_summary(self, log: Path) -> str:
        """The first damaged records by name; `log` is the file that has them all."""
        more = len(self.damaged) - _SHOWN
        lines = [f"{len(self.damaged)} damaged records were skipped (--strict stops at the first):"]
        lines += [f"  {name}" for name in self.damaged[:_SHOWN]]
        if more > 0:
            lines.append(f"  and {more} more, all listed in {log}")
        return "\n".join(lines)
