"""Boxes of mask values agree with looking for each value's pixels; files of masks; which image is whose."""

import io
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from data_prep.readers import masks
from data_prep.readers.masks import boxes
from sgrl.graph import GraphError


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
@pytest.mark.parametrize("top", [7, 200, 1 << 23])
def test_agrees_with_the_definition(dtype, top):
    top = min(top, np.iinfo(dtype).max)
    rng = np.random.default_rng(top)
    ids = rng.integers(1, top + 1, 6).tolist()
    mask = np.zeros((23, 31), dtype)
    for value in ids:
        x, y = rng.integers(0, 25), rng.integers(0, 18)
        mask[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = value
    expected = {}
    for value in dict.fromkeys(ids):
        rows, columns = np.nonzero(mask == value)
        if len(rows):
            expected[value] = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert boxes(mask, [*ids, top + 1, -1]) == expected


def test_edges():
    assert boxes(np.zeros((4, 5), int), [1]) == {} and boxes(np.zeros((0, 5), int), [1]) == {}
    assert boxes(np.full((4, 5), -1), [-1]) == {-1: (0, 0, 5, 4)}
    assert boxes(np.ones((4, 5), bool).astype("uint8"), []) == {}


def npy(shape, dtype="<u1"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": dtype})
    return buffer.getvalue()


def zipped(path, content, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("array.npy", content)
    return path


def test_arrays_that_declare_more_than_a_frame_are_refused_unread(tmp_path):
    """What numpy would unpack to gigabytes, and what it would make room for, ends at the header."""
    bomb = zipped(tmp_path / "bomb.npz", npy((30000, 30000)) + bytes(1 << 20))
    lzma = zipped(tmp_path / "lzma.npz", npy((2, 2)) + bytes(4), zipfile.ZIP_LZMA)
    tracemalloc.start()
    with pytest.raises(GraphError, match=r"the shape \(30000, 30000\); expected 67,108,864 pixels at most"):
        masks.load_array(bomb)
    for name, content, message in (
        ("huge.npy", npy((1 << 40, 4)) + bytes(100), "pixels at most"),
        ("short.npy", npy((100, 100)) + bytes(100), "truncated, 100 bytes of 10,000"),
        ("objects.npy", npy((1, 1), "|O") + bytes(8), "of object; expected two axes of whole numbers"),
        ("text.npy", b"nothing", "cannot be read: ValueError"),
        ("half.npy", npy((1, 1), "<f4") + np.float32(0.5).tobytes(), "expected two axes of whole numbers"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GraphError, match=message):
            masks.load_array(tmp_path / name)
    with pytest.raises(GraphError, match="not compressed as numpy does it"):
        masks.load_array(lzma)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_arrays_are_numpys(tmp_path):
    array = np.arange(12, dtype=np.uint16).reshape(3, 4)
    for stored in (array, np.asfortranarray(array), array[:, :, None], array.astype(float)):
        np.save(tmp_path / "a.npy", stored)
        np.savez_compressed(tmp_path / "a.npz", first=stored)
        for name in ("a.npy", "a.npz"):
            assert np.array_equal(masks.load_array(tmp_path / name), array)


def test_a_picture_with_more_pixels_than_a_frame_is_refused_unread(tmp_path):
    chunk = b"IHDR" + (20000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    raw = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    data = b"IDAT" + zlib.compress(bytes(1000))
    raw += (len(data) - 4).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(raw)
    with pytest.raises(GraphError, match="pixels"):
        masks.load_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("mask", "image", "first"),
    [
        (range(6), range(6), 0),
        (range(6), range(1, 7), 1),  # ffmpeg's numbers
        (range(6), range(1, 6), None),  # either image 0 or the last one is missing
        (range(6), range(2, 6), 0),
        (range(1, 6), range(1, 6), 0),
        ((), range(1, 6), 0),
        (range(6), (), 0),
    ],
)
def test_the_image_of_the_first_mask(mask, image, first):
    assert masks.first_image(set(mask), set(image)) == first


def test_numbered_files(tmp_path):
    for name in ("0001.png", "0001.jpg", "2.jpg", "x.png", "\u0663.png", "3.txt"):
        (tmp_path / name).touch()
    assert masks.numbered(tmp_path) == {1: tmp_path / "0001.png", 2: tmp_path / "2.jpg"}
    assert masks.numbered(tmp_path, (".jpg", ".png"))[1].name == "0001.jpg"
    assert masks.numbered(tmp_path / "nowhere") == masks.numbered(tmp_path / "a\0b") == {}
