"""Missive's JSON as records: which key is which column, and what makes a row unusable."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from twm_pipeline.errors import RecordError
from twm_pipeline.records import (
    Comment,
    Conversation,
    Email,
    Json,
    MissiveTeam,
    MissiveUser,
    Record,
    SharedLabel,
    digest,
    to_json,
)
from twm_pipeline.sources.fields import read_bool, read_int, read_list, read_object, read_text, read_unix
from twm_pipeline.sources.html import to_text

Children = Literal["messages", "comments", "drafts"]

UNSETTLED_DRAFT_SECONDS = 2
"""So young a draft may still change without a sign: a second for each of the two clocks."""
CHILD_TIME: dict[Children, tuple[str, str]] = {
    "messages": ("delivered_at", "created_at"),
    "comments": ("created_at", "created_at"),
    "drafts": ("delivered_at", "created_at"),
}
"""Key that pages a list, and the key that stands in for it where it is null."""

_VOLATILE_ATTACHMENT = frozenset({"url"})
_VOLATILE_AUTHOR = frozenset({"avatar_url"})


def _id_of(row: Json) -> str:
    value = row.get("id")
    if not isinstance(value, str) or not value:
        msg = "the row has no id"
        raise RecordError(msg)
    return value


def activity_of(row: Json) -> int | None:
    """Return `last_activity_at` of a conversation in Unix seconds, or None where it cannot be read."""
    value = row.get("last_activity_at")
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def child_time(row: Json, kind: Children) -> int | None:
    """Return the Unix seconds by which *kind* is paged."""
    for key in CHILD_TIME[kind]:
        value = row.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return int(value)
    return None


def parse_conversation(row: Json, *, owner_id: str) -> Conversation:
    """Return a conversation as the token's owner sees it.

    Trashed for the owner counts as deleted (D5). A guest sees only `id` and `last_activity_at`.

    Raises:
        RecordError: If the row cannot be used; the message names the key.
    """
    team = read_object(row, "team") or {}
    organization = read_object(row, "organization") or {}
    labels = _identified(row, "shared_labels")
    assignees = _identified(row, "assignees")
    states = [item for item in read_list(row, "users") if isinstance(item, dict)]
    mine = _state_of(states, owner_id)
    trashed = read_bool(mine, "trashed")
    return Conversation(
        id=_id_of(row),
        version_at=None,
        content_hash=digest(_without(row, users=states), salt=owner_id),
        raw=to_json(row),
        deleted=bool(trashed),
        subject=read_text(row, "subject"),
        latest_message_subject=read_text(row, "latest_message_subject"),
        organization_id=read_text(organization, "id"),
        organization_name=read_text(organization, "name"),
        team_id=read_text(team, "id"),
        team_name=read_text(team, "name"),
        assignee_ids=[str(item["id"]) for item in assignees],
        assignee_names=[
            read_text(item, "name") or read_text(item, "email") or str(item["id"]) for item in assignees
        ],
        label_ids=[str(item["id"]) for item in labels],
        label_names=[read_text(item, "name") or str(item["id"]) for item in labels],
        closed=read_bool(mine, "closed"),
        archived=read_bool(mine, "archived"),
        trashed=trashed,
        junked=read_bool(mine, "junked"),
        flagged=read_bool(mine, "flagged"),
        snoozed=read_bool(mine, "snoozed"),
        messages_count=read_int(row, "messages_count"),
        drafts_count=read_int(row, "drafts_count"),
        attachments_count=read_int(row, "attachments_count"),
        web_url=read_text(row, "web_url"),
        app_url=read_text(row, "app_url"),
        created_at=read_unix(row, "created_at"),
        last_activity_at=read_unix(row, "last_activity_at"),
    )


def _identified(row: Json, key: str) -> list[Json]:
    """Return those objects of a list that have an id."""
    return [item for item in read_list(row, key) if isinstance(item, dict) and item.get("id")]


def is_trashed(row: Json, *, owner_id: str) -> bool:
    """Return whether a conversation is in the trash of the token's owner."""
    states = row.get("users")
    return isinstance(states, list) and _state_of(states, owner_id).get("trashed") is True


def _state_of(states: list[Any], owner_id: str) -> Json:
    return next((item for item in states if isinstance(item, dict) and item.get("id") == owner_id), {})


