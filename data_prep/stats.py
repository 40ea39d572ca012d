"""How many tokens do the graphs of a data set take in each text layout?

    python data_prep/stats.py DATA --tokenizer Qwen/Qwen3-VL-2B-Instruct

DATA is a folder that data_prep/to_toon.py wrote, with images or without. Prints a table like Table 3 of SceneGraphVLM:
tokens per graph, and how many times shorter a layout is than the JSON of R1-SGG (ratio of the means). Without a
tokenizer it counts characters. Every graph is read from its row and written again in each layout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.report import markdown
from sgrl import data
from sgrl.arguments import Parser, program_name
from sgrl.errors import UsageError, suggest
from sgrl.graph import SceneGraph
from sgrl.process import run_command
from sgrl.progress import Progress
from sgrl.terminal import printable
from sgrl.text import CODECS, get_codec

BASELINE = "json"
COMPACT = "json-compact"
_BATCH = 1000


@dataclass(frozen=True)
class Row:
    """Lengths of one layout.

    Attributes:
        name: of the layout.
        lengths: one per graph, in tokens or characters.
    """

    name: str
    lengths: np.ndarray


def measure(graphs: Sequence[SceneGraph], count: Callable[[list[str]], list[int]], grouped: bool) -> list[Row]:
    """The lengths of `graphs` in all layouts, the baseline first.

    count: lengths of a list of texts.
    grouped: relations have groups, so that every layout can write them.
    """
    rows = []
    names = [name for name, codec in CODECS.items() if name != BASELINE and (grouped or not codec.grouped)]
    names = [BASELINE, COMPACT, *names]
    with Progress("writing in each layout", len(names) * len(graphs), "graph") as progress:
        for name in names:
            lengths: list[int] = []
            for start in range(0, len(graphs), _BATCH):
                some = graphs[start : start + _BATCH]
                lengths += count([_text(name, graph) for graph in some])
                progress.update(len(some))
            rows.append(Row(name, np.array(lengths)))
    return rows


def _text(name: str, graph: SceneGraph) -> str:
    if name != COMPACT:
        return get_codec(name).encode(graph)
    return json.dumps(json.loads(get_codec(BASELINE).encode(graph)), separators=(",", ":"))


def table(rows: list[Row], unit: str) -> str:
    """Markdown: mean, median, 95th percentile, largest, and the baseline's mean over the row's."""
    baseline = next(row for row in rows if row.name == BASELINE).lengths.mean()
    cells = []
    for row in rows:
        found = row.lengths
        numbers = [f"{found.mean():.1f}", f"{np.median(found):.0f}", f"{np.percentile(found, 95):.0f}"]
        title = "the same without blanks" if row.name == COMPACT else get_codec(row.name).title
        cells.append((title, [*numbers, f"{found.max()}", f"{baseline / found.mean():.2f} x"]))
    return markdown(cells, [f"mean {unit}", "median", "95 %", "largest", "shorter than JSON"])


def graphs_of(folder: str | Path, split: str, limit: int) -> tuple[list[SceneGraph], bool]:
    """The first `limit` graphs of a split, and whether their relations have groups. Raises SgrlError."""
    codec = get_codec(data.read_metadata(folder)["codec"])
    rows = _rows(data.files(folder, split), limit)
    return [codec.decode(solution, width, height, tags=False) for solution, width, height in rows], codec.grouped


def _rows(files: list[Path], limit: int) -> Iterator[tuple[str, int, int]]:
    import pyarrow.parquet as parquet

    left = limit
    for file in files:
        for batch in parquet.ParquetFile(file).iter_batches(_BATCH, columns=["solution", "width", "height"]):
            batch = batch.slice(0, left)
            yield from zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True)
            left -= len(batch)
            if left <= 0:
                return


def token_counter(name: str) -> Callable[[list[str]], list[int]]:
    """Lengths of texts in tokens of a tokenizer: a name on the Hub or a folder. Raises SgrlError if it is neither."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # a damaged folder fails in many ways
        raise UsageError(f"--tokenizer {name} cannot be loaded: {printable(error, 300)}") from None
    return lambda texts: [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the head of this file. Returns the exit code."""
    args = parser().parse_args(arguments)
    return run_command(program_name("stats"), lambda: run(args))


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("dataset", help="folder that data_prep/to_toon.py wrote")
    parser.add_argument("--split", default="train", help="(default: %(default)s)")
    parser.add_argument("--tokenizer", nargs="+", default=[], help="names on the Hub or folders, a table each")
    parser.add_argument("--limit", type=int, default=20000, help="at most this many graphs (default: %(default)s)")
    return parser


def run(args: argparse.Namespace) -> None:
    """Print the tables. Raises SgrlError."""
    if args.split not in data.SPLITS:
        raise UsageError(f"unknown split {args.split!r}{suggest(args.split, data.SPLITS)}")
    if args.limit < 1:
        raise UsageError(f"--limit is {args.limit}; expected a number above 0")
    graphs, grouped = graphs_of(args.dataset, args.split, args.limit)
    objects = np.mean([len(graph.objects) for graph in graphs])
    relations = np.mean([len(graph.relations) for graph in graphs])
    print(f"{len(graphs):,} graphs of {args.split}: {objects:.1f} objects and {relations:.1f} relations on average")
    for name in args.tokenizer or [None]:
        count = token_counter(name) if name else (lambda texts: [len(text) for text in texts])
        print(f"\n{printable(name or 'Characters')}\n")
        print(table(measure(graphs, count, grouped), "tokens" if name else "characters"))


if __name__ == "__main__":
    sys.exit(main())
