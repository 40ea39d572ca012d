"""The same rewards for ms-swift and verl. Neither is imported here.

ms-swift, in a file given with `--external_plugins` (the data set has the columns solution, width and height):

    from swift.rewards import orms  # swift.plugin in ms-swift 3
    from rewards.adapters import ms_swift
    orms.update(ms_swift("full"))   # then: --reward_funcs sg_format sg_object_class ... --reward_weights 0.5 1.5 ...

verl, in its configuration (`extra_info` of each row has width and height):

    custom_reward_function: {path: .../rewards/adapters.py, name: compute_score, reward_kwargs: {preset: full}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from rewards.presets import FAMILIES, Preset, get_preset
from rewards.reading import pixels_of, reference_text
from rewards.scorer import GraphScorer
from rewards.trl import Term, reward_functions
from sgrl.errors import SgrlError
from sgrl.text import detect_codec


def ms_swift(preset: str | Preset = "full", **options: Any) -> dict[str, type]:
    """The functions of a preset as ORM classes, named sg_<term>; each gives the unweighted term.

    options: keywords of GraphScorer. The completions of a batch are scored once for all classes.
    """
    functions, _ = reward_functions(preset, **options)
    return {f"sg_{function.__name__}": _orm_class(function) for function in functions}


def _orm_class(function: Term) -> type:
    class Reward:
        def __init__(self, *args: Any, **kwargs: Any):
            pass

        def __call__(self, completions: Sequence[Any], solution: Any = None, **columns: Any) -> list[float]:
            # not every ms-swift knows "not applicable": what cannot be scored is worth nothing, to its whole group
            columns = {name: columns.get(name) for name in ("width", "height")}
            return [value or 0.0 for value in function(completions, solution, **columns)]

    Reward.__name__ = Reward.__qualname__ = f"sg_{function.__name__}"
    return Reward


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    preset: str | Preset = "full",
    **options: Any,
) -> dict[str, float]:
    """verl's custom reward function: {"score": weighted total, and every term}.

    Args:
        solution_str: the completion. ground_truth: the reference text. data_source: not used.
        extra_info: with width and height, the frame of the reference's boxes.
        options: keywords of GraphScorer.

    A row of another data set, whose ground_truth, width or height is null, is worth 0 in every term: verl knows no
    reward that does not apply, and equal rewards of a group teach nothing.

    Raises:
        SgrlError: no width and height, or (FormatError) the reference is malformed.
    """
    preset, given = get_preset(preset), extra_info or {}
    width = height = None
    if ground_truth is not None:
        try:
            width, height = (pixels_of(name, given[name]) for name in ("width", "height"))
        except (KeyError, TypeError):
            found = repr(extra_info)
            raise SgrlError(f"extra_info needs width and height, the frame of the boxes; found {found}") from None
    if width is None or height is None:  # so without a ground truth
        return dict.fromkeys(("score", *FAMILIES[preset.family]), 0.0)
    ground_truth = reference_text(ground_truth)
    scorer = _scorer(detect_codec(ground_truth), width, height, preset.name, tuple(sorted(options.items())))
    score = scorer(solution_str, ground_truth)
    return {"score": scorer.preset.total(score)} | score.terms


@lru_cache(maxsize=4096)
def _scorer(codec: str, width: int, height: int, preset: str, options: tuple[Any, ...]) -> GraphScorer:
    return GraphScorer(codec, width, height, preset=preset, **dict(options))
