"""What a recipe says without arguments: its configurations, what each needs, and which command comes next.

All of it is read from the YAML files: the commands at their top, in the order in which they are run, and the line on
memory. The next command is the first whose output is not there.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from sgrl import shipped
from sgrl.arguments import SETTINGS
from sgrl.terminal import printable_lines

logger = logging.getLogger(__name__)

PUBLISHED = {"psg": "qwen3_5_0_8b", "pvsg": "qwen3_5_0_8b", "ag": "qwen3_5_0_8b", "vg150": "qwen2_5_vl_7b"}
"""The folder of recipes/configs with the settings of each data set's published run."""


@dataclass(frozen=True)
class Configuration:
    """A YAML file of a recipe. title, memory: of its comments. steps: (command, folder that it writes), in order."""

    path: Path
    title: str
    memory: str
    steps: list[tuple[str, str]]

    @property
    def next(self) -> str:
        """The first command whose output is not there, or the recipe's own."""
        missing = (command for command, output in self.steps[:-1] if not Path(output).exists())
        return next(missing, self.steps[-1][0])


def configurations(recipe: Path) -> list[Configuration]:
    """Those of recipes/sft_*.py or recipes/grpo_*.py, the toy's first."""
    stage, _, data = recipe.stem.partition("_")
    names = [f"{recipe.stem}.yaml", *([f"{stage}.yaml"] if data == "psg" else [])]  # the toy world is in PSG's layout
    files = [path for name in names for path in (recipe.parent / "configs").glob(f"*/{name}")]
    return [_read(path) for path in sorted(files, key=lambda path: (path.parent.name != "toy", path))]


def published(recipe: Path) -> Path | None:
    """The file with the published settings of a recipe's data set; None for a program that is no such recipe."""
    folder = PUBLISHED.get(recipe.stem.partition("_")[2])
    path = recipe.parent / "configs" / str(folder) / f"{recipe.stem}.yaml"
    return path if path.is_file() else None


def listing(recipe: Path) -> str:
    """What a recipe says that was started without arguments."""
    lines = [f"no configuration is given; {recipe} takes one of these with --config:"]
    for each in configurations(recipe):
        lines += ["", f"{each.path}", f"  {each.title}", f"  {each.memory}", f"  next: {each.next}"]
    first = published(recipe)
    if first is not None:
        lines += ["", f"Options alone start from {first}, the published settings:"]
        lines += [f"  accelerate launch {recipe} --model MODEL --dataset DIR"]
    return "\n".join(lines)


def command_line(recipe: Path, arguments: list[str]) -> list[str]:
    """The arguments of a recipe, completed: without --config they start from the published settings of its data set.

    `--model`, `--output` and `--split` are short for settings. The default output folder is called after the model.

    Without any argument the first process prints the list of configurations, and the program ends with 2.
    """
    first = published(recipe)
    arguments = [_setting(word) for word in arguments]
    if first is None:
        return arguments
    if not arguments:
        if os.environ.get("RANK", "0") == "0":
            print(f"{recipe.name}: {printable_lines(listing(recipe))}", file=sys.stderr)
        sys.exit(2)
    given = {word.partition("=")[0]: i for i, word in enumerate(arguments)}
    if given.keys() & {"--config", "--help", "-h"}:
        return arguments
    logger.info("without --config settings are those of %s, where no option says otherwise", first)
    if "--output_dir" not in given and "--model_name_or_path" in given:
        place = given["--model_name_or_path"]
        model = arguments[place].partition("=")[2] or "".join(arguments[place + 1 : place + 2])
        arguments = [*arguments, "--output_dir", f"runs/{Path(model).name}/{recipe.stem}"]
    return ["--config", str(first), *arguments]


def _setting(word: str) -> str:
    name, sign, value = word.partition("=")
    return f"--{SETTINGS[name]}{sign}{value}" if name in SETTINGS else word


def _read(path: Path) -> Configuration:
    before = path.with_name(path.name.replace("grpo", "sft", 1))
    steps = [] if before == path else _steps(before)
    return Configuration(path, shipped.title(path), shipped.memory(path), [*steps, *_steps(path)])


def _steps(path: Path) -> list[tuple[str, str]]:
    """The commands of a file's first block, up to the recipe's own."""
    text = path.read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    steps = []
    joined = re.sub(r"\\\n# *", "", text)
    for command in re.findall(r"^# +((?:python|sgrl|accelerate launch) .*)$", joined, re.M):
        words = shlex.split(command)
        if "--output" in words:
            steps.append((command, words[words.index("--output") + 1]))
        else:
            return [*steps, (command, settings["output_dir"])]
    return steps
