"""What the vendors' documentation leaves open, asked of a real account. Nothing is written anywhere.

The product is right whichever way an answer falls; the answers are for people, and for the documentation.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from twm_pipeline.errors import (
    AuthenticationError,
    NotFoundError,
    RequestRefusedError,
    RetriableError,
    TwmError,
)
from twm_pipeline.sources.fields import plain, plain_id, read_iso
from twm_pipeline.sources.missive import MAILBOXES, MissiveSource
from twm_pipeline.sources.missive_rows import activity_of, child_time, expiry_of
from twm_pipeline.sources.teamwork import TeamworkSource
from twm_pipeline.sources.teamwork_rows import updated_at
from twm_pipeline.spool import Spool

if TYPE_CHECKING:
    from twm_pipeline.records import Json
    from twm_pipeline.sync.engine import Pass

MOST_BODIES = 40
"""Full messages that one call is asked for at most."""
LARGEST_PAGE = 500
UNKNOWN = "cannot be told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An open question, and what this account says to it; ids and bodies are never part of it."""

    source: str
    question: str
    answer: str


def probe(work: Pass) -> list[Answer]:
    """Answer the open questions about the source of *work* by some twenty requests that only read.

    Raises:
        AuthenticationError: The credentials are not accepted.
        RetriableError: The vendor does not answer.
    """
    probes = _TeamworkProbe(work) if work.source == "teamwork" else _MissiveProbe(work)
    return [
        Answer(source=work.source, question=question, answer=_answer(ask))
        for question, ask in probes.questions()
    ]


