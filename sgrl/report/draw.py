"""Predicted graphs drawn on their images: a PNG for each, and an MP4 for each video.

    python -m sgrl draw build/demo/eval/grpo --output build/overlays

Where the run has references green is right, amber near (right label in another place, or right pair with another
predicate), red hallucinated; without references each object has its own colour. Videos need OpenCV: pip install
'.[thin]'.
"""

from __future__ import annotations

import argparse
import colorsys
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sgrl import data
from sgrl.boxes import scale as scale_boxes
from sgrl.errors import SgrlError
from sgrl.files import atomic_path, folder_lock
from sgrl.images import SUFFIXES
from sgrl.inference.predictions import Key
from sgrl.report.gallery import MAX_OBJECTS, common_units, cut, thousandths
from sgrl.report.pictures import Pictures
from sgrl.report.runs import Run
from sgrl.report.scored import graph_of, keep_rows, open_run
from sgrl.report.verdicts import NEAR, RIGHT, WRONG, Verdict, verdicts
from sgrl.text import Codec, ParsedGraph, get_codec

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

COLOURS = {RIGHT: (8, 127, 95), NEAR: (168, 106, 0), WRONG: (204, 51, 17)}
PAPER, INK = (255, 255, 255), (26, 34, 48)
MIN_SIDE = 480  # a smaller picture is enlarged, so that the text can be read
MAX_LINES = 12  # triplets below a picture
KEPT_TOGETHER = 4096  # rows in memory at a time, or those of one video


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sgrl draw", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "run",
        type=Path,
        help="folder of a run: of recipes/evaluate.py, of recipes/predict.py for own images, or of scores",
    )
    add("--output", type=Path, required=True, help="folder for the pictures")
    add("--limit", type=int, help="the first N images only")
    add("--fps", type=float, default=4.0, help="frames per second of the videos (default: %(default)s)")
    add("--dataset", help="the data set, if it is not where the run found it")
    return parser.parse_args(arguments)


