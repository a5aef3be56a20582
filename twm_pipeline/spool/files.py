"""Files that are on the disk when a call returns, and moves of which only one process has each."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

FILES_AT_ONCE = 64
"""So many files of a batch are open together; a process may have a thousand."""


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, each of them synced."""
    if not path.is_dir():
        make_folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_to_read(path: str, _flags: int) -> int:
    """Open a file that is no link, and do not wait if it is a pipe: whatever lies there was put by others."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def write_new(paths: Sequence[Path], contents: Sequence[bytes]) -> None:
    """Write new files and sync each.

    They are written, and the kernel is told to begin with them, before the first is waited for: one commit of
    the file system's journal then serves several. Threads that sync at the same time gained nothing more.
    """
    with ExitStack() as stack:
        files = [_open(path, os.O_EXCL, stack) for path in paths]
        for file, content in zip(files, contents, strict=True):
            _write_whole(file, content)
        if sys.platform == "linux":
            for file in files:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        for file in files:
            os.fsync(file)


def write_note(path: Path, content: bytes) -> None:
    """Write a file, over one that a killed process left."""
    with ExitStack() as stack:
        file = _open(path, os.O_TRUNC, stack)
        _write_whole(file, content)
        os.fsync(file)


def _open(path: Path, flags: int, stack: ExitStack) -> int:
    """Return a file to write to that only its owner can read, closed by *stack*."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    stack.callback(os.close, file)
    return file


def _write_whole(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]


def move(source: Path, target: Path) -> bool:
    """Rename a file; return whether it was there."""
    try:
        source.rename(target)
    except FileNotFoundError:
        return False
    return True


def remove(path: Path) -> bool:
    """Remove a file; return whether it was there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
