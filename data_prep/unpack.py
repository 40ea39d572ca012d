"""Unpack the archives of a data set, safely, and with as much of their folders as the data set needs.

    python data_prep/unpack.py data_zip/VidOR/vidor_masks.zip --output data/vidor/masks --keep 2

Archives of PVSG carry a prefix of somebody's disk (mnt/lustre/...): `--keep 2` keeps the last two parts of each name,
VIDEO/FRAME.png; 1 is right for its videos. A member that would land outside of the output, or on top of another one,
stops the command before anything is written, and so does an archive that claims more than the disk or its own bytes
can hold. Files that are there with the right size are not written again.
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
import sys
import zipfile
import zlib
from pathlib import Path

from sgrl.arguments import Parser, program_name
from sgrl.errors import SgrlError, UsageError
from sgrl.files import atomic_path
from sgrl.process import run_command
from sgrl.progress import Progress
from sgrl.terminal import printable


def unpack(archive: str | Path, output: str | Path, keep: int | None = None, progress: bool = False) -> int:
    """Unpack a zip file into a folder and return the number of files written.

    keep: how many of the last parts of each member's name become its path below `output`; None for all.

    Raises SgrlError for a file that is not a zip or is damaged, for members that climb out of the folder, are links,
    would overwrite each other, or are more than the archive or the disk can hold.
    """
    archive, output = Path(archive), Path(output)
    if keep is not None and keep < 1:
        raise UsageError(f"--keep is {keep}; expected how many parts of a name to keep, at least 1")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            targets = _targets(archive, members, output, keep)
            _check_sizes(archive, members, output)
            written = 0
            bar = Progress(archive.name, len(members), "file", where=output, show=progress)
            for member, target in bar.over(zip(members, targets, strict=True)):
                if target.is_file() and target.stat().st_size == member.file_size:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, atomic_path(target) as temporary, temporary.open("wb") as file:
                    shutil.copyfileobj(source, file)  # checks the CRC at the end
                written += 1
            return written
    except SgrlError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        raise SgrlError(f"{archive} is truncated or damaged ({printable(error, 200)}); download it again") from None


def _targets(archive: Path, members: list[zipfile.ZipInfo], output: Path, keep: int | None) -> list[Path]:
    first: dict[str, str] = {}
    targets = []
    for member in members:
        name = member.filename.replace("\\", "/")
        parts = [part for part in name.split("/") if part != "."]
        if name.startswith("/") or ":" in parts[0] or ".." in parts or "" in parts:
            raise SgrlError(
                f"{archive}: the member {member.filename!r} points outside of the folder; nothing was written"
            )
        if member.external_attr >> 28 == 0o12:  # a symbolic link, in the upper half of the Unix mode
            raise SgrlError(f"{archive}: the member {member.filename!r} is a link; nothing was written")
        path = "/".join(parts[-keep:] if keep else parts)
        if first.setdefault(os.path.normcase(path), member.filename) != member.filename:
            raise SgrlError(
                f"{archive}: {first[os.path.normcase(path)]!r} and {member.filename!r} would both become {path!r}; "
                "keep more parts of the names with --keep"
            )
        targets.append(output / path)
    return targets


def _check_sizes(archive: Path, members: list[zipfile.ZipInfo], output: Path) -> None:
    packed, unpacked = (sum(getattr(member, size) for member in members) for size in ("compress_size", "file_size"))
    size = archive.stat().st_size
    if packed > size:  # members that share their bytes
        raise SgrlError(f"{archive} claims {packed:,} bytes of members, but has {size:,}; nothing was written")
    folder = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
    free = shutil.disk_usage(folder).free
    if unpacked > free:
        raise SgrlError(
            f"{archive} ({size:,} bytes) unpacks to {unpacked:,} bytes, {folder} has {free:,}; nothing was written"
        )


def parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument("archives", nargs="+", help="zip files")
    parser.add_argument("--output", required=True, help="folder to unpack into")
    parser.add_argument("--keep", type=int, help="parts of the members' names to keep (default: all)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the head of this file. Returns the exit status."""
    args = parser().parse_args(arguments)
    return run_command(program_name("unpack"), lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Unpack one archive after the other. Raises SgrlError."""
    try:
        for archive in args.archives:
            written = unpack(archive, args.output, args.keep, progress=True)
            print(f"{printable(archive)}: {written:,} files written to {args.output}")
    except KeyboardInterrupt as error:
        error.args = ("; run it again to go on",)
        raise


if __name__ == "__main__":
    sys.exit(main())
