"""Files that appear whole, and the lock of a folder."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from sgrl import files
from sgrl.errors import SgrlError
from sgrl.files import LOCK, atomic_path, folder_lock

HOLD = r"""
import os, sys, time
from sgrl.files import folder_lock
with folder_lock(sys.argv[1], shared="shared" in sys.argv):
    os.write(1, b"held\n")
    time.sleep(600)
"""


def holder(folder, *words, code=HOLD):
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    with atomic_path(tmp_path / "sub" / "file") as path:
        path.write_text("new")
        assert not (tmp_path / "sub" / "file").exists()
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "sub" / "file") as path:
        path.write_text("half")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in (tmp_path / "sub").iterdir()] == [("file", "new")]


def test_two_processes_of_one_number_do_not_share_a_temporary_name(tmp_path):
    """As in two containers with one disk."""
    with atomic_path(tmp_path / "file") as one, atomic_path(tmp_path / "file") as other:
        assert one != other
        one.write_text("1")
        other.write_text("2")
    assert (tmp_path / "file").read_text() == "1"


def test_a_second_process_is_refused_and_told_by_whom(tmp_path):
    process = holder(tmp_path / "out")
    try:
        with pytest.raises(SgrlError, match=rf"out is being written by process {process.pid} \(-c .*out\); wait"):
            with folder_lock(tmp_path / "out"):
                pass
        with pytest.raises(SgrlError), folder_lock(tmp_path / "out", shared=True):
            pass
    finally:
        end(process)


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / LOCK).exists()
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_do_not_keep_the_lock_of_a_dead_parent(tmp_path):
    fork = HOLD.replace("    os.write", "    os.fork()\n    os.write")
    process = subprocess.Popen(
        [sys.executable, "-c", fork, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert [process.stdout.readline() for _ in range(2)] == ["held\n"] * 2
    process.kill()
    process.wait()
    try:
        with folder_lock(tmp_path):  # the child lives
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_jobs_share_a_folder_that_nobody_else_may_have(tmp_path):
    process = holder(tmp_path / "out", "shared")
    try:
        with folder_lock(tmp_path / "out", shared=True):
            with pytest.raises(SgrlError), folder_lock(tmp_path / "out"):
                pass
        assert (tmp_path / "out" / LOCK).exists()  # the other's still
        with pytest.raises(SgrlError, match=f"process {process.pid} "), folder_lock(tmp_path / "out"):
            pass
    finally:
        end(process)
    with folder_lock(tmp_path / "out"):
        pass


def test_the_folder_is_made_and_goes_again_when_nothing_was_written(tmp_path):
    with pytest.raises(RuntimeError), folder_lock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with folder_lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_a_lock_beside_a_folder_that_is_replaced(tmp_path):
    with folder_lock(tmp_path / "out", beside=True):
        assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]
        with pytest.raises(SgrlError, match="out is being written"), folder_lock(tmp_path / "out", beside=True):
            pass
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "out").touch()
    for path in (tmp_path / "out", tmp_path / "out" / "deep"):
        with pytest.raises(OSError), folder_lock(path):
            pass


def test_a_broken_link_in_the_locks_place_ends(tmp_path):
    (tmp_path / LOCK).symlink_to(tmp_path / "nowhere" / "file")
    with pytest.raises(FileNotFoundError), folder_lock(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_a_file_system_has_no_locks_the_note_decides(tmp_path, monkeypatch, caplog, number):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "_lock", none)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    note = {"pid": os.getppid(), "host": socket.gethostname(), "command": "train\x1b[2J"}
    (tmp_path / LOCK).write_text(json.dumps(note))
    with pytest.raises(SgrlError, match=rf"process {os.getppid()} \(train\\x1b\[2J\)"), folder_lock(tmp_path):
        pass
    (tmp_path / LOCK).write_text(json.dumps(note | {"pid": dead.pid}))
    with folder_lock(tmp_path):
        pass
    assert not caplog.records
    (tmp_path / LOCK).write_text(json.dumps(note | {"host": "elsewhere"}))
    with folder_lock(tmp_path):  # nobody can tell
        pass
    assert "on elsewhere" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_note_that_is_none_is_no_error(tmp_path):
    with folder_lock(tmp_path):
        for note in (b"", b"\xff\n[1]\n{", b'{"pid": "x"}'):
            (tmp_path / LOCK).write_bytes(note)
            with pytest.raises(SgrlError, match="written by another process; wait"), folder_lock(tmp_path):
                pass
