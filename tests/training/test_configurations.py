"""What a recipe says without arguments, and what it takes from the published settings without --config."""

import re
import subprocess
import sys

import pytest

from sgrl.training import configurations as c
from sgrl.training.launch import SFTArguments, parse

RECIPES = [f"{stage}_{data}.py" for stage in ("sft", "grpo") for data in c.PUBLISHED]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_lists_its_configurations(root, name, monkeypatch, capsys):
    monkeypatch.chdir(root)
    recipe = c.Path("recipes", name)
    found = c.configurations(recipe)
    stems = {recipe.stem} | ({recipe.stem[: -len("_psg")]} if "psg" in name else set())
    assert {each.path for each in found} == {
        path for path in recipe.parent.glob("configs/*/*.yaml") if path.stem in stems
    }
    with pytest.raises(SystemExit) as end:
        c.command_line(recipe, [])
    printed = capsys.readouterr().err
    assert end.value.code == 2
    for each in found:
        assert f"\n{each.path}\n" in printed and each.memory in printed
        assert each.memory.startswith("Memory: ")
        # what the recipe itself runs comes last, and writes what the file says
        assert each.steps[-1][0].startswith("accelerate launch") and str(each.path) in each.steps[-1][0]
    assert c.published(recipe) in [each.path for each in found]


def test_the_next_command_follows_from_what_is_there(root, tmp_path, monkeypatch):
    """First the data, then SFT, then the recipe itself."""
    monkeypatch.chdir(tmp_path)
    recipe = root / "recipes/grpo_psg.py"
    (config,) = (each for each in c.configurations(recipe) if each.path.parent.name == "qwen3_5_0_8b")
    assert config.next.startswith("sgrl convert --layout psg")
    (tmp_path / "data/psg").mkdir(parents=True)
    assert "recipes/sft_psg.py" in config.next
    (tmp_path / "runs/qwen3_5_0_8b/sft_psg").mkdir(parents=True)
    assert "recipes/grpo_psg.py" in config.next
    toy = c.configurations(recipe)[0]
    assert toy.path.parent.name == "toy"
    words = [command.split()[:2] for command, _ in toy.steps]
    assert [second for _, second in words] == [
        "toyworld",
        "convert",
        "-m",
        "launch",
        "launch",
    ]


def test_options_alone_start_from_the_published_settings(root):
    recipe = root / "recipes/grpo_vg150.py"
    options = c.command_line(recipe, ["--model", "org/Model-7B", "--dataset", "data/mine"])
    config = str(root / "recipes/configs/qwen2_5_vl_7b/grpo_vg150.yaml")
    output = ["--output_dir", "runs/Model-7B/grpo_vg150"]
    assert options == ["--config", config, "--model_name_or_path", "org/Model-7B", "--dataset", "data/mine", *output]
    assert c.command_line(recipe, ["--model=a/b"])[2:] == [
        "--model_name_or_path=a/b",
        "--output_dir",
        "runs/b/grpo_vg150",
    ]
    given = ["--config", "my.yaml", "--model", "m"]
    assert c.command_line(recipe, given) == ["--config", "my.yaml", "--model_name_or_path", "m"]
    assert c.command_line(root / "own_script.py", []) == []  # somebody's own program on `parse`

    from trl import ModelConfig, SFTConfig

    options = c.command_line(root / "recipes/sft_psg.py", ["--model", "m", "--dataset", "d", "--use_cpu", "true"])
    script, training, model = parse((SFTArguments, SFTConfig, ModelConfig), options)
    assert (script.dataset, model.model_name_or_path, training.output_dir) == ("d", "m", "runs/m/sft_psg")
    assert (training.learning_rate, training.num_train_epochs, script.max_tokens) == (1e-5, 5, 8192)


def test_other_processes_are_silent(root, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        c.command_line(root / "recipes/grpo_psg.py", [])
    assert not capsys.readouterr().err


def test_a_recipe_without_arguments(root, cpu_environment):
    command = [sys.executable, "recipes/grpo_psg.py"]
    done = subprocess.run(command, cwd=root, env=cpu_environment, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(re.findall(r"^recipes/configs/\w+/grpo\w*\.yaml$", done.stderr, re.M)) == 5
