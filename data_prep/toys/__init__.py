"""Toy worlds: scenes and videos of coloured shapes in the official layouts, one file a layout and one line below."""

from __future__ import annotations

from typing import NamedTuple


class Layout(NamedTuple):
    """One way to write the toy world.

    Attributes:
        writer: module and function, called with output, train, test, seed, progress (and frames, for videos).
        train, test: how many scenes or videos by default.
        frames: of a video by default, 0 for images.
        annotations: the file that is written last.
        rich: the writer of rich labels, where there is one.
    """

    writer: str
    train: int
    test: int
    frames: int
    annotations: str
    rich: str = ""


LAYOUTS = {
    "psg": Layout("data_prep.toys.psg:write", 16000, 1000, 0, "psg/psg.json"),
    "vg150": Layout("data_prep.toys.vg150:write", 16000, 1000, 0, "VG-SGG.h5"),
    "vg": Layout("data_prep.toys.vg:write", 7000, 3000, 0, "relationships.json"),
    "coco": Layout("data_prep.toys.coco:write", 16000, 1000, 0, "test/_annotations.coco.json"),
    "hub": Layout("data_prep.toys.hub:write", 16000, 1000, 0, "test/train-00000-of-00001.parquet"),
    "pvsg": Layout("data_prep.toys.pvsg:write", 1000, 60, 16, "pvsg.json"),
    "action_genome": Layout(
        "data_prep.toys.action_genome:write",
        1000,
        60,
        16,
        "annotations/object_bbox_and_relationship.pkl",
        rich="data_prep.toys.action_genome:write_rich",
    ),
    "psg4d_gta": Layout("data_prep.toys.psg4d:write_gta", 100, 20, 16, "sailvos3d.json"),  # large: bmp and npy files
    "psg4d_hoi": Layout("data_prep.toys.psg4d:write_hoi", 1000, 60, 16, "psg4d_hoi.json"),
}
"""Name on the command line -> how it is written."""
