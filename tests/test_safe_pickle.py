"""Plain data and arrays come through in every protocol; code is refused by name; damage is told apart."""

import gc
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from data_prep.readers import safe_pickle
from sgrl.errors import SgrlError

DATA = {
    "list": [1, 2.5, None, True, "text", b"bytes", b""],
    "tuple": (1, (2, 3)),
    "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "empty": np.zeros((0, 4), np.float32),
    "fortran": np.asfortranarray(np.eye(2)),
    "scalar": np.float64(1.25),
    "dtype": np.dtype("<f4"),
}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", ["core", "_core"])
def test_data_and_arrays_of_any_protocol_and_numpy(tmp_path, protocol, core):
    file = tmp_path / "data.pkl"
    raw = pickle.dumps(DATA, protocol)
    if protocol < 4:  # names are lines of text there, so the old ones can be put in
        raw = raw.replace(b"numpy._core.", b"numpy.%s." % core.encode())
    file.write_bytes(raw)
    found = safe_pickle.load(file)
    assert list(found) == list(DATA)
    assert found["list"] == DATA["list"] and found["tuple"] == DATA["tuple"]
    for name in ("array", "empty", "fortran", "scalar"):
        assert np.array_equal(found[name], DATA[name]) and found[name].dtype == DATA[name].dtype


class Runs:
    """Its pickle calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_refused_with_the_name_it_asked_for(tmp_path, protocol):
    target = tmp_path / "was-run"
    file = tmp_path / "bad.pkl"
    file.write_bytes(pickle.dumps({"key": Runs(os.mkdir, str(target))}, protocol))
    with pytest.raises(SgrlError, match=r"refused: it asks for (posix|nt)\.mkdir"):
        safe_pickle.load(file)
    assert not target.exists()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Runs(eval, "1"), "eval"),
        (Runs(getattr, 1, "real"), "getattr"),
        (Runs(pickle.loads, b"N."), "loads"),
        (Runs(np.load, "x"), "numpy.load"),
        (OrderedDict(), "collections.OrderedDict"),
    ],
)
def test_nothing_beyond_the_list(tmp_path, call, name):
    file = tmp_path / "bad.pkl"
    file.write_bytes(pickle.dumps(call, 2))
    with pytest.raises(SgrlError, match=f"refused: it asks for .*{name}"):
        safe_pickle.load(file)


def test_codecs_that_inflate_are_refused(tmp_path):
    file = tmp_path / "bad.pkl"
    file.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00bz2_cc\x86R.")
    with pytest.raises(SgrlError, match="'bz2_cc'; expected 'latin1'"):
        safe_pickle.load(file)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_truncation_is_reported(tmp_path, protocol):
    file = tmp_path / "data.pkl"
    raw = pickle.dumps(DATA, protocol)
    for length in range(2, len(raw) - 1, 7):
        file.write_bytes(raw[:length])
        with pytest.raises(SgrlError, match=f"truncated: its {length:,} bytes|damaged"):
            safe_pickle.load(file)
    file.write_bytes(raw[:-1])
    with pytest.raises(SgrlError, match="truncated"):
        safe_pickle.load(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:3a17\n", "git-LFS pointer"),
        (b"<!DOCTYPE html><html>", "not a pickle, it begins with b'<!DOCTYPE"),
        (b"", "truncated: its 0 bytes"),
        (b"\x80\x03}X\xff\xff\xff\x7f.", "truncated|damaged"),
        (b"\x80\x03garbage.", "damaged|truncated"),
    ],
)
def test_what_is_not_a_pickle(tmp_path, content, message):
    file = tmp_path / "data.pkl"
    file.write_bytes(content)
    with pytest.raises(SgrlError, match=message):
        safe_pickle.load(file)


def test_random_damage_never_escapes(tmp_path):
    file = tmp_path / "data.pkl"
    raw = bytearray(pickle.dumps(DATA, 3))
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = raw.copy()
        broken[int(rng.integers(2, len(raw)))] = int(rng.integers(256))
        file.write_bytes(broken)
        try:
            safe_pickle.load(file)
        except SgrlError:
            pass
    assert gc.isenabled()
    assert np.array_equal(np.zeros(3) + np.ones(3, np.float32), np.ones(3))  # numpy's own types are as they were


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([1j]), np.array([None]), np.zeros(1, "f4,i4")])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, value):
    file = tmp_path / "data.pkl"
    file.write_bytes(pickle.dumps(value, 3))
    with pytest.raises(SgrlError, match="an array of the type .*; expected numbers"):
        safe_pickle.load(file)
