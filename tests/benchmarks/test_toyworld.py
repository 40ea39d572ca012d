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


def test_bootstrap_covers_the_difference(benchmark):
    generator = np.random.default_rng(0)
    values = generator.normal(0.1, 1.0, (3, 400))
    ones = np.ones_like(values)
    low, high = benchmark["bootstrap"](np.stack([values, ones], axis=1), np.stack([0 * values, ones], axis=1))
    error = values.mean(axis=0).std() / 400**0.5
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_bootstrap_of_a_quotient_sums_before_it_divides(benchmark):
    # One image says 9 relations, all right; the other 1, wrong: pooled .9, and 0 or 1 where one image is drawn twice.
    ours = np.array([[[9.0, 0.0], [9.0, 1.0]]])
    theirs = np.array([[[0.0, 0.0], [9.0, 1.0]]])
    assert benchmark["quotient"](ours.sum(axis=-1)) == pytest.approx(0.9)
    assert benchmark["bootstrap"](ours, theirs) == (0.0, 1.0)


def test_report(benchmark, tmp_path, monkeypatch):
    generator = np.random.default_rng(1)
    level = {"base": 0.0, "sft": 0.4, "full": 0.6, "recall": 0.3}
    for seed in (0, 1):
        for model in benchmark["MODELS"]:
            folder = tmp_path / f"seed{seed}/eval/{model}"
            folder.mkdir(parents=True)
            rows = []
            for image in generator.permutation(30):  # in any order
                score = dict.fromkeys(benchmark["MEANS"], level[model] + 0.01 * seed + 0.001 * int(image))
                score |= {"relations_right": 10 * level[model], "relations_predicted": 10, "relations_reference": 5}
                rows.append({"image_id": f"{image:03d}", "score": score})
            (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            means = dict.fromkeys((key for key, _ in benchmark["FIGURES"]), level[model] + 0.01 * seed)
            (folder / "metrics.json").write_text(json.dumps(means | {"samples": 30}))
        for name in ("sft", "full", "recall"):
            (tmp_path / f"seed{seed}/{name}.json").write_text(json.dumps({"seconds": 120.0}))
    monkeypatch.setattr(sys, "argv", ["benchmarks/toyworld.py"])
    text = benchmark["report"](argparse.Namespace(seeds=[0, 1], work_dir=tmp_path))
    assert "2 seeds (0, 1), 30 held-out scenes each" in text
    row = next(line for line in text.splitlines() if line.startswith("| relation P | 0.0"))
    assert "| 0.405 ± 0.007 (0.400 to 0.410) | 0.605 ± 0.007 (0.600 to 0.610) |" in row
    assert "| relations per image | 10.000 ± 0.000" in text
    # The same images are compared, whatever the order on disk: the difference has no noise left.
    assert "| relation P | +0.200 [+0.200, +0.200]; +0.200, +0.200 | -0.100 [-0.100, -0.100]" in text
    assert "| relation P, pooled | +0.200 [+0.200, +0.200]; +0.200, +0.200 | -0.100" in text
    assert "| relation R, pooled | +0.400 [+0.400, +0.400]" in text
    assert "SFT 2.0, GRPO 2.0 (full) and 2.0 (recall)" in text
