"""The command `sgrl`, or `python -m sgrl`: what each word does, and where that is written.

Commands are loaded when they are asked for, so that `doctor` runs where the rest is broken. What belongs to a layer
above this package is named here, never imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from sgrl import __version__, shipped
from sgrl.arguments import Parser, started_as
from sgrl.dotted import load
from sgrl.errors import SgrlError, UsageError, near
from sgrl.process import WRONG_USAGE, run_command


@dataclass(frozen=True)
class Command:
    """One word after `sgrl`.

    Attributes:
        help: one line.
        module: has `parser()` and `main(arguments)`; "recipes/NAME.py" has `parser()` and is run.
        handed: dotted paths of what `main` is handed from layers above.
    """

    help: str
    module: str
    handed: tuple[str, ...] = ()

    def parser(self) -> Parser:
        if self.module.endswith(".py"):
            return shipped.names_in(shipped.file(self.module))["parser"]()
        return load(f"{self.module}:parser")()

    def run(self, arguments: list[str]) -> int | None:
        if self.module.endswith(".py"):
            shipped.run(shipped.file(self.module), arguments)
            return None
        return load(f"{self.module}:main")(arguments, *map(_later, self.handed))


def _later(path: str) -> Callable:
    """What `path` names, loaded at the first call: `--help` needs none of it."""
    return lambda *args, **kwargs: load(path)(*args, **kwargs)


COMMANDS = {
    "convert": Command("annotations in an official layout into rows to train on", "data_prep.to_toon"),
    "toyworld": Command("draw a toy world in the layout of a data set", "data_prep.toyworld"),
    "stats": Command("how long graphs are in each text layout", "data_prep.stats"),
    "inspect": Command("rows as the model will see them", "sgrl.inspect", ("rewards.scorer:scores_of",)),
    "doctor": Command("is the machine, the model and the data set ready", "sgrl.doctor"),
    "train": Command("train a model: SFT and GRPO", "sgrl.commands.train"),
    "predict": Command("graphs of a data set, or of your own images and videos", "recipes/predict.py"),
    "evaluate": Command("predict, and compare with the references", "recipes/evaluate.py"),
    "priors": Command("what models say of every pair of things, for a detector", "recipes/extract_priors.py"),
    "detect": Command("a detector's graphs, of a data set or your own files", "recipes/vost/evaluate.py"),
    "score": Command("the figures of a file of predictions", "rewards.evaluation.score"),
    "judge": Command("figures where a judge decides which labels mean the same", "recipes/judge.py"),
    "draw": Command("graphs drawn on their images", "sgrl.report.draw"),
    "report": Command("runs side by side, as a page", "sgrl.report.command"),
    "export": Command("graphs for other tools: COCO, networkx, GraphML, RDF, Cypher, CSV", "sgrl.export.command"),
    "ls": Command("list recipes and configurations", "sgrl.commands.ls"),
    "cp": Command("copy recipes and configurations here, to edit them", "sgrl.commands.cp"),
}


def usage() -> str:
    """What `sgrl --help` prints."""
    lines = ["usage: sgrl COMMAND ... | COMMAND --help | --help | --version", ""]
    lines += [f"  {name:<10}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "It ends with 0, with 1 if the run failed, with 2 if the command was wrong."])


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status, see `sgrl.process.run_command`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else WRONG_USAGE
    if arguments[0] == "--version":
        print(f"sgrl {__version__}")
        return 0
    name, *rest = arguments
    words = ("sgrl", name) if name in COMMANDS else ("sgrl",)
    with started_as(*words):
        return run_command(" ".join(words), lambda: _run(name, rest))


def _run(name: str, arguments: list[str]) -> int | None:
    if name not in COMMANDS:
        raise UsageError(f"unknown command {name!r}{near(name, COMMANDS) or '; sgrl --help lists them'}")
    try:
        return COMMANDS[name].run(arguments)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("rewards", "data_prep"):
            raise
        raise SgrlError(f"the package {package} is missing beside sgrl; install sgrl again, whole") from None


if __name__ == "__main__":
    sys.exit(main())
