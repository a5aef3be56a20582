"""A bare client of the sandbox's Airtable, and the real pyairtable beside it."""

from __future__ import annotations

from typing import Any

import pyairtable
import requests

from twm_pipeline.sandbox import Sandbox
from twm_pipeline_tests.sandbox.clients import Client

ISO = {"dateFormat": {"name": "iso"}}
MOMENT = ISO | {"timeFormat": {"name": "24hour"}, "timeZone": "Europe/Berlin"}
FIELDS: list[dict[str, Any]] = [
    {"name": "Key", "type": "singleLineText"},
    {"name": "Notes", "type": "multilineText"},
    {"name": "Rich", "type": "richText"},
    {"name": "Mail", "type": "email"},
    {"name": "Link", "type": "url"},
    {"name": "Phone", "type": "phoneNumber"},
    {"name": "Count", "type": "number", "options": {"precision": 1}},
    {"name": "Price", "type": "currency", "options": {"precision": 2, "symbol": "€"}},
    {"name": "Share", "type": "percent", "options": {"precision": 1}},
    {"name": "Took", "type": "duration", "options": {"durationFormat": "h:mm"}},
    {"name": "Done", "type": "checkbox", "options": {"icon": "check", "color": "greenBright"}},
    {"name": "Stars", "type": "rating", "options": {"icon": "star", "color": "yellowBright", "max": 5}},
    {"name": "Due", "type": "date", "options": ISO},
    {"name": "At", "type": "dateTime", "options": MOMENT},
    {"name": "Status", "type": "singleSelect", "options": {"choices": [{"name": "new"}, {"name": "done"}]}},
    {"name": "Tags", "type": "multipleSelects", "options": {"choices": [{"name": "a"}, {"name": "b"}]}},
    {"name": "Owner", "type": "singleCollaborator"},
    {"name": "Team", "type": "multipleCollaborators"},
    {"name": "Code", "type": "barcode"},
    {"name": "Files", "type": "multipleAttachments"},
]


class AirtableClient(Client):
    """Speaks to the sandbox's base as it is told, and makes a table of every type."""

    def __init__(self, box: Sandbox) -> None:
        super().__init__(f"{box.airtable_url}/v0")
        self.box = box
        self.base_id = box.airtable_base_id
        self.session.headers["Authorization"] = f"Bearer {box.airtable_token}"
        self.api = pyairtable.Api(
            box.airtable_token, endpoint_url=box.airtable_url, retry_strategy=None, timeout=(5, 10)
        )
        self.api.session.trust_env = False

    def __exit__(self, *_: object) -> None:
        self.api.session.close()
        super().__exit__(*_)

    @property
    def base(self) -> pyairtable.Base:
        return self.api.base(self.base_id)

    def table(self, name: str = "Things") -> Any:
        """Return a `pyairtable.Table`, made with a field of every type where it does not exist."""
        tables = {table.name: table for table in self.base.tables()}
        return tables.get(name) or self.base.create_table(name, FIELDS)

    def path(self, *parts: str) -> str:
        return "/".join(["", self.base_id, *parts])

    def post(self, path: str, body: Any) -> requests.Response:
        return self.send("POST", path, body)

    def patch(self, path: str, body: Any) -> requests.Response:
        return self.send("PATCH", path, body)

    def upload(self, record_id: str, field: str, body: Any) -> requests.Response:
        url = f"{self.box.airtable_upload_url}/v0/{self.base_id}/{record_id}/{field}/uploadAttachment"
        return self.session.post(url, json=body, timeout=10)

    def records(self, table: str = "Things") -> dict[str, dict[str, Any]]:
        """Return the truth about a table: cells by record id."""
        rows = self.box.control.truth("airtable_record")
        return {row["id"]: row["cells"] for row in rows if row["table"] == table}


def refusal(response: requests.Response) -> tuple[int, str]:
    """Return status and type of a refusal."""
    assert response.status_code >= 400, response.text
    error = response.json()["error"]
    return response.status_code, error if isinstance(error, str) else error["type"]
