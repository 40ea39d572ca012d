"""A pickled dictionary item by item is the dictionary, whatever it shares; damage and code are refused."""

import os
import pickle

import numpy as np
import pytest

from data_prep.readers import pickle_stream, safe_pickle
from sgrl.errors import SgrlError

SHARED = [1, "shared", {"deep": (2.5, None)}]


def content(items=2500):
    """Strings short and long, arrays, numbers of every size, and containers that several items share."""
    rng = np.random.default_rng(0)
    return {
        f"key {i}": {
            "label": ("cup/glass", "person")[i % 2],
            "unique": f"text {i} " + "x" * int(rng.integers(0, 400)),
            "bytes": bytes(int(rng.integers(0, 300))),
            "numbers": [i, -i, i << 40, i / 7, True, False, None],
            "box": (i / 3, 2.0, 3.0, 4.0),
            "array": rng.random((i % 4, 17, 3)).astype(np.float32),
            "shared": SHARED,
        }
        for i in range(items)
    }


def collected(path):
    found = {}
    pickle_stream.each_item(path, found.__setitem__)
    return found


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):  # some tuples come as lists
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_items_are_those_of_the_dictionary(tmp_path, protocol, monkeypatch):
    path, data = tmp_path / "data.pkl", content(1300)
    path.write_bytes(pickle.dumps(data, protocol))
    for chunk in (1 << 20, 5000):
        monkeypatch.setattr(pickle_stream, "_CHUNK", chunk)
        found = collected(path)
        assert same(found, data)
        first, second = found["key 0"]["shared"], found["key 1299"]["shared"]
        assert first is second and list(first[2]["deep"]) == [2.5, None]


def read_and_drop(path):
    pickle_stream.each_item(path, lambda key, value: None)


def test_memory_does_not_hold_the_items(tmp_path, traced_peak):
    peaks = []
    for items in (3000, 9000):
        path = tmp_path / f"{items}.pkl"
        path.write_bytes(pickle.dumps(content(items), 3))
        peaks.append(traced_peak(read_and_drop, path))
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.parametrize("other", [[1, 2], "text", 5, {}])
def test_what_is_no_dictionary_comes_as_one_item(tmp_path, other):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(other, 3))
    assert collected(path) == ({None: other} if other != {} else {})


def test_every_truncation_is_reported(tmp_path):
    path, raw = tmp_path / "data.pkl", pickle.dumps(content(12), 3)
    for length in range(3, len(raw), 97):
        path.write_bytes(raw[:length])
        with pytest.raises(SgrlError, match="truncated|damaged"):
            collected(path)


def test_random_damage_never_escapes(tmp_path):
    path, raw = tmp_path / "data.pkl", bytearray(pickle.dumps(content(5), 3))
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = raw.copy()
        broken[int(rng.integers(3, len(raw)))] = int(rng.integers(256))
        path.write_bytes(broken)
        try:
            collected(path)
        except SgrlError:
            pass


class Runs:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_code_is_refused(tmp_path):
    path, target = tmp_path / "data.pkl", tmp_path / "was-run"
    path.write_bytes(pickle.dumps({"a": [1], "b": Runs(str(target))}, 3))
    with pytest.raises(SgrlError, match=r"refused: it asks for (posix|nt)\.mkdir"):
        collected(path)
    assert not target.exists()
    path.write_bytes(b"\x80\x03cdata_prep\nitems\n.")  # what stands for the dictionary is of no use to a file
    with pytest.raises(SgrlError, match="refused: it asks for data_prep.items"):
        safe_pickle.load(path)


def test_errors_of_the_caller_come_through(tmp_path):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(content(3), 3))

    def take(key, value):
        raise SgrlError(f"not {key}")

    with pytest.raises(SgrlError, match="^not key 0$"):
        pickle_stream.each_item(path, take)
