"""The recipes as a user runs them: SFT, then GRPO with vLLM in one process, interrupted and resumed; and their errors.

The tiny model, a few steps. What is asserted is that the machinery works, not that the model learns.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import preloaded

ROOT = Path(__file__).resolve().parents[2]
DIFFERENCE = "sampling/sampling_logp_difference/mean"


def launch(recipe: str, **settings) -> list[str]:
    """The command for a recipe with its toy configuration and `settings` on top."""
    settings = {"config": f"recipes/configs/toy/{recipe.partition('_')[0]}.yaml"} | settings
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["python", f"recipes/{recipe}.py", *options]


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run to the end; what it printed."""
    done = preloaded.run(command, ROOT, environment)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout + done.stderr


def run_until(path: Path, command: list[str], environment: dict[str, str]) -> None:
    """Start the command and kill it as soon as `path` is there."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    while not path.exists():
        assert process.poll() is None, process.stderr.read()[-6000:].decode()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def history(folder: Path) -> list[dict]:
    """What was logged up to the last checkpoint of a run."""
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return json.loads((last / "trainer_state.json").read_text())["log_history"]


GRPO = {
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "num_generations": 4,
    "max_completion_length": 24,
    "learning_rate": 1e-3,  # far, so that weights that do not arrive in vLLM show
    "trainable": "all",
    "warmup_steps": 0,
    "save_steps": 2,
    "vllm_engine_kwargs": '{"enforce_eager": true}',  # tests/training/test_grpo.py compiles it; so does the README's
}


@pytest.fixture(scope="module")
def sft(toy, tmp_path_factory, preloaded_environment):
    """A model after SFT, killed at its first checkpoint and started again; with what the second start printed."""
    output = tmp_path_factory.mktemp("sft") / "run"
    command = launch(
        "sft_psg",
        model_name_or_path=toy / "model",
        dataset=toy / "data",
        output_dir=output,
        max_steps=16,
        save_steps=2,
        logging_steps=1,
        global_batch_size=8,
        warmup_steps=2,
    )
    run_until(output / "checkpoint-2" / "trainer_state.json", command, preloaded_environment)
    assert not (output / "model.safetensors").exists()
    return output, command, run(command, preloaded_environment)


@pytest.mark.slow
def test_sft_goes_on_where_it_was_killed(sft):
    output, _, printed = sft
    assert f"going on from {output}/checkpoint-" in printed
    steps = [entry["step"] for entry in history(output) if "loss" in entry]
    assert steps == list(range(1, 17))  # every step once, over both starts
    losses = [entry["loss"] for entry in history(output) if "loss" in entry]
    assert losses[-1] < losses[0]
    assert re.search(r"training ([\d,]+) of \1 parameters", printed)  # trainable: all


@pytest.mark.slow
def test_sft_leaves_an_ordinary_model_folder(sft):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from sgrl.models.vlm.folder import check_model_folder

    output, _, _ = sft
    check_model_folder(str(output))
    model = AutoModelForImageTextToText.from_pretrained(output)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert AutoProcessor.from_pretrained(output).image_processor.size["longest_edge"] == 9216


@pytest.mark.slow
def test_three_lines_from_an_image_to_a_graph(sft, toy, tmp_path):
    """The folder says how it is asked, and so does each checkpoint, wherever it is copied to."""
    from PIL import Image

    import sgrl
    from sgrl.task import FILE, Task

    output, _, _ = sft
    task = Task.find(output)
    assert (task.prompt, task.context_source, task.thinking, task.model_type) == ("short", "none", False, "qwen3_vl")
    assert task.pixels == (96 * 96, 96 * 96) and task.versions["trl"]
    checkpoints = list(output.glob("checkpoint-*"))
    assert checkpoints and all(Task.find(path) == task for path in checkpoints if (path / FILE).is_file())
    assert any((path / FILE).is_file() for path in checkpoints)

    Image.new("RGB", (300, 150), "white").save(tmp_path / "photograph.png")
    with sgrl.SceneGraphModel.from_pretrained(output, engine="transformers") as model:
        found = model(tmp_path / "photograph.png")
    assert (found.graph.width, found.graph.height) == (300, 150) and found.text.startswith("<answer>")


@pytest.mark.slow
def test_finished_run_says_so(sft, monkeypatch, caplog):
    output, command, _ = sft
    before = (output / "model.safetensors").stat().st_mtime_ns
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", command[command.index("recipes/sft_psg.py") :])
    recipe("sft_psg").main()
    assert f"the run in {output} is finished (16 steps)" in caplog.text
    assert (output / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_grpo_with_vllm_and_resume(sft, toy, tmp_path, cpu_environment):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    settings = GRPO | {"model_name_or_path": sft[0], "dataset": toy / "data", "output_dir": tmp_path / "run"}
    run(launch("grpo_psg", **settings, max_steps=4, parity_action="error"), cpu_environment)
    log = [entry for entry in history(tmp_path / "run") if DIFFERENCE in entry]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]  # a weight sync before each
    assert all(entry[DIFFERENCE] < 0.02 for entry in log)
    assert "rewards/relation_f1/mean" in log[0] and "sg/valid" in log[0]

    printed = run(launch("grpo_psg", **settings, max_steps=6), cpu_environment)
    assert "going on from" in printed and "checkpoint-4" in printed
    log = [entry for entry in history(tmp_path / "run") if DIFFERENCE in entry]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6]
    assert all(entry[DIFFERENCE] < 0.02 for entry in log)
    assert (tmp_path / "run" / "model.safetensors").exists()


def shortness(completions, **columns):
    """A reward of one's own, as a YAML file names it."""
    return [1 / (1 + len(completion[0]["content"])) for completion in completions]


