"""Graphs for other tools: `sgrl export INPUT --to FORMAT --output PATH`, or from Python.

from sgrl.export.networkx import to_networkx
from sgrl.export.rdf import to_rdf
from sgrl.export.cypher import statements
from sgrl.export.supervision import to_supervision
from sgrl.export.coco import to_coco

A format is one file of this package and one entry of FORMATS. docs/exports.md says what each holds and what it cannot.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sgrl.dotted import is_dotted, load, resolve
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.export.reading import Reading

if TYPE_CHECKING:
    from sgrl.export.items import Item

FORMATS = {
    "json": "sgrl.export.json_lines:write_list",
    "jsonl": "sgrl.export.json_lines:write_lines",
    "csv": "sgrl.export.events:write",
    "coco": "sgrl.export.coco:write",
    "networkx": "sgrl.export.networkx:write",
    "graphml": "sgrl.export.graphml:write",
    "turtle": "sgrl.export.rdf:write_turtle",
    "jsonld": "sgrl.export.rdf:write_json_ld",
    "cypher": "sgrl.export.cypher:write",
    "fiftyone": "sgrl.export.fiftyone:write",
}
"""Functions (items, path, source, lost) that write a file or a folder, whole or not at all.

items: `sgrl.export.items.Frame` and `Video`, as a stream. source: what the input says of itself. lost: a Counter, to
which a format adds what it cannot hold.
"""

IN_MEMORY = {"supervision": "sgrl.export.supervision.to_supervision"}
"""Libraries whose objects are made from Python only."""


@dataclass
class Exported:
    """What an export did. images, videos, relations: how many were written. lost: what the format cannot hold, with
    numbers. damaged: how many records of the input were left out; reasons: of the first ones."""

    images: int = 0
    videos: int = 0
    relations: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    reasons: list[str] = field(default_factory=list)


def export(source: str | Path, to: str, output: str | Path, reading: Reading | None = None, progress=iter) -> Exported:
    """Write the graphs of an input in a format. Memory does not grow with their number.

    Args:
        source: a folder of predictions or of scores, a data set, or a file of graphs in JSON lines.
        to: one of FORMATS, or `package.module:function` of your own.
        output: a file, which is replaced; of `graphml` a new folder.
        reading: how the input is read.
        progress: wraps the stream of graphs, as tqdm does.

    Raises:
        SgrlError: no such format or input, no graph in it, or an output that cannot be written.
    """

    from sgrl.export.inputs import open_input

    write = format_of(to)
    reading = reading or Reading()
    about, items = open_input(source, reading)
    done = Exported()

    def counted():
        for item in progress(items):
            _count(item, done)
            yield item
        if not done.images and not done.videos:
            count, first = reading.damaged_count, reading.damaged[:1]
            raise SgrlError(f"{source} holds no graphs" + f"; {count:,} records cannot be used: {first}" * bool(count))

    write(counted(), Path(output), about, done.lost)
    done.lost += reading.lost  # without what is zero
    done.damaged, done.reasons = reading.damaged_count, reading.damaged
    return done


def _count(item: Item, done: Exported) -> None:
    from sgrl.export.items import Video

    if isinstance(item, Video):
        done.videos += 1
        done.relations += len(item.graph.relations) if item.graph else sum(len(f.graph.relations) for f in item.frames)
    else:
        done.images += 1
        done.relations += len(item.graph.relations)


def format_of(name: str):
    """The function of a format.

    Raises:
        UsageError: no such format; it names the nearest.
    """
    if is_dotted(name):
        return resolve(name, "to")
    if name in IN_MEMORY:
        raise UsageError(f"{name} has no file format; from Python: {IN_MEMORY[name]}(graph)")
    if name not in FORMATS:
        raise UsageError(f"unknown format {name!r}{suggest(name, FORMATS)}")
    return load(FORMATS[name])
