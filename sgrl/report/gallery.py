"""Held-out images with the reference graph and every run's graph drawn on them.

All text here comes from models or data sets and is hostile until escaped: every string goes through `escape`, every
number through a format. Boxes are percentages of the picture, so that a drawing fits any size of screen.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape

from sgrl.errors import SgrlError
from sgrl.report.runs import Run

MAX_OBJECTS, MAX_RELATIONS, MAX_LABEL, MAX_TEXT = 60, 60, 40, 4000
MAX_BYTES, MAX_SIDE = 200_000, 960  # an image above this size is embedded smaller
MATCHED, WRONG = "ok", "bad"
SIGNS = {MATCHED: "✓", WRONG: "✗", "": ""}
MEANING = {MATCHED: "found in the reference", WRONG: "not in the reference", "": ""}

FOUND = '<i class="ok" title="{}: found">✓</i>'
MISSED = '<i class="bad" title="{}: missed">✗</i>'


def data_url(image: bytes) -> tuple[str, int, int]:
    """`image` (the bytes of a JPEG, PNG, WebP...) as a data URL, shrunk if it is large; and its width and height."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as picture:
            width, height = picture.size
            kind = (picture.format or "").lower()
            if len(image) > MAX_BYTES or kind not in ("jpeg", "png", "webp", "gif"):
                picture = picture.convert("RGB")
                picture.thumbnail((MAX_SIDE, MAX_SIDE))
                buffer = io.BytesIO()
                picture.save(buffer, "JPEG", quality=88)
                image, kind = buffer.getvalue(), "jpeg"
    except OSError as error:
        raise SgrlError(f"an image of the data set does not open ({error}); convert the data set again") from None
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}", width, height


def short(text: object, limit: int = MAX_LABEL) -> str:
    """`text` on one line, cut to `limit` characters and escaped."""
    text = " ".join(str(text)[: 4 * limit].split())
    return escape(text if len(text) <= limit else text[: limit - 1] + "…")


