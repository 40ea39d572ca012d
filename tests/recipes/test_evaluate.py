"""recipes/evaluate.py as a user runs it."""

import json
import runpy
import shutil
import sys

import pytest

from rewards.__main__ import main as rewards_command
from rewards.metrics import SceneGraphMetrics
from sgrl.text import answer


@pytest.fixture
def evaluate(root, toy, tmp_path, monkeypatch, capsys, caplog):
    """Runs the recipe in this process and returns (exit status, what it printed, what it wrote to the log)."""

    def run(*arguments, model=toy / "model", dataset=toy / "data", output=tmp_path / "run"):
        words = ["--model", model, "--dataset", dataset, "--output", output, "--engine", "transformers"]
        words += ["--max-new-tokens", "6", *arguments]
        monkeypatch.setattr(sys, "argv", ["recipes/evaluate.py", *map(str, words)])
        try:
            runpy.run_path(str(root / "recipes/evaluate.py"), run_name="__main__")
            status = 0
        except SystemExit as error:
            status = error.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err + caplog.text

    return run


def rows(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def rewrite(folder, predictions):
    with open(folder / "predictions.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in predictions)


def test_predicts_scores_and_resumes(evaluate, toy, tmp_path):
    folder = tmp_path / "run"
    status, printed, _ = evaluate()
    assert status == 0
    first = rows(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["samples"] == len(first) > 10
    assert metrics["failures"] == metrics["truncated"] == len(first)  # random weights write no graph
    assert metrics["mean_tokens"] == 6 and metrics["seconds_per_graph"] > 0
    assert set(metrics) >= {"object_f1", "relation_precision", "sgg_score", "failure_rate"}
    assert f"failure rate 1.000 [1.000, 1.000]: {len(first)} of {len(first)} images" in printed
    assert f"{len(first)} cut off at 6 tokens" in printed
    assert sum(metrics["failure_reasons"].values()) == len(first)
    assert all(reason.endswith("(cut off at the limit of tokens)") for reason in metrics["failure_reasons"])
    assert first[0]["matched"] == {"objects": [], "relations": []} and first[0]["score"]["failure"] == 1.0
    run = json.loads((folder / "run.json").read_text())
    assert run["engine"] == "transformers" and run["codec"] == "toon" and "evaluate.py" in run["command"]

    # Interrupted in the middle of line 6: the first five stay, the others are done again.
    lines = (folder / "predictions.jsonl").read_text().splitlines(keepends=True)
    (folder / "predictions.jsonl").write_text("".join(lines[:5]) + lines[5][:50])
    (folder / "metrics.json").unlink()
    status, _, log = evaluate()
    assert status == 0 and "half a line" in log
    again = rows(folder)
    assert again[:5] == first[:5]
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in first]
    assert json.loads((folder / "metrics.json").read_text())["samples"] == len(first)


def test_figures_are_those_of_the_metrics(evaluate, toy, tmp_path):
    """Gold answers score 1; with one failure and one empty graph the means are what the metrics say."""
    folder = tmp_path / "run"
    evaluate("--limit", 4)
    found = rows(folder)
    assert len(found) == 4
    for row in found:
        row["prediction"] = answer.wrap(row["solution"])
    rewrite(folder, found)
    status, printed, _ = evaluate("--limit", 4)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["sgg_score"] == metrics["object_f1"] == metrics["relation_recall"] == 1.0
    assert "objects     1.000 [1.000, 1.000]  1.000 [1.000, 1.000]  1.000 [1.000, 1.000]\n" in printed
    assert metrics["valid_rate"] == 1 and not metrics["failure_reasons"] and not metrics["format_errors"]
    assert all(row["precision"] == row["recall"] == 1 for row in metrics["predicates"])

    found[0]["prediction"] = "I see a circle."
    found[1]["prediction"] = found[1]["prediction"].replace("circle", "moon").replace("square", "moon")
    rewrite(folder, found)
    evaluate("--limit", 4)
    metrics = json.loads((folder / "metrics.json").read_text())
    expected = SceneGraphMetrics("toon", 96, 96)
    for row in found:
        expected.add(row["prediction"], row["solution"])
    assert {key: metrics[key] for key in expected.compute()} == expected.compute()
    assert metrics["failures"] == 1
    assert metrics["failure_reasons"] == {
        "the completion must begin with <answer> (cut off at the limit of tokens)": 1
    }
    for name, (low, high) in metrics["intervals"].items():
        assert low <= metrics[name] <= high, name

    # The same figures come from the file of predictions alone.
    output = tmp_path / "scored.json"
    words = ["score", folder, "--reference", toy / "data", "--limit", 4, "--output", output]
    assert rewards_command(list(map(str, words))) == 0
    scored = json.loads(output.read_text())
    assert {key: scored[key] for key in metrics if key != "finished"} == {
        key: value for key, value in metrics.items() if key != "finished"
    }

    evaluate("--limit", 2)  # fewer images than there are predictions
    assert json.loads((folder / "metrics.json").read_text())["samples"] == 2


def test_a_folder_of_another_run_is_refused(evaluate, toy, tmp_path):
    evaluate("--limit", 1)
    assert evaluate("--limit", 1)[0] == 0
    other = tmp_path / "other"
    shutil.copytree(toy / "model", other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    start = 8 + int.from_bytes(weights[:8], "little")  # behind the header
    weights[start:] = weights[start + 1000 :] + weights[start : start + 1000]
    (other / "model.safetensors").write_bytes(weights)
    status, _, log = evaluate("--limit", 1, model=other)
    assert status == 1 and "holds another run: its model_fingerprint is" in log
    status, _, log = evaluate("--limit", 1, "--split", "train")
    assert status == 1 and "holds another run: its dataset_fingerprint is" in log
    status, _, log = evaluate("--limit", 1, "--max-new-tokens", 7)
    assert status == 1 and "its max_new_tokens is 6, this one's 7" in log
    assert len(rows(tmp_path / "run")) == 1


def test_bad_input_is_named_before_a_model_loads(evaluate, toy, tmp_path):
    status, _, log = evaluate("--split", "tset")
    assert status == 2 and "has no split 'tset'; did you mean 'test'?" in log
    status, _, log = evaluate(model=tmp_path / "nowhere")
    assert status == 1 and "does not exist" in log
    status, _, log = evaluate(dataset=tmp_path / "nowhere")
    assert status == 1 and "nowhere does not exist; expected a data set" in log
    status, _, log = evaluate("--limit", 0)
    assert status == 2 and "--limit is 0, expected at least 1" in log
    damaged = tmp_path / "damaged"
    shutil.copytree(toy / "data", damaged)
    (file,) = damaged.glob("test-*.parquet")
    file.write_bytes(file.read_bytes()[:-100])
    status, _, log = evaluate(dataset=damaged)
    assert status == 1 and str(file) in log
    assert not (tmp_path / "run").exists()