@pytest.mark.slow
def test_grpo_of_lora_with_another_pixel_budget(sft, toy, tmp_path, cpu_environment):
    """The merged weights arrive in vLLM, the images have the new size there too, and a reward of one's own counts."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from transformers import AutoModelForImageTextToText, AutoProcessor

    settings = GRPO | {"model_name_or_path": sft[0], "dataset": toy / "data", "output_dir": tmp_path / "run"}
    settings |= {"trainable": "lora", "lora_r": 4, "min_pixels": 2304, "max_pixels": 4096, "max_steps": 3}
    config = (ROOT / "recipes/configs/toy/grpo.yaml").read_text()
    rewards = f"reward: [format, {__name__}:shortness]"
    (tmp_path / "grpo.yaml").write_text(re.sub("^reward: .*$", rewards, config, flags=re.M))
    settings |= {"max_tokens": 60, "config": tmp_path / "grpo.yaml"}
    run(launch("grpo_psg", **settings, parity_action="error"), cpu_environment)
    log = [entry for entry in history(tmp_path / "run") if DIFFERENCE in entry]
    assert len(log) == 3 and all(entry[DIFFERENCE] < 0.02 for entry in log)
    assert all(0 < entry["rewards/shortness/mean"] < 1 for entry in log)
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").exists()
    for folder in ("run", "run/adapter"):
        assert (tmp_path / folder / "scene_graph.json").is_file()
    AutoModelForImageTextToText.from_pretrained(tmp_path / "run")
    assert AutoProcessor.from_pretrained(tmp_path / "run").image_processor.size["longest_edge"] == 4096


@pytest.mark.slow
def test_thinking_is_decided_once(toy, tmp_path, monkeypatch):
    """SFT is told; GRPO, the engines, and a loader without this project follow, until they are told otherwise."""
    import argparse

    from transformers import AutoProcessor

    from sgrl.errors import SgrlError
    from sgrl.inference import options
    from sgrl.models.vlm.chat import ChatRenderer
    from sgrl.training.grpo import SceneGraphGRPOTrainer

    base = shutil.copytree(toy / "model", tmp_path / "base")
    opening, block = "{{- '<|im_start|>assistant\\n' -}}", "{{- '<think>' -}}"
    template = (base / "chat_template.jinja").read_text()
    assert opening in template
    (base / "chat_template.jinja").write_text(
        template.replace(opening, opening + "{%- if enable_thinking -%}" + block + "{%- endif -%}")
    )
    common = {"dataset": toy / "data", "max_steps": 1, "save_steps": 1, "report_to": "none", "warmup_steps": 0}
    common |= {"global_batch_size": 4, "use_cpu": "true"}
    rollouts = {"num_generations": 2, "max_completion_length": 4, "gradient_accumulation_steps": 1}
    rollouts |= {"use_vllm": "false"}
    prompts, tokenize = [], SceneGraphGRPOTrainer._tokenize_prompts

    def recorded(trainer, *args):
        found = tokenize(trainer, *args)
        prompts.extend(trainer.processing_class.tokenizer.batch_decode(found[0]))
        return found

    monkeypatch.setattr(SceneGraphGRPOTrainer, "_tokenize_prompts", recorded)

    def train(name: str, **settings) -> None:
        command = launch(name, **(common | settings))
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", command[command.index(f"recipes/{name}.py") :])
        recipe(name).main()

    train("sft_psg", model_name_or_path=base, output_dir=tmp_path / "sft", thinking="true")
    train("grpo_psg", model_name_or_path=tmp_path / "sft", output_dir=tmp_path / "grpo", **rollouts)
    assert prompts and all(prompt.endswith("<think>") for prompt in prompts)
    assert "| thinking | True |" in (tmp_path / "grpo/README.md").read_text()

    chat = [{"role": "user", "content": [{"type": "text", "text": "Write."}]}]
    for folder in (tmp_path / "sft", tmp_path / "grpo"):
        assert ChatRenderer(str(folder)).text(chat).endswith("<think>")
        assert not ChatRenderer(str(folder), thinking=False).text(chat).endswith("<think>")
        rendered = AutoProcessor.from_pretrained(folder).apply_chat_template(chat, add_generation_prompt=True)
        assert rendered.endswith("<think>")

    def decided(*words: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        options.add_arguments(parser)
        args = parser.parse_args(
            ["--dataset", str(toy / "data"), "--output", "o", "--model", str(tmp_path / "grpo"), *words]
        )
        options.check_arguments(args)
        return args

    assert decided().thinking is True and decided("--no-thinking").thinking is False
    with pytest.raises(SgrlError, match="exclude each other: .*--no-thinking"):
        decided("--constrain")
    told = decided("--engine", "openai", "--no-thinking")
    assert told.extra_body == {"chat_template_kwargs": {"enable_thinking": False}}
    assert decided("--engine", "openai").extra_body == {}


@pytest.mark.slow
def test_rewards_in_trls_own_command(sft, toy, tmp_path, preloaded_environment):
    command = [
        *("python", "-m", "trl.cli.main", "grpo"),  # what `trl` runs
        *("--model_name_or_path", str(sft[0]), "--dataset_name", str(toy / "data")),
        *(
            "--reward_funcs",
            "rewards.trl.relation_f1",
            "rewards.trl.format",
            "--output_dir",
            str(tmp_path / "run"),
        ),
        *("--per_device_train_batch_size", "8", "--num_generations", "4", "--max_completion_length", "24"),
        *("--use_cpu", "true", "--bf16", "false", "--max_steps", "2", "--save_steps", "2", "--logging_steps", "1"),
    ]
    done = subprocess.run(command, cwd=ROOT, env=preloaded_environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-6000:]
    log = history(tmp_path / "run")
    assert "rewards/relation_f1/mean" in log[0] and "rewards/format/mean" in log[0]


def recipe(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "recipes" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sft_psg", {"dataset": "nowhere"}, "nowhere does not exist; expected a data set written by"),
        ("sft_psg", {"train_split": "trian"}, "has no split 'trian'; did you mean 'train'?"),
        ("sft_psg", {"max_length": 512}, "max_length is 512 and would cut image tokens"),
        ("sft_psg", {"max_tokens": 10}, "rows have more than 10 tokens (the shortest 72); raise max_tokens"),
        ("sft_psg", {"model_name_or_path": "./nowhere"}, "the model folder ./nowhere does not exist"),
        ("sft_psg", {"trainable": "vision"}, "invalid choice: 'vision'"),
        ("grpo_psg", {"reward": "relation_f2"}, "unknown reward 'relation_f2'; did you mean 'relation_f1'?"),
        ("grpo_psg", {"reward_weights": 1}, "sum to 1, but those of the preset 'full' are [0.5, 1.5, 1.5, 3.0, 1.0, "),
        ("grpo_psg", {"parity_action": "stop"}, "invalid choice: 'stop'"),
        (
            "grpo_psg",
            {"vllm_max_model_length": 90},
            "max_completion_length), but vllm_max_model_length is 90; raise it to",
        ),
        ("grpo_psg", {"per_device_train_batch_size": 1024}, "one batch of rollouts takes 128 images"),
        ("grpo_psg", {"num_generations": 7}, "generation_batch_size (64) must be divisible by num_generations (7)"),
        ("grpo_psg", {"max_pixels": 100}, "at most max_pixels; they are 9216 and 100"),
        ("grpo_psg", {"vllm_engine_kwargs": "[1]"}, "vllm_engine_kwargs must be a mapping"),
        ("grpo_psg", {"thinking": "true"}, "chat template has no `enable_thinking`"),
        ("grpo_psg", {"learning_rte": 1}, "unknown option --learning_rte; did you mean 'learning_rate'?"),
    ],
)
def test_bad_input_is_refused_before_the_model_loads(name, settings, message, toy, tmp_path, refused):
    assert message in refused(name, **settings)


@pytest.fixture
def refused(toy, tmp_path, monkeypatch, capsys):
    """`refused(recipe, **settings)`: what a recipe prints that must end before it loads its model."""

    def run_recipe(name: str, **settings) -> str:
        defaults = {
            "model_name_or_path": toy / "model",
            "dataset": toy / "data",
            "output_dir": tmp_path / "run",
            "gradient_accumulation_steps": 1,
            "report_to": "none",
        }
        command = launch(name, **(defaults | settings))
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr("sgrl.training.model.load_model", lambda *args, **kwargs: pytest.fail("a model is loaded"))
        monkeypatch.setattr(sys, "argv", command[command.index(f"recipes/{name}.py") :])
        with pytest.raises(SystemExit) as exit:
            recipe(name).main()
        assert exit.value.code in (1, 2)
        printed = capsys.readouterr().err
        assert f"{name}.py: " in printed
        return printed

    return run_recipe


def other_rows(toy, folder: Path, change) -> Path:
    """The toy world's rows after `change(table)`, with the metadata of the files."""
    import pyarrow.parquet

    folder.mkdir()
    for path in (toy / "data").glob("*.parquet"):
        table = pyarrow.parquet.read_table(path)
        pyarrow.parquet.write_table(change(table).replace_schema_metadata(table.schema.metadata), folder / path.name)
    return folder


