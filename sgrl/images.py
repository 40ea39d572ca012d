"""The one way in which an image is opened: readers, data sets, training, inference, report and drawings agree on it.

What comes out is always upright, 8 bits a channel, RGB:

| image | becomes |
| --- | --- |
| grey, one bit, palette | the same colours |
| transparent (an alpha channel, or colours that are marked so) | the image on white paper |
| CMYK, YCbCr, LAB | Pillow's colours of it; CMYK in a JPEG is inverted, as Adobe writes it and all viewers take it |
| grey of more than 8 bits (16, 32, floating point) | its darkest value 0 and its brightest 255, as ImageJ shows them |
| colour of 16 bits a channel | the upper 8 |
| several frames or pages | the first |

A grey image of one value has no darkest and brightest one: 65,535 is white there, and 1.0 in floating point. Values
that are no number are black. Colour profiles are not applied.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from sgrl.errors import SgrlError
from sgrl.terminal import printable

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What is tried, by the first bytes of a file. Pillow knows more, and starts another program for some of them."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""The names of such files."""

MAX_PIXELS = 178_956_970
"""Width times height of the largest image, where Pillow takes one for an attack (half a gigabyte of RGB)."""

Source = str | os.PathLike | bytes | IO[bytes] | Mapping
"""A path, the bytes of a file, an open file, or {"bytes": ..., "path": ...} as `datasets` stores an image."""

_ORIENTATION, _PHOTOMETRIC, _SAMPLE_FORMAT = 0x0112, 262, 339  # tags of EXIF and TIFF


class Sizes(NamedTuple):
    """(width, height) in pixels of an image as its file stores it (a TIFF: as it is seen), and as it is seen."""

    stored: tuple[int, int]
    upright: tuple[int, int]


def open_image(source: Source, name: object = None) -> Image.Image:
    """The decoded image: upright, RGB, without metadata; see the table above.

    name: what errors call it; by default its path.

    Raises:
        SgrlError: in one line, for whatever keeps it from being seen: no such file, another format, damage, more than
            MAX_PIXELS.
    """
    with opened(source, name) as image:
        image.load()  # a PNG may say further down how it lies
        return turned(rgb(image), orientation(image))


def image_column(names: Iterable[str]) -> str:
    """Which of the columns holds what a model is shown: "image", or "images" for lists of them."""
    return "images" if "images" in names else "image"


def image_sizes(source: Source, name: object = None) -> Sizes:
    """How large it is; only its header is read. Raises SgrlError as `open_image` does, but for damage further on."""
    with opened(source, name) as image:
        return _sizes(image)


def check_image(source: Source, name: object = None) -> tuple[int, int]:
    """Its upright (width, height), after all of it was decoded; a JPEG at an eighth of its size, which is faster.

    Raises SgrlError as `open_image` does.
    """
    with opened(source, name) as image:
        size = _sizes(image).upright
        if image.format == "JPEG":
            image.draft(None, (1, 1))
            image.load()
        else:
            rgb(image)
        return size


def file_name(text: str) -> str:
    """An id as the name of a file without a suffix; ids may hold slashes and anything else."""
    stem, suffix = os.path.splitext(text)
    text = stem if suffix.lower() in SUFFIXES else text
    return re.sub(r"[^\w.-]+", "_", text).strip("._")[:120] or "image"


@contextlib.contextmanager
def opened(source: Source, name: object = None) -> Iterator[Image.Image]:
    """The image as Pillow has it, its header read and its pixels not.

    Raises SgrlError for what goes wrong in the block that uses it, too.
    """
    if isinstance(source, Mapping):
        path: Any = source.get("path")
        data: Any = source.get("bytes")
        source = path if data is None else data
        name = path if name is None else name
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source) if name is None else name
        check_file(source, name)
    called = _called(name)
    if source is None:
        raise SgrlError(f"{called} is missing: there are neither bytes nor a path")
    try:
        file = io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source
        with _pillow().open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise SgrlError(_too_large(called))
            yield image
    except SgrlError:
        raise
    except Exception as error:  # decoders raise nearly anything: OSError, SyntaxError, struct.error, TypeError, ...
        raise SgrlError(_reason(called, error)) from None


