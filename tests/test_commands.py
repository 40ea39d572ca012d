"""python -m sgrl doctor, inspect and report, on a good set-up and on broken ones."""

import importlib.metadata
import json
import shutil

import pytest

from sgrl import doctor
from sgrl.__main__ import main
from sgrl.inspect import scores_of
from sgrl.vocabulary import get_vocabulary


@pytest.fixture
def pins(tmp_path):
    """A constraints file of what is installed here."""
    names = (*doctor.CORE, "numpy")
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
    assert "python -m sgrl inspect" in capsys.readouterr().out


def test_versions(pins):
    def installed(name):
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"trl": "0.1", "numpy": "1.0"}.get(name) or importlib.metadata.version(name)

    found = {finding.what: finding for finding in doctor.check_versions(pins, installed)}
    assert found["peft is not installed"].level == "fail"
    (trl,) = [finding for what, finding in found.items() if what.startswith("trl 0.1, tested with")]
    assert trl.level == "fail" and trl.advice == f"pip install trl=={importlib.metadata.version('trl')}"
    (numpy,) = [finding for what, finding in found.items() if what.startswith("numpy 1.0")]
    assert numpy.level == "warn"
    assert [finding.level for finding in doctor.check_versions(pins.parent / "none.txt")] == ["warn"]


def test_disk(tmp_path):
    assert doctor.check_disk(tmp_path / "not" / "yet").what.endswith(str(tmp_path))
    assert doctor.check_disk(tmp_path, model_bytes=10**15).level == "warn"


@pytest.mark.slow
def test_doctor_on_a_good_set_up(toy, pins, capsys):
    status, printed = run_doctor(capsys, pins, "--model", toy / "model", "--dataset", toy / "data")
    assert status == 0, printed
    assert "fail" not in printed and printed.endswith("ready\n")
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


@pytest.mark.slow
def test_inspect(toy, tmp_path, capsys):
    from PIL import Image

    words = ["inspect", str(toy / "data"), "--rows", "2", "--output", str(tmp_path), "--model", str(toy / "model")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count("== row") == 2 and "Write the scene graph." in printed and "<answer>" in printed
    assert "-- tokens: prompt " in printed and ", image 36, answer " in printed
    assert "-- gold scores 9.50" in printed and "-- empty scores 0.00" in printed
    spoiled = [line for line in printed.splitlines() if line.startswith("-- spoiled scores")]
    assert len(spoiled) == 2 and all(float(line.split()[3]) < 9.5 for line in spoiled)
    assert Image.open(tmp_path / "train-0.png").width >= 480
    assert main(["inspect", str(toy / "data"), "--first", "1000"]) == 2
    assert "--first 1000 is past them" in capsys.readouterr().err
    assert main(["inspect", str(toy / "data"), "--context", "gt"]) == 2
    assert "--previous gt" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "nothing")]) == 2


def test_report_is_a_command(capsys):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    assert "--dataset" in capsys.readouterr().out


@pytest.mark.parametrize("preset", ["full", "base", "balanced"])
def test_a_spoiled_answer_scores_less_than_gold(preset):
    solution = (
        "obj[2]{id,name,x1,y1,x2,y2}:\n1,person,0,0,90,90\n2,cup,0,80,95,95\nrel[1]{subj,pred,obj}:\n1,holding,2"
    )
    scores = scores_of("toon", solution, 96, 96, get_vocabulary("psg"), preset)
    assert scores["gold"][0] > scores["spoiled"][0] and scores["empty"][0] == 0
