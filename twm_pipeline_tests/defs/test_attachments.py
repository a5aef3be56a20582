"""Downloading files as Dagster runs it: figures, a sensor that knows when, a switch."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.definitions.schedule_definition import ScheduleExecutionData
from dagster._core.definitions.sensor_definition import SensorExecutionData

from twm_pipeline.definitions import defs
from twm_pipeline_tests.defs.conftest import Deployment


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def read(deployment: Deployment) -> Deployment:
    deployment.set(attachments_reserve_megabytes=0)
    deployment.run("missive_sync")
    return deployment


def sensor(deployment: Deployment) -> SensorExecutionData:
    definition = defs.resolve_sensor_def("attachments_sensor")
    with dg.build_sensor_context(instance=deployment.instance) as context:
        return definition.evaluate_tick(context)


def nightly(deployment: Deployment) -> ScheduleExecutionData:
    definition = defs.resolve_schedule_def("attachments_schedule")
    with dg.build_schedule_context(instance=deployment.instance) as context:
        return definition.evaluate_tick(context)


def test_a_run_downloads_every_file_and_a_second_one_none(read):
    due = read.count("missive.attachments", "NOT deleted")

    first = read.run("attachments_download")
    second = read.run("attachments_download")

    assert due > 0
    [(asset, figures)] = read.materializations(first)
    assert (asset, figures["stored"], figures["dagster/row_count"]) == ("missive/attachments", due, due)
    [(_, figures)] = read.materializations(second)
    assert (figures["stored"], figures["requests"], figures["dagster/row_count"]) == (0, 0, due)


def test_the_sensor_opens_a_window_for_files_that_are_due_and_for_nothing_else(read):
    [request] = sensor(read).run_requests or []
    assert request.tags["twm/window"] == "attachments"
    assert dg.validate_run_config(defs.resolve_job_def("attachments_download"), request.run_config)

    read.run("attachments_download")

    assert sensor(read).skip_message == "No file is due."


def test_a_window_that_fails_says_why_and_is_followed_later(read):
    read.set(attachments_reserve_megabytes=1 << 40)

    result = read.run("attachments_download", {"window_seconds": 0.5})

    assert not result.success
    assert "would be free" in read.lines(result)
    assert "failed (StoreUnavailableError), the last of 1" in str(sensor(read).skip_message)


def test_every_night_it_is_verified_that_nothing_is_due(read):
    read.run("attachments_download")
    [request] = nightly(read).run_requests or []

    result = read.run("attachments_download", request.run_config)

    [(_, figures)] = read.materializations(result)
    assert (figures["stored"], figures["waiting"]) == (0, 0)
    read.set(missive_api_token=None)
    assert "Missive is switched off" in str(nightly(read).skip_message)
    read.set(attachments_download=False)
    assert "ATTACHMENTS_DOWNLOAD is false" in str(nightly(read).skip_message)


def test_downloading_can_be_switched_off(read):
    read.set(attachments_download=False)

    result = read.run("attachments_download")

    assert result.success
    assert "ATTACHMENTS_DOWNLOAD is false" in read.lines(result)
    assert "ATTACHMENTS_DOWNLOAD is false" in str(sensor(read).skip_message)
