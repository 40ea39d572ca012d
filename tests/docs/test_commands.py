"""docs/commands.md says what the parsers take."""

import runpy


def test_the_page_is_as_the_parsers_are(root):
    page = runpy.run_path(str(root / "tools/commands.py"))["page"]()
    assert (root / "docs/commands.md").read_text() == page, "run python tools/commands.py"
