"""Unpickle downloads that hold plain data and numpy arrays, and nothing else.

A pickle may name any function of any installed module and have it called, so `pickle.load` on a file from elsewhere is
running that file. Here names come from a short list; anything else is refused before it is even imported. What a file
makes, and the time it takes, are bounded by its own size: no number of its memo makes room for all below it, bytes are
not copied over and over, and no tuple is a key, for the hash of nested and shared ones takes for ever or overflows the
stack.
"""

from __future__ import annotations

import gc
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from sgrl.errors import SgrlError
from sgrl.terminal import printable

_FREE = 1 << 20  # bytes that every file may make, besides a multiple of those it has
_KEYS = (str, bytes, int, float, bool, type(None))
_LARGEST_KEY = 1 << 64  # Python hashes all digits of a whole number each time


class Budget:
    """How many bytes a file may still make: arrays may share theirs, so that a small file could fill the memory."""

    def __init__(self, size: int):
        self.left = 8 * size + _FREE

    def spend(self, number: int) -> None:
        """Raises UnpicklingError when nothing is left."""
        self.left -= number
        if self.left < 0:
            raise pickle.UnpicklingError("it makes far more data than it has")


# numpy's own functions are not called with what the file says: a crafted state of a dtype corrupts numpy's memory.


class _DType:
    """numpy.dtype(code) of a pickle; `real` is the numpy type when all of it has been checked."""

    __slots__ = ("real",)

    def __init__(self, code: str, *_):
        if not (isinstance(code, str) and re.fullmatch("[biuf][1248]", code)):
            raise pickle.UnpicklingError(f"an array of the type {code!r:.40}; expected numbers")
        self.real = np.dtype(code)

    def __setstate__(self, state):
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an array with an unknown byte order")
        self.real = self.real.newbyteorder(state[1])


class _Array(np.ndarray):
    """The empty array that _reconstruct makes and the next opcode fills."""

    __slots__ = ("budget",)
    budget: Budget

    def __setstate__(self, state):
        _version, shape, dtype, fortran, data = state
        if type(data) is not bytes or not all(type(side) is int and side >= 0 for side in shape):
            raise pickle.UnpicklingError("an array without its bytes")
        self.budget.spend(len(data))  # those of another byte order are copied
        super().__setstate__((1, tuple(shape), dtype.real, bool(fortran), data))  # compares the number of bytes


def _array(data: bytes, dtype: _DType, shape: Any, order: Any = "C") -> np.ndarray:
    return np.frombuffer(data, dtype.real).reshape(shape, order=order)


def _scalar(dtype: _DType, data: bytes):
    return _array(data, dtype, (1,))[0]


def _no_bytes() -> bytes:
    return b""  # old protocols spell it bytes(); with an argument it would be an error


