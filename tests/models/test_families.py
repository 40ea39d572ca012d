"""Every architecture family that the recipes name, built tiny: what trains, what its processor does, a whole run."""

import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForImageTextToText

from sgrl.command import ENVIRONMENT
from sgrl.data import load
from sgrl.errors import SgrlError
from sgrl.inference import load_engine
from sgrl.models.vlm.chat import ChatRenderer
from sgrl.models.vlm.families import FAMILIES as TABLE
from sgrl.models.vlm.families import PLACEHOLDERS, family_of
from sgrl.models.vlm.parts import placeholder_ids
from sgrl.models.vlm.processor import load_processor, pixel_budget, set_pixel_budget, visual_tokens
from sgrl.models.vlm.template import template_arguments
from sgrl.text.answer import strict
from sgrl.tiny import Tiny, build_tiny_vlm
from sgrl.tiny.families import FAMILIES
from sgrl.training import model as m
from sgrl.training.dataset import drop_long_rows
from sgrl.training.sft import COLUMNS, SceneGraphCollator

# The modules of the vision tower, of the aligner and of the language model.
PARTS = {
    model_type: (f"{row.vision}.", f"{row.aligner[0]}.", f"{row.decoder}.")
    for row in TABLE.values()
    for model_type in row.model_types
}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request) -> str:
    if request.param == "smolvlm":
        pytest.importorskip("num2words", reason="transformers' processor of SmolVLM needs num2words")
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory) -> str:
    """A model folder of the family, with random weights."""
    path = tmp_path_factory.mktemp(family) / "model"
    build_tiny_vlm(path, seed=3, tiny=Tiny(family=family))
    return str(path)


@pytest.fixture(scope="module")
def processor(folder):
    return load_processor(folder)


def scene(seed: int = 0, width: int = 96, height: int = 96) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_published_names():
    """The names are those of the architectures; a typing error is told the right one."""
    assert set(PARTS) == set(FAMILIES)
    with pytest.raises(SgrlError, match="unknown family 'qwen3_6'; did you mean 'qwen3_5'"):
        build_tiny_vlm("unused", tiny=Tiny(family="qwen3_6"))


def test_the_table_knows_each_family_by_all_its_names(family, processor):
    name = family_of([family])
    row = TABLE[name]
    assert family in row.model_types and family_of([row.hub.rpartition("/")[2]]) == name
    tokens = {getattr(processor, attribute, None) for attribute in ("image_token", "video_token")} - {None}
    assert processor.image_token in row.placeholders and tokens <= set(PLACEHOLDERS)


def test_model_sees_the_image(family, folder, processor):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.config.model_type == family
    assert sum(parameter.numel() for parameter in model.parameters()) < 1.1e6
    content = [{"type": "image"}, {"type": "text", "text": "Write the scene graph."}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=[text] * 2, images=[[scene(0)], [scene(1)]], add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        first, second = model(**inputs).logits[:, -1].log_softmax(-1)
    assert (first - second).abs().mean() > 0.02


@pytest.mark.parametrize("trainable", ["decoder", "decoder+aligner", "all"])
def test_what_trains(family, folder, trainable):
    model = m.load_model(folder, trainable)
    vision, aligner, decoder = PARTS[family]
    frozen = {
        "decoder": lambda name: name.startswith((vision, aligner)),
        "decoder+aligner": lambda name: name.startswith(vision) and not name.startswith(aligner),
        "all": lambda name: False,
    }[trainable]
    names = [name for name, _ in model.named_parameters()]
    for prefix in (vision, aligner, decoder):
        assert any(name.startswith(prefix) for name in names)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        name for name in names if not frozen(name)
    }
    assert set(names) == {name for name in names if name.startswith((vision, aligner, decoder, "lm_head."))}


