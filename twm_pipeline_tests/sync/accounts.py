"""A sandbox account and the mirror that follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from twm_pipeline.records import Origin, Source
from twm_pipeline.sandbox import Sandbox, SandboxControl
from twm_pipeline.settings import Settings
from twm_pipeline.sync.engine import PassOptions, PassReport
from twm_pipeline.sync.reconcile import ReconcileOptions
from twm_pipeline.sync.window import run_pass, run_reconcile


@dataclass
class Account:
    """A sandbox account and the mirror that follows it."""

    box: Sandbox
    engine: Engine
    settings: Settings

    @property
    def control(self) -> SandboxControl:
        return self.box.control

    def sync(self, source: Source, **options: Any) -> PassReport:
        """Do one pass and return its report."""
        return run_pass(self.engine, self.settings, source, options=PassOptions(**options))

    def reconcile(self, source: Source) -> PassReport:
        """Sweep the source completely and return the report."""
        return run_reconcile(self.engine, self.settings, source, options=ReconcileOptions())[1]

    def requests(self, source: Origin) -> int:
        return self.control.request_count(source)

    def query(self, statement: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), values))

    def scalar(self, statement: str, **values: Any) -> Any:
        return self.query(statement, **values)[0][0]

    def ids_of(self, kind: str) -> list[Any]:
        """Return ids of what exists at the vendor."""
        return [row["id"] for row in self.control.truth(kind)]

    def change(self, **settings: Any) -> Account:
        """Return the same account as it is seen with other settings."""
        return Account(self.box, self.engine, self.settings.model_copy(update=settings))


Open = Callable[..., Account]