def with_column(name: str, change):
    """A function that applies `change` to every value of a column."""

    def changed(table):
        import pyarrow as pa

        values = pa.array(map(change, table[name].to_pylist()), type=table.schema.field(name).type)
        return table.set_column(table.column_names.index(name), table.schema.field(name), values)

    return changed


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("sft_psg", lambda table: table.drop_columns(["width"]), "lacks the column width (found image, "),
        (
            "grpo_psg",
            with_column("prompt", lambda prompt: [prompt[0] | {"content": "<image> Write."}]),
            "'prompt' contains '<image>'. The trainer puts the image before the text of the prompt; remove",
        ),
        ("sft_psg", with_column("image", lambda image: None), "row 0 has no image; convert the data set without --no"),
        ("sft_psg", with_column("width", lambda width: 2 * width), "the first image is 96 x 96, but its boxes are in"),
    ],
)
def test_data_that_does_not_fit(name, change, message, toy, tmp_path, refused):
    assert message in refused(name, dataset=other_rows(toy, tmp_path / "data", change))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "sft_pvsg",
            "holds images, but this recipe is for frames of videos; take the recipe for it (recipes/*_psg or",
        ),
        ("grpo_ag", "holds images, but this recipe is for frames of videos"),
    ],
)
def test_data_of_another_recipe(name, message, refused):
    assert message in refused(name)


