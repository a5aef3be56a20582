"""Where files of messages go: a path that a person can find, in a folder or at an address that fsspec knows.

A file appears under its name only when it is complete: it is written beside, and renamed or uploaded as one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import unicodedata
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from twm_pipeline.errors import ConfigError, RecordError, StoreUnavailableError

if TYPE_CHECKING:
    from datetime import datetime

    from twm_pipeline.settings import Settings

SUBJECT_BYTES = 60
NAME_BYTES = 80
MARK_DIGITS = 12
_EXTENSION = re.compile(r"(?<=[^.])\.([A-Za-z0-9]{1,10})\s*\Z")
PARTS = ".parts"
"""Folder of files on their way; whoever downloads empties it at the start."""
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"})
"""Protocols whose uploads become visible as a whole or not at all; elsewhere a rename does that."""
S3_PIECE_BYTES = 16 << 20
OF_THE_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR)
"""What a file system says of one name; everything else concerns all files."""


def plan_path(  # noqa: PLR0913 - everything that a person looks for
    *,
    key: str,
    conversation: str,
    at: datetime | None,
    subject: str | None,
    filename: str | None,
    extension: str | None = None,
) -> str:
    """Return where a file goes in the store: `2025/03/Offer_1a2b3c4d5e6f/2025-03-04_plan_9f8e7d6c5b4a.pdf`.

    Words of the vendor are reduced to letters, digits and hyphens, and shortened. A digest at the end of each
    name makes it unique, also where case or form of letters do not count, and no reserved word.

    Args:
        key: What makes the file unique.
        conversation: What makes its conversation unique.
        at: When the message was delivered.
        subject: Of the conversation or the message.
        filename: As the vendor gives it.
        extension: Used where *filename* has none.
    """
    name = filename or ""
    found = _EXTENSION.search(name) or _EXTENSION.search(f"x.{extension or ''}")
    stem = name[: found.start()] if found and name.endswith(found[0]) else name
    ending = f".{found[1].lower()}" if found else ""
    month = f"{at.year:04d}/{at.month:02d}" if at else "undated"
    day = f"{at.year:04d}-{at.month:02d}-{at.day:02d}" if at else "undated"
    return (
        f"{month}/{_words(subject, SUBJECT_BYTES) or 'no-subject'}_{_mark(conversation)}"
        f"/{day}_{_words(stem, NAME_BYTES) or 'file'}_{_mark(key)}{ending}"
    )


def _words(text: str | None, most_bytes: int) -> str:
    """Return letters, digits and marks of *text*, and hyphens between them."""
    kept = "".join(
        c if unicodedata.category(c)[0] in "LNM" else " " for c in unicodedata.normalize("NFC", text or "")
    )
    short = "-".join(kept.split()).encode()[:most_bytes].decode(errors="ignore")
    return unicodedata.normalize("NFC", short.strip("-"))


def _mark(key: str) -> str:
    return hashlib.blake2b(key.encode(errors="replace"), digest_size=MARK_DIGITS // 2).hexdigest()


@dataclass(frozen=True)
class Store(ABC):
    """A place for files.

    Args:
        place: A folder, or an address with a scheme.
        parts: Folder of files on their way.
        reserve_bytes: Free space below which its disk counts as full.
    """

    place: str
    parts: Path
    reserve_bytes: int = 0

    @contextmanager
    def part(self, *, size: int = 0) -> Iterator[IO[bytes]]:
        """Give a file to be filled, about *size* bytes; it is gone in the end unless `put` has moved it.

        Raises:
            StoreUnavailableError: If there is no room, or the folder cannot be written.
        """
        path = self.parts / uuid.uuid4().hex
        with _translated():
            self.parts.parent.mkdir(
                mode=0o700, parents=True, exist_ok=True
            )  # one that is there stays as it is
            self.parts.mkdir(exist_ok=True)
            self._check_room(size)
            file = path.open("xb")
        try:
            with _translated(), file:
                yield file
        finally:
            path.unlink(missing_ok=True)

    def _check_room(self, size: int) -> None:
        if shutil.disk_usage(self.parts).free - size < self.reserve_bytes:
            msg = f"Less than {self.reserve_bytes / 1e6:,.0f} MB would be free below {self.parts}."
            raise StoreUnavailableError(msg)

    def sweep(self) -> int:
        """Remove what a process that was killed has left on its way; return how many files."""
        with _translated():
            leftovers = list(self.parts.iterdir()) if self.parts.is_dir() else []
            for path in leftovers:
                path.unlink(missing_ok=True)
        return len(leftovers)

    def put(self, file: IO[bytes], path: str) -> None:
        """Show a file of `part` under its path, in the place of what was there.

        Raises:
            StoreUnavailableError: If the store does not take it, or not all of it.
            RecordError: If it does not take this path.
        """
        with _translated(of_one_file=True):
            file.flush()
            os.fsync(file.fileno())
            self._put(Path(file.name), path)
            size, there = os.fstat(file.fileno()).st_size, self.size(path)
        if size != there:
            msg = f"The attachment store took {there} of {size} bytes."
            raise StoreUnavailableError(msg)

    @abstractmethod
    def _put(self, part: Path, path: str) -> None: ...

    @abstractmethod
    def size(self, path: str) -> int | None:
        """Return how many bytes are at *path*, or None if there is no file.

        Raises:
            StoreUnavailableError: If the store does not say.
        """

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return the file at *path*.

        Raises:
            StoreUnavailableError: If it cannot be read.
        """

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove the file at *path*."""

    def probe(self) -> None:
        """Pass if a file can be put, read and removed.

        Raises:
            StoreUnavailableError: If not.
            ConfigError: If a package is missing.
        """
        path, content = f"{PARTS}/probe-{uuid.uuid4().hex}", b"twm doctor"
        with self.part(size=len(content)) as file:
            file.write(content)
            self.put(file, path)
        read = self.read(path)
        self.remove(path)
        if read != content:
            msg = "The attachment store gives back something else than it took."
            raise StoreUnavailableError(msg)


class FolderStore(Store):
    """A folder of this machine."""

    def _path(self, path: str) -> Path:
        return Path(self.place, path)

    def _put(self, part: Path, path: str) -> None:
        target = self._path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        for folder in target.parents[: len(PurePosixPath(path).parts)]:
            _sync_folder(folder)

    def size(self, path: str) -> int | None:
        """See `Store`."""
        with _translated(of_one_file=True), suppress(FileNotFoundError):
            return self._path(path).stat().st_size
        return None

    def read(self, path: str) -> bytes:
        """See `Store`."""
        with _translated(of_one_file=True):
            return self._path(path).read_bytes()

    def remove(self, path: str) -> None:
        """See `Store`."""
        with _translated(of_one_file=True):
            self._path(path).unlink(missing_ok=True)


class RemoteStore(Store):
    """A place that fsspec knows, such as S3; credentials come from where its own library looks for them."""

    @cached_property
    def _root(self) -> Any:  # noqa: ANN401 - the library's paths differ by protocol
        from upath import UPath  # noqa: PLC0415 - few runs need it

        try:
            root = UPath(self.place)
            _ = root.fs
        except (ImportError, ValueError) as error:
            scheme = urlsplit(self.place).scheme
            msg = f"ATTACHMENTS_URL: nothing is installed that knows {scheme}:// ({error})"
            raise ConfigError(msg) from error
        return root

    def _put(self, part: Path, path: str) -> None:
        target = self._root / path
        if target.protocol in OBJECT_STORES:
            options = {"chunksize": S3_PIECE_BYTES, "max_concurrency": 1} if target.protocol == "s3" else {}
            target.fs.put_file(str(part), target.path, **options)
            return
        on_its_way = self._root / PARTS / part.name
        on_its_way.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.fs.put_file(str(part), on_its_way.path)
        if target.exists():
            target.unlink()  # not every protocol renames onto another file
        target.fs.mv(on_its_way.path, target.path)

    def size(self, path: str) -> int | None:
        """See `Store`."""
        target = self._root / path
        with _translated(of_one_file=True):
            target.fs.invalidate_cache()
            return int(target.fs.size(target.path)) if target.fs.exists(target.path) else None

    def read(self, path: str) -> bytes:
        """See `Store`."""
        with _translated(of_one_file=True):
            return bytes((self._root / path).read_bytes())

    def remove(self, path: str) -> None:
        """See `Store`."""
        with _translated(of_one_file=True):
            (self._root / path).unlink(missing_ok=True)


def open_store(settings: Settings, place: str | None = None) -> Store:
    """Return the store that is set, or the one at *place*, where files were put before."""
    place = place or settings.attachments_store
    reserve = settings.attachments_reserve_megabytes * 1_000_000
    if "://" not in place or place.startswith("file://"):
        folder = url2pathname(urlsplit(place).path) if "://" in place else place
        return FolderStore(folder, Path(folder) / PARTS, reserve)
    return RemoteStore(place, settings.twm_data_dir / "attachments" / PARTS, reserve)


@contextmanager
def _translated(*, of_one_file: bool = False) -> Iterator[None]:
    """Turn what a file system raises into our errors; its own text may tell more than is wanted."""
    try:
        yield
    except (ConfigError, RecordError, StoreUnavailableError):
        raise
    except OSError as error:
        if of_one_file and error.errno in OF_THE_NAME:
            msg = f"The attachment store does not take the path of this file ({os.strerror(error.errno)})."
            raise RecordError(msg) from error
        words = os.strerror(error.errno) if error.errno else type(error).__name__
        msg = f"The attachment store does not do what it was asked: {words}."
        raise StoreUnavailableError(msg) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("twm_pipeline", "builtins"):
            raise
        msg = f"The attachment store does not do what it was asked ({type(error).__name__})."
        raise StoreUnavailableError(msg) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