def test_what_lora_trains(family, folder):
    from peft import get_peft_model
    from trl import ModelConfig

    model = m.load_model(folder, "lora")
    linear = {
        f"base_model.model.{name}"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(PARTS[family][2])
    }
    wrapped = get_peft_model(model, m.lora_config(model, "lora", ModelConfig(lora_r=2)))
    adapted = {name.split(".lora_")[0] for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    assert adapted == linear and len(linear) >= 3 * 7


def test_pixel_budget(family, folder):
    """Qwen's processors have one; the others cut tiles, and say so."""
    processor = load_processor(folder)
    if family.startswith("qwen"):
        assert set_pixel_budget(processor, 2304, 4096)
        inputs = processor.image_processor(images=[scene(width=640, height=480)], return_tensors="pt")
        assert 2304 <= inputs["image_grid_thw"].prod() * 8 * 8 <= 4096
    else:
        with pytest.raises(SgrlError, match="has no pixel budget; remove min_pixels and max_pixels and resize"):
            set_pixel_budget(processor, None, 4096)


def test_smolvlm_sees_an_image_of_psg_in_13_parts():
    """What the comments of recipes/configs/smolvlm_500m say, with the sizes that its model card gives."""
    from transformers import Idefics3ImageProcessor

    processor = Idefics3ImageProcessor(size={"longest_edge": 4 * 512}, max_image_size={"longest_edge": 512})
    assert processor.get_number_of_image_patches(480, 640) == (13, 3, 4)
    assert pixel_budget(SimpleNamespace(image_processor=processor)) is None


def test_rows_are_as_long_as_counted(family, folder, processor, toy):
    """`max_tokens` knows how many tokens the family makes of an image."""
    rows = load(toy / "data", "train").take(3)
    template = template_arguments(processor)
    length = prompt_ids(processor, rows[0], template).shape[1]
    assert len(drop_long_rows(rows, processor, length, template, answers=False)) == 3
    with pytest.raises(SgrlError, match=f"all 3 rows have more than {length - 1} tokens"):
        drop_long_rows(rows, processor, length - 1, template, answers=False)


@pytest.mark.parametrize("size", [(96, 96), (48, 96), (90, 60), (200, 120), (40, 300)], ids=str)
def test_images_of_every_shape_are_counted(processor, size):
    """As many visual tokens, tiles and their marks included, as the processor makes."""
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}]}], add_generation_prompt=True, tokenize=False
    )
    made = processor(text=[text], images=[[scene(0, *size)]], add_special_tokens=False, return_tensors="pt")
    alone = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert made["input_ids"].shape[1] == len(alone) - 1 + visual_tokens(processor, [size[::-1]])[0]


