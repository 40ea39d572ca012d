"""Every data set from its own layout to a report: toy world, converter, tiny model, SFT, a step of GRPO, evaluation.

The model first learns the rows by heart for a few seconds, so that its graphs are good and bad ones and the step has
something to tell apart.
"""

import importlib.util
import json
import sys

import pytest

from data_prep import to_toon, toyworld
from rewards.__main__ import main as rewards_command
from sgrl.__main__ import main as sgrl_command
from sgrl.data import load, read_metadata, vocabulary_of

pytestmark = pytest.mark.slow

LAYOUTS = {  # layout of the toy world -> its recipes, how many scenes or videos, more options of the converter
    "psg": ("psg", 12, []),
    "vg150": ("vg150", 12, ["--validation", "0", "--codec", "json", "--limit", "4"]),
    "pvsg": ("pvsg", 2, ["--context", "gt"]),
    "action_genome": ("ag", 2, []),
    "psg4d_gta": ("pvsg", 1, []),
}
MORE = {  # layout -> more settings of SFT, and of GRPO
    # JSON is long: fewer rows, and less chance, so that not every answer is spoiled
    "vg150": ({"global_batch_size": 4}, {"reward": "r1-sgg-hard-recall", "temperature": 0.9}),
    "pvsg": ({"context": "gt"}, {"context": "corrupted"}),
}


def recipe(name, root, monkeypatch, **settings):
    """Run a recipe with `settings`, in this process."""
    spec = importlib.util.spec_from_file_location(name, root / "recipes" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    options = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
    module.main()


def logged(folder):
    (state,) = folder.glob("checkpoint-*/trainer_state.json")
    return json.loads(state.read_text())["log_history"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_from_official_layout_to_a_report(layout, root, tmp_path, monkeypatch):
    from sgrl.models.vlm.processor import load_processor
    from sgrl.tiny import Tiny, build_tiny_vlm

    name, number, options = LAYOUTS[layout]
    of_sft, of_grpo = MORE.get(layout, ({}, {}))
    world, rows = str(tmp_path / "world"), tmp_path / "rows"
    assert toyworld.main(["--layout", layout, "--output", world, "--train", str(number), "--test", "0"]) == 0
    assert (
        to_toon.main(
            ["--dataset", layout, "--root", world, "--output", str(rows), "--resize", "96x96", "--prompt", "short"]
            + ["--split", "train", "--limit", "8", *options]
        )
        == 0
    )
    assert rewards_command(["validate", str(rows)]) == 0
    vocabulary = vocabulary_of(read_metadata(rows))
    names = [[vocabulary.to_text(name) for name in names] for names in (vocabulary.objects, vocabulary.predicates)]
    build_tiny_vlm(tmp_path / "model", 0, Tiny(*names))
    tokenizer = load_processor(str(tmp_path / "model")).tokenizer
    answers = [row["completion"][0]["content"] for row in load(rows)]
    ids = [tokenizer(answer)["input_ids"] for answer in answers]
    assert tokenizer.batch_decode(ids) == answers
    longest = max(map(len, ids))

    common = {"dataset": rows, "report_to": "none", "use_cpu": "true", "logging_steps": 1}
    sft = common | {
        "config": "recipes/configs/toy/sft.yaml",
        "model_name_or_path": tmp_path / "model",
        "output_dir": tmp_path / "sft",
        "max_steps": 60,
    }
    sft |= {"save_steps": 60, "warmup_steps": 5, "global_batch_size": 8}
    recipe(f"sft_{name}", root, monkeypatch, **(sft | of_sft))
    grpo = common | {
        "config": "recipes/configs/toy/grpo.yaml",
        "model_name_or_path": tmp_path / "sft",
        "output_dir": tmp_path / "grpo",
        "max_steps": 1,
    }
    grpo |= {"save_steps": 1, "warmup_steps": 0, "per_device_train_batch_size": 32, "gradient_accumulation_steps": 1}
    grpo |= {"use_vllm": "false", "num_generations": 8, "temperature": 1.3, "max_completion_length": longest + 8}
    recipe(f"grpo_{name}", root, monkeypatch, **(grpo | of_grpo))
    step = logged(tmp_path / "grpo")[0]
    assert step["reward_std"] > 0 and step["grad_norm"] > 0

    limits = {"split": "train", "limit": 4, "max-new-tokens": longest + 8, "engine": "transformers"}
    evaluated = tmp_path / "eval"
    recipe("evaluate", root, monkeypatch, model=tmp_path / "grpo", dataset=rows, output=evaluated, **limits)
    found = json.loads((evaluated / "metrics.json").read_text())
    assert found["samples"] == 4 and found["object_f1"] > 0 and found["failure_rate"] < 1
    assert sgrl_command(["report", str(evaluated), "--output", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report/index.html").is_file()
