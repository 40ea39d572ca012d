"""The benchmark of the engines runs, with a handful of everything, and prints a table."""

import re
import sys

import pytest

from tests import preloaded


@pytest.mark.slow
def test_table(root, toy, tmp_path, cpu_environment):
    pytest.importorskip("vllm")
    command = [sys.executable, "benchmarks/engines.py", "--work-dir", tmp_path, "--model", toy / "model"]
    command += ["--engines", "vllm", "--images", "2", "--batch-size", "2", "--max-new-tokens", "4"]
    command += ["--videos", "2", "--frames", "2"]
    done = preloaded.run(command, root, cpu_environment)
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| vLLM")]
    seconds, one_tokens, cpu, graphs, tokens, _ = [float(cell.replace(",", "")) for cell in row.split("|")[2:8]]
    # four tokens a graph, in either way; figures are rounded
    assert one_tokens * seconds == pytest.approx(4, rel=0.3) and tokens / graphs == pytest.approx(4, rel=0.3)
    assert 0 < cpu
    assert re.search(r"one at a time [\d.]+ frames/s, 2 at a time [\d.]+ frames/s, [\d.]+ x", done.stdout)
    assert re.search(r"A live stream: [\d.]+ s a frame \(median\), 95 % within [\d.]+ s", done.stdout)


def test_the_published_shape_and_what_memory_allows(root, tmp_path, monkeypatch):
    """752 M parameters of language, 101 M of vision; the limit by hand."""
    import argparse
    import importlib.util

    import torch
    from transformers import AutoModelForImageTextToText

    from sgrl.tiny.tokenizer import build_tokenizer

    spec = importlib.util.spec_from_file_location("engines_benchmark", root / "benchmarks/engines.py")
    engines = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engines)
    config = engines.qwen3_5_0_8b(build_tokenizer(["cat"], ["on"]))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    vision = sum(p.numel() for name, p in model.named_parameters() if ".visual." in name)
    assert round(vision / 1e6) == 101 and round(sum(p.numel() for p in model.parameters()) / 1e6) == 853

    config.save_pretrained(tmp_path)
    monkeypatch.setattr(engines, "measured_bandwidth", lambda: 3e12)
    # 1,000 tokens of prompt and 200 of graph: 1,100 on average while the graph is written
    found = {
        "one": {"images": 2, "prompt_tokens": 2000, "tokens": 400, "seconds": 2.0},
        "batched": {"images": 512, "prompt_tokens": 512_000, "tokens": 102_400, "seconds": 10.0},
    }
    head, one, batched = engines.limits(argparse.Namespace(model=str(tmp_path), batch_size=256), found)
    # 18 linear layers of 16 heads of 128 x 128 in float32, read and written; 6 layers of 2 x 2 heads of 256 in 2 bytes
    assert "1.50 GB of weights and for each sequence 37.7 MB and 12.3 kB for each of its tokens" in head
    sequence = 2 * 4 * 18 * 16 * 128 * 128 + 1100 * 6 * 2 * 2 * 256 * 2
    limits = [size * 3e12 / (2 * 752_393_024 + size * sequence) for size in (1, 256)]
    assert one == f"At 1 at a time: {limits[0]:,.0f} tokens/s at most; reached 200, {200 / limits[0]:.0%}."
    assert batched == f"At 256 at a time: {limits[1]:,.0f} tokens/s at most; reached 10,240, {10240 / limits[1]:.0%}."