def test_sft_trains_on_the_prompt_of_inference(family, folder, processor, toy):
    """The same prompt, thinking and all; the answer behind it, to its end."""
    row = load(toy / "data", "train")[0]
    template = template_arguments(processor)
    collator = SceneGraphCollator(processor, completion_only_loss=True, template_kwargs=template)
    batch = collator([{name: row[name] for name in COLUMNS}])
    ids, learnt = batch["input_ids"][0], batch["labels"][0] != -100
    prompt = prompt_ids(processor, row, template)[0]
    assert ids[~learnt].tolist() == prompt.tolist() == ids[: len(prompt)].tolist()
    assert strict(processor.tokenizer.decode(ids[learnt], skip_special_tokens=True)) == row["solution"]
    assert processor.tokenizer.eos_token_id in ids[learnt]

    text = ChatRenderer(folder, thinking=None).text(row["prompt"])
    inputs = processor(text=[text], images=[[row["image"]]], add_special_tokens=False, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == prompt.tolist()


def prompt_ids(processor, row, template) -> torch.Tensor:
    """The prompt of a row as transformers alone would make it."""
    content = [{"type": "image", "image": row["image"]}, {"type": "text", "text": row["prompt"][0]["content"]}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **template,
    )["input_ids"]


################
# A whole run: SFT, GRPO with vLLM, evaluation
################

STEPS = 4
DIFFERENCE = "sampling/sampling_logp_difference/mean"


@pytest.fixture(scope="module")
def environment():
    """The settings of the machine that the recipes make, and nothing left of them afterwards."""
    # its own patch: pytest's would leave the configuration without the setting
    with pytest.MonkeyPatch.context() as patch, torch._dynamo.config.patch(disable=False):
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            patch.setenv(name, "")
            del os.environ[name]  # TRL sets it
        yield


@pytest.fixture(scope="module")
def sft(family, folder, toy, root, environment) -> str:
    """A few steps of recipes/sft_psg.py, with the vision tower frozen."""
    if family == "smolvlm":
        pytest.skip("idefics3 runs, whose modules and tiles are the same")
    output = folder.removesuffix("model") + "sft"
    settings = {
        "model_name_or_path": folder,
        "dataset": toy / "data",
        "output_dir": output,
        "trainable": "decoder+aligner",
        "max_steps": STEPS,
        "logging_steps": 1,
        "warmup_steps": 0,
        "global_batch_size": 8,
        "max_tokens": 200,
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    run_recipe(root, "sft_psg", ["--config", "recipes/configs/toy/sft.yaml", *options])
    return output


def run_recipe(root: Path, name: str, options: list) -> None:
    """A recipe's `main` in this process, which has imported everything already."""
    spec = importlib.util.spec_from_file_location(name, root / "recipes" / f"{name}.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, options)])
        recipe.main()


@pytest.mark.slow
def test_sft(family, folder, sft):
    log = json.loads((open(f"{sft}/trainer_state.json")).read())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == STEPS and losses[-1] < losses[0]
    before, after = (AutoModelForImageTextToText.from_pretrained(path).state_dict() for path in (folder, sft))
    vision, aligner, _ = PARTS[family]
    for name, weight in before.items():
        frozen = name.startswith(vision) and not name.startswith(aligner)
        assert torch.equal(weight, after[name]) == frozen, name


@dataclass
class Grpo:
    """What was seen while GRPO ran in one engine.

    Attributes:
        folder: the model it left.
        logged: the difference between vLLM and the trainer at each step.
        changed: part of the model -> the difference after noise on its weights, before and after a weight sync.
        expanded, trained_on: the prompts of vLLM and of the training step, in tokens.
        banned, sampled: the tokens that may not be sampled, and those that were at temperature 2.
    """

    folder: str
    logged: list[float]
    changed: dict[str, tuple[float, float]]
    expanded: list[list[int]]
    trained_on: list[list[int]]
    banned: set[int]
    sampled: list[int]


@pytest.fixture(scope="module")
def grpo(family, sft, toy, environment) -> Grpo:
    """GRPO of that model with rollouts from vLLM in this process.

    3 steps of 4 graphs, of at most 24 tokens, for each of 4 images, which have several sizes and numbers of tiles.
    """
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    from sgrl.training.grpo import GRPOConfig, SceneGraphGRPOTrainer

    processor = load_processor(sft)
    args = GRPOConfig(
        output_dir=sft.removesuffix("sft") + "grpo",
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,  # rollouts are taken apart into two batches
        num_generations=4,
        max_completion_length=24,
        max_steps=3,
        logging_steps=1,
        learning_rate=1e-3,  # far, so that weights that do not arrive in vLLM show
        chat_template_kwargs=template_arguments(processor),
        vllm_importance_sampling_mode="token_truncate",
        use_vllm=True,
        vllm_max_model_length=256,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        log_multimodal=False,
        save_strategy="no",
        report_to="none",
    )
    rows = load(toy / "data", "train").select_columns(["image", "prompt", "solution"]).take(16)
    sizes = [(96, 96), (96, 48), (60, 90), (200, 120)]
    rows = Dataset.from_list(
        [row | {"image": row["image"].resize(size)} for row, size in zip(rows, sizes * 4, strict=True)]
    )
    trainer = SceneGraphGRPOTrainer(m.load_model(sft, "all"), [longer_is_better], args, processor, train_dataset=rows)
    try:
        trainer.train()
        m.save_model(trainer, processor)
        yield look(trainer, family)
    finally:
        del trainer.vllm_generation.llm
        cleanup_dist_env_and_memory()


def longer_is_better(completions, **columns):
    return [float(len(completion[0]["content"])) for completion in completions]


def look(trainer, family: str) -> Grpo:
    """Measure what `Grpo` holds."""
    vision, aligner, decoder = PARTS[family]
    prompts: list[list[int]] = []
    generate = trainer.vllm_generation.generate

    def spy(prompts_given, **kwargs):
        result = generate(prompts=prompts_given, **kwargs)
        prompts.extend(list(ids) for ids in result[0])
        return result

    def rollouts() -> dict:
        rows = [dict(trainer.train_dataset[i]) for i in range(4)]
        return trainer._generate_and_score_completions([row for row in rows for _ in range(4)])

    def difference() -> float:
        with torch.no_grad():
            trainer._compute_loss(trainer.model, rollouts())
        return trainer._metrics["train"][DIFFERENCE][-1]

    def changed(part: str) -> tuple[float, float]:
        with torch.no_grad():
            for name, parameter in trainer.model.named_parameters():
                if name.startswith(part):
                    parameter.add_(parameter.std() * torch.randn_like(parameter))
        before = difference()
        trainer.state.global_step += 1  # as an optimizer step does
        return before, difference()

    torch.manual_seed(0)
    rollouts()  # vLLM gets the weights of the last step
    differences = {part: changed(part) for part in (vision, aligner, decoder)}
    trainer.vllm_generation.generate = lambda prompts, **kwargs: spy(prompts, **kwargs)
    inputs = rollouts()
    trainer.vllm_generation.temperature = 2.0  # every token has its chance
    sampled = [token for _ in range(4) for ids in rollouts()["completion_ids"].tolist() for token in ids]
    return Grpo(
        folder=trainer.args.output_dir,
        logged=[entry[DIFFERENCE] for entry in trainer.state.log_history if DIFFERENCE in entry],
        changed=differences,
        expanded=[prompt for prompt in prompts[:4] for _ in range(4)],  # vLLM gets a prompt once for its answers
        trained_on=[
            ids[mask.bool()].tolist() for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)
        ],
        banned=set(placeholder_ids(trainer.model.config, trainer.processing_class)),
        sampled=sampled,
    )


@pytest.mark.slow
def test_vllm_and_the_trainer_agree(family, grpo):
    """At each step of the run, and after every part of the model has changed by much.

    In float32 the difference is what the ban of placeholders takes away: one or two of some 400 tokens.
    """
    limit = 0.03 if family == "qwen3_5" else 0.015  # vLLM's linear attention runs in bfloat16 on a CPU
    assert len(grpo.logged) == 3 and max(grpo.logged) < limit
    for part, (before, after) in grpo.changed.items():
        assert after < limit < 0.04 < before, part


@pytest.mark.slow
def test_images_are_expanded_once(family, grpo, processor, toy):
    """vLLM, the training step and the processor make the same tokens of a prompt."""
    assert grpo.expanded == grpo.trained_on
    row = load(toy / "data", "train")[0]
    assert prompt_ids(processor, row, template_arguments(processor))[0].tolist() == grpo.trained_on[0]
    assert len({len(ids) for ids in grpo.trained_on}) > 1


@pytest.mark.slow
def test_placeholders_are_never_sampled(family, grpo, processor):
    tokens = {"qwen": ("<|image_pad|>", "<|video_pad|>"), "inte": ("<IMG_CONTEXT>",), "idef": ("<image>",)}[family[:4]]
    assert grpo.banned == set(processor.tokenizer.convert_tokens_to_ids(list(tokens)))
    assert len(grpo.sampled) > 1000 and not grpo.banned & set(grpo.sampled)


@pytest.mark.slow
def test_evaluation(family, grpo, toy, root, environment):
    """recipes/evaluate.py with vLLM; transformers' own `generate` sees the same prompts and writes the same graphs."""
    output = Path(grpo.folder).parent / "evaluation"
    options = ["--engine", "vllm", "--limit", "8", "--max-new-tokens", "24", "--max-model-length", "512"]
    run_recipe(root, "evaluate", ["--model", grpo.folder, "--dataset", toy / "data", "--output", output, *options])
    assert (output / "metrics.json").exists()
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]

    engine = load_engine("transformers", grpo.folder, max_new_tokens=24)
    rows = load(toy / "data", "test").take(8)
    found = engine.generate(rows["image"], rows["prompt"])
    assert [line["prompt_tokens"] for line in lines] == [generation.prompt_tokens for generation in found]
    assert lines[0]["prompt_tokens"] == len(grpo.trained_on[0])
    assert all(line["prediction"].startswith(right.pieces[0]) for line, right in zip(lines, found, strict=True))
    if family != "qwen3_5":  # rounded to bfloat16, vLLM now and then prefers another of two tokens
        assert [line["prediction"] for line in lines] == [generation.text for generation in found]
