"""What `doctor` says of a machine: packages, devices, what is accelerated and what is not, disk, and how much fits."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sgrl import precision
from sgrl.errors import SgrlError
from sgrl.extras import install
from sgrl.memory import GIB, LENGTH, SHAPES, activations, engine, fitting, memory_of_machine, shape_of, training

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CORE = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
"""Without these nothing trains; of all others the version is compared where they are installed."""

USUAL = "Qwen3.5-0.8B"
"""The model that memory is reckoned for where none is given."""

PREDICTED = 2048
"""Tokens of prompt and answer when a model is asked."""


@dataclass(frozen=True)
class Finding:
    """One line of the report. level: "ok", "warn" (it may work) or "fail" (it will not). advice: what to do."""

    level: str
    what: str
    advice: str = ""


def check_packages(load: Callable[[str], object] = importlib.import_module) -> Iterator[Finding]:
    """Whether what trains is there and loads: it may be installed and not load, where versions do not fit.

    load: what imports a module by name.
    """
    lacking = []
    for name in CORE:
        try:
            load(name)
        except Exception as error:  # a broken installation fails in many ways
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                lacking.append(name)
            else:
                what = f"{name} is installed and does not load ({type(error).__name__}: {str(error)[:200]})"
                yield Finding("fail", what, "install the versions of constraints.txt")
    if lacking:
        what = f"not installed: {', '.join(lacking)}; nothing trains or predicts, while rewards and `sgrl score` work"
        yield Finding("fail", what, install("train"))


def check_versions(constraints: str | Path, installed=importlib.metadata.version) -> Iterator[Finding]:
    """Installed packages against a constraints file; `installed` gives a version by name, as importlib.metadata."""
    path = Path(constraints)
    if not path.is_file():
        yield Finding("warn", f"no {path}: versions are not compared", "give --constraints, or run this in a checkout")
        return
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;#]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    right = 0
    for name, wanted in pins:
        try:
            found = installed(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # check_packages says so where it matters
        if found.split("+")[0] == wanted.split("+")[0]:
            right += 1
        else:
            level = "fail" if name in CORE or name.startswith("vllm") else "warn"
            yield Finding(level, f"{name} {found}, tested with {wanted}", f"pip install {name}=={wanted}")
    yield Finding("ok", f"{right} packages as in {path.name}")


def check_devices() -> Iterator[Finding]:
    """GPUs, their memory and whether they compute, or CPU cores."""
    try:
        import torch
    except Exception:  # check_packages says so
        return
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(i)
            name = f"GPU {i}: {found.name}, {found.total_memory / GIB:.0f} GiB"
            try:
                torch.ones(2, device=f"cuda:{i}").sum().item()
            except RuntimeError as error:  # a build without code for it, or a card that has fallen off the bus
                what = f"{name}, on which this PyTorch cannot compute ({str(error).splitlines()[0][:200]})"
                yield Finding("fail", what, "install a PyTorch build for it, or hide it with CUDA_VISIBLE_DEVICES")
            else:
                yield Finding("ok", name)
        return
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", f"no GPU, {threads} CPU cores: enough for the toy world (recipes/accelerate/cpu.yaml)")
    yield Finding("ok", precision.describe_cpu())
    if shutil.which("nvidia-smi"):
        advice = "install PyTorch's CUDA build: make env ACCELERATOR=gpu"
        yield Finding("fail", "a GPU driver is here, but this PyTorch does not see it", advice)


def check_acceleration(config: PretrainedConfig | None = None) -> Iterator[Finding]:
    """The engine that rolls out and predicts, the attention, and the kernels of linear attention: each accelerated or
    not.

    config: of the model, which says whether it has linear attention; None: not known.
    """
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        return
    yield check_engine()
    yield check_attention()
    yield from check_kernels(config)


def check_engine() -> Finding:
    """Whether vLLM is there and works: it is imported, as it will be."""
    from sgrl.inference.vllm_engine import obstacle

    there = importlib.util.find_spec("vllm") is not None
    found = obstacle() if there else "vLLM is not installed"
    if found is None:
        return Finding("ok", "engine: vLLM, accelerated")
    what = f"engine: transformers, not accelerated: {found}; rollouts and predictions take several times as long"
    return Finding("warn", what, install("vllm"))


def check_attention() -> Finding:
    """Which attention there is besides PyTorch's."""
    import torch

    if not torch.cuda.is_available():
        return Finding("ok", "attention: sdpa of PyTorch; FlashAttention is for GPUs")
    for package in ("flash_attn", "kernels"):
        if importlib.util.find_spec(package) is not None:
            return Finding("ok", f"attention: sdpa of PyTorch, and flash_attention_2 through {package}")
    what = "attention: sdpa of PyTorch; attn_implementation: flash_attention_2 would fail, its kernels are missing"
    return Finding("ok", what, install("flash-attn"))


