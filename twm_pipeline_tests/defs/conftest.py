"""A deployment per test: a sandbox, an empty mirror, and an instance of Dagster that keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from twm_pipeline.definitions import defs
from twm_pipeline.sandbox import Sandbox, SandboxControl, SandboxOptions
from twm_pipeline.settings import INHERITED, Settings, environment_of, load_settings


@dataclass
class Deployment:
    """What a deployment consists of, and what its runs said."""

    box: Sandbox
    engine: Engine
    settings: Settings
    instance: dg.DagsterInstance
    monkeypatch: pytest.MonkeyPatch
    results: list[dg.ExecuteInProcessResult] = field(default_factory=list)

    @property
    def control(self) -> SandboxControl:
        return self.box.control

    def set(self, **changes: Any) -> None:
        """Change settings; they count from the next run on, as in `.env`."""
        self.settings = self.settings.model_copy(update=changes)
        self.monkeypatch.setenv(INHERITED, environment_of(self.settings)[INHERITED])

    def run(
        self, job: str, config: dict[str, Any] | None = None, **options: Any
    ) -> dg.ExecuteInProcessResult:
        """Run a job in this process; *config* is that of its only op."""
        op = (
            "sweep"
            if job == "reconcile"
            else job.replace("_sync", "_window")
            .replace("_publish", "_window")
            .replace("_download", "_window")
        )
        result = defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            run_config={"ops": {op: {"config": config or {}}}},
            raise_on_error=False,
            **options,
        )
        self.results.append(result)
        return result

    def materializations(self, result: dg.ExecuteInProcessResult) -> list[tuple[str, dict[str, Any]]]:
        """Return asset and figures of every materialization of a run, in order."""
        logged = self.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        found = [entry.asset_materialization for entry in logged if entry.asset_materialization]
        return [
            (item.asset_key.to_user_string(), {key: value.value for key, value in item.metadata.items()})
            for item in found
        ]

    def lines(self, result: dg.ExecuteInProcessResult) -> str:
        """Return everything that Dagster keeps of a run."""
        return "\n".join(str(entry) for entry in self.instance.all_logs(result.run_id))

    def count(self, table: str, condition: str = "NOT deleted") -> int:
        with self.engine.connect() as connection:
            return int(connection.scalar(text(f"SELECT count(*) FROM {table} WHERE {condition}")) or 0)


def failure_of(result: dg.ExecuteInProcessResult) -> Any:
    """Return Dagster's data of the step that failed."""
    [event] = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def deployment(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> Iterator[Deployment]:
    with Sandbox(SandboxOptions(tasks=60, conversations=20)) as box:
        found = Deployment(box, engine, settings, instance, monkeypatch)
        real = load_settings(
            **settings.model_dump(exclude_defaults=True),
            teamwork_base_url=box.teamwork_url,
            teamwork_api_key=box.teamwork_key,
            missive_base_url=box.missive_url,
            missive_api_token=box.missive_token,
            budget_time_scale=1000,
        )
        found.set(**dict(real))
        yield found
