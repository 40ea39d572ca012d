"""Warnings that name the cause, the table of completions, the model card and the push."""

import sys
from types import SimpleNamespace

import huggingface_hub
import pytest

from sgrl import data
from sgrl.errors import SgrlError
from sgrl.training import publish
from sgrl.training.watch import TrainingWatch, check_report_to, completions_table
from tests import preloaded

ARGS = SimpleNamespace(max_completion_length=80, temperature=1.0, num_generations=8)
GOOD = {
    "frac_reward_zero_std": 0.1, "completions/clipped_ratio": 0.0, "entropy": 1.0, "reward": 4.0, "sg/valid": 0.9,
    "sg/has_answer_tags": 1.0,
}  # fmt: skip


def watched(caplog, *parts, best=9.5):
    """What is said when each part's values are logged for a whole window."""
    watch = TrainingWatch(best=best, window=3)
    for i, part in enumerate(parts):
        for step in range(3):
            watch.on_log(ARGS, SimpleNamespace(global_step=3 * i + step + 1), None, logs=GOOD | part)
    return caplog.text


def test_a_healthy_run_says_nothing(caplog):
    assert watched(caplog, {}, {}, {}) == ""


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"sg/valid": 0.0, "sg/has_answer_tags": 0.0}, "start from a model that recipes/sft"),
        ({"sg/valid": 0.0, "completions/clipped_ratio": 0.9}, "most are cut at max_completion_length"),
        ({"sg/valid": 0.0}, "sg/reason"),
        ({"reward": 9.5}, "they are all right"),
        ({}, "raise temperature"),
    ],
)
def test_equal_rewards_by_cause(caplog, values, cause):
    found = watched(caplog, {"frac_reward_zero_std": 1.0} | values)
    assert "the same reward in 100% of the groups" in found and cause in found


def test_clipped_completions_by_cause(caplog):
    found = watched(caplog, {"completions/clipped_ratio": 0.5, "sg/has_answer_tags": 0.5})
    assert "50% of the completions end at max_completion_length (80), within the graph" in found
    assert "after their </answer>" in watched(caplog, {"completions/clipped_ratio": 0.5})


def test_collapsed_entropy(caplog):
    assert "the entropy fell from 1 to 0.01" in watched(caplog, {}, {"entropy": 0.01})


def test_each_warning_comes_once_until_it_is_over(caplog):
    bad = {"frac_reward_zero_std": 1.0}
    assert watched(caplog, bad, bad, {}, bad).count("same reward in 100%") == 2


def test_one_odd_batch_does_not_warn(caplog):
    watch = TrainingWatch(window=3)
    for step, share in enumerate((0.1, 1.0, 0.1, 0.1)):
        logs = GOOD | {"frac_reward_zero_std": share}
        watch.on_log(ARGS, SimpleNamespace(global_step=step), None, logs=logs)
    assert caplog.text == ""


def test_missing_package_is_refused_first(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SgrlError, match="report_to: wandb needs its package: pip install wandb"):
        check_report_to(["wandb"])
    check_report_to([])
    check_report_to("none")


def test_completions_table():
    logs = {
        "completion": [[{"role": "assistant", "content": f"<answer>\n{i}|\n</answer>"}] for i in range(9)],
        "rewards": {"format": [1.0] * 9},
        "extra": {"sg/relation_f1": [0.25] * 9, "sg/reason": [None] * 9},
        "advantages": [0.5] * 9,
    }
    table = completions_table(logs, rows=2).splitlines()
    assert table[0] == "| completion | format | sg/relation_f1 | sg/reason | advantage |"
    assert table[2:] == [rf"| &lt;answer><br>{i}\|<br>&lt;/answer> | 1 | 0.25 | None | 0.5 |" for i in (7, 8)]


def arguments(folder):
    script = SimpleNamespace(dataset=folder, trainable="decoder", thinking=False, reward=["full"], context=None)
    training = SimpleNamespace(output_dir=str(folder / "run"), learning_rate=1e-6, temperature=0.9, seed=3)
    return script, training


