"""The report: one HTML file with everything in it, safe to open and to send."""

from __future__ import annotations

import base64
import hashlib
import platform
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

import sgrl
from sgrl.errors import SgrlError
from sgrl.files import atomic_path
from sgrl.report.charts import curve_charts
from sgrl.report.gallery import card, short
from sgrl.report.runs import Curve, Run

HERE = Path(__file__).parent
# Key in metrics.json, name, direction of better (+1 higher, -1 lower, 0 neither), format.
TABLE = (
    ("Objects", (("object_precision", "precision", 1), ("object_recall", "recall", 1), ("object_f1", "F1", 1))),
    (
        "Relations",
        (("relation_precision", "precision", 1), ("relation_recall", "recall", 1), ("relation_f1", "F1", 1)),
    ),
    ("Graph", (("sgg_score", "SGG score", 1), ("failure_rate", "failure rate", -1))),
    ("Cost", (("mean_tokens", "tokens per graph", 0), ("seconds_per_graph", "seconds per graph", -1))),
)


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if key == "mean_tokens":
        return f"{value:,.1f}"
    if key == "seconds_per_graph":
        return f"{value:.4f}" if value < 0.1 else f"{value:.2f}"
    return f"{value:.3f}"


def table(runs: Sequence[Run]) -> str:
    """Metrics as rows, runs as columns, the best of each row in bold."""
    head = "".join(f'<th scope="col">{short(run.name)}</th>' for run in runs)
    body = []
    for group, metrics in TABLE:
        body.append(f'<tbody><tr class="group"><th colspan="{len(runs) + 1}" scope="rowgroup">{group}</th></tr>')
        for key, name, direction in metrics:
            values = [run.metrics.get(key) for run in runs]
            texts = [_shown(key, value) for value in values]
            ranked = [direction * value for value in values if value is not None]
            # Best as printed: two values that look the same are both best, and where all do, none is.
            best = _shown(key, direction * max(ranked)) if direction and ranked and len(set(texts)) > 1 else None
            cells = []
            for run, value, text in zip(runs, values, texts, strict=True):
                half = run.half_widths.get(key)
                spread = f"<small>±{half:.3f}</small>" if half is not None else ""
                names = ["best"] * (text == best)
                bar = ""
                if value is not None and direction > 0:
                    names.append("share")
                    bar = f' style="--share:{100 * min(max(value, 0), 1):.1f}%"'
                cells.append(f'<td class="{" ".join(names)}"{bar}><span>{text}</span>{spread}</td>')
            body.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
        body.append("</tbody>")
    return f"<table><thead><tr><td></td>{head}</tr></thead>{''.join(body)}</table>"


def text_table(runs: Sequence[Run]) -> str:
    """The same figures as `table` for a terminal: one line per run."""
    columns = [(group, key, name) for group, metrics in TABLE for key, name, _ in metrics]
    short_names = {"precision": "P", "recall": "R", "failure rate": "failed", "SGG score": "SGG"}
    heads = [
        f"{group.lower()[:3]} {short_names.get(name, name)}" if group in ("Objects", "Relations")
        else short_names.get(name, name.removesuffix(" per graph"))
        for group, _, name in columns
    ]  # fmt: skip
    rows = [[run.name, *(_shown(key, run.metrics.get(key)) for _, key, _ in columns)] for run in runs]
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


def details(runs: Sequence[Run], command: str) -> str:
    """Commands and versions, so that the page can be made again."""
    items = []
    for run in runs:
        info = run.info
        items.append(f"<h3>{short(run.name)}</h3><pre>{escape(str(info.get('command', '')))}</pre>")
        facts = {"model": info.get("model"), "engine": info.get("engine"), "finished": run.metrics.get("finished")}
        facts |= info.get("versions") if isinstance(info.get("versions"), dict) else {}
        pairs = " · ".join(f"{escape(str(key))} {escape(str(value))}" for key, value in facts.items() if value)
        items.append(f'<p class="versions">{pairs}</p>')
    items.append(f"<h3>this page</h3><pre>{escape(command)}</pre>")
    items.append(f'<p class="versions">sgrl {sgrl.__version__} · python {platform.python_version()}</p>')
    return "".join(items)


def render(
    runs: Sequence[Run],
    curves: Sequence[Curve],
    images: Iterable[tuple[tuple[str, str], bytes]],
    codec,
    title: str,
    subtitle: str,
    command: Sequence[str] = (),
) -> str:
    """The page as text.

    `images`: (key, bytes of the image file) in the order to show, each present in `rows` of every run. `codec` reads
    the graphs. All text in runs, curves and arguments is escaped.
    """
    if not runs:
        raise SgrlError("no runs: a report needs at least one --run name=DIR")
    cards = [card(number, key, image, runs, codec) for number, (key, image) in enumerate(images, 1)]
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    charts = "".join(curve_charts(curve) for curve in curves)
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=digest,
        note=coverage_note(runs),
        table=table(runs),
        curves=f'<section id="training"><h2>Training</h2>{charts}</section>' if charts else "",
        cards="".join(cards),
        shown=f"The first {len(cards):,} images" if len(cards) > 1 else "The first image",
        first=short(runs[0].name),
        last=short(runs[-1].name),
        details=details(runs, shlex.join(command)),
    )


def write(path: str | Path, text: str) -> None:
    """Write the page whole or not at all."""
    with atomic_path(path) as temporary:
        # What a model wrote may hold lone surrogates, which UTF-8 has no bytes for.
        temporary.write_bytes(text.encode("utf-8", errors="replace"))
