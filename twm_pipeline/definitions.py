"""The one `Definitions` of the project: wiring only, nothing is reached on import."""

from __future__ import annotations

import dagster as dg

from twm_pipeline.defs.alerts import alerts_sensor
from twm_pipeline.defs.assets import source_assets
from twm_pipeline.defs.attachments import (
    attachments_asset,
    attachments_download,
    attachments_schedule,
    attachments_sensor,
)
from twm_pipeline.defs.checks import asset_checks, checks, checks_schedule
from twm_pipeline.defs.hooks import webhooks_check, webhooks_check_schedule
from twm_pipeline.defs.housekeeping import housekeeping, nightly_housekeeping
from twm_pipeline.defs.insights import first_insights_sensor, insight_assets, insights, insights_schedule
from twm_pipeline.defs.jobs import SYNC_JOBS, reconcile
from twm_pipeline.defs.publishing import (
    airtable_assets,
    airtable_check_schedule,
    airtable_publish,
    airtable_publish_sensor,
)
from twm_pipeline.defs.resources import MirrorResource, VendorResource
from twm_pipeline.defs.schedules import nightly_reconcile, poll_schedule
from twm_pipeline.defs.sensors import spool_sensor
from twm_pipeline.records import SOURCES

defs = dg.Definitions(
    assets=[
        *(asset for source in SOURCES for asset in source_assets(source)),
        attachments_asset,
        airtable_assets,
        insight_assets,
    ],
    asset_checks=asset_checks,
    jobs=[
        *SYNC_JOBS.values(),
        attachments_download,
        airtable_publish,
        reconcile,
        webhooks_check,
        checks,
        housekeeping,
        insights,
    ],
    schedules=[
        *(poll_schedule(source) for source in SOURCES),
        nightly_reconcile,
        attachments_schedule,
        airtable_check_schedule,
        webhooks_check_schedule,
        checks_schedule,
        nightly_housekeeping,
        insights_schedule,
    ],
    sensors=[
        *(spool_sensor(source) for source in SOURCES),
        attachments_sensor,
        airtable_publish_sensor,
        first_insights_sensor,
        alerts_sensor,
    ],
    resources={
        "mirror": MirrorResource(),
        **{source: VendorResource(source=source) for source in SOURCES},
    },
    executor=dg.in_process_executor,
)
