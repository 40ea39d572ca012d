"""Opening images: what each kind becomes, and that whatever a file holds, the error is one line that names it."""

import io
import os
import random
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from sgrl.errors import SgrlError
from sgrl.images import FORMATS, MAX_PIXELS, check_image, image_sizes, open_image

RAMP = np.tile(np.linspace(0, 1, 96), (64, 1))
SHOWN = np.rint(255 * RAMP)
MORE = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}


def saved(image, kind="PNG", **more) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **more)
    return file.getvalue()


def pixels(source) -> np.ndarray:
    image = open_image(source)
    assert image.mode == "RGB" and not image.info and type(image) is Image.Image
    return np.asarray(image).astype(int)


def photo(seed: int = 0, size=(48, 32)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_format_opens_as_what_it_is(kind, tmp_path):
    assert set(FORMATS) >= {kind}
    original, data = photo(), saved(photo(), kind, **MORE.get(kind, {}))
    tolerance = {"JPEG": 4, "GIF": 20}.get(kind, 0)
    path = tmp_path / "named.jpg"  # names decide nothing
    path.write_bytes(data)
    for source in (data, path, str(path), io.BytesIO(data), {"bytes": data, "path": None}, {"path": str(path)}):
        assert np.abs(pixels(source) - np.asarray(original)).mean() <= tolerance
    assert image_sizes(path) == ((48, 32), (48, 32))


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.float32),
        (RAMP * 65535).astype(np.float32),
        (RAMP * 4 - 2).astype(np.float32),
        (RAMP * 65535).astype(np.uint16),
        (RAMP * 4095).astype(np.uint16),  # 12 bits, as of X-rays
        (20000 + RAMP * 10000).astype(np.uint16),  # a thermal camera's
        (RAMP * 65535).astype(np.int32),
        (RAMP * 2e9 - 1e9).astype(np.int32),
    ],
)
def test_grey_of_more_than_8_bits_keeps_what_can_be_seen(values):
    kinds = ["TIFF"] + ["PNG"] * (values.dtype == np.uint16)
    for kind in kinds:
        found = pixels(saved(values, kind))
        assert np.abs(found - SHOWN[..., None]).max() <= 1


def test_wide_greys_at_the_border():
    white, black = np.full((8, 8), 65535, np.uint16), np.zeros((8, 8), np.uint16)
    assert pixels(saved(white)).min() == 255 and pixels(saved(black)).max() == 0
    assert np.unique(pixels(saved(np.full((8, 8), 0.5, np.float32), "TIFF"))) == [128]
    holed = RAMP.astype(np.float32)
    holed[0, :3] = np.nan, np.inf, -np.inf
    found = pixels(saved(holed, "TIFF"))
    assert found[0, :3, 0].tolist() == [0, 255, 0] and np.abs(found[1:] - SHOWN[1:, :, None]).max() <= 1
    with pytest.raises(SgrlError, match="no pixel is a finite number"):
        open_image(saved(np.full((8, 8), np.nan, np.float32), "TIFF"))


@pytest.mark.parametrize("sample_format", [None, 1])
def test_unsigned_32_bits_and_white_that_is_zero(sample_format):
    """Tags that Pillow reads past: 4,294,967,295 is no -1, and a file may say that 0 is white."""
    values = (RAMP * 4294967295).astype(np.uint32)
    file = tiff(values.astype("<u4").tobytes(), 96, 64, 32, 1, sample_format)
    assert np.abs(pixels(file) - SHOWN[..., None]).max() <= 1
    file = tiff((RAMP * 65535).astype("<u2").tobytes(), 96, 64, 16, 0, sample_format)
    assert np.abs(pixels(file) - (255 - SHOWN)[..., None]).max() <= 1


