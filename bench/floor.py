"""The least that Dagster does between a file and a row: a one-line sensor and a one-line asset."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import psycopg

FOLDER, DSN = Path(os.environ["TWM_BENCH_FOLDER"]), os.environ["TWM_BENCH_DSN"]


@dg.asset
def row() -> None:
    """Write the name of the file that was found."""
    with psycopg.connect(DSN) as connection:
        connection.execute("INSERT INTO bench.floor (id) VALUES (%s)", [next(FOLDER.iterdir()).name])


@dg.sensor(target=row, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def file_sensor() -> dg.RunRequest | dg.SkipReason:
    """Request a run for the file that is there."""
    return next((dg.RunRequest(run_key=file.name) for file in FOLDER.iterdir()), dg.SkipReason("no file"))


defs = dg.Definitions(assets=[row], sensors=[file_sensor], executor=dg.in_process_executor)
