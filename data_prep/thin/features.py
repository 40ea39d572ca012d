"""Image features of video frames from any transformers model that sees, kept in a folder for the next time."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data_prep.thin.thinning import Unreadable, check_number
from sgrl.errors import SgrlError
from sgrl.extras import require
from sgrl.files import atomic_path
from sgrl.images import open_image

logger = logging.getLogger(__name__)

_MODEL_FILES = (".safetensors", ".bin", ".json")
_DECODERS = 4  # threads; Pillow decodes outside of the interpreter's lock
_BLACK = (336, 336)  # pixels of SceneGraphVLM's stand-in for a frame that cannot be read


class Embedder:
    """Turns frames into features.

    A model with `get_image_features` (CLIP, SigLIP, vision-language models) gives those, any other its pooled output;
    several tokens per image are averaged. The model is loaded when the first frame is not in the cache.

    Args:
        model: name on the Hub or folder of any model with an image processor that transformers.AutoModel loads.
        cache: folder, None for none. Features are found again as long as the model's files, the settings of its image
            processor (size, crop, normalisation) and the frame's file (name, size, time of change) are the same.
        batch_size: images per forward pass.
        device: "cpu", "cuda", ...; None for the best there is. Computations are in single precision.
        black_if_unreadable: put a black image in place of a frame that cannot be read, as SceneGraphVLM does.

    Raises:
        SgrlError: a model that is not there or has no image processor, torch or transformers missing; from `features`,
            a model that does not load or gives no features of images.
    """

    def __init__(
        self,
        model: str,
        cache: str | Path | None = None,
        batch_size: int = 32,
        device: str | None = None,
        black_if_unreadable: bool = False,
    ):
        check_number("batch_size", batch_size, 0, whole=True)
        require("torch", "train", "reading image features")
        transformers = require("transformers", "train", "reading image features")
        try:
            config = transformers.AutoConfig.from_pretrained(model, trust_remote_code=False)
            self._processor = transformers.AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
        except Exception as error:  # a damaged folder fails in many ways
            raise SgrlError(
                f"{model} is not there or has no image processor ({_first_line(error)}); give the name or folder of a "
                "model that sees, such as openai/clip-vit-large-patch14-336"
            ) from None
        self.model, self.batch_size, self.black_if_unreadable = model, batch_size, black_if_unreadable
        self._device, self._network, self._folder = device, None, None
        if cache is not None:
            key = _digest(_identity(model, config), self._processor.to_json_string())
            self._folder = Path(str(cache)) / f"{Path(model).name}-{key}"

    def features(self, frames: Sequence[Path], unreadable: Unreadable, video: str = "") -> np.ndarray:
        """(n, d) float32, a row per frame of one video; NaN for a frame that cannot be used, which is reported.

        Each frame that is not in the cache is decoded once, a little ahead of the model. `video` names the file of the
        cache, beside the folder of the first frame.
        """
        keys = [_frame_key(frame) for frame in frames]
        file = _file(self._folder, frames[0], video) if self._folder and frames else None
        stored = _load(file) if file else {}
        rows = {i: stored[key] for i, key in enumerate(keys) if key in stored}
        new = {}
        for i, row, shown in self._computed(frames, [i for i in range(len(frames)) if i not in rows], unreadable):
            rows[i] = row
            if not np.isfinite(row).all():
                unreadable(f"frame {frames[i]}: the features that {self.model} gives are not finite")
            elif shown:
                new[keys[i]] = row
        if file and new:
            _save(file, stored | new)
        features = np.full((len(frames), len(next(iter(rows.values()), [0]))), np.nan, np.float32)
        for i, row in rows.items():
            features[i] = row
        return features

    def _computed(
        self, frames: Sequence[Path], wanted: list[int], unreadable: Unreadable
    ) -> Iterator[tuple[int, np.ndarray, bool]]:
        """Position, features, and whether they are the frame's own."""
        images = zip(wanted, _decoded([frames[i] for i in wanted], 2 * self.batch_size), strict=True)
        usable = self._usable(images, unreadable)
        while batch := list(itertools.islice(usable, self.batch_size)):
            for (i, _, shown), row in zip(batch, self._embed([image for _, image, _ in batch]), strict=True):
                yield i, row, shown

    def _usable(self, images: Iterable[tuple[int, object]], unreadable: Unreadable) -> Iterator[tuple]:
        from PIL import Image

        for i, image in images:
            if not isinstance(image, SgrlError):
                yield i, image, True
                continue
            unreadable(str(image))
            if self.black_if_unreadable:
                yield i, Image.new("RGB", _BLACK), False

    def _embed(self, images: list) -> np.ndarray:
        """(n, d) float32."""
        import torch

        network = self._loaded()
        inputs = self._processor(images=images, return_tensors="pt").to(network.device)
        compute = getattr(network, "get_image_features", network)
        try:
            with torch.inference_mode():
                rows = _pooled(compute(**inputs))
            if len(rows) != len(images):
                raise ValueError(f"{len(rows)} features for {len(images)} images")
        except (TypeError, ValueError, AttributeError) as error:
            raise SgrlError(
                f"{self.model} gives no features of images alone ({_first_line(error)}); choose a vision model, such "
                "as openai/clip-vit-large-patch14-336"
            ) from error
        return rows.float().cpu().numpy()

    def _loaded(self):
        import torch
        from transformers import AutoModel

        if self._network is None:
            device = self._device
            if device is None:
                mps = torch.backends.mps.is_available()
                device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
            try:
                # CLIP's weights on the Hub are pickles; transformers reads tensors from them and calls nothing.
                network = AutoModel.from_pretrained(self.model, dtype=torch.float32, trust_remote_code=False)
                self._network = network.to(device).eval()
            except Exception as error:  # a damaged folder fails in many ways
                raise SgrlError(f"the model {self.model} does not load on {device}: {_first_line(error)}") from error
            logger.info("%s computes image features on %s.", self.model, device)
        return self._network


