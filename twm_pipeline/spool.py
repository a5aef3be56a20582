"""Accepted deliveries on disk (DESIGN D7); `docs/spool.md` specifies the format.

A Maildir a source: an entry is one file that is written once and from then on only renamed, so it lies in
exactly one place whenever a process dies. Several processes use a spool at once, without a lock: whoever
renames or removes a file first has it, and to the others it is gone.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from twm_pipeline.errors import RecordError, SpoolError, SpoolFullError
from twm_pipeline.records import Hint, Source

logger = logging.getLogger(__name__)

Place = Literal["new", "cur", "retry", "dead"]

PLACES: tuple[Place, ...] = ("new", "cur", "retry", "dead")
FOLDERS = ("tmp", *PLACES)
FORMAT = 1
LONGEST_WAIT_SECONDS = 86_400.0
"""No wait is longer. What is due later than this from now was put there before the clock was set back."""
LEFTOVER_SECONDS = 36 * 3600
BYTES_PER_INODE = 16_384
"""How much room of the reserve stands for one file, where the file system has only so many."""
FILES_AT_ONCE = 64
"""So many files of a batch are open together; a process may have a thousand."""
MAX_HEAD_BYTES = 1 << 20
REASON_CHARACTERS = 500
REASON_SUFFIX = ".reason"

_ENTRY = re.compile(r"[0-9]{16}\.[0-9a-f]{16}\.[0-9]{1,6}", re.ASCII)
_WAITING_ENTRY = re.compile(rf"[0-9]{{13}}\.{_ENTRY.pattern}", re.ASCII)
_DUE_CHARACTERS = 13
_EXPLAINED: tuple[Place, ...] = ("retry", "dead")
"""Where a reason lies beside each entry."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One delivery as it was accepted.

    Args:
        source: The vendor.
        hint: What the delivery says that changed.
        received_at: When it arrived.
        headers: Those of the request that are worth keeping; no secret is among them.
        body: The bytes as they came.
    """

    source: Source
    hint: Hint
    received_at: datetime
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A claimed delivery: it lies in `cur` until it is done, released or failed."""

    name: str
    attempts: int
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How many entries lie where; `next_due` is when the first of the later ones is to be tried again."""

    new: int
    due: int
    later: int
    held: int
    dead: int
    next_due: datetime | None

    @property
    def count(self) -> int:
        """How many entries a window would have to do now."""
        return self.new + self.due + self.held


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What the name of a file says of an entry.

    Args:
        place: The folder it lies in.
        name: The file's name there.
        id: The random part of the name, which an entry keeps for life.
        received_at: When the delivery arrived.
        attempts: How often its object was found faulty.
        due: When it is tried again, of an entry in `retry`.
    """

    place: Place
    name: str
    id: str
    received_at: datetime
    attempts: int
    due: datetime | None


