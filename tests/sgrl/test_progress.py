"""The one progress bar: on a terminal, in a log, in other processes, and without tqdm."""

import io
import multiprocessing
import sys
from types import SimpleNamespace

import pytest

from sgrl import progress
from sgrl.progress import EVERY, Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "now", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_has_a_line_now_and_then_and_one_at_the_end(clock, capsys):
    with Progress("converting", 1000, "image", done=100, where="build/data") as bar:
        for _ in range(900):
            clock.now += 0.125
            bar.update()
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == "" and len(lines) == 4  # after 30, 60 and 90 s, and at the end
    assert lines[0] == "converting: 340 of 1,000 images, 8.0 a second, about 1:22 min left"
    assert lines[-1] == "converting: 1,000 images in 1:52 min, 8.0 a second; in build/data"


def test_what_is_short_says_nothing(clock, capsys):
    assert list(Progress("reading", 3).over("abc")) == ["a", "b", "c"]
    for _ in Progress("reading", 3).over("abc"):  # left before its end, which others tell
        clock.now += 5
        break
    clock.now += 100
    with Progress("reading", show=False) as bar:
        clock.now += 100
        bar.update()
    assert capsys.readouterr().err == ""


def test_what_does_not_come_to_its_end_says_so(clock, capsys):
    with pytest.raises(KeyError), Progress("judging\x1b[2J", 10, "question", where="x") as bar:
        clock.now += 30
        bar.update(3)
        raise KeyError
    assert capsys.readouterr().err.splitlines()[-1] == (
        r"judging\x1b[2J: 3 of 10 questions in 30 s, 10.0 s each, not finished"
    )


def test_a_total_that_nobody_knows(clock, capsys):
    with Progress("reading", unit="frame") as bar:
        clock.now += 5
        bar.update()
    assert capsys.readouterr().err == "reading: 1 frame in 5 s, 5.0 s each\n"


def test_a_terminal_has_a_bar_and_the_end(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("drawing", 4, "image", where="out") as bar:
        clock.now += 4
        bar.update(4)
    shown = sys.stderr.getvalue()
    assert (
        "drawing: " in shown and "0/4" in shown and shown.endswith("drawing: 4 images in 4 s, 1.0 a second; in out\n")
    )


def test_without_tqdm_a_terminal_has_plain_lines(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with Progress("drawing", 4, "image") as bar:
        clock.now += EVERY
        bar.update()
    assert sys.stderr.getvalue().splitlines()[0] == "drawing: 1 of 4 images, 30.0 s each, about 1:30 min left"


def test_one_process_speaks(clock, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with Progress("training") as bar:
        clock.now += 100
        bar.update()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    assert not progress.is_first()
    assert capsys.readouterr().err == ""


def test_nobody_listens(clock, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with Progress("reading") as bar:
        clock.now += 100
        bar.update()
    assert bar.done == 1


def test_a_notebook_is_where_a_kernel_runs(clock, capsys, monkeypatch):
    """Not where the library of kernels is imported, as by what starts one."""
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    with Progress("reading", unit="frame") as bar:
        clock.now += 5
        bar.update()
    assert capsys.readouterr().err == "reading: 1 frame in 5 s, 5.0 s each\n"
    assert not progress._is_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    assert progress._is_notebook()
