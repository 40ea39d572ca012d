"""The commands of docs/training.md run, in their order."""

import re
import shlex

import pytest

from tests.preloaded import run

SMALLER = {
    "data_prep/toyworld.py": {"--train": "32", "--test": "4"},
    "recipes/sft_psg.py": "--max_steps 2 --global_batch_size 8 --warmup_steps 0",
    "recipes/grpo_psg.py": "--max_steps 1 --per_device_train_batch_size 8 --gradient_accumulation_steps 1 "
    "--warmup_steps 0 --max_completion_length 16 --use_vllm false",
    "recipes/evaluate.py": "--engine transformers --limit 2",
}


@pytest.mark.slow
def test_the_tour(root, tmp_path, cpu_environment):
    text = (root / "docs/training.md").read_text()
    commands = "".join(re.findall(r"^```bash\n(.*?)^```$", text, flags=re.M | re.S)).strip().splitlines()
    assert len(commands) == 10
    printed = ""
    for command in commands:
        words = shlex.split(command.replace("build/tour", str(tmp_path)))
        more = next((options for script, options in SMALLER.items() if script in words), "")
        if isinstance(more, dict):
            words = [more.get(previous, word) for previous, word in zip(["", *words], words, strict=False)]
        else:
            words += more.split()
        done = run(words, root, cpu_environment)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        printed += done.stdout
    assert "ready" in printed and "-- gold scores 9.50" in printed
    assert (tmp_path / "rows/train-1.png").is_file() and (tmp_path / "report/index.html").is_file()
    assert "`balanced`" in (tmp_path / "grpo/README.md").read_text()


def test_the_tour_names_every_preset_and_kind_of_noise(root):
    from rewards.presets import PRESETS
    from sgrl.context import Noise

    text = (root / "docs/training.md").read_text()
    for name in ({*PRESETS} - {"recall-only", "r1-sgg"}) | {*Noise.__dataclass_fields__}:
        assert name in text, name
