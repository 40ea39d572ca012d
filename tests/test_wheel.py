"""The wheel alone, without a checkout: recipes are inside, and the command runs from raw data to a page."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

SOURCES = ("sgrl", "rewards", "data_prep", "recipes", "setup.py", "setup.cfg", "pyproject.toml", "constraints.txt")
SOURCES += ("README.md", "LICENSE", "MANIFEST.in")
START = "import sys, importlib.metadata as m; s, = m.entry_points(group='console_scripts', name='sgrl'); "
START += "sys.argv[0] = 'sgrl'; sys.exit(s.load()())"


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, folder / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True)
    (found,) = (folder / "dist").glob("sgrl-*.whl")
    return found


@pytest.mark.slow
def test_from_raw_data_to_a_page_without_a_checkout(wheel, serve, tmp_path):
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        top = {name.partition("/")[0] for name in names}
        assert {name for name in top if not name.endswith(".dist-info")} == {"sgrl", "rewards", "data_prep"}
        assert "sgrl/recipes/sft_psg.py" in names and "sgrl/recipes/configs/toy/sft.yaml" in names
        venv.create(tmp_path / "env", symlinks=os.name != "nt")
        python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
        paths = sysconfig.get_paths(vars={"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")})
        packages = Path(paths["purelib"])
        opened.extractall(packages)
    # Its own packages first, then those that the tests run with; a .pth file there, of a checkout, is not read.
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def sgrl(*words):
        command = [str(python), "-c", START, *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    assert sgrl("--version").startswith("sgrl ")
    assert f"in {packages / 'sgrl' / 'recipes'}" in sgrl("ls")
    sgrl("cp", "toy/sft")
    assert (tmp_path / "recipes/configs/toy/sft.yaml").is_file()
    sgrl("toyworld", "--output", "world", "--train", "8", "--test", "4")
    sgrl("convert", "--layout", "psg", "--root", "world", "--output", "data", "--resize", "keep", "--prompt", "short")
    assert "TOON" in sgrl("stats", "data")
    server = serve(otherwise=lambda body: "<answer>\nobj[0]{id,name,x1,y1,x2,y2}:\nrel[0]{subj,pred,obj}:\n</answer>")
    words = ("--engine", "openai", "--base-url", server.url, "--model", "m", "--output", "run")
    sgrl("evaluate", "--dataset", "data", *words)
    assert json.loads((tmp_path / "run/run.json").read_text())["command"].startswith("sgrl evaluate --dataset data ")
    assert "Protocol: default" in sgrl("score", "run", "--reference", "data")
    sgrl("export", "run", "--to", "coco", "--output", "run.coco.json")
    assert json.loads((tmp_path / "run.coco.json").read_text())["images"]
    sgrl("report", "run", "--output", "page")
    assert (tmp_path / "page/index.html").is_file()