def tiff(data: bytes, width: int, height: int, bits: int, photometric: int, sample_format: int | None) -> bytes:
    """An uncompressed grey TIFF in little endian."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    if sample_format:
        tags[339] = sample_format
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_what_is_transparent_lies_on_white():
    red = Image.new("RGBA", (4, 2), (255, 0, 0, 255))
    for x in range(2):
        for y in range(2):
            red.putpixel((x, y), (0, 0, 0, 0))  # black underneath, which nobody sees
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    for x in range(2):
        for y in range(2):
            palette.putpixel((x, y), 0)
    keyed = Image.new("RGB", (4, 2), (255, 0, 0))
    keyed.paste((0, 0, 0), (0, 0, 2, 2))
    files = [
        saved(red),
        saved(red, "WEBP", lossless=True),
        saved(red, "TIFF"),
        saved(palette, transparency=0),
        saved(palette, transparency=bytes([0, 255])),
        saved(palette, "GIF", transparency=0),
        saved(keyed, transparency=(0, 0, 0)),
    ]
    for file in files:
        found = pixels(file)
        assert found[:, :2].min() == 255 and (found[:, 2:] == (255, 0, 0)).all()
    half = Image.new("LA", (2, 2), (0, 128))
    assert np.unique(pixels(saved(half))).tolist() == [127]
    grey = Image.fromarray((RAMP * 65535).astype(np.uint16))
    assert pixels(saved(grey, transparency=0))[0, 0].tolist() == [255] * 3


def test_other_modes():
    blocks = Image.fromarray(np.kron(np.eye(2, 3), np.ones((16, 16))) > 0)
    expected = np.asarray(blocks)[..., None] * 255
    for kind in ("PNG", "TIFF", "BMP"):
        assert (pixels(saved(blocks, kind)) == expected).all()
    plain = Image.new("RGB", (32, 32), (200, 40, 90))
    for kind in ("JPEG", "TIFF"):  # a JPEG holds them inverted, a TIFF does not
        assert np.abs(pixels(saved(plain.convert("CMYK"), kind)) - (200, 40, 90)).max() <= 3
    assert np.abs(pixels(saved(plain.convert("YCbCr"), "TIFF")) - (200, 40, 90)).max() <= 3
    assert np.abs(pixels(saved(plain.quantize(4))) - (200, 40, 90)).max() == 0


def test_several_frames_are_their_first():
    first, second = Image.new("RGB", (8, 6), (255, 0, 0)), Image.new("RGB", (8, 6), (0, 255, 0))
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        found = pixels(saved(first, kind, save_all=True, append_images=[second], **MORE.get(kind, {})))
        assert (found == (255, 0, 0)).all(), kind


@pytest.mark.parametrize("turn", range(1, 9))
def test_images_are_upright(turn):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = turn
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = saved(photo(), kind, exif=exif, **MORE.get(kind, {}))
        image = open_image(data)
        assert np.array_equal(np.asarray(image), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), np.asarray(image)), "it would turn again"
        sizes = image_sizes(data)
        assert sizes.upright == image.size == ((48, 32) if turn < 5 else (32, 48))
        assert sizes.stored == (image.size if kind == "TIFF" else (48, 32))


def test_the_header_of_a_png_is_enough_for_its_size():
    """Nothing is decoded, unless its EXIF stands behind the pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(photo(), exif=exif)
    start = data.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
    late = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    assert image_sizes(late).upright == open_image(late).size == check_image(late) == (32, 48)
    assert image_sizes(PNG[:60]).upright == (48, 32)


def test_a_picture_with_broken_metadata_is_still_one():
    jpeg = saved(photo(), "JPEG")
    found = pixels(b"\xff\xd8\xff\xe1\x00\x14Exif\0\0broken data!" + jpeg[2:])
    assert np.array_equal(found, pixels(jpeg))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


