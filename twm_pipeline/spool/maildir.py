"""A Maildir a source, whose entries survive whatever becomes of the processes that hold them.

An entry is one file that is written once and from then on only renamed, so it lies in exactly one place
whenever a process dies. Several processes use a spool at once, without a lock: whoever renames or removes a
file first has it, and to the others it is gone.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from twm_pipeline.errors import RecordError, SpoolError, SpoolFullError
from twm_pipeline.records import Source
from twm_pipeline.spool.entries import (
    ENTRY,
    LONGEST_WAIT_SECONDS,
    PLACES,
    WAITING_ENTRY,
    Entry,
    Envelope,
    Listed,
    Place,
    attempts_of,
    bare_name,
    due_of,
    encode,
    is_due,
    places_of,
    read_envelope,
    to_listed,
)
from twm_pipeline.spool.files import (
    FILES_AT_ONCE,
    make_folder,
    move,
    remove,
    sync_folder,
    write_new,
    write_note,
)

logger = logging.getLogger(__name__)

FOLDERS = ("tmp", *PLACES)
LEFTOVER_SECONDS = 36 * 3600
BYTES_PER_INODE = 16_384
"""How much room of the reserve stands for one file, where the file system has only so many."""
REASON_CHARACTERS = 500
REASON_SUFFIX = ".reason"

_EXPLAINED: tuple[Place, ...] = ("retry", "dead")
"""Where a reason lies beside each entry."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


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
        contents = [encode(envelope) for envelope in envelopes]
        drafts = [self._path("tmp", name) for name in names]
        with self._words("take deliveries"):
            self._prepare()
            self._check_room(contents)
            try:
                for start in range(0, len(drafts), FILES_AT_ONCE):
                    part = slice(start, start + FILES_AT_ONCE)
                    write_new(drafts[part], contents[part])
                for draft, name in zip(drafts, names, strict=True):
                    draft.rename(self._path("new", name))
                sync_folder(self._folders["new"])
            except BaseException:
                self._remove_all(names)
                raise
        return names

    def waiting(self) -> Waiting:
        """Return what waits; only folders are listed, no entry is opened."""
        now = self._clock()
        dues = [due_of(name) for name in self._names("retry")]
        later = [due for due in dues if not is_due(due, now)]
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
            move(self._path("cur", entry.name), self._path("new", entry.name))

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
            return sum(move(self._path("cur", name), self._path("new", name)) for name in names)

    def sweep(self) -> int:
        """Remove what killed processes left: old files in `tmp`, old reasons without their entry."""
        paths = [self._path("tmp", name) for name in self._list("tmp") if ENTRY.fullmatch(name)]
        for place in _EXPLAINED:
            names = set(self._list(place))
            bare = {name.removesuffix(REASON_SUFFIX) for name in names if name.endswith(REASON_SUFFIX)}
            paths += [self._reason_path(place, name) for name in bare - names if place in places_of(name)]
        with self._words("be swept"):
            return sum(self._remove_leftover(path) for path in paths)

    def entries(self, *places: Place) -> list[Listed]:
        """Return the entries of *places* (of all, if none is named), oldest first; none is opened."""
        found = [to_listed(place, name) for place in places or PLACES for name in self._names(place)]
        return sorted(found, key=lambda item: (item.received_at, item.id))

    def read(self, name: str) -> Envelope | None:
        """Return the delivery of a name that `entries` gave, or None if it is there no longer.

        Raises:
            RecordError: If the file cannot be read as an entry.
        """
        for place in places_of(name):
            with self._words("be read"), suppress(FileNotFoundError):
                return read_envelope(self._path(place, name), source=self.source)
        return None

    def reason(self, name: str) -> str | None:
        """Return why an entry waits in `retry` or is dead, as far as that is known."""
        for place in places_of(name):
            with suppress(OSError, ValueError, KeyError, TypeError):
                return str(json.loads(self._reason_path(place, name).read_bytes())["reason"])
        return None

    def retry(self, name: str) -> bool:
        """Put a dead or waiting entry back with no attempt counted; return whether it was there."""
        fresh = f"{bare_name(name).rpartition('.')[0]}.0"
        places = [place for place in _EXPLAINED if place in places_of(name)]
        with self._words("put a delivery back"):
            return any(self._lift(place, name, self._path("new", fresh)) for place in places)

    def discard(self, name: str) -> bool:
        """Remove an entry for good, wherever it lies; return whether it was there."""
        with self._words("remove a delivery"):
            for place in places_of(name):
                if remove(self._path(place, name)):
                    remove(self._reason_path(place, name))
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
        is_ours = (WAITING_ENTRY if place == "retry" else ENTRY).fullmatch
        return [name for name in self._list(place) if is_ours(name)]

    def _name(self, envelope: Envelope) -> str:
        """Return a name that sorts behind all that this object gave before, whatever the clock did."""
        with self._stamp_lock:
            self._stamp = max(int(envelope.received_at.timestamp() * 1e6), self._stamp + 1)
            return f"{self._stamp:016d}.{secrets.token_hex(8)}.0"

    def _prepare(self) -> None:
        """Make what folders are missing, also those that somebody removed meanwhile."""
        for folder in self._folders.values():
            make_folder(folder)
        if not self._is_prepared:
            # Whoever made them may have died before that was on the disk.
            for folder in (self.folder, *self.folder.parents[:2]):
                with suppress(PermissionError):
                    sync_folder(folder)
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
                if is_due(due_of(name), now):
                    yield self._path("retry", name)

    def _take(self, path: Path) -> Entry | None:
        """Return the entry at *path*, claimed, or None if somebody else has it or it is no entry."""
        name = bare_name(path.name)
        held = self._path("cur", name)
        if not self._lift(path.parent.name, path.name, held):
            return None
        try:
            return Entry(
                name=name, attempts=attempts_of(name), envelope=read_envelope(held, source=self.source)
            )
        except FileNotFoundError:
            return None
        except RecordError as error:
            logger.warning("%s: the delivery %s is dead: %s", self.source, name, error)
            self._lay("dead", name, held, reason=str(error))
            return None
        except OSError:
            move(held, self._path("new", name))
            raise

    def _lift(self, place: str, name: str, target: Path) -> bool:
        """Move an entry out of *place*, then remove the reason beside it; return whether it was there."""
        if not move(self._path(place, name), target):
            return False
        if place in _EXPLAINED:
            remove(self._reason_path(place, name))
        return True

    def _lay(self, place: Place, name: str, held: Path, *, reason: str) -> None:
        """Move a claimed entry into *place*, its reason first: nothing lies there without one."""
        moment = "died_at" if place == "dead" else "failed_at"
        note = {
            "reason": reason[:REASON_CHARACTERS],
            "attempts": attempts_of(name),
            moment: datetime.fromtimestamp(self._clock(), UTC).isoformat(),
        }
        with suppress(OSError):  # a full disk takes no reason, but it can still rename
            write_note(self._reason_path(place, name), json.dumps(note).encode())
        move(held, self._path(place, name))

    def _remove_leftover(self, path: Path) -> bool:
        with suppress(FileNotFoundError):
            if self._clock() - path.lstat().st_mtime > LEFTOVER_SECONDS:
                return remove(path)
        return False
