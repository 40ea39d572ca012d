"""python -m sgrl doctor, inspect and report, on a good set-up and on broken ones."""

import importlib.metadata
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pyarrow.parquet
import pytest
from PIL import Image

from rewards.scorer import scores_of
from sgrl import doctor, machine, memory
from sgrl.__main__ import main
from sgrl.inspect import answers_of
from sgrl.vocabulary import get_vocabulary


@pytest.fixture
def pins(tmp_path):
    """A constraints file of what is installed here."""
    names = (*machine.CORE, "numpy")
    lines = [f"{name}=={importlib.metadata.version(name)}" for name in names]
    (tmp_path / "constraints.txt").write_text("\n".join(lines))
    return tmp_path / "constraints.txt"


def run_doctor(capsys, pins, *arguments):
    status = main(["doctor", "--constraints", str(pins), "--output", str(pins.parent), *map(str, arguments)])
    return status, capsys.readouterr().out


def test_unknown_command(capsys):
    assert main(["doktor"]) == 2
    assert "unknown command 'doktor'; did you mean 'doctor'?" in capsys.readouterr().err
    assert main(["--help"]) == 0 and main([]) == 2
    assert "\n  inspect   rows as" in capsys.readouterr().out


def test_versions(pins):
    def installed(name):
        if name == "datasets":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"trl": "0.1", "numpy": "1.0"}.get(name) or importlib.metadata.version(name)

    found = {finding.what: finding for finding in machine.check_versions(pins, installed)}
    assert not any(what.startswith("datasets") for what in found)  # that it is not there is said by another check
    (trl,) = [finding for what, finding in found.items() if what.startswith("trl 0.1, tested with")]
    assert trl.level == "fail" and trl.advice == f"pip install trl=={importlib.metadata.version('trl')}"
    (numpy,) = [finding for what, finding in found.items() if what.startswith("numpy 1.0")]
    assert numpy.level == "warn"
    assert [finding.level for finding in machine.check_versions(pins.parent / "none.txt")] == ["warn"]


def test_packages_that_are_not_there_or_do_not_load():
    def load(name):
        if name == "trl":
            raise ModuleNotFoundError(name="trl")
        if name == "peft":
            raise ImportError("cannot import name 'x' from 'transformers'")

    peft, trl = machine.check_packages(load)
    assert trl.what.startswith("not installed: trl;") and trl.advice == "pip install 'sgrl[train]'"
    assert "peft is installed and does not load (ImportError: cannot import" in peft.what
    assert trl.level == peft.level == "fail" and not list(machine.check_packages(str))


def test_a_bare_installation_is_not_ready(tmp_path):
    code = "import sys\n" + "\n".join(f"sys.modules[{name!r}] = None" for name in (*machine.CORE, "vllm", "pyarrow"))
    code += "\nfrom sgrl.__main__ import main\nsys.exit(main(['doctor', '--dataset', 'd', '--model', 'm']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        done.returncode == 1
        and "not installed: torch, transformers, trl" in done.stdout
        and "ready" not in done.stdout
    )
    assert "rewards and `sgrl score` work" in done.stdout and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "gib, level, words",
    [
        (2, "warn", "full fine-tuning does not fit, LoRA does not fit, predicting does not fit"),
        (8, "warn", "full fine-tuning does not fit, LoRA 8, predicting 64"),
        (24, "ok", "full fine-tuning 16, LoRA 32, predicting 64"),
        (80, "ok", "full fine-tuning 64, LoRA 64, predicting 64"),
    ],
)
def test_a_batch_for_the_memory_that_is_there(gib, level, words):
    finding = machine.check_memory(memory=gib << 30)
    assert finding.level == level and words in finding.what and f"{gib} GiB" in finding.what


def test_the_shape_of_a_model_folder(toy, tmp_path):
    from safetensors import safe_open

    shape = memory.shape_of(toy / "model")
    with safe_open(toy / "model/model.safetensors", "numpy") as weights:
        sizes = {name: weights.get_tensor(name).size for name in weights.keys()}
    assert shape.parameters == sum(sizes.values())
    assert 0 < shape.language == sum(size for name, size in sizes.items() if "visual" not in name) < shape.parameters
    assert "predicting 64" in machine.check_memory(str(toy / "model"), 8 << 30).what
    (tmp_path / "config.json").write_text("{}")
    finding = machine.check_memory(str(tmp_path), 8 << 30)
    assert finding.level == "warn" and "does not say how large its model is" in finding.what


