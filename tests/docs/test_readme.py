"""Every command of the README and of docs/data.md runs, in its order; so does the Python, with the output shown."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.toys.scene import scene
from sgrl.graph import SceneGraph
from tests.preloaded import run

PAGES = ("README.md", "docs/data.md")
# The commands as the pages have them take minutes: the test only makes the numbers small.
SMALLER = {
    "toyworld": {"--train": "48", "--test": "6"},
    "toy/sft": {"--max_steps": "3", "--global_batch_size": "8", "--warmup_steps": "1"},
    "toy/grpo": {
        **{"--max_steps": "2", "--warmup_steps": "1"},
        "--global_batch_size": "16",
    },
    "evaluate": {"--max-new-tokens": "40"},
    "predict": {"--max-new-tokens": "40", "--limit": "8"},
}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language; '' for those without."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.M | re.S)
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
    commands = [block.strip() for block in blocks(root / "README.md", "") if block.startswith("make ")]
    assert commands == ["make demo", "make test"]
    for command in commands:
        dry = subprocess.run([*command.split(), "--dry-run"], cwd=root, capture_output=True, text=True)
        assert dry.returncode == 0, dry.stderr
    assert (
        "recipes/demo.sh"
        in subprocess.run(["make", "demo", "--dry-run"], cwd=root, capture_output=True, text=True).stdout
    )
    assert re.search(r"^make test$", (root / ".ci/run").read_text(), flags=re.M)


def test_python_prints_what_the_page_says(root):
    code = blocks(root / "docs/rewards.md", "python")[0]
    output = blocks(root / "docs/rewards.md", "text")[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == output


def test_the_picture_and_its_graph_are_those_of_the_toy_world(root):
    module = runpy.run_path(str(root / "tools/picture.py"))
    kept = Image.open(root / "docs/graphs.png").convert("RGB")
    drawn = module["picture"]()
    assert kept.size == drawn.size
    assert np.abs(np.asarray(kept, int) - np.asarray(drawn, int)).mean() < 4  # fewer colours, another Pillow
    assert (root / "docs/graphs.png").stat().st_size < 100_000


def test_what_the_three_lines_print_is_the_first_scene_held_out(root):
    (said,) = blocks(root / "README.md", "json")
    graph, first = SceneGraph.from_json(said), scene(0, 0, "test")
    assert [(o.label, o.box) for o in graph.objects] == list(zip(first.labels, first.boxes, strict=True))
    assert [(r.subject, r.predicate, r.object) for r in graph.relations] == first.relations


def test_every_page_is_linked_and_every_link_leads_somewhere(root):
    text = (root / "README.md").read_text()
    assert not [page.name for page in (root / "docs").glob("*.md") if f"](docs/{page.name})" not in text]
    for page in (root / "README.md", *(root / "docs").glob("*.md")):
        links = set(re.findall(r"\]\((?!http)([^)#]+)", page.read_text()))
        assert not [link for link in links if not (page.parent / link).exists()], page


@pytest.mark.slow
def test_commands_run_in_their_order(root, tmp_path, cpu_environment):
    commands = [line for page in PAGES for block in blocks(root / page, "bash") for line in block.strip().splitlines()]
    assert len(commands) >= 28
    printed = ""
    for command in commands:
        assert not command.endswith("\\"), f"one command in a line: {command}"
        words = smaller(shlex.split(re.sub("build/(readme|data)", str(tmp_path), command)))
        words = ["python", "-m", *words] if words[0] == "sgrl" else words
        done = run(words, root, cpu_environment)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        printed += done.stdout
    (table,) = [block for block in blocks(root / "docs/data.md", "") if block.startswith("thinned by")]
    assert table in printed
    page = (tmp_path / "report/index.html").read_text()
    assert "<svg" in page and "http" not in re.findall(r'src="([^"]{0,8})', page)
    assert list((tmp_path / "report/images").iterdir())

    (code,) = blocks(root / "README.md", "python")
    images = sorted((tmp_path / "toyworld/coco/val2017").glob("*.jpg"))
    code = code.replace("build/demo/toyworld/coco/val2017/000010000001.jpg", str(images[0]))
    code = code.replace('"build/demo/grpo"', f'"{tmp_path}/grpo", engine="transformers"')
    (tmp_path / "lines.py").write_text(code)
    done = run(["python", tmp_path / "lines.py"], root, cpu_environment)
    assert done.returncode == 0, done.stderr[-3000:]
    (said,) = blocks(root / "README.md", "json")
    assert json.loads(done.stdout).keys() == json.loads(said).keys() and images[0].name == "000010000001.jpg"
