"""pip install, by uv where it can be had: it brings the same versions in half the time.

    .venv/bin/python tools/install.py -c constraints.txt -e ".[train]"

uv reads none of pip's settings, so it gets those that say where packages come from. Where there is a setting that it
has no word for, or no uv, or uv fails, pip does it.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]

OPTIONS = {
    "constraint": "--constraint",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "index-url": "--index-url",
    "trusted-host": "--allow-insecure-host",
}
"""pip's settings that say where packages come from, each with what uv calls it."""

NO_MATTER = {
    "cache-dir", "default-timeout", "disable-pip-version-check", "no-cache-dir", "no-color", "no-input",
    "progress-bar", "quiet", "require-virtualenv", "retries", "root-user-action", "timeout", "verbose",
}  # fmt: skip
"""pip's settings that change nothing of what is installed."""


def main(arguments: list[str]) -> int:
    settings = pip_settings(subprocess.run([*PIP[:3], "config", "list"], capture_output=True, text=True).stdout)
    if "--index-url" in arguments:  # instead of the one that is set
        settings.pop("index-url", None)
    uv = uv_arguments(settings)
    if uv is not None and has_uv():
        # as pip does, look for the best version in all places
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
        command += ["--index-strategy", "unsafe-best-match", *uv, *arguments]
        if subprocess.run(command, env=os.environ | certificates(settings)).returncode == 0:
            return 0
        print("uv did not install this, pip tries", file=sys.stderr)
    # Modules are compiled when they are first imported; of what is installed few ever are.
    return subprocess.run([*PIP, "install", "--no-compile", *arguments]).returncode


def pip_settings(listed: str) -> dict[str, str]:
    """What `pip config list` printed: option -> value. The environment goes before files, as it does for pip."""
    found: dict[str, tuple[int, str]] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        order = {"global": 0, "install": 1, ":env:": 2}.get(section)
        if order is not None and order >= found.get(option, (0, ""))[0]:
            found[option] = (order, ast.literal_eval(value))
    return {option: value for option, (_, value) in found.items()}


def uv_arguments(settings: dict[str, str]) -> list[str] | None:
    """The same for uv; None where one of them would be lost."""
    if set(settings) - set(OPTIONS) - NO_MATTER - {"cert"}:
        return None
    return [word for name in OPTIONS for value in settings.get(name, "").split() for word in (OPTIONS[name], value)]


def certificates(settings: dict[str, str]) -> dict[str, str]:
    """Where uv looks for pip's `cert`, as an environment."""
    return {"SSL_CERT_FILE": settings["cert"]} if "cert" in settings else {}


def has_uv() -> bool:
    """Whether it is in this environment now; it is installed if it can be."""
    if importlib.util.find_spec("uv") is None:
        subprocess.run([*PIP, "install", "-c", "constraints.txt", "uv"], stderr=subprocess.DEVNULL)
        importlib.invalidate_caches()
    return importlib.util.find_spec("uv") is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