def check_kernels(config: PretrainedConfig | None) -> Iterator[Finding]:
    """Whether linear attention has its kernels, which are for GPUs; nothing for a model without any."""
    import torch

    from sgrl.models.vlm.parts import LINEAR_ATTENTION_KERNELS, missing_kernels, uses_linear_attention

    if not torch.cuda.is_available():
        if config is None or uses_linear_attention(config):
            yield Finding("ok", "linear attention (Qwen3.5): not accelerated; its kernels are for GPUs")
        return
    if config is None:
        lacking = [name for module, name in LINEAR_ATTENTION_KERNELS.items() if not importlib.util.find_spec(module)]
        if lacking:
            what = f"linear attention (Qwen3.5): not accelerated, without {' and '.join(lacking)}"
            yield Finding("warn", what, install("linear-attention"))
        else:
            yield Finding("ok", "linear attention (Qwen3.5): accelerated")
    elif slow := missing_kernels(config):
        what, _, advice = slow.partition("; ")
        yield Finding("warn", what, advice)


def check_memory(model: str | None = None, memory: int | None = None) -> Finding:
    """The batch sizes that fit into the memory that is there, for a model folder or the usual model.

    memory: bytes; None: of the smallest GPU, or of this machine.
    """
    where = "here"
    if memory is None:
        memory, where = _memory()
    name, shape = USUAL, SHAPES[USUAL]
    if model is not None:
        try:
            name, shape = model, shape_of(model)
        except SgrlError as error:
            return Finding("warn", f"no batch size: {error}")
    each = activations(shape, 1, LENGTH)
    full, lora = (fitting(memory, training(shape, "DDP", kind, 1, False), each) for kind in (False, True))
    asked = fitting(memory, engine(shape, 0, PREDICTED), engine(shape, 1, PREDICTED) - engine(shape, 0, PREDICTED))
    sizes = [f"full fine-tuning {full or 'does not fit'}", f"LoRA {lora or 'does not fit'}"]
    sizes.append(f"predicting {asked or 'does not fit'}")
    text = f"{memory / GIB:.0f} GiB {where}; sequences at a time that fit, roughly, for {name}: {', '.join(sizes)}"
    if full:
        return Finding("ok", text)
    advice = "trainable: lora, with dtype: bfloat16" if lora else "a smaller model, a shorter max_tokens, or more GPUs"
    return Finding("warn", text, advice)


def _memory() -> tuple[int, str]:
    """Bytes, and whose."""
    try:
        import torch

        if torch.cuda.is_available():
            cards = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
            return min(cards), "on each GPU" if len(cards) > 1 else "on the GPU"
    except Exception:  # check_packages says so
        pass
    return memory_of_machine(), "of main memory"


def check_disk(folder: str | Path, model_bytes: int = 0) -> Finding:
    """Room for three checkpoints with optimizer states (12 bytes a parameter in bfloat16 training), at least 5 GB."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Finding("fail", f"nothing can be written to {folder}", "choose another --output, or change its rights")
    free, needed = shutil.disk_usage(folder).free, max(5e9, 3 * 6 * model_bytes)
    text = f"{free / 1e9:.0f} GB free at {folder}"
    if free >= needed:
        return Finding("ok", text)
    return Finding("warn", f"{text}, a run may write {needed / 1e9:.0f} GB", "free some, or lower save_total_limit")
