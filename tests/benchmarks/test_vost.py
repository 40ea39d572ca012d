"""The benchmark of the detector's claims: what its witness says, what it counts, and runs that are not done twice."""

import importlib.util
import sys

import numpy as np
import pytest

from rewards.metrics.ranking import PairScores


@pytest.fixture(scope="module")
def bench(root):
    spec = importlib.util.spec_from_file_location("vost", root / "benchmarks/vost.py")
    module = sys.modules["vost"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("vost", None)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vost")
    return ["--work-dir", str(folder), "--train", "8", "--test", "3", "--frames", "6", "--steps", "2"]


@pytest.fixture(scope="module")
def world(bench, options):
    return bench.World(bench.parser().parse_args(options))


def true_scores(world):
    """What is true of each row of the test split, pair by pair."""
    for _, held, graph in world.pairs("test"):
        table = np.zeros((len(held), len(world.vocabulary.predicates)))
        for row, labels in enumerate(held.values()):
            table[row, [world.labels.predicates[label] for label in labels]] = 1
        names = [world.labels.official(label) for label in graph.labels]
        yield PairScores(names, np.array(graph.boxes), np.ones(len(names)), np.array(list(held)), table)


@pytest.mark.parametrize("kind", ["noisy", "clean", "random"])
def test_a_witness_is_right_as_often_as_it_should_be(bench, world, kind):
    for split, keep in zip(("train", "test"), bench.WITNESSES[kind], strict=True):
        priors = bench.Priors(world.priors(kind, 0))
        chance, kept, count = 0.0, 0, 0
        for row, held, _ in world.pairs(split):
            for pair, true in zip(priors.get(row["image_id"]).pairs, held.values(), strict=True):
                assert {world.labels.places[label][0] for label in pair.predicates} == set(world.labels.groups)
                kept += len(set(true) & set(pair.predicates))
                count += len(true)
                sizes = [len(world.labels.groups[world.labels.places[label][0]]) for label in true]
                chance += sum(keep + (1 - keep) / size for size in sizes)
        assert kept >= count if keep == 1 else abs(kept - chance) < 4 * np.sqrt(count / 4) + 0.06 * count


def test_the_truth_finds_all_and_nothing_finds_none(bench, world):
    found = bench.counts(world, true_scores(world))
    assert len(found) == 3 and all(video["no@20"] == video["frames"] > 0 for video in found.values())
    videos = found.values()
    spatial = [f"of {label}" for label in world.vocabulary.groups["spatial"]]
    relations = sum(value for video in videos for key, value in video.items() if key.startswith("of "))
    assert relations == sum(len(true) for _, held, _ in world.pairs("test") for true in held.values())
    assert any(video.get(key, 0) for video in videos for key in spatial)
    silent = (
        PairScores([], np.zeros((0, 4)), [], np.zeros((0, 2), int), np.zeros((0, 26))) for _ in world.rows["test"]
    )
    assert all(video["no@20"] == video["with@10"] == 0 for video in bench.counts(world, silent).values())


def test_differences_are_paired_over_videos(bench, tmp_path):
    results = bench.Results(tmp_path, {"steps": 1})
    shares = np.linspace(0, 1, 40)
    for arm, more in (("none", 0.0), ("dsqi", 0.25)):
        counts = {
            str(i): dict.fromkeys(("with@10", "no@10", "no@20"), 8 * (0.7 * share + more))
            | {"frames": 8, "of holding": 2, "with holding": 1 + more}
            for i, share in enumerate(shares)
        }
        for seed in range(2):
            results.add(arm, seed, {"counts": counts, "cpu_seconds": 1.0})
    value, low, high, each = results.difference("dsqi", "none", "with@10")
    assert low == pytest.approx(value) == pytest.approx(high) == pytest.approx(25)  # videos differ, differences do not
    assert each == pytest.approx([25, 25])
    assert results.figure("dsqi", 1, "moved") == pytest.approx(62.5)
    assert "| DSQI - no priors | R@10 with | at least 10 | 2 | +25.0 [+25.0, +25.0] |" in bench.report(results)


@pytest.mark.parametrize(
    "bar, low, high, value, said",
    [
        (10, 8, 14, 11, "confirmed"),
        (10, 4, 12, 8, "not shown"),
        (10, 4, 9, 6, "refuted here"),
        (0, -1, 3, 1, "not shown"),
        (0, -3, -1, -2, "refuted here"),
        (-2, -4, 1, -1.5, "confirmed"),
        (-2, -5, -1, -3, "refuted here"),
        (None, -1, 1, 0, "can't be told"),
        (None, 1, 3, 2, "above"),
    ],
)
def test_verdicts(bench, bar, low, high, value, said):
    assert bench.verdict(bar, low, high, value) == said


def test_finished_runs_are_skipped_and_torn_ones_are_not(bench, options, world, monkeypatch, capsys):
    arms = ["none", "alone", "none-time"]
    bench.main([*options, "--seeds", "0", "--arms", *arms])
    first = capsys.readouterr().out
    assert [line.partition(",")[0] for line in first.splitlines() if ", seed 0: " in line] == arms
    path = world.folder / "results.jsonl"
    text = path.read_text()
    path.write_text(text[:-10])  # as if it had been stopped while the last line was written
    monkeypatch.setattr(bench, "run", lambda world, name, *rest: pytest.fail(name) if name != arms[-1] else again)
    results = bench.Results(world.folder, {"steps": 2, "train": 8, "test": 3, "frames": 6})
    again = {"counts": results.found["none", 0]["counts"], "cpu_seconds": 0.0}
    bench.main([*options, "--seeds", "0", "--arms", *arms])
    assert "none-time, seed 0: " in capsys.readouterr().out
    assert len(path.read_text().splitlines()) == 3