def _pooled(output):
    """(n, d) tensor from whatever a model says about n images."""
    import torch

    if not isinstance(output, torch.Tensor | list | tuple):
        pooled = getattr(output, "pooler_output", None)
        output = output.last_hidden_state if pooled is None else pooled
    if isinstance(output, list | tuple):  # images of different numbers of tokens
        return torch.stack([tokens.flatten(0, -2).mean(0) for tokens in output])
    if output.ndim == 4:  # (n, channels, height, width)
        return output.mean((2, 3))
    return output.mean(1) if output.ndim == 3 else output


def _decoded(frames: Sequence[Path], ahead: int) -> Iterator:
    """Images in order, or the SgrlError of one that cannot be read; up to `ahead` wait, decoded by threads."""
    with ThreadPoolExecutor(_DECODERS) as pool:
        waiting: deque[Future] = deque()
        try:
            for frame in frames:
                waiting.append(pool.submit(_open, frame))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _open(frame: Path):
    try:
        return open_image(frame)
    except SgrlError as error:
        return error


def _identity(model: str, config) -> str:
    """What changes when the model's weights do."""
    folder = Path(model)
    if not folder.is_dir():
        return f"{model}@{getattr(config, '_commit_hash', None)}"
    return "\n".join(_file_identity(file) for file in sorted(folder.iterdir()) if file.suffix in _MODEL_FILES)


def _file_identity(file: Path) -> str:
    status = file.stat()
    return f"{file.name} {status.st_size} {status.st_mtime_ns}"


def _frame_key(frame: Path) -> str:
    try:
        return _digest(_file_identity(frame))
    except OSError:
        return ""  # is in no cache


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


def _file(folder: Path, first_frame: Path, video: str) -> Path:
    name = "".join(c if c.isalnum() else "-" for c in video)[:64]
    return folder / f"{name}-{_digest(first_frame.parent.resolve(), video)}.npz"


def _load(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as found:
            return dict(zip(found["keys"].tolist(), found["rows"], strict=True))
    except FileNotFoundError:
        return {}
    except Exception as error:  # a damaged archive raises nearly anything
        logger.warning("%s is damaged (%s); its features are computed again.", file, _first_line(error))
        return {}


def _save(file: Path, rows: dict[str, np.ndarray]) -> None:
    if rows:
        with atomic_path(file) as temporary, temporary.open("wb") as out:
            np.savez(out, keys=np.array(list(rows)), rows=np.stack(list(rows.values())))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
