"""Unpickle downloads that hold plain data and numpy arrays, and nothing else.

A pickle may name any function of any installed module and have it called, so `pickle.load` on a file from elsewhere is
running that file. Here names come from a short list; anything else is refused before it is even imported.
"""

from __future__ import annotations

import gc
import pickle
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sgrl.errors import SgrlError


def _latin1(text: str, encoding: str) -> bytes:
    """How old protocols spell bytes: _codecs.encode(text, 'latin1'). Other codecs could inflate without bounds."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}; expected 'latin1'")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""  # old protocols spell it bytes(); with an argument it would be an error


# numpy's own functions are not called with what the file says: a crafted state of a dtype corrupts numpy's memory.


class _DType:
    """numpy.dtype(code) of a pickle; `real` is the numpy type when all of it has been checked."""

    __slots__ = ("real",)

    def __init__(self, code: str, *_):
        if not (isinstance(code, str) and re.fullmatch("[biuf][1248]", code)):
            raise pickle.UnpicklingError(f"an array of the type {code!r}; expected numbers")
        self.real = np.dtype(code)

    def __setstate__(self, state: tuple):
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"an array with the byte order {state[1]!r}")
        self.real = self.real.newbyteorder(state[1])


class _Array(np.ndarray):
    """The empty array that _reconstruct makes and the next opcode fills."""

    def __setstate__(self, state: tuple):
        _version, shape, dtype, fortran, data = state
        if type(data) is not bytes or not all(type(side) is int and side >= 0 for side in shape):
            raise pickle.UnpicklingError("an array without its bytes")
        super().__setstate__((1, shape, dtype.real, bool(fortran), data))  # compares the number of bytes


def _array(data: bytes, dtype: _DType, shape: tuple, order: str = "C") -> np.ndarray:
    return np.frombuffer(data, dtype.real).reshape(shape, order=order)


_FUNCTIONS = {
    "_reconstruct": lambda *_: np.ndarray.__new__(_Array, (0,), np.int8),
    "scalar": lambda dtype, data: _array(data, dtype, (1,))[0],
    "_frombuffer": _array,
}
_ALLOWED = {
    ("numpy", "ndarray"): "ndarray",  # only ever an argument
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _latin1,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    # numpy 2 moved its core; files written by either are read by either
    **{(f"numpy.{core}.multiarray", name): _FUNCTIONS[name] for core in ("core", "_core") for name in _FUNCTIONS},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FUNCTIONS["_frombuffer"] for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    refused: str | None = None
    own: dict[tuple[str, str], object] = {}

    def find_class(self, module: str, name: str):
        try:
            return self.own.get((module, name)) or _ALLOWED[module, name]
        except KeyError:
            self.refused = f"{module}.{name}"
            raise pickle.UnpicklingError("refused") from None


def load(path: str | Path):
    """The object in a pickle file, built of dict, list, tuple, str, bytes, numbers, None and numpy arrays.

    Raises SgrlError for a file that asks for any other class or function (none is called, the message has its name),
    for one that is truncated, and for one that is not a pickle.
    """
    path = Path(path)
    with path.open("rb") as file:
        return load_stream(path, file, {})


def load_stream(path: Path, file: BinaryIO, own: dict[tuple[str, str], object]):
    """`load` from an open file; `path` is for messages. own: (module, name) -> what a pickle of ours may ask for."""
    collect = gc.isenabled()
    gc.disable()  # millions of new containers, none of them garbage: each collection would walk them all in vain
    try:
        unpickler = _Unpickler(file)
        unpickler.own = own
        try:
            return unpickler.load()
        except SgrlError:
            raise
        except Exception as error:  # damaged opcodes raise nearly anything
            raise SgrlError(_reason(path, unpickler, error)) from None
    finally:
        if collect:
            gc.enable()


def _reason(path: Path, unpickler: _Unpickler, error: Exception) -> str:
    if unpickler.refused:
        return (
            f"{path} is refused: it asks for {unpickler.refused}, and unpickling that could run code. Only plain data "
            "and numpy arrays are read; get the file from the data set's own site"
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(40)
        file.seek(max(size - 1, 0))
        last = file.read()
    if head.startswith(b"version https://git-lfs"):
        return f"{path} is a git-LFS pointer, not the file itself; fetch it with git lfs pull"
    if size and head[:1] != b"\x80" and head[:1] not in b"(])}":  # every protocol from 2 on begins with 0x80
        return f"{path} is not a pickle, it begins with {head!r}; download it again"
    if isinstance(error, EOFError) or "truncated" in str(error) or last != b".":
        return f"{path} is truncated: its {size:,} bytes end in the middle of the data; download or copy it again"
    return f"{path} is damaged ({type(error).__name__}: {str(error)[:200]}); download or copy it again"
