"""The control plane from the other side: for tests, demos and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import requests

from twm_pipeline.sandbox.airtable_client import AirtableControl
from twm_pipeline.sandbox.options import Budgets, Json

TIMEOUT_SECONDS = 60.0
Ids = dict[str, str]


class SandboxError(Exception):
    """The control plane refused a request."""


class SandboxControl(AirtableControl):
    """Changes a running sandbox, in this process or another.

    Args:
        url: The sandbox's address without a path.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # A proxy has no business on loopback.

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def do(self, action: str, **fields: Json) -> Json:
        """Run an action by its name and return its result.

        Raises:
            SandboxError: If the sandbox refuses it.
        """
        return self._do(action, fields, timeout_seconds=TIMEOUT_SECONDS)

    def _do(self, action: str, fields: dict[str, Any], *, timeout_seconds: float) -> Json:
        response = self._session.post(
            f"{self.url}/control/do/{action}", data=orjson.dumps(fields), timeout=timeout_seconds
        )
        body = orjson.loads(response.content)
        if "error" in body:
            raise SandboxError(f"{action}: {body['error']}")
        return body["result"]

    def _get(self, path: str, **params: Json) -> Json:
        response = self._session.get(f"{self.url}/control/{path}", params=params, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        return orjson.loads(response.content)

    # Looking.

    def status(self) -> dict[str, Any]:
        """Return counters, answers, faults, files and the clock."""
        result: dict[str, Any] = self._get("status")
        return result

    def violations(self, vendor: str | None = None) -> int:
        """Return how many requests broke a budget."""
        vendors = self.status()["vendors"]
        return sum(row["violations"] for name, row in vendors.items() if vendor in (None, name))

    def request_count(self, vendor: str | None = None) -> int:
        """Return how many requests were made."""
        vendors = self.status()["vendors"]
        return sum(row["requests"] for name, row in vendors.items() if vendor in (None, name))

    def requests(self, vendor: str | None = None, *, since: int = 0) -> list[dict[str, Any]]:
        """Return the log: vendor, method, path, query, at (monotonic), seconds, status, fault, violation."""
        params = {"since": since} | ({} if vendor is None else {"vendor": vendor})
        rows: list[dict[str, Any]] = self._get("requests", **params)["requests"]
        return rows

    def truth(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield everything that exists, of one kind or all."""
        with self._session.get(f"{self.url}/control/truth", stream=True, timeout=TIMEOUT_SECONDS) as response:
            response.raise_for_status()
            for line in response.iter_lines(chunk_size=1 << 16, delimiter=b"\n"):
                if line:
                    row: dict[str, Any] = orjson.loads(line)
                    if kind in (None, row["kind"]):
                        yield row

    # The world around the accounts.

    def set_answer(self, name: str, value: str | float | bool) -> None:
        """Answer one of the open questions otherwise."""
        self.do("set_answer", name=name, value=value)

    def set_budgets(self, mode: Budgets, vendor: str | None = None) -> None:
        """Enforce the budgets, or not, or on another time scale."""
        self.do("set_budgets", mode=mode, vendor=vendor)

    def set_file_fault(self, fault: str | None, attachment_id: str = "") -> None:
        """Let one of Missive's files be answered wrongly, or all that have no fault; None: no more."""
        self.do("set_file_fault", fault=fault, attachment_id=attachment_id)

    def set_latency(self, seconds: float, vendor: str | None = None) -> None:
        """Wait before every answer."""
        self.do("set_latency", seconds=seconds, vendor=vendor)

    def add_fault(self, vendor: str, kind: str, **fields: Json) -> None:
        """Inject a fault; the fields are those of `faults.Fault`."""
        self.do("add_fault", vendor=vendor, kind=kind, **fields)

    def clear_faults(self, vendor: str | None = None) -> None:
        """Take the faults back."""
        self.do("clear_faults", vendor=vendor)

    def reset_counters(self) -> None:
        """Start counting anew."""
        self.do("reset_counters")

    def advance(self, seconds: float) -> int:
        """Let time pass at once; return the new second."""
        return int(self.do("advance", seconds=seconds))

    def set_tunnel(self, public: str, local: str) -> None:
        """Let what is posted to addresses that begin with *public* arrive at the loopback address *local*."""
        self.do("set_tunnel", public=public, local=local)

    # Hooks.

    def hooks(self, vendor: str | None = None) -> list[dict[str, Any]]:
        """Return the hooks of one vendor or both, with their secrets."""
        return [row for row in self.truth("hook") if vendor in (None, row["vendor"])]

    def create_rule(self, type: str, url: str, secret: str | None = None) -> str:  # noqa: A002 - Missive's word
        """Save a rule in Missive's UI and return its id; the address has to answer 2xx at once."""
        return str(self.do("create_rule", type=type, url=url, secret=secret))

    def delete_rule(self, rule_id: str) -> None:
        """Delete a rule in Missive's UI."""
        self.do("delete_rule", rule_id=rule_id)

    # Deliveries.

    def set_deliveries(self, **fields: Json) -> None:
        """Say how deliveries travel: fields of `deliveries.Weather`, and `seed`; the rest as at first."""
        self.do("set_deliveries", **fields)

    def hold_deliveries(self, *events: str) -> None:
        """Keep back what was not sent yet, of these events or all."""
        self.do("hold_deliveries", events=events)

    def release_deliveries(self) -> int:
        """Send what was kept back; return how many deliveries that are."""
        return int(self.do("release_deliveries"))

    def wait_for_deliveries(self, timeout_seconds: float = 30.0, *, retries: bool = False) -> None:
        """Wait until nothing is under way; what is to be retried counts only when asked.

        Raises:
            SandboxError: If that takes longer than *timeout_seconds*.
        """
        fields = {"seconds": timeout_seconds, "retries": retries}
        self._do("wait_for_deliveries", fields, timeout_seconds=timeout_seconds + TIMEOUT_SECONDS)

    def deliveries(self, vendor: str | None = None, **fields: Json) -> list[dict[str, Any]]:
        """Return the log, from number `since` on and in one `state` where given."""
        rows: list[dict[str, Any]] = self.do("deliveries", vendor=vendor, **fields)
        return rows

    def random_changes(self, count: int, seed: int, vendor: str | None = None) -> dict[str, int]:
        """Make random changes; return how many of each."""
        result: dict[str, int] = self.do("random_changes", count=count, seed=seed, vendor=vendor)
        return result

    # Teamwork. With `fire` off, no webhook hears of a change.

    def create_task(self, name: str, **fields: Json) -> int:
        """Create a task and return its id."""
        return int(self.do("create_task", name=name, **fields))

    def edit_task(self, task_id: int, **fields: Json) -> None:
        """Change fields of a task."""
        self.do("edit_task", task_id=task_id, **fields)

    def bulk_edit(self, count: int, priority: str | None = "high", *, fire: bool = True) -> list[int]:
        """Edit *count* tasks within one second; return their ids."""
        return list(self.do("bulk_edit", count=count, priority=priority, fire=fire))

    def redate_task(self, task_id: int, updated_at: int) -> None:
        """Give a task any `updatedAt`."""
        self.do("redate_task", task_id=task_id, updated_at=updated_at)

    def complete_task(self, task_id: int, *, fire: bool = True) -> None:
        """Complete a task."""
        self.do("complete_task", task_id=task_id, fire=fire)

    def reopen_task(self, task_id: int, *, fire: bool = True) -> None:
        """Reopen a task."""
        self.do("reopen_task", task_id=task_id, fire=fire)

    def delete_task(self, task_id: int, *, fire: bool = True) -> None:
        """Delete a task."""
        self.do("delete_task", task_id=task_id, fire=fire)

    def restore_task(self, task_id: int, *, fire: bool = True) -> None:
        """Restore a deleted task."""
        self.do("restore_task", task_id=task_id, fire=fire)

    def tag_task(self, task_id: int, tag_id: int, *, fire: bool = True) -> None:
        """Tag a task."""
        self.do("tag_task", task_id=task_id, tag_id=tag_id, fire=fire)

    def untag_task(self, task_id: int, tag_id: int, *, fire: bool = True) -> None:
        """Take a tag off a task."""
        self.do("untag_task", task_id=task_id, tag_id=tag_id, fire=fire)

    def assign_task(
        self, task_id: int, assignees: Sequence[tuple[str, int]] | None, *, fire: bool = True
    ) -> None:
        """Set a task's assignees: pairs of `users`, `teams` or `companies` and an id."""
        self.do("assign_task", task_id=task_id, assignees=assignees, fire=fire)

    def move_task(self, task_id: int, list_id: int, *, fire: bool = True) -> None:
        """Move a task to a list of any project."""
        self.do("move_task", task_id=task_id, list_id=list_id, fire=fire)

    def comment_task(self, task_id: int, body: str, *, fire: bool = True) -> int:
        """Comment on a task and return the comment's id."""
        return int(self.do("comment_task", task_id=task_id, body=body, fire=fire))

    def edit_task_comment(self, comment_id: int, body: str, *, fire: bool = True) -> None:
        """Edit a task's comment."""
        self.do("edit_task_comment", comment_id=comment_id, body=body, fire=fire)

    def delete_task_comment(self, comment_id: int, *, fire: bool = True) -> None:
        """Delete a task's comment."""
        self.do("delete_task_comment", comment_id=comment_id, fire=fire)

    def create_tasklist(self, name: str, project_id: int, *, fire: bool = True) -> int:
        """Create a task list and return its id."""
        return int(self.do("create_tasklist", name=name, project_id=project_id, fire=fire))

    def rename_tasklist(self, list_id: int, name: str, *, fire: bool = True) -> None:
        """Rename a task list."""
        self.do("rename_tasklist", list_id=list_id, name=name, fire=fire)

    def complete_tasklist(self, list_id: int, *, fire: bool = True) -> None:
        """Complete a task list."""
        self.do("complete_tasklist", list_id=list_id, fire=fire)

    def reopen_tasklist(self, list_id: int, *, fire: bool = True) -> None:
        """Reopen a task list."""
        self.do("reopen_tasklist", list_id=list_id, fire=fire)

    def delete_tasklist(self, list_id: int, *, fire: bool = True) -> None:
        """Delete a task list."""
        self.do("delete_tasklist", list_id=list_id, fire=fire)

    def create_project(self, name: str, *, fire: bool = True) -> int:
        """Create a project with one list and return its id."""
        return int(self.do("create_project", name=name, fire=fire))

    def rename_project(self, project_id: int, name: str, *, fire: bool = True) -> None:
        """Rename a project."""
        self.do("rename_project", project_id=project_id, name=name, fire=fire)

    def archive_project(self, project_id: int, *, archived: bool = True, fire: bool = True) -> None:
        """Archive a project, or take it back."""
        self.do("archive_project", project_id=project_id, archived=archived, fire=fire)

    def delete_project(self, project_id: int, *, fire: bool = True) -> None:
        """Delete a project."""
        self.do("delete_project", project_id=project_id, fire=fire)

    def set_project_access(self, project_id: int, *, accessible: bool) -> None:
        """Let the key's owner lose or regain a project."""
        self.do("set_project_access", project_id=project_id, accessible=accessible)

    def rename_person(self, person_id: int, first_name: str, last_name: str) -> None:
        """Rename a person."""
        self.do("rename_person", person_id=person_id, first_name=first_name, last_name=last_name)

    def delete_person(self, person_id: int) -> None:
        """Delete a person."""
        self.do("delete_person", person_id=person_id)

    def create_tag(self, name: str) -> int:
        """Create a tag and return its id."""
        return int(self.do("create_tag", name=name))

    def rename_tag(self, tag_id: int, name: str) -> None:
        """Rename a tag."""
        self.do("rename_tag", tag_id=tag_id, name=name)

    def delete_tag(self, tag_id: int) -> None:
        """Delete a tag."""
        self.do("delete_tag", tag_id=tag_id)

    def edit_time(self, timelog_id: int, minutes: int, *, fire: bool = True) -> None:
        """Change how much time was logged."""
        self.do("edit_time", timelog_id=timelog_id, minutes=minutes, fire=fire)

    def restore_time(self, timelog_id: int, *, fire: bool = True) -> None:
        """Restore a deleted time entry."""
        self.do("restore_time", timelog_id=timelog_id, fire=fire)

    def log_time(self, task_id: int, minutes: int, *, fire: bool = True) -> int:
        """Log time on a task and return the entry's id."""
        return int(self.do("log_time", task_id=task_id, minutes=minutes, fire=fire))

    def delete_time(self, timelog_id: int, *, fire: bool = True) -> None:
        """Delete a time entry."""
        self.do("delete_time", timelog_id=timelog_id, fire=fire)

    # Missive.

    def receive_mail(self, conversation_id: str | None = None, **fields: Json) -> Ids:
        """Receive a message, in a new conversation unless one is named; return both ids."""
        result: Ids = self.do("receive_mail", conversation_id=conversation_id, **fields)
        return result

    def reply(self, conversation_id: str, body: str = "<p>Thanks</p>") -> Ids:
        """Answer in a conversation; return both ids."""
        result: Ids = self.do("reply", conversation_id=conversation_id, body=body)
        return result

    def write_draft(
        self, conversation_id: str, body: str = "<p>Dear all</p>", *, delivered_at: int | None = None
    ) -> str:
        """Begin an answer without sending it and return its id; *delivered_at* is the draft's own."""
        return str(
            self.do("write_draft", conversation_id=conversation_id, body=body, delivered_at=delivered_at)
        )

    def edit_draft(self, message_id: str, body: str) -> None:
        """Go on writing a draft."""
        self.do("edit_draft", message_id=message_id, body=body)

    def send_draft(self, message_id: str) -> str:
        """Send a draft and return the id of the message that it becomes."""
        return str(self.do("send_draft", message_id=message_id))

    def discard_draft(self, message_id: str) -> None:
        """Throw a draft away."""
        self.do("discard_draft", message_id=message_id)

    def delete_message(self, message_id: str) -> None:
        """Delete a message for good."""
        self.do("delete_message", message_id=message_id)

    def comment(self, conversation_id: str, body: str) -> str:
        """Comment on a conversation and return the comment's id."""
        return str(self.do("comment", conversation_id=conversation_id, body=body))

    def edit_comment(self, conversation_id: str, comment_id: str, body: str) -> None:
        """Edit a comment."""
        self.do("edit_comment", conversation_id=conversation_id, comment_id=comment_id, body=body)

    def delete_comment(self, conversation_id: str, comment_id: str) -> None:
        """Delete a comment."""
        self.do("delete_comment", conversation_id=conversation_id, comment_id=comment_id)

    def label(self, conversation_id: str, label_id: str) -> None:
        """Put a label on a conversation."""
        self.do("label", conversation_id=conversation_id, label_id=label_id)

    def unlabel(self, conversation_id: str, label_id: str) -> None:
        """Take a label off a conversation."""
        self.do("unlabel", conversation_id=conversation_id, label_id=label_id)

    def create_label(self, name: str, parent: str | None = None) -> str:
        """Create a label and return its id."""
        return str(self.do("create_label", name=name, parent=parent))

    def delete_label(self, label_id: str) -> None:
        """Delete a label."""
        self.do("delete_label", label_id=label_id)

    def rename_user(self, user_id: str, name: str) -> None:
        """Rename a user."""
        self.do("rename_user", user_id=user_id, name=name)

    def rename_label(self, label_id: str, name: str) -> None:
        """Rename a label."""
        self.do("rename_label", label_id=label_id, name=name)

    def assign(self, conversation_id: str, user_ids: Sequence[str]) -> None:
        """Set a conversation's assignees."""
        self.do("assign", conversation_id=conversation_id, user_ids=list(user_ids))

    def set_flag(
        self, conversation_id: str, flag: str, *, value: bool = True, user_id: str | None = None
    ) -> None:
        """Set `closed`, `archived`, `trashed`, `junked`, `flagged` or `snoozed` of one user."""
        self.do("set_flag", conversation_id=conversation_id, flag=flag, value=value, user_id=user_id)

    def close_conversation(self, conversation_id: str) -> None:
        """Close a conversation for everybody."""
        self.set_flag(conversation_id, "closed")

    def reopen_conversation(self, conversation_id: str) -> None:
        """Reopen a conversation for everybody."""
        self.set_flag(conversation_id, "closed", value=False)

    def trash(self, conversation_id: str, user_id: str | None = None) -> None:
        """Move a conversation to one user's trash, the token owner's unless named."""
        self.set_flag(conversation_id, "trashed", user_id=user_id)

    def untrash(self, conversation_id: str, user_id: str | None = None) -> None:
        """Take a conversation out of one user's trash."""
        self.set_flag(conversation_id, "trashed", value=False, user_id=user_id)

    def junk(self, conversation_id: str) -> None:
        """Mark a conversation as junk for the token's owner."""
        self.set_flag(conversation_id, "junked")

    def merge(self, conversation_id: str, into_id: str) -> None:
        """Merge a conversation into another, which survives."""
        self.do("merge", conversation_id=conversation_id, into_id=into_id)

    def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation for good."""
        self.do("delete_conversation", conversation_id=conversation_id)

    def set_conversation_access(self, conversation_id: str, *, accessible: bool) -> None:
        """Let the token's owner lose or regain a conversation."""
        self.do("set_conversation_access", conversation_id=conversation_id, accessible=accessible)

    def redate_conversation(self, conversation_id: str, last_activity_at: int) -> None:
        """Give a conversation any `last_activity_at`."""
        self.do("redate_conversation", conversation_id=conversation_id, last_activity_at=last_activity_at)
