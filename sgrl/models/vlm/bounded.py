"""An end to foreign programs that run as Python, such as chat templates, on whatever thread they are.

One thread watches all that runs `within` a limit, and raises `TooLong` in those that exceed it. Python delivers it
between two steps of a program, so it ends loops; a single step that never comes back (a huge multiplication, say) it
does not end, and a process with its own limits has to (see `template.try_template`).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LOOKS = 0.5
"""Seconds between looks, while anything runs."""


class TooLong(Exception):
    """Raised in a program that has used up its processor time."""


@dataclass
class _Running:
    spent: Callable[[], float]
    limit: float
    stopped: bool = False


_lock = threading.Lock()
_running: dict[int, _Running] = {}
_wake = threading.Event()
_watcher: tuple[int, threading.Thread] | None = None


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises TooLong in this block when its thread has used so much processor time (where the system does not tell a
    thread's, so much time). A block within a block counts as a part of it. Entering and leaving takes microseconds."""
    thread = threading.get_ident()
    if thread in _running:
        yield
        return
    clock = _clock(thread)
    start = clock()
    running = _Running(lambda: clock() - start, seconds)
    _watch()
    with _lock:
        _running[thread] = running
    if not _wake.is_set():
        _wake.set()
    try:
        yield
    finally:
        with _lock:
            _running.pop(thread, None)
            if running.stopped:  # perhaps it has not arrived yet: then it never does
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)


def _clock(thread: int) -> Callable[[], float]:
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic
    number = time.pthread_getcpuclockid(thread)
    return lambda: time.clock_gettime(number)


def _watch() -> None:
    """Start the watching thread, in each process; a copy of a process has no threads of the first one."""
    global _watcher, _lock
    if _watcher is not None and _watcher[0] == os.getpid():
        return
    if _watcher is not None:
        _lock = threading.Lock()  # it may have been held when the process was copied
        _running.clear()
    thread = threading.Thread(target=_look, daemon=True, name="time limits")
    _watcher = os.getpid(), thread
    thread.start()


def _look() -> None:
    while True:
        _wake.wait()
        time.sleep(LOOKS)
        with _lock:
            if not _running:
                _wake.clear()
            for thread, running in _running.items():
                if not running.stopped and running.spent() > running.limit:
                    running.stopped = True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TooLong))
