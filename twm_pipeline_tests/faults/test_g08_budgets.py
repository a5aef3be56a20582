"""All processes together stay within the vendors' budgets (G8)."""

from twm_pipeline_tests.faults import worker

ALLOWED_IN_A_MINUTE = 150


def test_three_processes_together_exceed_no_budget(make_world):
    scale = 4.0  # so slow that the processes have to wait for each other
    world = make_world(
        tasks=4000,
        conversations=60,
        budgets=scale,
        answers={"teamwork.max_page_size": 50, "teamwork.rate_header": "none"},
        overrides={"budget_time_scale": scale},
    )

    workers = [
        worker.start(world.settings, *sources)
        for sources in (["teamwork", "missive"], ["missive"], ["teamwork"])
    ]
    for process in workers:
        worker.finish(process)

    status = world.control.status()["vendors"]
    assert world.control.violations() == 0
    assert status["missive"]["peak_concurrency"] <= 5
    assert status["teamwork"]["requests"] > ALLOWED_IN_A_MINUTE
