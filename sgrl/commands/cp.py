"""Copy recipes and configurations here, to edit them.

    sgrl cp qwen3_5_0_8b/sft_psg                   recipes/configs/qwen3_5_0_8b/sft_psg.yaml
    sgrl cp toy/sft --output mine.yaml             one file, under a name of one's own
    sgrl cp recipes                                all of them, as a folder recipes

`sgrl ls` lists the names. A copy is run by `sgrl train FILE.yaml`, or by `accelerate launch FILE.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sgrl import shipped
from sgrl.arguments import Parser
from sgrl.errors import UsageError
from sgrl.files import atomic_path

ALL = "recipes"


def parser() -> Parser:
    parser = Parser(__doc__, "sgrl cp")
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="of a recipe, a configuration, a file for accelerate; recipes: all")
    add("--output", type=Path, default=Path("."), help="folder, or the file for one NAME (default: here)")
    add("--overwrite", action="store_true", help="replace files that are there")
    return parser


def copies(names: Sequence[str], output: Path) -> list[tuple[Path, Path]]:
    """What is copied whereto. Raises UsageError for an unknown name."""
    top = shipped.folder()
    if ALL in names:
        found = [path for path in sorted(top.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    else:
        found = [shipped.find(name, *shipped.KINDS) for name in names]
    if output.suffix in (".py", ".yaml", ".sh"):
        if len(found) != 1:
            raise UsageError(f"--output {output} is one file, and {len(found)} are to be copied; name a folder")
        return [(found[0], output)]
    return [(path, output / "recipes" / path.relative_to(top)) for path in found]


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    pairs = copies(args.names, args.output)
    there = [target for _, target in pairs if target.exists()]
    if there and not args.overwrite:
        raise UsageError(f"{there[0]} is there already; choose another --output, or --overwrite it")
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
        print(target)
