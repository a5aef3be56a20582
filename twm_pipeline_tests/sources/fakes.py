"""A vendor session that answers from a list, and the recorded samples."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twm_pipeline.http import Reply

SAMPLES = Path(__file__).parents[1] / "samples"
NOW = datetime(2025, 3, 4, 12, 0, tzinfo=UTC)


def sample(vendor: str, name: str) -> Any:
    return json.loads((SAMPLES / vendor / f"{name}.json").read_text(encoding="utf-8"))


class FakeSession:
    """Answers each request with the next of its answers; an exception among them is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.fresh: list[bool] = []
        self.sent: list[tuple[str, str, Any]] = []

    def send(self, method: str, path: str, *, body: Any = None) -> Reply:
        self.sent.append((method, path, body))
        return self._answer()

    def get(self, path: str, params: dict[str, str] | None = None, *, fresh: bool = True) -> Reply:
        self.asked.append((path, dict(params or {})))
        self.fresh.append(fresh)
        return self._answer()

    def _answer(self) -> Reply:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Reply(data=answer, seq=len(self.asked), date=NOW)
