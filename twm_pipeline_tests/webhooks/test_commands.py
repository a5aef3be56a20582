"""`twm webhooks`: what an operator sees of the hooks, and what becomes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import requests

from twm_pipeline.cli.output import FAILED, MISUSED, OK, TO_BE_CHANGED
from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline.settings import load_settings
from twm_pipeline.sources.missive_hooks import API_EVENTS
from twm_pipeline.sources.teamwork_hooks import EVENTS
from twm_pipeline.webhooks.secrets import HookSecrets
from twm_pipeline_tests.commands import Twm, run_plainly

PUBLIC_URL = "https://sync.example.com"
SECRET = re.compile(r"[0-9a-f]{64}")


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(SandboxOptions(tasks=3, conversations=2)) as box:
        yield box


@pytest.fixture
def webhooks(box: Sandbox, own_databases: None, monkeypatch: pytest.MonkeyPatch) -> Twm:
    """Return what runs a command of `twm webhooks` against a sandbox."""
    for name, value in {
        "TEAMWORK_BASE_URL": box.teamwork_url,
        "TEAMWORK_API_KEY": box.teamwork_key,
        "MISSIVE_BASE_URL": box.missive_url,
        "MISSIVE_API_TOKEN": box.missive_token,
        "BUDGET_TIME_SCALE": "1000",
        "PUBLIC_URL": PUBLIC_URL,
    }.items():
        monkeypatch.setenv(name, value)
    return partial(run_plainly, "webhooks")


@pytest.mark.parametrize("name", ["list", "register", "repair", "remove"])
def test_every_command_explains_itself_with_examples(webhooks, name):
    told = webhooks(name, "--help")

    assert told.code == OK
    assert f"twm webhooks {name}" in told.out
    assert "Example" in told.out


def test_registering_shows_the_rules_to_make_with_their_secrets(webhooks, box):
    answer = webhooks("register")

    secrets = HookSecrets.load(load_settings())
    assert answer.code == OK, answer.err
    assert f"Teamwork: {len(EVENTS)} of {len(EVENTS)} hooks are registered." in answer.out
    assert "Missive: 6 of 6 hooks are registered." in answer.out
    assert "Settings > Rules" in answer.out
    assert f"URL               {PUBLIC_URL}/hooks/missive\n" in answer.out
    assert f"Signature secret  {secrets.missive_secret}" in answer.out
    assert f"{PUBLIC_URL}/hooks/missive/{secrets.missive_paths['rule']}" in answer.out
    assert secrets.teamwork_token not in answer.out
    assert len(box.control.hooks()) == len(EVENTS) + len(API_EVENTS)


def test_what_was_done_and_what_to_do_is_there_for_programs(webhooks):
    first, second = webhooks("register", "--json").json, webhooks("register", "--json").json

    teamwork, missive = first["sources"]
    assert (teamwork["registered"], missive["registered"]) == (len(EVENTS), len(API_EVENTS))
    assert {item["action"] for item in teamwork["done"]} == {"create"}
    assert [source["done"] for source in second["sources"]] == [[], []]
    assert first["missive_rules"] == second["missive_rules"]
    assert SECRET.fullmatch(first["missive_rules"]["secret"])


def test_a_dry_run_says_what_would_be_done_and_does_nothing(webhooks, box):
    answer = webhooks("register", "--dry-run")
    planned = webhooks("repair", "teamwork", "--dry-run", "--json").json

    assert answer.code == OK
    assert "to be registered" in answer.out
    assert not SECRET.search(answer.out)
    assert len(planned["sources"][0]["planned"]) == len(EVENTS)
    assert box.control.hooks() == []


def test_the_list_shows_ours_missing_ones_and_those_of_others_without_secrets(webhooks, box):
    webhooks("register")
    hooks = box.control.hooks("teamwork")
    delete_at_teamwork(box, hooks[0])
    pause_at_teamwork(box, hooks[1])
    create_at_teamwork(box, "TASK.CREATED", "https://user:pw@hooks.example.org/catch/s3cret")

    table, found = webhooks("list"), webhooks("list", "--json").json

    states = {(row["event"], row["state"]) for row in found["hooks"] if row["source"] == "teamwork"}
    assert (hooks[0]["event"], "missing") in states
    assert (hooks[1]["event"], "switched off") in states
    assert (hooks[2]["event"], "active") in states
    assert ("TASK.CREATED", "of others") in states
    assert len(found["hooks"]) == len(EVENTS) + len(API_EVENTS) + 1
    for told in (table.out, json.dumps(found)):
        assert not SECRET.search(told)
        assert "s3cret" not in told
        assert "pw@" not in told


def test_secrets_are_shown_to_those_who_ask(webhooks, box):
    webhooks("register")

    found = webhooks("list", "--show-secrets", "--json").json

    secrets = HookSecrets.load(load_settings())
    assert found["teamwork_token"] == secrets.teamwork_token
    assert found["missive_secret"] == secrets.missive_secret
    at_vendor = {hook["url"] for hook in box.control.hooks("missive")}
    assert {row["address"] for row in found["hooks"] if row["source"] == "missive"} == at_vendor


def test_a_repair_resumes_and_makes_again(webhooks, box):
    webhooks("register")
    gone, paused, *_ = box.control.hooks("teamwork")
    delete_at_teamwork(box, gone)
    pause_at_teamwork(box, paused)

    answer = webhooks("repair", "teamwork")

    assert answer.code == OK
    assert f"{len(EVENTS)} of {len(EVENTS)}" in answer.out
    assert {hook["status"] for hook in box.control.hooks("teamwork")} == {"ACTIVE"}
    assert not SECRET.search(answer.out)


def test_what_is_left_undone_is_told_and_the_exit_code_says_so(webhooks, box):
    box.control.set_answer("missive.hook_validation", True)  # nobody listens at the address

    answer = webhooks("register")

    assert answer.code == FAILED
    assert f"Teamwork: {len(EVENTS)} of {len(EVENTS)} hooks are registered." in answer.out
    assert "Missive: 0 of 6 hooks are registered." in answer.out
    assert "url did not answer" in answer.out
    refused = webhooks("list", "missive", "--json").json["hooks"][0]
    assert refused["state"].startswith("refused: Missive POST /hooks: 422")


def test_a_missing_permission_at_one_vendor_does_not_keep_the_other_one_from_being_served(webhooks, box):
    box.control.set_answer("teamwork.webhooks_allowed", False)

    answer = webhooks("register")

    assert answer.code == TO_BE_CHANGED
    assert "Only an administrator of the site" in answer.err
    assert len(box.control.hooks("missive")) == len(API_EVENTS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"DISABLE_WEBHOOKS": "true"}, "Webhooks are disabled (DISABLE_WEBHOOKS=true)"),
        ({"PUBLIC_URL": ""}, "set PUBLIC_URL"),
        ({"PUBLIC_URL": "", "NGROK_AUTHTOKEN": "x"}, "open only while `twm up` runs"),
    ],
    ids=["disabled", "no address", "tunnel not open"],
)
@pytest.mark.parametrize("command", ["register", "repair"])
def test_without_an_address_the_reason_is_told(webhooks, monkeypatch, command, changes, words):
    for name, value in changes.items():
        monkeypatch.setenv(name, value)

    answer = webhooks(command)

    assert answer.code == TO_BE_CHANGED
    assert words in answer.err


def test_what_exists_is_listed_and_removed_without_an_address_too(webhooks, box, monkeypatch):
    webhooks("register")
    monkeypatch.delenv("PUBLIC_URL")

    found = webhooks("list", "--json").json
    removed = webhooks("remove", "--yes")

    assert {row["state"] for row in found["hooks"]} == {"active"}
    assert "set PUBLIC_URL" in found["reason"]
    assert removed.code == OK
    assert box.control.hooks() == []


def test_nothing_is_removed_without_a_yes(webhooks, box):
    webhooks("register")

    answer = webhooks("remove")

    assert answer.code == MISUSED
    assert "--yes" in answer.err
    assert len(box.control.hooks()) == len(EVENTS) + len(API_EVENTS)


def test_a_removal_says_that_the_check_makes_them_again(webhooks, box):
    webhooks("register")

    answer = webhooks("remove", "missive", "--yes")

    assert "unless DISABLE_WEBHOOKS is true" in answer.out
    assert {hook["vendor"] for hook in box.control.hooks()} == {"teamwork"}


def delete_at_teamwork(box: Sandbox, hook: dict[str, Any]) -> None:
    ask_teamwork(box, "DELETE", f"/webhooks/{hook['id']}.json")


def pause_at_teamwork(box: Sandbox, hook: dict[str, Any]) -> None:
    ask_teamwork(box, "PUT", f"/webhooks/{hook['id']}/pause.json")


def create_at_teamwork(box: Sandbox, event: str, url: str) -> None:
    ask_teamwork(box, "POST", "/webhooks.json", {"webhook": {"event": event, "url": url}})


def ask_teamwork(box: Sandbox, method: str, path: str, body: Any = None) -> None:
    """Change something at Teamwork as a person would."""
    url, auth = f"{box.teamwork_url}{path}", (box.teamwork_key, "x")
    requests.request(method, url, json=body, auth=auth, timeout=10).raise_for_status()
