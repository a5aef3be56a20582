"""All processes together stay within the vendors' budgets (G8)."""

from twm_pipeline_tests.faults import worker


def test_three_processes_together_exceed_no_budget(make_world):
    scale = 60.0
    world = make_world(
        tasks=2500,
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
    assert status["teamwork"]["requests"] > 100
