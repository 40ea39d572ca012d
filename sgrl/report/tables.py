"""The figures of the runs, side by side, as tables of a page and as text."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from html import escape

import sgrl
from sgrl.drawing import cut
from sgrl.report.runs import Run
from sgrl.terminal import printable

# Key in metrics.json, name, direction of better (+1 higher, -1 lower, 0 neither).
TABLE = (
    ("Objects", (("object_precision", "precision", 1), ("object_recall", "recall", 1), ("object_f1", "F1", 1))),
    (
        "Relations",
        (("relation_precision", "precision", 1), ("relation_recall", "recall", 1), ("relation_f1", "F1", 1)),
    ),
    ("Graph", (("sgg_score", "SGG score", 1), ("failure_rate", "failure rate", -1))),
    (
        "Soft, by a judge",
        (
            ("soft_object_f1", "objects F1", 1),
            ("soft_relation_f1", "relations F1", 1),
            ("soft_sgg_score", "SGG score", 1),
        ),
    ),
    ("Cost", (("mean_tokens", "tokens per graph", 0), ("seconds_per_graph", "seconds per graph", -1))),
)


def short(text: object, limit: int = 40) -> str:
    """`text` on one line, cut and escaped."""
    return escape(cut(text, limit))


def _groups(runs: Sequence[Run]):
    """Those of `TABLE` that a run has figures of."""
    for group, metrics in TABLE:
        if any(key in run.metrics for run in runs for key, _, _ in metrics):
            yield group, metrics


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if key == "mean_tokens":
        return f"{value:,.1f}"
    if key == "seconds_per_graph":
        return f"{value:.4f}" if value < 0.1 else f"{value:.2f}"
    return f"{value:.3f}"


def best_of(texts: Sequence[str], values: Sequence[float | None], direction: int) -> set[str]:
    """The best as printed: two values that look the same are both best, and where all do, none is."""
    ranked = [(direction * value, text) for value, text in zip(values, texts, strict=True) if value is not None]
    return {max(ranked)[1]} if direction and ranked and len(set(texts)) > 1 else set()


def _cell(text: str, value: float | None, interval, best: bool, bar: bool) -> str:
    """A figure, its interval, and both as a bar."""
    names, style, spread = ["best"] * best, "", ""
    if bar and value is not None:
        low, high = interval or (value, value)
        marks = (("share", value), ("low", low), ("high", high))
        style = "".join(f"--{name}:{100 * min(max(mark, 0), 1):.1f}%;" for name, mark in marks)
        style = f' style="{style}"'
        names.append("share")
    if interval:
        spread = f"<small>[{interval[0]:.3f}, {interval[1]:.3f}]</small>"
    return f'<td class="{" ".join(names)}"{style}><span>{text}</span>{spread}</td>'


def results(runs: Sequence[Run]) -> str:
    """Metrics as rows, runs as columns, the best of each row in bold."""
    head = "".join(f'<th scope="col">{short(run.name)}</th>' for run in runs)
    body = []
    for group, metrics in _groups(runs):
        body.append(f'<tbody><tr class="group"><th colspan="{len(runs) + 1}" scope="rowgroup">{group}</th></tr>')
        for key, name, direction in metrics:
            values = [run.metrics.get(key) for run in runs]
            texts = [_shown(key, value) for value in values]
            best = best_of(texts, values, direction)
            cells = [
                _cell(text, value, run.intervals.get(key), text in best, direction > 0)
                for run, value, text in zip(runs, values, texts, strict=True)
            ]
            body.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
        body.append("</tbody>")
    return f"<table><thead><tr><td></td>{head}</tr></thead>{''.join(body)}</table>"


def as_text(runs: Sequence[Run]) -> str:
    """The same figures as `results` for a terminal: one line per run."""
    columns = [(group, key, name) for group, metrics in _groups(runs) for key, name, _ in metrics]
    short_names = {"precision": "P", "recall": "R", "failure rate": "failed", "SGG score": "SGG"}
    heads = [
        f"{group.lower()[:3]} {short_names.get(name, name)}" if group in ("Objects", "Relations")
        else "soft " * group.startswith("Soft") + short_names.get(name, name.removesuffix(" per graph"))
        for group, _, name in columns
    ]  # fmt: skip
    rows = [[printable(run.name, 60), *(_shown(key, run.metrics.get(key)) for _, key, _ in columns)] for run in runs]
    lines = [["", *heads], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def coverage_note(runs: Sequence[Run]) -> str:
    """A warning if the runs were not evaluated on the same images: their means then don't compare."""
    sets = [set(run.keys) for run in runs]
    common = set.intersection(*sets)
    if all(keys == common for keys in sets):
        return ""
    counts = ", ".join(f"{short(run.name)} {len(keys):,}" for run, keys in zip(runs, sets, strict=True))
    return (
        f'<p class="note warn">These runs cover different images ({counts}; {len(common):,} in common): '
        "their figures don't compare. Evaluate them with the same --split and --limit.</p>"
    )


SETTINGS = (
    "model",
    "dataset",
    "split",
    "engine",
    "codec",
    "dtype",
    "max_new_tokens",
    "context",
    "constrain",
    "zero_shot",
)


def details(runs: Sequence[Run], command: str) -> str:
    """Commands, settings and versions, so that everything can be made again."""
    items = []
    for run in runs:
        info = run.info
        items.append(f"<h3>{short(run.name)}</h3><pre>{escape(str(info.get('command', '')))}</pre>")
        facts = {name.replace("_", " "): info.get(name) for name in SETTINGS}
        items.append(
            _facts(facts | {"protocol": run.metrics.get("protocol"), "finished": run.metrics.get("finished")})
        )
        versions = info.get("versions")
        items.append(_facts(versions if isinstance(versions, dict) else {}))
    items.append(f"<h3>this page</h3><pre>{escape(command)}</pre>")
    items.append(_facts({"sgrl": sgrl.__version__, "python": platform.python_version()}))
    return "".join(items)


def _facts(facts: dict) -> str:
    pairs = " · ".join(f"{escape(str(key))} <b>{short(value, 200)}</b>" for key, value in facts.items() if value)
    return f'<p class="versions">{pairs}</p>' if pairs else ""
