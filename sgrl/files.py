"""Files that are written whole or not at all, and folders that one process writes at a time."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from sgrl.errors import SgrlError
from sgrl.terminal import printable

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""The file in a folder that says who writes there."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}  # of a file system
_OF_A_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_ATTEMPTS = 100  # to open and lock a file that others remove
_held: weakref.WeakSet[_Lock] = weakref.WeakSet()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to: renamed to `path` at the end, removed if the block raises.

    The rename is atomic because both names lie in one folder. A reader sees the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A number of a process is not enough: two containers that share a disk have the same ones.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with named(path):
            yield temporary
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` to write into: renamed to `path` at the end, removed if the block raises.

    Raises:
        SgrlError: there is a folder already that holds something, or a file.
    """
    path = Path(path)

    def check() -> None:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise SgrlError(f"{path} exists already; remove it, or choose another folder")

    check()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with named(path):
            temporary.mkdir()
            yield temporary
            check()
            os.replace(temporary, path)  # takes the place of an empty folder, too
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def open_text(path: str | Path, errors: str = "strict") -> TextIO:
    """A text file of somebody else's, open for reading: UTF-8, or UTF-16 if its byte-order mark says so.

    Editors and shells of Windows put such a mark before the first character; it is not part of the text.

    Args:
        errors: what becomes of bytes that are no text, see `codecs.register_error`.
    """
    with open(path, "rb") as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if wide and errors == "surrogateescape":  # there is none for UTF-16
        errors = "replace"
    return open(path, encoding="utf-16" if wide else "utf-8-sig", errors=errors)


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """An error of writing to a disk in this block names the file, which the system does when it opens one only."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _OF_A_DISK:
            error.filename = str(path)
        raise


@contextmanager
def folder_lock(path: str | Path, shared: bool = False, beside: bool = False) -> Iterator[None]:
    """No other process writes to a folder in this block. The folder is made if need be, and removed if it stays empty.

    The operating system holds the lock (flock; on Windows a locked byte), so it is free the moment its owner is dead,
    however it died; NFS knows such locks between machines too. Where a file system has none, the owner's note in the
    file decides: a living process of this machine keeps the folder, while one of another machine cannot be seen, so
    that the folder is taken with a warning.

    Args:
        path: the folder.
        shared: others that share it may write too: jobs that divide the work, each with a lock on a folder of its own.
        beside: the lock lies beside the folder, for one that is replaced as a whole.

    Raises:
        SgrlError: another process writes there; it is named.
        OSError: the folder cannot be made or written.
    """
    folder = Path(path)
    file = folder.with_name(f".{folder.name}{LOCK}") if beside else folder / LOCK
    made = [parent for parent in (file.parent, *file.parent.parents) if not parent.exists()]
    lock = None
    try:
        with _no_place():
            lock = _Lock(folder, file, shared)
        yield
    finally:
        if lock is not None:
            lock.release()
        for parent in made:
            with suppress(OSError):  # not empty
                parent.rmdir()


@contextmanager
def _no_place() -> Iterator[None]:
    """Where nothing can be written there is nothing to guard: commands with nothing left to do end well there."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


