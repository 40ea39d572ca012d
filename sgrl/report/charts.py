"""Charts as inline SVG: lines with axes, smoothed over the logged values, whose tooltip page.js shows; reliability."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape

from sgrl.report.runs import Curve

# Width and height in user units, near the size in CSS pixels that a chart is shown at: the text keeps its size.
LARGE, SMALL = (560, 330), (280, 150)
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 32

Points = list[tuple[float, float]]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high] from inside."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def smooth(values: list[float]) -> list[float]:
    """A centred moving mean over about a twentieth of the series (at least 3 points, if there are 12 or more)."""
    half = len(values) // 40 + 1 if len(values) >= 12 else 0
    means = []
    for index in range(len(values)):
        window = values[max(0, index - half) : index + half + 1]
        means.append(sum(window) / len(window))
    return means


def thin_out(points: Points, limit: int = 400) -> Points:
    """At most about `limit` points, each the mean of its neighbours: a week of training stays a small page."""
    size = math.ceil(len(points) / limit)
    if size <= 1:
        return points
    groups = [points[index : index + size] for index in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def number(value: float) -> str:
    """Short text of a value: 1,500, 0.25, 1e-06."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def line_chart(title: str, points: Points, size: tuple[int, int] = LARGE, colour: str = "var(--series)") -> str:
    """An SVG figure of one series. `points`: (step, value), at least one, finite."""
    points = thin_out(points)
    width, height = size
    right, bottom = width - RIGHT, height - BOTTOM
    steps = [step for step, _ in points]
    values = [value for _, value in points]
    x_low, x_high = min(steps), max(steps)
    low, high = min(values), max(values)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    y_low, y_high = low - pad, high + pad
    if low >= 0 and low < 0.6 * high:
        y_low = 0.0  # a loss or a reward that comes near zero is read against zero

    def x(step: float) -> float:
        return round(LEFT + (step - x_low) / ((x_high - x_low) or 1) * (right - LEFT), 1)

    def y(value: float) -> float:
        return round(bottom - (value - y_low) / (y_high - y_low) * (bottom - TOP), 1)

    def path(series: list[float]) -> str:
        return "M" + "L".join(f"{x(step)} {y(value)}" for step, value in zip(steps, series, strict=True))

    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(value)}" y2="{y(value)}"/>'
        f'<text x="{LEFT - 7}" y="{y(value) + 3.5}" text-anchor="end">{number(value)}</text>'
        for value in ticks(y_low, y_high, 4 if size == LARGE else 3)
    )
    labels = "".join(
        f'<text x="{x(value)}" y="{bottom + 15}" text-anchor="middle">{number(value)}</text>'
        for value in ticks(x_low, x_high, 6 if size == LARGE else 4)
        if value == int(value)  # steps are counted
    )
    means = smooth(values)
    data = [[step, round(value, 5), x(step), y(mean)] for step, value, mean in zip(steps, values, means, strict=True)]
    first, last = number(means[0]), number(means[-1])
    summary = f"{title}: {first} at step {number(steps[0])}, {last} at step {number(steps[-1])}"
    single = f'<circle class="line-end" cx="{x(steps[-1])}" cy="{y(means[-1])}" r="3.5"/>'
    kind = "chart" if size == LARGE else "chart small"
    return f"""<figure class="{kind}" style="--series-colour:{colour}">
<figcaption><b>{escape(title)}</b> <output aria-live="polite">{first} → {last}</output></figcaption>
<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(summary)}" tabindex="0"
 data-points="{escape(json.dumps(data))}">
{grid}<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>{labels}
<text x="{right}" y="{height - 3}" text-anchor="end" class="unit">step</text>
<path class="raw" d="{path(values)}"/><path class="line" d="{path(means)}"/>{single}
<g class="cursor" hidden><line y1="{TOP}" y2="{bottom}"/><circle r="4"/></g>
</svg></figure>"""


def curve_charts(curve: Curve) -> str:
    """The charts of one training: reward, its terms and the answers' length for GRPO, loss and accuracy for SFT."""
    series = {key: points for key, points in curve.series.items() if points}
    if "reward" in series:
        main = [("reward", "mean reward of the rollouts")]
        small = [
            (key, key.split("/")[1].replace("_", " "))
            for key in sorted(series)
            if key.startswith("rewards/") and key.endswith("/mean")
        ]
        small += [("completions/mean_length", "tokens per answer"), ("kl", "KL divergence"), ("entropy", "entropy")]
    else:
        main = [("loss", "training loss")]
        small = [
            ("eval_loss", "held-out loss"),
            ("mean_token_accuracy", "token accuracy"),
            ("learning_rate", "learning rate"),
        ]
    charts = [line_chart(title, series[key]) for key, title in main if key in series]
    charts += [line_chart(title, series[key], SMALL, "var(--series-2)") for key, title in small if key in series]
    name = escape(curve.name)
    if not charts:
        keys = escape(", ".join(sorted(series)[:8]) or "nothing")
        return f'<h3>{name}</h3><p class="note">The trainer logged neither reward nor loss (found: {keys}).</p>'
    return f'<h3>{name}</h3><div class="charts">{"".join(charts)}</div>'


def reliability_chart(title: str, found: Mapping) -> str:
    """Share of right relations over confidence. `found`: "calibration" of metrics.json."""
    width, height = 280, 240
    right, bottom = width - RIGHT, height - BOTTOM
    bins = [one for one in found["bins"] if one["relations"]]
    most = max((one["relations"] for one in bins), default=1)

    def x(value: float) -> float:
        return round(LEFT + value * (right - LEFT), 1)

    def y(value: float) -> float:
        return round(bottom - value * (bottom - TOP), 1)

    halves = (0, 0.5, 1)
    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(value)}" y2="{y(value)}"/>'
        f'<text x="{LEFT - 7}" y="{y(value) + 3.5}" text-anchor="end">{value:g}</text>'
        f'<text x="{x(value)}" y="{bottom + 15}" text-anchor="middle">{value:g}</text>'
        for value in halves
    )
    columns = "".join(
        f'<rect class="histogram" x="{x(one["low"]) + 1}" width="{x(one["high"]) - x(one["low"]) - 2:.1f}" '
        f'y="{y(one["relations"] / most * 0.9)}" height="{bottom - y(one["relations"] / most * 0.9):.1f}">'
        f"<title>{one['relations']:,} relations</title></rect>"
        for one in bins
    )
    points = [(x(one["confidence"]), y(one["precision"])) for one in bins]
    line = "M" + "L".join(f"{a} {b}" for a, b in points) if points else ""
    dots = "".join(
        f'<circle class="line-end" cx="{a}" cy="{b}" r="4"><title>confidence {one["confidence"]:.2f}: '
        f"{one['precision']:.2f} of {one['relations']:,} relations are right</title></circle>"
        for (a, b), one in zip(points, bins, strict=True)
    )
    auroc = "" if found.get("auroc") is None else f" · AUROC {found['auroc']:.3f}"
    said = f"calibration error {found['ece']:.3f}{auroc} · {found['relations']:,} relations"
    return f"""<figure class="chart small" style="--series-colour:var(--series)">
<figcaption><b>{escape(title)}</b></figcaption>
<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}: {said}">
{grid}{columns}<line class="ideal" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>
<path class="line" d="{line}"/>{dots}
<text x="{right}" y="{height - 3}" text-anchor="end" class="unit">confidence</text>
</svg><figcaption>{said}</figcaption></figure>"""
