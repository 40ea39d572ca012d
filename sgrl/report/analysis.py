"""What stands behind the means, as metrics.json has it: recall at K, predicates one by one, why graphs fail, how
far to trust confidences. A section is left out where no run has its figures.
"""

from __future__ import annotations

from collections.abc import Sequence

from sgrl.report.charts import reliability_chart
from sgrl.report.runs import Run
from sgrl.report.tables import best_of, short

MAX_PREDICATES, MAX_REASONS = 500, 20


def sections(runs: Sequence[Run]) -> tuple[str, dict[str, str]]:
    """The HTML of all that is there, and the ids and names of the sections for the page's navigation."""
    parts, names = [], {}
    for name, title, body in (
        ("recall", "Recall@K", recall(runs)),
        ("rankings", "Rankings", rankings(runs)),
        ("predicates", "Predicates", predicates(runs)),
        ("failures", "Failures", failures(runs)),
        ("confidence", "Confidence", calibration(runs)),
    ):
        if body:
            parts.append(f'<section id="{name}"><h2>{title}</h2>{body}</section>')
            names[name] = title
    return "".join(parts), names


def _table(head: str, body: str, label: str) -> str:
    return (
        f'<div class="scroll tall" tabindex="0" role="group" aria-label="{label}">'
        f"<table><thead><tr>{head}</tr></thead>{body}</table></div>"
    )


def _heads(names: Sequence[str]) -> str:
    return "".join(f'<th scope="col">{name}</th>' for name in names)


def recall(runs: Sequence[Run]) -> str:
    """Recall and mean recall of relations at every K, ranked as written and by confidence, run by run."""
    runs = [run for run in runs if run.metrics.get("recall")]
    if not runs:
        return ""
    ks = [name.partition("@")[2] for name in runs[0].metrics["recall"]["writing"] if name.startswith("recall@")]
    body = []
    for run in runs:
        found = run.metrics["recall"]
        body.append(_group_head(run.name, len(ks) + 1))
        for name in ("recall", "mean_recall"):
            title = name.replace("_", " ")
            for key, ranking, sign in (
                ("writing", "as written", ""),
                ("confidence", "by confidence", ""),
                ("difference", "what confidence adds", "+"),
            ):
                figures = found.get(key)
                if figures:
                    ends = (found.get("intervals") or {}).get(key) or {}
                    names = [f"{name}@{k}" for k in ks]
                    cells = "".join(_cell(figures.get(name), ends.get(name), sign) for name in names)
                    body.append(f'<tr><th scope="row">{title}, {ranking}</th>{cells}</tr>')
        body.append("</tbody>")
    note = (
        '<p class="note">Share of the reference relations among the first K, mean over images; mean recall is over '
        "predicates. Graphs with fewer than K relations count with what they have.</p>"
    )
    return _table(f"<td></td>{_heads([f'@{short(k)}' for k in ks])}", "".join(body), "recall at K") + note


def rankings(runs: Sequence[Run]) -> str:
    """What `rewards score --metrics` said of runs: figures at every K, metric by metric and run by run."""
    found = [(run, run.metrics["rankings"]) for run in runs if run.metrics.get("rankings")]
    tables = []
    for metric in dict.fromkeys(name for _, metrics in found for name in metrics):
        having = [(run, metrics[metric]) for run, metrics in found if metric in metrics]
        keys = [key.partition("@") for key in having[0][1] if "@" in key]
        ks = list(dict.fromkeys(k for _, _, k in keys))
        body = []
        for run, figures in having:
            body.append(_group_head(run.name, len(ks) + 1))
            for name in dict.fromkeys(name for name, _, _ in keys):
                ends = figures.get("intervals") or {}
                cells = "".join(_cell(figures.get(f"{name}@{k}"), ends.get(f"{name}@{k}"), "") for k in ks)
                body.append(f'<tr><th scope="row">{short(name.replace("_", " "))}</th>{cells}</tr>')
            body.append("</tbody>")
        head = f'<th scope="col">{short(metric)}</th>{_heads([f"@{short(k)}" for k in ks])}'
        tables.append(_table(head, "".join(body), f"rankings by {short(metric)}"))
    return "".join(tables)


def _group_head(name: str, columns: int) -> str:
    return f'<tbody><tr class="group"><th colspan="{columns}" scope="rowgroup">{short(name)}</th></tr>'


def _cell(value: float | None, ends: Sequence[float] | None, sign: str) -> str:
    if value is None:
        return "<td>–</td>"
    spread = f"<small>[{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]</small>" if ends else ""
    return f'<td class="below">{value:{sign}.3f}{spread}</td>'


