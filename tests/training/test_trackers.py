"""`report_to`: a run logs to trackio and wandb where they are installed, on the disk and without an account.

TensorBoard has its test in test_watch.py.
"""

import importlib.util
import json
import sqlite3
import sys

import pytest

from tests import preloaded


def trackio(folder) -> float:
    (file,) = folder.glob("*.db")
    with sqlite3.connect(file) as database:
        rows = [json.loads(row[0]) for row in database.execute("SELECT metrics FROM metrics ORDER BY id")]
    assert any("completions" in row for row in rows)  # the table
    return next(row["train/reward"] for row in rows if "train/reward" in row)


def wandb(folder) -> float:
    tables = sorted(folder.glob("wandb/offline-run-*/files/media/table/completions*.json"))
    table = json.loads(tables[0].read_text())
    terms = [i for i, name in enumerate(table["columns"]) if name == "format"]
    assert len(terms) == 1 and "<image>" in str(table["data"][0])
    return sum(row[terms[0]] for row in table["data"]) / len(table["data"])


@pytest.mark.slow
@pytest.mark.parametrize("name, read", [("trackio", trackio), ("wandb", wandb)])
def test_a_run_logs_without_a_network(name, read, root, toy, tmp_path, cpu_environment):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    log, output = tmp_path / "log", tmp_path / "run"
    log.mkdir()
    environment = cpu_environment | {"TRACKIO_DIR": str(log), "WANDB_DIR": str(log), "WANDB_MODE": "offline"}
    command = [sys.executable, "recipes/grpo_psg.py", "--config", "recipes/configs/toy/grpo.yaml"]
    command += ["--model_name_or_path", toy / "model", "--dataset", toy / "data", "--output_dir", output]
    command += ["--per_device_train_batch_size", "4", "--num_generations", "2", "--gradient_accumulation_steps", "1"]
    command += ["--max_steps", "1", "--warmup_steps", "0", "--max_completion_length", "8", "--use_vllm", "false"]
    command += ["--use_cpu", "true", "--log_completions", "true", "--log_multimodal", "true", "--report_to", name]
    done = preloaded.run(command, root, environment)
    assert done.returncode == 0, done.stderr[-4000:]
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    (reward,) = [entry["reward"] for entry in history if "reward" in entry]
    assert read(log) == pytest.approx(reward) == 0.0  # eight tokens are no graph
