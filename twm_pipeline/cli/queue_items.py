"""What `twm queue` shows, tries again or discards by an id: deliveries, and records set aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, text

from twm_pipeline.cli.mirror import opened_mirror
from twm_pipeline.errors import TwmError
from twm_pipeline.links import link_to_object
from twm_pipeline.mirror.set_aside import hurry_set_aside, resolve_set_aside
from twm_pipeline.mirror.status import find_set_aside
from twm_pipeline.records import SOURCES, Json, Origin
from twm_pipeline.settings import Settings
from twm_pipeline.spool import PLACES, Listed, Place, Spool
from twm_pipeline.status.deliveries import describe_entry
from twm_pipeline.sync.drain import spool_of

PARKED = "set-aside:"


class Item(Protocol):
    """What can be shown, tried again or discarded by its id."""

    @property
    def id(self) -> str:
        """What people type."""
        ...

    def headline(self) -> str:
        """Return what it is, in a line without personal data."""
        ...

    def describe(self, *, body: bool) -> Json:
        """Return what is known of it, its content only where *body* says so."""
        ...

    def retry(self) -> bool:
        """Have it tried again; return whether it was there."""
        ...

    def discard(self) -> bool:
        """Remove it; return whether it was there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery in the spool."""

    spool: Spool
    listed: Listed

    @property
    def id(self) -> str:
        """What people type."""
        return self.listed.id

    def headline(self) -> str:
        """Return what it is, in a line."""
        known = self.describe(body=False)
        words = [self.id, self.listed.place, self.spool.source, known["event"], known["stream"]]
        return " ".join(word for word in (*words, known["object_id"]) if word)

    def describe(self, *, body: bool) -> Json:
        """Return what the name, the head and the reason say."""
        told, envelope = describe_entry(self.spool, self.listed)
        told |= {
            "headers": envelope and dict(envelope.headers),
            "bytes": envelope and len(envelope.body),
            "file": str(self.spool.folder / self.listed.place / self.listed.name),
        }
        if body:
            told["body"] = envelope and envelope.body.decode(errors="backslashreplace")
        return told

    def retry(self) -> bool:
        """Put it back among the new ones."""
        return self.spool.retry(self.listed.name)

    def discard(self) -> bool:
        """Remove its file."""
        return self.spool.discard(self.listed.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A record that is set aside."""

    connection: Connection
    row: Json

    @property
    def id(self) -> str:
        """What people type."""
        return parked_id(self.row["source"], self.row)

    def headline(self) -> str:
        """Return what it is, in a line."""
        return self.id

    def describe(self, *, body: bool) -> Json:
        """Return its row, the vendor's JSON only where *body* says so."""
        told = {name: value for name, value in self.row.items() if body or name != "raw"}
        return {"id": self.id, **told, "link": self._link()}

    def retry(self) -> bool:
        """Let its next attempt be now."""
        return hurry_set_aside(self.connection, *self._key())

    def discard(self) -> bool:
        """Forget that it is set aside."""
        source, stream, object_id = self._key()
        resolve_set_aside(self.connection, source, stream, [object_id])
        return True

    def _link(self) -> str | None:
        """Return where people see it at the vendor, if that is known."""
        source, stream, object_id = self._key()
        query = text("SELECT source, link_base FROM twm.sources WHERE source = :source")
        known = self.connection.execute(query, {"source": source}).mappings().one_or_none()
        return None if known is None else link_to_object(dict(known), stream, object_id)

    def _key(self) -> tuple[Origin, str, str]:
        return self.row["source"], self.row["stream"], self.row["object_id"]


@contextmanager
def chosen(settings: Settings, ids: Sequence[str], *, all_dead: bool = False) -> Iterator[list[Item]]:
    """Give the items that *ids* name, all of them or none; PostgreSQL is asked only about records.

    Raises:
        TwmError: If an id names nothing, or more than one item.
    """
    spools = [spool_of(settings, source) for source in SOURCES]
    places: tuple[Place, ...] = ("dead",) if all_dead else PLACES
    with ExitStack() as stack:
        deliveries = [Delivery(spool=s, listed=item) for s in spools for item in s.entries(*places)]
        connection: Connection | None = None
        if any(id_.startswith(PARKED) for id_ in ids):
            connection = stack.enter_context(stack.enter_context(opened_mirror(settings)).begin())
        items: list[Item] = [
            _parked(connection, id_) if connection and id_.startswith(PARKED) else _delivery(deliveries, id_)
            for id_ in dict.fromkeys(ids)
        ]
        yield [*deliveries] if all_dead else items


def _delivery(deliveries: Sequence[Delivery], id_: str) -> Delivery:
    found = [item for item in deliveries if id_ == item.listed.name or (id_ and item.id.startswith(id_))]
    if not found:
        msg = f"There is no delivery {id_!r}; `twm queue list` shows those that wait or were given up."
        raise TwmError(msg)
    if len(found) > 1:
        msg = f"{id_!r} is the beginning of {len(found)} ids, {found[0].id} and {found[1].id} among them."
        raise TwmError(msg)
    return found[0]


def _parked(connection: Connection, id_: str) -> Parked:
    words = id_.removeprefix(PARKED).split("/", 2)
    if len(words) == len(("source", "stream", "id")):
        row = find_set_aside(connection, *words)  # type: ignore[arg-type]  # another source finds nothing
        if row is not None:
            return Parked(connection=connection, row=row)
    msg = f"There is no record {id_!r}; `twm queue list` shows those that are set aside."
    raise TwmError(msg)


def parked_id(source: Origin, row: Json) -> str:
    """Return what people type to name a record that is set aside."""
    return f"{PARKED}{source}/{row['stream']}/{row['object_id']}"
