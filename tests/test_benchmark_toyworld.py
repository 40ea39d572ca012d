"""benchmarks/toyworld.py: steps that are done once, and figures that follow from the evaluations."""

import argparse
import json
import runpy
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benchmark(root):
    return runpy.run_path(str(root / "benchmarks/toyworld.py"), run_name="benchmark")


def test_a_step_runs_once_and_its_failure_shows_the_log(benchmark, tmp_path, capsys):
    step = benchmark["step"]
    write = [sys.executable, "-c", f"open({str(tmp_path / 'out')!r}, 'a').write('x'); print('hello')"]
    for _ in range(2):
        step(tmp_path / "seed0", "draw", write)
    assert (tmp_path / "out").read_text() == "x"
    assert (tmp_path / "seed0/draw.log").read_text() == "hello\n"
    with pytest.raises(SystemExit, match="was made by another command"):
        step(tmp_path / "seed0", "draw", [sys.executable, "-c", "pass"])
    with pytest.raises(SystemExit, match="ended with status 3(.|\n)*no room"):
        step(tmp_path / "seed0", "sft", [sys.executable, "-c", "import sys; print('no room'); sys.exit(3)"])
    assert not (tmp_path / "seed0/sft.json").exists()


def test_bootstrap_covers_the_mean(benchmark):
    bootstrap = benchmark["bootstrap"]
    assert bootstrap(np.ones((3, 50))) == (1.0, 1.0)
    values = np.random.default_rng(0).normal(0.1, 1.0, (3, 400))
    low, high = bootstrap(values)
    error = values.mean(axis=0).std() / 400**0.5
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_report(benchmark, toy, tmp_path, monkeypatch):
    generator = np.random.default_rng(1)
    level = {"base": 0.0, "sft": 0.4, "full": 0.6, "recall": 0.3}
    for seed in (0, 1):
        for model in benchmark["MODELS"]:
            folder = tmp_path / f"seed{seed}/eval/{model}"
            folder.mkdir(parents=True)
            rows = []
            for image in generator.permutation(30):  # in any order
                score = dict.fromkeys(benchmark["COMPARED"], level[model] + 0.01 * seed + 0.001 * int(image))
                prediction = (
                    "<answer>\nobj[2]{id,name,x1,y1,x2,y2}:\n1,a,1,1,9,9\n2,b,1,1,8,8\nrel[1]{s,p,o}:\n1,on,2\n"
                )
                rows.append({"image_id": f"{image:03d}", "prediction": prediction, "width": 96, "height": 96})
                rows[-1]["score"] = score
            (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            means = dict.fromkeys((key for key, _ in benchmark["FIGURES"]), level[model] + 0.01 * seed)
            (folder / "metrics.json").write_text(json.dumps(means | {"samples": 30}))
        for name in ("sft", "full", "recall"):
            (tmp_path / f"seed{seed}/{name}.json").write_text(json.dumps({"seconds": 120.0}))
    monkeypatch.setattr(sys, "argv", ["benchmarks/toyworld.py"])
    text = benchmark["report"](argparse.Namespace(seeds=[0, 1], work_dir=tmp_path), toy / "data")
    assert "2 seeds (0, 1), 30 held-out scenes each" in text
    row = next(line for line in text.splitlines() if line.startswith("| relation P | 0.0"))
    assert "| 0.405 ± 0.007 (0.400 to 0.410) | 0.605 ± 0.007 (0.600 to 0.610) |" in row
    assert "| relations per image | 1.000 ± 0.000" in text
    # The same images are compared, whatever the order on disk: the difference has no noise left.
    assert "| relation P | +0.200 [+0.200, +0.200]; +0.200, +0.200 | -0.100 [-0.100, -0.100]" in text
    assert "SFT 2.0, GRPO 2.0 (full) and 2.0 (recall)" in text
