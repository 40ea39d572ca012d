"""The benchmark of the metrics runs, with a few samples, and prints a table."""

import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_table(root):
    command = [sys.executable, "benchmarks/metrics.py", "--samples", "100"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 11 and all(row.count("|") == 5 for row in rows)
    memory = [int(found) for found in re.findall(r"samples \|[^|]*\| (\d+) MB", done.stdout)]
    assert len(memory) == 4 and all(40 < megabytes < 1000 for megabytes in memory)
    assert "`python -m rewards score`, 100 images, SceneGraphVLM's own file" in rows[-1]
