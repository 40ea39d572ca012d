"""Libraries do not send anything about their use unless the user says so."""

import os
import subprocess
import sys

import pytest

from sgrl import telemetry

SHOW = "import os; print(*(os.environ.get(name) for name in {names}))"


def _seen_by_child(imports: str, **environment: str) -> dict[str, str]:
    """The variables in a process which one started that imported some of ours."""
    kept = {name: value for name, value in os.environ.items() if name not in (*telemetry.OFF, telemetry.VARIABLE)}
    show = SHOW.format(names=list(telemetry.OFF))
    code = f"import subprocess, sys, {imports}; subprocess.run([sys.executable, '-c', {show!r}], check=True)"
    out = subprocess.run([sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return dict(zip(telemetry.OFF, out.stdout.split(), strict=True))


@pytest.mark.parametrize("imports", ["sgrl", "rewards", "data_prep.report", "sgrl.__main__"])
def test_off_for_every_process(imports):
    assert _seen_by_child(imports) == telemetry.OFF


def test_the_user_decides():
    assert _seen_by_child("sgrl", SGRL_TELEMETRY="1") == dict.fromkeys(telemetry.OFF, "None")
    assert _seen_by_child("sgrl", SGRL_TELEMETRY="0") == telemetry.OFF
    assert _seen_by_child("sgrl", DO_NOT_TRACK="0") == telemetry.OFF | {"DO_NOT_TRACK": "0"}


def test_the_libraries_understand():
    """The names are those that the installed versions read."""
    constants = pytest.importorskip("huggingface_hub.constants")
    assert constants.HF_HUB_DISABLE_TELEMETRY is True
    envs = pytest.importorskip("vllm.envs")
    assert envs.VLLM_NO_USAGE_STATS is True and envs.VLLM_DO_NOT_TRACK is True


def test_named_in_the_documentation(root):
    text = (root / "docs/privacy.md").read_text()
    for name in (*telemetry.OFF, telemetry.VARIABLE):
        assert f"`{name}" in text, name
