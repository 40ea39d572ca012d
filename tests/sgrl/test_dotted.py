"""Own code by its dotted path: found in the working folder, and named with file and line where it is of no use."""

import pickle
import sys

import pytest

from sgrl.command import command
from sgrl.dotted import load, named, resolve
from sgrl.errors import SettingError, SgrlError
from sgrl.training.launch import GRPOArguments, parse

CODE = '''"""Own code."""

SIZE = 3


def lengths(completions, **columns):
    return [len(text) for text in completions]


def broken(completions, **columns):
    raise KeyError("colour")
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with modules in it; nothing of them stays imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_code.py").write_text(CODE)
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "inner.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "own_package" / "ends.py").write_text("\nraise SystemExit(3)\n")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_a_function_of_the_working_folder(folder):
    assert resolve("own_code:lengths", "reward")(["ab", "c"]) == [2, 1]
    assert sys.path[-1] == str(folder)
    assert load("sgrl.errors:SgrlError") is SgrlError


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own_code:", "'own_code:' is no dotted path; expected package.module:function"),
        (":lengths", "is no dotted path"),
        ("../own_code:lengths", "is no dotted path"),
        (".own_code:lengths", "is no dotted path"),
        ("own_code:a:b", "is no dotted path"),
        ("own_cod:lengths", "'own_cod:lengths': there is no module 'own_cod' in {folder} nor among the installed"),
        ("own_package.outer:f", "there is no module 'own_package.outer' in {folder}"),
        ("own_code.inner:f", "there is no module 'own_code.inner' in {folder}"),
        ("own_code:length", "own_code ({folder}/own_code.py) has no 'length'; did you mean 'lengths'?"),
        ("own_code:SIZE", "'own_code:SIZE' in {folder}/own_code.py is no function but a value of type int"),
        (
            "own_package.inner:f",
            "importing its module raised ModuleNotFoundError: No module named 'nowhere_to_be_found' "
            "({folder}/own_package/inner.py, line 1)",
        ),
        ("own_package.ends:f", "importing its module raised SystemExit: 3 ({folder}/own_package/ends.py, line 2)"),
    ],
)
def test_what_is_no_function(folder, path, message):
    with pytest.raises(SettingError) as caught:
        resolve(path, "reward")
    assert str(caught.value).startswith("reward: ") and message.format(folder=folder) in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.setting) == (str(caught.value), "reward")


def test_what_it_raises_is_named_and_an_interruption_is_not(folder):
    function = resolve("own_code:broken", "reward")
    with pytest.raises(SettingError, match=r"^reward: 'own_code:broken': raised KeyError: 'colour' \(.*, line 11\)$"):
        with named("own_code:broken", "reward"):
            function(["a"])
    with pytest.raises(KeyboardInterrupt):
        with named("own_code:broken", "reward"):
            raise KeyboardInterrupt


@pytest.mark.parametrize("written", ["file", "option"])
def test_the_place_of_a_setting_is_named(folder, monkeypatch, capsys, written):
    """An error about a setting, from anywhere in a recipe, says in which line of the YAML file that was written."""
    (folder / "run.yaml").write_text("# a run\ndataset: somewhere\nreward: [own_code:lengths, own_code:broken]\n")
    option = ["--reward", "own_code:broken"] if written == "option" else []
    monkeypatch.setattr(sys, "argv", ["recipe.py", "--config", "run.yaml", *option])

    @command
    def main():
        (arguments,) = parse((GRPOArguments,))
        with named(arguments.reward[-1], "reward"):
            resolve(arguments.reward[-1], "reward")(["a"])

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    place = {"file": "run.yaml, line 3, reward", "option": "the option --reward"}[written]
    assert f"recipe.py: {place}: 'own_code:broken': raised KeyError: 'colour'" in capsys.readouterr().err
