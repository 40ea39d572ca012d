"""Rewards of one's own by their dotted path, beside the terms, and the ranges that both declare."""

import pickle

import numpy as np
import pytest

from rewards.presets import FAMILIES, SCENEGRAPHVLM
from rewards.trl import FUNCTIONS, OwnReward, reward_functions, rewards_named
from sgrl.errors import SettingError
from sgrl.training.watch import best_total

HERE = __name__
TEXT = "obj[2]{id,name,x1,y1,x2,y2}:\n  1,dog,0,0,9,9\n  2,cat,5,5,9,9\nrel[1]{subj,pred,obj}:\n  1,near,2"


def shortness(completions, **columns):
    """Half for an answer of one character, less for longer ones."""
    return np.array([1 / (1 + len(text)) for text in completions])


shortness.range = (0, 0.5)


def penalty(completions, solution, **columns):
    pairs = zip(completions, solution, strict=True)
    return [None if reference is None else -float(text != reference) for text, reference in pairs]


penalty.range = (-1.0, 0.0)


def undeclared(completions, **columns):
    return [float(len(text)) for text in completions]


def format(completions, **columns):
    return [0.0 for _ in completions]


def few(completions, **columns):
    return [1.0]


def one(completions, **columns):
    return 1.0


def text(completions, **columns):
    return "ab"


def words(completions, **columns):
    return ["0.5" for _ in completions]


def infinite(completions, **columns):
    return [float("inf") for _ in completions]


def picky(completions):
    return [1.0 for _ in completions]


async def later(completions, **columns):
    return [1.0 for _ in completions]


class Reward:
    pass


def backwards(completions, **columns):
    return [0.0 for _ in completions]


backwards.range = (1, 0)


def unclear(completions, **columns):
    return [0.0 for _ in completions]


unclear.range = "low"


def test_own_rewards_stand_beside_terms():
    names = ["relation_f1", f"{HERE}:shortness", f"{HERE}:penalty"]
    functions, weights = rewards_named(names)
    assert [function.__name__ for function in functions] == ["relation_f1", "shortness", "penalty"]
    assert functions[0] is FUNCTIONS["relation_f1"] and weights == [2.0, 1.0, 1.0]
    assert rewards_named(names, None, [1, 2, 3])[1] == [1.0, 2.0, 3.0]
    columns = {"solution": ["a", None], "prompts": ["x", "y"], "width": [10, 10]}
    assert functions[1](completions=["a", "abc"], **columns) == [0.5, 0.25]
    assert functions[2](completions=["b", "abc"], **columns) == [-1.0, None]
    similar, _ = rewards_named(names, protocol="published")
    assert similar[0] is not functions[0] and similar[1].__name__ == "shortness"
    again = pickle.loads(pickle.dumps(functions[1]))
    assert again(completions=["a"]) == [0.5] and repr(again) == f"<reward {HERE}:shortness>"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "has no 'absent'"),
        ("HERE", "is no function but a value of type str"),
        ("Reward", "is a class; expected a function"),
        ("later", "is an async function; expected a function"),
        ("backwards", r"its range is \(1, 0\); expected the least and the greatest value"),
        ("unclear", "its range is 'low'; expected the least and the greatest value"),
        ("format", "two rewards are called 'format'"),
    ],
)
def test_what_cannot_reward(name, message):
    with pytest.raises(SettingError, match=f"^reward: .*{message}") as caught:
        rewards_named(["format", f"{HERE}:{name}"])
    assert f"'{HERE}:{name}'" in str(caught.value)


def test_a_dotted_path_without_its_colon():
    with pytest.raises(
        SettingError, match="'my.rewards.f'; a function of your own is written package.module:function"
    ):
        rewards_named(["my.rewards.f"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("few", "returned 1 values; expected a list of 2"),
        ("one", "returned a float; expected a list of 2"),
        ("text", "returned 2 values; expected a list of 2"),
        ("words", "returned '0.5' for a completion; expected a number or None"),
        ("infinite", "returned inf for a completion"),
        ("picky", r"raised TypeError: .*unexpected keyword argument 'prompts'"),
    ],
)
def test_what_is_no_reward(name, message):
    with pytest.raises(SettingError, match=f"^reward: '{HERE}:{name}'.* {message}"):
        OwnReward(f"{HERE}:{name}")(completions=["a", "b"], prompts=["", ""])


def test_values_outside_the_declared_range_are_said_once(caplog, monkeypatch):
    monkeypatch.setattr(shortness, "range", (0.0, 0.3))
    reward = OwnReward(f"{HERE}:shortness")
    assert reward(completions=["a", "a"]) == [0.5, 0.5] and reward(completions=["a"]) == [0.5]
    assert [record.message for record in caplog.records] == [
        f"the reward {HERE}:shortness returned 0.5, outside its range (0.0, 0.3)"
    ]


def test_every_term_declares_its_range():
    for function in FUNCTIONS.values():
        low, high = function.range
        assert low < high and (low, high) == FAMILIES[function.scorer.family][function.term]
        for completion in (
            "",
            TEXT,
            f"<answer>{TEXT}</answer>",
            f"<answer>{TEXT.replace('near', 'on').replace('dog', 'cow')}</answer>",
        ):
            (value,) = function([completion], [TEXT], width=20, height=20)
            assert low <= value <= high


def test_the_best_total_follows_from_the_ranges():
    """Not from names: a penalty may be called anything, and a weight may be negative."""
    assert best_total(*reward_functions("full")) == SCENEGRAPHVLM.maximum() == 9.5
    functions, _ = rewards_named(["format", f"{HERE}:shortness", f"{HERE}:penalty"])
    assert best_total(functions, [1.0, 2.0, 5.0]) == 2.0
    assert best_total(functions, [1.0, -2.0, -5.0]) == 6.0
    assert best_total([*functions, OwnReward(f"{HERE}:undeclared")], [1.0] * 4) is None
