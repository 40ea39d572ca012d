"""What `recipes/evaluate.py` and the trainers wrote, read for the report: runs, their scores, training curves."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgrl.errors import SgrlError
from sgrl.inference.predictions import Key, prediction_key

# Per-image scores in predictions.jsonl whose plain mean is the metric of the same name (macro average).
SCORES = (
    "object_precision",
    "object_recall",
    "object_f1",
    "relation_precision",
    "relation_recall",
    "relation_f1",
    "sgg_score",
)


@dataclass
class Run:
    """One run: what a model wrote, and how it was scored.

    Attributes:
        metrics: metrics.json, {} without references (own images); the soft figures of soft.json as soft_*.
        info: run.json.
        keys: of all its images, in the order of the file. places: (video, frame) of those that belong to a video.
        values: the SGG score of each of `keys`; empty without references.
        rows: the lines of predictions.jsonl that were asked for.
        intervals: [low, high] of 95 % of each mean: those in metrics.json, else by the normal approximation.
        scores: what the rows are read from, if they are scored predictions (sgrl.report.scored).
    """

    name: str
    folder: Path
    metrics: dict
    info: dict
    keys: list[Key] = field(default_factory=list)
    places: dict[Key, tuple[str, int]] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    rows: dict[Key, dict] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    scores: Any = None

    @property
    def scored(self) -> bool:
        return bool(self.values)


def _read_json(path: Path, hint: str) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SgrlError(f"{path} does not exist; {hint}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SgrlError(f"{path} is not readable as JSON ({error}); {hint}") from None
    if not isinstance(value, dict):
        raise SgrlError(f"{path} holds a {type(value).__name__}, expected a JSON object; {hint}")
    return value


def _lines(path: Path, hint: str) -> Iterator[tuple[int, Key, dict]]:
    """Number, key and row of each line of predictions.jsonl."""
    if not path.is_file():
        raise SgrlError(f"{path} does not exist; {hint}")
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                key = prediction_key(row)
                row["prediction"], row["width"], row["height"]
                if row["solution"] is not None:
                    row["matched"], [row["score"][name] + 0.0 for name in SCORES]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise SgrlError(
                    f"{path}, line {number} is no scored prediction ({type(error).__name__}: {error}); {hint}"
                ) from None
            yield number, key, row


def read_run(name: str, folder: str | Path) -> Run:
    """Read a folder that recipes/evaluate.py wrote, or recipes/predict.py for images without references.

    The rows are read but not kept; `keep` does that. Raises `SgrlError` for a folder that was not evaluated to its end
    or is damaged.
    """
    folder = Path(folder)
    hint = f"finish it with: python recipes/evaluate.py --model MODEL --dataset DATA --output {folder}"
    if not folder.is_dir():
        raise SgrlError(f"run {name!r}: {folder} is not a folder; {hint}")
    run = Run(name, folder, {}, _read_json(folder / "run.json", hint))
    own = bool(run.info.get("input"))  # the user's images: nothing to compare with
    if not own:
        run.metrics = _read_json(folder / "metrics.json", hint)
    if (folder / "soft.json").exists():  # recipes/judge.py
        soft = _read_json(folder / "soft.json", "run recipes/judge.py again").get("soft") or {}
        run.metrics |= {f"soft_{name}": value for name, value in soft.items()}
    sums = {score: [0.0, 0.0] for score in SCORES}
    path = folder / "predictions.jsonl"
    for number, key, row in _lines(path, hint):
        if not own and row["solution"] is None:
            raise SgrlError(f"{path}, line {number} has no reference; {hint}")
        for score, total in sums.items() if not own else ():
            total[0] += row["score"][score]
            total[1] += row["score"][score] ** 2
        if not own:
            run.values.append(row["score"]["sgg_score"])
        if row.get("video_id") is not None:
            run.places[key] = str(row["video_id"]), int(row.get("frame") or 0)
        run.keys.append(key)
    count = len(run.keys)
    if not count:
        raise SgrlError(f"{path} is empty; {hint}")
    for score, (summed, squares) in sums.items() if run.scored and count > 1 else ():
        mean = summed / count
        half = 1.96 * math.sqrt(max(squares / count - mean**2, 0.0) / count)
        run.intervals[score] = mean - half, mean + half
    for score, ends in (run.metrics.get("intervals") or {}).items():
        run.intervals[score] = float(ends[0]), float(ends[1])
    return run


def keep(run: Run, keys: Iterable[Key]) -> None:
    """Read the rows of these keys into `run.rows`."""
    wanted = set(keys)
    run.rows = {key: row for _, key, row in _lines(run.folder / "predictions.jsonl", "") if key in wanted}


@dataclass
class Curve:
    """What a trainer logged: `series[name]` is a list of (step, value), finite values only."""

    name: str
    folder: Path
    series: dict[str, list[tuple[float, float]]]


def state_file(folder: Path) -> Path | None:
    if (folder / "trainer_state.json").is_file():
        return folder / "trainer_state.json"
    checkpoints = [
        (int(match[1]), path)
        for path in folder.glob("checkpoint-*/trainer_state.json")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.parent.name))
    ]
    return max(checkpoints)[1] if checkpoints else None


def read_curve(name: str, folder: str | Path) -> Curve:
    """Read `log_history` of trainer_state.json in `folder`, or else in its last checkpoint.

    Steps that were logged twice (a resumed run) count once, the later entry wins.
    """
    folder = Path(folder)
    path = state_file(folder)
    if path is None:
        raise SgrlError(
            f"{folder} holds no trainer_state.json, nor does any checkpoint-* in it; give --curve the output_dir of "
            "SFT or GRPO (the trainer writes the file when it saves)"
        )
    history = _read_json(path, "give --curve the output_dir of SFT or GRPO").get("log_history")
    if not isinstance(history, list):
        raise SgrlError(f"{path} has no log_history list; give --curve the output_dir of SFT or GRPO")
    series: dict[str, dict[float, float]] = {}
    for entry in history:
        step = entry.get("step") if isinstance(entry, dict) else None
        if not isinstance(step, int | float):
            continue
        for key, value in entry.items():
            if isinstance(value, int | float) and math.isfinite(value) and key != "step":
                series.setdefault(key, {})[step] = value
    return Curve(name, folder, {key: sorted(points.items()) for key, points in series.items()})
