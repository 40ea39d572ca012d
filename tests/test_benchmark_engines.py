"""The benchmark of the engines runs, with a handful of everything, and prints a table."""

import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_table(root, toy, tmp_path, cpu_environment):
    pytest.importorskip("vllm")
    command = [sys.executable, "benchmarks/engines.py", "--work-dir", tmp_path, "--model", toy / "model"]
    command += ["--engines", "vllm", "--images", "2", "--batch-size", "2", "--max-new-tokens", "4"]
    command += ["--videos", "2", "--frames", "2"]
    done = subprocess.run(list(map(str, command)), cwd=root, env=cpu_environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| vLLM")]
    seconds, one_tokens, cpu, graphs, tokens, _ = [float(cell.replace(",", "")) for cell in row.split("|")[2:8]]
    # four tokens a graph, in either way; figures are rounded
    assert one_tokens * seconds == pytest.approx(4, rel=0.3) and tokens / graphs == pytest.approx(4, rel=0.3)
    assert 0 < cpu
    assert re.search(r"one at a time [\d.]+ frames/s, 2 at a time [\d.]+ frames/s, [\d.]+ x", done.stdout)
    assert re.search(r"A live stream: [\d.]+ s a frame \(median\), 95 % within [\d.]+ s", done.stdout)
