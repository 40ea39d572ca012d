"""The tasks for lmms-eval: their files and functions, on rows of a converted data set."""

import importlib.util

import pytest
import yaml
from datasets import load_dataset

from rewards.metrics import SceneGraphMetrics
from sgrl.text import answer


@pytest.fixture(scope="module")
def folder(root):
    return root / "recipes/lmms_eval"


@pytest.fixture(scope="module")
def utils(folder):
    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def read(folder, utils):
    """A task as lmms-eval reads it: `!function utils.name` names a function of the file beside it, `include` another
    file."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader, node):
        module, name = loader.construct_scalar(node).split(".")
        assert module == "utils"
        return getattr(utils, name)

    Loader.add_constructor("!function", function)

    def load(name):
        found = yaml.load((folder / name).read_text(), Loader)
        return (load(found.pop("include")) if "include" in found else {}) | found

    return load


@pytest.mark.parametrize("name", ["psg", "vg150"])
def test_a_task_scores_rows_as_rewards_do(read, toy, name):
    task = read(f"{name}.yaml")
    assert task["task"] == f"scene_graphs_{name}" and task["dataset_path"] == f"build/data/{name}"
    assert task["output_type"] == "generate_until" and task["generation_kwargs"]["temperature"] == 0
    rows = load_dataset(str(toy / "data"))[task["test_split"]]
    expected = SceneGraphMetrics("toon", 96, 96)
    found = {metric["metric"]: [] for metric in task["metric_list"]}
    for number, row in enumerate(rows):
        assert task["doc_to_visual"](row)[0].size == (96, 96) and task["doc_to_visual"](row)[0].mode == "RGB"
        assert task["doc_to_text"](row) == row["prompt"][0]["content"]
        assert task["doc_to_text"](row, {"pre_prompt": "a ", "post_prompt": " b"}).startswith("a ")
        assert task["doc_to_target"] in row
        prediction = answer.wrap(row["solution"]) if number % 3 else "I see nothing."
        results = task["process_results"](row, [prediction])
        assert results.keys() == found.keys()
        for key, value in results.items():
            found[key].append(value)
        expected.add(prediction, row["solution"])
    for metric in task["metric_list"]:
        values, aggregation = found[metric["metric"]], metric["aggregation"]
        figure = sum(values) / len(values) if aggregation == "mean" else aggregation(values)
        assert figure == pytest.approx(expected.compute()[metric["metric"]]), metric["metric"]
        assert metric["higher_is_better"] == (metric["metric"] != "failure_rate")
    assert 0 < expected.compute()["sgg_score"] < 1


def test_pooled_figures_of_nothing(utils):
    assert utils.pooled_precision([(0, 0, 0)]) == utils.pooled_recall([(0, 0, 0)]) == utils.pooled_f1([(0, 0, 0)]) == 0
