"""Arguments of the recipes: what is accepted, and what is refused with a hint."""

from dataclasses import dataclass

import pytest

from sgrl.errors import SgrlError
from sgrl.training.launch import SceneGraphArguments, json_mapping, parse, without_missing_vllm


@dataclass
class Length:
    """Stands for TRL's configs, which take seconds to import and check nothing about themselves here."""

    max_steps: int = -1
    learning_rate: float = 1e-5


def read(tmp_path, text: str, *options: str):
    config = tmp_path / "run.yaml"
    config.write_text(text)
    return parse((SceneGraphArguments, Length), ["--config", str(config), *options])


def test_command_line_goes_before_the_file(tmp_path):
    script, length = read(tmp_path, "dataset: here\nmax_steps: 5\nlearning_rate: 6e-7\n", "--max_steps", "7")
    assert (script.dataset, length.max_steps, length.learning_rate) == ("here", 7, 6e-7)
    assert script.trainable == "decoder" and script.max_tokens is None


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("dataset: d\nlerning_rate: 1", [], "unknown key 'lerning_rate' in .*; did you mean 'learning_rate'?"),
        ("dataset: d\nqqqq: 1", [], "unknown key 'qqqq' in .*; --help lists every key"),
        ("dataset: d", ["--max_step", "3"], "unknown option --max_step; did you mean 'max_steps'?"),
        ("dataset: d", ["--max-stepz=3"], "unknown option --max-stepz=3; did you mean 'max_steps'?"),
        ("dataset: d\nmax_steps: 1\nmax_steps: 2", [], "'max_steps' occurs twice"),
        ("dataset: [d", [], "not valid YAML"),
        ("- dataset", [], "must be a YAML mapping"),
        ("max_steps: 1", [], "no data set is given; add `dataset: DIR`"),
        ("dataset: d\ntrainable: decodr", [], "unknown trainable: 'decodr'; did you mean 'decoder'?"),
        ("dataset: d", ["--max_steps", "many"], "max-steps: invalid int value: 'many'"),
        ("dataset: d\nmax_steps: many", [], "max-steps: invalid int value: 'many'"),
    ],
)
def test_refusals(tmp_path, text, options, message):
    with pytest.raises(SgrlError, match=message):
        read(tmp_path, text, *options)


def test_missing_config(tmp_path):
    with pytest.raises(SgrlError, match="nowhere.yaml cannot be read: No such file"):
        parse((SceneGraphArguments,), ["--config", str(tmp_path / "nowhere.yaml")])
    with pytest.raises(SgrlError, match="--config needs the path of a YAML file"):
        parse((SceneGraphArguments,), ["--config"])


def test_json_mapping():
    assert json_mapping(None, "x") == {} and json_mapping({"a": 1}, "x") == {"a": 1}
    assert json_mapping('{"a": 1}', "x") == {"a": 1}
    for text in ("{a: 1}", "[1]"):
        with pytest.raises(SgrlError, match="x must be a mapping"):
            json_mapping(text, "x")


def test_vllm_stays_where_it_is_not_asked_for():
    @dataclass
    class Arguments:
        use_vllm: bool = False

    arguments = Arguments()
    without_missing_vllm(arguments)
    assert arguments.use_vllm is False


def test_settings_for_everyone_are_what_everyone_needs():
    """An engine in the caller's process is for the trainer, and asleep at once two threads are slower than one."""
    from sgrl.command import ENVIRONMENT

    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in ENVIRONMENT
    assert "OMP_WAIT_POLICY" not in ENVIRONMENT and 0 < int(ENVIRONMENT["GOMP_SPINCOUNT"]) <= 100_000
