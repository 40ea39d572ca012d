"""Modules are still found under the names that they had."""

import importlib

import pytest

from sgrl.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_old_names_are_the_modules_of_today(old):
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(MOVED[old])
    assert module.__name__ == module.__spec__.name == MOVED[old]  # untouched
    assert getattr(importlib.import_module("rewards"), old.split(".")[1]) is module


def test_names_that_never_were_are_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("rewards.recal")