def test_kinds_of_data(toy, tmp_path, monkeypatch):
    from sgrl.data import read_metadata
    from sgrl.errors import SgrlError
    from sgrl.training import dataset

    kinds = {
        path.stem.partition("_")[2]: recipe(path.stem).DATA for path in sorted((ROOT / "recipes").glob("sft_*.py"))
    }
    assert kinds == {
        path.stem.partition("_")[2]: recipe(path.stem).DATA for path in (ROOT / "recipes").glob("grpo_*.py")
    }
    assert set(kinds) == set(dataset.RECIPES.values())
    found = read_metadata(toy / "data")
    dataset.check_dataset(str(toy / "data"), kinds["psg"])  # its class lists are no data set's: the layout decides
    dataset.check_dataset(str(toy / "data"), kinds["vg150"])
    official = found | {"vocabulary": found["vocabulary"] | {"name": "vg150"}}
    monkeypatch.setattr(dataset, "read_metadata", lambda path: official)
    dataset.check_dataset(str(toy / "data"), kinds["vg150"])
    with pytest.raises(SgrlError, match=r"is vg150, but this recipe is for psg; take .*recipes/\*_vg150.py"):
        dataset.check_dataset(str(toy / "data"), kinds["psg"])
    monkeypatch.setattr(dataset, "read_metadata", lambda path: found | {"codec": "toon-pairs"})
    with pytest.raises(SgrlError, match="are toon-pairs, but this recipe is for json or toon.* --codec json"):
        dataset.check_dataset(str(toy / "data"), kinds["vg150"])


