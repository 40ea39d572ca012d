"""docs/commands.md, made from the parsers: `python tools/commands.py` writes it."""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import MISSING, fields
from pathlib import Path

from sgrl.__main__ import COMMANDS
from sgrl.arguments import SETTINGS, Parser

DOCS = Path(__file__).resolve().parent.parent / "docs" / "commands.md"

HEAD = """# Commands

Made from the parsers by `python tools/commands.py`; a test holds this page to them.

`sgrl COMMAND` is installed with the package; `python -m sgrl COMMAND` is the same. The scripts `data_prep/*.py` and
`recipes/*.py` and `python -m rewards score` of a checkout take the same options.

A command ends with 0; with 1 if the run failed (an input is missing or damaged, images got no graph, the disk is full,
`doctor` found a problem); with 2 if the command itself is wrong (an unknown word, a value out of range, options that
exclude each other, a key of the YAML file that does not exist); with 128 + N if signal N ended it.

What a command works on comes first, without an option: a data set, a run, a file of predictions. The same thing has
the same name in all commands. Old spellings are taken for one release, with a warning.
"""

TRAINING = """
Any key of the YAML file is an option: TRL's (`SFTConfig`, `GRPOConfig`, `ModelConfig`), and these. {short}.
`sgrl train RECIPE --help` lists them all. Several processes: `accelerate launch --config_file FILE -m sgrl train ...`.
"""


def main() -> None:
    DOCS.write_text(page(), encoding="utf-8")
    print(DOCS)


def page() -> str:
    parsers = {name: command.parser() for name, command in COMMANDS.items()}
    parts = [HEAD, "## One vocabulary\n", shared(parsers)]
    for name, command in COMMANDS.items():
        parts += [f"## sgrl {name}\n", f"{command.help[0].upper()}{command.help[1:]}.\n", options(parsers[name])]
        if parsers[name].renamed:
            olds = ", ".join(f"`{old}` (now `{new}`)" for old, new in parsers[name].renamed.items())
            parts.append(f"Old spellings: {olds}.\n")
        if name == "train":
            short = ", ".join(f"`{option}` is short for `--{setting}`" for option, setting in SETTINGS.items())
            parts += [TRAINING.lstrip().format(short=short), settings()]
    return "\n".join(parts)


def shared(parsers: dict[str, Parser]) -> str:
    """Options of several commands, and which commands these are."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, parser in parsers.items():
        for option in {option for action in shown(parser) for option in action.option_strings[:1]}:
            found[option].append(name)
    rows = [f"| `{option}` | {', '.join(found[option])} |" for option in sorted(found) if len(found[option]) > 1]
    return "\n".join(["| option | commands |", "| --- | --- |", *rows, ""])


def shown(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def options(parser: Parser) -> str:
    rows, bar = [], "\\|"
    for action in shown(parser):
        words = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        if action.option_strings and action.nargs != 0:
            words += f" {value(action)}"
        text = (action.help or "") % {"default": action.default, "prog": parser.prog}
        text += "; required" * bool(action.required and action.option_strings)
        rows.append(f"| `{words.replace('|', bar)}` | {text.replace('|', bar)} |")
    return "\n".join(["| | |", "| --- | --- |", *rows, ""])


def value(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    one = action.metavar or (",".join(map(str, action.choices)) if action.choices else action.dest.upper())
    return f"{one} ..." if action.nargs in ("+", "*") else str(one)


def settings() -> str:
    """Keys of the YAML files that are not TRL's."""
    from sgrl.training.launch import GRPOArguments, SceneGraphArguments, SFTArguments

    seen, rows = set(), []
    for kind, where in ((SceneGraphArguments, ""), (SFTArguments, "SFT: "), (GRPOArguments, "GRPO: ")):
        for field in fields(kind):
            if field.name in seen:
                continue
            seen.add(field.name)
            default = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
            end = "" if default is None else f" (default: {default})"
            rows.append(f"| `{field.name}` | {where}{field.metadata['help']}{end} |")
    return "\n".join(["| | |", "| --- | --- |", *rows, ""])


if __name__ == "__main__":
    main()
