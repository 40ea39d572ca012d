"""The one command: its table, its parsers, recipes and configurations that it carries."""

import re
import subprocess
import sys

import pytest

from sgrl import __version__, shipped
from sgrl.__main__ import COMMANDS, main
from sgrl.arguments import Parser, program_words, started_as
from sgrl.commands import cp, train
from sgrl.errors import SgrlError, UsageError
from sgrl.process import FAILED, WRONG_USAGE, run_command

HEAVY = ("torch", "transformers", "trl", "vllm", "datasets", "peft", "accelerate", "pyarrow", "pandas", "scipy", "cv2")


@pytest.fixture(scope="module")
def parsers():
    return {name: command.parser() for name, command in COMMANDS.items()}


def test_help_reads_no_library():
    """Of all commands in one new interpreter: what takes seconds to import is imported when a command runs."""
    code = "import sys\nfrom sgrl.__main__ import COMMANDS\n"
    code += "for command in COMMANDS.values():\n    assert 'usage' in command.parser().format_help()\n"
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_command_has_a_parser_and_help(parsers, capsys):
    words = "convert toyworld stats inspect doctor train predict evaluate score judge draw report export cp ls"
    assert set(parsers) >= set(words.split())
    for name in ("doctor", "train", "judge"):
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0 and f"usage: sgrl {name} " in capsys.readouterr().out
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"sgrl {__version__}\n"


def test_one_vocabulary(parsers):
    """An option is of one type wherever it is, and an old spelling is none any more but leads to one."""
    types = {}
    for name, parser in parsers.items():
        options = {option: action for action in parser._actions for option in action.option_strings}
        assert not options.keys() & parser.renamed.keys() and set(parser.renamed.values()) <= set(options), name
        for option, action in options.items():
            number = action.type if action.type in (int, float) else str
            assert types.setdefault(option, number) is number, (name, option)
    assert types["--limit"] is int and types["--dataset"] is str


@pytest.mark.parametrize(
    "words, said",
    [
        (["cnvert"], "unknown command 'cnvert'; did you mean 'convert'?"),
        (["score", "p.jsonl", "--referense", "d"], "unknown option --referense; did you mean '--reference'?"),
        (["ls", "recipe"], "unknown 'recipe'; did you mean 'recipes'?"),
        (["cp", "toy/sfd"], "'toy/sfd'; did you mean 'toy/sft'?"),
        (["train", "toy/sfd"], "'toy/sfd'; did you mean 'toy/sft'?"),
        (["train", "--learning_rate", "1"], "--learning_rate stands where a configuration or a recipe is expected"),
        (["stats", "d", "--limit", "0"], "--limit is 0"),
        (["draw"], "required: run"),
        ([], "usage: sgrl COMMAND"),
    ],
)
def test_wrong_usage_ends_with_2(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(words)
    except SystemExit as ended:
        status = ended.code
    assert status == WRONG_USAGE and said in capsys.readouterr().err


def test_a_failed_run_ends_with_1(capsys, tmp_path):
    assert main(["stats", str(tmp_path / "nowhere")]) == FAILED
    assert capsys.readouterr().err.startswith("sgrl stats: ")

    def fail(error):
        raise error

    assert run_command("x", lambda: fail(SgrlError("damaged"))) == FAILED
    assert run_command("x", lambda: fail(UsageError("--limit is 0"))) == WRONG_USAGE


@pytest.mark.parametrize("spelling", [["--rows", "3"], ["--rows=3"]])
def test_old_spellings_warn(spelling, capsys):
    parser = Parser("d", "p", {"--rows": "--limit"})
    parser.add_argument("--limit", type=int)
    assert parser.parse_args(spelling).limit == 3
    assert "p: --rows is called --limit now" in capsys.readouterr().err
    assert parser.parse_args(["--limit", "3"]).limit == 3 and not capsys.readouterr().err


def test_a_missing_layer_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "data_prep.stats", None)
    assert main(["stats", "x"]) == FAILED
    assert (
        capsys.readouterr().err
        == "sgrl stats: the package data_prep is missing beside sgrl; install sgrl again, whole\n"
    )


def test_a_program_knows_how_it_was_started(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipes/predict.py", "--limit", "1"])
    assert program_words(["--limit", "1"]) == ["python", "recipes/predict.py", "--limit", "1"]
    with started_as("sgrl", "predict"):
        assert program_words(["--limit", "1"]) == ["sgrl", "predict", "--limit", "1"]


def test_recipes_and_configurations_are_listed(capsys):
    assert main(["ls"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^  sft_psg +Supervised fine-tuning on PSG", printed, re.M)
    assert re.search(r"^  qwen3_5_0_8b/grpo_psg +GRPO of .*\n +Memory: ", printed, re.M)
    assert "accelerate/zero2" in printed and "predict" not in printed
    for name, configuration in shipped.names("configurations").items():
        recipe = shipped.recipe_of(configuration).stem
        assert recipe.startswith(configuration.stem) or "vost" in name and recipe == "train"


def test_copies_are_edited_and_never_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["cp", "toy/sft", "sft_psg", "accelerate/cpu"]) == 0
    file = tmp_path / "recipes/configs/toy/sft.yaml"
    assert file.read_bytes() == shipped.find("toy/sft", "configurations").read_bytes()
    assert (tmp_path / "recipes/sft_psg.py").is_file() and (tmp_path / "recipes/accelerate/cpu.yaml").is_file()
    file.write_text("mine")
    assert main(["cp", "toy/sft"]) == WRONG_USAGE and file.read_text() == "mine"
    assert main(["cp", "toy/sft", "--overwrite"]) == 0 and file.read_text() != "mine"
    assert main(["cp", "toy/grpo", "--output", "mine.yaml"]) == 0 and (tmp_path / "mine.yaml").is_file()
    assert main(["cp", "toy/grpo", "toy/sft", "--output", "one.yaml"]) == WRONG_USAGE
    assert len(cp.copies(["recipes"], tmp_path)) > 40
    # a file of another name is trained by the recipe that its first lines name
    assert train.recipe_and_arguments(["mine.yaml"])[0].stem == "grpo_psg"
    (tmp_path / "other.yaml").write_text("seed: 1\n")
    with pytest.raises(UsageError, match="does not say which recipe"):
        train.recipe_and_arguments(["other.yaml"])


def test_train_runs_the_recipe_of_a_configuration(monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(shipped, "run", lambda recipe, arguments: ran.append((recipe.stem, arguments)))
    monkeypatch.setattr(train, "launched", lambda: False)
    config = str(shipped.find("qwen3_5_0_8b/grpo_psg", "configurations"))
    assert main(["train", "qwen3_5_0_8b/grpo_psg", "--seed", "3"]) == 0
    assert main(["train", "--config", config]) == 0
    assert main(["train", "sft_vg150", "--model", "m"]) == 0
    assert ran == [
        ("grpo_psg", ["--config", config, "--seed", "3"]),
        ("grpo_psg", ["--config", config]),
        ("sft_vg150", ["--model", "m"]),
    ]
    line = capsys.readouterr().err.splitlines()[0]
    zero2 = shipped.folder() / "accelerate/zero2.yaml"
    assert f"accelerate launch --config_file {zero2} --num_processes 1 -m sgrl train qwen3_5_0_8b/grpo_psg" in line
    monkeypatch.setattr(train, "launched", lambda: True)
    assert main(["train", "toy/sft"]) == 0 and not capsys.readouterr().err
    assert main(["train", "toy/sft", "--config", config]) == WRONG_USAGE