def test_model_of_another_architecture(toy, tmp_path, refused):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(toy / "model", tmp_path / "text")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    assert "holds LlamaForCausalLM, which writes no text about images" in refused("sft_psg", model_name_or_path=folder)

    folder = shutil.copytree(toy / "model", tmp_path / "weights")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    save_file(tensors | {name: tensors[name][:, :32].contiguous()}, folder / "model.safetensors")
    assert "holds the weights of another model: its embeddings are" in refused("grpo_psg", model_name_or_path=folder)

    folder = shutil.copytree(toy / "model", tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert "model.safetensors cannot be read" in refused("sft_psg", model_name_or_path=folder)

    folder = shutil.copytree(toy / "model", tmp_path / "template")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] }}{% endfor %}")
    assert "gives 0 placeholders for one image, expected 1" in refused("sft_psg", model_name_or_path=folder)


def test_checkpoint_of_another_model(toy, tmp_path, refused):
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
    config = json.loads((toy / "model" / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": "smolvlm"}))
    settings = {"resume_from_checkpoint": checkpoint, "trainable": "all"}
    assert "checkpoint-1 holds smolvlm of width " in refused("sft_psg", **settings)
    (checkpoint / "adapter_config.json").write_text("{}")
    assert "holds LoRA adapters, but trainable is all; remove resume_from_checkpoint" in refused("sft_psg", **settings)


def test_typo_in_a_yaml_file(toy, tmp_path, refused):
    config = tmp_path / "run.yaml"
    config.write_text("# a run\nlearning_rate: 1.0e-5\nlr_sheduler_type: cosine\n")
    message = f"unknown key 'lr_sheduler_type' in {config}, line 3; did you mean 'lr_scheduler_type'?"
    assert message in refused("sft_psg", config=config)


def test_a_reward_of_ones_own_that_is_not_there(tmp_path, refused):
    config = tmp_path / "run.yaml"
    config.write_text(f"learning_rate: 1.0e-5\nreward: [format, {__name__}:shortnes]\n")
    message = (
        f"{config}, line 2, reward: '{__name__}:shortnes': {__name__} ({__file__}) has no 'shortnes'; did you mean"
    )
    assert message in refused("grpo_psg", config=config)


@pytest.mark.parametrize(
    ("name", "settings", "found", "message"),
    [
        ("sft_psg", {}, {"recipe": "grpo"}, "belongs to a run with recipe: grpo, and this one has recipe: sft"),
        ("sft_psg", {}, {"dataset": "other"}, "belongs to a run with dataset: other"),
        ("sft_psg", {}, {"thinking": True}, "belongs to a run with thinking: True, and this one has thinking: False"),
        (
            "grpo_psg",
            {"max_pixels": 9216},
            {"max_pixels": 4096},
            "with max_pixels: 4096, and this one has max_pixels: 9",
        ),
        (
            "grpo_psg",
            {},
            {"reward": ["base"]},
            "with reward: ['base'], and this one has reward: ['full']; choose another",
        ),
        (
            "grpo_psg",
            {"reward": "format", "reward_weights": 2},
            {"reward_weights": [1.0]},
            "has reward_weights: [2.0]",
        ),
    ],
)
def test_folder_of_another_run_is_refused(name, settings, found, message, tmp_path, refused):
    run_file = tmp_path / "run" / "run.json"
    (run_file.parent / "checkpoint-1").mkdir(parents=True)
    run_file.write_text(json.dumps({"identity": found}))
    assert message in refused(name, **settings)