def test_what_is_accelerated_and_what_is_not(monkeypatch):
    import torch

    from sgrl.inference import vllm_engine

    monkeypatch.setattr(vllm_engine, "obstacle", lambda: "vLLM finds no device that it was built for")
    engine, attention, linear = machine.check_acceleration()
    assert "not accelerated; its kernels are for GPUs" in linear.what
    if importlib.util.find_spec("vllm"):
        assert "transformers, not accelerated: vLLM finds no device" in engine.what and engine.level == "warn"
    assert attention.level == "ok" and "sdpa" in attention.what
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name != "torch" else True)
    assert "vLLM is not installed" in machine.check_engine().what
    assert "flash_attention_2 would fail" in machine.check_attention().what
    (kernels,) = machine.check_kernels(None)
    assert kernels.level == "warn" and kernels.advice == "pip install 'sgrl[linear-attention]'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    assert "through flash_attn" in machine.check_attention().what
    assert [finding.level for finding in machine.check_kernels(None)] == ["ok"]


def test_a_gpu_that_does_not_compute(monkeypatch):
    """PyTorch sees it, and has no code for it."""
    import torch

    def ones(*_, device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    card = SimpleNamespace(name="Old", total_memory=8 << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: card)
    monkeypatch.setattr(torch, "ones", ones)
    (finding,) = machine.check_devices()
    assert (
        finding.level == "fail" and "Old, 8 GiB, on which this PyTorch cannot compute (CUDA error: no" in finding.what
    )


def test_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    assert machine.check_disk(tmp_path).level == "fail"
    monkeypatch.undo()
    assert machine.check_disk(tmp_path / "not" / "yet").what.endswith(str(tmp_path))
    assert machine.check_disk(tmp_path, model_bytes=10**15).level == "warn"


@pytest.mark.slow
def test_doctor_on_a_good_set_up(toy, pins, capsys):
    status, printed = run_doctor(capsys, pins, "--model", toy / "model", "--dataset", toy / "data")
    assert status == 0, printed
    assert "fail" not in printed and printed.endswith("\nready\n") and "engine: " in printed
    assert "sequences at a time that fit, roughly, for" in printed
    assert "chat template: one placeholder for an image" in printed
    assert "images of" in printed and "seen as they are" in printed and "rows of toon" in printed


@pytest.mark.slow
def test_doctor_on_broken_set_ups(toy, pins, tmp_path, capsys):
    def broken(name):
        return shutil.copytree(toy / "model", tmp_path / name)

    model = broken("pixels")
    config = json.loads((model / "processor_config.json").read_text())
    config["image_processor"]["size"] = {"shortest_edge": 256, "longest_edge": 1024}
    (model / "processor_config.json").write_text(json.dumps(config))
    status, printed = run_doctor(capsys, pins, "--model", model, "--dataset", toy / "data")
    assert status == 0 and "which the processor resizes" in printed and "-> set max_pixels: 9216" in printed

    model = broken("template")
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] }}{% endfor %}")
    status, printed = run_doctor(capsys, pins, "--model", model)
    assert status == 1 and "0 placeholders for one image, expected 1" in printed and "-> take chat_" in printed

    model = broken("weights")
    (model / "model.safetensors").unlink()
    status, printed = run_doctor(capsys, pins, "--model", model, "--dataset", tmp_path / "nothing")
    assert status == 1 and "has no weights" in printed and "does not exist" in printed
    assert printed.endswith("2 problems to solve first\n")


@pytest.fixture
def images_of(toy, tmp_path):
    """A function that writes a data set with images of these sizes, or files, and these frames of their boxes."""

    def write(*images, coords="pixel", frames=None, split="train"):
        (file,) = (toy / "data").glob("train-*.parquet")
        table = pyarrow.parquet.read_table(file)
        row = table.to_pylist()[0]
        answer = "obj[1]{id,name,x1,y1,x2,y2}:\n  1,circle,0,0,5,5\nrel[0]{subj,pred,obj}:"
        rows = []
        for i, image in enumerate(images):
            width, height = frames[i] if frames else image
            if not isinstance(image, bytes):
                buffer = io.BytesIO()
                Image.new("RGB", image).save(buffer, "PNG")
                image = buffer.getvalue()
            new = {"image": {"bytes": image, "path": None}, "image_id": f"im{i}", "solution": answer}
            rows.append(row | new | {"width": width, "height": height})
        metadata = dict(table.schema.metadata)
        own = json.loads(metadata[b"sgrl"]) | {"coords": coords}
        schema = table.schema.with_metadata(metadata | {b"sgrl": json.dumps(own).encode()})
        (tmp_path / "data").mkdir(exist_ok=True)
        table = pyarrow.Table.from_pylist(rows, schema)
        pyarrow.parquet.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet")
        return str(tmp_path / "data")

    return write


BUDGET = (56 * 56, 512 * 28 * 28)


def pixels(dataset):
    """What doctor says of the images for Qwen2.5-VL's processor, of which sides become multiples of 28."""
    from transformers import Qwen2VLImageProcessor

    size = {"shortest_edge": BUDGET[0], "longest_edge": BUDGET[1]}
    processor = SimpleNamespace(image_processor=Qwen2VLImageProcessor(patch_size=14, merge_size=2, size=size))
    return list(doctor._check_pixels(dataset, processor, BUDGET))


