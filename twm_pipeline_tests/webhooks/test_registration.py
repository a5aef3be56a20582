"""Hooks at the sandbox's vendors, with real requests, a real table and a real spool."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from twm_pipeline.budget import Budget, Limit, Plan
from twm_pipeline.errors import (
    AccessError,
    AuthenticationError,
    RetriableError,
    UnansweredError,
    WindowClosedError,
)
from twm_pipeline.http import VendorSession
from twm_pipeline.mirror.hooks import KnownHook, hooks_lock, load_hooks
from twm_pipeline.records import Source
from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline.settings import Settings, load_settings
from twm_pipeline.sources import teamwork as teamwork_api
from twm_pipeline.sources.missive_hooks import API_EVENTS, MissiveHooks
from twm_pipeline.sources.teamwork_hooks import EVENTS, TeamworkHooks
from twm_pipeline.spool import Spool
from twm_pipeline.webhooks.registration import HooksReport, Registrar, open_registrar
from twm_pipeline.webhooks.secrets import HookSecrets
from twm_pipeline.webhooks.wanted import to_slug, why_no_hooks
from twm_pipeline_tests.sandbox.receivers import Receiver

PUBLIC_URL = "https://sync.example.com"
MOVED = "https://moved.example.com/twm"


class Deployment:
    """A deployment whose hooks are registered at a sandbox."""

    def __init__(self, box: Sandbox, engine: Engine, settings: Settings) -> None:
        self.box = box
        self.engine = engine
        self.settings = settings

    def set(self, **changes: Any) -> None:
        self.settings = self.settings.model_copy(update=changes)

    def register(self, source: Source, *, patient: bool = False) -> HooksReport:
        with open_registrar(self.engine, self.settings, source) as registrar:
            return registrar.register(patient=patient)

    def with_registrar(self, source: Source, use: Callable[[Registrar], Any]) -> Any:
        with open_registrar(self.engine, self.settings, source) as registrar:
            return use(registrar)

    def at_vendor(self, source: Source) -> list[dict[str, Any]]:
        return self.box.control.hooks(source)

    def table(self, source: Source) -> list[KnownHook]:
        with self.engine.connect() as connection:
            return load_hooks(connection, source)

    def count(self, source: Source) -> int:
        return self.box.control.request_count(source)

    def writes(self, source: Source, *, since: int) -> list[str]:
        """Return what changed something at the vendor, of its requests from number *since* on."""
        done = self.box.control.requests(source, since=since)
        return [f"{r['method']} {r['path']}" for r in done if r["method"] != "GET"]

    def spooled(self, source: Source) -> list[str]:
        entries = Spool(self.settings.spool_folder, source).claim(limit=100)
        return [entry.envelope.hint.event for entry in entries]

    @property
    def secrets(self) -> HookSecrets:
        return HookSecrets.load(self.settings)


@pytest.fixture
def deployment(engine: Engine, settings: Settings) -> Iterator[Deployment]:
    with Sandbox(SandboxOptions(tasks=3, conversations=2)) as box:
        real = load_settings(
            **settings.model_dump(exclude_defaults=True),
            teamwork_base_url=box.teamwork_url,
            teamwork_api_key=box.teamwork_key,
            missive_base_url=box.missive_url,
            missive_api_token=box.missive_token,
            budget_time_scale=1000,
            public_url=PUBLIC_URL,
        )
        yield Deployment(box, engine, real)


def test_teamwork_gets_a_signed_hook_for_every_event(deployment):
    report = deployment.register("teamwork")

    hooks = deployment.at_vendor("teamwork")
    assert {hook["event"]: hook["url"] for hook in hooks} == {
        event: f"{PUBLIC_URL}/hooks/teamwork/{to_slug(event)}" for event in EVENTS
    }
    assert {hook["secret"] for hook in hooks} == {deployment.secrets.teamwork_token}
    assert {(hook["version"], hook["content_type"]) for hook in hooks} == {("2", "application/json")}
    assert (report.registered, report.wanted, report.undone) == (len(EVENTS), len(EVENTS), [])
    assert {row.hook_id for row in deployment.table("teamwork")} == {hook["id"] for hook in hooks}


def test_missive_gets_a_hook_of_every_type_each_on_a_secret_path_of_its_own(deployment):
    report = deployment.register("missive")

    paths = deployment.secrets.missive_paths
    hooks = deployment.at_vendor("missive")
    assert {hook["event"]: hook["url"] for hook in hooks} == {
        event: f"{PUBLIC_URL}/hooks/missive/{paths[event]}" for event in API_EVENTS
    }
    assert (report.registered, report.undone) == (6, [])
    assert {row.hook_id for row in deployment.table("missive")} == {hook["id"] for hook in hooks}


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_a_second_run_changes_nothing_and_polls_nothing(deployment, source):
    deployment.register(source)
    assert deployment.spooled(source) == ["hooks.resumed"]
    before, count = deployment.at_vendor(source), deployment.count(source)

    report = deployment.register(source)

    assert (report.steps, report.registered) == ([], report.wanted)
    assert deployment.writes(source, since=count) == []
    assert deployment.at_vendor(source) == before
    assert Spool(deployment.settings.spool_folder, source).waiting().new == 0


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_a_changed_address_is_repaired_new_hook_first(deployment, source):
    deployment.register(source)
    old = {hook["event"]: hook["id"] for hook in deployment.at_vendor(source)}
    deployment.set(public_url=MOVED)
    count = deployment.count(source)

    deployment.register(source)

    hooks = deployment.at_vendor(source)
    assert len(hooks) == len(old)
    assert all(hook["url"].startswith(f"{MOVED}/hooks/{source}") for hook in hooks)
    writes = [w for w in deployment.writes(source, since=count) if "enable" not in w]
    assert [write.split()[0] for write in writes] == ["POST", "DELETE"] * len(old)
    assert {row.hook_id for row in deployment.table(source)} == {hook["id"] for hook in hooks}
    assert deployment.register(source).steps == []


@pytest.mark.parametrize("doubles", ["accepted", "refused"])
def test_a_changed_token_makes_new_hooks_in_the_place_of_the_old_ones(deployment, doubles):
    deployment.box.control.set_answer("teamwork.webhook_doubles", doubles)
    deployment.register("teamwork")
    deployment.set(teamwork_webhook_secret=SecretStr("another token"))

    report = deployment.register("teamwork")

    assert report.undone == []
    assert {hook["secret"] for hook in deployment.at_vendor("teamwork")} == {"another token"}
    assert len(deployment.at_vendor("teamwork")) == len(EVENTS)
    why = {step.action.why for step in report.steps if step.action.verb == "create"}
    went_first = "had another token; two at once were refused, so that went first"
    assert why == {"had another token" if doubles == "accepted" else went_first}
    assert deployment.register("teamwork").steps == []


def test_a_hook_that_was_switched_off_is_resumed_and_the_gap_polled(deployment):
    deployment.register("teamwork")
    deployment.spooled("teamwork")
    [deleted] = [hook for hook in deployment.at_vendor("teamwork") if hook["event"] == "TASK.DELETED"]
    with_vendor(deployment, lambda s: s.send("PUT", f"/webhooks/{deleted['id']}/pause.json"))

    report = deployment.register("teamwork", patient=True)

    assert [(s.action.verb, s.action.event) for s in report.steps] == [("resume", "TASK.DELETED")]
    assert {hook["status"] for hook in deployment.at_vendor("teamwork")} == {"ACTIVE"}
    assert deployment.spooled("teamwork") == ["hooks.resumed"]


def test_a_hook_that_somebody_deleted_is_made_again(deployment):
    deployment.register("teamwork")
    gone = deployment.at_vendor("teamwork")[3]
    with_vendor(deployment, lambda s: s.send("DELETE", f"/webhooks/{gone['id']}.json"))

    report = deployment.register("teamwork", patient=True)

    assert [s.action.verb for s in report.steps] == ["forget", "create"]
    assert gone["event"] in {hook["event"] for hook in deployment.at_vendor("teamwork")}


def test_hooks_of_others_are_left_alone(deployment):
    others = {"event": "TASK.CREATED", "url": "https://hooks.example.org/catch/1"}
    with_vendor(deployment, lambda s: s.send("POST", "/webhooks.json", body={"webhook": others}))
    before = deployment.at_vendor("teamwork")

    report = deployment.register("teamwork")
    deployment.with_registrar("teamwork", lambda registrar: registrar.remove())

    assert [hook.url for hook in report.foreign] == ["https://hooks.example.org/catch/1"]
    assert deployment.at_vendor("teamwork") == before
    assert deployment.table("teamwork") == []


def test_our_address_found_at_the_vendor_is_taken_over_and_gets_our_token(deployment):
    deployment.register("teamwork")
    with deployment.engine.begin() as connection:
        connection.execute(text("DELETE FROM twm.hooks"))

    report = deployment.register("teamwork")

    assert report.foreign == []
    assert len(deployment.at_vendor("teamwork")) == len(EVENTS)
    assert {hook["secret"] for hook in deployment.at_vendor("teamwork")} == {
        deployment.secrets.teamwork_token
    }
    assert deployment.register("teamwork").steps == []


@pytest.mark.parametrize("size", [0, 2, 50])
def test_doubles_are_reduced_to_one_however_the_list_is_paged(deployment, size):
    deployment.box.control.set_answer("teamwork.webhook_page_size", size)
    deployment.box.control.set_answer("teamwork.webhook_doubles", "accepted")
    deployment.register("teamwork")
    with deployment.engine.begin() as connection:
        connection.execute(text("UPDATE twm.hooks SET hook_id = '9' || hook_id"))
    deployment.register("teamwork")

    hooks = deployment.at_vendor("teamwork")

    assert sorted(hook["event"] for hook in hooks) == sorted(EVENTS)
    assert {row.hook_id for row in deployment.table("teamwork")} == {hook["id"] for hook in hooks}


@pytest.mark.parametrize("before", ["403", "422"])
def test_webhooks_are_enabled_where_nobody_has_done_it(deployment, before):
    deployment.box.control.set_answer("teamwork.webhooks_before_enabling", before)

    report = deployment.register("teamwork")

    assert report.registered == len(EVENTS)


def test_a_key_without_the_right_to_manage_hooks_is_told_so(deployment):
    deployment.box.control.set_answer("teamwork.webhooks_allowed", False)

    with pytest.raises(AccessError, match="Only an administrator of the site may manage its webhooks"):
        deployment.register("teamwork")


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_wrong_credentials_end_it(deployment, source):
    deployment.set(teamwork_api_key=SecretStr("wrong"), missive_api_token=SecretStr("wrong"))
    count = deployment.count(source)

    with pytest.raises(AuthenticationError):
        deployment.register(source)

    assert len(deployment.writes(source, since=count)) <= 1


def test_an_answer_that_is_lost_leaves_no_double(deployment):
    # The request has its effect; the answer breaks off.
    deployment.box.control.add_fault(
        "teamwork", "truncated", path=r"^/webhooks\.json$", after=2, count=3, probability=1
    )

    report = deployment.register("teamwork")

    assert report.undone == []
    assert sorted(hook["event"] for hook in deployment.at_vendor("teamwork")) == sorted(EVENTS)
    assert {row.is_open for row in deployment.table("teamwork")} == {False}
    assert deployment.register("teamwork").steps == []


def test_a_vendor_that_does_not_say_what_there_is_gets_no_hook(deployment):
    deployment.box.control.add_fault("teamwork", "503", path=r"^/webhooks\.json$", count=None)
    count = deployment.count("teamwork")

    with pytest.raises(UnansweredError):
        deployment.register("teamwork")

    assert deployment.writes("teamwork", since=count) == []


def test_a_type_that_missive_refuses_is_told_without_its_path_and_keeps_no_other_from_being_made(deployment):
    deployment.box.control.set_answer("missive.hook_validation", True)
    with Receiver() as receiver:
        path = deployment.secrets.missive_paths["new_comment"]
        receiver.answer = lambda got: 500 if got.path.endswith(path) else 200
        deployment.box.control.set_tunnel(PUBLIC_URL, receiver.url)

        report = deployment.register("missive")

    [step] = report.undone
    assert (step.action.event, step.is_open) == ("new_comment", False)
    assert "url did not answer" in str(step.problem)
    assert (report.registered, len(deployment.at_vendor("missive"))) == (5, 5)
    [row] = [row for row in deployment.table("missive") if row.is_open]
    assert (row.status, row.problem) == ("refused", step.problem)


def test_a_refused_type_is_not_asked_for_at_every_check_but_when_somebody_wants_it(deployment):
    deployment.box.control.set_answer("missive.hook_validation", True)
    deployment.register("missive")
    count = deployment.count("missive")

    checked = deployment.register("missive", patient=True)
    assert deployment.writes("missive", since=count) == []
    assert {row.event for row in checked.put_off} == set(API_EVENTS)
    assert checked.registered == 0

    deployment.box.control.set_answer("missive.hook_validation", False)
    assert deployment.register("missive").registered == len(API_EVENTS)


def test_an_unanswered_creation_at_missive_is_noticed_and_not_repeated_at_once(deployment):
    deployment.box.control.add_fault("missive", "truncated", path="^/hooks$", count=1)

    report = deployment.register("missive")
    again = deployment.register("missive", patient=True)

    assert [(step.action.event, step.is_open) for step in report.undone] == [(API_EVENTS[0], True)]
    assert [row.event for row in again.put_off] == [API_EVENTS[0]]
    assert len(deployment.at_vendor("missive")) == len(API_EVENTS)

    assert deployment.register("missive").undone == []  # somebody asked: at worst there are two on one path
    urls = [hook["url"] for hook in deployment.at_vendor("missive")]
    assert (len(urls), len(set(urls))) == (7, 6)


@pytest.mark.parametrize("source", ["teamwork", "missive"])
@pytest.mark.parametrize("requests", range(0, 12, 3))
def test_a_run_that_is_cut_short_is_finished_by_the_next_one(deployment, source, requests):
    deployment.register(source)
    deployment.set(public_url=MOVED)
    left = requests

    def stop() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise WindowClosedError("enough")

    with open_registrar(deployment.engine, deployment.settings, source) as registrar:
        registrar.should_stop = stop
        with pytest.raises(WindowClosedError):
            registrar.register()
    deployment.register(source)

    hooks = deployment.at_vendor(source)
    assert len({hook["url"] for hook in hooks}) == len(hooks) == len(deployment.table(source))
    assert all(hook["url"].startswith(MOVED) for hook in hooks)


class DyingTeamwork(TeamworkHooks):
    """The process dies when the vendor has made a hook, before its id is stored."""

    def create(self, *, event: str, url: str, secret: str) -> str:
        super().create(event=event, url=url, secret=secret)
        raise KeyboardInterrupt


class DyingMissive(MissiveHooks):
    def create(self, *, event: str, url: str, secret: str) -> str:
        super().create(event=event, url=url, secret=secret)
        raise KeyboardInterrupt


def die(registrar: Registrar) -> None:
    assert isinstance(registrar.vendor, TeamworkHooks | MissiveHooks)
    dying = DyingTeamwork if registrar.source == "teamwork" else DyingMissive
    registrar.vendor = dying(registrar.vendor.session)
    with pytest.raises(KeyboardInterrupt):
        registrar.register()


def test_a_hook_whose_id_was_never_stored_is_found_at_teamwork(deployment):
    deployment.with_registrar("teamwork", die)
    assert [row.status for row in deployment.table("teamwork")] == ["asked"]
    [made] = deployment.at_vendor("teamwork")

    report = deployment.register("teamwork", patient=True)

    assert report.steps[0].action.verb == "adopt"
    assert made in deployment.at_vendor("teamwork")
    assert len(deployment.at_vendor("teamwork")) == len(EVENTS) == len(deployment.table("teamwork"))


def test_a_hook_whose_id_was_never_stored_leaves_at_worst_a_second_one_at_missive(deployment):
    deployment.with_registrar("missive", die)

    checked = deployment.register("missive", patient=True)
    asked = deployment.register("missive")

    assert [row.event for row in checked.put_off] == [API_EVENTS[0]]
    assert [step.action.event for step in asked.steps] == [API_EVENTS[0]]
    urls = [hook["url"] for hook in deployment.at_vendor("missive")]
    assert (len(urls), len(set(urls))) == (7, 6)


@pytest.mark.parametrize("source", ["teamwork", "missive"])
def test_two_at_once_make_each_hook_once(deployment, source):
    barrier = threading.Barrier(2)
    reports: list[HooksReport] = []

    def register() -> None:
        barrier.wait()
        reports.append(deployment.register(source))

    threads = [threading.Thread(target=register) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    wanted = len(EVENTS if source == "teamwork" else API_EVENTS)
    assert sorted(len(report.steps) for report in reports) == [0, wanted]
    assert len(deployment.at_vendor(source)) == wanted


def test_who_waits_too_long_for_another_process_is_told_so(deployment, monkeypatch):
    monkeypatch.setattr("twm_pipeline.mirror.hooks.LOCK_SECONDS", 0.05)

    with (
        hooks_lock(deployment.engine, "teamwork"),
        pytest.raises(RetriableError, match="Another process has been registering hooks"),
        hooks_lock(deployment.engine, "teamwork"),
    ):
        pass

    assert deployment.register("missive").undone == []


def test_everything_of_ours_is_removed(deployment):
    for source in ("teamwork", "missive"):
        deployment.register(source)
        report = deployment.with_registrar(source, lambda registrar: registrar.remove())

        assert report.undone == []
        assert deployment.at_vendor(source) == []
        assert deployment.table(source) == []


def test_a_plan_changes_nothing(deployment):
    plan = deployment.with_registrar("teamwork", lambda registrar: registrar.plan(registrar.survey()))

    assert [action.verb for action in plan.actions] == ["create"] * len(EVENTS)
    assert deployment.at_vendor("teamwork") == []
    assert deployment.table("teamwork") == []


def test_no_log_line_and_no_row_holds_a_secret(deployment, caplog):
    caplog.set_level(logging.DEBUG)
    deployment.box.control.add_fault("missive", "500", path="^/hooks$", count=1)
    for source in ("teamwork", "missive"):
        deployment.register(source)

    secrets = deployment.secrets
    rows = [str(row) for source in ("teamwork", "missive") for row in deployment.table(source)]
    for secret in (secrets.teamwork_token, secrets.missive_secret, *secrets.missive_paths.values()):
        assert secret not in caplog.text + "".join(rows)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"disable_webhooks": True}, r"DISABLE_WEBHOOKS=true\): the vendors are polled every 5 s"),
        ({"public_url": None}, "set PUBLIC_URL .* NGROK_AUTHTOKEN"),
        ({"public_url": None, "ngrok_authtoken": SecretStr("x")}, "open only while `twm up` runs"),
    ],
    ids=["disabled", "no address", "a tunnel elsewhere"],
)
def test_without_a_public_address_nothing_is_wanted_and_the_reason_is_told(deployment, changes, words):
    deployment.register("teamwork")
    deployment.set(**changes)

    assert re.search(words, str(why_no_hooks(deployment.settings)))
    assert deployment.with_registrar("teamwork", lambda registrar: registrar.survey()).wanted == []


def with_vendor(deployment: Deployment, use: Callable[[VendorSession], Any]) -> None:
    """Ask the vendor as somebody else."""
    plan = Plan(account="somebody else", limits=(Limit(1000, 1),))
    with Budget(deployment.engine, plan) as budget:
        url, auth = str(deployment.settings.teamwork_base_url), teamwork_api.auth(deployment.settings)
        use(VendorSession("Teamwork", url, auth, budget))