class _Functions:
    """What a pickle may ask for."""

    refused: str | None = None

    def __init__(self, file: BinaryIO, budget: Budget, own: dict[tuple[str, str], object]):
        super().__init__(file)  # type: ignore[call-arg]  # of the Unpickler that stands beside it
        self._budget = budget
        self._allowed = {
            ("numpy", "ndarray"): "ndarray",  # only ever an argument
            ("numpy", "dtype"): _DType,
            ("_codecs", "encode"): self._latin1,
            ("builtins", "bytes"): _no_bytes,
            ("__builtin__", "bytes"): _no_bytes,
            **own,
        }
        for core in ("core", "_core"):  # numpy 2 moved its core; files written by either are read by either
            self._allowed[f"numpy.{core}.multiarray", "_reconstruct"] = self._reconstruct
            self._allowed[f"numpy.{core}.multiarray", "scalar"] = _scalar
            self._allowed[f"numpy.{core}.multiarray", "_frombuffer"] = _array
            self._allowed[f"numpy.{core}.numeric", "_frombuffer"] = _array

    def find_class(self, module: str, name: str):
        try:
            return self._allowed[module, name]
        except KeyError:
            self.refused = f"{module}.{name}"
            raise pickle.UnpicklingError("refused") from None

    def _reconstruct(self, *_) -> _Array:
        array = np.ndarray.__new__(_Array, (0,), np.int8)
        array.budget = self._budget
        return array

    def _latin1(self, text: str, encoding: str) -> bytes:
        """How old protocols spell bytes: _codecs.encode(text, 'latin1'). Other codecs could inflate without bounds."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r:.40}; expected 'latin1'")
        self._budget.spend(len(text))
        return text.encode("latin1")


class _Quick(_Functions, pickle.Unpickler):
    """For what `pickle_stream` made harmless. A tuple followed by BINPERSID becomes a list."""

    persistent_load: Callable[[Any], list] = staticmethod(list)  # type: ignore[assignment]  # called for each tuple


class _Whole(_Functions, pickle._Unpickler):
    """Python's own in Python, for any file: its memo is a dictionary, and what makes keys is checked here."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]  # this and the next are pickle's own
    pop_mark: Callable[[], list[Any]]

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append(_filled({}, items))

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _filled(self.stack[-1], [key, value])

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        _filled(self.stack[-1], items)

    def _load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _DType | _Array):
            raise pickle.UnpicklingError("it changes what is no array")
        self.stack[-1].__setstate__(state)

    dispatch[pickle.DICT[0]] = _load_dict
    dispatch[pickle.SETITEM[0]] = _load_setitem
    dispatch[pickle.SETITEMS[0]] = _load_setitems
    dispatch[pickle.BUILD[0]] = _load_build
    for _opcode in (pickle.ADDITEMS, pickle.FROZENSET, pickle.EMPTY_SET, pickle.BINPERSID, pickle.PERSID):
        del dispatch[_opcode[0]]  # the data has no sets


def _filled(table: dict, items: list) -> dict:
    if type(table) is not dict:
        raise pickle.UnpicklingError("items of what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in _KEYS or (type(key) is int and abs(key) > _LARGEST_KEY):
            raise pickle.UnpicklingError(f"a key that is a {type(key).__name__}; expected text or a number")
        table[key] = value
    return table


def load(path: str | Path):
    """The object in a pickle file, built of dict, list, tuple, str, bytes, numbers, None and numpy arrays.

    Raises SgrlError for a file that asks for any other class or function (none is called, the message has its name),
    for one that is truncated, and for one that is not a pickle.
    """
    path = Path(path)
    with path.open("rb") as file:
        return _load(path, _Whole(file, Budget(path.stat().st_size), {}))


def load_stream(path: Path, file: BinaryIO, own: dict[tuple[str, str], object]):
    """`load` from the opcodes that `pickle_stream` passes on; `path` is the file that they are of.

    own: (module, name) -> what they may ask for besides.
    """
    return _load(path, _Quick(file, Budget(path.stat().st_size), own))


def _load(path: Path, unpickler: _Quick | _Whole):
    collect = gc.isenabled()
    gc.disable()  # millions of new containers, none of them garbage: each collection would walk them all in vain
    try:
        return unpickler.load()
    except SgrlError:
        raise
    except Exception as error:  # damaged opcodes raise nearly anything
        raise SgrlError(_reason(path, unpickler, error)) from None
    finally:
        if collect:
            gc.enable()


def _reason(path: Path, unpickler: _Quick | _Whole, error: Exception) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(40)
        file.seek(max(size - 1, 0))
        last = file.read()
    if unpickler.refused and last == b"." and not unpickler.refused.endswith("."):  # else a name may be cut off
        return (
            f"{path} is refused: it asks for {printable(unpickler.refused, 100)}, and unpickling that could run code. "
            "Only plain data and numpy arrays are read; get the file from the data set's own site"
        )
    if head.startswith(b"version https://git-lfs"):
        return f"{path} is a git-LFS pointer, not the file itself; fetch it with git lfs pull"
    if size and head[:1] != b"\x80" and head[:1] not in b"(])}":  # every protocol from 2 on begins with 0x80
        return f"{path} is not a pickle, it begins with {head!r}; download it again"
    if isinstance(error, EOFError) or "truncated" in str(error) or last != b".":
        return f"{path} is truncated: its {size:,} bytes end in the middle of the data; download or copy it again"
    return f"{path} is damaged ({type(error).__name__}: {printable(error, 200)}); download or copy it again"