class Drawing:
    """A graph to draw, and what of it matched.

    graph: a `ParsedGraph`. frame: width and height that its boxes are measured in. size: of the image, in pixels.
    object_pairs, relation_pairs: (index here, index in the reference) of the matches; None for a reference.
    """

    def __init__(self, graph, frame, size, object_pairs=None, relation_pairs=None):
        self.labels = [str(label) for label in graph.labels]
        self.boxes = [tuple(map(float, box)) for box in graph.boxes]
        self.relations = [(int(s), str(predicate), int(o)) for s, predicate, o in graph.relations]
        self.frame = tuple(max(float(side), 1.0) for side in frame)
        self.width, self.height = size
        self.object_states = self._states(len(self.labels), object_pairs)
        self.relation_states = self._states(len(self.relations), relation_pairs)

    @staticmethod
    def _states(count: int, pairs: Sequence[Sequence[int]] | None) -> list[str]:
        if pairs is None:
            return [""] * count
        matched = {pair[0] for pair in pairs}
        return [MATCHED if index in matched else WRONG for index in range(count)]

    def percent(self, index: int) -> tuple[float, float, float, float]:
        """The box as x1, y1, x2, y2 in percent of the picture, clipped to it (model boxes may lie anywhere)."""
        x1, y1, x2, y2 = self.boxes[index]
        x1, x2 = sorted(min(max(100 * x / self.frame[0], 0.0), 100.0) for x in (x1, x2))
        y1, y2 = sorted(min(max(100 * y / self.frame[1], 0.0), 100.0) for y in (y1, y2))
        return x1, y1, x2, y2

    def picture(self, image_id: str) -> str:
        """The image (an <image> with this id elsewhere on the page) with boxes, tags and arrows."""
        shown = range(min(len(self.labels), MAX_OBJECTS))
        tall = 100 * self.height / self.width  # the drawing is 100 units wide
        boxes, tags = [], []
        # Large boxes first, so that a small one inside stays on top and can be pointed at.
        for index in sorted(shown, key=lambda i: -self._area(i)):
            x1, y1, x2, y2 = self.percent(index)
            state = self.object_states[index]
            top, height = y1 * tall / 100, (y2 - y1) * tall / 100
            place = f'x="{x1:.2f}" y="{top:.2f}" width="{x2 - x1:.2f}" height="{height:.2f}"'
            boxes.append(f'<g class="box {state}" data-i="{index}"><rect class="halo" {place}/><rect {place}/></g>')
            side = f"left:{x1:.2f}%" if x1 < 70 else f"right:{100 - x2:.2f}%"
            edge = f"top:{y1:.2f}%" if y1 < 9 else f"bottom:{100 - y1:.2f}%"  # inside the box, or above it
            name = f" <span>{short(self.labels[index], 18)}</span>"
            sign = f"<i>{SIGNS[state]}</i>" if state else ""
            tags.append(f'<b class="tag {state}" data-i="{index}" style="{side};{edge}">{sign}{index + 1}{name}</b>')
        arrows = []
        for index, (s, _, o) in enumerate(self.relations[:MAX_RELATIONS]):
            if s in shown and o in shown and s != o:
                line = self._arrow(s, o, tall)
                state = self.relation_states[index]
                arrows.append(f'<g class="arrow {state}" data-r="{index}">{line}</g>')
        crowd = " crowded" if len(self.labels) > 6 or len(self.relations) > 8 else ""
        return (
            f'<div class="picture{crowd}" style="aspect-ratio:{self.width:g}/{self.height:g}" aria-hidden="true">'
            f'<svg viewBox="0 0 100 {tall:.3f}"><use href="#{image_id}"/>{"".join(boxes)}{"".join(arrows)}</svg>'
            f"{''.join(tags)}</div>"
        )

    def _area(self, index: int) -> float:
        x1, y1, x2, y2 = self.percent(index)
        return (x2 - x1) * (y2 - y1)

    def _arrow(self, s: int, o: int, tall: float) -> str:
        ax1, ay1, ax2, ay2 = self.percent(s)
        bx1, by1, bx2, by2 = self.percent(o)
        start = ((ax1 + ax2) / 2, (ay1 + ay2) / 2 * tall / 100)
        end = ((bx1 + bx2) / 2, (by1 + by2) / 2 * tall / 100)
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = (dx * dx + dy * dy) ** 0.5 or 1.0
        ux, uy = dx / length, dy / length
        # A gentle bow keeps a pair's two directions apart.
        middle = ((start[0] + end[0]) / 2 - uy * length * 0.12, (start[1] + end[1]) / 2 + ux * length * 0.12)
        curve = f"M{start[0]:.2f} {start[1]:.2f}Q{middle[0]:.2f} {middle[1]:.2f} {end[0]:.2f} {end[1]:.2f}"
        # The head points along the end of the curve.
        hx, hy = end[0] - middle[0], end[1] - middle[1]
        norm = (hx * hx + hy * hy) ** 0.5 or 1.0
        hx, hy = 3.6 * hx / norm, 3.6 * hy / norm
        head = f"M{end[0]:.2f} {end[1]:.2f}l{-hx - hy * 0.5:.2f} {-hy + hx * 0.5:.2f}l{hy:.2f} {-hx:.2f}z"
        dot = f'<circle cx="{start[0]:.2f}" cy="{start[1]:.2f}" r="1.3"/>'
        return f'<path class="halo" d="{curve}"/><path class="shaft" d="{curve}"/>{dot}<path class="head" d="{head}"/>'

    def triplets(self, found: Sequence[tuple[str, set[int]]] = (), right_if_empty: bool = False) -> str:
        """The relations as a list.

        found: for the reference, each run's name and the positions of the reference relations that it found.
        right_if_empty: for a run, whether the reference has no relations either.
        """
        if not self.relations:
            return f'<p class="empty {MATCHED}">{"<i>✓</i> " if right_if_empty else ""}no relations</p>'
        items = []
        for index, (s, predicate, o) in enumerate(self.relations[:MAX_RELATIONS]):
            state = self.relation_states[index]
            marks = "".join(
                FOUND.format(short(name)) if index in hits else MISSED.format(short(name)) for name, hits in found
            )
            marks = marks and f'<span class="marks">{marks}</span>'
            sign = f'<i class="{state}" title="{MEANING[state]}">{SIGNS[state]}</i>' if state else ""
            items.append(
                f'<li class="{state}" tabindex="0" data-r="{index}" data-s="{s}" data-o="{o}" '
                f'data-p="{short(predicate)}">{sign}<span>{self._name(s)} <em>{short(predicate)}</em> {self._name(o)}'
                f"</span>{marks}</li>"
            )
        more = len(self.relations) - MAX_RELATIONS
        rest = f'<p class="empty">and {more:,} more</p>' if more > 0 else ""
        return f'<ul class="triplets">{"".join(items)}</ul>{rest}'

    def _name(self, index: int) -> str:
        label = self.labels[index] if 0 <= index < len(self.labels) else "?"
        return f"<b>{short(label)}<sub>{index + 1}</sub></b>"


