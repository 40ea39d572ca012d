"""The tables at the end of a conversion: what was kept, what was dropped and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from sgrl.data import SPLITS
from sgrl.graph import SceneGraph
from sgrl.terminal import printable

# Lines of the table. Within each block the kept ones are what is left of those read.
_LINES = {
    "videos": "videos read",
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
    "out_of_image_boxes": "  of all: boxes clipped to the border",
    "relations": "relations read",
    "unknown_predicates": "  predicate outside the vocabulary",
    "orphaned_relations": "  of a dropped object",
    "self_relations": "  of an object to itself",
    "duplicate_relations": "  repeated",
    "relations_dropped": "  on dropped images",
    "relations_kept": "relations kept",
    "object_labels": "object labels that occur",
    "predicates": "predicates that occur",
}
_ALWAYS = ("records", "records_kept", "objects", "objects_kept", "relations", "relations_kept")
_SHOWN = 20
_LENGTH = 2000  # of the line about a damaged record


class Report:
    """What happened to the records: counters per split, labels of the rows, damaged records by name.

    Attributes:
        counts: split -> counter with the keys of the table.
        labels: split -> (object labels, predicates) of the rows.
        damaged: a line each; see `add_damaged`.
        notes: what the reader left out or mended without it being damage.
        totals: name -> (found, expected), see `Reader.totals`.
        other_splits: that were there but not asked for.
    """

    def __init__(self):
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.labels: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
        self.damaged: list[str] = []
        self.notes: Counter[str] = Counter()
        self.totals: dict[str, tuple[int, int]] = {}
        self.other_splits: set[str] = set()

    def kept(self, split: str) -> int:
        """Rows so far."""
        return self.counts[split]["records_kept"] if split in self.counts else 0

    def add_damaged(self, *messages: object) -> list[str]:
        """Note damaged records, a line each whatever their names and labels hold; returns the lines."""
        lines = [printable(message, _LENGTH) for message in messages]
        self.damaged += lines
        return lines

    def add(self, split: str, counts: Mapping[str, int], kept: SceneGraph | None) -> None:
        """Count a record; `kept` is the graph of its row, None without a row."""
        counter = self.counts[split]
        for key, number in counts.items():
            if number:
                counter[key] += number
        if kept is not None:
            objects, predicates = self.labels[split]
            objects.update([o.label for o in kept.objects])
            predicates.update([r.predicate for r in kept.relations])

    def split_to_json(self, split: str) -> dict:
        """Counters and labels of one split; `add_json` turns them back."""
        return {"counts": dict(self.counts[split]), "labels": [sorted(found) for found in self.labels[split]]}

    def to_json(self) -> dict:
        """Everything; `add_json` turns it back."""
        return {
            "splits": {split: self.split_to_json(split) for split in self.counts},
            "damaged": self.damaged,
            "notes": dict(self.notes),
            "totals": self.totals,
        }

    def add_json(self, found: Mapping, add_notes: bool = False) -> Report:
        """Add another report, the part of another job or of a run before.

        add_notes: add up notes and totals too, for readers that saw only their part; else the last ones stay.
        """
        for split, part in found["splits"].items():
            self.counts[split].update(part["counts"])
            for labels, more in zip(self.labels[split], part["labels"], strict=True):
                labels.update(more)
        self.damaged += found.get("damaged", [])
        if not add_notes:
            self.notes.clear()
            self.totals.clear()
        self.notes.update(found.get("notes", {}))
        for name, (number, expected) in found.get("totals", {}).items():
            self.totals[name] = (self.totals.get(name, (0, expected))[0] + number, expected)
        return self

    def splits(self) -> list[str]:
        """Those that were read, in order."""
        return [split for split in SPLITS if split in self.counts]

    def rows(self) -> list[tuple[str, list[int]]]:
        """(title, a number per split), lines of zeros left out."""
        found, video = [], any(self.counts[split]["videos"] for split in self.splits())
        for key, title in _LINES.items():
            numbers = [self._number(key, split) for split in self.splits()]
            if any(numbers) or key in _ALWAYS:
                found.append((title.replace("image", "frame") if video else title, numbers))
        return found

    def _number(self, key: str, split: str) -> int:
        if key in ("object_labels", "predicates"):
            return len(self.labels[split][key == "predicates"])
        return self.counts[split][key]

    def table(self) -> str:
        """Like Table 2 of SceneGraphVLM: the counters, a column per split."""
        lines = ["".ljust(36) + "".join(f"{split:>12}" for split in self.splits())]
        lines += [title.ljust(36) + "".join(f"{number:>12,}" for number in numbers) for title, numbers in self.rows()]
        return "\n".join(lines)

    def remarks(self) -> str:
        """The reader's notes, and its totals beside the official ones; '' without any."""
        lines = [f"{number:>9,} {printable(note)}" for note, number in self.notes.most_common()]
        for name, (found, expected) in self.totals.items():
            same = "as in the official data set" if found == expected else f"the official data set has {expected:,}"
            lines.append(f"{found:>9,} {name}: {same}")
        return "\n".join(lines)

    def damage_summary(self, log: Path) -> str:
        """The first damaged records by name; `log` is the file that has them all."""
        number = len(self.damaged)
        were = "record was" if number == 1 else "records were"
        lines = [f"{number:,} damaged {were} skipped (--strict stops at the first):"]
        lines += [f"  {name}" for name in self.damaged[:_SHOWN]]
        if number > _SHOWN:
            lines.append(f"  and {number - _SHOWN:,} more, all listed in {log}")
        return "\n".join(lines)


def markdown(rows: Iterable[tuple[str, list]], columns: Iterable[str]) -> str:
    """A Markdown table; whole numbers get separators."""
    columns = list(columns)
    lines = [f"| | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for title, cells in rows:
        texts = [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells]
        lines.append(f"| {title.strip()} | {' | '.join(texts)} |")
    return "\n".join(lines)
