"""A public address for a machine that has none: a tunnel of ngrok, open while `twm up` runs.

Its address may be another one at each start. It is written to a file that stays locked as long as the tunnel
is open, so `twm webhooks` in another terminal knows it, and the address of a dead process is not believed.
"""

from __future__ import annotations

import fcntl
import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from twm_pipeline.errors import ConfigError, RetriableError

if TYPE_CHECKING:
    from pathlib import Path

    from ngrok import Listener

    from twm_pipeline.settings import Settings

OPEN_SECONDS = 15.0
CLOSE_SECONDS = 5.0
FILE_NAME = "public_url"


@contextmanager
def open_tunnel(settings: Settings) -> Iterator[str]:
    """Give the public address of a tunnel that ends at the receiver.

    Raises:
        ConfigError: If ngrok's package is not installed.
        RetriableError: If the tunnel does not open; the text does not hold the token.
    """
    try:
        import ngrok  # noqa: PLC0415 - in the extra `tunnel`
    except ImportError:
        msg = "NGROK_AUTHTOKEN needs ngrok's package: `pip install .[tunnel]`. Or set PUBLIC_URL instead."
        raise ConfigError(msg) from None
    logging.getLogger("ngrok").setLevel(logging.CRITICAL)  # whatever it says is raised as well
    listener = _connect(settings)
    url = listener.url().rstrip("/")
    try:
        with _announced(settings, url):
            yield url
    finally:
        # It asks ngrok's service, which may be out of reach by now.
        closing = threading.Thread(target=ngrok.disconnect, args=(listener.url(),), daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _connect(settings: Settings) -> Listener:
    """Return an open tunnel; in a thread, since the library waits as long as it takes."""
    import ngrok  # noqa: PLC0415 - as above

    token = settings.ngrok_authtoken.get_secret_value() if settings.ngrok_authtoken else ""
    host = f"[{settings.app_host}]" if ":" in settings.app_host else settings.app_host
    answers: queue.SimpleQueue[Listener | Exception] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answers.put(ngrok.forward(f"{host}:{settings.app_port}", authtoken=token))
        except Exception as error:  # noqa: BLE001 - the library documents none
            answers.put(error)

    threading.Thread(target=connect, name="tunnel", daemon=True).start()
    try:
        answer = answers.get(timeout=OPEN_SECONDS)
    except queue.Empty:
        msg = f"The tunnel did not open: ngrok did not answer within {OPEN_SECONDS:.0f} s."
        raise RetriableError(msg) from None
    if isinstance(answer, Exception):
        said = ": ".join(map(str, answer.args)) or type(answer).__name__
        words = " ".join(said.replace(token, "…").split())  # ngrok repeats a token that it does not accept
        msg = f"The tunnel did not open: {words}."
        raise RetriableError(msg)
    return answer


@contextmanager
def _announced(settings: Settings, url: str) -> Iterator[None]:
    """Let other processes see the address, as long as this one lives."""
    file = _file_of(settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        opened.truncate(0)
        opened.write(url)
        opened.flush()
        yield
        opened.truncate(0)


def with_public_address(settings: Settings) -> Settings:
    """Return *settings* with the address of the tunnel that another process holds open, if there is one."""
    if settings.public_url is not None or settings.disable_webhooks:
        return settings
    try:
        with _file_of(settings).open() as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return settings.model_copy(update={"public_url": opened.read() or None})
    except FileNotFoundError:
        pass
    return settings


def _file_of(settings: Settings) -> Path:
    return settings.twm_data_dir / FILE_NAME
