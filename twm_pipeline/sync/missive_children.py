"""What is new in a Missive conversation: its messages, their bodies, its comments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from twm_pipeline.errors import AccessError, NotFoundError
from twm_pipeline.mirror import conversations as store
from twm_pipeline.mirror.set_aside import SetAside, waiting_set_aside
from twm_pipeline.records import Json
from twm_pipeline.sources.missive import IDS_PER_CALL, MissiveSource, Page
from twm_pipeline.sources.missive_rows import (
    Children,
    child_time,
    is_sent,
    is_unsettled,
    parse_comment,
    parse_message,
    stub_digest,
)
from twm_pipeline.sync.engine import RECORD_FAULTS, Pass, PassOptions, unusable_row
from twm_pipeline.sync.missive_drafts import drafts_key, lacking_drafts, unread_drafts, walk_drafts
from twm_pipeline.sync.walks import walk_down

if TYPE_CHECKING:
    from twm_pipeline.http import Reply
    from twm_pipeline.mirror.upserts import Observed

BODY_FAULTS = (*RECORD_FAULTS, AccessError)
"""One message that may not be read (403) spoils the call for all that were asked for with it."""
EMPTY_READS = 2
"""How often an empty list is asked for again where rows are known to be."""
NO_DIGEST = b""
"""Of a message whose body is not that of its row in the list; None would keep the one of an earlier read."""
SHORT_READS = 2
"""How often a list of messages is read again that is shorter than the conversation says."""


@dataclass(slots=True)
class Due:
    """A conversation whose messages and comments are to be read, and what was found.

    Args:
        row: The conversation as listed.
        reply: The answer it was listed in.
        complete: Read both lists to their ends, whatever is known.
        trashed: Whether it is in the trash of the token's owner.
        known_messages: Stored ones with the digest of their row in the list (`ChildReader.look_up`).
        known_comments: Stored ones.
        known_drafts: Stored ones, as `known_messages`.
        draft_ids: Those of `stubs` that are drafts.
        listed: The answer that began each list: what it does not hold was gone by then.
        denied: Lists that cannot be read alone: messages and comments on a 403, drafts on any fault.
        drafts_wait: Whether its drafts are set aside and their next attempt has not come.
        drafts_read: Whether its drafts are known now, were it that there are none.
    """

    row: Json
    reply: Reply
    complete: bool = False
    trashed: bool = False
    known_messages: dict[str, bytes | None] = field(default_factory=dict)
    known_comments: set[str] = field(default_factory=set)
    known_drafts: dict[str, bytes | None] = field(default_factory=dict)
    draft_ids: set[str] = field(default_factory=set)
    stubs: dict[str, tuple[Json, Reply]] = field(default_factory=dict)
    comments: list[tuple[Json, Reply]] = field(default_factory=list)
    unusable: list[SetAside] = field(default_factory=list)
    absent_messages: list[str] = field(default_factory=list)
    absent_comments: list[str] = field(default_factory=list)
    absent_drafts: list[str] = field(default_factory=list)
    listed: dict[Children, Reply] = field(default_factory=dict)
    denied: list[SetAside] = field(default_factory=list)
    drafts_wait: bool = False
    drafts_read: bool = False

    @property
    def id(self) -> str:
        """The conversation's id."""
        return str(self.row["id"])


