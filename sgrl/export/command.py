"""Write graphs for other tools: JSON, COCO with relations, networkx, GraphML, RDF, Cypher, FiftyOne, an event table.

    sgrl export build/predictions --to coco --output build/predictions.coco.json
    sgrl export build/predictions --to csv --output build/events.csv --fps 25

INPUT is a folder of predictions (of evaluate or predict), of scores (sgrl.scores), a data set, or a file of graphs in
JSON lines. docs/exports.md says what each format holds and what it cannot.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sgrl.arguments import Parser
from sgrl.errors import UsageError
from sgrl.export import FORMATS, export
from sgrl.export.reading import RELATIONS, Reading
from sgrl.progress import Progress
from sgrl.terminal import printable


def parser() -> Parser:
    parser = Parser(__doc__, "sgrl export")
    add = parser.add_argument
    add("input", type=Path, help="folder of predictions, of scores, a data set, or a .jsonl file of graphs")
    add("--to", required=True, metavar="FORMAT", help=f"{', '.join(FORMATS)}, or package.module:function")
    add("--output", type=Path, required=True, help="file, which is replaced; of graphml a new folder")
    add("--split", help="of a data set (default: all)")
    add(
        "--relations",
        type=int,
        metavar="N",
        help=f"of scored predictions the N surest relations of a graph (default: {RELATIONS} where every pair has "
        "scores, else all)",
    )
    add("--fps", type=float, help="frames per second of a video's frame numbers, for seconds")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns 0, or 1 where records of the input were left out."""
    args = parser().parse_args(arguments)
    if args.relations is not None and args.relations < 1:
        raise UsageError(f"--relations is {args.relations}, expected at least 1")
    if args.fps is not None and not 0 < args.fps < float("inf"):
        raise UsageError(f"--fps is {args.fps}, expected more than 0")
    reading = Reading(split=args.split, relations=args.relations, fps=args.fps)
    done = export(
        args.input, args.to, args.output, reading, Progress("exporting", unit="graph", where=args.output).over
    )
    counts = [f"{done.images:,} images"] * bool(done.images) + [f"{done.videos:,} videos"] * bool(done.videos)
    print(f"Wrote {' and '.join(counts)} with {done.relations:,} relations to {args.output}")
    for what, number in done.lost.most_common():
        print(f"warning: {number:,} {what}", file=sys.stderr)
    if done.damaged:
        print(f"{done.damaged:,} records were left out: {printable(done.reasons[0], 300)}", file=sys.stderr)
    return int(bool(done.damaged))
