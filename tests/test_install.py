"""Packages come by uv with what pip is set up to use, and by pip wherever that is not certain."""

import importlib.util
import subprocess
import sys

import pytest


@pytest.fixture
def install(root):
    spec = importlib.util.spec_from_file_location("install", root / "tools/install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LISTED = """:env:.cert='/etc/ca.crt'
:env:.default-timeout='180'
:env:.index-url='https://near/simple'
global.extra-index-url='file:///a/simple file:///b/simple'
global.index-url='https://far/simple'
install.find-links='/wheels'
"""
ARGUMENTS = ["--extra-index-url", "file:///a/simple", "--extra-index-url", "file:///b/simple"]
ARGUMENTS += ["--find-links", "/wheels", "--index-url", "https://near/simple"]


def test_uv_gets_what_pip_is_set_up_to_use(install):
    settings = install.pip_settings(LISTED)
    assert install.uv_arguments(settings) == ARGUMENTS
    assert install.certificates(settings) == {"SSL_CERT_FILE": "/etc/ca.crt"}
    assert install.uv_arguments(install.pip_settings("")) == []


def test_an_index_of_the_command_stands_for_the_one_that_is_set(install, monkeypatch):
    commands, _ = run(install, monkeypatch, LISTED, arguments=["--index-url", "https://torch", "torch"])
    assert commands[0].count("--index-url") == 1 and "https://near/simple" not in commands[0]


def run(install, monkeypatch, listed, uv=True, uv_fails=False, arguments=("-c", "constraints.txt", "package")):
    """The programs that install something, and the exit code."""
    commands = []

    def called(command, **kwargs):
        if command[-2:] == ["config", "list"]:
            return subprocess.CompletedProcess(command, 0, listed)
        commands.append(command)
        return subprocess.CompletedProcess(command, int(uv_fails and command[2] == "uv"))

    monkeypatch.setattr(install.subprocess, "run", called)
    monkeypatch.setattr(install, "has_uv", lambda: uv)
    return commands, install.main([*arguments])


def test_uv_installs_into_this_environment(install, monkeypatch):
    commands, code = run(install, monkeypatch, LISTED)
    assert code == 0 and len(commands) == 1
    assert commands[0][:4] == [sys.executable, "-m", "uv", "pip"] and commands[0][-3:] == [
        "-c",
        "constraints.txt",
        "package",
    ]
    assert commands[0][commands[0].index("--python") + 1] == sys.executable
    assert " ".join(ARGUMENTS) in " ".join(commands[0])


@pytest.mark.parametrize(
    "listed, uv, programs",
    [
        (LISTED, False, ["pip"]),
        ("global.only-binary=':all:'\n", True, ["pip"]),  # uv would not know of it
        ("install.proxy='http://gate:3128'\n", True, ["pip"]),
        (LISTED, True, ["uv", "pip"]),
    ],
)
def test_pip_does_it_where_uv_is_not_certain_to(install, monkeypatch, listed, uv, programs):
    commands, code = run(install, monkeypatch, listed, uv, uv_fails=True)
    assert code == 0 and [command[2] for command in commands] == programs
    assert commands[-1][-3:] == ["-c", "constraints.txt", "package"]
