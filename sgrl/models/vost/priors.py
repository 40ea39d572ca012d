"""Priors as files: what a vision-language model said of each image, with the texts and regions as vectors.

    priors.json           what made them: models and what they were trained on, prompt, encoders, data set, vocabulary
    priors.parquet        a row per image: whether a person was found, and the pairs
    text.safetensors      "objects" (C, L) and "predicates" (R, L), in the vocabulary's order, length 1
    features/*.safetensors  image_id -> (pairs, 3, V) float16: subject, object, union; may be missing

`write_text`, `write_features` and `write_priors` write such a folder, priors.json last; `Priors` reads it. The folder
may hold other files, such as the answers themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sgrl.errors import SgrlError
from sgrl.files import atomic_path, natural
from sgrl.folds import fold_of
from sgrl.terminal import printable
from sgrl.vocabulary import Vocabulary

FORMAT = 1
ABOUT, ROWS, TEXT, FEATURES = "priors.json", "priors.parquet", "text.safetensors", "features"

Box = tuple[float, float, float, float]
WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)
"""The box of a person that was not found."""


@dataclass(frozen=True)
class PriorPair:
    """Two things and what is said of them.

    Attributes:
        subject, label: classes of subject and object, in the vocabulary's spelling.
        subject_box, box: their corners as fractions of the image's width and height.
        predicates: in the vocabulary's spelling; none if nothing was said.
        scores: one in [0, 1] for each predicate, if they are known.
    """

    subject: str
    subject_box: Box
    label: str
    box: Box
    predicates: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True)
class FramePriors:
    """What one model said of one image.

    Attributes:
        image_id: as the rows of the data set have it. video_id, frame: the same, None for images.
        pairs: in the model's order; their positions are the rows of the image's features.
        person: whether a person was found; without one `subject_box` is WHOLE_IMAGE.
        model: which of `PriorsInfo.models` was asked.
    """

    image_id: str
    pairs: tuple[PriorPair, ...]
    video_id: str | None = None
    frame: int | None = None
    person: bool = True
    model: int = 0


@dataclass(frozen=True)
class AskedModel:
    """A model that was asked.

    Attributes:
        name: path or name. fingerprint: of its files.
        trained: whether it was trained on videos of the data set's training split.
        folds, seed, left_out: of cross-fitting: it was trained without the videos whose `fold_of(video_id, folds,
            seed)` is `left_out`. Without `left_out` it has seen all.
    """

    name: str
    fingerprint: str = ""
    trained: bool = False
    folds: int = 1
    seed: int = 0
    left_out: int | None = None

    def has_seen(self, video: str) -> bool:
        """Whether it was trained on this video (of images: `image_id`) of the training split."""
        return self.trained and (self.left_out is None or fold_of(video, self.folds, self.seed) != self.left_out)


@dataclass(frozen=True)
class PriorsInfo:
    """What made a folder of priors; priors.json.

    Attributes:
        dataset: name of the data set, as its rows have it in the column `dataset`.
        fingerprints: split -> `sgrl.files.fingerprint` of the split's files.
        vocabulary: names labels and rows of the texts.
        models: those that were asked; none for a folder of texts alone.
        prompt: how they were asked: kind, version, hash. text_encoder, vision_encoder: name and fingerprint.
    """

    dataset: str
    fingerprints: Mapping[str, str]
    vocabulary: Vocabulary
    models: tuple[AskedModel, ...] = ()
    prompt: Mapping[str, Any] | None = None
    text_encoder: Mapping[str, Any] | None = None
    vision_encoder: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("dataset", "prompt", "text_encoder", "vision_encoder")}
        return {
            **{"format": FORMAT, **plain, "fingerprints": dict(self.fingerprints)},
            **{"vocabulary": self.vocabulary.to_json(), "models": [asdict(model) for model in self.models]},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> PriorsInfo:
        """Raises KeyError, TypeError or SgrlError for what `to_json` did not write."""
        if found["format"] != FORMAT:
            raise SgrlError(f"format {printable(found['format'], 20)}; expected {FORMAT}")
        names = ("dataset", "fingerprints", "prompt", "text_encoder", "vision_encoder")
        models = tuple(AskedModel(**model) for model in found["models"])
        rest: dict[str, Any] = {name: found.get(name) for name in names}
        return cls(vocabulary=Vocabulary.from_json(found["vocabulary"]), models=models, **rest)


def write_text(folder: str | Path, objects: np.ndarray, predicates: np.ndarray) -> None:
    """The vectors of classes (C, L) and predicates (R, L), which are brought to length 1."""
    tables = {"objects": objects, "predicates": predicates}
    _save(Path(folder) / TEXT, {name: _unit(np.asarray(table, np.float32)) for name, table in tables.items()})


def write_features(folder: str | Path, part: str, features: Mapping[str, np.ndarray]) -> Path:
    """One file of regions, image_id -> (pairs, 3, V); `part` is its name, such as "00000-of-00002-0007"."""
    path = Path(folder) / FEATURES / f"{part}.safetensors"
    _save(path, {name: np.ascontiguousarray(array, np.float16) for name, array in features.items()})
    return path


def written_features(folder: str | Path) -> set[str]:
    """The images whose regions are there already."""
    return set(_feature_places(Path(folder)))


def write_priors(folder: str | Path, info: PriorsInfo, frames: Iterable[FramePriors]) -> int:
    """The rows, then priors.json, which makes the folder one of priors. Returns how many rows there are.

    Raises:
        SgrlError: a label of another vocabulary, a model that `info` does not have, an image that comes twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known, seen, count = _Known(info), set(), 0
    with atomic_path(folder / ROWS) as path, parquet.ParquetWriter(path, _schema()) as writer:
        batch: list[dict] = []
        for frame in frames:
            known.check(frame)
            if frame.image_id in seen:
                raise SgrlError(f"priors of the image {printable(frame.image_id, 80)!r} come twice; expected one row")
            seen.add(frame.image_id)
            row = asdict(frame)
            batch.append(row)
            count += 1
            if len(batch) == 1000:
                writer.write_table(pa.Table.from_pylist(batch, _schema()))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, _schema()))
    with atomic_path(folder / ABOUT) as path:
        path.write_text(json.dumps(info.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return count


class Priors:
    """A folder of priors, read image by image.

    Args:
        folder: written by `write_priors`.

    Attributes:
        info: what made them. objects (C, L), predicates (R, L): vectors of the texts, float32.
        visual_size: V of the regions; None without.
        missing: image_id of those that were asked for and have none; they get no pairs.

    Raises:
        SgrlError: no such folder, or files that cannot be read or do not fit.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / ABOUT).is_file():
            raise SgrlError(f"{self.folder} has no {ABOUT}; expected what recipes/extract_priors.py wrote to its end")
        try:
            self.info = PriorsInfo.from_json(json.loads((self.folder / ABOUT).read_text(encoding="utf-8")))
            tables = _load(self.folder / TEXT)
            self.objects, self.predicates = (_unit(tables[name]) for name in ("objects", "predicates"))
            self._table = _rows(self.folder / ROWS)
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            said = printable(f"{type(error).__name__}: {error}", 200)
            raise SgrlError(f"{self.folder} cannot be read as priors ({said}); extract them again") from None
        vocabulary = self.info.vocabulary
        for name, labels in (("objects", vocabulary.objects), ("predicates", vocabulary.predicates)):
            if getattr(self, name).shape[:1] != (len(labels),):
                found = getattr(self, name).shape
                raise SgrlError(f"{self.folder / TEXT}: {name} of shape {found}; expected {len(labels)} rows")
        self._place = {image: i for i, image in enumerate(self._table.column("image_id").to_pylist())}
        self._files = _feature_places(self.folder)
        self._opened: dict[Path, Any] = {}
        self.missing: set[str] = set()

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._place

    def __getstate__(self) -> dict:  # open files stay in their process
        return self.__dict__ | {"_opened": {}}

    @property
    def text_size(self) -> int:
        return self.objects.shape[1]

    @cached_property
    def visual_size(self) -> int | None:
        first = next(iter(self._files), None)
        return None if first is None else self._array(first).shape[-1]

    def get(self, image_id: str) -> FramePriors | None:
        """What was said of an image; None, counted in `missing`, where nothing is known of it."""
        place = self._place.get(image_id)
        if place is None:
            self.missing.add(image_id)
            return None
        row = self._table.slice(place, 1).to_pylist()[0]
        pairs = [_pair(pair) for pair in row.pop("pairs") or ()]
        return FramePriors(pairs=tuple(pairs), **row)

    def features(self, image_id: str) -> np.ndarray | None:
        """(pairs, 3, V) float32, or None where the image has none."""
        return self._array(image_id).astype(np.float32) if image_id in self._files else None

    def check(self, dataset: str, split: str, fingerprint: str, vocabulary: Vocabulary) -> None:
        """That they are of this data set.

        Args: its name, the split that is to be read, the fingerprint of the split's files, its vocabulary.

        Raises:
            SgrlError: another data set, split, or vocabulary.
        """
        info = self.info
        if info.vocabulary.to_json() | {"name": ""} != vocabulary.to_json() | {"name": ""}:
            raise SgrlError(
                f"{self.folder} has priors of another vocabulary ({info.vocabulary.name!r}, "
                f"{len(info.vocabulary.objects)} classes, {len(info.vocabulary.predicates)} predicates); the data set "
                f"has {vocabulary.name!r} with {len(vocabulary.objects)} and {len(vocabulary.predicates)}: extract "
                "priors for it"
            )
        if info.dataset != dataset:
            raise SgrlError(
                f"{self.folder} has priors of the data set {info.dataset!r}, not of {dataset!r}; extract its own"
            )
        if info.models and info.fingerprints.get(split) != fingerprint:
            what = "has none of" if split not in info.fingerprints else "was made for other files of"
            raise SgrlError(f"{self.folder} {what} the split {split!r} of {dataset!r}; extract priors for these files")

    def check_leaks(self, frames: Iterable[tuple[str, str | None]], allow_seen: bool = False) -> int:
        """That no model was asked about a video that it was trained on.

        Args:
            frames: image_id and video_id of the training split's rows. allow_seen: count them only.

        Returns: how many images are of videos that their model has seen.

        Raises:
            SgrlError: one is, and that is not allowed.
        """
        models, seen = self.info.models, 0
        asked = self._table.column("model").to_pylist()
        known: dict[tuple[int, str], bool] = {}
        for image_id, video_id in frames:
            if (place := self._place.get(image_id)) is None:
                continue
            key = asked[place], image_id if video_id is None else video_id
            if key not in known:
                known[key] = models[key[0]].has_seen(key[1])
            if known[key] and not allow_seen:
                raise SgrlError(
                    f"{self.folder}: the priors of {printable(key[1], 80)!r} come from "
                    f"{printable(models[key[0]].name, 120)!r}, which was trained on it: they are cleaner than those "
                    "of the test will be. Ask a model that left its fold out (--folds), or set "
                    "`allow_seen_priors: true` as the paper does"
                )
            seen += known[key]
        return seen

    def _array(self, image_id: str) -> np.ndarray:
        from safetensors import safe_open

        path = self._files[image_id]
        if path not in self._opened:
            self._opened[path] = safe_open(path, framework="numpy")
        return self._opened[path].get_tensor(image_id)


class _Known:
    """Whether a row is of the folder's vocabulary and models."""

    def __init__(self, info: PriorsInfo):
        self._info = info
        self._objects, self._predicates = set(info.vocabulary.objects), set(info.vocabulary.predicates)

    def check(self, frame: FramePriors) -> None:
        place = f"priors of the image {printable(frame.image_id, 80)!r}"
        if not 0 <= frame.model < len(self._info.models):
            raise SgrlError(f"{place}: model {frame.model}; there are {len(self._info.models)}")
        for pair in frame.pairs:
            strange = ({pair.subject, pair.label} - self._objects) | (set(pair.predicates) - self._predicates)
            if strange:
                label = printable(min(strange), 80)
                raise SgrlError(f"{place}: {label!r} is none of the labels of {self._info.vocabulary.name!r}")
            if not np.isfinite([pair.subject_box, pair.box]).all():
                raise SgrlError(f"{place}: a box of {pair.label!r} is not finite")


def _schema():
    import pyarrow as pa

    box, text = pa.list_(pa.float64()), pa.string()
    pair = {"subject": text, "subject_box": box, "label": text, "box": box}
    pair |= {"predicates": pa.list_(text), "scores": pa.list_(pa.float64())}
    frame = {"image_id": text, "video_id": text, "frame": pa.int64(), "person": pa.bool_(), "model": pa.int32()}
    return pa.schema(frame | {"pairs": pa.list_(pa.struct(pair))})


def _rows(path: Path):
    import pyarrow.parquet as parquet

    return parquet.read_table(path, schema=_schema(), memory_map=True)


def _pair(found: Mapping[str, Any]) -> PriorPair:
    boxes = {name: _inside(found[name]) for name in ("subject_box", "box")}
    scores = None if found["scores"] is None else tuple(found["scores"])
    return PriorPair(**{**found, **boxes, "predicates": tuple(found["predicates"] or ()), "scores": scores})


def _inside(box: Sequence[float]) -> Box:
    """Corners in order and within the image."""
    x1, y1, x2, y2 = np.clip(np.nan_to_num(np.asarray(box, np.float64)), 0.0, 1.0).tolist()
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _unit(table: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(table, axis=-1, keepdims=True)
    return np.divide(table, length, out=np.zeros_like(table), where=length > 0)


def _feature_places(folder: Path) -> dict[str, Path]:
    from safetensors import SafetensorError, safe_open

    places = {}
    for path in sorted((folder / FEATURES).glob("*.safetensors"), key=natural):
        try:
            with safe_open(path, framework="numpy") as opened:
                places.update(dict.fromkeys(opened.keys(), path))
        except (SafetensorError, OSError) as error:
            raise SgrlError(f"{path} is damaged ({printable(error, 100)}); extract the features again") from None
    return places


def _load(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{path.name}: {error}") from None


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        save_file(dict(arrays), part)
