"""List recipes and configurations: what `sgrl train` takes, and `sgrl cp` copies."""

from __future__ import annotations

from collections.abc import Sequence

from sgrl import shipped
from sgrl.arguments import Parser

KINDS = {
    "recipes": "recipes: sgrl train RECIPE --config FILE.yaml, or alone with --model and --dataset",
    "configurations": "configurations: sgrl train CONFIGURATION",
    "accelerate": "for several processes: accelerate launch --config_file FILE -m sgrl train ...",
}


def parser() -> Parser:
    parser = Parser(__doc__, "sgrl ls")
    parser.add_argument("kind", nargs="?", choices=KINDS, help="which of them (default: all)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    kinds = [args.kind] if args.kind else list(KINDS)
    print(f"in {shipped.folder()}")
    for kind in kinds:
        found = shipped.names(kind)
        print(f"\n{KINDS[kind]}")
        for name, path in found.items():
            print(f"  {name:<{max(map(len, found))}}  {shipped.title(path)}".rstrip())
            if memory := shipped.memory(path):
                print(f"  {'':<{max(map(len, found))}}    {memory}")
