"""PostgreSQL goes away, or takes nothing any more: an outage, after which nothing is missing (G3)."""

import shutil
import threading
import uuid

from twm_pipeline.db import EmbeddedServer, open_engine
from twm_pipeline.errors import TwmError
from twm_pipeline.mirror.schema import migrate
from twm_pipeline.sandbox import Sandbox, SandboxOptions
from twm_pipeline_tests.conftest import FAST_AND_FORGETFUL
from twm_pipeline_tests.faults.world import World, settings_for, wait_for_requests


def test_postgresql_restarted_during_an_import(servers_folder, tmp_path):
    folder = servers_folder / f"restarted-{uuid.uuid4().hex[:8]}"
    server = EmbeddedServer(folder, options=FAST_AND_FORGETFUL)
    server.start()
    try:
        with Sandbox(SandboxOptions(tasks=300, conversations=60, latency_seconds=0.003)) as box:
            server.create_database("twm")
            engine = open_engine(server.url("twm"))
            migrate(engine)
            settings = settings_for(box, server.url("twm"), tmp_path / ".twm")
            world = World(control=box.control, engine=engine, settings=settings)
            stopped: list[TwmError] = []
            thread = threading.Thread(target=lambda: stopped.extend(world.insist("missive")))
            thread.start()
            wait_for_requests(world.control, 60)
            server.stop()
            server.start()
            thread.join()
            world.insist("missive", "teamwork")
            world.settle()

            assert stopped
            world.assert_true()
            engine.dispose()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
