"""Memory does not grow with the size of the account (G12)."""

import uuid

from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline_tests.faults import worker
from twm_pipeline_tests.faults.world import settings_for


def test_memory_does_not_grow_with_the_account(server, template_database, tmp_path):
    peaks = {}
    for tasks, conversations in ((400, 60), (4000, 240)):
        name = f"memory_{uuid.uuid4().hex}"
        with server.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}".encode())
        with Sandbox(SandboxOptions(tasks=tasks, conversations=conversations)) as box:
            settings = settings_for(box, server.url(name), tmp_path / ".twm")
            peaks[tasks] = worker.finish(worker.start(settings, "teamwork", "missive"))
        with server.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    assert peaks[4000] <= 1.3 * peaks[400]
