"""The picture of the README, toy scenes with their graphs: `python tools/picture.py` draws it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from data_prep.toys.scene import scene
from sgrl.graph import Object, Relation, SceneGraph

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "graphs.png"
SCENES = (11, 12)  # of the training split; those of other numbers would do as well
GAP = 16


def graph_of(index: int) -> SceneGraph:
    """The graph of one scene."""
    found = scene(0, index)
    height, width = found.image.shape[:2]
    objects = [Object(label, box) for label, box in zip(found.labels, found.boxes, strict=True)]
    return SceneGraph(objects, [Relation(*each) for each in found.relations], width, height)


def picture() -> Image.Image:
    """The scenes side by side, with boxes, an arrow for each relation, and the relations in words."""
    parts = [graph_of(index).draw(scene(0, index).image) for index in SCENES]
    width = sum(part.width for part in parts) + GAP * (len(parts) - 1)
    canvas = Image.new("RGB", (width, max(part.height for part in parts)), "white")
    for place, part in enumerate(parts):
        canvas.paste(part, (place * (parts[0].width + GAP), 0))
    return canvas


if __name__ == "__main__":
    picture().quantize(64, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(PICTURE)
