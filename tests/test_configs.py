"""Every YAML file of the recipes is read by its recipe's own arguments, and every accelerate file by accelerate."""

from pathlib import Path

import pytest
import yaml

from rewards.trl import rewards_named
from sgrl.training.launch import GRPOArguments, SFTArguments, parse

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
CONFIGS = sorted(path.relative_to(RECIPES).as_posix() for path in (RECIPES / "configs").rglob("*.yaml"))
LAUNCHERS = sorted(path.name for path in (RECIPES / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("name", CONFIGS)
def test_config(name, tmp_path):
    from trl import GRPOConfig, ModelConfig, SFTConfig

    path = RECIPES / name
    # A GPU's settings have to be taken as they are here too.
    options = ["--config", str(path), "--output_dir", str(tmp_path), "--use_cpu", "true"]
    if "grpo" in path.name:
        script, training, model = parse((GRPOArguments, GRPOConfig, ModelConfig), options)
        functions, weights = rewards_named(script.reward)
        assert len(functions) == len(weights) > 0
        assert isinstance(script.vllm_engine_kwargs, dict)
        assert training.generation_batch_size % training.num_generations == 0
        # sampling from less than the whole distribution biases the importance ratios (huggingface/trl#6789)
        assert (training.top_p, training.top_k, training.min_p) in ((1.0, 0, None), (1.0, 0, 0.0))
        assert "stop" not in (training.generation_kwargs or {})
    else:
        from sgrl.training.sft import check_config

        script, training, model = parse((SFTArguments, SFTConfig, ModelConfig), options)
        check_config(training)
    assert model.model_name_or_path and script.dataset
    assert yaml.safe_load(path.read_text())["output_dir"] != model.model_name_or_path
    assert "accelerate launch" in path.read_text()  # how to use it stands at its top
    if training.load_best_model_at_end:
        assert training.save_steps % training.eval_steps == 0


def test_published_settings_of_scenegraphvlm():
    """Those that the paper and its scripts give for PSG."""
    settings = yaml.safe_load((RECIPES / "configs/qwen3_5_0_8b/grpo_psg.yaml").read_text())
    published = {
        "num_generations": 12,
        "per_device_train_batch_size": 24,
        "generation_batch_size": 48,
        "max_completion_length": 1024,
        "max_tokens": 3072,
        "vllm_max_model_length": 4144,
        "temperature": 0.9,
        "learning_rate": 6e-7,
        "beta": 0.04,
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "scale_rewards": "none",
        "max_grad_norm": 1.0,
        "eval_steps": 100,
        "reward": "full",
        "trainable": "decoder",
    }
    assert {name: settings[name] for name in published} == published
    settings = yaml.safe_load((RECIPES / "configs/qwen3_5_0_8b/sft_psg.yaml").read_text())
    launcher = yaml.safe_load((RECIPES / "accelerate/zero2.yaml").read_text())
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    assert batch * launcher["num_processes"] == 32
    assert (settings["learning_rate"], settings["num_train_epochs"], settings["warmup_steps"]) == (1e-5, 5, 0.05)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(RECIPES / "accelerate" / name))
    assert config.num_processes >= 1
    raw = yaml.safe_load((RECIPES / "accelerate" / name).read_text())
    assert str(config.distributed_type).endswith(raw["distributed_type"])
