"""Train a model, by a configuration or by a recipe.

    sgrl train toy/sft                                      a configuration that `sgrl ls` lists
    sgrl train mine.yaml --learning_rate 2e-5               a file that is called like its recipe, or names it
    sgrl train sft_psg --config FILE.yaml                   a recipe and a file
    sgrl train grpo_psg --model MODEL --dataset DATA        a recipe with the published settings of its data set
    sgrl train sft_psg --help                               every setting, TRL's too; this takes some seconds

Every key of the YAML file is an option, too. This process trains alone; several of them:

    accelerate launch --config_file FILE -m sgrl train ...
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from sgrl import shipped
from sgrl.arguments import SETTINGS, Parser, started_as
from sgrl.errors import UsageError


def parser() -> Parser:
    parser = Parser(__doc__, "sgrl train")
    add = parser.add_argument
    add("what", metavar="CONFIGURATION|RECIPE", help="a name of `sgrl ls`, or a YAML file")
    add("--config", metavar="FILE", help="YAML file of settings, where a RECIPE is named")
    add("--dataset", help="folder that `sgrl convert` wrote, or a name on the Hub")
    for option, setting in SETTINGS.items():
        add(option, help=f"short for --{setting}")
    add("--KEY", metavar="VALUE", help="any other setting of the YAML file")
    return parser


def recipe_and_arguments(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Which recipe runs, and with which arguments. Raises UsageError."""
    what, rest = words[0], list(words[1:])
    if what == "--config" and rest:
        what, rest = rest[0], rest[1:]
    if what.startswith("-"):
        raise UsageError(f"{what} stands where a configuration or a recipe is expected; `sgrl ls` lists them")
    file = Path(what)
    if file.suffix not in (".py", ".yaml", ".yml") or not file.is_file():
        file = shipped.find(what, "recipes", "configurations")
    if file.suffix == ".py":
        return file, rest
    if "--config" in rest:
        raise UsageError(f"{what} is a configuration, and --config names another; leave one out")
    return shipped.recipe_of(file), ["--config", str(file), *rest]


def launch_line(words: Sequence[str], arguments: Sequence[str]) -> str:
    """The command for several processes, with the launcher's options that the configuration's own command has."""
    options = f"--config_file {shlex.quote(str(shipped.folder() / 'accelerate' / 'ddp.yaml'))}"
    if "--config" in arguments[:-1]:
        file = Path(arguments[arguments.index("--config") + 1])
        head = file.read_text(encoding="utf-8") if file.is_file() else ""
        found = re.search(r"accelerate launch (.*?) ?recipes/[\w/]+\.py", head.replace("\\\n#", ""))
        if found:
            options = found[1].replace("recipes/", f"{shipped.folder()}/")
    return f"accelerate launch {options} -m sgrl train {shlex.join(words)}"


def launched() -> bool:
    """Whether a launcher started this process."""
    return any(name.startswith(("ACCELERATE_", "TORCHELASTIC_")) for name in os.environ)


def main(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        parser().parse_args(arguments)
    recipe, rest = recipe_and_arguments(arguments)
    if rest and not launched() and not {"-h", "--help"} & set(rest):
        print(f"sgrl train: one process; several: {launch_line(arguments, rest)}", file=sys.stderr)
    with started_as("sgrl", "train", shipped.name_of(recipe)):
        shipped.run(recipe, rest)
