"""How commands end: in one line, whatever happened, and their children with them."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from sgrl.errors import SgrlError
from sgrl.process import one_line, run_command


def fail(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SgrlError("label 'a\x1b[2J\nb' is unknown"), r"label 'a\x1b[2J\nb' is unknown"),
        (OSError(errno.ENOSPC, "", "a.json"), "a.json: No space left on device; make room and run"),
        (OSError(errno.ENOSPC, ""), "No space left on device; make room and run the same command again"),
        (OSError(errno.EFBIG, "", "a"), "a: File too large; make room and run the same command again"),
        (OSError("[Errno 28] Error writing. Detail: [errno 28] No space left"), "No space left on device; make"),
        (PermissionError(errno.EACCES, "", "x\n"), r"x\n: Permission denied"),
        (OSError(errno.EROFS, "", b"x"), "x: Read-only file system"),
        (NotADirectoryError(errno.ENOTDIR, "", "x/y"), "x/y: Not a directory; a file stands where a folder should be"),
        (FileExistsError(errno.EEXIST, "", "x"), "x: File exists; a file stands where a folder should be"),
        (FileNotFoundError(errno.ENOENT, "", "x", None, "y"), "x: No such file or directory"),
        (OSError("m is not a folder\nwith a model"), "m is not a folder with a model"),
        (TimeoutError(), "TimeoutError"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_user_or_a_machine_causes_is_one_line(capsys, error, line):
    assert run_command("sgrl draw", fail(error)) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"sgrl draw: {line}") and printed.err.count("\n") == 1 and not printed.out


def test_a_full_disk_in_the_words_of_other_libraries():
    class SafetensorError(Exception):
        pass

    assert "No space left" in one_line(SafetensorError("I/O error: No space left on device (os error 28)"))
    assert "is the disk full?" in one_line(RuntimeError("[enforce fail at x.cc] . PytorchStreamWriter failed writing"))
    try:
        try:
            raise OSError(errno.ENOSPC, "")
        finally:
            raise RuntimeError("cannot close")
    except RuntimeError as error:
        assert "No space left" in one_line(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), KeyError("x"), RuntimeError("os error 2"), ValueError("errno 5")]
)
def test_a_fault_of_the_program_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_command("x", fail(error))


def test_statuses(capsys):
    assert run_command("x", lambda: None) == 0 and run_command("x", lambda: 1) == 1
    assert run_command("x", fail(KeyboardInterrupt("; go on"))) == 130
    assert capsys.readouterr().err == "x: interrupted; go on\n"


def test_a_signal_ends_a_command_in_order(capsys):
    before = signal.getsignal(signal.SIGTERM)
    left = []

    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            left.append("cleaned")

    assert run_command("x", main) == 128 + signal.SIGTERM
    assert left == ["cleaned"] and capsys.readouterr().err == "x: ended by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_that_does_not_let_go_ends_all_the_same():
    """As a library that waits for a child that the signal has ended."""
    code = "import os, signal, sys, time\nfrom sgrl import process\nprocess._GRACE = 0.2\n"
    code += "def main():\n    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n        time.sleep(600)\n"
    code += "    finally:\n        time.sleep(600)\nprocess.run_command('x', main)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 143


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    try:
        assert run_command("x", lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


COMMAND = "import sys\nfrom sgrl.process import run_command\nsys.exit(run_command('x', lambda: {}))"


def test_nobody_reads(tmp_path):
    """As in `command | head -1`: no traceback, and the status that the system gives such a process."""
    code = COMMAND.format("[print('line ' * 1000) for _ in range(1000)] and None")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), error) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_behind_stdout():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND.format("print('x')")], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (
        1,
        "x: No space left on device; make room and run the same command again\n",
    )


def test_a_terminal_that_lacks_the_characters_and_a_traceback_with_escapes():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format("print('\\u732b') or {}['a\\x1b[2J']")],
        capture_output=True, env=environment,
    )  # fmt: skip
    assert done.stdout.splitlines() == [rb"\u732b"] and done.returncode == 1
    assert b"Traceback" in done.stderr and b"KeyError" in done.stderr and b"\x1b" not in done.stderr


def test_a_warning_that_quotes_foreign_text_is_one_line(caplog):
    from sgrl.terminal import LogFormatter

    record = logging.LogRecord(
        "sgrl", logging.WARNING, "", 0, "image %s", ("a\x1b[2J\n12:00:00 INFO sgrl: fine",), None
    )
    assert LogFormatter("%(name)s: %(message)s").format(record) == r"sgrl: image a\x1b[2J\n12:00:00 INFO sgrl: fine"
    run_command("x", lambda: None)
    assert isinstance(logging.lastResort.formatter, LogFormatter)


POOL = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from sgrl.process import end_with_parent, run_command
from sgrl.command import command

def main():
    how = sys.argv[1]
    pool = ProcessPoolExecutor(2, get_context(how.split()[0]), initializer=end_with_parent if how == "spawn" else None)
    list(pool.map(int, "12"))
    print(*pool._processes, flush=True)
    time.sleep(600)

if "recipe" in sys.argv[1]:
    main = command(main)
if __name__ == "__main__":
    sys.exit(main() if "recipe" in sys.argv[1] else run_command("pool", main))
"""


