"""Image files: opened, checked against the annotation, scaled, encoded, by one process or several."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from data_prep.readers.record import EmbeddedImage
from data_prep.workers import in_order
from sgrl.errors import SgrlError
from sgrl.images import check_file, opened, orientation, rgb, transparent, turned
from sgrl.terminal import printable

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

T = TypeVar("T")


class Job(NamedTuple):
    """The arguments of `encoded`."""

    path: Path | EmbeddedImage
    expected: tuple[int, int]
    size: tuple[int, int] | None
    quality: int


def encoded(
    path: Path | EmbeddedImage, expected: tuple[int, int], size: tuple[int, int] | None = None, quality: int = 95
) -> bytes:
    """The bytes of an image at `size`.

    The file's own bytes are returned when nothing has to change; else a JPEG of `quality`, scaled bilinearly without
    regard to the aspect (as SceneGraphVLM does). Every image is decoded completely, so a truncated file is found.

    An image that lies on its side or its head according to its EXIF is turned, as viewers do, unless the annotation's
    size is the stored one and would not be that of the turned image.

    Args:
        path: an image file, see `sgrl.images`.
        expected: (width, height) in pixels that the annotation was made for.
        size: (width, height) to scale to, None to keep.

    Raises:
        SgrlError: the file is missing, does not open, or has another size than expected.
    """
    raw = file_bytes(path)
    with opened(raw, path) as image:
        if image.format != "JPEG":
            image.load()  # a PNG may say further down how it lies, a TIFF is turned by Pillow
        turn = orientation(image)
        sizes = (image.size, image.size[::-1] if turn >= 5 else image.size)
        if expected not in sizes:
            found = " or ".join(map(_by, dict.fromkeys(sizes)))
            raise SgrlError(f"image {printable(path)} has {found} pixels, its annotation says {_by(expected)}")
        turn = turn if expected == sizes[1] else 1
        plain = image.mode == "RGB" and orientation(image) == 1 and not transparent(image)
        if plain and image.format in ("JPEG", "PNG") and size in (None, expected):
            image.load()
            return raw
        of_file = raw if plain and image.format == "JPEG" else None
        return _jpeg(scaled(image if of_file else turned(rgb(image), turn), size or expected, of_file), quality)


def file_bytes(path: Path | EmbeddedImage) -> bytes:
    """What an image file holds. Raises SgrlError for what cannot be read, as a folder or a link to nothing."""
    if isinstance(path, EmbeddedImage):
        return path.data
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        check_file(path)
        raise SgrlError(f"image {printable(path)} cannot be read: {printable(error)}") from None


def scaled(image: Image.Image, size: tuple[int, int], jpeg: bytes | None = None) -> np.ndarray:
    """An image at another size, bilinearly, as OpenCV has its pixels: (height, width, BGR) uint8.

    OpenCV makes images larger, in less than half of Pillow's time and to within one grey level of it. Smaller ones are
    Pillow's, which averages all pixels where OpenCV leaves some out.

    Args:
        image: of any mode.
        size: (width, height) in pixels.
        jpeg: the file with the very pixels of `image`; OpenCV reads it without the copy that Pillow's pixels need.
    """
    import cv2
    import numpy as np
    from PIL import Image

    smaller = size[0] < image.width or size[1] < image.height
    pixels = None
    if jpeg and not smaller:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:  # also of a damaged file: Pillow says what is wrong with it
        image = image if image.mode == "RGB" else rgb(image)
        if smaller:
            image = image.resize(size, Image.Resampling.BILINEAR)
        pixels = np.frombuffer(image.tobytes("raw", "BGR"), np.uint8).reshape(image.height, image.width, 3)
    if pixels.shape[1::-1] != size:
        cv2.setNumThreads(1)  # --workers says how many cores to use
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    return pixels


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """As Pillow's, of the same sampling, without a copy into an image."""
    import cv2

    return cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def encode_all(
    drafts: Iterable[tuple[T, Job | None]], workers: int = 1
) -> Generator[tuple[T, bytes | SgrlError | None], None, None]:
    """Each first item of the pairs with its encoded image, in their order: bytes, the error, or None without a job.

    workers: processes that encode, in addition to this one; 1 for this one alone. A few chunks wait at any time,
    however many pairs there are.

    Raises:
        SgrlError: a process died, for lack of memory most likely.
    """
    if workers == 1:
        _keep_freed_memory()
    yield from in_order(_outcome, drafts, workers, _keep_freed_memory)


def _outcome(job: Job | None) -> bytes | SgrlError | None:
    try:
        return None if job is None else encoded(*job)
    except SgrlError as error:
        return error


def _keep_freed_memory() -> None:
    """Let the C library keep the pixels of one image for the next instead of giving them back to the system.

    A tenth of the time goes into new pages otherwise. glibc keeps what is not larger than the largest block that was
    freed so far, up to 32 MB (mallopt(3), M_MMAP_THRESHOLD); this one is never written, so it takes no memory.
    """
    import numpy as np

    np.empty(31 << 20, np.uint8)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
