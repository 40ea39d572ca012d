"""Class lists of the data sets, and the one spelling that labels have in text."""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources

from sgrl.errors import SgrlError, suggest

UNNAMED = "unknown"
"""The text form of a label without a single character that can be seen."""

# Labels of other scripts are rid of all that is no letter before these are applied.
_NOT_ALNUM = re.compile(r"[^a-z0-9\x80-\U0010ffff]+")
_NOT_WIDE = re.compile(r"[^a-z0-9._/\x80-\U0010ffff]+")
_DOUBLED = re.compile(r"[-._/]*([-._/])[-._/]*")

# What tells labels apart (C++, C#, C*) is spelt; other ASCII punctuation only separates words.
_SPELT = {
    **{"+": "plus", "#": "sharp", "&": "and", "@": "at", "%": "percent"},
    **{"*": "star", "=": "equals", "<": "less", ">": "more", "$": "dollar"},
}
_SYMBOL = re.compile("[" + re.escape("".join(_SPELT)) + "]")


def canonical(label: str, wide: bool = False) -> str:
    """The spelling of a label in text: lower case, words joined by single hyphens. `wide` also keeps `_`, `.` and `/`
    between words, as Action Genome spells.

    Letters of every script are letters, with the marks that belong to them, in Unicode's normal form NFKC; digits of
    every script are digits. Symbols become words, or "u" with their number in Unicode; so does punctuation where there
    is nothing else. What has no visible character becomes "unknown".

    >>> canonical("Traffic light"), canonical("in_front_of"), canonical("cup/glass/bottle", wide=True)
    ('traffic-light', 'in-front-of', 'cup/glass/bottle')
    >>> canonical("C++"), canonical("C#"), canonical("Кот учёный")
    ('c-plus-plus', 'c-sharp', 'кот-учёный')
    >>> canonical("5 €"), canonical("?")
    ('5-u20ac', 'u3f')
    """
    text = label.lower()
    if not text.isascii():
        text = "".join(map(_letters, _normal_form(label)))
    if _SYMBOL.search(text):
        text = _SYMBOL.sub(lambda match: f" {_SPELT[match[0]]} ", text)
    if wide:
        text = _DOUBLED.sub(r"\1", _NOT_WIDE.sub("-", text)).strip("-._/")
    else:
        text = _NOT_ALNUM.sub("-", text).strip("-")
    return text or _named(label) or UNNAMED


def _normal_form(label: str) -> str:
    """Lower case in NFKC, without characters that cannot be seen (joiners, marks of direction)."""
    visible = "".join([c for c in label if unicodedata.category(c) != "Cf"])
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).lower())


def _letters(character: str) -> str:
    """What stands for a character: itself if it is ASCII or a letter, a digit, a symbol's number, else a blank."""
    if character.isascii():
        return character
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if kind[0] in "LMN":
        return character
    return f" u{ord(character):x} " if kind in ("Sm", "Sc", "So") else " "


def _named(label: str) -> str:
    """The numbers of the characters of a label that is all punctuation."""
    return "-".join([f"u{ord(c):x}" for c in label if unicodedata.category(c)[0] in "PS"])


@functools.lru_cache(maxsize=16384)
def normalised(label: str) -> str:
    """A label as the published evaluators compare it: without regard to case, `_` and `-`.

    >>> normalised("Looking_at")
    'looking at'
    """
    return label.lower().replace("_", " ").replace("-", " ").strip()


class VocabularyError(SgrlError):
    """Class lists that cannot be told apart in text, or a data set that has none here."""


@dataclass(frozen=True)
class Vocabulary:
    """The class lists of a data set, in the official order and spelling.

    Args:
        name: of the data set.
        objects, predicates: labels; a position in the list is the official index (VG150: minus one).
        groups: predicates by group, for Action Genome. With groups, text keeps `_`, `.` and `/`.

    Raises:
        VocabularyError: an empty or repeated label, two labels with one text form, a group with foreign predicates.
    """

    name: str
    objects: tuple[str, ...]
    predicates: tuple[str, ...]
    groups: dict[str, tuple[str, ...]] | None = None
    _official: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        set_field = functools.partial(object.__setattr__, self)
        set_field("objects", tuple(self.objects))
        set_field("predicates", tuple(self.predicates))
        if self.groups is not None:
            set_field("groups", {group: tuple(labels) for group, labels in self.groups.items()})
        official: dict[str, str] = {}
        for kind in ("objects", "predicates"):
            labels = getattr(self, kind)
            if len(set(labels)) != len(labels):
                twice = next(label for label in labels if labels.count(label) > 1)
                raise VocabularyError(f"vocabulary {self.name!r}: {twice!r} stands twice among the {kind}")
            for label in labels:
                text = canonical(label)
                if text == UNNAMED and label != UNNAMED:
                    raise VocabularyError(f"vocabulary {self.name!r}: {label!r} has no visible character")
                if official.setdefault(text, label) != label:
                    raise VocabularyError(
                        f"vocabulary {self.name!r}: {official[text]!r} and {label!r} are both {text!r} in text; "
                        "rename one"
                    )
        for group, labels in (self.groups or {}).items():
            foreign = sorted(set(labels) - set(self.predicates))
            if foreign:
                raise VocabularyError(
                    f"vocabulary {self.name!r}: group {group!r} has {foreign[0]!r}, which is no predicate"
                    f"{suggest(foreign[0], self.predicates)}"
                )
        set_field("_official", official)

    def to_text(self, label: str) -> str:
        """The form that a label has in text, whether or not it belongs to the vocabulary."""
        return canonical(label, wide=self.groups is not None)

    def from_text(self, text: str) -> str | None:
        """The official label that a text means, in whatever spelling; None if there is none.

        >>> get_vocabulary("psg").from_text("traffic-light"), get_vocabulary("psg").from_text("unicorn")
        ('traffic light', None)
        """
        return self._official.get(canonical(text))

    def to_json(self) -> dict:
        """As it stands in the metadata of files; `from_json` turns it back."""
        return {
            "name": self.name,
            "objects": list(self.objects),
            "predicates": list(self.predicates),
            "groups": {name: list(labels) for name, labels in self.groups.items()} if self.groups else None,
        }

    @classmethod
    def from_json(cls, found: Mapping) -> Vocabulary:
        """The vocabulary that `to_json` wrote."""
        groups = {name: tuple(labels) for name, labels in found["groups"].items()} if found.get("groups") else None
        return cls(found["name"], tuple(found["objects"]), tuple(found["predicates"]), groups)


VOCABULARIES = ("psg", "pvsg", "action_genome", "vg150")


@functools.cache
def get_vocabulary(name: str) -> Vocabulary:
    """The official lists of a data set (one of VOCABULARIES). Raises VocabularyError for any other name."""
    if name not in VOCABULARIES:
        raise VocabularyError(f"unknown vocabulary {name!r}{suggest(name, VOCABULARIES)}")
    data = json.loads(resources.files("sgrl").joinpath(f"vocabularies/{name}.json").read_text(encoding="utf-8"))
    return Vocabulary(data["name"], data["objects"], data["predicates"], data.get("groups"))
