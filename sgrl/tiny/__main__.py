"""Build the tiny vision-language model: `python -m sgrl.tiny --output DIR`."""

from __future__ import annotations

import argparse
import sys

from sgrl.arguments import Parser
from sgrl.files import folder_lock
from sgrl.process import run_command
from sgrl.text import CODECS
from sgrl.tiny.families import FAMILIES
from sgrl.tiny.model import TOY_OBJECTS, TOY_PREDICATES, Tiny, build_tiny_vlm


def main() -> None:
    parser = Parser(__doc__, "python -m sgrl.tiny", {"--format": "--codec"})
    parser.add_argument("--output", required=True, help="the model folder to write")
    parser.add_argument("--family", default="qwen3_vl", choices=FAMILIES, help="the architecture (default: qwen3_vl)")
    parser.add_argument("--codec", default="toon", choices=CODECS, help="the layout that has tokens (default: toon)")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")
    parser.add_argument("--objects", nargs="+", default=TOY_OBJECTS, help="class names that get a token each")
    parser.add_argument("--predicates", nargs="+", default=TOY_PREDICATES, help="predicates that get a token each")
    arguments = parser.parse_args()
    sys.exit(run_command("sgrl.tiny", lambda: run(arguments)))


def run(arguments: argparse.Namespace) -> None:
    with folder_lock(arguments.output):
        tiny = Tiny(arguments.objects, arguments.predicates, family=arguments.family, codec=arguments.codec)
        build_tiny_vlm(arguments.output, arguments.seed, tiny)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
