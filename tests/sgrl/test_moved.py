"""Modules are still found under the names that they had."""

import importlib
import subprocess
import sys

import pytest

from sgrl.moved import MOVED, NAMES


@pytest.mark.parametrize("old", MOVED)
def test_old_names_are_the_modules_of_today(old):
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(MOVED[old])
    assert module.__name__ == module.__spec__.name == MOVED[old]  # untouched
    folder, _, name = old.rpartition(".")
    assert getattr(importlib.import_module(folder), name) is module


@pytest.mark.parametrize("statement", ["import data_prep.toyvideo", "from rewards.recall import SceneGraphRecall"])
def test_old_names_are_found_first_thing(statement):
    subprocess.run([sys.executable, "-W", "ignore", "-c", statement], check=True)


def test_names_that_never_were_are_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("rewards.recal")


@pytest.mark.parametrize("old", NAMES)
def test_names_that_stand_elsewhere_now(old):
    module = importlib.import_module(old)
    for place, names in NAMES[old].items():
        for name in names:
            with pytest.warns(DeprecationWarning, match=f"{old}.{name} is now {place}.{name}"):
                assert getattr(module, name) is getattr(importlib.import_module(place), name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018