def check_file(path: str | os.PathLike, name: object = None) -> None:
    """Raise SgrlError for what is no file: a pipe, for one, would be waited for."""
    called = _called(path if name is None else name)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise SgrlError(f"{called} {'is a link to nothing' if os.path.islink(path) else 'does not exist'}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise SgrlError(_reason(called, error)) from None
    if not stat.S_ISREG(mode):
        raise SgrlError(f"{called} is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}")


def _sizes(image: Image.Image) -> Sizes:
    """Of an image whose pixels are not read yet."""
    on_its_side = image.format != "TIFF" and orientation(image) >= 5  # Pillow turns a TIFF by itself
    return Sizes(image.size, image.size[::-1] if on_its_side else image.size)


def orientation(image: Image.Image) -> int:
    """How the image is turned: 1 upright, up to 8 as EXIF counts them; 1 if its metadata cannot be read."""
    try:
        exif = image.getexif() if _exif_may_follow(image) else _pillow().Image.getexif(image)
        found = exif.get(_ORIENTATION, 1)
    except Exception:  # the picture is there all the same
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _exif_may_follow(image: Image.Image) -> bool:
    """False for a PNG without EXIF: Pillow would decode all of it to see whether some comes behind the pixels."""
    file = getattr(image, "fp", None)  # of an image that is opened
    if image.format != "PNG" or "exif" in image.info or file is None:
        return True
    place = file.tell()
    rest = file.read()
    file.seek(place)
    return b"eXIf" in rest


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image that was stored in an EXIF `orientation`, upright."""
    if orientation == 1:
        return image
    ways = _pillow().Transpose
    way = {
        2: ways.FLIP_LEFT_RIGHT,
        3: ways.ROTATE_180,
        4: ways.FLIP_TOP_BOTTOM,
        5: ways.TRANSPOSE,
        6: ways.ROTATE_270,
        7: ways.TRANSVERSE,
        8: ways.ROTATE_90,
    }
    return image.transpose(way[orientation])


def transparent(image: Image.Image) -> bool:
    """Whether something may shine through."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def rgb(image: Image.Image) -> Image.Image:
    """A copy in 8-bit RGB as it is stored, without metadata that would turn it once more; see the table above."""
    pillow = _pillow()
    if image.mode == "F" or image.mode.startswith("I"):
        found = pillow.fromarray(_grey(image)).convert("RGB")
    elif transparent(image):
        clear = image.convert("RGBA")
        found = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), clear).convert("RGB")
    elif image.mode == "RGB":
        found = image.copy()
    else:
        found = image.convert("RGB")
    found.info = {}
    return found


def _grey(image: Image.Image) -> np.ndarray:
    """(height, width) uint8 of a grey image of more than 8 bits."""
    import numpy as np

    tags = getattr(image, "tag_v2", {})  # of a TIFF
    values = np.asarray(image)
    if tags and image.mode == "I" and 2 not in tags.get(_SAMPLE_FORMAT, (1,)):
        values = values.view(np.uint32)  # Pillow has no mode for them
    clear = values == image.info.get("transparency")
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("no pixel is a finite number")
    low, high = finite.min(), finite.max()
    if low == high:
        low, high = 0, 1 if image.mode == "F" else 65535
    grey = (np.nan_to_num(values, nan=low, posinf=high, neginf=low).clip(low, high) - low) / (high - low)
    if tags.get(_PHOTOMETRIC) == 0:  # 0 is white; Pillow turns this round for 8 bits alone
        grey = 1 - grey
    return np.rint(255 * np.where(clear, 1, grey)).astype(np.uint8)


@functools.cache
def _pillow():
    from PIL import Image

    # It warns from half of MAX_PIXELS on; photographs of 108 megapixels are no attack.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image


def _called(name: object) -> str:
    return "image" if name is None else f"image {printable(name)}"


def _too_large(called: str) -> str:
    return f"{called} has more than {MAX_PIXELS:,} pixels; make it smaller"


def _reason(called: str, error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"{called} does not open: it is damaged, or none of {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return _too_large(called)
    if isinstance(error, OSError) and error.strerror:
        return f"{called} cannot be read: {error.strerror}"
    message = printable(str(error), 200)
    return f"{called} does not open: {type(error).__name__}" + f": {message}" * bool(message)
