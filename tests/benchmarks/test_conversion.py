"""The benchmark of the converter runs, with a handful of everything, and prints a table."""

import re
import subprocess
import sys


def test_table(root):
    command = [sys.executable, "benchmarks/conversion.py", "--samples", "300", "--images", "8", "--frames", "50"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 8 and all(row.count("|") == 5 for row in rows)
    sizes = [int(re.search(r"\| ([\d,]+) bytes \| \d+ x", row)[1].replace(",", "")) for row in rows[2:4]]
    assert 0 < sizes[0] < sizes[1]  # a prompt that holds a graph takes more than one that all rows share
    assert "8 images scaled to 640 x 480" in rows[4] and "300 samples" in rows[6]
