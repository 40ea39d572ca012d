"""How processes end: commands in one line, whatever happens, and children together with their parent."""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import multiprocessing
import os
import re
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sgrl.errors import SgrlError, UsageError
from sgrl.extras import missing
from sgrl.terminal import LogFormatter, printable, printable_lines

PARENT = "SGRL_PARENT"
"""Variable of the environment with the number of a process; commands started with it end when that process does."""

FAILED, WRONG_USAGE = 1, 2
"""Exit statuses of every command."""

_LENGTH = 4000  # of a message
_GRACE = 10.0  # seconds to end in order once the parent is gone
_POLL = 1.0  # seconds
_PR_SET_PDEATHSIG = 1

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Numbers of the system's errors on a full disk."""

_PLACE = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
# Arrow, safetensors and OpenSSL say the number in their texts alone; what torch says of a file that it cannot go on
# with has none.
_NUMBER = re.compile(r"\b(?:os error|errno:?) (\d+)\b", re.IGNORECASE)
_TORCH = re.compile(r"PytorchStreamWriter failed|unexpected pos \d+ vs \d+")


class Terminated(KeyboardInterrupt):
    """A signal that ends the process in order, as Ctrl-C does."""

    number = signal.SIGTERM


def run_command(name: str, main: Callable[[], int | None]) -> int:
    """Run a command so that whatever a user, a disk or a signal can cause ends in one line on stderr.

    SIGTERM and SIGHUP end it in order, within ten seconds; a second one at once. Its children end with it. A fault of
    the program keeps its traceback. `main` may say what an interruption leaves: `KeyboardInterrupt("; text")`.

    Returns:
        the exit status: that of `main` (None is 0), FAILED where the run could not do what it should, WRONG_USAGE
        where the command itself is wrong (argparse ends with it, too), 128 + N for signal N.
    """
    _make_printable()
    _guard_children()
    with _signals():
        try:
            parent = os.environ.get(PARENT, "")
            if parent.isdecimal() and int(parent) != os.getpid():
                end_with(int(parent))
            status = main() or 0
            sys.stdout.flush()
            return status
        except KeyboardInterrupt as error:
            number = getattr(error, "number", signal.SIGINT)
            how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
            _say(name, how + "".join(map(str, error.args)))
            return 128 + number
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                _drop_stdout()
                return 128 + signal.SIGPIPE  # as the system ends a program that did not ask for errors
            if not _stdout_works():
                _drop_stdout()
            message = one_line(error)
            if message is None:
                raise
            _say(name, message)
            return WRONG_USAGE if isinstance(error, UsageError) else FAILED


def one_line(error: BaseException) -> str | None:
    """What to tell a user about an error that the input or the machine causes; None for a fault of the program."""
    if isinstance(error, ImportError):
        error = missing(error, "this command") or error
    if isinstance(error, SgrlError):
        return str(error)
    number = system_number(error)
    if number in NO_ROOM or _TORCH.search(str(error)):
        reason = os.strerror(number) if number in NO_ROOM else "a file cannot be written to its end; is the disk full?"
        return f"{_where(error)}{reason}; make room and run the same command again"
    if not isinstance(error, OSError):
        return None
    if number is None or error.errno is None and not _NUMBER.search(str(error)):
        return " ".join(str(error).split()) or type(error).__name__
    hint = "; a file stands where a folder should be, or the other way round: choose another path"
    return f"{_where(error)}{os.strerror(number)}{hint if number in _PLACE else ''}"


def system_number(error: BaseException | None) -> int | None:
    """The system's number of an error or, of other libraries' errors, of the full disk that caused it."""
    found = None
    while error is not None:
        number = getattr(error, "errno", None) if isinstance(error, OSError) else None
        if number is None and (match := _NUMBER.search(str(error)[:10_000])):
            number = int(match[1])
        if number in NO_ROOM:
            return number
        found = found or number
        error = error.__cause__ or error.__context__
    return found


def _where(error: BaseException) -> str:
    names = [name for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if name]
    return f"{os.fsdecode(names[0]) if not isinstance(names[0], int) else names[0]}: " if names else ""


def _say(name: str, message: str) -> None:
    with suppress(OSError, ValueError):  # stderr may be gone as well
        print(f"{name}: {printable(message, _LENGTH)}", file=sys.stderr)


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader has seen enough, as in `command | head`."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # Windows, or no file at all
        return False


def _stdout_works() -> bool:
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return False
    return True


def _drop_stdout() -> None:
    """The interpreter flushes once more when it ends, and would complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _make_printable() -> None:
    """What is shown without this module's help: characters that a terminal's encoding lacks, warnings, tracebacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogFormatter("%(message)s"))
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _show


def _show(kind, error, trace) -> None:
    print(printable_lines("".join(traceback.format_exception(kind, error, trace)).rstrip()), file=sys.stderr)


@contextmanager
def _signals() -> Iterator[None]:
    """Signals that would end the process at once raise `Terminated` in this block."""

    late: list[threading.Timer] = []

    def end(number: int, _) -> None:
        signal.signal(number, signal.SIG_DFL)
        late.append(threading.Timer(_GRACE, os._exit, (128 + number,)))  # a library may wait for ever for its children
        late[-1].daemon = True
        late[-1].start()
        for module in ("multiprocessing", "multiprocess"):
            for child in sys.modules[module].active_children() if module in sys.modules else ():
                child.terminate()
        error = Terminated()
        error.number = signal.Signals(number)
        raise error

    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
        numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores one
        before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for timer in late:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """End this process, at once, when the one that started it ends, however that ends.

    For children that Python's multiprocessing starts, as soon as they run any code.
    """

    def follow() -> None:
        # os.getppid() is another one if it has ended by now; Python knows the right one a moment after the imports
        while (parent := multiprocessing.parent_process()) is None or parent.pid is None:
            time.sleep(0.05)
        end_with(parent.pid, grace=0.0)

    threading.Thread(target=follow, daemon=True, name="find parent").start()


@functools.cache
def _guard_children() -> None:
    """Copies of this process, which libraries make without asking us, end with it too."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: end_with(os.getppid(), grace=0.0))


def end_with_launcher() -> None:
    """End this process when `accelerate launch` or torchrun started it and ends: they hand no signal on.

    Their variables stay in the environment of shells that they started, so the parent's own command counts as well.
    """
    if not any(name.startswith(("ACCELERATE_", "TORCHELASTIC_")) for name in os.environ):
        return
    import psutil  # accelerate needs it

    with suppress(psutil.Error):
        words = " ".join(psutil.Process(os.getppid()).cmdline())
        if any(name in words for name in ("accelerate", "torchrun", "torch.distributed", "deepspeed")):
            end_with(os.getppid())


def end_with(pid: int, grace: float = _GRACE) -> None:
    """End this process when another one ends: by the system where it can (Linux, for the parent), else by a thread.

    On Windows nothing tells that another process has ended, and this does nothing.

    Args:
        pid: the other process, the parent or one further up.
        grace: seconds to end in order, after which the process ends as it is.
    """
    parent = os.getppid() == pid
    if parent and grace and sys.platform == "linux":  # for a child that a thread started the system goes by the thread
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def alive() -> bool:
        if parent or sys.platform == "win32":
            return os.getppid() == pid
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return True

    def watch() -> None:
        while alive():
            time.sleep(_POLL)
        if grace:
            with suppress(OSError):
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(grace)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
