"""Each recipe can be read by itself, so they repeat each other; what is meant to be equal is equal."""

import ast

import pytest


def course(text: str) -> tuple[str, dict[str, str]]:
    """The syntax tree of a recipe without docstring and settings, and its settings (NAME = value) as they stand."""
    tree = ast.parse(text)
    settings = {node.targets[0].id: ast.unparse(node.value) for node in tree.body if isinstance(node, ast.Assign)}
    rest = [node for node in tree.body[1:] if not isinstance(node, ast.Assign)]
    return ast.dump(ast.Module(rest, [])), settings


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_recipes_of_a_stage_differ_in_their_data_alone(stage, root):
    found = {path.name: course(path.read_text()) for path in root.glob(f"recipes/{stage}_*.py")}
    assert len(found) == 4
    assert len({tree for tree, _ in found.values()}) == 1, "change all of them"
    assert len({settings.pop("DATA") for _, settings in found.values()}) == 4
    assert len({tuple(settings.items()) for _, settings in found.values()}) == 1


def test_a_recipe_shows_what_happens_in_order(root):
    for stage, words in (("sft", ["Data", "Model", "Trainer", "Train", "Save"]), ("grpo", ["Rewards", "Data"])):
        lines = (root / f"recipes/{stage}_psg.py").read_text().splitlines()
        comments = [
            line.strip(" #").replace(",", ":").split(":")[0] for line in lines if line.strip().startswith("# ")
        ]
        assert [word for word in comments if word in words] == words


def test_what_differs_is_seen(root):
    tree, settings = course((root / "recipes/sft_psg.py").read_text())
    other, same = course((root / "recipes/sft_psg.py").read_text().replace("run.train(trainer)", "trainer.train()"))
    assert other != tree and same == settings
