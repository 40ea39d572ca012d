"""Predicted graphs drawn on their images: a PNG for each, and an MP4 for each video.

    sgrl draw build/demo/eval/grpo --output build/overlays

Where the run has references green is right, amber near (right label in another place, or right pair with another
predicate), red hallucinated; without references each object has its own colour. Videos need OpenCV: pip install
'.[thin]'.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sgrl import data
from sgrl.arguments import Parser
from sgrl.drawing import ALARM, Drawing
from sgrl.errors import SgrlError, UsageError
from sgrl.extras import require
from sgrl.files import atomic_path, folder_lock
from sgrl.images import file_name
from sgrl.inference.predictions import Key
from sgrl.progress import Progress
from sgrl.report.gallery import common_units
from sgrl.report.pictures import Pictures
from sgrl.report.runs import Run
from sgrl.report.scored import graph_of, keep_rows, open_run
from sgrl.report.verdicts import NEAR, RIGHT, WRONG, verdicts
from sgrl.text import Codec, get_codec

if TYPE_CHECKING:
    from PIL import Image

COLOURS = {RIGHT: (8, 127, 95), NEAR: (168, 106, 0), WRONG: ALARM}
KEPT_TOGETHER = 4096  # rows in memory at a time, or those of one video


def parser() -> Parser:
    parser = Parser(__doc__, "sgrl draw")
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
    return parser


def overlay(row: Mapping, codec: Codec) -> Drawing:
    """The graph of a line of predictions.jsonl, judged where it has a reference; `codec` reads its texts."""
    frame = float(row["width"]), float(row["height"])
    graph = graph_of(row, codec)[0]
    solution = row["solution"]
    truth = None if solution is None else codec.recover_parsed(solution, *map(int, frame))[0]
    judged = [[COLOURS.get(verdict.state) for verdict in kind] for kind in verdicts(graph, truth, row.get("matched"))]
    return Drawing(
        graph.labels, graph.boxes, frame, graph.relations, object_colours=judged[0], relation_colours=judged[1]
    )


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
    cv2 = require("cv2", "thin", f"{path}: writing videos")
    import numpy as np

    writer, count = None, 0
    with atomic_path(path) as temporary:
        part = temporary.with_suffix(".mp4")  # OpenCV goes by the suffix
        try:
            for picture in frames:
                if writer is None:
                    for code in ("vp09", "mp4v"):
                        writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*code), fps, picture.size)
                        if writer.isOpened():
                            break
                    else:
                        raise SgrlError(f"{path}: this OpenCV can write neither VP9 nor MPEG-4; install opencv-python")
                writer.write(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR))
                count += 1
            if writer is not None:
                writer.release()
            if cv2.VideoCapture(str(part)).get(cv2.CAP_PROP_FRAME_COUNT) != count:  # OpenCV does not say so itself
                raise SgrlError(f"{path}: the video was not written to its end; is the disk full?")
            part.rename(temporary)
        finally:
            part.unlink(missing_ok=True)
    return count


@dataclass(frozen=True)
class Album:
    """Where drawings come from and go to: `names` are the files' in `output` without suffix, `fps` that of videos."""

    run: Run
    pictures: Pictures
    codec: Codec
    names: Mapping[Key, Path]
    output: Path
    fps: float


def draw_unit(unit: Sequence[Key], album: Album) -> None:
    """Draw an image, or all frames of a video and the video."""
    run, names, output = album.run, album.names, album.output
    overlays = {key: overlay(run.rows[key], album.codec) for key in unit}
    video = unit[0] in run.places
    lines = max(drawing.lines for drawing in overlays.values())
    size = None

    def drawn():
        nonlocal size
        for key in unit:
            picture = album.pictures[key]
            size = size or picture.size  # all frames of a video as large as the first
            result = overlays[key].draw(picture if picture.size == size else picture.resize(size), lines)
            with atomic_path((output / names[key]).with_name(f"{names[key].name}.png")) as path:
                result.save(path, "PNG")
            yield result

    if video:
        folder = (output / names[unit[0]]).parent
        write_video(folder.with_name(f"{folder.name}.mp4"), drawn(), album.fps)
    else:
        list(drawn())


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit is {args.limit}, expected at least 1")
    if not args.fps > 0:
        raise UsageError(f"--fps is {args.fps}, expected more than 0")
    run = open_run(args.run.name, args.run, args.dataset)
    run.keys = run.keys[: args.limit]
    units = common_units([run])
    pictures = Pictures(run, run.keys, args.dataset)
    codec = get_codec(run.info.get("codec") or data.read_metadata(args.dataset or pictures.name)["codec"])
    names = names_of(units, run)
    album = Album(run, pictures, codec, names, args.output, args.fps)
    videos = sum(unit[0] in run.places for unit in units)
    with folder_lock(args.output), Progress("drawing", len(run.keys), "image", where=args.output) as progress:
        for start, unit in enumerate(units):
            if unit[0] not in run.rows:
                ahead = itertools.islice(itertools.chain(*units[start:]), max(KEPT_TOGETHER, len(unit)))
                keep_rows(run, ahead, codec)
            if not all(key in run.rows for key in unit):
                keep_rows(run, unit, codec)
            draw_unit(unit, album)
            progress.update(len(unit))
    print(f"Wrote {len(names):,} PNG files" + (f" and {videos:,} MP4 files" if videos else "") + f" to {args.output}")
