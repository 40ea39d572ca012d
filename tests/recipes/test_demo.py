"""The whole job on the toy world, as `make demo` runs it."""

import subprocess

import pytest


@pytest.mark.slow
def test_quick_demo(root, tmp_path, preloaded_environment):
    """`make demo` with a handful of images: every step runs."""
    command = ["recipes/demo.sh", str(tmp_path / "demo")]
    environment = preloaded_environment | {"QUICK": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    for name in ("base", "sft", "grpo"):
        assert (tmp_path / "demo/eval" / name / "metrics.json").is_file()
        assert name in done.stdout
    assert (tmp_path / "demo/report.html").stat().st_size > 10_000
