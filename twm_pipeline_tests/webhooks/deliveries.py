"""Deliveries as the vendors send them: the samples, and new ones with their signature."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from twm_pipeline.records import SOURCES, Source

SAMPLES = Path(__file__).parent.parent / "samples"
TEAMWORK_SECRET = "sample-teamwork-token"
MISSIVE_SECRET = "sample-missive-secret"
SIGNATURE_HEADERS = {"teamwork": "X-Projects-Signature", "missive": "X-Hook-Signature"}


@dataclass(frozen=True)
class Delivery:
    """One request of a vendor; *name* is for messages of tests."""

    source: Source
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    name: str = ""

    @property
    def signature_header(self) -> str:
        return SIGNATURE_HEADERS[self.source]

    def signed(self) -> Delivery:
        """Return the same with the signature of its body."""
        return replace(
            self, headers=self.headers | {self.signature_header: signature(self.source, self.body)}
        )

    def without(self, header: str) -> Delivery:
        return replace(self, headers={name: value for name, value in self.headers.items() if name != header})


def signature(source: Source, body: bytes) -> str:
    secret = TEAMWORK_SECRET if source == "teamwork" else MISSIVE_SECRET
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return digest if source == "teamwork" else f"sha256={digest}"


def task_delivery(task_id: int, *, event: str = "task-updated") -> Delivery:
    body = json.dumps({"task": {"id": task_id, "name": "x" * 600}}).encode()
    json_type = {"Content-Type": "application/json"}
    return Delivery("teamwork", f"/hooks/teamwork/{event}", body, json_type).signed()


def load_samples() -> list[Delivery]:
    """Return every recorded webhook of both vendors."""
    return [
        _load(path, source)
        for source in SOURCES
        for path in sorted((SAMPLES / source).glob("webhook.*.headers.json"))
    ]


def _load(path: Path, source: Source) -> Delivery:
    name = path.name.removesuffix(".headers.json")
    [body] = [
        other
        for other in path.parent.glob(f"{name}.*")
        if other.suffix != ".json" or other.name == f"{name}.json"
    ]
    place = f"/hooks/teamwork/{name.split('.')[1]}" if source == "teamwork" else "/hooks/missive"
    headers = json.loads(path.read_text())["headers"]
    return Delivery(source, place, body.read_bytes(), headers, name)
