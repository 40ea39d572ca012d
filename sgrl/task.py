"""The task of a model: how it is asked and what its answers mean, in the file `scene_graph.json` of its folder.

    Task.find("runs/grpo")               # of a model folder or a model on the Hub; None where it has none
    Task.read("psg")                     # one of NAMES, a file, a folder, a data set, a name on the Hub
    Task.of_dataset("data/psg")          # as the rows of a data set ask
    task.write("runs/grpo")

Whatever runs a model reads it, so that an image is all that a user has to bring. A file may be written by hand for
models of others; what it leaves out has the defaults of `Task`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sgrl import data
from sgrl.boxes import COORDS
from sgrl.context import CONTEXTS, TRAINING_CONTEXTS
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.files import atomic_path
from sgrl.models.vlm.coordinates import CONVENTIONS
from sgrl.models.vlm.template import stored_thinking
from sgrl.prompts import STYLES, check_style, scene_graph_prompt, split_previous
from sgrl.terminal import printable
from sgrl.text import get_codec
from sgrl.versions import PACKAGES, installed
from sgrl.vocabulary import VOCABULARIES, Vocabulary, get_vocabulary

logger = logging.getLogger(__name__)

FILE = "scene_graph.json"
OLD_FILE = "sgrl.json"
"""What version 0.1 wrote: the context of training alone."""

FORMAT = 1
"""Of the file. A reader takes those up to its own."""

NAMES = VOCABULARIES
"""Tasks by name: the lists of a data set with the full prompt, for models that were never trained on it."""

UNTRAINED_PIXELS = 1024 * 768
"""The most that models which were never trained here are shown: none of the servers makes it smaller on its own."""

LARGEST = 2**24
"""Bytes of a file that is read at most."""


@dataclass(frozen=True)
class Task:
    """How a model is asked for a scene graph.

    Attributes:
        vocabulary: the classes and predicates that prompts list.
        codec: the layout of its answers, a name of `sgrl.text.CODECS`.
        prompt: the user's message: "full", "short", or a text with slots, see `sgrl.prompts.scene_graph_prompt`.
        system: the system's message, None for none.
        opening: text that every answer is made to begin with (the prompt ends with it); None leaves it to the model.
        coordinates: "pixel" of what the model is shown, "norm1000", a convention of
            `sgrl.models.vlm.coordinates`, or "auto": that of the model's family.
        size: (width, height) in which it is shown every image; None keeps their shape.
        pixels: fewest and most (width times height) that it is shown; None for any.
        context: what prompts of videos hold of the frame before: "none", "generated" (the model's own graph), "gt".
        context_source: where that graph came from in training, one of TRAINING_CONTEXTS; None: never trained on any.
        thinking: whether its chat template opens a thinking block; None: as the template says.
        max_new_tokens: limit of an answer.
        dataset: what it was trained on, by name.
        kind: what loads it, see `sgrl.inference.scene_graph_model.KINDS`.
        model_type: that of the config.json which belongs to it; None: not known.
        settings: what kinds other than "vlm" need besides.
        versions: of the packages that wrote it.

    Raises:
        SgrlError: names the field.
    """

    vocabulary: Vocabulary
    codec: str = "toon"
    prompt: str = "full"
    system: str | None = None
    opening: str | None = None
    coordinates: str = "auto"
    size: tuple[int, int] | None = None
    pixels: tuple[int, int] | None = None
    context: str = "none"
    context_source: str | None = None
    thinking: bool | None = None
    max_new_tokens: int = 1024
    dataset: str | None = None
    kind: str = "vlm"
    model_type: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        get_codec(self.codec)
        check_style(self.prompt)
        for name, choices in (
            ("coordinates", ("auto", *dict.fromkeys((*COORDS, *CONVENTIONS)))),
            ("context", CONTEXTS),
            ("context_source", (None, *TRAINING_CONTEXTS)),
            ("thinking", (None, True, False)),
        ):
            if getattr(self, name) not in choices or type(getattr(self, name)) is int:
                named = [choice for choice in choices if choice is not None]
                raise SgrlError(f"{name} is {_shown(getattr(self, name))}{suggest(getattr(self, name), named)}")
        if not isinstance(self.kind, str):
            raise SgrlError(f"kind is {_shown(self.kind)}, expected a text such as 'vlm'")
        for name in ("system", "opening", "dataset", "model_type"):
            if not isinstance(getattr(self, name), str | None):
                raise SgrlError(f"{name} is {_shown(getattr(self, name))}, expected a text or null")
        for name in ("size", "pixels"):
            if (found := getattr(self, name)) is not None:
                object.__setattr__(self, name, _pair(name, found))
        if self.pixels and self.pixels[0] > self.pixels[1]:
            raise SgrlError(f"pixels is {list(self.pixels)}, expected the fewest before the most")
        if not _is_count(self.max_new_tokens):
            raise SgrlError(f"max_new_tokens is {_shown(self.max_new_tokens)}, expected a number from 1")
        for name in ("settings", "versions"):
            if not isinstance(getattr(self, name), Mapping):
                raise SgrlError(f"{name} is {_shown(getattr(self, name))}, expected an object")

    ################
    # Where tasks come from
    ################

    @classmethod
    def read(cls, source: str | Path) -> Task:
        """The task that is called, or lies at, `source`: one of NAMES, a file, a model folder, a data set (as its rows
        ask), or a model on the Hub.

        Raises:
            SgrlError: there is none, or it is damaged, or from a newer version.
        """
        name, path = str(source), Path(source)
        if name in NAMES:
            vocabulary = get_vocabulary(name)
            codec = "toon-pairs" if vocabulary.groups else "toon"
            return cls(vocabulary, codec, pixels=(0, UNTRAINED_PIXELS), dataset=name)
        if path.is_file():
            return cls.of_dataset(name) if path.suffix == ".parquet" else _load(path)
        found = cls.find(name)
        if found is None and path.is_dir() and data.splits(path):
            return cls.of_dataset(name)
        if found is None:
            raise SgrlError(f"{name} holds no task: no {FILE}; expected a folder or file, or {', '.join(NAMES)}")
        return found

    @classmethod
    def find(cls, model: str | Path) -> Task | None:
        """The task of a model folder (of a checkpoint or an adapter also that of its run) or of a model on the Hub.

        Raises:
            SgrlError: it is damaged, from a newer version, or belongs to other weights.
        """
        path = find_file(model, FILE)
        if path is None:
            return None
        task = _load(path)
        task._check_model(path, Path(model))
        return task

    @classmethod
    def of_dataset(cls, dataset: str | Path, **fields: Any) -> Task:
        """As the rows of a data set ask. fields: of the task, beside what the data set says.

        Raises:
            SgrlError: see `sgrl.data.read_metadata`.
        """
        metadata = data.read_metadata(dataset)
        size, coordinates = metadata.get("size"), metadata.get("coords", "pixel")
        if size is None and coordinates == "pixel" and "pixels" not in fields:
            fields["pixels"] = data.pixel_range(dataset)  # the processor would scale others: another frame
        system, prompt = _words_of(dataset, metadata)
        return cls(
            vocabulary=data.vocabulary_of(metadata),
            codec=metadata["codec"],
            prompt=prompt,
            system=system,
            coordinates=coordinates,
            size=size,
            **{
                "context": "generated" if metadata.get("previous") == "gt" else "none",
                "dataset": str(metadata.get("dataset") or metadata["vocabulary"]["name"]),
            }
            | fields,
        )

    def untrained(self, coordinates: str) -> Task:
        """For a model that never saw it: the full prompt, other coordinates, and images as it can see them best."""
        return replace(
            self, prompt="full", coordinates=coordinates, size=None, pixels=(0, UNTRAINED_PIXELS),
            context="none", context_source=None, thinking=None,
        )  # fmt: skip

    ################
    # The file
    ################

    def to_json(self) -> dict:
        """As it stands in the file; `from_json` turns it back."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        found["vocabulary"] = self.vocabulary.to_json()
        return {"format": FORMAT, "kind": found.pop("kind"), **found}

    @classmethod
    def from_json(cls, found: object) -> Task:
        """Raises SgrlError: not such a thing, or from a newer version."""
        if not isinstance(found, dict):
            raise SgrlError(f"expected a JSON object, found a {type(found).__name__}")
        found = dict(found)
        version = found.pop("format", FORMAT)
        if not _is_count(version):
            raise SgrlError(f"format is {_shown(version)}, expected a number from 1")
        if version > FORMAT:
            written = found.get("versions")
            by = f" (sgrl {_shown(written['sgrl'])})" if isinstance(written, dict) and "sgrl" in written else ""
            raise SgrlError(
                f"it has format {version}, written by a newer version{by}; this one reads up to {FORMAT}: update sgrl"
            )
        names = [f.name for f in fields(cls)]
        for name in found:
            if name not in names:
                raise UsageError(f"unknown key {_shown(name)}{suggest(printable(name, 60), names)}")
        vocabulary: Any = found.get("vocabulary")
        try:
            if not isinstance(vocabulary, str):
                vocabulary = Vocabulary.from_json(vocabulary)
            found["vocabulary"] = get_vocabulary(vocabulary) if isinstance(vocabulary, str) else vocabulary
        except (KeyError, TypeError, AttributeError):
            raise SgrlError(
                f"vocabulary is {_shown(vocabulary)}, expected {{name, objects, predicates}} or one of "
                f"{', '.join(NAMES)}"
            ) from None
        return cls(**found)

    def write(self, folder: str | Path) -> Path:
        """Write the file into a folder, with the versions of today and the model_type of its config.json, if there is
        one; returns its path."""
        target = Path(folder) / FILE
        kind = _model_type(Path(folder)) or self.model_type
        written = replace(self, model_type=kind, versions=installed((*PACKAGES, "trl")))
        text = json.dumps(written.to_json(), ensure_ascii=False, indent=1)
        with atomic_path(target) as path:
            path.write_text(text + "\n", encoding="utf-8")
        return target

    def digest(self) -> str:
        """A short hash of what decides what a model is asked."""
        found = self.to_json()
        for name in ("versions", "dataset", "model_type", "max_new_tokens", "thinking", "format"):
            del found[name]
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]

    ################
    # What does not fit
    ################

    def differences(self, other: Task) -> dict[str, str]:
        """In what the two ask, or are answered, otherwise: name of the field -> "this, not that"."""
        found = {}
        for name in ("codec", "coordinates", "prompt", "system", "size"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                found[name] = f"{_shown(mine)}, not {_shown(its)}"
        if dataclasses.replace(self.vocabulary, name="") != dataclasses.replace(other.vocabulary, name=""):
            found["vocabulary"] = f"{_words(self.vocabulary)}, not {_words(other.vocabulary)}"
        return found

    def _check_model(self, path: Path, model: Path) -> None:
        """Raise SgrlError unless the config and the chat template of a model folder are those of this task."""
        found = _model_type(model)
        remedy = f"take the {FILE} that belongs to these weights, or remove it and give --task"
        if self.model_type is not None and found is not None and found != self.model_type:
            raise SgrlError(f"{path} belongs to a {self.model_type}, but {model} holds a {_shown(found)}; {remedy}")
        template = model / "chat_template.jinja"
        if self.thinking is not None and template.is_file():
            stored = stored_thinking(template.read_text("utf-8", "replace"))
            if stored != self.thinking:
                raise SgrlError(
                    f"{path} says thinking: {str(self.thinking).lower()}, but the chat template of {model} was saved "
                    f"with thinking {'on' if stored else 'off'}; {remedy}"
                )


def find_file(model: str | Path, name: str) -> Path | None:
    """A small file that goes with a model; None if there is none.

    model: a folder (a checkpoint or an adapter: also its run's), or a name on the Hub, asked as transformers asks.
    """
    folder = Path(model)
    if not folder.exists() and (str(model).startswith((".", "/", "~")) or str(model).count("/") > 1):
        return None  # no name on the Hub
    if folder.exists():
        inner = folder.name.startswith("checkpoint-") or folder.name == "adapter"
        places = [folder, folder.absolute().parent] if inner else [folder]
        return next((place / name for place in places if (place / name).is_file()), None)
    from transformers.utils import cached_file

    try:
        found = cached_file(
            str(model),
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError:  # no such model: what loads it says so
        return None
    return None if found is None else Path(found)


def trained_context(model: str | Path) -> str | None:
    """Which of TRAINING_CONTEXTS a model was trained with; None where it does not say."""
    task = Task.find(model)
    if task is not None:
        return task.context_source
    path = find_file(model, OLD_FILE)
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    context = found.get("context") if isinstance(found, dict) else None
    if context not in TRAINING_CONTEXTS:
        logger.warning("%s does not say which of %s the model was trained with", path, ", ".join(TRAINING_CONTEXTS))
        return None
    return context


def _model_type(folder: Path) -> str | None:
    """What config.json says; None without, or with a damaged one: what loads the model says so."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(found["model_type"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def _words_of(dataset: str | Path, metadata: Mapping) -> tuple[str | None, str]:
    """The system's message of the rows of a data set, and their prompt: a style, or the words of the first row."""
    row, style = data.first_row(dataset), metadata.get("prompt") or "full"
    messages = row.get("prompt") or []
    system = next((message["content"] for message in messages if message["role"] == "system"), None)
    if not messages:
        return None, style
    words, _ = split_previous(messages[-1]["content"])  # of old data sets
    frame, coords = (row["width"], row["height"]), metadata.get("coords", "pixel")
    if style not in STYLES or words != scene_graph_prompt(
        data.vocabulary_of(metadata), metadata["codec"], *frame, style, coords
    ):
        with suppress(SgrlError):  # words that look like slots
            check_style(words)
            style = words
    return system, style


def _load(path: Path) -> Task:
    try:
        if path.stat().st_size > LARGEST:
            raise SgrlError(f"it has {path.stat().st_size:,} bytes, expected at most {LARGEST:,}")
        return Task.from_json(json.loads(path.read_text(encoding="utf-8")))
    except SgrlError as error:
        raise SgrlError(f"the task {path}: {error}") from None
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise SgrlError(
            f"the task {path} cannot be read ({printable(' '.join(str(error).split()), 200)}); copy it again, or "
            "remove it and give --task"
        ) from None


def _pair(name: str, found: object) -> tuple[int, int]:
    lowest = 1 if name == "size" else 0
    if isinstance(found, list | tuple) and len(found) == 2 and all(_is_count(n, lowest) for n in found):
        return tuple(found)
    raise SgrlError(f"{name} is {_shown(found)}, expected two whole numbers or null")


def _is_count(found: object, lowest: int = 1) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and found >= lowest


def _shown(found: object) -> str:
    return printable(json.dumps(found, default=repr), 60)


def _words(vocabulary: Vocabulary) -> str:
    return f"{len(vocabulary.objects)} classes and {len(vocabulary.predicates)} predicates of {vocabulary.name}"
