"""Which checkpoint a run goes on from, and whose folder it is."""

import json
from types import SimpleNamespace

import pytest
import torch

from sgrl.errors import SgrlError
from sgrl.training.resume import Run, accept_numbered_cpus
from sgrl.training.run import open_run

IDENTITY = {"recipe": "sft", "dataset": "a", "reward": ["full"]}


def arguments(output, **changed):
    settings = {"resume_from_checkpoint": None, "max_steps": 10, "num_train_epochs": 3.0, "process_index": 0}
    return SimpleNamespace(output_dir=str(output), **(settings | changed))


def write_checkpoint(output, step: int, whole: bool = True):
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}) if whole else '{"global_st')
    return str(folder)


def test_fresh_start(tmp_path):
    run = Run(arguments(tmp_path / "run"), IDENTITY)
    assert run.checkpoint is None and not run.finished
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_goes_on_from_the_last_whole_checkpoint(tmp_path, caplog):
    Run(arguments(tmp_path), IDENTITY)
    write_checkpoint(tmp_path, 9)
    last = write_checkpoint(tmp_path, 10)
    write_checkpoint(tmp_path, 11, whole=False)
    (tmp_path / "checkpoint-12").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    assert Run(arguments(tmp_path), IDENTITY).checkpoint == last
    assert "checkpoint-12 was not written to its end" in caplog.text
    assert Run(arguments(tmp_path, resume_from_checkpoint="true"), IDENTITY).checkpoint == last


def test_named_checkpoint(tmp_path):
    named = write_checkpoint(tmp_path / "other", 3)
    assert Run(arguments(tmp_path, resume_from_checkpoint=named), IDENTITY).checkpoint == named
    with pytest.raises(SgrlError, match="resume_from_checkpoint: nowhere is no whole checkpoint"):
        Run(arguments(tmp_path, resume_from_checkpoint="nowhere"), IDENTITY)


def test_finished_run(tmp_path, caplog):
    run = Run(arguments(tmp_path), IDENTITY)
    checkpoint = write_checkpoint(tmp_path, 10)
    run.note_end(10)
    with caplog.at_level("INFO", "sgrl"):
        again = Run(arguments(tmp_path), IDENTITY)
    assert again.finished and again.checkpoint is None
    assert "is finished (10 steps)" in caplog.text and "raise max_steps" in caplog.text

    longer = Run(arguments(tmp_path, max_steps=20), IDENTITY)
    assert not longer.finished and longer.checkpoint == checkpoint


def test_folder_of_another_run(tmp_path):
    Run(arguments(tmp_path), IDENTITY)
    mended = Run(arguments(tmp_path), IDENTITY | {"dataset": "c"})  # nothing was trained yet: a slip was mended
    assert mended.checkpoint is None
    Run(arguments(tmp_path), IDENTITY)
    checkpoint = write_checkpoint(tmp_path, 1)
    with pytest.raises(
        SgrlError, match="belongs to a run with dataset: a, and this one has dataset: b; choose another"
    ):
        Run(arguments(tmp_path), IDENTITY | {"dataset": "b"})
    assert Run(arguments(tmp_path), IDENTITY).checkpoint == checkpoint  # the refusal changed nothing


def test_only_the_first_process_writes(tmp_path):
    Run(arguments(tmp_path / "run", process_index=1), IDENTITY)
    assert not (tmp_path / "run").exists()


def test_damaged_record(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(SgrlError, match="run.json cannot be read .*remove it to go on"):
        Run(arguments(tmp_path), IDENTITY)


def test_a_second_training_in_one_folder_is_refused(tmp_path):
    """By its first process, for all of them; others of a run do not ask."""
    settings = {"report_to": [], "load_best_model_at_end": False, "push_to_hub": False}
    first, second = (arguments(tmp_path / "out", process_index=index, **settings) for index in (0, 1))
    with open_run("sft", None, first, "model", IDENTITY) as run:
        assert run.recipe == "sft" and not run.finished and run.checkpoint is None
        with open_run("sft", None, second, "model", IDENTITY):
            pass
        with pytest.raises(SgrlError, match="out is being written by process"):
            with open_run("sft", None, first, "model", IDENTITY):
                pass
    with open_run("sft", None, first, "model", IDENTITY):
        pass


def test_every_process_on_a_cpu_loads_a_checkpoint(tmp_path):
    accept_numbered_cpus()
    state = {"momentum": torch.arange(6.0).reshape(2, 3), "step": torch.zeros(())}
    torch.save(state, tmp_path / "optimizer.pt")
    for process in (0, 1, 7):
        found = torch.load(tmp_path / "optimizer.pt", map_location=torch.device("cpu", process), weights_only=True)
        assert torch.equal(found["momentum"], state["momentum"]) and found["step"] == 0
