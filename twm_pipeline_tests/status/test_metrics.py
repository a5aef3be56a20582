"""What Prometheus gets, and the alert rules that are made of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from twm_pipeline.settings import PROJECT_DIR
from twm_pipeline.status.metrics import expose
from twm_pipeline_tests.status.pages import NOW, make_airtable, make_figures
from twm_pipeline_tests.status.test_findings import CASES

RULES: list[dict[str, Any]] = yaml.safe_load((PROJECT_DIR / "docs/alerts.yml").read_text())["groups"][0][
    "rules"
]
OPERATIONS = (PROJECT_DIR / "docs/operations.md").read_text()
FINDINGS = (PROJECT_DIR / "twm_pipeline/status/findings.py").read_text()
SCRAPED_BY_PROMETHEUS = {"up"}
BUDGET = {
    "account": "missive https://public.missiveapp.com/v1",
    "requests": 40,
    "throttled": 2,
    "waiting_until": NOW,
    "paused_until": None,
    "windows": [{"seconds": 60.0, "requests": 300, "used": 12}],
}
SOURCE = {
    "tables": [{"stream": "tasks", "living": 5, "deleted": 1, "inaccessible": 0, "missing": 0}],
    "written": {"tasks": 17},
    "checkpoints": [{"stream": "tasks", "feed": "", "last_event_time": NOW, "more_to_read": True}],
    "hooks": [{"status": "active"}, {"status": "active"}, {"status": "refused"}],
    "budgets": [BUDGET],
    "last_error_at": NOW,
    "held_deletions": ["teamwork/tasks: 21 of 100 rows are gone"],
    "new_fields": [{"stream": "tasks", "count": 3, "text": ""}, {"stream": "teams", "count": 1, "text": ""}],
}
FIGURES = make_figures(teamwork=SOURCE, airtable=make_airtable())


def parsed(figures: dict[str, Any]) -> dict[str, Metric]:
    return {metric.name: metric for metric in text_string_to_metric_families(expose(figures).decode())}


def samples(figures: dict[str, Any]) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values by the names that queries use, and by their labels' values in the labels' order."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for metric in parsed(figures).values():
        for sample in metric.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_figures_are_exposed_with_their_labels():
    found = samples(FIGURES)

    assert found["twm_rows"][("teamwork", "deleted", "tasks")] == 1
    assert found["twm_rows_written_total"] == {("teamwork", "tasks"): 17}
    assert found["twm_source_lag_seconds"] == {("teamwork",): 4, ("missive",): 4}
    assert found["twm_checkpoint_timestamp_seconds"] == {("", "teamwork", "tasks"): NOW.timestamp()}
    assert found["twm_hooks"] == {("teamwork", "active"): 2, ("teamwork", "refused"): 1}
    assert found["twm_deletions_held_tables"] == {("teamwork",): 1, ("missive",): 0}
    assert found["twm_new_fields"] == {("teamwork",): 4, ("missive",): 0}
    assert found["twm_source_history_pending"] == {("teamwork",): 1, ("missive",): 0}
    assert found["twm_deliveries_accepted_total"] == {("teamwork",): 3}
    assert found["twm_deliveries_refused_total"] == {("teamwork: there is no signature", "401"): 2}
    assert found["twm_budget_limit_requests"] == {(BUDGET["account"], "60"): 300}
    assert (found["twm_budget_waiting"], found["twm_budget_paused"]) == (
        {(BUDGET["account"],): 1},
        {(BUDGET["account"],): 0},
    )
    assert found["twm_set_aside_records"] == {("teamwork",): 0, ("missive",): 0, ("airtable",): 0}
    assert found["twm_attachments"] == {
        ("stored",): 4,
        **dict.fromkeys([("pending",), ("hidden",), ("skipped",), ("failed",)], 0),
    }
    assert found["twm_attachments_stored_bytes"] == {(): 1000}
    assert found["twm_airtable_records"] == {("tasks",): 7, ("emails",): 7}
    assert found["twm_source_last_error_timestamp_seconds"] == {("teamwork",): NOW.timestamp()}


@pytest.mark.parametrize("metric", parsed(FIGURES).values(), ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric):
    assert re.fullmatch(r"twm_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.documentation.endswith(".")
    assert metric.type in ("gauge", "counter")
    assert all(sample.name.endswith("_total") == (metric.type == "counter") for sample in metric.samples)
    assert not re.search(r"_(ms|minutes|hours|kb|mb|count)(_|$)", metric.name)


def test_without_postgresql_only_what_is_known_is_exposed():
    found = samples(make_figures(problem="It does not answer."))

    assert found["twm_database_up"] == {(): 0}
    assert found["twm_spool_entries"][("dead", "teamwork")] == 0
    assert not [name for name in found if name.startswith(("twm_source", "twm_rows", "twm_set_aside"))]


def test_a_vendor_that_is_switched_off_and_was_never_read_is_left_out():
    found = samples(make_figures(missive={"configured": False, "account": None}))

    assert found["twm_source_lag_seconds"] == {("teamwork",): 4}


def test_a_spool_that_cannot_be_read_has_no_numbers():
    broken = make_figures()["sources"][0]["spool"] | {"problem": "It cannot be listed."}

    found = samples(make_figures(teamwork={"spool": broken}))

    assert found["twm_spool_readable"] == {("teamwork",): 0, ("missive",): 1}
    assert {source for _, source in found["twm_spool_entries"]} == {"missive"}


def test_the_page_serves_them(page):
    answer = page.get("/metrics")
    found = {metric.name for metric in text_string_to_metric_families(answer.text)}

    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert {"twm_rows", "twm_rows_written", "twm_budget_used_requests", "twm_set_aside_records"} <= found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['alert']} {rule['labels']['severity']}")
def test_an_alert_asks_only_for_what_is_exposed(rule):
    exposed = samples(FIGURES)
    labels = {
        sample.name: set(sample.labels) for metric in parsed(FIGURES).values() for sample in metric.samples
    }
    asked = re.findall(r"\b(twm_\w+|up)(?:\{([^}]*)\})?", rule["expr"])

    assert asked
    assert {name for name, _ in asked} <= exposed.keys() | SCRAPED_BY_PROMETHEUS
    for name, matchers in asked:
        wanted = set(re.findall(r"(\w+)(?:!=|=~|=)", matchers))
        assert name in SCRAPED_BY_PROMETHEUS or wanted <= labels[name]
    for name, grouped in re.findall(r"by \(([^)]*)\) \((?:\w+\()?(twm_\w+)", rule["expr"]):
        assert set(name.split(", ")) <= labels[grouped]
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= set.union(*(labels.get(name, set()) for name, _ in asked))


def test_every_finding_has_its_alert_and_every_alert_its_lines_in_the_docs():
    names = set(re.findall(r'name="(\w+)"', FINDINGS))
    alerts = {rule["alert"] for rule in RULES}

    assert names == {name for _, found in CASES.values() for name, *_ in found}
    assert names <= alerts
    assert all(f"`{name}`" in OPERATIONS for name in alerts)