class Spool:
    """The accepted deliveries of one source.

    Args:
        folder: The spool's folder; there is one below it for each source.
        source: The vendor.
        reserve_bytes: Room on the disk that is left to others.
        clock: Seconds since 1970.
    """

    def __init__(
        self, folder: Path, source: Source, *, reserve_bytes: int = 0, clock: Callable[[], float] = time.time
    ) -> None:
        self.source = source
        self.folder = folder / source
        self._folders = {name: self.folder / name for name in FOLDERS}
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._stamp = 0
        self._stamp_lock = threading.Lock()
        self._is_prepared = False

    @property
    def free_bytes(self) -> int:
        """Room on the disk, the reserve included."""
        with self._words("be looked at"):
            self._prepare()
            room = os.statvfs(self.folder)
            return room.f_bavail * room.f_frsize

    def put(self, envelopes: Sequence[Envelope]) -> list[str]:
        """Store *envelopes* and return their names; they survive a power cut from then on.

        Raises:
            SpoolFullError: If there is no room but the reserve.
            SpoolError: If the disk fails. Nothing of the batch is kept then, nor of a full one.
        """
        names = [self._name(envelope) for envelope in envelopes]
        contents = [_encode(envelope) for envelope in envelopes]
        drafts = [self._path("tmp", name) for name in names]
        with self._words("take deliveries"):
            self._prepare()
            self._check_room(contents)
            try:
                for start in range(0, len(drafts), FILES_AT_ONCE):
                    part = slice(start, start + FILES_AT_ONCE)
                    _write_new(drafts[part], contents[part])
                for draft, name in zip(drafts, names, strict=True):
                    draft.rename(self._path("new", name))
                _sync_folder(self._folders["new"])
            except BaseException:
                self._remove_all(names)
                raise
        return names

    def waiting(self) -> Waiting:
        """Return what waits; only folders are listed, no entry is opened."""
        now = self._clock()
        dues = [_due_of(name) for name in self._names("retry")]
        later = [due for due in dues if not _is_due(due, now)]
        return Waiting(
            new=len(self._names("new")),
            due=len(dues) - len(later),
            later=len(later),
            held=len(self._names("cur")),
            dead=len(self._names("dead")),
            next_due=datetime.fromtimestamp(min(later), UTC) if later else None,
        )

    def claim(self, *, limit: int, retries: bool = True) -> list[Entry]:
        """Take up to *limit* entries: fresh ones in order of arrival, then retries that are due.

        What cannot be read goes to `dead`. An entry that cannot be moved is passed over.

        Raises:
            SpoolError: If there is something to take and nothing of it can be taken.
        """
        entries: list[Entry] = []
        problem: OSError | None = None
        with self._words("hand deliveries out"):
            self._prepare()
            for path in self._claimable(retries=retries):
                if len(entries) >= limit:
                    break
                try:
                    entry = self._take(path)
                except OSError as error:
                    problem = error
                else:
                    entries.extend([entry] if entry else [])
            if problem is not None and not entries:
                raise problem
        return entries

    def done(self, entry: Entry) -> None:
        """Remove an entry that was dealt with."""
        with self._words("remove a delivery"):
            self._path("cur", entry.name).unlink(missing_ok=True)

    def release(self, entry: Entry) -> None:
        """Put an entry back as if it had not been claimed: an outage counts nothing."""
        with self._words("put a delivery back"):
            _move(self._path("cur", entry.name), self._path("new", entry.name))

    def fail(self, entry: Entry, reason: str, *, most_attempts: int, first_wait_seconds: float) -> bool:
        """Count an attempt, and let the entry wait for the next one or be dead; return whether it is dead.

        Args:
            entry: A claimed entry whose object is faulty.
            reason: What is wrong, without anything of the delivery itself.
            most_attempts: With this many the entry is dead.
            first_wait_seconds: The wait after the first attempt; it doubles with each, up to a day.
        """
        attempts = entry.attempts + 1
        bare = f"{entry.name.rpartition('.')[0]}.{attempts}"
        held = self._path("cur", entry.name)
        with self._words("put a delivery aside"):
            if attempts >= most_attempts:
                self._lay("dead", bare, held, reason=reason)
                return True
            wait = min(first_wait_seconds * 2 ** min(attempts - 1, 30), LONGEST_WAIT_SECONDS)
            due = int((self._clock() + wait) * 1000)
            self._lay("retry", f"{due:013d}.{bare}", held, reason=reason)
            return False

    def take_back(self) -> int:
        """Put all claimed entries back; only the holder of the window's lock may call it."""
        with self._words("put deliveries back"):
            self._prepare()
            names = self._names("cur")
            return sum(_move(self._path("cur", name), self._path("new", name)) for name in names)

    def sweep(self) -> int:
        """Remove what killed processes left: old files in `tmp`, old reasons without their entry."""
        paths = [self._path("tmp", name) for name in self._list("tmp") if _ENTRY.fullmatch(name)]
        for place in _EXPLAINED:
            names = set(self._list(place))
            bare = {name.removesuffix(REASON_SUFFIX) for name in names if name.endswith(REASON_SUFFIX)}
            paths += [self._reason_path(place, name) for name in bare - names if place in _places_of(name)]
        with self._words("be swept"):
            return sum(self._remove_leftover(path) for path in paths)

    def entries(self, *places: Place) -> list[Listed]:
        """Return the entries of *places* (of all, if none is named), oldest first; none is opened."""
        found = [_listed(place, name) for place in places or PLACES for name in self._names(place)]
        return sorted(found, key=lambda item: (item.received_at, item.id))

    def read(self, name: str) -> Envelope | None:
        """Return the delivery of a name that `entries` gave, or None if it is there no longer.

        Raises:
            RecordError: If the file cannot be read as an entry.
        """
        for place in _places_of(name):
            with self._words("be read"), suppress(FileNotFoundError):
                return self._read(self._path(place, name))
        return None

    def reason(self, name: str) -> str | None:
        """Return why an entry waits in `retry` or is dead, as far as that is known."""
        for place in _places_of(name):
            with suppress(OSError, ValueError, KeyError, TypeError):
                return str(json.loads(self._reason_path(place, name).read_bytes())["reason"])
        return None

    def retry(self, name: str) -> bool:
        """Put a dead or waiting entry back with no attempt counted; return whether it was there."""
        fresh = f"{_bare(name).rpartition('.')[0]}.0"
        places = [place for place in _EXPLAINED if place in _places_of(name)]
        with self._words("put a delivery back"):
            return any(self._lift(place, name, self._path("new", fresh)) for place in places)

    def discard(self, name: str) -> bool:
        """Remove an entry for good, wherever it lies; return whether it was there."""
        with self._words("remove a delivery"):
            for place in _places_of(name):
                if _unlink(self._path(place, name)):
                    _unlink(self._reason_path(place, name))
                    return True
        return False

    def _path(self, place: str, name: str) -> Path:
        return self._folders[place] / name

    def _reason_path(self, place: str, name: str) -> Path:
        return self._path(place, name + REASON_SUFFIX)

    def _list(self, place: str) -> list[str]:
        try:
            return os.listdir(self._folders[place])  # noqa: PTH208 - thousands of names, and no path for each
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._explained("be listed", error) from error

    @contextmanager
    def _words(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._explained(what, error) from error

    def _explained(self, what: str, error: OSError) -> SpoolError:
        kind = SpoolFullError if error.errno in _FULL else SpoolError
        return kind(f"The spool {self.folder} cannot {what}: {error.strerror}.")

    def _names(self, place: Place) -> list[str]:
        is_ours = (_WAITING_ENTRY if place == "retry" else _ENTRY).fullmatch
        return [name for name in self._list(place) if is_ours(name)]

    def _name(self, envelope: Envelope) -> str:
        """Return a name that sorts behind all that this object gave before, whatever the clock did."""
        with self._stamp_lock:
            self._stamp = max(int(envelope.received_at.timestamp() * 1e6), self._stamp + 1)
            return f"{self._stamp:016d}.{secrets.token_hex(8)}.0"

    def _prepare(self) -> None:
        """Make what folders are missing, also those that somebody removed meanwhile."""
        for folder in self._folders.values():
            _make_folder(folder)
        if not self._is_prepared:
            # Whoever made them may have died before that was on the disk.
            for folder in (self.folder, *self.folder.parents[:2]):
                with suppress(PermissionError):
                    _sync_folder(folder)
            self._is_prepared = True

    def _check_room(self, contents: Sequence[bytes]) -> None:
        room = os.statvfs(self.folder)
        wanted = self._reserve_bytes + sum(len(content) for content in contents)
        files_wanted = self._reserve_bytes // BYTES_PER_INODE + len(contents)
        if room.f_bavail * room.f_frsize < wanted or (room.f_files and room.f_favail < files_wanted):
            msg = f"The spool {self.folder} has no room but its reserve; make some on its disk."
            raise SpoolFullError(msg)

    def _remove_all(self, names: Sequence[str]) -> None:
        """Take a batch back that was not stored as a whole: its sender is told so and sends it again."""
        for name in names:
            for place in ("tmp", "new"):
                with suppress(OSError):
                    self._path(place, name).unlink(missing_ok=True)

    def _claimable(self, *, retries: bool) -> Iterator[Path]:
        for name in sorted(self._names("new")):
            yield self._path("new", name)
        if retries:
            now = self._clock()
            for name in sorted(self._names("retry")):
                if _is_due(_due_of(name), now):
                    yield self._path("retry", name)

    def _take(self, path: Path) -> Entry | None:
        """Return the entry at *path*, claimed, or None if somebody else has it or it is no entry."""
        name = _bare(path.name)
        held = self._path("cur", name)
        if not self._lift(path.parent.name, path.name, held):
            return None
        try:
            return Entry(name=name, attempts=_attempts_of(name), envelope=self._read(held))
        except FileNotFoundError:
            return None
        except RecordError as error:
            logger.warning("%s: the delivery %s is dead: %s", self.source, name, error)
            self._lay("dead", name, held, reason=str(error))
            return None
        except OSError:
            _move(held, self._path("new", name))
            raise

    def _lift(self, place: str, name: str, target: Path) -> bool:
        """Move an entry out of *place*, then remove the reason beside it; return whether it was there."""
        if not _move(self._path(place, name), target):
            return False
        if place in _EXPLAINED:
            _unlink(self._reason_path(place, name))
        return True

    def _lay(self, place: Place, name: str, held: Path, *, reason: str) -> None:
        """Move a claimed entry into *place*, its reason first: nothing lies there without one."""
        moment = "died_at" if place == "dead" else "failed_at"
        note = {
            "reason": reason[:REASON_CHARACTERS],
            "attempts": _attempts_of(name),
            moment: datetime.fromtimestamp(self._clock(), UTC).isoformat(),
        }
        with suppress(OSError):  # a full disk takes no reason, but it can still rename
            _write_note(self._reason_path(place, name), json.dumps(note).encode())
        _move(held, self._path(place, name))

    def _remove_leftover(self, path: Path) -> bool:
        with suppress(FileNotFoundError):
            if self._clock() - path.lstat().st_mtime > LEFTOVER_SECONDS:
                return _unlink(path)
        return False

    def _read(self, path: Path) -> Envelope:
        """Return the delivery in a file.

        Raises:
            RecordError: If that is not what the file holds, or the disk does not give it.
            FileNotFoundError: If it is gone.
            OSError: If this process can open nothing just now.
        """
        try:
            with open(path, "rb", opener=_open_to_read) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    msg = "it is no plain file"
                    raise RecordError(msg)
                line = file.readline(MAX_HEAD_BYTES)
                head = _parse_head(line, source=self.source)
                if status.st_size != len(line) + head["length"]:
                    msg = f"the body is not of the {head['length']} bytes that the head tells of"
                    raise RecordError(msg)
                return _envelope(head, file.read())
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _EXHAUSTED:
                raise
            msg = f"the file cannot be read: {error.strerror}"
            raise RecordError(msg) from error


def _encode(envelope: Envelope) -> bytes:
    head = {
        "format": FORMAT,
        "received_at": envelope.received_at.astimezone(UTC).isoformat(),
        "source": envelope.source,
        "event": envelope.hint.event,
        "stream": envelope.hint.stream,
        "object_id": envelope.hint.object_id,
        "headers": dict(envelope.headers),
        "length": len(envelope.body),
    }
    return json.dumps(head).encode() + b"\n" + envelope.body


def _parse_head(line: bytes, *, source: Source) -> dict[str, Any]:
    try:
        head = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict):
        msg = "the first line is no JSON object"
        raise RecordError(msg)
    if head.get("format") != FORMAT:
        msg = "the head is of a format that this version does not know"
        raise RecordError(msg)
    if head.get("source") != source or not isinstance(head.get("length"), int):
        msg = "the head is of another source or has no length"
        raise RecordError(msg)
    return head


