"""What lies in a folder of the user's: its images and videos at any depth, and what is left out and why."""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sgrl.files import natural
from sgrl.images import SUFFIXES

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")

_OF_SYSTEMS = (
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "system volume information"),
    *("@eadir", "#recycle", "lost+found", "__pycache__"),  # those of NAS boxes and Python
)
_LAST_NUMBER = re.compile(r"(?<![0-9])([0-9]{1,9})[^0-9]*$")
_SHOWN = 3  # names of each kind that are left out


class Found(NamedTuple):
    """A file: where it is, its name from the folder that was given on, and that of the folder it lies in."""

    path: Path
    name: str
    folder: str


class Folder:
    """The images and videos in a folder and all folders below it: folder by folder, in the order of their numbers.

    Links to folders are followed, each folder is taken once. Hidden files (of macOS and Jupyter, say) and those that
    systems leave behind are no images of the user's.

    Attributes:
        files: found ones. left_out: kind -> names of what was passed over.
    """

    def __init__(self, top: Path):
        self.files: list[Found] = []
        self.left_out: dict[str, list[str]] = {}
        name = name_of(top)
        folders, links = collections.deque([(str(top), name)]), collections.deque[tuple[str, str]]()
        seen: set[str] = set()
        found: dict[str, list[tuple[Any, Path, str]]] = {}
        while folders or links:  # links last: a folder is called by its own name where it has one here
            folder, name = (folders or links).popleft()
            place = os.path.realpath(folder)
            if place in seen:
                self._leave("links to folders that are here already", name)
                continue
            seen.add(place)
            try:
                entries = list(os.scandir(folder))
            except OSError as error:
                self._leave(f"folders that cannot be read ({error.strerror})", name)
                continue
            for entry in entries:
                inside = f"{name}/{entry.name}"
                if entry.name.startswith(".") or entry.name.lower() in _OF_SYSTEMS:
                    self._leave("hidden ones and those of systems", inside)
                elif _is_folder(entry):
                    (links if entry.is_symlink() else folders).append((entry.path, inside))
                elif not (entry.is_symlink() or entry.is_file()):  # reading a pipe never ends
                    self._leave("pipes and devices", inside)
                elif is_image(entry.name) or is_video(entry.name):
                    found.setdefault(name, []).append((natural(entry.name), Path(entry.path), inside))
                else:
                    self._leave("of other kinds", inside)
        for name in sorted(found, key=natural):
            self.files += [Found(path, inside, name) for _, path, inside in sorted(found[name])]

    def _leave(self, kind: str, name: str) -> None:
        self.left_out.setdefault(kind, []).append(name)

    def __str__(self) -> str:
        """What was left out, as text; empty for nothing."""
        return "; ".join(f"{len(names):,} {kind} ({_some(names)})" for kind, names in self.left_out.items())


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _some(names: Sequence[str]) -> str:
    return ", ".join([*sorted(names, key=natural)[:_SHOWN], *["..."] * (len(names) > _SHOWN)])


def name_of(path: Path) -> str:
    """What an input is called: the last part of its path, also of `.` and `..`."""
    return os.path.basename(os.path.abspath(path)) or str(path)


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def is_video(name: str) -> bool:
    return name.lower().endswith(VIDEOS)


def frame_numbers(names: Sequence[str]) -> Sequence[int]:
    """The number of each frame of a folder: the last one in its file's name if those ascend, else its place from 0."""
    last = (_LAST_NUMBER.search(Path(name).stem) for name in names)
    found = [int(match[1]) if match else -1 for match in last]
    ascending = all(a < b for a, b in zip([-1, *found], found, strict=False))
    return found if ascending else range(len(names))
