"""A configuration meets a machine: float32 on CPUs, and the same global batch on any number of processes."""

import itertools
import os
from dataclasses import dataclass

import pytest

from sgrl import precision
from sgrl.errors import SgrlError
from sgrl.training.adapt import split_batch
from sgrl.training.launch import SceneGraphArguments, parse


@dataclass
class Trainer:
    """Stands for TRL's configs, which take seconds to import."""

    use_cpu: bool = False
    bf16: bool | None = None
    fp16: bool = False
    dtype: str | None = "float32"
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1


@pytest.fixture
def read(tmp_path, monkeypatch, caplog):
    """`read(yaml, *options, device=, processes=)`: the arguments, and what was logged."""
    caplog.set_level("INFO")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # as accelerate's files for GPUs set it

    def read(text: str, *options: str, device: str = "cpu", processes: int = 1):
        caplog.clear()
        monkeypatch.setattr(precision, "device", lambda use_cpu=False: "cpu" if use_cpu else device)
        monkeypatch.setattr(precision, "has_units", lambda dtype: dtype == "float32")
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        config = tmp_path / "run.yaml"
        config.write_text(f"dataset: d\n{text}\n")
        script, trainer = parse((SceneGraphArguments, Trainer), ["--config", str(config), *options])
        assert script.dataset == "d"
        return trainer, caplog.text

    return read


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("bf16: true", []),
        ("", []),  # TRL's default is bfloat16
        ("fp16: true", []),
        ("bf16: true\ndtype: bfloat16", []),
        ("bf16: true\ndtype: auto", ["--per_device_train_batch_size", "2"]),
    ],
)
def test_a_file_computes_in_float32_on_a_cpu(read, text, options):
    trainer, log = read(text, *options)
    assert (trainer.bf16, trainer.fp16, trainer.dtype) == (False, False, "float32")
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "no"
    assert "slow" not in log and ("float32 on this CPU; " in log) == bool(text)


def test_processes_on_a_cpu_train_together(read, monkeypatch):
    """accelerate joins them, over gloo, where the trainer says that it uses the CPU alone."""
    assert read("", processes=2)[0].use_cpu is True
    assert read("", processes=2, device="cuda")[0].use_cpu is False
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")  # it joins them itself
    assert read("", processes=2)[0].use_cpu is False


def test_an_option_is_done_and_warned_of(read):
    trainer, log = read("bf16: false", "--bf16", "true")
    assert trainer.bf16 is True and trainer.use_cpu is True and trainer.dtype == "float32"
    assert "bfloat16 is slow on this CPU" in log
    trainer, log = read("", "--dtype", "bfloat16")
    assert trainer.dtype == "bfloat16" and trainer.bf16 is False and "bfloat16 is slow" in log
    assert "slow" not in read("", "--bf16", "false", "--dtype", "float32")[1]


def test_a_gpu_gets_what_the_file_says(read):
    trainer, log = read("bf16: true\ndtype: bfloat16", device="cuda")
    assert (trainer.bf16, trainer.dtype) == (True, "bfloat16") and "CPU" not in log
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert read("", device="cuda")[0].bf16 is None  # TRL's own default
    assert read("bf16: true\nuse_cpu: true", device="cuda")[0].bf16 is False
    assert read("bf16: true", "--use_cpu", "true", device="cuda")[0].bf16 is False


@pytest.mark.parametrize(
    ("processes", "rows", "accumulated"), [(1, 4, 8), (2, 4, 4), (4, 4, 2), (8, 4, 1), (16, 2, 1), (32, 1, 1)]
)
def test_the_global_batch_is_kept(read, processes, rows, accumulated):
    text = "global_batch_size: 32\nper_device_train_batch_size: 4"
    trainer, log = read(text, processes=processes)
    assert (trainer.per_device_train_batch_size, trainer.gradient_accumulation_steps) == (rows, accumulated)
    assert "a step takes 32 rows: " in log and "means" not in log


def test_what_cannot_be_kept_is_said(read):
    trainer, log = read("global_batch_size: 32\nper_device_train_batch_size: 4", processes=6)
    assert (trainer.per_device_train_batch_size, trainer.gradient_accumulation_steps) == (3, 2)
    assert "a step takes 36 rows: 3 at a time on 6 processes, accumulated 2 times; the configuration means 32" in log
    # an option is the user's word
    trainer, log = read("global_batch_size: 32", "--gradient_accumulation_steps", "2")
    assert trainer.gradient_accumulation_steps == 2
    assert "a step takes 16 rows: 8 at a time on 1 process, accumulated 2 times; the configuration means 32" in log
    trainer, log = read("global_batch_size: 32", "--per_device_train_batch_size", "2")  # less memory
    assert trainer.gradient_accumulation_steps == 16 and "a step takes 32 rows" in log
    trainer, log = read("gradient_accumulation_steps: 3", processes=2)  # a file without it
    assert trainer.gradient_accumulation_steps == 3 and "a step takes 48 rows" in log
    options = ("--gradient_accumulation_steps", "2", "--global_batch_size", "64")
    assert read("", *options)[0].gradient_accumulation_steps == 8


@pytest.mark.parametrize("text", ["global_batch_size: 0", "global_batch_size: 8\nper_device_train_batch_size: 0"])
def test_no_batch(read, text):
    with pytest.raises(SgrlError, match="must be whole numbers from 1"):
        read(text)


def test_split_batch_never_takes_more_than_fits_and_stays_near():
    for wanted, processes, most, generations in itertools.product(
        (1, 24, 32, 128, 256), (1, 2, 3, 4, 6, 8, 16), (1, 2, 8, 24, 64), (1, 8, 12)
    ):
        rows, accumulated = split_batch(wanted, processes, most, generations)
        assert 1 <= rows <= most and accumulated >= 1
        total = rows * accumulated * processes
        if generations == 1:
            assert abs(total - wanted) <= processes * accumulated / 2 or (rows, accumulated) == (1, 1)
        if wanted % (most * processes) == 0 and wanted // processes % generations == 0:
            assert (rows, accumulated) == (most, wanted // (most * processes))
    assert split_batch(256, 6, 16, 8) == (10, 4)  # 240 answers, 5 whole groups on each process
    assert split_batch(48, 2, 24, 12, rounds=2) == (24, 1)