def gone(pid, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
            state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
            if state == "Z":  # whoever adopted it has not asked for its status
                return True
        except ProcessLookupError:
            return True
        except FileNotFoundError:  # no /proc, or gone in between
            pass
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("how", "number"),
    [
        ("spawn", signal.SIGTERM),
        ("spawn", signal.SIGKILL),
        ("fork", signal.SIGKILL),
        ("spawn by a recipe", signal.SIGKILL),
    ],
)
def test_workers_of_a_pool_end_with_the_command(tmp_path, number, how):
    """Those of a pool that says so, and copies and new interpreters that any library makes."""
    (tmp_path / "pool.py").write_text(POOL)
    process = subprocess.Popen([sys.executable, str(tmp_path / "pool.py"), how], stdout=subprocess.PIPE)
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    process.send_signal(number)
    process.wait(30)
    process.stdout.close()
    assert all(gone(pid) for pid in workers)


# The parent starts a child as `accelerate launch` does, and waits.
LAUNCHER = """
import os, subprocess, sys
code = '''
import os, sys, time
from sgrl import process
{setup}
def main():
    os.write(1, b"%d\\\\n" % os.getpid())
    time.sleep(600)
sys.exit(process.run_command("training", main))
'''
subprocess.Popen([sys.executable, "-c", code, {arguments}]).wait()
"""
LAUNCHED = {
    "the launcher": ("process.end_with_launcher()", {"ACCELERATE_MIXED_PRECISION": "no"}, True),
    "a shell with its variables": ("process.end_with_launcher()", {"ACCELERATE_MIXED_PRECISION": "no"}, False),
    "without prctl": ("process.sys.platform = 'other'; process.end_with(os.getppid())", {}, True),
}


@pytest.mark.parametrize(
    ("case", "number"),
    [("the launcher", signal.SIGTERM), *[(case, signal.SIGKILL) for case in LAUNCHED]],
)
def test_a_training_ends_with_its_launcher_alone(tmp_path, case, number):
    setup, variables, ends = LAUNCHED[case]
    name = tmp_path / ("accelerate" if ends else "shell")
    name.write_text(LAUNCHER.format(setup=setup, arguments="'x'"))
    process = subprocess.Popen(
        [sys.executable, str(name), "launch"], stdout=subprocess.PIPE, env={**os.environ, **variables}
    )
    pid = int(process.stdout.readline())
    process.send_signal(number)
    process.wait(30)
    process.stdout.close()
    try:
        assert gone(pid, 20 if ends else 1.5) is ends
    finally:
        if not ends:
            os.kill(pid, signal.SIGKILL)


def test_a_command_ends_with_the_process_that_its_environment_names():
    """Further up than the parent: a benchmark whose trainings a launcher starts."""
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    code = COMMAND.format("print('begun', flush=True) or __import__('time').sleep(600)")
    child = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "SGRL_PARENT": str(owner.pid)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == b"begun\n"
    finally:
        owner.kill()
        owner.wait()
    assert child.communicate(timeout=30) == (b"", b"x: ended by SIGTERM\n") and child.returncode == 143
