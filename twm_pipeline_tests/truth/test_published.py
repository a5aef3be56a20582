"""Real content is published to the sandbox's Airtable; read back by pyairtable, every cell equals the views.

A slice in every run; everything with TWM_WHOLE_DATA=1. Skipped where the content is not to be had.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from twm_pipeline.mirror.changelog import follow_changes
from twm_pipeline_tests.faults.world import World, dsn_of
from twm_pipeline_tests.publishing import (
    airtable_at,
    airtable_settings,
    airtable_table,
    categories_are,
    publish,
)
from twm_pipeline_tests.truth.compare_base import APART, FIELDS, TABLES, differences, view_rows
from twm_pipeline_tests.truth.test_files import (
    DATA,
    cut_slice,
    import_of,  # noqa: F401 - a fixture
    needs_data,
    needs_patience,
)

logger = logging.getLogger(__name__)

CATEGORIES = 3
SHOWN = 20


def commonest_tags(world: World) -> dict[str, tuple[str, ...]]:
    """Return a category for each of the tags that most tasks have."""
    with world.engine.connect() as connection:
        tags = connection.exec_driver_sql(
            "SELECT t FROM public.tasks, unnest(tags) AS t GROUP BY t ORDER BY count(*) DESC, t LIMIT %s",
            (CATEGORIES,),
        ).scalars()
        return {f"Category {number}": (tag,) for number, tag in enumerate(tags)}


def read_back(world: World, view: str) -> Iterator[dict[str, Any]]:
    """Yield the cells of every record as pyairtable reads them."""
    table = airtable_table(world.settings, TABLES[view])
    for page in table.iterate(page_size=100):
        yield from (record["fields"] for record in page)
    table.api.session.close()


def assert_published_and_quiet(world: World) -> None:
    with world.engine.begin() as connection:
        follow_changes(connection, wanted=True)
    world.sync()
    categories = commonest_tags(world)
    categories_are(world.engine, categories)
    world.settings = world.settings.model_copy(update=airtable_settings(airtable_at(world.control.url)))

    began = time.monotonic()
    reports = publish(world.engine, world.settings)
    seconds, calls = time.monotonic() - began, world.control.request_count("airtable")
    violations = world.control.violations("airtable")
    documented = world.settings.model_copy(update={"budget_time_scale": 1})  # files are looked at much later
    again = publish(world.engine, documented)

    assert world.control.request_count("airtable") == calls
    assert not any(report.written or report.set_aside for report in again.values())
    assert violations == 0
    world.control.set_budgets("off", "airtable")
    for view, report in reports.items():
        found = differences(
            view, view_rows(dsn_of(world.engine.url), view), read_back(world, view), categories=categories
        )
        assert not found, "\n".join([f"{len(found)} differences", *found[:SHOWN]])
        assert (report.set_aside, report.updated, report.removed) == (0, 0, 0)
        cells = report.created * (len(FIELDS[view]) + len(categories))
        logger.info("%s: %d records, %d cells compared", view, report.created, cells)
    logger.info("%d calls in %.1f s; a second run: none; fields apart: %s", calls, seconds, sorted(APART))
    world.control.close()
    world.engine.dispose()


@needs_data
def test_a_slice_of_real_content_is_published_cell_by_cell(import_of: Any, tmp_path: Path) -> None:  # noqa: F811
    assert_published_and_quiet(import_of(cut_slice(tmp_path / "data")))


@needs_data
@needs_patience
@pytest.mark.timeout(3600)
def test_all_real_content_is_published_cell_by_cell(import_of: Any) -> None:  # noqa: F811
    assert_published_and_quiet(import_of(DATA))


def a_row(**columns: Any) -> dict[str, Any]:
    shown = {column.partition(".")[0]: None for column, _ in FIELDS["tasks"].values()}
    return {**shown, "task_id": 7, "title": "Order steel", "progress": 0, "tags": ["a", "b"], **columns}


A_RECORD = {"id": "7", "name": "Order steel", "progress": 0, "tags": "a, b"}


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([A_RECORD], []),
        ([{**A_RECORD, "name": "Order"}], ["tasks 7: name"]),
        ([{**A_RECORD, "tags": "a"}], ["tasks 7: tags"]),
        ([{**A_RECORD, "progress": 1}], ["tasks 7: progress"]),
        ([{**A_RECORD, "deleted": True}], ["tasks 7: deleted"]),
        ([{**A_RECORD, "dueDate": "2026-01-01T00:00:00.000Z"}], ["tasks 7: dueDate"]),
        ([{**A_RECORD, "other": "x"}], ["tasks 7: other is filled"]),
        ([A_RECORD, A_RECORD], ["tasks 7: 2 records"]),
        ([A_RECORD, {"id": "8"}], ["tasks 8: no row"]),
        ([], ["tasks 7: no record"]),
    ],
)
def test_the_comparison_sees_every_kind_of_difference(records: Any, found: list[str]) -> None:
    assert differences("tasks", [a_row()], records) == found


def test_a_text_that_is_cut_has_to_say_so() -> None:
    text = "😀" * 60_000
    kept = text[:49_970] + " … [cut here: the whole text has 60000 characters]"

    assert differences("tasks", [a_row(description=text)], [{**A_RECORD, "description": kept[1:]}])
    assert differences("tasks", [a_row(description=text)], [{**A_RECORD, "description": text[:50_000]}])
