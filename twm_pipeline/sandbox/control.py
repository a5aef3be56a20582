"""The control plane: changes, faults, budgets, and the truth, as JSON over HTTP."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from twm_pipeline.sandbox.airtable import Airtable
from twm_pipeline.sandbox.airtable_actions import AirtableActions
from twm_pipeline.sandbox.airtable_old_base import old_rows
from twm_pipeline.sandbox.answers import Answers
from twm_pipeline.sandbox.courier import is_loopback
from twm_pipeline.sandbox.deliveries import Deliveries
from twm_pipeline.sandbox.faults import Fault, FaultBook
from twm_pipeline.sandbox.gate import JSON, Gate
from twm_pipeline.sandbox.hooks import Hook
from twm_pipeline.sandbox.missive import Missive
from twm_pipeline.sandbox.missive_actions import MissiveActions
from twm_pipeline.sandbox.missive_files import FILE_FAULTS
from twm_pipeline.sandbox.options import Budgets, Clock, Json
from twm_pipeline.sandbox.storm import Storm
from twm_pipeline.sandbox.teamwork import Teamwork
from twm_pipeline.sandbox.teamwork_actions import TeamworkActions

Action = Callable[..., Any]
LINES_AT_ONCE = 200


class Control:
    """What people, testers and fate do to the accounts.

    Args:
        teamwork: The Teamwork site.
        missive: The Missive account.
        gates: What stands before each vendor, by its name.
        faults: The faults injected.
        answers: The open questions.
        clock: The time of both.
        deliveries: What the hooks are told.
        airtable: The Airtable account.
    """

    def __init__(  # noqa: PLR0913 - the parts of a world
        self,
        *,
        teamwork: Teamwork,
        missive: Missive,
        gates: dict[str, Gate],
        faults: FaultBook,
        answers: Answers,
        clock: Clock,
        deliveries: Deliveries,
        airtable: Airtable,
    ) -> None:
        self.teamwork = teamwork
        self.missive = missive
        self.gates = gates
        self.faults = faults
        self.answers = answers
        self.clock = clock
        self.deliveries = deliveries
        self.airtable = AirtableActions(
            airtable, old_rows=partial(old_rows, teamwork.account, missive.account)
        )
        tasks = TeamworkActions(teamwork.account, answers=answers, clock=clock, fire=teamwork.hooks.fire)
        mails = MissiveActions(missive.account, answers=answers, clock=clock, fire=missive.fire)
        storm = Storm(tasks, mails)
        self.actions: dict[str, Action] = {
            **tasks.actions(),
            **mails.actions(),
            **missive.hooks.actions(),
            **self.airtable.actions(),
            "random_changes": storm.random_changes,
            "set_answer": self._set_answer,
            "set_budgets": self._set_budgets,
            "set_latency": self._set_latency,
            "set_file_fault": self._set_file_fault,
            "add_fault": self._add_fault,
            "clear_faults": self._clear_faults,
            "reset_counters": self._reset_counters,
            "advance": self._advance,
            "set_tunnel": self._set_tunnel,
            "set_deliveries": deliveries.set_weather,
            "hold_deliveries": deliveries.hold,
            "release_deliveries": deliveries.release,
            "wait_for_deliveries": deliveries.wait,
            "deliveries": deliveries.rows,
        }

    def routes(self) -> list[BaseRoute]:
        """Return the endpoints."""
        return [
            Route("/do/{action}", self._do, methods=["POST"]),
            Route("/status", self._status),
            Route("/requests", self._requests),
            Route("/truth", self._truth),
        ]

    async def _do(self, request: Request) -> Response:
        action = self.actions.get(request.path_params["action"])
        if action is None:
            return JSON({"error": f"unknown action {request.path_params['action']!r}"}, 404)
        try:
            result = action(**orjson.loads(await request.body() or b"{}"))
            return JSON({"result": await result if inspect.isawaitable(result) else result})
        except (KeyError, LookupError, TimeoutError, TypeError, ValueError) as error:
            return JSON({"error": f"{type(error).__name__}: {error}"}, 422)

    async def _status(self, _: Request) -> Response:
        return JSON(self.status())

    def status(self) -> dict[str, Any]:
        """Return counters, answers, faults and the clock."""
        vendors = {}
        for name, gate in self.gates.items():
            budget = gate.vendor.budget
            limits = {"budget_scale": budget.scale, "peak_concurrency": budget.peak}
            vendors[name] = gate.log.to_dict() | limits | gate.vendor.report()
        return {
            "now": self.clock.now(),
            "vendors": vendors,
            "answers": self.answers.to_dict(),
            "faults": self.faults.rows(),
            "hooks": dict(Counter(hook.vendor for hook in self._hooks())),
            "deliveries": self.deliveries.to_dict(),
            "files": {
                "downloads": self.missive.files.downloads,
                "leaked_tokens": self.missive.files.leaked_tokens,
            },
            "rows": {
                "tasks": len(self.teamwork.account.tasks),
                "conversations": len(self.missive.account.conversations),
                "messages": len(self.missive.account.messages),
            },
        }

    async def _requests(self, request: Request) -> Response:
        since = int(request.query_params.get("since", "0"))
        names = [request.query_params["vendor"]] if "vendor" in request.query_params else list(self.gates)
        rows = [row for name in names for row in self.gates[name].log.rows(since)]
        return JSON({"requests": sorted(rows, key=lambda row: row["at"])})

    async def _truth(self, _: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            batch: list[bytes] = []
            for row in self.truth():
                batch.append(orjson.dumps(row))
                if len(batch) >= LINES_AT_ONCE:
                    yield b"\n".join(batch) + b"\n"
                    batch = []
            yield b"\n".join([*batch, b""])

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    def truth(self) -> Iterator[dict[str, Any]]:
        """Yield everything that exists; what is fetched while it changes may be of either moment."""
        yield from self._teamwork_truth()
        yield from self._missive_truth()
        yield from self.airtable.truth()
        for hook in self._hooks():
            yield {"kind": "hook", **asdict(hook)}

    def _hooks(self) -> list[Hook]:
        return [*self.teamwork.hooks.hooks.values(), *self.missive.hooks.hooks.values()]

    def _teamwork_truth(self) -> Iterator[dict[str, Any]]:
        account = self.teamwork.account
        for task in list(account.tasks.values()):
            project = account.project_of(task)
            task_list = account.lists.get(task.list_id) if task.list_id is not None else None
            row = asdict(task)
            del row["row"]
            yield {
                "kind": "task",
                **row,
                "project_id": None if project is None else project.id,
                "visible": account.is_visible(task),
                "deleted": task.deleted_at is not None,
                "list_completed": task_list is not None and task_list.completed,
                "list_deleted": task_list is not None and task_list.deleted_at is not None,
                "project_archived": project is not None and project.archived_at is not None,
                "comment_ids": list(account.comments_of.get(task.id, ())),
            }
        kinds: dict[str, dict[int, Any]] = {
            "project": account.projects,
            "tasklist": account.lists,
            "person": account.people,
            "tag": account.tags,
            "company": account.companies,
            "team": account.teams,
            "task_comment": account.comments,
            "timelog": account.timelogs,
        }
        for kind, items in kinds.items():
            for item in list(items.values()):
                yield {"kind": kind, **asdict(item)}

    def _missive_truth(self) -> Iterator[dict[str, Any]]:
        account = self.missive.account
        for user in list(account.users.values()):
            yield {"kind": "user", **asdict(user)}
        for label in list(account.labels.values()):
            yield {"kind": "label", **asdict(label), "path": self.missive.rows.label_path(label)}
        yield {"kind": "missive_team", **account.team}
        for item in list(account.conversations.values()):
            yield self._conversation_truth(item.id)
            for mail in list(item.messages):
                yield {"kind": "message", **asdict(mail)}
            for note in list(item.notes):
                yield {"kind": "comment", "conversation_id": item.id, **asdict(note)}

    def _conversation_truth(self, key: str) -> dict[str, Any]:
        account = self.missive.account
        item = account.conversations[key]
        mine = item.states.get(account.me.id, set())
        return {
            "kind": "conversation",
            "id": item.id,
            "subject": item.subject,
            "created_at": item.created_at,
            "last_activity_at": item.last_activity_at,
            "team": item.team,
            "guest": item.guest,
            "visible": item.accessible,
            "states": {user: sorted(flags) for user, flags in item.states.items()},
            "trashed": "trashed" in mine,
            "junked": "junked" in mine,
            "closed": "closed" in mine,
            "assignee_ids": item.assignee_ids,
            "label_ids": item.label_ids,
            "label_names": [account.labels[label].name for label in item.label_ids],
            "aliases": item.aliases,
            "message_ids": [mail.id for mail in item.messages if not mail.draft],
            "draft_ids": [mail.id for mail in item.messages if mail.draft],
            "comment_ids": [note.id for note in item.notes],
        }

    # The world around the accounts.

    def _set_answer(self, *, name: str, value: str | float | bool) -> None:
        self.answers.set(name, value)

    def _set_budgets(self, *, mode: Budgets, vendor: str | None = None) -> None:
        scale = {"off": 0.0, "on": 1.0}[mode] if isinstance(mode, str) else float(mode)
        for name, gate in self.gates.items():
            if vendor in (None, name):
                gate.vendor.budget.set_scale(scale)

    def _set_latency(self, *, seconds: float, vendor: str | None = None) -> None:
        for name, gate in self.gates.items():
            if vendor in (None, name):
                gate.latency_seconds = seconds

    def _set_file_fault(self, *, fault: str | None, attachment_id: str = "") -> None:
        if fault is None:
            self.missive.files.faults.pop(attachment_id, None)
            return
        if fault not in FILE_FAULTS:
            raise ValueError(f"unknown fault {fault!r} of a file; known: {FILE_FAULTS}")
        self.missive.files.faults[attachment_id] = fault

    def _add_fault(self, **fields: Json) -> None:
        self.faults.add(Fault(**fields))

    def _clear_faults(self, *, vendor: str | None = None) -> None:
        self.faults.clear(vendor)

    def _reset_counters(self) -> None:
        for gate in self.gates.values():
            gate.reset_log()
            gate.vendor.budget.peak = 0
            gate.vendor.reset()
        self.missive.files.leaked_tokens = self.missive.files.downloads = 0
        self.deliveries.log.clear()

    def _advance(self, *, seconds: float) -> int:
        self.clock.advance(seconds)
        self.deliveries.wake()
        return self.clock.now()

    def _set_tunnel(self, *, public: str, local: str) -> None:
        if not is_loopback(local):
            raise ValueError("a tunnel ends on loopback")
        self.deliveries.courier.tunnels[public] = local