def _answer(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except (AuthenticationError, RetriableError):
        raise
    except TwmError as error:
        return f"{UNKNOWN}: {error}"


Questions = Iterable[tuple[str, Callable[[], str]]]


class _TeamworkProbe:
    def __init__(self, work: Pass) -> None:
        self.api = TeamworkSource(work.session)
        self.spool = Spool(work.settings.spool_folder, "teamwork")

    def questions(self) -> Questions:
        return (
            ("Does showDeleted add deleted tasks to the living, or replace them?", self._show_deleted),
            ("Does deleting a task move its updatedAt?", self._deletion_moves),
            ("Is updatedAfter inclusive?", self._updated_after),
            ("How many tasks does one page hold, with all that is side-loaded?", self._page_size),
            ("Is X-Projects-Event always sent with a delivery?", self._event_header),
        )

    def _show_deleted(self) -> str:
        dead = [plain_id(row) for row in self.api.fetch_deleted_tasks(deleted_after=None).rows]
        living = [plain_id(row) for row in self.api.fetch_tasks(newest_first=True, page_size=2).rows]
        if not dead or not living:
            return f"{UNKNOWN}: the site has no {'deleted' if living else 'living'} task"
        ids = f"{living[0]},{dead[0]}"
        page = self.api.fetch_tasks(page_size=2, extra={"ids": ids, "showDeleted": "true"})
        found = {plain_id(row) for row in page.rows}
        if dead[0] not in found:
            return "neither: a deleted task is not shown"
        return "it adds them" if living[0] in found else "it replaces the living"

    def _deletion_moves(self) -> str:
        rows = self.api.fetch_deleted_tasks(deleted_after=None).rows
        pairs = [(updated_at(row), read_iso(row, "deletedAt")) for row in rows]
        known = [updated >= deleted for updated, deleted in pairs if updated and deleted]
        if not known:
            return f"{UNKNOWN}: no deleted task says when it was deleted and updated"
        return f"of {len(known)} deleted tasks {sum(known)} have an updatedAt as late as their deletion"

    def _updated_after(self) -> str:
        rows = self.api.fetch_tasks(newest_first=True, page_size=2).rows
        newest = updated_at(rows[0]) if rows else None
        if newest is None:
            return f"{UNKNOWN}: there is no task"
        again = self.api.fetch_tasks(updated_after=newest, page_size=50).rows
        return _yes(plain_id(rows[0]) in {plain_id(row) for row in again})

    def _page_size(self) -> str:
        page = self.api.fetch_tasks(page_size=LARGEST_PAGE)
        more = "and more follow" if page.has_more else "which is all there is"
        return f"asked for {LARGEST_PAGE}, answered {len(page.rows)}, {more}"

    def _event_header(self) -> str:
        envelopes = [self.spool.read(item.name) for item in self.spool.entries()]
        there = ["x-projects-event" in envelope.headers for envelope in envelopes if envelope is not None]
        if not there:
            return f"{UNKNOWN}: no delivery lies in the spool at the moment"
        return f"{sum(there)} of the {len(there)} deliveries in the spool have it"


class _MissiveProbe:
    def __init__(self, work: Pass) -> None:
        self.work = work
        self.api = MissiveSource(work.session)
        self.rows: list[Json] = self.api.fetch_conversations("all").rows

    def questions(self) -> Questions:
        return (
            ("Is until inclusive for conversations?", self._until_conversations),
            ("Is until inclusive for messages?", self._until_messages),
            ("Does the mailbox all hold closed, trashed and junked conversations?", self._all_holds),
            ("How long does the address of an attachment live?", self._life_of_links),
            ("How many messages does one call return?", self._bodies_a_call),
            ("What is answered when one of several messages is gone?", self._one_is_gone),
            ("What is answered for an unknown conversation?", self._unknown),
        )

    def _until_conversations(self) -> str:
        newest = next((moment for row in self.rows if (moment := activity_of(row)) is not None), None)
        if newest is None:
            return f"{UNKNOWN}: there is no conversation"
        again = self.api.fetch_conversations("all", until=newest).rows
        return _yes(any(activity_of(row) == newest for row in again))

    def _until_messages(self) -> str:
        for row in self.rows:
            stubs = self.api.fetch_children(str(plain(row, "id")), "messages").rows
            newest = child_time(stubs[0], "messages") if stubs else None
            if newest is not None:
                again = self.api.fetch_children(str(plain(row, "id")), "messages", until=newest).rows
                return _yes(any(child_time(stub, "messages") == newest for stub in again))
        return f"{UNKNOWN}: there is no message"

    def _all_holds(self) -> str:
        words = []
        for mailbox in MAILBOXES:
            rows = [] if mailbox == "all" else self.api.fetch_conversations(mailbox).rows
            at = activity_of(rows[0]) if rows else None
            if at is not None:
                held = {plain(row, "id") for row in self.api.fetch_conversations("all", until=at).rows}
                words.append(f"{mailbox}: {_yes(plain(rows[0], 'id') in held)}")
        return ", ".join(words) or f"{UNKNOWN}: those mailboxes are empty"

    def _life_of_links(self) -> str:
        for message_id in self._stored("attachments <> '[]'::jsonb", most=1):
            for row, reply in self.api.fetch_messages([message_id]):
                for item in row.get("attachments") or []:
                    until = expiry_of(str(item.get("url")))
                    if until is not None:
                        return f"{(until - reply.date).total_seconds() / 60:.0f} minutes after it was read"
        return f"{UNKNOWN}: the mirror holds no message whose attachments have an expiring address"

    def _bodies_a_call(self) -> str:
        ids = self._stored("NOT draft", most=MOST_BODIES)
        if not ids:
            return f"{UNKNOWN}: the mirror holds no message yet"
        try:
            found = self._rows_of("/messages/" + ",".join(ids))
        except RequestRefusedError:
            return f"fewer than {len(ids)}: so many are refused"
        return f"asked for {len(ids)}, answered {len(found)}"

    def _one_is_gone(self) -> str:
        ids = self._stored("NOT draft", most=1)
        if not ids:
            return f"{UNKNOWN}: the mirror holds no message yet"
        try:
            found = self._rows_of(f"/messages/{ids[0]},{uuid.uuid4()}")
        except NotFoundError:
            return "404 for all of them"
        return f"it is left out; {len(found)} of 1 that exists came"

    def _unknown(self) -> str:
        try:
            self.api.fetch_conversation(str(uuid.uuid4()))
        except NotFoundError:
            return "404 in the vendor's own JSON"
        return "another conversation"

    def _rows_of(self, path: str) -> Sequence[Any]:
        data = self.work.session.get(path).data
        found = data.get("messages") if isinstance(data, dict) else None
        return [found] if isinstance(found, dict) else list(found or [])

    def _stored(self, condition: str, *, most: int) -> list[str]:
        with self.work.read() as connection:
            rows = connection.execute(
                text(
                    f"SELECT id FROM missive.emails WHERE NOT deleted AND {condition}"  # noqa: S608 - a literal of this class
                    " ORDER BY delivered_at DESC NULLS LAST LIMIT :most"
                ),
                {"most": most},
            )
            return [str(row.id) for row in rows]


def _yes(value: bool) -> str:
    return "yes" if value else "no"
