"""Packages that a bare installation lacks: imported where they are used, named with the command that installs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from sgrl.errors import SgrlError


def install(extra: str) -> str:
    """The command that installs an extra beside what is there."""
    return f"pip install 'sgrl[{extra}]'"


def require(module: str, extra: str, what: str) -> ModuleType:
    """The module of an optional package.

    Args:
        module: e.g. "pyarrow.parquet".
        extra: of setup.cfg, which brings it.
        what: needs it, for the message, e.g. "reading Parquet".

    Raises:
        SgrlError: the package, or one that it needs, is not installed or does not load.

    >>> require("no_such_package.reader", "data", "reading Parquet")
    Traceback (most recent call last):
    sgrl.errors.SgrlError: reading Parquet needs no_such_package: pip install 'sgrl[data]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SgrlError(f"{what} needs {(error.name or module).partition('.')[0]}: {install(extra)}") from error
    except (ImportError, OSError) as error:  # a library of the system is missing, or versions do not fit
        found = " ".join(str(error).split())
        raise SgrlError(f"{what} needs {module}, which does not load ({found}): {install(extra)}") from error
