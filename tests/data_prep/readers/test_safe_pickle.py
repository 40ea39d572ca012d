"""Plain data and arrays come through in every protocol; code is refused by name; damage is told apart."""

import gc
import os
import pickle
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest

from data_prep.readers import pickle_stream, safe_pickle
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


def nested(depth, shared):
    """The opcodes of a tuple in a tuple in a tuple; with `shared` each holds the one before twice."""
    raw = b")q\x00"
    for _ in range(depth):
        raw += b"h\x00\x86q\x00" if shared else b"\x85"
    return raw


HOSTILE = {
    "a huge memo index": b"K\x01r\xff\xff\xff\x7fj\xff\xff\xff\x7f0K\x01Ns.",
    "a key of tuples in tuples": nested(200_000, shared=False) + b"Ns.",
    "a key of tuples that share": nested(100, shared=True) + b"Ns.",
    "a key of a million digits": b"\x8b" + (400_000).to_bytes(4, "little") + b"\x7f" * 400_000 + b"Ns.",
    "a set": b"\x8f(K\x01\x90.",
    "attributes of a function": b"cnumpy.core.multiarray\nscalar\nN}X\x01\x00\x00\x00aNs\x86b.",
    "its own persistent object": b"X\x01\x00\x00\x00aQ.",
}


def each_item(path):
    pickle_stream.each_item(path, lambda key, value: None)


@pytest.mark.parametrize("load", [safe_pickle.load, each_item])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_opcodes_end_in_a_line(tmp_path, name, load):
    """The hash of nested tuples overflows the stack, that of shared ones never ends; a number takes no room."""
    path = tmp_path / "data.pkl"
    path.write_bytes(b"\x80\x03}K\x01}" + HOSTILE[name])  # in a dictionary of the dictionary
    tracemalloc.start()
    try:
        load(path)
    except SgrlError as error:
        assert "\n" not in str(error)
    else:
        assert name == "a huge memo index"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 60e6


@pytest.mark.parametrize("load", [safe_pickle.load, each_item])
def test_bytes_are_not_copied_over_and_over(tmp_path, load):
    """Each of many arrays of another byte order would copy the same megabyte."""
    array = np.arange(1 << 17, dtype=">f8")
    raw, data = pickle.dumps({"a": array}, 3), array.tobytes()
    start, end = raw.index(b"cnumpy"), raw.index(data) + len(data)
    assert raw[end : end + 1] == b"q"
    again = raw[start : end - len(data) - 5] + b"h" + raw[end + 1 : end + 2] + raw[end + 2 : -2]
    path = tmp_path / "data.pkl"
    path.write_bytes(raw[:-1] + 30 * (b"K\x01" + again + b"s") + b".")
    with pytest.raises(SgrlError, match="far more data than it has"):
        load(path)
    path.write_bytes(raw[:-1] + 3 * (b"K\x01" + again + b"s") + b".")
    load(path)