def _without(row: Json, *, users: list[Json]) -> Json:
    """Return a conversation without avatars, *users* in place of its own."""
    return {
        **row,
        "users": [_drop(item, _VOLATILE_AUTHOR) for item in users],
        "assignees": [
            _drop(item, _VOLATILE_AUTHOR) for item in row.get("assignees") or [] if isinstance(item, dict)
        ],
    }


def _drop(item: Json, keys: frozenset[str]) -> Json:
    return {key: value for key, value in item.items() if key not in keys}


def _steady(row: Json) -> Json:
    """Return a message or comment without what changes from read to read: signed URLs, avatars, counters."""
    steady = {key: value for key, value in row.items() if key != "conversation"}
    conversation = row.get("conversation")
    if isinstance(conversation, dict):
        steady["conversation"] = {"id": conversation.get("id")}
    author = row.get("author")
    if isinstance(author, dict):
        steady["author"] = _drop(author, _VOLATILE_AUTHOR)
    if isinstance(row.get("attachments"), list):
        steady["attachments"] = [
            _drop(item, _VOLATILE_ATTACHMENT) if isinstance(item, dict) else item
            for item in row["attachments"]
        ]
    if isinstance(row.get("attachment"), dict):
        steady["attachment"] = _drop(row["attachment"], _VOLATILE_ATTACHMENT)
    return steady


def stub_digest(row: Json) -> bytes:
    """Return the digest of a message's row in a list: its body is read again only when this moves."""
    return digest(_steady(row), salt="stub")


def is_unsettled(stub: Json, row: Json, date: datetime) -> bool:
    """Return whether a full message is to be read again whatever its row in the list says then.

    Because it is not what its list showed: it changed between, or one is wrong. Or because it is a draft of
    this very moment: its times have whole seconds, so what is written later in the same second moves none.
    """
    if any(stub.get(key) != row.get(key) for key in ("delivered_at", "created_at", "updated_at", "subject")):
        return True
    written = [row.get("updated_at"), row.get("created_at")]
    return row.get("delivered_at") is None and any(
        isinstance(moment, int | float) and moment > date.timestamp() - UNSETTLED_DRAFT_SECONDS
        for moment in written
    )


def is_sent(stub: Json, row: Json) -> bool:
    """Return whether a message that was listed as a draft has been sent until it was read in full."""
    return stub.get("delivered_at") is None and row.get("delivered_at") is not None


def expiry_of(url: str) -> datetime | None:
    """Return until when the signed address of an attachment is good, or None if it does not say."""
    found = parse_qs(urlsplit(url).query).get("Expires")
    try:
        return datetime.fromtimestamp(int(found[0]), UTC) if found else None
    except (ValueError, OverflowError, OSError):
        return None


def _address(field: Json) -> str:
    """Return an address in lower case; other channels have a phone number or a user name."""
    address = read_text(field, "address")
    if address is not None:
        return address.strip().lower()
    return read_text(field, "phone_number") or read_text(field, "username") or read_text(field, "id") or ""


def _correspondents(row: Json) -> dict[str, Any]:
    """Return from whom and to whom a message is; names stand at the places of their addresses."""
    sender = read_object(row, "from_field") or {}
    columns: dict[str, Any] = {
        "from_address": _address(sender) or None,
        "from_name": read_text(sender, "name"),
    }
    for kind in ("to", "cc", "bcc", "reply_to"):
        people = [item for item in read_list(row, f"{kind}_fields") if isinstance(item, dict)]
        columns[f"{kind}_addresses"] = [_address(item) for item in people]
        if kind != "reply_to":
            columns[f"{kind}_names"] = [read_text(item, "name") or "" for item in people]
    return columns


def _texts(row: Json, key: str) -> list[str]:
    value = row.get(key)
    return (
        [value] if isinstance(value, str) else [str(item) for item in read_list(row, key) if item is not None]
    )


