"""Memory does not grow with the size of the account (G12)."""

import os
import uuid

import pytest

from bench.servers import peak_bytes_of
from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline_tests.faults import worker
from twm_pipeline_tests.faults.world import settings_for

SIZES = ((1000, 30), (10_000, 300))
ALLOWED_KIB = 25_000  # of several commits the garbage of one, not their rows


@pytest.mark.skipif(peak_bytes_of(os.getpid()) == 0, reason="this system does not tell")
def test_memory_does_not_grow_with_the_account(server, template_database, tmp_path):
    peaks = {}
    for tasks, conversations in SIZES:
        name = f"memory_{uuid.uuid4().hex}"
        with server.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}".encode())
        with Sandbox(SandboxOptions(tasks=tasks, conversations=conversations)) as box:
            settings = settings_for(box, server.url(name), tmp_path / ".twm")
            peaks[tasks] = worker.finish(worker.start(settings, "teamwork", "missive"))
        with server.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    small, large = peaks.values()
    assert large - small <= ALLOWED_KIB
