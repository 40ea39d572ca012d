"""The benchmark of the exports runs and prints a table; memory is the same for twice the graphs."""

import subprocess
import sys


def test_table(root):
    command = [sys.executable, "benchmarks/export.py", "--graphs", "100", "200", "--formats", "csv"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head, _, row = done.stdout.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "csv" and len(cells) == 8 == head.count("|") - 1
    assert float(cells[1]) < float(cells[4]) and float(cells[6]) < 1.3 * float(cells[3])