def test_doctor_says_what_images_become(images_of):
    (finding,) = pixels(images_of((644, 476), (644, 476)))
    assert finding.level == "ok" and finding.what.endswith("data, train: 644 x 476, seen as they are")
    (finding,) = pixels(images_of((644, 476), (448, 336), (28, 112)))
    assert finding.level == "ok" and "3 sizes from 28 x 112 to 644 x 476, the most oblong 28 x 112" in finding.what
    (finding,) = pixels(images_of(*[(640, 480)] * 3))
    assert finding.level == "warn" and "(3: 640 x 480 becomes 644 x 476)" in finding.what
    assert finding.advice.startswith("convert with --resize 644x476") and "max_pixels" not in finding.advice
    (finding,) = pixels(images_of((448, 336), (1280, 960), (28, 28), (1280, 960)))  # the first is no measure
    assert finding.level == "warn" and "(3: 1280 x 960 becomes 728 x 532, 28 x 28 becomes 56 x 56)" in finding.what
    assert "set max_pixels: 1228800 and min_pixels: 784, or convert" in finding.advice
    (finding,) = pixels(images_of((640, 480), coords="norm1000", frames=[(1000, 1000)]))
    assert (finding.level, finding.advice) == ("ok", "") and "640 x 480 becomes 644 x 476" in finding.what


def test_doctor_never_says_ready_for_an_image_that_ends_a_run(images_of):
    refused, seen = pixels(images_of((644, 476), (3000, 14), (644, 476)))
    assert (
        refused.level == "fail" and "3000 x 14 (1 of them, such as 'im1'), which the processor refuses" in refused.what
    )
    assert seen.level == "ok" and "the most oblong 3000 x 14" in seen.what
    frame, _ = pixels(images_of((644, 476), (448, 336), frames=[(644, 476), (640, 480)]))
    assert frame.level == "fail" and "'im1', 448 x 336 with boxes in 640 x 480" in frame.what
    broken, _ = pixels(images_of((644, 476), b"no picture", frames=[(644, 476)] * 2))
    assert broken.level == "fail" and "1 do not open, such as image 'im1'" in broken.what
    images_of((644, 476))
    levels = [finding.level for finding in pixels(images_of((644, 476), (14, 3000), split="test"))]
    assert levels == ["ok", "fail", "ok"]  # of train, and of test


def test_doctor_finds_the_extremes_of_many_images(images_of, monkeypatch):
    monkeypatch.setattr(doctor, "SAMPLE", 4)
    monkeypatch.setattr(doctor, "TRIED", 1)
    sizes = [(644, 476)] * 30
    sizes[7], sizes[11], sizes[13] = (3000, 14), (28, 28), (1000, 1000)
    refused, resized = pixels(images_of(*sizes))
    assert "3000 x 14" in refused.what and "(7 of 30 looked at)" in resized.what
    assert "28 x 28 becomes 56 x 56" in resized.what and "1000 x 1000 becomes" in resized.what


@pytest.mark.slow
def test_inspect(toy, tmp_path, capsys):
    words = ["inspect", str(toy / "data"), "--limit", "2", "--output", str(tmp_path), "--model", str(toy / "model")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count("== row") == 2 and "Write the scene graph." in printed and "<answer>" in printed
    assert "-- tokens: prompt " in printed and ", image 36, answer " in printed
    assert "-- gold scores 9.50" in printed and "-- empty scores 0.00" in printed
    spoiled = [line for line in printed.splitlines() if line.startswith("-- spoiled scores")]
    assert len(spoiled) == 2 and all(float(line.split()[3]) < 9.5 for line in spoiled)
    assert Image.open(tmp_path / "train-0.png").width >= 480
    assert main(["inspect", str(toy / "data"), "--first", "1000"]) == 1
    assert "--first 1000 is past them" in capsys.readouterr().err
    assert main(["inspect", str(toy / "data"), "--context", "gt"]) == 1
    assert "--context gt" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "nothing")]) == 1


def test_report_is_a_command(capsys):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    assert "--dataset" in capsys.readouterr().out


@pytest.mark.parametrize("preset", ["full", "base", "balanced"])
def test_a_spoiled_answer_scores_less_than_gold(preset):
    solution = (
        "obj[2]{id,name,x1,y1,x2,y2}:\n1,person,0,0,90,90\n2,cup,0,80,95,95\nrel[1]{subj,pred,obj}:\n1,holding,2"
    )
    answers = answers_of("toon", solution, 96, 96, get_vocabulary("psg"))
    scores = scores_of(answers, solution, "toon", 96, 96, preset)
    assert scores["gold"][0] > scores["spoiled"][0] and scores["empty"][0] == 0
