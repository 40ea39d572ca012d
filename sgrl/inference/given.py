"""What a program may hand over as an image, made into the RGB image that a model sees.

| given | taken as |
| --- | --- |
| a path, `bytes`, an open file, a URL (`https:`, `http:`, `file:`) | an image file, upright: see `sgrl.images` |
| a PIL image | as it is: one that was opened by PIL is not turned by its EXIF |
| a numpy array | (height, width, 3) RGB; also (3, height, width), 1 channel for grey, 4 for RGB and alpha |
| a torch tensor, anywhere | (3, height, width) RGB, as torchvision has it; also (height, width, 3), 1 or 4 channels |

Arrays are uint8 from 0 to 255, or floating point from 0 to 1. `bgr=True` is for arrays whose channels OpenCV ordered.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sgrl.errors import SgrlError
from sgrl.images import open_image, rgb
from sgrl.inference.folders import Folder, is_video
from sgrl.terminal import printable

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

LARGEST_DOWNLOAD = 2**28
"""Bytes of an image that is fetched at most."""

TIMEOUT = 30.0
"""Seconds that a server may stay silent."""

_WEB = ("http", "https")
_CHANNELS = (1, 3, 4)
_NEARLY = 1e-3  # rounding of a normalisation that was turned back


class WrongImage(SgrlError):
    """Something that a program should not hand over as an image; not a file that is damaged."""


def as_image(given: Any, bgr: bool = False) -> Image.Image:
    """The RGB image; see the table above.

    Raises:
        WrongImage: another type, or an array of another dtype, shape or range. SgrlError: a file that does not open.
    """
    if isinstance(given, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(given, "read"):
        if bgr:
            raise WrongImage("bgr=True is for arrays; image files say their colours themselves")
        if isinstance(given, str) and "://" in given[:8]:
            return _of_url(given)
        return open_image(given)
    pillow = _pillow_image(given)
    if pillow is not None:
        if bgr:
            raise WrongImage("bgr=True is for arrays; PIL images say their colours themselves")
        return pillow
    return _of_array(given, bgr)


def frames_of(frames: Any) -> Iterator[Any]:
    """The frames of a stream one by one: of any iterable, of a video file or a folder of images by its path, of the
    camera with a number.

    Raises:
        SgrlError: no such video, or OpenCV is missing.
    """
    if isinstance(frames, str | os.PathLike) and not is_video(os.fspath(frames)):
        folder = Path(frames)
        if not folder.is_dir():
            raise SgrlError(f"{folder} is no video and no folder of frames; expected one, or any iterable of images")
        return iter([found.path for found in Folder(folder).files])
    if isinstance(frames, str | os.PathLike) or (isinstance(frames, int) and not isinstance(frames, bool)):
        return _captured(frames)
    if not isinstance(frames, Iterable) or isinstance(frames, bytes):
        raise WrongImage(f"frames are a {type(frames).__name__}; expected an iterable of images, a path or a number")
    return iter(frames)


def _captured(source: str | os.PathLike | int) -> Iterator[Image.Image]:
    from PIL import Image

    from sgrl.inference.rows import capture_of

    capture = capture_of(source)
    import cv2

    try:
        while True:
            read, pixels = capture.read()
            if not read:
                return
            yield Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()


def _of_url(url: str) -> Image.Image:
    import urllib.error
    import urllib.request

    parts = urlsplit(url)
    if parts.scheme == "file":
        return open_image(urllib.request.url2pathname(parts.path))
    name = printable(url.partition("?")[0], 200)  # what follows may be a key
    if parts.scheme not in _WEB:
        raise WrongImage(f"the URL {name} begins with {printable(parts.scheme, 20)}:, expected https:, http: or file:")
    request = urllib.request.Request(url, headers={"User-Agent": "sgrl"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            found = response.read(LARGEST_DOWNLOAD + 1)
    except (OSError, ValueError, urllib.error.URLError) as error:
        said = error.reason if type(error) is urllib.error.URLError else error
        raise SgrlError(f"image {name} cannot be fetched: {printable(said, 200)}") from None
    if len(found) > LARGEST_DOWNLOAD:
        raise SgrlError(f"image {name} has more than {LARGEST_DOWNLOAD:,} bytes; make it smaller")
    return open_image(found, name)


def _pillow_image(given: Any) -> Image.Image | None:
    from PIL import Image

    if not isinstance(given, Image.Image):
        return None
    try:
        given.load()
        found = given if given.mode == "RGB" else rgb(given)
    except Exception as error:  # a file that PIL opens when it is asked for pixels
        raise SgrlError(f"the PIL image does not open: {printable(error, 200)}") from None
    if min(found.size) < 1:
        raise WrongImage(f"the PIL image is {found.width} x {found.height} pixels, expected at least 1 x 1")
    return found


def _of_array(given: Any, bgr: bool) -> Image.Image:
    """An array or tensor; what it is called in messages is its type's name."""
    import numpy as np
    from PIL import Image

    name = type(given).__name__
    tensor = hasattr(given, "detach")
    if tensor:
        given = given.detach().cpu()
        given = (given.float() if given.is_floating_point() else given).numpy()
    elif not hasattr(given, "__array__") or not hasattr(given, "dtype"):
        raise WrongImage(
            f"an image is a {name}; expected a path, bytes, a URL, a PIL image, a numpy array or a torch tensor"
        )
    pixels = _last_channels(np.asarray(given), name, tensor)
    pixels = _bytes(pixels, name)
    if bgr and pixels.shape[2] < 3:
        raise WrongImage(f"bgr=True, but the {name} has {pixels.shape[2]} channel")
    if bgr:
        pixels = pixels[:, :, [2, 1, 0, *range(3, pixels.shape[2])]]
    if pixels.shape[2] == 1:
        return Image.fromarray(np.repeat(pixels, 3, axis=2))
    found = Image.fromarray(np.ascontiguousarray(pixels))
    return found if found.mode == "RGB" else rgb(found)


def _last_channels(pixels: np.ndarray, name: str, tensor: bool) -> np.ndarray:
    """(height, width, channels) of what has 2 or 3 axes."""
    import numpy as np

    shape = " x ".join(map(str, pixels.shape))
    if pixels.ndim == 4:
        raise WrongImage(f"the {name} is {shape}: a batch; give a list of its images, list(array)")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise WrongImage(f"the {name} is {shape or 'a number'}; expected height x width x 3 or 3 x height x width")
    first, last = pixels.shape[0] in _CHANNELS, pixels.shape[2] in _CHANNELS
    if not first and not last:
        raise WrongImage(f"the {name} is {shape}; expected 1, 3 or 4 channels on the first or the last axis")
    if first and (tensor or not last):
        return np.moveaxis(pixels, 0, 2)
    return pixels


def _bytes(pixels: np.ndarray, name: str) -> np.ndarray:
    """uint8 of it."""
    import numpy as np

    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind != "f":
        raise WrongImage(
            f"the {name} holds {pixels.dtype}; expected uint8 from 0 to 255 or floating point from 0 to 1"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not (-_NEARLY <= low and high <= 1 + _NEARLY):  # also for what is no number
        raise WrongImage(
            f"the {name} holds {pixels.dtype} from {low:.4g} to {high:.4g}; floating point must be from 0 to 1 "
            "(divide by 255, or turn the normalisation back)"
        )
    return np.rint(pixels.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)
