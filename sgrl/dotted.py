"""Code by its dotted path, `package.module:name`, as our tables and users name it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from sgrl.errors import SettingError, SgrlError, suggest


def is_dotted(text: str) -> bool:
    """Whether a name is a dotted path, not one of a table."""
    return ":" in text


def load(path: str) -> Any:
    """What `path` in one of our tables names. Raises ModuleNotFoundError where its module needs another package."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def resolve(path: str, setting: str) -> Callable:
    """The function that a user names with `path`; modules are looked for in the working folder, too.

    Args:
        path: `package.module:name`.
        setting: the key or option that says so, for messages.

    Raises:
        SettingError: no such module or name, a module that raises when imported, something that cannot be called.
    """
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise SettingError(setting, f"{path!r} is no dotted path; expected package.module:function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a script's own folder stands there instead; last, so that nothing is hidden
    try:
        with named(path, setting, "importing its module raised"):
            found = import_module(module)
    except SettingError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is None or not f"{module}.".startswith(f"{missing}."):
            raise
        raise SettingError(
            setting, f"{path!r}: there is no module {missing!r} in {os.getcwd()} nor among the installed packages"
        ) from None
    if not hasattr(found, name):
        known = [each for each in vars(found) if not each.startswith("_") and callable(vars(found)[each])]
        hint = suggest(name, known) if known else ""
        raise SettingError(setting, f"{path!r}: {module} ({_file(found)}) has no {name!r}{hint}")
    function = getattr(found, name)
    if not callable(function):
        kind = type(function).__name__
        raise SettingError(setting, f"{path!r} in {_file(found)} is no function but a value of type {kind}")
    return function


@contextmanager
def named(path: str, setting: str, event: str = "raised") -> Iterator[None]:
    """Whatever foreign code raises in this block is a SettingError that names it and the line; a SgrlError passes."""
    try:
        yield
    except SgrlError:
        raise
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        own = [frame for frame in frames if not frame.filename.startswith("<frozen")]
        place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
        said = f": {error}" if str(error) else ""
        raise SettingError(setting, f"{path!r}: {event} {type(error).__name__}{said}{place}") from error


def _file(module) -> str:
    return getattr(module, "__file__", None) or "built in"
