"""What the writers of toy worlds share: a folder is complete once its annotation file is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from sgrl.errors import SgrlError
from sgrl.files import atomic_path

MARKER = "toyworld.json"
"""The arguments that a toy world was drawn with; says that the folder is ours to replace."""


def begin(output: Path, annotations: str, folders: Iterable[str], arguments: dict) -> bool:
    """Empty a folder for a new toy world; False where it already holds the one of the same arguments.

    Args:
        output: the folder, made if needed.
        annotations: path of the file in it that is written last.
        folders: those in it that hold images and masks; removed and made anew.
        arguments: what the drawing depends on, as JSON.

    Raises:
        SgrlError: the annotation file or one of the folders exists, and not from a toy world.
    """
    marker, folders = output / MARKER, tuple(folders)
    for name in (annotations, *folders):
        if (output / name).exists() and not marker.exists():
            raise SgrlError(f"{output / name} exists and was not written by this command; choose another --output")
    if (output / annotations).exists():
        if json.loads(marker.read_text()) == arguments:
            return False
        (output / annotations).unlink()  # from here on the folder is incomplete
    output.mkdir(parents=True, exist_ok=True)
    with atomic_path(marker) as temporary:
        temporary.write_text(json.dumps(arguments))
    for folder in folders:
        shutil.rmtree(output / folder, ignore_errors=True)
        (output / folder).mkdir(parents=True)
    return True
