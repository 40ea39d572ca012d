"""What `recipes/evaluate.py` and the trainers wrote, read for the report: runs, their scores, training curves."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from sgrl.errors import SgrlError

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
    """One evaluated model.

    `metrics` is metrics.json, `info` is run.json, `rows` holds the lines of predictions.jsonl that the gallery asked
    for by (dataset, image_id), `half_widths` the half width of a 95 % interval of each mean in `SCORES`.
    """

    name: str
    folder: Path
    metrics: dict
    info: dict
    keys: list[tuple[str, str]] = field(default_factory=list)
    rows: dict[tuple[str, str], dict] = field(default_factory=dict)
    half_widths: dict[str, float] = field(default_factory=dict)


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


def prediction_key(row: dict) -> tuple[str, str]:
    """What names an image across runs: the data set's name and the image's id."""
    return str(row.get("dataset") or ""), str(row["image_id"])


def read_run(name: str, folder: str | Path, wanted: int | list[tuple[str, str]] = 0) -> Run:
    """Read a folder that `recipes/evaluate.py` wrote.

    `wanted`: the rows to keep, as a number (the first ones) or as keys. The file is streamed, the rest is not kept.
    Raises `SgrlError` for a folder that was not evaluated to its end or is damaged.
    """
    folder = Path(folder)
    hint = f"finish it with: python recipes/evaluate.py --model MODEL --dataset DATA --output {folder}"
    if not folder.is_dir():
        raise SgrlError(f"run {name!r}: {folder} is not a folder; {hint}")
    run = Run(name, folder, _read_json(folder / "metrics.json", hint), _read_json(folder / "run.json", hint))
    keep = None if isinstance(wanted, int) else set(wanted)
    sums = {score: [0.0, 0.0] for score in SCORES}
    path = folder / "predictions.jsonl"
    if not path.is_file():
        raise SgrlError(f"{path} does not exist; {hint}")
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                key = prediction_key(row)
                scores = row["score"]
                for score, total in sums.items():
                    total[0] += scores[score]
                    total[1] += scores[score] ** 2
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise SgrlError(
                    f"{path}, line {number} is no prediction ({type(error).__name__}: {error}); {hint}"
                ) from None
            if (keep is None and number <= wanted) or (keep is not None and key in keep):
                run.rows[key] = row
            run.keys.append(key)
    count = len(run.keys)
    if not count:
        raise SgrlError(f"{path} is empty; {hint}")
    for score, (total, squares) in sums.items() if count > 1 else ():
        variance = max(squares / count - (total / count) ** 2, 0.0)
        run.half_widths[score] = 1.96 * math.sqrt(variance / count)
    return run


@dataclass
class Curve:
    """What a trainer logged: `series[name]` is a list of (step, value), finite values only."""

    name: str
    folder: Path
    series: dict[str, list[tuple[float, float]]]


def _state_file(folder: Path) -> Path | None:
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
    path = _state_file(folder)
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
