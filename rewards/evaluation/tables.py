"""Figures as text: what `Evaluation.compute` gives, and recalls at every K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.metrics.strict import KINDS
from rewards.metrics.written import recall_lines
from sgrl.terminal import printable


def table(found: Mapping[str, Any], predicates: int = 10) -> str:
    """metrics.json as text. predicates: how many of the most frequent ones."""
    lines = [f"{'':<12}{'precision':<22}{'recall':<22}F1"]
    for kind in KINDS:
        for pooled, head in (("", f"{kind}s"), ("pooled_", "  pooled")):
            cells = (with_interval(found, f"{pooled}{kind}_{name}") for name in ("precision", "recall", "f1"))
            lines.append(f"{head:<12}" + "".join(f"{cell:<22}" for cell in cells).rstrip())
    lines += [
        f"SGG score {with_interval(found, 'sgg_score')}; failure rate {with_interval(found, 'failure_rate')}: "
        f"{found['failures']:,} of {found['samples']:,} images; {found['valid_rate']:.3f} are valid answers",
        f"Protocol: {found['protocol']}. In brackets: 95 % intervals, bootstrap over images.",
    ]
    lines += ["", *recall_lines(found["recall"])]
    for name, head in (("failure_reasons", "No graph"), ("format_errors", "Readable, but no valid answer")):
        if found[name]:
            lines += ["", f"{head}:"] + [
                f"{count:>8,}  {printable(reason, 300)}" for reason, count in list(found[name].items())[:8]
            ]
    if found["predicates"]:
        names = [printable(row["predicate"], 60) for row in found["predicates"][:predicates]]
        width = max(map(len, [*names, "predicate", "head"])) + 2
        head = f"{'':<6}{'reference':>10}{'predicted':>10}{'right':>8}{'precision':>10}{'recall':>8}{'F1':>8}"
        lines += ["", f"{'predicate':<{width}}{head}"]
        for name, row in zip(names, found["predicates"], strict=False):
            lines.append(f"{name:<{width}}{row['group']:<6}{_cells(row)}")
        left = len(found["predicates"]) - predicates
        lines += [f"... and {left} more"] if left > 0 else []
        for row in found["groups"]:
            if row["predicates"]:
                size = f"{len(row['predicates'])} predicates"
                lines.append(
                    f"{row['group']:<{width + 6}}{_cells(row)}  mean recall {row['mean_recall']:.3f} of {size}"
                )
    if found["calibration"]:
        c = found["calibration"]
        area = "" if c["auroc"] is None else f", AUROC of right against wrong {c['auroc']:.3f}"
        lines += ["", f"Confidences of {c['relations']:,} relations: calibration error {c['ece']:.3f}{area}"]
    return "\n".join(lines)


def with_interval(found: Mapping[str, Any], name: str) -> str:
    """A figure as text, with its interval if there is one."""
    if name not in found["intervals"]:
        return f"{found[name]:.3f}"
    low, high = found["intervals"][name]
    return f"{found[name]:.3f} [{low:.3f}, {high:.3f}]"


def _cells(row: Mapping[str, Any]) -> str:
    return (
        f"{row['reference']:>10,}{row['predicted']:>10,}{row['right']:>8,}{row['precision']:>10.3f}"
        f"{row['recall']:>8.3f}{row['f1']:>8.3f}"
    )


def at_ks(title: str, found: Mapping[str, Any], less: Mapping[str, Any] | None = None) -> list[str]:
    """A table of the figures that are named "<name>@<K>", or, with `less`, by how much they exceed those there."""
    keys = [key for key in found if "@" in key]
    names = list(dict.fromkeys(key.partition("@")[0] for key in keys))
    ks = list(dict.fromkeys(key.partition("@")[2] for key in keys))
    width = max(map(len, [title, *names])) + 2
    lines = [f"{title:<{width}}" + "".join(f"{'@' + k:>9}" for k in ks)]
    for name in names:
        cells = []
        for key in (f"{name}@{k}" for k in ks):
            if key not in found:
                cells.append(f"{'':>9}")
            else:
                cells.append(f"{found[key]:>9.4f}" if less is None else f"{found[key] - less[key]:>+9.4f}")
        lines.append(f"{name:<{width}}" + "".join(cells))
    return lines


def ranking_lines(found: Mapping[str, Any], notes: list[str]) -> list[str]:
    """Figures at every K, ranked by confidence and by writing, and the difference."""
    first = found["by_writing"]
    if sure := found.get("by_confidence"):
        lines = [*at_ks("by confidence", sure), "", *at_ks("by writing", first), ""]
        return [*lines, *at_ks("what confidence adds", sure, first), "", *notes]
    unranked = "Ranked in the order of writing: the predictions have no confidences."
    return [*at_ks("by writing", first), "", unranked, "", *notes]
