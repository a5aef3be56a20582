"""Bare clients of the two vendors, without any of the product's care."""

from __future__ import annotations

from typing import Any, Self

import requests

from twm_pipeline.sandbox import Sandbox

V3 = "/projects/api/v3"
FULL: dict[str, Any] = {
    "includeCompletedTasks": "true",
    "showCompletedLists": "true",
    "includeArchivedProjects": "true",
    "includeTasksFromDeletedLists": "true",
    "getSubTasks": "true",
    "pageSize": 500,
}


TOKEN = "sample-teamwork-token"


class Client:
    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.session = requests.Session()
        self.session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def get(self, path: str, *, timeout: float = 10, **params: Any) -> requests.Response:
        return self.session.get(f"{self.base_url}{path}", params=params, timeout=timeout)

    def send(self, method: str, path: str, body: Any = None) -> requests.Response:
        return self.session.request(method, f"{self.base_url}{path}", json=body, timeout=10)

    def json(self, path: str, **params: Any) -> Any:
        response = self.get(path, **params)
        assert response.status_code == 200, response.text
        return response.json()


class TeamworkClient(Client):
    def __init__(self, box: Sandbox) -> None:
        super().__init__(box.teamwork_url)
        self.session.auth = (box.teamwork_key, "x")

    def v3(self, path: str, **params: Any) -> Any:
        return self.json(f"{V3}/{path}", **params)

    def subscribe(self, url: str, *events: str, **fields: Any) -> list[str]:
        """Create a JSON webhook with a token for each event, at a path of its own; return their ids."""
        given = {"version": "2", "contentType": "application/json", "token": TOKEN} | fields
        ids = []
        for event in events:
            body = {"webhook": {"event": event, "url": f"{url}/{event}"} | given}
            answer = self.send("POST", "/webhooks.json", body)
            assert answer.status_code == 201, answer.text
            ids.append(str(answer.json()["id"]))
        return ids

    def tasks(self, **params: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.v3("tasks.json", **{"pageSize": 500, **params})["tasks"]
        return rows

    def ids(self, **params: Any) -> set[int]:
        return {row["id"] for row in self.tasks(**params)}

    def task(self, task_id: int) -> dict[str, Any]:
        row: dict[str, Any] = self.v3(f"tasks/{task_id}.json")["task"]
        return row

    def status(self, path: str, **params: Any) -> int:
        return self.get(f"{V3}/{path}", **params).status_code


class MissiveClient(Client):
    def __init__(self, box: Sandbox) -> None:
        super().__init__(box.missive_url)
        self.session.headers["Authorization"] = f"Bearer {box.missive_token}"

    def subscribe(self, url: str, kind: str, **filters: Any) -> str:
        """Create a hook through the API and return its id."""
        answer = self.send("POST", "/hooks", {"hooks": {"type": kind, "url": url, **filters}})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["hooks"]["id"])

    def conversations(self, **params: Any) -> list[dict[str, Any]]:
        params = {"all": "true", "limit": 50} | params
        rows: list[dict[str, Any]] = self.json("/conversations", **params)["conversations"]
        return rows

    def walk(self, mailbox: str) -> dict[str, dict[str, Any]]:
        """Return a whole mailbox by id, walked as the fact sheet advises."""
        seen: dict[str, dict[str, Any]] = {}
        params: dict[str, Any] = {mailbox: "true", "limit": 50}
        while True:
            page = self.json("/conversations", **params)["conversations"]
            new = [row for row in page if row["id"] not in seen]
            seen |= {row["id"]: row for row in page}
            if len(page) < 50:
                return seen
            oldest = min(row["last_activity_at"] for row in page)
            params["until"] = oldest if new else oldest - 1

    def conversation(self, key: str) -> dict[str, Any]:
        row: dict[str, Any]
        [row] = self.json(f"/conversations/{key}")["conversations"]
        return row

    def children(self, key: str, kind: str) -> list[dict[str, Any]]:
        """Return all messages or comments of a conversation."""
        seen: dict[str, dict[str, Any]] = {}
        params: dict[str, Any] = {}
        at = "delivered_at" if kind == "messages" else "created_at"
        while True:
            page = self.json(f"/conversations/{key}/{kind}", **params)[kind]
            new = [row for row in page if row["id"] not in seen]
            seen |= {row["id"]: row for row in page}
            if len(page) < 10:
                return list(seen.values())
            oldest = min(row[at] for row in page)
            params["until"] = oldest if new else oldest - 1