def _envelope(head: dict[str, Any], body: bytes) -> Envelope:
    msg = "the head lacks a key, or has one of another type"
    try:
        received_at = datetime.fromisoformat(head["received_at"]).astimezone(UTC)
        headers = {str(name): str(value) for name, value in head["headers"].items()}
        event, *ids = head["event"], head["stream"], head["object_id"]
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise RecordError(msg) from error
    if not isinstance(event, str) or not all(isinstance(item, str | None) for item in ids):
        raise RecordError(msg)
    hint = Hint(event=event, stream=ids[0], object_id=ids[1])
    return Envelope(source=head["source"], hint=hint, received_at=received_at, headers=headers, body=body)


def _places_of(name: str) -> tuple[Place, ...]:
    """Return where an entry of this name can lie; nowhere, if it is no name of ours."""
    if _WAITING_ENTRY.fullmatch(name):
        return ("retry",)
    return ("new", "cur", "dead") if _ENTRY.fullmatch(name) else ()


def _bare(name: str) -> str:
    """Return a name without the time at which it is due."""
    return name[_DUE_CHARACTERS + 1 :] if _WAITING_ENTRY.fullmatch(name) else name


def _attempts_of(name: str) -> int:
    return int(name.rpartition(".")[2])


def _listed(place: Place, name: str) -> Listed:
    *due, stamp, random, attempts = name.split(".")
    return Listed(
        place=place,
        name=name,
        id=random,
        received_at=datetime.fromtimestamp(int(stamp) / 1e6, UTC),
        attempts=int(attempts),
        due=datetime.fromtimestamp(int(due[0]) / 1000, UTC) if due else None,
    )


def _due_of(name: str) -> float:
    return int(name[:_DUE_CHARACTERS]) / 1000


def _is_due(due: float, now: float) -> bool:
    return due <= now or due > now + LONGEST_WAIT_SECONDS


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        _make_folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_to_read(path: str, _flags: int) -> int:
    """Open a file that is no link, and do not wait if it is a pipe: whatever lies there was put by others."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _write_new(paths: Sequence[Path], contents: Sequence[bytes]) -> None:
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


def _write_note(path: Path, content: bytes) -> None:
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


def _move(source: Path, target: Path) -> bool:
    try:
        source.rename(target)
    except FileNotFoundError:
        return False
    return True


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
