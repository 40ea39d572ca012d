"""The reproduction bench: what it needs, what it says, and one claim from nothing to a plot."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bench(root):
    sys.path.append(str(root / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("reproduce", root / "benchmarks/reproduce.py")
        module = sys.modules["reproduce"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(root / "benchmarks"))
        sys.modules.pop("reproduce", None)


def test_every_claim_names_what_exists(bench):
    from rewards.presets import PRESETS
    from sgrl.context import CONTEXTS, TRAINING_CONTEXTS

    for claim in bench.CLAIMS.values():
        for model, data, context in claim.runs.values():
            assert model in bench.MODELS and data in bench.DATA and context in CONTEXTS
        for better, worse, figure in claim.tests:
            assert {better, worse} <= set(claim.runs) and figure in bench.PLOTTED
    for model in bench.MODELS.values():
        assert model.start is None or model.start in bench.MODELS
        options = dict(zip(model.options[::2], model.options[1::2], strict=True))
        assert options.get("--reward", "full") in PRESETS
        assert options.get("--context", "gt") in TRAINING_CONTEXTS


def test_models_come_after_what_they_start_from(bench):
    for claims in (["rl"], ["context", "r1"], list(bench.CLAIMS)):
        order = bench.needed(claims)
        assert len(order) == len(set(order))
        for name in order:
            start = bench.MODELS[name].start
            assert start is None or order.index(start) < order.index(name)
    assert bench.needed(["rl"]) == ["sft", "full"]


def test_verdicts(bench):
    up, both = np.array([0.1, 0.2]), np.array([0.1, -0.3])
    assert bench.verdict(up, (0.05, 0.2)) == "holds here"
    assert bench.verdict(-up, (-0.2, -0.05)) == "does not hold here"
    assert bench.verdict(up, (-0.05, 0.2)) == bench.verdict(both, (-0.2, -0.05)) == "can't be told"


def test_a_section_from_evaluations(bench, tmp_path, monkeypatch):
    """Two made-up models over two seeds: one is right in nine of ten images, the other in half of them."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    rng = np.random.default_rng(0)

    def evaluate(args, seed, run):
        folder = tmp_path / f"{seed}-{run[0]}"
        folder.mkdir(exist_ok=True)
        right = rng.random(200) < (0.9 if run[0] == "full" else 0.5)
        names = {*bench.PLOTTED, "relations_right", "relations_predicted", "relations_reference"}
        rows = [{"image_id": f"{i:03}", "score": dict.fromkeys(names, float(value))} for i, value in enumerate(right)]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        means = dict.fromkeys((*bench.PLOTTED, "mean_tokens"), float(right.mean())) | {"samples": 200}
        (folder / "metrics.json").write_text(json.dumps(means))
        return folder

    monkeypatch.setattr(bench, "evaluate", evaluate)
    args = bench.parse_arguments(["--seeds", "0", "1"])
    text = bench.table(args, bench.CLAIMS["rl"], tmp_path / "plots" / "rl.svg")
    assert text.count("**holds here**") == 2 and "2 seeds, 200 images" in text
    assert "![" in text and "(plots/rl.svg)" in text
    assert (tmp_path / "plots" / "rl.svg").read_text().count("<path") > 10


@pytest.mark.slow
def test_one_claim_from_nothing(root, tmp_path, preloaded_environment):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    command = ["python", "benchmarks/reproduce.py", "--work-dir", str(tmp_path), "--seeds", "0"]
    command += ["--claims", "rl", "--train", "32", "--images", "4"]
    small = "--max_steps 1 --warmup_steps 0 --global_batch_size 8"
    command += ["--sft-options", small]
    grpo = f"{small} --gradient_accumulation_steps 1 --use_vllm false --max_completion_length 16"
    command += ["--grpo-options", grpo, "--evaluate-options", "--engine transformers"]
    done = subprocess.run(command, cwd=root, env=preloaded_environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "can't be told" in done.stdout and (tmp_path / "plots/rl.svg").is_file()
    again = subprocess.run(command, cwd=root, env=preloaded_environment, capture_output=True, text=True)
    assert again.stdout == done.stdout and again.stderr == ""  # every step was done
