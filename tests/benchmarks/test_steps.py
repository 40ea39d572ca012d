"""benchmarks/steps.py, gpu.py and large_world.py: the clock adds up, the world is as said, a step is split."""

import json
import runpy
import subprocess
import sys

import pytest

from tests import preloaded


@pytest.fixture(scope="module")
def world(root):
    return runpy.run_path(str(root / "benchmarks/large_world.py"))


def test_what_happens_inside_a_part_counts_once(root):
    steps = runpy.run_path(str(root / "benchmarks/steps.py"))
    now = iter([0, 1, 1, 3, 3, 6, 6, 10, 10, 15, 15, 21, 21, 28])
    watch = steps["Stopwatch"](lambda: next(now))

    class Trainer:
        def update(self):
            self.roll()
            return "done"

        def roll(self):
            pass

    trainer = Trainer()
    watch.wrap(trainer, "update", "update")
    watch.wrap(trainer, "roll", "rollout")
    assert trainer.update() == "done"
    assert sum(watch.seconds.values()) == 1 + 2 + 3
    assert watch.seconds == {"update": 1 + 3, "rollout": 2}


def test_scenes_of_the_large_world(world):
    assert len(world["CLASSES"]) == 12 and len(world["PREDICATES"]) == len({*world["PREDICATES"]}) == 20
    said = set()
    for index in range(200):
        image, boxes, labels, relations = world["scene"](0, "train", index)
        assert image.shape == (224, 224, 3) and 4 <= len(boxes) <= 8 and boxes == sorted(boxes)
        assert {*labels} <= {*world["CLASSES"]}
        assert all(value % 4 == 0 for box in boxes for value in box)
        assert len({frozenset((i, j)) for i, _, j in relations}) == len(relations) >= len(boxes) / 2
        assert all(name == world["predicate"](boxes[i], boxes[j]) for i, name, j in relations)
        said |= {name for _, name, _ in relations}
    assert said <= {*world["PREDICATES"]} and len(said) >= 17
    again = world["scene"](0, "train", 199)
    assert (again[0] == image).all() and again[1:] == (boxes, labels, relations)
    assert world["scene"](0, "test", 199)[1] != boxes


def test_predicates_are_seen_from_the_subject(world):
    predicate = world["predicate"]
    assert predicate((0, 0, 8, 8), (0, 100, 8, 108)) == "far-above"
    assert predicate((0, 100, 8, 108), (0, 0, 8, 8)) == "far-below"
    assert predicate((20, 20, 30, 30), (0, 0, 10, 10)) == "below-right-of"
    assert predicate((0, 0, 40, 40), (4, 4, 8, 8)) == "around"
    assert predicate((0, 0, 40, 40), (20, 20, 60, 60)) == "overlapping"


@pytest.mark.slow
def test_the_speed_of_a_tiny_model(root, tmp_path, cpu_environment):
    command = [sys.executable, "benchmarks/gpu.py", "--size", "tiny", "--parts", "speed", "--engines", "transformers"]
    done = preloaded.run([*command, "--work-dir", tmp_path], root, cpu_environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| reward | " in done.stdout and (tmp_path / "gpu.md").read_text() in done.stdout + "\n"
    found = json.loads((tmp_path / "speed-transformers.json").read_text())
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["seconds"]["weight sync"] == 0
    assert min(found["seconds"][part] for part in ("rollout", "reward", "log-probabilities", "update")) > 0


def test_real_sizes_are_for_gpus(root, tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    gpu = [sys.executable, "benchmarks/gpu.py", "--work-dir", str(tmp_path)]
    done = subprocess.run(gpu, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1 and "--size tiny shows on a CPU that everything runs" in done.stderr
