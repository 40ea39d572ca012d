"""The benchmark of recall runs, with a few frames of Action Genome, and prints a table."""

import subprocess
import sys


def test_table(root):
    command = [sys.executable, "benchmarks/recall.py", "--frames", "20", "--images", "0", "--videos", "0"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith(("| texts", "| 4", "| 100"))]
    assert len(rows) == 13 and all(len(row) == 6 for row in rows)
    recall = {row[0].strip(): float(row[4]) for row in rows}
    assert 0 < recall["texts, with constraint"] < recall["texts, no constraint"] < 1