@pytest.fixture
def dataset(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    vocabulary = {"name": "toy", "objects": ["a", "b"], "predicates": ["on"], "groups": None}
    metadata = {
        "codec": "toon",
        "coords": "pixel",
        "vocabulary": vocabulary,
        "dataset": "psg",
        "command": "to_toon.py",
    }
    schema = data.schema(metadata)
    pyarrow.parquet.write_table(pa.Table.from_pylist([], schema=schema), tmp_path / "train-00000-of-00001.parquet")
    (tmp_path / "run").mkdir()
    return tmp_path


def test_the_card_says_what_was_done(dataset, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x.py"])
    script, training = arguments(dataset)
    history = [{"reward": 1.0, "loss": 0.5}, {"reward": 2.0}, {"reward": 3.0, "loss": 0.25}]
    card = publish.model_card("grpo", script, training, "me/base", history, {"format": 0.5})
    for line in (
        "base_model: me/base", "- text layout: toon", "2 objects, 1 predicates", "| learning_rate | 1e-06 |",
        "| format | 0.5 |", "| reward | 1 | 3 |", "| loss | 0.5 | 0.25 |", "| transformers | ", "python x.py",
    ):  # fmt: skip
        assert line in card, line
    head = card.split("---")[1]
    import yaml

    assert yaml.safe_load(head)["pipeline_tag"] == "image-text-to-text"
    publish.write_card(dataset, card)
    publish.write_card(dataset, card + "again")
    assert (dataset / "README.md").read_text().endswith("again")
    (dataset / "README.md").write_text("mine")
    publish.write_card(dataset, card)
    assert (dataset / "README.md").read_text() == "mine"


def test_push(tmp_path, monkeypatch, caplog):
    calls = []

    class Api:
        def create_repo(self, name, **options):
            calls.append((name, options))
            return type("Address", (), {"repo_id": name, "__str__": lambda self: f"https://hub/{name}"})()

        def upload_large_folder(self, **options):
            files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
            options["sent"] = huggingface_hub.utils.filter_repo_objects(
                files, allow_patterns=options["allow_patterns"], ignore_patterns=options["ignore_patterns"]
            )
            calls.append(options)

    for name in ("model.safetensors", "README.md", "run.json", "checkpoint-2/model.safetensors", "start/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(SgrlError, match="no finished model"):
        publish.push(tmp_path, "me/toy")
    (tmp_path / "config.json").touch()
    training = SimpleNamespace(push_to_hub=True, hub_model_id=None, hub_private_repo=None)
    with pytest.raises(SgrlError, match="hub_model_id"):
        publish.take_push_settings(training)
    training.hub_model_id = "me/toy"
    target = publish.take_push_settings(training)
    assert target == ("me/toy", True) and training.push_to_hub is False
    publish.publish(tmp_path, target, main_process=False)
    assert calls == []
    assert publish.push(tmp_path, *target) == "https://hub/me/toy"
    assert calls[0] == ("me/toy", {"repo_type": "model", "private": True, "exist_ok": True})
    assert sorted(calls[1]["sent"]) == ["README.md", "config.json", "model.safetensors"]
    monkeypatch.undo()
    with pytest.raises(SgrlError, match="is complete, but pushing it to me/toy failed"):
        publish.push(tmp_path, "me/toy")


@pytest.mark.slow
def test_grpo_on_videos_with_noise_seen_in_tensorboard(tmp_path, cpu_environment, root):
    """SFT and GRPO with transformers' rollouts on a toy video, context and reward by one line each."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    import json

    import pandas

    from sgrl.task import trained_context

    def run(*words):
        done = preloaded.run(["python", *words], root, cpu_environment)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stderr

    run("data_prep/toyworld.py", "--layout", "pvsg", "--output", tmp_path / "world", "--train", 3, "--test", 1)
    convert = [
        "data_prep/to_toon.py",
        "--dataset",
        "pvsg",
        "--root",
        tmp_path / "world",
        "--output",
        tmp_path / "data",
    ]
    run(*convert, "--resize", "keep", "--prompt", "short", "--context", "gt")
    run("-m", "sgrl.tiny", "--output", tmp_path / "model")
    settings = ["--model_name_or_path", tmp_path / "model", "--dataset", tmp_path / "data", "--max_steps", 2]
    settings += ["--use_vllm", "false", "--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 1]
    settings += ["--num_generations", 4, "--max_completion_length", 16, "--output_dir", tmp_path / "grpo"]
    settings += ["--context", "corrupted", "--context_noise", '{"drop": 0.3}', "--reward", "balanced"]
    settings += ["--report_to", "tensorboard", "--log_completions", "true"]
    printed = run("recipes/grpo_pvsg.py", "--config", "recipes/configs/toy/grpo.yaml", *settings)
    assert "error" not in printed.lower()
    table = pandas.read_parquet(next((tmp_path / "grpo" / "completions").glob("*.parquet")))
    assert {"sg/relation_f1", "sg/reason", "format", "relation_precision", "advantage"} <= {*table}
    events = list((tmp_path / "grpo" / "runs").rglob("events.*"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(events[0].parent)).Reload().Tags()
    assert "train/sg/valid" in seen["scalars"] and "completions/text_summary" in seen["tensors"]
    card = (tmp_path / "grpo" / "README.md").read_text()
    assert publish.MARK in card and "previous frame's graph: corrupted" in card and "| relation_f1 | 2.0 |" in card
    assert json.loads((tmp_path / "grpo" / "run.json").read_text())["finished"]["steps"] == 2
    assert trained_context(tmp_path / "grpo") == "corrupted"  # which evaluation follows
