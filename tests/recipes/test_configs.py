"""Every YAML file of the recipes is read by its recipe's own arguments, and every accelerate file by accelerate.

So is every command that stands in a YAML file, in a recipe's docstring or in the documentation.
"""

import importlib.util
import re
import runpy
import shlex
from pathlib import Path

import pytest
import yaml

from data_prep import to_toon
from rewards.trl import rewards_named
from sgrl.models.vlm.families import FAMILIES
from sgrl.training.checks import check_best
from sgrl.training.launch import GRPOArguments, SFTArguments, parse

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
ALL = sorted(path.relative_to(RECIPES).as_posix() for path in (RECIPES / "configs").rglob("*.yaml"))
CONFIGS = [name for name in ALL if "vost" not in name]  # tests/training/test_vost.py has the detectors'
REAL = [name for name in CONFIGS if "/toy/" not in name]
LAUNCHERS = sorted(path.name for path in (RECIPES / "accelerate").glob("*.yaml"))
SOURCES = [*RECIPES.glob("*.py"), *(RECIPES / "configs").rglob("*.yaml"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]


def read(stage: str, options: list[str]):
    from trl import GRPOConfig, ModelConfig, SFTConfig

    arguments = (GRPOArguments, GRPOConfig) if stage == "grpo" else (SFTArguments, SFTConfig)
    # A GPU's settings have to be taken as they are here too.
    return parse((*arguments, ModelConfig), [*options, "--use_cpu", "true"])


CONVERT = r"(?:data_prep/to_toon\.py|\bconvert) "


def commands(path: Path, script: str) -> list[list[str]]:
    """The words of all commands in a file that run `script`, a regular expression; a comment's mark is no word."""
    text = re.sub(r"^# ?", "", path.read_text(), flags=re.M)
    text = re.sub(r"\\\n\s*", "", text)
    found = re.findall(rf"^\s*((?:accelerate launch|python|sgrl) .*?{script}.*)$", text, re.M)
    return [shlex.split(command) for command in found]


@pytest.mark.parametrize("name", CONFIGS)
def test_config(name, tmp_path):
    path = RECIPES / name
    stage = path.name[:4].strip("_.")
    script, training, model = read(stage, ["--config", str(path), "--output_dir", str(tmp_path)])
    if stage == "grpo":
        functions, weights = rewards_named(script.reward, script.similarity, training.reward_weights)
        assert len(functions) == len(weights) > 0
        assert isinstance(script.vllm_engine_kwargs, dict)
        assert training.generation_batch_size % training.num_generations == 0
        # sampling from less than the whole distribution biases the importance ratios (huggingface/trl#6789)
        assert (training.top_p, training.top_k, training.min_p) in ((1.0, 0, None), (1.0, 0, 0.0))
        assert "stop" not in (training.generation_kwargs or {})
        if script.max_tokens:
            assert script.max_tokens + training.max_completion_length <= training.vllm_max_model_length
    else:
        from sgrl.training.sft import check_config

        check_config(training)
    assert model.model_name_or_path and script.dataset
    assert yaml.safe_load(path.read_text())["output_dir"] != model.model_name_or_path
    assert "accelerate launch" in path.read_text()  # how to use it stands at its top
    check_best(training)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_on_any_number_of_processes(name, tmp_path, monkeypatch):
    """TRL wants whole groups in each batch of rollouts of all processes together, and in each batch of evaluation."""
    from transformers import TrainingArguments

    from sgrl.training import adapt

    path = RECIPES / name
    settings = yaml.safe_load(path.read_text())
    for processes in (1, 2, 4, 6, 8, 16):
        monkeypatch.setattr(TrainingArguments, "world_size", processes)
        monkeypatch.setattr(adapt, "launched", lambda count=processes: count)
        script, training, _ = read(path.name[:4].strip("_."), ["--config", str(path), "--output_dir", str(tmp_path)])
        assert training.world_size == processes
        if "grpo" in path.name:
            assert training.generation_batch_size % (processes * training.num_generations) == 0
        batch = training.per_device_train_batch_size * processes * training.gradient_accumulation_steps
        exact = script.global_batch_size % (processes * settings.get("num_generations", 1)) == 0
        assert batch == script.global_batch_size if exact else batch < 2 * script.global_batch_size + 12 * processes
        assert training.per_device_train_batch_size <= settings["per_device_train_batch_size"]


@pytest.mark.parametrize("name", REAL)
def test_memory_of_a_config(name):
    """The line in the file is what tools/memory.py says of it, with room left and a cache for a batch of rollouts."""
    memory = runpy.run_path(str(ROOT / "tools/memory.py"))
    path, card = RECIPES / name, memory["CARD"]
    launcher, gpus = memory["launched"](path)
    need = memory["need"](path, launcher, gpus)
    assert f"\n# {memory['sentence'](need, gpus, card)}\n" in path.read_text()
    assert need.total < 0.85 * card  # fragmentation, the CUDA context, communication
    assert need.cache >= need.full
    assert need.training > 0 < need.activations and (need.engine > 0) == ("grpo" in name)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_that_stand_in_files(path):
    launched = commands(path, r"recipes/(?:sft|grpo)_\w+\.py")
    expected = 1 if path.parent == RECIPES or path.parent.name == "toy" else 2  # the second is LoRA
    assert len(launched) >= expected or not re.match("(sft|grpo)[_.]", path.name)
    for words in launched:
        script = next(word for word in words if re.fullmatch(r"recipes/\w+\.py", word))
        options = words[words.index(script) + 1 :]
        launcher = words[words.index("--config_file") + 1]
        assert (ROOT / script).is_file() and (ROOT / launcher).is_file(), words
        stage, data = Path(script).stem.split("_")
        config = Path(options[options.index("--config") + 1])
        options[options.index("--config") + 1] = str(ROOT / config)
        assert (ROOT / config).is_file() and config.name.startswith(stage), words
        scripted, _, _ = read(stage, options)
        if config.parent.name != "toy":
            assert config.stem == f"{stage}_{data}" or "--dataset" in options, words
            assert "_lora" in " ".join(options) or scripted.trainable != "lora", words
    for words in commands(path, CONVERT):
        to_toon.parser().parse_args([word for word in words[2:] if word != "--overwrite"])


@pytest.mark.parametrize("name", REAL)
def test_data_fits_the_model(name):
    """The data set that a YAML file names is converted above it as the model's family wants it."""
    path = RECIPES / name
    settings = yaml.safe_load(path.read_text())
    sft = path.with_name(path.name.replace("grpo", "sft"))
    first = yaml.safe_load(sft.read_text())
    if path != sft:  # after the SFT beside it, on the same data
        assert (settings["model_name_or_path"], settings["dataset"]) == (first["output_dir"], first["dataset"])
    model, dataset = first["model_name_or_path"], first["dataset"]
    converted = [to_toon.parser().parse_args(words[2:]) for words in commands(sft, CONVERT)]
    args = next(args for args in converted if args.output == dataset)
    family = next(family for family in FAMILIES.values() if family.hub and model.startswith(family.hub))
    assert args.coords == family.trained
    width, height = to_toon._size(args.resize) if args.resize else (640, 480)
    if family.token_side:  # or the model would see another image than the boxes are of
        assert width % family.token_side == height % family.token_side == 0
    assert (settings.get("min_pixels") or 0) <= width * height <= (settings.get("max_pixels") or 12_845_056)
    kind = {"ag": "action_genome"}.get(path.stem.split("_")[1], path.stem.split("_")[1])
    assert args.layout == kind
    if settings.get("context") or kind == "pvsg":
        assert args.context == "gt"
    spec = importlib.util.spec_from_file_location(path.stem, RECIPES / f"{path.stem}.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    assert recipe.DATA.name == kind
    assert recipe.DATA.takes(args.codec or {"action_genome": "toon-pairs"}.get(kind, "toon"))


def test_every_recipe_and_every_model_has_its_files():
    recipes = {path.stem for path in RECIPES.glob("*.py") if re.match("sft_|grpo_", path.name)}
    assert recipes == {f"{stage}_{data}" for stage in ("sft", "grpo") for data in ("psg", "pvsg", "ag", "vg150")}
    assert {Path(name).stem for name in REAL} == recipes
    models = {yaml.safe_load((RECIPES / name).read_text())["model_name_or_path"] for name in REAL}
    assert {name for name in models if not name.startswith("runs/")} == {
        "Qwen/Qwen3.5-0.8B",
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "Qwen/Qwen3-VL-2B-Instruct",
        "OpenGVLab/InternVL3_5-1B-HF",
        "HuggingFaceTB/SmolVLM-500M-Instruct",
    }
    for name in REAL:
        assert "--trainable lora" in (RECIPES / name).read_text(), name


def test_rewards_of_a_file(tmp_path):
    """As the docstring of recipes/grpo_psg.py writes them."""
    config = tmp_path / "run.yaml"
    lines = ["reward: [format, relation_recall, relation_f1]", "reward_weights: [0.5, 3.0, 2]", "dataset: data"]
    assert all(line in (RECIPES / "grpo_psg.py").read_text() for line in (lines[0], "reward_weights: [0.5, 3.0, 2"))
    config.write_text("\n".join([*lines, f"output_dir: {tmp_path}"]))
    script, training, _ = read("grpo", ["--config", str(config)])
    functions, weights = rewards_named(script.reward, script.similarity, training.reward_weights)
    assert [function.__name__ for function in functions] == ["format", "relation_recall", "relation_f1"]
    assert weights == [0.5, 3.0, 2.0]
    script, training, _ = read("grpo", ["--config", str(config), "--reward_weights", "1", "1", "1"])
    assert rewards_named(script.reward, None, training.reward_weights)[1] == [1.0, 1.0, 1.0]


SCENEGRAPHVLM_SFT = {"learning_rate": 1e-5, "num_train_epochs": 5, "warmup_steps": 0.05, "max_tokens": 8192}
SCENEGRAPHVLM_GRPO = {
    "num_generations": 12,
    "per_device_train_batch_size": 24,
    "steps_per_generation": 2,  # 48 answers
    "max_completion_length": 1024,
    "temperature": 0.9,
    "learning_rate": 6e-7,
    "beta": 0.04,
    "epsilon": 0.2,
    "epsilon_high": 0.28,
    "scale_rewards": "none",
    "max_grad_norm": 1.0,
    "eval_steps": 100,
    "save_steps": 100,  # published: 1000, which loses the best of 100, 200, ...
    "reward": "full",
    "trainable": "decoder",
}
PUBLISHED = {  # SceneGraphVLM's run_{psg,pvsg,ag}_grpo_qwen3_5.sh
    "psg": {"max_tokens": 3072, "vllm_max_model_length": 4144, "vllm_gpu_memory_utilization": 0.2},
    "pvsg": {"max_tokens": 2048, "vllm_max_model_length": 4096, "vllm_gpu_memory_utilization": 0.2},
    "ag": {
        "steps_per_generation": 1,
        "max_tokens": 6144,
        "vllm_max_model_length": 7296,
        "vllm_gpu_memory_utilization": 0.3,
    },
}


@pytest.mark.parametrize("data", PUBLISHED)
def test_published_settings_of_scenegraphvlm(data):
    """Those that the paper and its scripts give."""
    settings = yaml.safe_load((RECIPES / f"configs/qwen3_5_0_8b/grpo_{data}.yaml").read_text())
    published = SCENEGRAPHVLM_GRPO | PUBLISHED[data]
    assert {name: settings[name] for name in published} == published
    settings = yaml.safe_load((RECIPES / f"configs/qwen3_5_0_8b/sft_{data}.yaml").read_text())
    assert {name: settings[name] for name in SCENEGRAPHVLM_SFT} == SCENEGRAPHVLM_SFT
    assert settings["thinking"] is False and settings["trainable"] == "decoder"
    assert settings["global_batch_size"] == 32


@pytest.mark.parametrize("model", ["qwen2_5_vl_3b", "qwen2_5_vl_7b"])
def test_published_settings_of_r1_sgg(model):
    settings = yaml.safe_load((RECIPES / f"configs/{model}/sft_vg150.yaml").read_text())
    published = {"learning_rate": 1e-5, "num_train_epochs": 3, "warmup_steps": 0.05, "max_grad_norm": 0.3, "seed": 42}
    assert {name: settings[name] for name in published} == published
    assert settings["global_batch_size"] == 128
    settings = yaml.safe_load((RECIPES / f"configs/{model}/grpo_vg150.yaml").read_text())
    published = {"learning_rate": 6e-7, "num_train_epochs": 1, "num_generations": 8, "temperature": 1.0, "beta": 0.0}
    published |= {"max_completion_length": 1024, "max_tokens": 2048, "vllm_max_model_length": 4096, "trainable": "all"}
    published |= {"max_pixels": 512 * 28 * 28, "save_steps": 100, "seed": 42, "scale_rewards": "group"}
    assert {name: settings[name] for name in published} == published
    assert settings["global_batch_size"] == 32 * settings["num_generations"]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(RECIPES / "accelerate" / name))
    assert config.num_processes >= 1
    raw = yaml.safe_load((RECIPES / "accelerate" / name).read_text())
    assert str(config.distributed_type).endswith(raw["distributed_type"])
