"""The one PSG record that was published in full, with its photograph, through the whole pipeline."""

import json

import pytest

from sgrl.text import get_codec
from tests import preloaded

CPU = ["accelerate", "launch", "--config_file", "recipes/accelerate/cpu.yaml", "--num_processes", "1"]


@pytest.mark.slow
def test_photograph_to_page(root, shared, tmp_path, cpu_environment):
    def run(*words):
        done = preloaded.run(words, root, cpu_environment)
        assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    data, base, sft, grpo, evaluation = (tmp_path / name for name in ("data", "base", "sft", "grpo", "eval"))
    source = shared / "data/real/psg/as_official"
    run("python", "data_prep/to_toon.py", "--layout", "psg", "--root", source, "--output", data)
    run("python", "-m", "rewards", "validate", data)
    run("python", "-m", "sgrl.tiny", "--output", base)
    common = ["--dataset", data, "--global_batch_size", "4", "--max_steps", "1", "--warmup_steps", "0"]
    run(
        *CPU, "recipes/sft_psg.py", "--config", "recipes/configs/toy/sft.yaml",
        "--model_name_or_path", base, "--output_dir", sft, *common,
    )  # fmt: skip
    run(
        *CPU, "recipes/grpo_psg.py", "--config", "recipes/configs/toy/grpo.yaml",
        "--model_name_or_path", sft, "--output_dir", grpo, *common,
        "--num_generations", "4", "--gradient_accumulation_steps", "1", "--vllm_max_model_length", "8192",
        "--vllm_engine_kwargs", '{"enforce_eager": true}',
    )  # fmt: skip
    run(
        "python", "recipes/evaluate.py", "--model", grpo, "--dataset", data, "--split", "train",
        "--output", evaluation, "--max-new-tokens", "64",
    )  # fmt: skip
    page = tmp_path / "page.html"
    run("python", "-m", "sgrl", "report", f"grpo={evaluation}", "--output", page)

    (prediction,) = map(json.loads, (evaluation / "predictions.jsonl").read_text().splitlines())
    assert prediction["image_id"] == "107902"
    graph = get_codec("toon").decode(prediction["solution"], 640, 480, tags=False)
    triplets = {(graph.objects[r.subject].label, r.predicate, graph.objects[r.object].label) for r in graph.relations}
    assert ("person", "standing-on", "grass-merged") in triplets and ("person", "holding", "umbrella") in triplets
    log = json.loads((grpo / "trainer_state.json").read_text())["log_history"]
    assert abs(log[0]["sampling/sampling_logp_difference/mean"]) < 0.02
    assert "umbrella" in page.read_text()
