"""What every metric is and can do, so that whoever counts predictions need not know which metric it is.

A metric of one's own is a class like this one, and a line in `rewards.metrics.METRICS` for `rewards score --metric`:

    class Relations(Metric):
        name = "relations"

        def __init__(self):
            self.found = self.images = 0

        def add(self, prediction, reference, width=None, height=None):
            ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.text import Codec, ParsedGraph
from sgrl.vocabulary import Vocabulary


class Option(NamedTuple):
    """A choice that a metric offers on the command line; the first of `choices` is the default."""

    choices: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Settings:
    """What a command knows when it makes a metric.

    Args:
        codec: layout of the texts.
        protocol: one of the metric's `protocols`.
        vocabulary: of the data set; None if it does not say.
        frequency: gives how often each predicate occurs in training, None without a training split.
        training: gives the graphs of the training split. Both read files, and only when called.
        options: of the metric's `options`, what was chosen.
    """

    codec: Codec
    protocol: str = "default"
    vocabulary: Vocabulary | None = None
    frequency: Callable[[], Mapping[str, int] | None] = lambda: None
    training: Callable[[], Iterable[ParsedGraph]] = tuple
    options: Mapping[str, str] = field(default_factory=dict)


class Metric(ABC):
    """Counts samples one by one and adds up exactly: metrics of parts, merged, are the metric of the whole.

    Class attributes:
        name: of --metric, and in messages.
        protocols: named conventions, "default" first.
        options: name -> what else can be chosen.
        needs: what rows must have to be samples, for the message where none is one.
        title: heads the table of figures that are named "<name>@<K>".
        ranks: whether `add` takes `confidences`, one for each relation of the text, which rank them; then each row is
            a sample.
        matches: whether `compare_many` says which objects and relations are right, as SceneGraphMetrics does.
        same: names of the attributes that two metrics must share to be merged.
    """

    name: ClassVar[str]
    protocols: ClassVar[tuple[str, ...]] = ("default",)
    options: ClassVar[Mapping[str, Option]] = {}
    needs: ClassVar[str] = "images"
    title: ClassVar[str] = ""
    ranks: ClassVar[bool] = False
    matches: ClassVar[bool] = False
    same: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The metric that a command asks for.

        Raises:
            SgrlError: it is not for such texts or options.
        """
        return cls()

    @staticmethod
    def samples_of(rows: Iterable[Mapping[str, Any]], codec: Codec) -> Iterator[tuple[Any, ...]]:
        """The arguments of `add` for each sample in rows of prediction, solution, width and height."""
        for row in rows:
            yield row["prediction"], row["solution"], row["width"], row["height"]

    @abstractmethod
    def add(self, prediction: Any, reference: Any, *frame: Any, **more: Any) -> Mapping[str, Any]:
        """Count one sample and return its own values. It is a text, a graph or what else the metric takes; `frame` is
        the width and height of the boxes in texts.

        Raises:
            FormatError: the reference is malformed; nothing is counted.
            CompletionError (a TypeError): the prediction is nothing that the metric takes.
        """

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add what another with the same settings has counted, of other samples or in another process.

        Raises:
            SgrlError: the settings differ.
        """

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """All figures so far, by name; 0 where there is nothing to count yet."""

    @abstractmethod
    def per_predicate(self) -> dict[str, dict[str, Any]]:
        """Figures of each predicate, by its name."""

    @classmethod
    def notes(cls, found: Mapping[str, Any]) -> list[str]:
        """Lines under the table of what `compute` gives: the figures that are not at a K."""
        return [
            f"{name} {value:,.4f}" if isinstance(value, float) else f"{name} {value:,}"
            for name, value in found.items()
            if "@" not in name and isinstance(value, int | float)
        ]

    def check_same(self, other: Metric) -> None:
        """Raises SgrlError unless `other` is such a metric, with the same settings."""
        if type(other) is not type(self):
            raise SgrlError(f"{type(other).__name__} cannot be added to {type(self).__name__}")
        for name in self.same:
            mine, theirs = (
                value.name if isinstance(value := getattr(metric, name), Codec) else value for metric in (self, other)
            )
            if mine != theirs:
                found = "" if name.startswith("_") else f": {name.lstrip('_')} is {theirs!r} there, {mine!r} here"
                raise SgrlError(
                    f"counts of different settings cannot be added{found}; make both with the same arguments"
                )


def check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    """Raises SgrlError for a value that is none of the choices."""
    if value not in choices:
        raise UsageError(f"unknown {what} {value!r}{suggest(str(value), choices)}")