def parse_message(
    row: Json,
    *,
    conversation_id: str | None,
    date: datetime,
    stub_hash: bytes | None = None,
    draft: bool = False,
) -> Email:
    """Return a full message.

    Args:
        row: As answered by `GET /messages/:id`.
        conversation_id: Where it was found; the row's own word goes before it.
        date: The answer's own clock.
        stub_hash: `stub_digest` of its row in the list, where it was read from one.
        draft: Whether it is not sent yet; no key of the row says so.

    Raises:
        RecordError: If the row cannot be used; the message names the key.
    """
    author = read_object(row, "author") or {}
    conversation = read_object(row, "conversation") or {}
    steady = _steady(row)
    updated = read_unix(row, "updated_at")
    body = read_text(row, "body")
    return Email(
        id=_id_of(row),
        version_at=updated if updated is None or updated <= date else None,
        content_hash=digest(steady, salt="draft" if draft else ""),
        raw=to_json(steady | {key: row[key] for key in ("attachments",) if key in row}),
        conversation_id=read_text(conversation, "id") or conversation_id,
        type=read_text(row, "type"),
        subject=read_text(row, "subject"),
        preview=read_text(row, "preview"),
        email_message_id=read_text(row, "email_message_id"),
        in_reply_to=_texts(row, "in_reply_to"),
        references=_texts(row, "references"),
        **_correspondents(row),
        author_id=read_text(author, "id"),
        author_name=read_text(author, "name"),
        body_html=body,
        body_text=to_text(body) if read_text(row, "type") in (None, "email") else body,
        attachments=to_json(steady.get("attachments") or []),
        delivered_at=read_unix(row, "delivered_at"),
        created_at=read_unix(row, "created_at"),
        updated_at=updated,
        stub_hash=stub_hash,
        draft=draft,
    )


def parse_shared_label(row: Json) -> SharedLabel:
    """Return a shared label; see `parse_message`."""
    users = read_list(row, "share_with_users")
    return SharedLabel(
        **_named(row),
        full_name=read_text(row, "name_with_parent_names"),
        parent_id=_id_in(row, "parent"),
        color=read_text(row, "color"),
        organization_id=_id_in(row, "organization"),
        visibility=read_text(row, "visibility"),
        shared_with_organization=read_bool(row, "share_with_organization"),
        shared_with_team_id=_id_in(row, "share_with_team"),
        shared_with_user_ids=[str(item.get("id") if isinstance(item, dict) else item) for item in users],
    )


def parse_user(row: Json) -> MissiveUser:
    """Return a user; see `parse_message`."""
    return MissiveUser(**_named(row), email=read_text(row, "email"), is_me=read_bool(row, "me"))


def parse_team(row: Json) -> MissiveTeam:
    """Return a team; see `parse_message`."""
    return MissiveTeam(**_named(row), organization_id=_id_in(row, "organization"))


DIRECTORY_PARSERS: dict[str, Callable[[Json], Record]] = {
    "shared_labels": parse_shared_label,
    "users": parse_user,
    "teams": parse_team,
}


def _named(row: Json) -> dict[str, Any]:
    """Return what every row of a directory has."""
    return {
        "id": _id_of(row),
        "version_at": None,
        "content_hash": digest(_drop(row, _VOLATILE_AUTHOR)),
        "raw": to_json(row),
        "name": read_text(row, "name"),
    }


def _id_in(row: Json, key: str) -> str | None:
    """Return an id that is given bare, or as that of an object."""
    value = row.get(key)
    return read_text(value, "id") if isinstance(value, dict) else read_text(row, key)


def parse_comment(row: Json, *, conversation_id: str, deleted: bool = False) -> Comment:
    """Return a comment; see `parse_message`. It is *deleted* while its conversation is in the trash."""
    author = read_object(row, "author") or {}
    steady = _steady(row)
    attachment, task = read_object(steady, "attachment"), read_object(steady, "task")
    return Comment(
        id=_id_of(row),
        version_at=None,
        content_hash=digest({**steady, "conversation_id": conversation_id}),
        raw=to_json(row),
        deleted=deleted,
        conversation_id=conversation_id,
        body=read_text(row, "body"),
        author_id=read_text(author, "id"),
        author_name=read_text(author, "name"),
        author_email=read_text(author, "email"),
        mentions=to_json(read_list(row, "mentions")),
        attachment=to_json(attachment) if attachment else None,
        task=to_json(task) if task else None,
        created_at=read_unix(row, "created_at"),
    )
