"""The one progress bar: how far a command is, on stderr.

On a terminal it is tqdm's bar, in a notebook its widget. Where the output is no terminal (a log, a job) it is a plain
line every half minute. The end is one line with how many, how fast and where the result lies; what takes less than two
seconds says nothing. Of several processes of one run the first alone speaks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from sgrl.terminal import printable

T = TypeVar("T")

SHORT = 2.0
"""Seconds after which there is something to say."""
EVERY = 30.0
"""Seconds from one plain line to the next."""

now = time.monotonic


class Progress:
    """How far something is that takes a while; a context.

    Args:
        what: it is, in a word or two.
        total: of what is done, None where nobody knows.
        unit: of what is counted, in the singular.
        done: of the total, before this start.
        where: the result lies, for the last line.
        show: False for no word at all.

    >>> with Progress("reading", 3, "file") as progress:
    ...     for _ in range(3):
    ...         progress.update()
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        unit: str = "row",
        *,
        done: int = 0,
        where: object = None,
        show: bool = True,
    ):
        self.what, self.total, self.unit, self.where = printable(what, 40), total, unit, where
        self.done = self._before = done
        self._show = show and is_first()
        self._start = self._said = now()
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._start = self._said = now()
        if self._show and _is_terminal():
            self._bar = _tqdm(self)
        return self

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._show and (moment := now()) - self._said >= EVERY:
            self._said = moment
            self._say(f"{self._counted()}, {self._rate()}{self._left()}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if not self._show or self.seconds < SHORT or kind is GeneratorExit:  # whoever takes items had enough of them
            return
        stopped = "" if kind is None else ", not finished"
        where = "" if self.where is None or kind is not None else f"; in {printable(self.where, 200)}"
        self._say(f"{self._counted()} in {duration(self.seconds)}, {self._rate()}{stopped}{where}")

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each counted when the next one is asked for."""
        with self:
            for item in items:
                yield item
                self.update()

    @property
    def seconds(self) -> float:
        return now() - self._start

    def _say(self, words: str) -> None:
        try:
            print(f"{self.what}: {words}", file=sys.stderr, flush=True)
        except (OSError, ValueError):  # nobody listens any more: no reason to end the work
            self._show = False

    def _counted(self) -> str:
        of = "" if self.total is None or self.total == self.done else f" of {self.total:,}"
        return f"{self.done:,}{of} {self.unit}{'s' * (self.done != 1 or bool(of))}"

    def _rate(self) -> str:
        each = (self.done - self._before) / max(self.seconds, 1e-9)
        if each >= 1 or not each:
            return f"{each:,.0f} a second" if each >= 10 else f"{each:.1f} a second"
        return f"{1 / each:.1f} s each"

    def _left(self) -> str:
        made = self.done - self._before
        if self.total is None or made <= 0 or self.total <= self.done:
            return ""
        return f", about {duration(self.seconds / made * (self.total - self.done))} left"


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes.

    >>> duration(7), duration(125), duration(7500)
    ('7 s', '2:05 min', '2:05 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    high, low = divmod(whole if whole < 3600 else whole // 60, 60)
    return f"{high}:{low:02} {'min' if whole < 3600 else 'h'}"


def is_first() -> bool:
    """Whether this process speaks for its run: the first of a launcher's, and no child of Python's multiprocessing."""
    child = "multiprocessing" in sys.modules and sys.modules["multiprocessing"].parent_process() is not None
    return os.environ.get("RANK", "0") == "0" and not child


def _is_notebook() -> bool:
    """Whether a kernel runs this; that ipykernel is imported says nothing, those who start kernels import it too."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _is_terminal() -> bool:
    try:
        return _is_notebook() or sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def _tqdm(progress: Progress) -> Any:
    """tqdm's bar, which leaves nothing behind; None where tqdm is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(
        desc=progress.what,
        total=progress.total,
        initial=progress.done,
        unit=f" {progress.unit}s",
        leave=False,
        file=None if _is_notebook() else sys.stderr,
        dynamic_ncols=True,
    )
