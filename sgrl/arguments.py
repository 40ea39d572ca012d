"""The command line of every program: one kind of parser, and the name under which a program was started.

docs/commands.md has the vocabulary: the same thing has the same name in all commands.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sgrl.errors import near

SETTINGS = {"--model": "model_name_or_path", "--output": "output_dir", "--split": "train_split"}
"""What an option of all commands is called in the YAML files of training."""

_program: list[str] = []


@contextmanager
def started_as(*words: str) -> Iterator[None]:
    """In this block the program is called, e.g., "sgrl predict", whatever file it runs."""
    before = _program[:]
    _program[:] = words
    try:
        yield
    finally:
        _program[:] = before


def program_name(file: str) -> str:
    """What the program is called in messages: "sgrl predict", or by its file where that was started."""
    return " ".join(_program) or file


def program_words(arguments: Sequence[str]) -> list[str]:
    """The words of a shell that start this program with `arguments`."""
    return [*(_program or ["python", sys.argv[0]]), *arguments]


class Parser(argparse.ArgumentParser):
    """argparse's, where a misspelt option gets a hint, and nothing is guessed from its first letters.

    Args:
        description: the module's docstring, shown as it is.
        prog: how the program is started, where `sgrl NAME` did not start it.
        renamed: old spelling of an option -> today's. The old one is taken for one release, with a warning.
    """

    def __init__(self, description: str | None = None, prog: str | None = None, renamed: Mapping[str, str] = {}):  # noqa: B006
        super().__init__(
            prog=" ".join(_program) or prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.renamed = dict(renamed)

    def parse_known_args(self, args=None, namespace=None):
        words = [self._word(word) for word in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(words, namespace)

    def _word(self, word: str) -> str:
        """A word with today's spelling; ends the program for an unknown option, before another one is missed."""
        name, sign, value = word.partition("=")
        known = [option for action in self._actions for option in action.option_strings]
        if not name.startswith("--") or name == "--" or name in known:
            return word
        if name in self.renamed:
            today = self.renamed[name]
            print(
                f"{self.prog}: {name} is called {today} now; the old name goes with the next release", file=sys.stderr
            )
            return today + sign + value
        self.error(f"unknown option {name}{near(name, known) or '; --help lists all'}")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices and (hint := near(value, action.choices)):
            raise argparse.ArgumentError(action, f"unknown {value!r}{hint}")
        super()._check_value(action, value)
