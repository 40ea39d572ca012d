"""Recipes and configurations where they lie: in the checkout beside the package, in an installed wheel inside it."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sgrl.errors import SgrlError, UsageError, suggest

KINDS = {
    "programs": ("*.py", "vost/evaluate.py"),
    "recipes": ("*_*.py", "vost/train.py"),
    "configurations": ("configs/*/*.yaml",),
    "accelerate": ("accelerate/*",),
}
"""Where each kind lies below the folder of `folder`."""


def file(name: str) -> Path:
    """Where a file or folder of the checkout is: beside this package there, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    return package / name if (package / name).exists() else package.parent / name


@cache
def folder() -> Path:
    """The folder recipes/. Raises SgrlError where there is none."""
    found = file("recipes")
    if not (found / "configs").is_dir():
        raise SgrlError(f"{found} is missing: sgrl was installed without its recipes; install it again, whole")
    return found


def names(kind: str) -> dict[str, Path]:
    """What there is of a kind, by its name: sft_psg, qwen3_5_0_8b/sft_psg, accelerate/ddp; the toy's first."""
    found = {}
    paths = [path for pattern in KINDS[kind] for path in folder().glob(pattern)]
    for path in sorted(paths, key=lambda path: (path.parent.name != "toy", path)):
        found[name_of(path)] = path
    return found


def name_of(path: Path) -> str:
    """How `find` calls a file; of one that lies elsewhere its path."""
    if not path.is_relative_to(folder()):
        return str(path)
    return path.relative_to(folder()).with_suffix("").as_posix().removeprefix("configs/")


def find(name: str, *kinds: str) -> Path:
    """What `name` stands for among these kinds, e.g. "configurations". Raises UsageError."""
    known = {name: path for kind in kinds for name, path in names(kind).items()}
    wanted = re.sub(r"^recipes/(configs/)?|\.(py|yaml)$", "", name)
    if wanted in known:
        return known[wanted]
    raise UsageError(f"no {' or '.join(kinds)} called {name!r}{suggest(wanted, known)}")


def title(path: Path) -> str:
    """The first sentence of what a file says of itself."""
    text = path.read_text(encoding="utf-8")
    found = re.match(r'(?:#!.*\n)?(?:# |""")(.*?)(?: \(|\.?$|\.\s|\.")', text, re.M)
    return found.group(1) if found else ""


def memory(path: Path) -> str:
    """The line of a configuration on the GPUs and the memory that it needs, "" where it has none."""
    found = re.search(r"^# (Memory: .*)$", path.read_text(encoding="utf-8"), re.M)
    return found.group(1) if found else ""


def recipe_of(configuration: Path) -> Path:
    """The recipe that a YAML file is for: the file is called like it, or the commands at its top name it.

    Raises UsageError.
    """
    known = names("recipes")
    stem = configuration.stem
    for name in (stem, f"{stem}_psg"):  # the toy world is in PSG's layout
        if name in known:
            return known[name]
    head = configuration.read_text(encoding="utf-8") if configuration.is_file() else ""
    named = [name for name in re.findall(r"recipes/([\w/]+)\.py", head) if name in known]
    if named:
        return known[named[0]]
    raise UsageError(f"{configuration} does not say which recipe it is for; name it: sgrl train RECIPE --config FILE")


def run(recipe: Path, arguments: Sequence[str]) -> None:
    """Run a recipe in this process, as `python RECIPE ARGUMENTS` does."""
    before = sys.argv
    sys.argv = [str(recipe), *arguments]
    try:
        runpy.run_path(str(recipe), run_name="__main__")
    finally:
        sys.argv = before


def names_in(recipe: Path) -> dict[str, Any]:
    """The names that a recipe defines; it is not run."""
    return runpy.run_path(str(recipe), run_name=f"recipes.{recipe.stem}")