class _Lock:
    """One open file that is locked until `release`; the file goes with the last owner."""

    def __init__(self, folder: Path, path: Path, shared: bool):
        self.folder, self.path, self.shared = folder, path, shared
        for attempt in range(_ATTEMPTS):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.file: BinaryIO = open(path, "ab+", buffering=0)
            except PermissionError:  # of another user, who may be at work
                self.file = open(path, "rb", buffering=0)
            except FileNotFoundError:  # the last owner removed the folder, empty as it was, a moment ago
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            try:
                self._take()
            except BaseException:
                self.file.close()
                raise
            if self._is_in_place():
                break
            self.file.close()  # its owner removed it between our opening and locking it: it is nobody's
        with suppress(OSError):  # a full disk: the lock holds, without a name
            if not shared:
                self.file.truncate(0)
            note = {"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv)[:500]}
            self.file.write(json.dumps(note).encode() + b"\n")
        _held.add(self)

    def _take(self) -> None:
        try:
            _lock(self.file, self.shared)
        except BlockingIOError:
            raise self._refusal() from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            owner = self._owner()
            if owner and not self.shared and owner.get("pid") != os.getpid():
                if owner.get("host") == socket.gethostname():
                    if _alive(owner):
                        raise self._refusal() from None
                else:
                    logger.warning(
                        "%s: this file system has no locks, so nobody can tell whether process %s on %s still writes "
                        "here; if it does, end one of the two",
                        *(self.folder, owner.get("pid"), printable(owner.get("host"), 80)),
                    )

    def _refusal(self) -> SgrlError:
        owner = self._owner()
        who = "another process"
        if owner:
            place = "" if owner.get("host") == socket.gethostname() else f" on {owner.get('host')}"
            who = f"process {owner.get('pid')}{place} ({owner.get('command')})"
        return SgrlError(
            f"{self.folder} is being written by {printable(who, 700)}; wait for it, end it, or choose another folder"
        )

    def _owner(self) -> dict | None:
        """The note of the last owner; of several that share the folder, one that lives if that can be seen."""
        notes = []
        with suppress(OSError):
            for line in self.path.read_bytes()[-20_000:].splitlines():
                with suppress(ValueError):
                    notes.append(json.loads(line))
        notes = [note for note in notes if isinstance(note, dict) and isinstance(note.get("pid"), int)]
        here = [note for note in notes if note.get("host") == socket.gethostname() and _alive(note)]
        others = [note for note in here if note["pid"] != os.getpid()]
        return (others or here or notes or [None])[-1]

    def release(self) -> None:
        _held.discard(self)
        with suppress(OSError):
            if self.shared:
                _lock(self.file, False)  # raises if others are there: the file is theirs
            if self._is_in_place():
                self.path.unlink()
        self.file.close()

    def _is_in_place(self) -> bool:
        """Whether the path still names the open file."""
        try:
            return os.path.samestat(os.fstat(self.file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def forget(self) -> None:
        """In a forked child: let go of what the parent holds, which would outlive it here."""
        self.file.close()


def _lock(file: BinaryIO, shared: bool) -> None:
    """Lock an open file without waiting. Raises BlockingIOError if another one has it."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 30)  # far behind the note, which others read; Windows has no shared locks
        try:
            if not shared:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
        return
    import fcntl

    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _alive(owner: dict) -> bool:
    """Whether a process of this machine runs; for one that cannot be asked: yes."""
    if sys.platform == "win32":
        return True  # os.kill would end it
    try:
        os.kill(owner["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        pass
    return True


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


_NUMBER = re.compile(r"([0-9]+)")


def natural(name: str | Path) -> tuple:
    """A key that sorts names by the numbers in them, folder by folder: frame_2.png before frame_10.png.

    >>> sorted(["f10.png", "f9.png", "f10/1.png", "f010.png"], key=natural)
    ['f9.png', 'f10/1.png', 'f010.png', 'f10.png']
    """
    parts = []
    for part in os.fspath(name).split(os.sep):  # a Path would take longer than all the rest
        pieces = _NUMBER.split(part)  # text and numbers in turn, text first
        numbers = (piece.lstrip("0") for piece in pieces[1::2])
        # By length and text: as the numbers, without the limit that Python sets to the digits of one.
        parts.append(tuple(zip(pieces[::2], [*((len(n), n) for n in numbers), (0, "")], strict=True)))
    return tuple(parts), str(name)


_BLOCKS, _BLOCK = 64, 4096  # how much of a file the fingerprint reads


def fingerprint(files: Iterable[Path]) -> str:
    """A short hash of some files' names, sizes and samples of their contents, spread over each file.

    It tells two checkpoints of one model apart in milliseconds; it does not protect against forgery.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode(errors="surrogateescape"))  # names need not be UTF-8
        with open(path, "rb") as file:
            for index in range(_BLOCKS if size > _BLOCKS * _BLOCK else 1):
                file.seek(index * (size // _BLOCKS))
                digest.update(file.read(_BLOCK if size > _BLOCKS * _BLOCK else size))
    return digest.hexdigest()[:16]
