"""Regular expressions that every Python we support can match."""

import ast
import re

import pytest

SOURCES = ("sgrl", "rewards", "data_prep", "recipes")


@pytest.mark.parametrize("folder", SOURCES)
def test_no_group_is_repeated_possessively(root, folder):
    """Python before 3.11.5 (Debian 12 has 3.11.2) fails to match `(?:...)*+`; `(?>(?:...)*)` means the same."""
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in (root / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"""r[fb]?["'].*\)(?:[*+?]|\{[0-9,]+\})\+""", line)
    ]
    assert not found, "\n".join(found)


CONSTRUCTORS = {
    "GraphScorer": "rewards/scorer.py",
    "SceneGraphRecall": "rewards/metrics/recall.py",
    "ActionGenomeRecall": "rewards/metrics/action_genome.py",
    "ScoreWriter": "sgrl/scores/files.py",
}
"""Classes that users make by hand, in a script or a notebook: their options are keywords, of which one gives few, and
a dataclass of options would be one more name to import and to look up."""

OTHERS = {
    "sgrl/models/vost/config.py: __init__",  # transformers makes it from the names in config.json
    "sgrl/models/vost/decoder.py: decode",  # tensors, which stand in the order of DETR's own layers
}


@pytest.mark.parametrize("folder", SOURCES)
def test_functions_take_at_most_six_parameters(root, folder):
    """What has more options takes them as one frozen dataclass, which says what each is."""
    found = []
    for path in sorted((root / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        public = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name in CONSTRUCTORS]
        spared = [each for node in public for each in node.body if getattr(each, "name", "") == "__init__"]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                by_place = [each for each in node.args.posonlyargs + node.args.args if each.arg not in ("self", "cls")]
                if len(by_place) + (0 if node in spared else len(node.args.kwonlyargs)) > 6:
                    found.append(f"{path.relative_to(root)}: {node.name}")
    assert set(found) <= OTHERS, "\n".join(found)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors_with_many_options_take_them_by_name(root, name):
    tree = ast.parse((root / CONSTRUCTORS[name]).read_text())
    (kind,) = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name]
    (init,) = [node for node in kind.body if getattr(node, "name", "") == "__init__"]
    assert len(init.args.args) <= 5 and 6 < len(init.args.args) + len(init.args.kwonlyargs) - 1