def _panel(title: str, note: str, drawing: Drawing | None, image_id: str, text: str, triplets: str, issues=()) -> str:
    if drawing is None:
        blank = f'<div class="picture blank"><svg viewBox="0 0 100 100"><use href="#{image_id}"/></svg></div>'
        body = f'{blank}<p class="failed"><i>✗</i> no graph could be read from this answer</p>'
    else:
        body = f"{drawing.picture(image_id)}{triplets}"
        more = len(drawing.labels) - MAX_OBJECTS
        if more > 0:
            body += f'<p class="empty">{more:,} more objects are not drawn</p>'
    raw = escape(text[:MAX_TEXT]) + ("…" if len(text) > MAX_TEXT else "")
    remarks = "".join(f"<li>{short(issue, 120)}</li>" for issue in list(issues)[:5])
    remarks = f'<ul class="issues">{remarks}</ul>' if remarks else ""
    return (
        f'<section class="panel"><h4>{short(title)}<small>{note}</small></h4>{body}'
        f"<details><summary>as written</summary>{remarks}<pre>{raw}</pre></details></section>"
    )


def card(number: int, key: tuple[str, str], image: bytes, runs: Sequence[Run], codec) -> str:
    """One image: the reference and what every run made of it, side by side.

    `codec` (see `sgrl.text.get_codec`) reads the texts; `runs` must all hold a row for `key`.
    """
    rows: list[Mapping] = [run.rows[key] for run in runs]
    frame = rows[0]["width"], rows[0]["height"]
    url, *size = data_url(image)
    image_id = f"image-{number}"
    reference, _ = codec.recover_parsed(rows[0]["solution"], *frame)
    drawn = Drawing(reference, frame, size)
    hits = [{pair[1] for pair in row["matched"]["relations"]} for row in rows]
    found = [(run.name, hit) for run, hit in zip(runs, hits, strict=True)]
    caption = " · ".join(short(run.name) for run in runs)
    note = f'<span class="by">found by {caption}</span>' if drawn.relations else ""
    panels = [_panel("reference", note, drawn, image_id, rows[0]["solution"], drawn.triplets(found))]
    for run, row in zip(runs, rows, strict=True):
        parsed, issues = codec.recover_parsed(row["prediction"], *frame)
        graph = None
        if parsed.labels:
            pairs = row["matched"]
            graph = Drawing(parsed, frame, size, pairs["objects"], pairs["relations"])
        score = row["score"]
        note = f"objects {score['object_f1']:.2f} · relations {score['relation_f1']:.2f}"
        triplets = graph.triplets(right_if_empty=not drawn.relations) if graph else ""
        panels.append(_panel(run.name, note, graph, image_id, row["prediction"], triplets, issues))
    first, last = rows[0]["score"]["sgg_score"], rows[-1]["score"]["sgg_score"]
    wrong = graph.relation_states.count(WRONG) if graph else 0
    predicates = json.dumps(sorted({predicate for _, predicate, _ in drawn.relations}))
    pixel = ' class="pixel"' if max(size) <= 200 else ""
    return (
        f'<article class="card" data-order="{number}" data-change="{last - first:.4f}" data-score="{last:.4f}" '
        f'data-wrong="{wrong}" data-predicates="{escape(predicates)}">'
        f'<svg width="0" height="0" aria-hidden="true"><defs><image{pixel} id="{image_id}" href="{url}" width="100" '
        f'height="{100 * size[1] / size[0]:.3f}" preserveAspectRatio="none"/></defs></svg>'
        f"<h3>{short(key[1], 60)}</h3>"
        f'<div class="panels" tabindex="0" role="group" aria-label="image {number}">{"".join(panels)}</div></article>'
    )
