"""Tags by which people find runs: what started one, and what it is about.

Nothing decides by them; what guards windows is `twm/window` (`jobs.WINDOW`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import dagster as dg

from twm_pipeline.records import SOURCES

TRIGGER = "twm/trigger"
"""`schedule`, `sensor`, `cli` (a command of `twm`), or `ui` for whoever asks Dagster itself."""
SOURCE = "twm/source"
"""Of a job's runs: `teamwork`, `missive` or `airtable`; several are joined by a plus sign."""
ORIGINS = (*SOURCES, "airtable")

_BY_SCHEDULE, _BY_SENSOR = "dagster/schedule_name", "dagster/sensor_name"
_PARENT, _RETRY = "dagster/parent_run_id", "dagster/retry_number"


def describe_run(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> None:
    """Tag the run with what started it and, where its job does not say that, with its source."""
    tags = context.run.tags
    found = {TRIGGER: trigger_of(tags)}
    if SOURCE not in tags and (source := source_of(context.run.asset_selection or ())) is not None:
        found[SOURCE] = source
    context.instance.add_run_tags(context.run.run_id, found)


def trigger_of(tags: Mapping[str, str]) -> str:
    """Return what started a run with these tags.

    One that a person starts again has the tags of the run before; one that Dagster retries, too.
    """
    if _PARENT in tags and _RETRY not in tags:
        return "ui"
    if TRIGGER in tags:
        return tags[TRIGGER]
    if _BY_SCHEDULE in tags:
        return "schedule"
    return "sensor" if _BY_SENSOR in tags else "ui"


def source_of(keys: Iterable[dg.AssetKey]) -> str | None:
    """Return the sources whose assets a run was asked for, or None if it is none of theirs."""
    groups = {key.path[0] for key in keys}
    return "+".join(name for name in ORIGINS if name in groups) or None