def predicates(runs: Sequence[Run]) -> str:
    """A row for each predicate of the references and one for head, body and tail; a column of F1 for each run."""
    runs = [run for run in runs if run.metrics.get("predicates")]
    if not runs:
        return ""
    found = [{row["predicate"]: row for row in run.metrics["predicates"]} for run in runs]
    groups = [{row["group"]: row for row in run.metrics.get("groups") or ()} for run in runs]
    names = list(dict.fromkeys(name for rows in found for name in rows))
    first = {name: next(rows[name] for rows in found if name in rows) for name in names}
    names.sort(key=lambda name: -first[name]["reference"])
    body = ["<tbody>"]
    for group in ("head", "body", "tail"):
        members = [rows[group] for rows in groups if rows.get(group, {}).get("predicates")]
        if members:
            count = len(members[0]["predicates"])
            rows = [rows.get(group) for rows in groups]
            title = f"<b>{group}</b> <small>{count} predicate{'s' * (count > 1)}</small>"
            body.append(_predicate_row(title, members[0]["reference"], "", rows))
    body.append('</tbody><tbody class="ruled">')
    for name in names[:MAX_PREDICATES]:
        row = first[name]
        body.append(
            _predicate_row(short(name), row["reference"], short(row["group"]), [rows.get(name) for rows in found])
        )
    body.append("</tbody>")
    many = len(runs) > 1
    columns = [f"{short(run.name)} F1" for run in runs] if many else ["predicted", "precision", "recall", "F1"]
    left = len(names) - MAX_PREDICATES
    rest = f"; {left:,} rarer ones are left out" if left > 0 else ""
    unknown = " · ".join(
        f"{short(run.name)} wrote {count:,} relation{'s' * (count > 1)} with a predicate of its own"
        for run in runs
        if (count := (run.metrics.get("unknown_predicates") or {}).get("relations", 0))
    )
    note = f'<p class="note">Pooled over images, by frequency in the references{rest}.'
    note += f" {'Point at a figure for precision and recall. ' * many}{unknown}{'.' * bool(unknown)}</p>"
    heads = f'<th scope="col">predicate</th>{_heads(["in references", "group", *columns])}'
    return _table(heads, "".join(body), "predicates") + note


def _predicate_row(title: str, reference: int, group: str, rows: Sequence[dict | None]) -> str:
    cells = f"<td>{reference:,}</td><td>{group}</td>"
    if len(rows) == 1 and rows[0]:
        row = rows[0]
        cells += f"<td>{row['predicted']:,}</td><td>{row['precision']:.3f}</td><td>{row['recall']:.3f}</td>"
    values = [row["f1"] if row else None for row in rows]
    texts = ["–" if value is None else f"{value:.3f}" for value in values]
    best = best_of(texts, values, 1)
    for found, value, text in zip(rows, values, texts, strict=True):
        if found is None or value is None:
            cells += "<td>–</td>"
            continue
        names = "share best" if text in best else "share"
        share = f"--share:{100 * value:.1f}%;--low:0%;--high:0%"
        told = f"precision {found['precision']:.3f}, recall {found['recall']:.3f}"
        told += f", predicted {found['predicted']:,} times"
        cells += f'<td class="{names}" style="{share}" title="{told}"><span>{text}</span></td>'
    return f'<tr><th scope="row">{title}</th>{cells}</tr>'


def failures(runs: Sequence[Run]) -> str:
    """Why there is no graph, and why a readable one is no valid answer: how many images of each run."""
    body = []
    for key, title in (("failure_reasons", "no graph"), ("format_errors", "readable, but no valid answer")):
        counts = [run.metrics.get(key) or {} for run in runs]
        reasons = sorted(
            {reason for one in counts for reason in one}, key=lambda r: -sum(one.get(r, 0) for one in counts)
        )
        if not reasons:
            continue
        body.append(_group_head(title, len(runs) + 1))
        for reason in reasons[:MAX_REASONS]:
            cells = "".join(f"<td>{one.get(reason, 0):,}</td>" for one in counts)
            body.append(f'<tr><th scope="row">{short(reason, 120)}</th>{cells}</tr>')
        if len(reasons) > MAX_REASONS:
            body.append(f'<tr><th scope="row">and {len(reasons) - MAX_REASONS:,} more reasons</th></tr>')
        body.append("</tbody>")
    if not body:
        return ""
    return _table(f"<td></td>{_heads([short(run.name) for run in runs])}", "".join(body), "reasons of failures")


def calibration(runs: Sequence[Run]) -> str:
    """A reliability diagram for each run whose relations have confidences."""
    charts = [
        reliability_chart(run.name, found) for run in runs if (found := run.metrics.get("calibration")) is not None
    ]
    if not charts:
        return ""
    note = (
        '<p class="note">How often relations of a confidence are right; on the diagonal it is a probability. '
        "The columns behind show how many relations there are. Calibration error (ECE) is the mean distance from the "
        "diagonal; AUROC the chance that a right relation has a higher confidence than a wrong one.</p>"
    )
    return f'<div class="charts">{"".join(charts)}</div>{note}'
