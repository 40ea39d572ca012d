"""Reward functions for TRL's GRPOTrainer (and everything that calls rewards as TRL does).

    trl grpo --reward_funcs rewards.trl.format rewards.trl.object_class rewards.trl.relation_f1 ...

    from rewards.trl import reward_functions
    functions, weights = reward_functions("full")
    GRPOTrainer(..., reward_funcs=functions, args=GRPOConfig(reward_weights=weights, ...))

Every function gives one unweighted term. The data set needs the columns `solution` (the reference text), `width` and
`height`; the layout is recognised by the solution. Whichever function comes first in a batch scores it, for all of
them, and logs its diagnostics as `sg/...`. A completion never raises. A row without a reference, one of whose three
columns is null as in a mixture of data sets, gets None, which TRL leaves out of the batch; so does one whose reference
is malformed, with a warning (`python -m rewards validate DATASET` finds them before training).
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewards.presets import FAMILIES, PRESETS, R1_SGG, SCENEGRAPHVLM, Preset, check_term, check_weights, get_preset
from rewards.published import check_family
from rewards.reading import check_frame, check_protocol, is_absent, is_graph, pixels_of, reference_text, text_of
from rewards.scorer import GraphScorer
from rewards.similarity import get_similarity
from rewards.terms import GraphScore
from sgrl import dotted
from sgrl.errors import SettingError, SgrlError, UsageError, suggest
from sgrl.text import FormatError, detect_codec

logger = logging.getLogger(__name__)

Size = tuple[Any, Any]
"""Width and height of a row; None where it has none."""


class BatchScorer:
    """Scores a batch once for all terms that ask for it.

    Args:
        family: of terms, "scenegraphvlm" or "r1-sgg".
        options: keywords of GraphScorer, such as iou_threshold or similarity.
    """

    def __init__(self, family: str = SCENEGRAPHVLM.family, **options: Any):
        self._set_up(family, options)

    def _set_up(self, family: str, options: Mapping[str, Any]) -> None:
        self.family = family
        self.options: dict[str, Any] = {"preset": Preset(family, {}, family), **options}
        if options.get("protocol") == "published":
            check_family(family)
        self._scorers: dict[tuple[Any, ...], GraphScorer] = {}
        self._batch: tuple[Any, ...] | None = None
        self._scores: list[GraphScore | None] = []
        self._served: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {"family": self.family, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        options = {name: value for name, value in state["options"].items() if name != "preset"}
        self._set_up(state["family"], options)

    def for_term(
        self,
        term: str,
        completions: Sequence[Any],
        solutions: Sequence[Any],
        sizes: Sequence[Size],
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
    ) -> list[GraphScore | None]:
        """Scores of a batch: those at hand if this is the batch of the last call, which this term has not had yet."""
        texts = [completion if is_graph(completion) else text_of(completion) for completion in completions]
        batch = (texts, list(solutions), list(sizes))
        if term in self._served or batch != self._batch:
            self._scores = self.score(*batch)
            self._batch, self._served = batch, set()
            absent = sum(map(is_absent, solutions, sizes))
            _log(self._scores, absent, tuple(FAMILIES[self.family]), log_metric, log_extra)
        self._served.add(term)
        return self._scores

    def score(self, texts: Sequence[Any], solutions: Sequence[Any], sizes: Sequence[Size]) -> list[GraphScore | None]:
        """Scores for images of various sizes and layouts; None where the reference is malformed or there is none."""
        if not len(texts) == len(solutions) == len(sizes):
            raise SgrlError(f"{len(texts)} completions, but {len(solutions)} solutions and {len(sizes)} image sizes")
        scores: list[GraphScore | None] = [None] * len(texts)
        groups: dict[tuple[str, Size], list[int]] = {}
        for i, (solution, size) in enumerate(zip(solutions, sizes, strict=True)):
            if is_absent(solution, size):
                continue
            try:
                groups.setdefault((reference_text(solution), size), []).append(i)
            except SgrlError as error:
                logger.warning("left out of the rewards: malformed reference: %s", error)
        for (text, size), indices in groups.items():
            try:
                check_frame(*size)
                layout = detect_codec(text)
            except SgrlError as error:
                logger.warning("left out of the rewards: %s; it begins %r", error, text[:80])
                continue
            scorer = self._scorer(layout, *size)
            try:
                reference = scorer.reference(text)
            except FormatError as error:
                logger.warning("left out of the rewards: %s; it begins %r", error, text[:80])
                continue
            group = scorer.many([texts[i] for i in indices], [reference] * len(indices))
            for i, score in zip(indices, group, strict=True):
                scores[i] = score
        return scores

    def _scorer(self, codec: str, width: int, height: int) -> GraphScorer:
        key = (codec, width, height)
        if key not in self._scorers:
            if len(self._scorers) > 4096:
                self._scorers.clear()
            self._scorers[key] = GraphScorer(codec, width, height, **self.options)
        return self._scorers[key]


def _log(
    scores: Sequence[GraphScore | None],
    absent: int,
    terms: Sequence[str],
    log_metric: Callable[[str, float], None] | None,
    log_extra: Callable[[str, list[Any]], None] | None,
) -> None:
    """Diagnostics as metrics, every term as a column of the completions table. absent: rows without a reference."""
    known = [score for score in scores if score is not None]
    if log_metric is not None:
        log_metric("sg/without_reference", absent / max(1, len(scores)))
        log_metric("sg/malformed_references", (len(scores) - absent - len(known)) / max(1, len(scores) - absent))
        if known:
            log_metric("sg/valid", sum(score.valid for score in known) / len(known))
            for name in known[0].diagnostics:
                log_metric(f"sg/{name}", sum(score.diagnostics[name] for score in known) / len(known))
    if log_extra is not None:
        log_extra("sg/reason", [score and score.reason for score in scores])
        for term in terms:
            log_extra(f"sg/{term}", [score and score.terms[term] for score in scores])


class Term:
    """One reward term as TRL wants it: a picklable callable with a name.

    Args:
        term: of the scorer's family.
        scorer: shared by all terms of one reward set.
        name: what TRL logs; by default the term.
    """

    def __init__(self, term: str, scorer: BatchScorer, name: str | None = None):
        check_term(term, scorer.family)
        self.term = term
        self.scorer = scorer
        self.__name__ = name or term

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value."""
        return FAMILIES[self.scorer.family][self.term]

    def __repr__(self) -> str:
        return f"<reward {self.__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if FUNCTIONS.get(self.__name__) is self:
            return get_function, (self.__name__,)
        return type(self), (self.term, self.scorer, self.__name__)

    def __call__(
        self,
        completions: Sequence[Any],
        solution: Sequence[Any] | None = None,
        *,
        width: Sequence[int | None] | int | None = None,
        height: Sequence[int | None] | int | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """The term of each completion; None where the reference is malformed or absent.

        Args:
            completions: texts, lists of chat messages of which the first counts, or graphs.
            solution: references, one per completion.
            width, height: frame of the boxes in the references, one per completion or one for all. A row with a null
                (or NaN, which tables make of it) in one of the three has no reference.
            log_metric, log_extra: given by TRL; called once a batch.

        Raises:
            SgrlError: one of the columns is missing, or lists of unequal length.
        """
        if solution is None:
            raise SgrlError(MISSING.format("solution", "the reference"))
        widths = _column("width", width, len(completions))
        sizes = list(zip(widths, _column("height", height, len(completions)), strict=True))
        scores = self.scorer.for_term(self.term, completions, solution, sizes, log_metric, log_extra)
        return [None if score is None else score.terms[self.term] for score in scores]


class OwnReward:
    """A function of one's own, by its dotted path: `function(completions, **columns)`, as TRL takes it.

    It gets the columns of the data set, TRL's `prompts`, `completion_ids` and so on as keywords, and returns a number
    for each completion, or None where it has nothing to say. It may declare its range: `function.range = (0.0, 1.0)`.

    Attributes:
        range: the least and the greatest value, None if the function does not say.

    Raises:
        SettingError: nothing that can be called is there, or what is there raises or returns anything else.
    """

    def __init__(self, path: str):
        self.path = path
        self.function = dotted.resolve(path, _KEY)
        if inspect.isclass(self.function) or inspect.iscoroutinefunction(self.function):
            kind = "a class" if inspect.isclass(self.function) else "an async function"
            raise SettingError(_KEY, f"{path!r} is {kind}; expected a function")
        self.__name__ = path.rpartition(":")[2]
        self.range = getattr(self.function, "range", None)
        try:
            self._low, self._high = (-math.inf, math.inf) if self.range is None else map(float, self.range)
        except (TypeError, ValueError):
            self._low = self._high = math.nan
        if not self._low < self._high:
            raise SettingError(
                _KEY, f"{path!r}: its range is {self.range!r}; expected the least and the greatest value"
            )
        self._warned = False

    def __repr__(self) -> str:
        return f"<reward {self.path}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        with dotted.named(self.path, _KEY):
            values = self.function(completions=completions, **columns)
        if not hasattr(values, "__len__") or isinstance(values, str) or len(values) != len(completions):
            found = f"{len(values)} values" if hasattr(values, "__len__") else f"a {type(values).__name__}"
            raise SettingError(
                _KEY, f"{self.path!r} returned {found}; expected a list of {len(completions)}, one each"
            )
        return [None if value is None else self._number(value) for value in values]

    def _number(self, value: Any) -> float:
        try:
            number = math.nan if isinstance(value, str) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise SettingError(_KEY, f"{self.path!r} returned {value!r} for a completion; expected a number or None")
        if not self._low - 1e-6 <= number <= self._high + 1e-6 and not self._warned:
            self._warned = True
            logger.warning("the reward %s returned %g, outside its range %s", self.path, number, self.range)
        return number


_KEY = "reward"  # of the YAML files

MISSING = (
    "the rewards need the column {!r} ({}), which the data set does not have; sgrl convert writes it, and a "
    "row to which they do not apply has a null there"
)


def _column(name: str, values: Any, count: int) -> list[int | None]:
    if values is None:
        raise SgrlError(MISSING.format(name, "frame of the boxes in the solution"))
    pixels = [pixels_of(name, value) for value in (values if hasattr(values, "__len__") else [values] * count)]
    if len(pixels) != count:
        raise SgrlError(f"{count} completions, but {len(pixels)} values in the column {name!r}")
    return pixels


_scenegraphvlm = BatchScorer(SCENEGRAPHVLM.family)
_r1_sgg = BatchScorer(R1_SGG.family)

format = Term("format", _scenegraphvlm)
object_class = Term("object_class", _scenegraphvlm)
object_box = Term("object_box", _scenegraphvlm)
relation_recall = Term("relation_recall", _scenegraphvlm)
relation_precision = Term("relation_precision", _scenegraphvlm)
relation_f1 = Term("relation_f1", _scenegraphvlm)
object_hallucination = Term("object_hallucination", _scenegraphvlm)
relation_hallucination = Term("relation_hallucination", _scenegraphvlm)

r1_format = Term("format", _r1_sgg, "r1_format")
r1_object_class = Term("object_class", _r1_sgg, "r1_object_class")
r1_object_box = Term("object_box", _r1_sgg, "r1_object_box")
hard_recall = Term("hard_recall", _r1_sgg)
hard_recall_relax = Term("hard_recall_relax", _r1_sgg)
soft_recall = Term("soft_recall", _r1_sgg)

FUNCTIONS = {function.__name__: function for function in tuple(globals().values()) if isinstance(function, Term)}
"""All functions by name; each is also an attribute of this module."""


def get_function(name: str) -> Term:
    """The function called `name`. Raises SgrlError with the nearest name for an unknown one."""
    if name not in FUNCTIONS:
        raise UsageError(f"unknown reward function {name!r}{suggest(name, FUNCTIONS)}")
    return FUNCTIONS[name]


def reward_functions(preset: str | Preset = SCENEGRAPHVLM, **options: Any) -> tuple[list[Term], list[float]]:
    """A preset as `reward_funcs` and `reward_weights` of TRL.

    Args:
        preset: or its name; see get_preset.
        options: keywords of GraphScorer, for example `iou_threshold=0.6` or `similarity=table`.

    >>> functions, weights = reward_functions("recall-only")
    >>> [function.__name__ for function in functions], weights
    (['format', 'object_class', 'object_box', 'relation_recall'], [0.5, 1.5, 1.5, 3.0])
    """
    preset = get_preset(preset)
    weights = [float(weight) for weight in preset.weights.values()]
    functions = {(function.scorer.family, function.term): function for function in FUNCTIONS.values()}
    chosen = [functions[preset.family, term] for term in preset.weights]
    if options:
        scorer = BatchScorer(preset.family, **options)
        chosen = [Term(function.term, scorer, function.__name__) for function in chosen]
    return chosen, weights


def rewards_named(
    names: Sequence[str],
    similarity: str | None = None,
    weights: Sequence[float] | None = None,
    protocol: str = "default",
) -> tuple[list[Term | OwnReward], list[float]]:
    """As `reward_functions`, for what a configuration says: one preset, or functions with weights.

    Args:
        names: a preset alone, or functions of this module and of your own: `package.module:function`, see OwnReward.
        similarity: of labels: "exact", a JSON file or a model's folder; see rewards.similarity.
        weights: of the functions, in their order; by default as in their preset, 1 for your own. A preset has its own.
        protocol: as in GraphScorer.

    Raises:
        SgrlError: an unknown name, with the nearest one; a similarity that cannot be read; weights that are not one
            for each function, or not those of the preset.

    >>> rewards_named(["format", "relation_f1"])
    ([<reward format>, <reward relation_f1>], [0.5, 2.0])
    """
    check_protocol(protocol)
    options: dict[str, Any] = {} if get_similarity(similarity) is None else {"similarity": similarity}
    options |= {} if protocol == "default" else {"protocol": protocol}
    if len(names) == 1 and names[0] in PRESETS:
        terms, found = reward_functions(names[0], **options)
        if weights is not None and [float(weight) for weight in weights] != found:
            raise SgrlError(
                f"reward_weights {list(weights)} sum to {sum(weights):g}, but those of the preset {names[0]!r} are "
                f"{found} and sum to {sum(found):g}; remove reward_weights, or give `reward` the list of terms: "
                f"{', '.join(function.__name__ for function in terms)}"
            )
        return list(terms), found
    functions = [_function(name) for name in names]
    called = [function.__name__ for function in functions]
    for name, function in zip(names, called, strict=True):
        if dotted.is_dotted(name) and called.count(function) > 1:
            raise SettingError(_KEY, f"two rewards are called {function!r}; give the function {name!r} another name")
    presets = {preset.family: preset.weights for preset in (SCENEGRAPHVLM, R1_SGG)}
    found = [float(presets[f.scorer.family][f.term]) if isinstance(f, Term) else 1.0 for f in functions]
    if weights is not None:
        check_weights(weights, names)
        found = [float(weight) for weight in weights]
    if options:
        families = {function.scorer.family for function in functions if isinstance(function, Term)}
        scorers = {family: BatchScorer(family, **options) for family in families}
        functions = [
            Term(f.term, scorers[f.scorer.family], f.__name__) if isinstance(f, Term) else f for f in functions
        ]
    return functions, found


def _function(name: str) -> Term | OwnReward:
    if dotted.is_dotted(name):
        return OwnReward(name)
    if name not in FUNCTIONS:
        own = "; a function of your own is written package.module:function"
        raise SettingError(
            _KEY, f"unknown reward {name!r}{own if '.' in name else suggest(name, (*PRESETS, *FUNCTIONS))}"
        )
    return FUNCTIONS[name]
