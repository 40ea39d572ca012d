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


@pytest.mark.parametrize("folder", ["data_prep"])
def test_functions_take_at_most_six_parameters(root, folder):
    """What has more options takes them as one frozen dataclass, which says what each is."""
    found = []
    for path in sorted((root / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                if len([each for each in arguments if each.arg not in ("self", "cls")]) > 6:
                    found.append(f"{path.relative_to(root)}:{node.lineno}: {node.name}")
    assert not found, "\n".join(found)
