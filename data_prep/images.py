"""Image files: opened, checked against the annotation, scaled, encoded."""

from __future__ import annotations

import io
from pathlib import Path

from sgrl.errors import SgrlError

_ORIENTATION = 0x0112  # EXIF


def encoded(path: Path, expected: tuple[int, int], size: tuple[int, int] | None = None, quality: int = 95) -> bytes:
    """The bytes of an image at `size`.

    The file's own bytes are returned when nothing has to change; else a JPEG of `quality`, scaled bilinearly without
    regard to the aspect (as SceneGraphVLM does). Every image is decoded completely, so a truncated file is found.

    Args:
        path: an image file of any format that Pillow reads.
        expected: (width, height) in pixels that the annotation was made for.
        size: (width, height) to scale to, None to keep.

    Raises:
        SgrlError: the file is missing, does not open, or has another size than expected.
    """
    from PIL import Image, ImageOps

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SgrlError(f"image {path} cannot be read: {error.strerror or error}") from None
    try:
        with Image.open(io.BytesIO(raw)) as image:
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1) != 1
            unchanged = image.format in ("JPEG", "PNG") and image.mode == "RGB" and not turned
            if turned and image.size != expected:
                image = ImageOps.exif_transpose(image)  # the annotators saw it turned
            if image.size != expected:
                raise SgrlError(f"image {path} has {_by(image.size)} pixels, its annotation says {_by(expected)}")
            if unchanged and size in (None, expected):
                return raw
            image = image.convert("RGB")
            if size not in (None, expected):
                image = image.resize(size, Image.Resampling.BILINEAR)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality)
            return buffer.getvalue()
    except SgrlError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        raise SgrlError(f"image {path} does not open: {type(error).__name__}: {error}") from None


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