class Overlay:
    """A graph to draw on a picture. row: a line of predictions.jsonl; `codec` reads its texts."""

    def __init__(self, row: Mapping, codec: Codec):
        self.frame = float(row["width"]), float(row["height"])
        self.graph: ParsedGraph = graph_of(row, codec)[0]
        solution = row["solution"]
        truth = None if solution is None else codec.recover_parsed(solution, *self.frame)[0]
        self.objects, self.relations = verdicts(self.graph, truth, row.get("matched"))

    @property
    def lines(self) -> int:
        """How many lines of text it has below the picture."""
        count = len(self.graph.relations)
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
        font = ImageFont.load_default(max(13, width // 44))
        line = round(font.size * 1.45)
        canvas = Image.new("RGB", (width, height + (lines or self.lines) * line // 2 * 2 + line // 2 * 2), PAPER)
        canvas.paste(picture.resize((width, height), resample))
        pen = ImageDraw.Draw(canvas)
        inside = [thousandths(box, self.frame) for box in self.graph.boxes[:MAX_OBJECTS]]
        boxes = scale_boxes(inside, (1000, 1000), (width, height)).tolist()
        thick = max(2, width // 200)
        for (s, _, o), verdict in zip(self.graph.relations[:MAX_OBJECTS], self.relations, strict=False):
            if s != o and max(s, o) < len(boxes):
                self._arrow(pen, boxes[s], boxes[o], self._colour(verdict, s), thick)
        # large boxes first: what is inside stays on top
        order = sorted(range(len(boxes)), key=lambda i: -(boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]))
        for index in order:
            colour = self._colour(self.objects[index], index)
            x1, y1, x2, y2 = boxes[index]
            pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=thick)
        for index in order:
            text = f"{index + 1} {printable(self.graph.labels[index], 24)}"
            self._tag(pen, font, boxes[index], text, self._colour(self.objects[index], index), width)
        self._list(pen, font, height + line // 2, line, width)
        return canvas

    def _colour(self, verdict: Verdict, index: int) -> tuple[int, int, int]:
        if verdict.state:
            return COLOURS[verdict.state]
        return tuple(round(255 * part) for part in colorsys.hls_to_rgb(index * 0.381966 % 1, 0.38, 0.75))

    @staticmethod
    def _arrow(pen: ImageDraw.ImageDraw, start, end, colour, thick: int) -> None:
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

    @staticmethod
    def _tag(pen: ImageDraw.ImageDraw, font, box, text: str, colour, width: int) -> None:
        wide, high = pen.textlength(text, font) + 8, font.size + 5
        x = min(box[0], max(0, width - wide))
        y = box[1] - high if box[1] >= high else box[1]
        pen.rectangle((x, y, x + wide, y + high), fill=colour)
        pen.text((x + 4, y + high / 2), text, PAPER, font, anchor="lm")

    def _list(self, pen: ImageDraw.ImageDraw, font, top: float, line: int, width: int) -> None:
        if not self.graph.labels:
            pen.text((10, top), "no graph could be read", COLOURS[WRONG], font)
            return
        if not self.graph.relations:
            pen.text((10, top), "no relations", INK, font)
        relations = self.graph.relations
        shown = relations if len(relations) <= MAX_LINES else relations[: MAX_LINES - 1]
        for number, ((s, predicate, o), verdict) in enumerate(zip(shown, self.relations, strict=False)):
            y = top + number * line
            size = round(font.size * 0.6)
            pen.rectangle((10, y + size // 2, 10 + size, y + size // 2 + size), fill=self._colour(verdict, s))
            names = [f"{printable(self.graph.labels[end], 24)} {end + 1}" for end in (s, o)]
            pen.text((18 + size, y), f"{names[0]}  {printable(predicate, 30)}  {names[1]}", INK, font)
        if len(shown) < len(relations):
            rest = f"and {len(relations) - len(shown):,} more"
            pen.text((10, top + len(shown) * line), rest, INK, font)


def printable(text: str, limit: int) -> str:
    """A label on one line, without what a font cannot draw at all."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in cut(text, limit))


def file_name(text: str) -> str:
    """An id as the name of a file without a suffix; ids may hold slashes and anything else."""
    if Path(text).suffix.lower() in SUFFIXES:
        text = text[: -len(Path(text).suffix)]
    return re.sub(r"[^\w.-]+", "_", text).strip("._")[:120] or "image"


def names_of(units: Sequence[Sequence[Key]], run: Run) -> dict[Key, Path]:
    """Where each picture goes, without its suffix: ID, or VIDEO/FRAME. No two share a name."""
    taken: dict[Path, int] = {}

    def free(path: Path) -> Path:
        taken[path] = taken.get(path, 0) + 1
        return path if taken[path] == 1 else free(path.with_name(f"{path.name}-{taken[path]}"))

    names = {}
    for unit in units:
        place = run.places.get(unit[0])
        if place is None:
            names[unit[0]] = free(Path(file_name(unit[0][1])))
            continue
        folder = free(Path(file_name(place[0])))
        names |= {key: free(folder / f"{run.places[key][1]:06d}") for key in unit}
    return names


def write_video(path: Path, frames: Iterable[Image.Image], fps: float) -> int:
    """An MP4 of pictures of one size; returns how many. VP9, which browsers play, where OpenCV has it.

    Raises:
        SgrlError: OpenCV is missing or can write neither VP9 nor MPEG-4.
    """
    try:
        import cv2
    except ImportError:
        raise SgrlError(f"{path}: writing videos needs OpenCV: pip install '.[thin]'") from None
    import numpy as np

    writer, count = None, 0
    with atomic_path(path) as temporary:
        part = temporary.with_suffix(".mp4")  # OpenCV goes by the suffix
        try:
            for picture in frames:
                if writer is None:
                    for code in ("vp09", "mp4v"):
                        writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*code), fps, picture.size)
                        if writer.isOpened():
                            break
                    else:
                        raise SgrlError(f"{path}: this OpenCV can write neither VP9 nor MPEG-4; install opencv-python")
                writer.write(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR))
                count += 1
            writer.release()
            if cv2.VideoCapture(str(part)).get(cv2.CAP_PROP_FRAME_COUNT) != count:  # OpenCV does not say so itself
                raise SgrlError(f"{path}: the video was not written to its end; is the disk full?")
            part.rename(temporary)
        finally:
            part.unlink(missing_ok=True)
    return count


def draw_unit(
    unit: Sequence[Key],
    run: Run,
    pictures: Pictures,
    codec: Codec,
    names: Mapping[Key, Path],
    output: Path,
    fps: float,
) -> None:
    """Draw an image, or all frames of a video and the video."""
    overlays = {key: Overlay(run.rows[key], codec) for key in unit}
    video = unit[0] in run.places
    lines = max(overlay.lines for overlay in overlays.values())
    size = None

    def drawn():
        nonlocal size
        for key in unit:
            picture = pictures[key]
            size = size or picture.size  # all frames of a video as large as the first
            result = overlays[key].draw(picture if picture.size == size else picture.resize(size), lines)
            with atomic_path((output / names[key]).with_name(f"{names[key].name}.png")) as path:
                result.save(path, "PNG")
            yield result

    if video:
        folder = (output / names[unit[0]]).parent
        write_video(folder.with_name(f"{folder.name}.mp4"), drawn(), fps)
    else:
        list(drawn())


def main(arguments: Sequence[str] | None = None) -> None:
    from tqdm import tqdm

    args = parse_arguments(arguments)
    if args.limit is not None and args.limit < 1:
        raise SgrlError(f"--limit is {args.limit}, expected at least 1")
    if not args.fps > 0:
        raise SgrlError(f"--fps is {args.fps}, expected more than 0")
    run = open_run(args.run.name, args.run, args.dataset)
    run.keys = run.keys[: args.limit]
    units = common_units([run])
    pictures = Pictures(run, run.keys, args.dataset)
    codec = get_codec(run.info.get("codec") or data.read_metadata(args.dataset or pictures.name)["codec"])
    names = names_of(units, run)
    videos = sum(unit[0] in run.places for unit in units)
    with folder_lock(args.output), tqdm(total=len(run.keys), unit="image", desc="draw") as progress:
        for start, unit in enumerate(units):
            if unit[0] not in run.rows:
                ahead = itertools.islice(itertools.chain(*units[start:]), max(KEPT_TOGETHER, len(unit)))
                keep_rows(run, ahead, codec)
            if not all(key in run.rows for key in unit):
                keep_rows(run, unit, codec)
            draw_unit(unit, run, pictures, codec, names, args.output, args.fps)
            progress.update(len(unit))
    print(f"Wrote {len(names):,} PNG files" + (f" and {videos:,} MP4 files" if videos else "") + f" to {args.output}")
