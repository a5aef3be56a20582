"""`python -m twm_pipeline.cli.child`: runs jobs in this process and records them in the project's instance.

One JSON document on standard input says which (`Request`s); one line of JSON per run is the answer.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from twm_pipeline import logs
from twm_pipeline.definitions import defs
from twm_pipeline.defs.tags import TRIGGER

SUMMED = (
    "fetched",
    "written",
    "unchanged",
    "outdated",
    "deleted",
    "set_aside",
    "deliveries_applied",
    "requests",
    "repeated_requests",
    "answers_429",
    "seconds",
    "waited_for_budget_seconds",
    "compared",
    "created",
    "updated",
    "removed",
    "files",
    "calls",
    "stored",
    "skipped",
    "failed",
    "bytes",
)
"""Figures of a materialization's interval; the others are states, of which the last one counts."""
OF_THE_SOURCE = ("requests", "repeated_requests", "answers_429", "seconds", "waited_for_budget_seconds")


def run(instance: dg.DagsterInstance, request: dict[str, Any]) -> dict[str, Any]:
    """Run one job and return what its events say."""
    job = defs.resolve_job_def(request["job"])
    result = job.execute_in_process(
        instance=instance,
        run_config=request.get("run_config") or {},
        tags={TRIGGER: "cli", **(request.get("tags") or {})},
        raise_on_error=False,
    )
    run = instance.get_run_by_id(result.run_id)
    # What a failed step has logged is in the instance only, not among the result's events.
    events = [entry.dagster_event for entry in instance.all_logs(result.run_id) if entry.dagster_event]
    return {
        "job": request["job"],
        "run_id": result.run_id,
        "status": run.status.value if run else "UNKNOWN",
        "success": result.success,
        "reports": _reports(events),
        "sweeps": _observed(events, by="dry_run"),
        "looks": _observed(events, by="checked"),
        "refusals": _observed(events, by="refused"),
        "error": _error(events),
    }


def _reports(events: list[dg.DagsterEvent]) -> list[dict[str, Any]]:
    """Return, per source, the sums over all materializations of the run."""
    streams: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for event in events:
        if event.is_step_materialization:
            materialization = event.step_materialization_data.materialization
            source, stream = materialization.asset_key.path
            _add(streams[source, stream], {k: _plain(v) for k, v in materialization.metadata.items()})
    sources: dict[str, dict[str, Any]] = {}
    for (source, stream), figures in sorted(streams.items()):
        traffic = {name: figures.pop(name, 0) for name in OF_THE_SOURCE}
        traffic["requests"] = figures.get("calls", traffic["requests"])
        report = sources.setdefault(source, {"source": source, "streams": {}})
        report["streams"][stream] = figures
        # Each stream's requests are those of the whole source in its own intervals: their sums agree.
        # Airtable's tables are published one after the other, each by calls of its own.
        before = report if source == "airtable" else {}
        report |= {name: round(before.get(name, 0) + value, 3) for name, value in traffic.items()}
    return list(sources.values())


def _plain(value: dg.MetadataValue[Any]) -> Any:  # noqa: ANN401 - whatever the metadata hold
    """Return a value for JSON; instants in ISO 8601."""
    if isinstance(value, dg.TimestampMetadataValue):
        return datetime.fromtimestamp(value.value, UTC).isoformat()
    return value.value


def _add(figures: dict[str, Any], metadata: dict[str, Any]) -> None:
    for name, value in metadata.items():
        if name in SUMMED:
            figures[name] = round(figures.get(name, 0) + value, 3)
        elif name != "checkpoint_before" or name not in figures:
            figures[name] = value


def _observed(events: list[dg.DagsterEvent], *, by: str) -> list[dict[str, Any]]:
    """Return the observations that have a figure of this name, with the asset they are about."""
    observations = [
        event.asset_observation_data.asset_observation
        for event in events
        if event.event_type == dg.DagsterEventType.ASSET_OBSERVATION
    ]
    return [
        {
            "source": observation.asset_key.path[0],
            "stream": observation.asset_key.path[-1],
            **{name: value.value for name, value in observation.metadata.items()},
        }
        for observation in observations
        if by in observation.metadata
    ]


def _error(events: list[dg.DagsterEvent]) -> dict[str, str] | None:
    """Return the first failure: the class of the product's error and its text."""
    for event in events:
        if event.is_step_failure:
            data = event.step_failure_data
            failure = data.user_failure_data
            if failure is not None:
                kind = failure.metadata.get("error")
                return {"class": str(kind.value if kind else "Failure"), "text": str(failure.description)}
            return {"class": str(data.error.cls_name if data.error else "Error"), "text": _first_line(data)}
    return None


def _first_line(data: Any) -> str:  # noqa: ANN401 - Dagster's own class is not public
    text = data.error_display_string or "the step failed"
    return str(text).strip().splitlines()[0][:500]


def main() -> None:
    """Read requests, run them, answer."""
    logs.log_what_ends()
    requests = json.load(sys.stdin)
    with dg.DagsterInstance.get() as instance:
        for request in requests:
            answer = run(instance, request)
            sys.stdout.write(json.dumps(answer, default=str) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
