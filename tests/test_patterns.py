"""Regular expressions that every Python we support can match."""

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