class ChildReader:
    """Reads what is new in conversations; stores nothing but what has to be set aside.

    Args:
        work: The pass.
        api: The account.
        options: Which streams are selected.
    """

    def __init__(self, work: Pass, api: MissiveSource, options: PassOptions) -> None:
        self.work = work
        self.api = api
        self.options = options

    def look_up(self, batch: Iterable[Due]) -> None:
        """Note what is stored of the conversations of a batch."""
        by_id = {due.id: due for due in batch}
        with self.work.read() as connection:
            for parent, message_id, stub_hash in store.known_messages(connection, list(by_id)):
                by_id[parent].known_messages[message_id] = stub_hash
            for parent, message_id, stub_hash in store.known_messages(connection, list(by_id), drafts=True):
                by_id[parent].known_drafts[message_id] = stub_hash
            for parent, comment_id in store.known_comments(connection, list(by_id)):
                by_id[parent].known_comments.add(comment_id)
            keys = map(drafts_key, by_id)
            waiting = waiting_set_aside(connection, "missive", "emails", keys)
        for due in by_id.values():
            due.drafts_wait = drafts_key(due.id) in waiting

    def read_lists(self, due: Due, *, fresh: bool) -> None:
        """Read the lists of messages and comments as far down as something may be new.

        Raises:
            NotFoundError: If the conversation is gone, or its owner is only a guest of it.
        """
        if self.options.wants("emails"):
            with _noting_denial(due, "emails"):
                self._read_messages(due, due.known_messages, fresh=fresh)
                self.read_drafts(due, fresh=fresh)
        if self.options.wants("comments"):
            with _noting_denial(due, "comments"):
                self._read_comments(due, due.known_comments, fresh=fresh)

    def set_aside_if_alone(self, problem: SetAside, error: Exception) -> None:
        """Set one object aside when the vendor answers everything else; else this is an outage: raise."""
        self._raise_outage(error)
        with self.work.commit() as connection:
            self.work.park(connection, [problem])

    def _raise_outage(self, error: Exception) -> None:
        """Raise *error* unless the vendor answers another request."""
        try:
            self.api.fetch_conversations("all")
        except RECORD_FAULTS:
            raise error from None

    def _read_messages(self, due: Due, known: dict[str, bytes | None], *, fresh: bool) -> None:
        """Collect message rows; where the list ends before the count, it is read until two reads agree."""
        count = due.row.get("messages_count")
        before: set[str] | None = None
        for _ in range(1 + SHORT_READS):
            found, ended = self._read_messages_once(due, known, count=count, fresh=fresh)
            if not ended or not isinstance(count, int) or len(found) >= count or found == before:
                break
            before = found
        if ended:
            due.absent_messages = [item for item in known if item not in found]

    def _read_messages_once(
        self, due: Due, known: dict[str, bytes | None], *, count: object, fresh: bool
    ) -> tuple[set[str], bool]:
        """Collect message rows from the newest down to where everything below is known.

        Returns:
            The ids read, and whether the list was read to its end.
        """
        found: set[str] = set()
        ended = False
        for page in self._children(due, "messages", fresh=fresh, expects=bool(count)):
            for row in page.rows:
                message_id = row.get("id")
                if not isinstance(message_id, str) or not message_id:
                    due.unusable.append(unusable_row("emails", row, "a listed message has no id"))
                    continue
                found.add(message_id)
                if message_id not in known or known[message_id] != stub_digest(row):
                    due.stubs[message_id] = (row, page.reply)
            ended = len(page.rows) < page.limit
            everything = isinstance(count, int) and len(found | known.keys()) == count
            touches_known = bool(found & known.keys())
            if not due.complete and everything and (touches_known or len(found) == count):
                break
            if not due.complete and not isinstance(count, int) and touches_known:
                break
        return found, ended

    def read_drafts(self, due: Due, *, fresh: bool) -> None:
        """Collect drafts if there are any; where their list cannot be read, they alone are set aside.

        Raises:
            NotFoundError: If the conversation is gone.
        """
        if due.drafts_wait and not due.complete:
            return
        try:
            if due.known_drafts or due.row.get("drafts_count"):
                self._read_drafts(due, fresh=fresh)
            due.drafts_read = True
        except (AccessError, NotFoundError, *RECORD_FAULTS) as error:
            if self._are_drafts_hidden(due, error):
                due.denied.append(unread_drafts(due.id, error))

    def _are_drafts_hidden(self, due: Due, error: Exception) -> bool:
        """Return whether drafts are to be expected that cannot be read; a guest sees none."""
        row = due.row
        if isinstance(error, NotFoundError):
            row, _ = self.api.fetch_conversation(due.id)
        elif not isinstance(error, AccessError):
            self._raise_outage(error)
        return "users" in row or "last_activity_at" not in row

    def _read_drafts(self, due: Due, *, fresh: bool) -> None:
        """Collect all drafts, for nothing but their list tells of a change of one."""
        count = due.row.get("drafts_count")
        first = self._first_of(due, "drafts", fresh=fresh, expects=bool(count))
        found: set[str] = set()
        is_whole = len(first.rows) < first.limit
        for page in walk_drafts(self._going_on(due, "drafts", first, fresh=fresh), count=count):
            self.work.note_reply(page.reply)
            for row in page.rows:
                draft_id = row.get("id")
                if not isinstance(draft_id, str) or not draft_id:
                    due.unusable.append(unusable_row("emails", row, "a listed draft has no id"))
                    is_whole, count = False, None
                    continue
                found.add(draft_id)
                due.draft_ids.add(draft_id)
                if due.known_drafts.get(draft_id) != stub_digest(row):
                    due.stubs[draft_id] = (row, page.reply)
        if is_whole or len(found) == count:
            due.absent_drafts = [item for item in due.known_drafts if item not in found]
        elif isinstance(count, int) and (lacking := count - len(found | due.known_drafts.keys())) > 0:
            due.denied.append(lacking_drafts(due.id, lacking=lacking))

    def _read_comments(self, due: Due, known: set[str], *, fresh: bool) -> None:
        """Collect comments from the newest down to one that is known."""
        found: set[str] = set()
        ended = False
        for page in self._children(due, "comments", fresh=fresh, expects=bool(known)):
            due.comments += [(row, page.reply) for row in page.rows]
            found |= {str(row.get("id")) for row in page.rows}
            ended = len(page.rows) < page.limit
            if not due.complete and found & known:
                break
        if ended:
            due.absent_comments = [item for item in known if item not in found]

    def _children(self, due: Due, kind: Children, *, fresh: bool, expects: bool) -> Iterable[Page]:
        """Yield the pages of a list."""
        first = self._first_of(due, kind, fresh=fresh, expects=expects)
        fetch = self._going_on(due, kind, first, fresh=fresh)
        for step in walk_down(fetch, time_of=lambda row: child_time(row, kind)):
            self.work.note_reply(step.page.reply)
            yield step.page

    def _first_of(self, due: Due, kind: Children, *, fresh: bool, expects: bool) -> Page:
        """Return the first page of a list; an empty one where rows are expected is asked for again."""
        first = self.api.fetch_children(due.id, kind, fresh=fresh)
        for _ in range(EMPTY_READS if expects else 0):
            if first.rows:
                break
            first = self.api.fetch_children(due.id, kind, fresh=fresh)
        due.listed[kind] = first.reply
        return first

    def _going_on(
        self, due: Due, kind: Children, first: Page, *, fresh: bool
    ) -> Callable[[int | None], Page]:
        """Return what fetches the pages of a list of which the first is there."""
        asked = [first]

        def fetch(until: int | None) -> Page:
            return (
                asked.pop()
                if until is None and asked
                else self.api.fetch_children(due.id, kind, until=until, fresh=fresh)
            )

        return fetch

    def read_bodies(self, batch: list[Due], *, fresh: bool) -> tuple[list[Observed], list[SetAside], int]:
        """Read the full messages that a batch of conversations needs, ten a call, and parse them."""
        wanted = {key: (due, stub) for due in batch for key, stub in due.stubs.items()}
        emails: list[Observed] = []
        problems: list[SetAside] = []
        cleaned: dict[int, int] = {}
        for row, reply in self._fetch_wanted(wanted, fresh=fresh):
            due, (stub, _) = wanted[row["id"]]
            observed, refused = self.work.parse(
                "emails",
                [row],
                reply,
                lambda row, due=due, stub=stub, reply=reply: parse_message(  # type: ignore[misc]  # bound per loop
                    row,
                    conversation_id=due.id,
                    date=reply.date,
                    # With a digest of nothing the body is read again the next time its conversation is.
                    stub_hash=NO_DIGEST if is_unsettled(stub, row, reply.date) else stub_digest(stub),
                    draft=row["id"] in due.draft_ids and not is_sent(stub, row),
                ),
            )
            emails += observed
            problems += refused
            cleaned[reply.seq] = reply.cleaned
        return emails, problems, sum(cleaned.values())

    def _fetch_wanted(
        self, wanted: dict[str, tuple[Due, tuple[Json, Reply]]], *, fresh: bool
    ) -> Iterator[tuple[Json, Reply]]:
        """Yield full messages and drafts; a draft that is not answered alone is as complete as its list."""
        parents = {key: due.id for key, (due, _) in wanted.items()}
        drafts = {key for key, (due, _) in wanted.items() if key in due.draft_ids}
        yield from self._fetch_bodies(
            {key: parents[key] for key in parents if key not in drafts}, fresh=fresh
        )
        complete = {key for key in drafts if "body" in wanted[key][1][0]}
        asked = {key: parents[key] for key in drafts - complete}
        for row, reply in self._fetch_bodies(asked, fresh=fresh):
            drafts.discard(row["id"])
            yield row, reply
        yield from (wanted[key][1] for key in sorted(drafts))

    def _fetch_bodies(self, parents: dict[str, str], *, fresh: bool) -> Iterable[tuple[Json, Reply]]:
        """Yield full messages; one that the vendor fails to answer is set aside, the others come."""
        ids = list(parents)
        for start in range(0, len(ids), IDS_PER_CALL):
            chunk = ids[start : start + IDS_PER_CALL]
            try:
                yield from list(self.api.fetch_messages(chunk, fresh=fresh))
            except BODY_FAULTS:
                for message_id in chunk:
                    yield from self._fetch_one_body(message_id, parents[message_id], fresh=fresh)

    def _fetch_one_body(
        self, message_id: str, conversation_id: str, *, fresh: bool
    ) -> list[tuple[Json, Reply]]:
        try:
            return list(self.api.fetch_messages([message_id], fresh=fresh))
        except BODY_FAULTS as error:
            parent = {"conversation": {"id": conversation_id}}
            problem = SetAside(stream="emails", object_id=message_id, reason=str(error), raw=parent)
            self.set_aside_if_alone(problem, error)
            return []

    def parse_comments(self, batch: list[Due]) -> tuple[list[Observed], list[SetAside]]:
        """Return the comments that were read, and those that cannot be used with their conversation."""
        comments: list[Observed] = []
        problems: list[SetAside] = []
        for due in batch:
            for row, reply in due.comments:
                observed, refused = self.work.parse(
                    "comments",
                    [row],
                    reply,
                    lambda row, due=due: parse_comment(  # type: ignore[misc]  # bound per loop
                        row, conversation_id=due.id, deleted=due.trashed
                    ),
                )
                comments += observed
                parent = {"conversation": {"id": due.id}}
                problems += [replace(item, raw={**row, **parent}) for item in refused]
        return comments, problems


@contextmanager
def _noting_denial(due: Due, stream: str) -> Iterator[None]:
    """Note a list that may not be read as one to be tried again; the other list goes on (DESIGN D6)."""
    try:
        yield
    except AccessError as error:
        if "users" in due.row:  # a guest sees the conversation, not what is in it
            parent = {"conversation": {"id": due.id}}
            due.denied.append(SetAside(stream=stream, object_id=due.id, reason=str(error), raw=parent))
