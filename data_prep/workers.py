"""Work in several processes, its results in order."""

from __future__ import annotations

import itertools
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from sgrl.errors import SgrlError
from sgrl.process import end_with_parent

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

_CHUNK = 16  # arguments that a process gets at once


def in_order(
    work: Callable[[A], R],
    pairs: Iterable[tuple[T, A]],
    workers: int = 1,
    prepare: Callable[[], None] | None = None,
) -> Generator[tuple[T, R], None, None]:
    """Each first item of the pairs with `work` of the second, in their order.

    A few chunks wait at any time, however many pairs there are.

    Args:
        work: a function of a module, as are its argument and its result something that can be pickled.
        workers: processes that work, in addition to this one; 1 for this one alone.
        prepare: what each of them does first.

    Raises:
        SgrlError: a process died, for lack of memory most likely.
    """
    if workers == 1:
        for item, argument in pairs:
            yield item, work(argument)
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # A fresh interpreter each: a copy of this one could hold a lock of one of its threads for ever.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_prepare, initargs=(prepare,))
    waiting: deque = deque()
    try:
        iterator = iter(pairs)
        while chunk := list(itertools.islice(iterator, _CHUNK)):
            items, arguments = zip(*chunk, strict=True)
            waiting.append((items, pool.submit(_all, work, arguments)))
            if len(waiting) > 2 * workers:
                yield from _finished(*waiting.popleft())
        while waiting:
            yield from _finished(*waiting.popleft())
    except BrokenProcessPool:
        raise SgrlError(
            "a process that reads or draws images died, perhaps for lack of memory; use fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(items: tuple, future: Future) -> Iterator[tuple]:
    yield from zip(items, future.result(), strict=True)


def _all(work: Callable, arguments: tuple) -> list:
    return [work(argument) for argument in arguments]


def _prepare(prepare: Callable[[], None] | None) -> None:
    """Ctrl-C reaches every process of the terminal; the one that reads and writes ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if prepare is not None:
        prepare()
