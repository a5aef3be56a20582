from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from twm_pipeline.errors import ConfigError, RetriableError
from twm_pipeline.settings import Settings, environment_of
from twm_pipeline.webhooks import tunnel
from twm_pipeline.webhooks.tunnel import open_tunnel, with_public_address

URL = "https://something.ngrok.app"
TOKEN = "2abcToken"


class Ngrok:
    """The library's two functions, without its service; ngrok's own library cannot be used offline."""

    def __init__(self) -> None:
        self.forwarded: list[tuple[str, object]] = []
        self.closed: list[str] = []

    def forward(self, address: str, *, authtoken: str) -> SimpleNamespace:
        self.forwarded.append((address, authtoken))
        return SimpleNamespace(url=lambda: URL)

    def disconnect(self, url: str) -> None:
        self.closed.append(url)


@pytest.fixture
def ngrok(monkeypatch: pytest.MonkeyPatch) -> Ngrok:
    found = Ngrok()
    monkeypatch.setitem(sys.modules, "ngrok", found)
    return found


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"ngrok_authtoken": SecretStr(TOKEN)})


def open_and_close(settings: Settings) -> None:
    with open_tunnel(settings):
        pass


def test_a_tunnel_ends_at_the_receiver_and_is_closed_in_the_end(ngrok, settings):
    with open_tunnel(settings) as url:
        assert (url, ngrok.closed) == (URL, [])

    assert ngrok.forwarded == [("127.0.0.1:5000", TOKEN)]
    assert ngrok.closed == [URL]


def test_without_its_service_ngrok_says_so_and_not_the_token(settings):
    pytest.importorskip("ngrok")

    with pytest.raises(RetriableError, match="The tunnel did not open") as caught:
        open_and_close(settings)

    assert TOKEN not in str(caught.value)


def test_a_token_that_ngrok_repeats_is_not_told(ngrok, settings, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("failed to connect session", f"Your authtoken: {TOKEN}\nERR_NGROK_105")

    monkeypatch.setattr(ngrok, "forward", refuse)

    with pytest.raises(RetriableError, match="failed to connect session: Your authtoken: … ERR_NGROK_105"):
        open_and_close(settings)


def test_without_the_package_the_extra_is_named(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "ngrok", None)

    with pytest.raises(ConfigError, match=r"pip install \.\[tunnel\]"):
        open_and_close(settings)


def test_a_service_that_does_not_answer_is_not_waited_for(ngrok, settings, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(ngrok, "forward", lambda *_, **__: release.wait())
    monkeypatch.setattr(tunnel, "OPEN_SECONDS", 0.05)

    with pytest.raises(RetriableError, match="ngrok did not answer"):
        open_and_close(settings)

    release.set()


PROGRAM = """
from twm_pipeline.settings import load_settings
from twm_pipeline.webhooks.tunnel import with_public_address
print(with_public_address(load_settings()).public_url)
"""


def seen_elsewhere(settings) -> str:
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(
        command, env=environment_of(settings), capture_output=True, text=True, check=True
    ).stdout.strip()


def test_another_process_knows_the_address_while_the_tunnel_is_open(ngrok, settings):
    assert seen_elsewhere(settings) == "None"

    with open_tunnel(settings):
        assert seen_elsewhere(settings) == URL
    assert seen_elsewhere(settings) == "None"


def test_the_address_of_a_dead_process_is_not_believed(settings):
    settings.twm_data_dir.mkdir()
    (settings.twm_data_dir / tunnel.FILE_NAME).write_text(URL)

    assert with_public_address(settings).public_url is None


def test_an_address_that_was_chosen_wins(ngrok, settings):
    chosen = settings.model_copy(update={"public_url": "https://sync.example.com"})

    with open_tunnel(settings):
        assert with_public_address(chosen) == chosen
