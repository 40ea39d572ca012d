"""Every command of the README runs, in its order; so does its Python, with the output that it shows."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preloaded import run

# The commands as the README has them take minutes: the test only makes the numbers small.
SMALLER = {
    "data_prep/toyworld.py": {"--train": "48", "--test": "6"},
    "recipes/sft_psg.py": {"--max_steps": "3", "--global_batch_size": "8", "--warmup_steps": "1"},
    "recipes/grpo_psg.py": {
        **{"--max_steps": "2", "--warmup_steps": "1"},
        "--global_batch_size": "16",
    },
    "recipes/evaluate.py": {"--max-new-tokens": "40"},
    "recipes/predict.py": {"--max-new-tokens": "40", "--limit": "8"},
}


def blocks(root: Path, language: str) -> list[str]:
    """The fenced blocks of the README in one language; '' for those without."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (root / "README.md").read_text(), flags=re.M | re.S)
    return [text for name, text in found if name == language]


def smaller(words: list[str]) -> list[str]:
    for script, options in SMALLER.items():
        if script in words:
            for option, value in options.items():
                if option in words:
                    at = words.index(option) + 1
                    words[at] = min(words[at], value, key=float)
                else:
                    words += [option, value]
    return words


def test_the_two_commands_exist_and_ci_runs_the_test_command(root):
    commands = [block.strip() for block in blocks(root, "") if block.startswith("make ")]
    assert commands == ["make demo", "make test"]
    for command in commands:
        dry = subprocess.run([*command.split(), "--dry-run"], cwd=root, capture_output=True, text=True)
        assert dry.returncode == 0, dry.stderr
    assert (
        "recipes/demo.sh"
        in subprocess.run(["make", "demo", "--dry-run"], cwd=root, capture_output=True, text=True).stdout
    )
    assert re.search(r"^make test$", (root / ".ci/run").read_text(), flags=re.M)


def test_python_prints_what_the_readme_says(root):
    (code,) = blocks(root, "python")
    (output,) = blocks(root, "text")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == output


@pytest.mark.slow
def test_commands_run_in_their_order(root, tmp_path, cpu_environment):
    commands = [line for block in blocks(root, "bash") for line in block.strip().splitlines()]
    assert len(commands) >= 8
    printed = ""
    for command in commands:
        assert not command.endswith("\\"), f"one command in a line: {command}"
        words = smaller(shlex.split(command.replace("build/readme", str(tmp_path))))
        done = run(words, root, cpu_environment)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        printed += done.stdout
    (table,) = [block for block in blocks(root, "") if block.startswith("thinned by")]
    assert table in printed
    page = (tmp_path / "report/index.html").read_text()
    assert "<svg" in page and "http" not in re.findall(r'src="([^"]{0,8})', page)
    assert list((tmp_path / "report/images").iterdir())