PNG, JPEG = saved(photo()), saved(photo(), "JPEG")
BROKEN = {
    "nothing": b"",
    "a text": b"no image",
    "a cut JPEG": JPEG[: len(JPEG) // 2],
    "a cut PNG": PNG[: len(PNG) // 2],
    "a short head": PNG[:8] + chunk(b"IHDR", PNG[16:21]) + PNG[33:],
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n0 0 9 9 rectfill showpage\n",
    "cut TIFF tags": saved(photo(), "TIFF")[:-60],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_damage_is_one_line_with_the_name(kind, tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(BROKEN[kind])
    for source, name in ((path, None), (BROKEN[kind], "x.jpg"), ({"bytes": BROKEN[kind], "path": "x.jpg"}, None)):
        for call in (open_image, check_image):
            with pytest.raises(SgrlError, match=r"^image .*x\.jpg does not open: ") as caught:
                call(source, name)
        assert "\n" not in str(caught.value)


def test_no_program_is_started_for_postscript(tmp_path, monkeypatch):
    """Pillow starts `gs` where it may choose the format."""
    gs, mark = tmp_path / "gs", tmp_path / "mark"
    gs.write_text(f'#!/bin/sh\necho "$@" >> "{mark}"\ncase "$1" in --version) echo 10.0; exit 0;; esac\nexit 1\n')
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    with pytest.raises(subprocess.CalledProcessError):
        Image.open(io.BytesIO(BROKEN["PostScript"])).load()
    assert mark.exists(), "the stand-in would be found"
    mark.unlink()
    with pytest.raises(SgrlError):
        open_image(BROKEN["PostScript"])
    assert not mark.exists()


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    for source, message in (
        (tmp_path / "folder.jpg", "folder.jpg is a folder"),
        (tmp_path / "link.jpg", "link.jpg is a link to nothing"),
        (tmp_path / "pipe.jpg", "pipe.jpg is no regular file"),
        (tmp_path / "none.jpg", "none.jpg does not exist"),
        ("null\0byte\n", r"image null\\x00byte\\n does not open: ValueError"),
        ("half\ud800", r"image half\\ud800 does not "),
        (f"{tmp_path}/{'x' * 300}", "cannot be read: File name too long"),
        ({"bytes": None, "path": None}, "image is missing"),
        ({}, "image is missing"),
    ):
        with pytest.raises(SgrlError, match=message):
            open_image(source)


def test_too_many_pixels():
    def of(width, height):
        return PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + PNG[33:]

    for call in (open_image, image_sizes):
        for size in ((40000, 25000), (13378, 13378)):
            with pytest.raises(SgrlError, match=rf"x\.png has more than {MAX_PIXELS:,} pixels; make it smaller"):
                call(of(*size), "x.png")
    assert image_sizes(of(12000, 9000)).stored == (12000, 9000)  # 108 megapixels, and no warning


@pytest.mark.parametrize("error", [RecursionError, MemoryError, TypeError, struct.error, OverflowError])
def test_whatever_a_decoder_raises(error, monkeypatch):
    def fails(*_):
        raise error("deep\ninside")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fails)
    with pytest.raises(SgrlError, match=rf"^image a does not open: {error.__name__}: deep\\ninside$"):
        open_image(PNG, "a")


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("kind", FORMATS)
def test_mutated_files_open_or_are_refused(kind):
    chance = random.Random(kind)
    files = [saved(photo(), kind), saved(photo().quantize(16) if kind != "JPEG" else photo().convert("L"), kind)]
    for _ in range(150):
        data = bytearray(chance.choice(files))
        for _ in range(chance.choice((1, 3, 30))):
            where = chance.randrange(len(data)) if chance.random() < 0.5 else chance.randrange(min(100, len(data)))
            if chance.random() < 0.8:
                data[where] = chance.choice((0, 1, 127, 255, chance.randrange(256)))
            else:
                del data[where : where + chance.randrange(20)]
        try:
            size = open_image(bytes(data), "mutated").size
        except SgrlError as error:
            assert "\n" not in str(error) and "image mutated " in str(error)
            with pytest.raises(SgrlError):
                check_image(bytes(data))
        else:
            assert size == image_sizes(bytes(data)).upright == check_image(bytes(data))
