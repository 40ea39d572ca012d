"""The base class of every error that a user can cause, and hints for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SgrlError(ValueError):
    """An input that cannot be used. The message says what was found, what was expected and what to change."""


class GraphError(SgrlError):
    """A graph that cannot exist: a number that is not finite, an index that points nowhere, an empty image."""


class UsageError(SgrlError):
    """What was asked for is wrong, whatever the data: an unknown name, a value out of range, options that exclude each
    other. A command ends with 2 then, and with 1 where the run failed."""


class SettingError(UsageError):
    """A setting whose value cannot be used.

    Attributes:
        setting: the key in a YAML file, or the option; the message begins with it.
        reason: the rest of the message.
    """

    def __init__(self, setting: str, reason: str):
        self.setting, self.reason = setting, reason
        super().__init__(f"{setting}: {reason}")

    def __reduce__(self):
        return type(self), (self.setting, self.reason)


def suggest(name: object, choices: Iterable[str]) -> str:
    """The end of an error message about an unknown `name`: the nearest choice, or all of them.

    >>> suggest("tooon", ["toon", "json"])
    "; did you mean 'toon'?"
    """
    choices = [str(choice) for choice in choices]
    return near(name, choices) or f"; choose one of: {', '.join(choices)}"


def near(name: object, choices: Iterable[str]) -> str:
    """As `suggest`, but nothing where no choice is near."""
    found = difflib.get_close_matches(str(name), [str(choice) for choice in choices], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
