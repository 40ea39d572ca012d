"""Graphs drawn: on their image with Pillow, and as SVG with a list of the relations for notebooks."""

from __future__ import annotations

import colorsys
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgrl.images import open_image

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

PAPER, INK, ALARM = (255, 255, 255), (26, 34, 48), (204, 51, 17)
MIN_SIDE = 480  # a smaller picture is enlarged, so that the text can be read
MAX_SIDE = 1024  # of paper without an image: a graph may claim any size
MAX_OBJECTS, MAX_RELATIONS = 60, 60  # what is drawn
MAX_LINES = 12  # triplets below a picture
MAX_LABEL = 40
SVG_WIDTH = 480


def cut(text: object, limit: int = MAX_LABEL) -> str:
    """`text` on one line, cut to `limit` characters."""
    text = " ".join(str(text)[: 4 * limit].split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def drawable(text: object, limit: int = MAX_LABEL) -> str:
    """A label on one line, without what a font cannot draw at all."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in cut(text, limit))


def colour_of(index: int) -> Colour:
    """One of many colours that differ from those of its neighbours."""
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(index * 0.381966 % 1, 0.38, 0.75))
    return red, green, blue


def picture_of(image, width: float, height: float) -> Image.Image:
    """The image that is drawn on: opened if need be; white paper of the graph's shape for None."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    if image is None:
        scale = min(1.0, MAX_SIDE / max(width, height))
        return Image.new("RGB", (max(1, round(width * scale)), max(1, round(height * scale))), PAPER)
    return Image.fromarray(image) if hasattr(image, "__array_interface__") else open_image(image)


@dataclass(frozen=True)
class Drawing:
    """What is drawn of a graph.

    Args:
        labels: of the objects. boxes: x1, y1, x2, y2 for each; any finite numbers. frame: width and height of the
            image that they are in.
        relations: (subject, predicate, object), ends as positions; a relation with an end that is no object, or -1, is
            listed or left out but never drawn.
        numbers: what stands beside each label; its position from 1 unless given.
        scores: of the relations, for the list of a notebook.
        object_colours, relation_colours: a colour for each; None one of its own for an object, the subject's for a
            relation.
    """

    labels: Sequence[str]
    boxes: Sequence[Sequence[float]]
    frame: tuple[float, float]
    relations: Sequence[tuple[int, str, int]]
    numbers: Sequence[int | str | None] | None = None
    scores: Sequence[float | None] | None = None
    object_colours: Sequence[Colour | None] | None = None
    relation_colours: Sequence[Colour | None] | None = None

    @classmethod
    def of(cls, graph, numbers: Sequence | None = None) -> Drawing:
        """That of a SceneGraph."""
        return cls(
            [o.label for o in graph.objects],
            [o.box for o in graph.objects],
            (graph.width, graph.height),
            [(r.subject, r.predicate, r.object) for r in graph.relations],
            numbers=numbers,
            scores=[r.score for r in graph.relations],
        )

    @property
    def lines(self) -> int:
        """How many lines of text it has below the picture."""
        count = len(self.relations)
        return min(count, MAX_LINES - 1) + 1 if count > MAX_LINES else max(count, 1)

    def draw(self, picture: Image.Image, lines: int | None = None) -> Image.Image:
        """The picture with boxes and arrows, and the triplets below it, with room for `lines` of them.

        Both sides of the result are even, as videos want them.
        """
        from PIL import Image, ImageDraw, ImageFont

        picture = picture.convert("RGB")
        scale = max(1, -(-MIN_SIDE // max(picture.size)))
        resample = Image.Resampling.NEAREST if scale > 3 else Image.Resampling.BICUBIC
        width, height = (-(-side * scale // 2) * 2 for side in picture.size)
        size = max(13, width // 44)
        font = ImageFont.load_default(size)
        line = round(size * 1.45)
        canvas = Image.new("RGB", (width, height + (lines or self.lines) * line // 2 * 2 + line // 2 * 2), PAPER)
        canvas.paste(picture.resize((width, height), resample))
        pen = ImageDraw.Draw(canvas)
        boxes = self._placed(width, height)
        thick = max(2, width // 200)
        for i, (s, _, o) in enumerate(self.relations[:MAX_RELATIONS]):
            if s != o and 0 <= s < len(boxes) and 0 <= o < len(boxes):
                _arrow(pen, boxes[s], boxes[o], self._relation_colour(i), thick)
        order = _large_first(boxes)
        for index in order:
            x1, y1, x2, y2 = boxes[index]
            pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=self._colour(index), width=thick)
        for index in order:
            text = f"{self._number(index)} {drawable(self.labels[index], 24)}"
            _tag(pen, font, boxes[index], text, self._colour(index), width)
        self._list(pen, font, height + line // 2, line)
        return canvas

    def html(self) -> str:
        """SVG of boxes and arrows beside the list of the relations; escaped, without scripts, of bounded length."""
        frame_width, frame_height = (max(side, 1) for side in self.frame)
        width = SVG_WIDTH
        height = max(24, min(2 * SVG_WIDTH, round(SVG_WIDTH * min(frame_height / frame_width, 2))))
        boxes = self._placed(width, height)
        shapes = []
        for index in _large_first(boxes):
            x1, y1, x2, y2 = boxes[index]
            colour = "rgb({},{},{})".format(*self._colour(index))
            shapes.append(
                f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}" fill="none" '
                f'stroke="{colour}" stroke-width="2"/>'
                f'<text x="{x1 + 3:.1f}" y="{max(y1, 0) + 13:.1f}" fill="{colour}">{self._escaped(index)}</text>'
            )
        for i, (s, predicate, o) in enumerate(self.relations[:MAX_RELATIONS]):
            if s != o and 0 <= s < len(boxes) and 0 <= o < len(boxes):
                (ax, ay), (bx, by) = (((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (boxes[s], boxes[o]))
                colour = "rgb({},{},{})".format(*self._relation_colour(i))
                shapes.append(
                    f'<line x1="{ax:.1f}" y1="{ay:.1f}" x2="{bx:.1f}" y2="{by:.1f}" stroke="{colour}"/>'
                    f'<circle cx="{bx:.1f}" cy="{by:.1f}" r="4" fill="{colour}"/>'
                    f"<title>{html.escape(drawable(predicate))}</title>"
                )
        return (
            '<div style="display:flex;flex-wrap:wrap;gap:1em">'
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" '
            'style="background:#fff;border:1px solid #ccc;font:12px sans-serif">'
            + "".join(f"<g>{shape}</g>" for shape in shapes)
            + f"</svg>{self._table()}</div>"
        )

    def _table(self) -> str:
        rows = []
        for i, (s, predicate, o) in enumerate(self.relations[:MAX_RELATIONS]):
            score = self.scores[i] if self.scores else None
            sure = "" if score is None or not math.isfinite(score) else f"{score:.3g}"
            cells = (self._escaped(s), html.escape(drawable(predicate)), self._escaped(o), sure)
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        shown = (min(len(self.relations), MAX_RELATIONS), min(len(self.labels), MAX_OBJECTS))
        counts = f"{len(self.labels):,} objects, {len(self.relations):,} relations"
        if shown != (len(self.relations), len(self.labels)):
            counts += f"; the first {shown[1]} and {shown[0]} are shown"
        head = "<tr><th>subject</th><th>predicate</th><th>object</th><th>score</th></tr>"
        return f"<div><div>{counts}</div><table>{head}{''.join(rows)}</table></div>"

    def _escaped(self, index: int) -> str:
        return html.escape(f"{self._number(index)} {self._name(index, MAX_LABEL)}".strip())

    def _name(self, index: int, limit: int) -> str:
        return drawable(self.labels[index], limit) if 0 <= index < len(self.labels) else "?"

    def _number(self, index: int) -> str:
        if not 0 <= index < len(self.labels):
            return ""
        given = self.numbers[index] if self.numbers else None
        return drawable(index + 1 if given is None else given, 12)

    def _placed(self, width: int, height: int) -> list[list[float]]:
        """The boxes in a picture of that size, corners in order, clipped to it."""
        placed = []
        for box in self.boxes[:MAX_OBJECTS]:
            sides = zip(box, [max(side, 1.0) for side in self.frame] * 2, (width, height) * 2, strict=True)
            x1, y1, x2, y2 = (min(max(value / side * new, 0.0), float(new)) for value, side, new in sides)
            placed.append([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)])
        return placed

    def _colour(self, index: int) -> Colour:
        given = self.object_colours[index] if self.object_colours else None
        return colour_of(index) if given is None else given

    def _relation_colour(self, index: int) -> Colour:
        given = self.relation_colours[index] if self.relation_colours else None
        return colour_of(self.relations[index][0]) if given is None else given

    def _list(self, pen: ImageDraw.ImageDraw, font, top: float, line: int) -> None:
        if not self.labels:
            pen.text((10, top), "no graph could be read", ALARM, font)
            return
        if not self.relations:
            pen.text((10, top), "no relations", INK, font)
        shown = self.relations if len(self.relations) <= MAX_LINES else self.relations[: MAX_LINES - 1]
        for number, (s, predicate, o) in enumerate(shown):
            y = top + number * line
            size = round(font.size * 0.6)
            pen.rectangle((10, y + size // 2, 10 + size, y + size // 2 + size), fill=self._relation_colour(number))
            names = [f"{self._name(end, 24)} {self._number(end)}" for end in (s, o)]
            pen.text((18 + size, y), f"{names[0]}  {drawable(predicate, 30)}  {names[1]}", INK, font)
        if len(shown) < len(self.relations):
            rest = f"and {len(self.relations) - len(shown):,} more"
            pen.text((10, top + len(shown) * line), rest, INK, font)


def _large_first(boxes: Sequence[Sequence[float]]) -> list[int]:
    """What is inside another stays on top."""
    return sorted(range(len(boxes)), key=lambda i: -(boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]))


def _arrow(pen: ImageDraw.ImageDraw, start, end, colour: Colour, thick: int) -> None:
    ax, ay = (start[0] + start[2]) / 2, (start[1] + start[3]) / 2
    bx, by = (end[0] + end[2]) / 2, (end[1] + end[3]) / 2
    length = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5
    if length < 4:
        return
    ux, uy = (bx - ax) / length, (by - ay) / length
    head, half = 5 * thick, 2.4 * thick
    neck = bx - ux * head, by - uy * head
    for ink, wide in ((PAPER, thick + 2), (colour, thick)):
        pen.line((ax, ay, *neck), fill=ink, width=wide)
    corners = [(neck[0] - uy * half, neck[1] + ux * half), (neck[0] + uy * half, neck[1] - ux * half)]
    pen.polygon([(bx, by), *corners], fill=colour, outline=PAPER)
    dot = 1.6 * thick
    pen.ellipse((ax - dot, ay - dot, ax + dot, ay + dot), fill=colour, outline=PAPER)


def _tag(pen: ImageDraw.ImageDraw, font, box, text: str, colour: Colour, width: int) -> None:
    wide, high = pen.textlength(text, font) + 8, font.size + 5
    x = min(box[0], max(0, width - wide))
    y = box[1] - high if box[1] >= high else box[1]
    pen.rectangle((x, y, x + wide, y + high), fill=colour)
    pen.text((x + 4, y + high / 2), text, PAPER, font, anchor="lm")
