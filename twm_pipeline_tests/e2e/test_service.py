"""The files for running it as a service: systemd takes them, nginx passes deliveries on as they are."""

from __future__ import annotations

import re
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from urllib3.exceptions import InsecureRequestWarning

from twm_pipeline.settings import PROJECT_DIR
from twm_pipeline_tests.webhooks.deliveries import Delivery, load_samples, task_delivery
from twm_pipeline_tests.webhooks.running import Receiver, free_port, receiver_settings, receiver_thread

pytestmark = pytest.mark.system

SERVICE = PROJECT_DIR / "docs" / "service"
SECONDS = 20


@pytest.mark.parametrize("unit", ["twm.service", "twm-backup.service", "twm-backup.timer"])
def test_systemd_takes_the_unit(unit, tmp_path):
    for path in SERVICE.glob("twm*"):
        text = path.read_text().replace("/opt/twm_pipeline", str(PROJECT_DIR))
        (tmp_path / path.name).write_text(text.replace("=twm\n", "=root\n"))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)],
        capture_output=True,
        text=True,
        check=False,
    )

    ours = [line for line in done.stderr.splitlines() if "twm" in line]
    assert done.returncode == 0, done.stderr
    assert ours == []


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiver_thread(receiver_settings(tmp_path)) as receiver:
        yield receiver


@pytest.fixture
def proxy(receiver: Receiver, tmp_path: Path) -> Iterator[str]:
    """Run nginx with the example, its names and ports changed as a reader would; return its address."""
    port = free_port()
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    (tmp_path / "twm.htpasswd").write_text("")
    text = (SERVICE / "nginx.conf").read_text()
    text = re.sub(r"/etc/letsencrypt/live/\S+/fullchain.pem", str(certificate), text)
    text = re.sub(r"/etc/letsencrypt/live/\S+/privkey.pem", str(key), text)
    text = text.replace("listen 443", f"listen 127.0.0.1:{port}").replace("/etc/nginx", str(tmp_path))
    text = text.replace("127.0.0.1:5000", f"127.0.0.1:{receiver.port}").replace(
        "/var/log/nginx", str(tmp_path)
    )
    (tmp_path / "twm.conf").write_text(text)
    places = "".join(
        f"{name}_temp_path {tmp_path / name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path / 'pid'}; events {{}}"
        f" http {{ {places} include {tmp_path / 'twm.conf'}; }}"
    )
    command = ["nginx", "-e", str(tmp_path / "first.log"), "-c", str(tmp_path / "nginx.conf")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = f"https://localhost:{port}"
            wait_until_up(address, process)
            yield address
        finally:
            process.terminate()


def wait_until_up(address: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            ask(address + "/health")
        except requests.ConnectionError:
            time.sleep(0.05)
        else:
            return
    process.terminate()
    pytest.fail(f"nginx did not come up: {process.communicate()[1]}")


def ask(url: str, delivery: Delivery | None = None, *, host: str = "sync.example.com") -> int:
    """Return the status of an answer to a delivery, or to a plain request."""
    headers = {"Host": host, **(delivery.headers if delivery else {})}
    with requests.Session() as session:
        session.trust_env = False
        request = requests.Request(
            "POST" if delivery else "GET", url, headers=headers, data=delivery.body if delivery else None
        )
        prepared = session.prepare_request(request)
        prepared.url = url  # as it is, dots included
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureRequestWarning)  # the certificate is the test's own
            return session.send(prepared, timeout=10, verify=False).status_code


def test_signed_deliveries_pass_through_the_proxy_unchanged(proxy, receiver):
    samples = [sample.signed() for sample in load_samples()]

    answers = [ask(proxy + sample.path, sample) for sample in samples]

    assert set(answers) == {200}
    kept = {envelope.body for source in ("teamwork", "missive") for envelope in receiver.kept(source)}
    told = {sample.body for sample in samples}
    assert kept <= told
    assert len(kept) >= len(told) - 2  # validation requests name nothing and are not kept


def test_a_wrong_signature_is_refused_behind_the_proxy_too(proxy, receiver):
    delivery = task_delivery(7).without("X-Projects-Signature")

    assert ask(proxy + delivery.path, delivery) == 401
    assert receiver.kept() == []


def test_nothing_but_hooks_is_passed_on(proxy):
    assert [ask(proxy + path) for path in ("/", "/docs", "/graphql", "/hooks/../graphql")] == [404] * 4


def test_no_log_of_the_proxy_holds_a_path(proxy, receiver, tmp_path):
    delivery = task_delivery(7)
    secret = "ab" * 32

    ask(f"{proxy}/hooks/missive/{secret}", delivery)
    ask(proxy + delivery.path, delivery)

    lines = (tmp_path / "twm.log").read_text() + (tmp_path / "twm-error.log").read_text()
    assert '"POST" 200' in lines
    assert secret not in lines


def test_the_ui_asks_for_a_password(proxy):
    assert ask(proxy + "/", host="dagster.example.com") == 401
