"""A few thousand hostile requests; FUZZ_REQUESTS=100000 sends more, FUZZ_SEED=2 other ones."""

from __future__ import annotations

import os

from twm_pipeline_tests.webhooks.fuzz import fuzz_parsers, fuzz_receiver

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "3000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))


def test_no_request_ends_in_an_error_or_leaves_the_spool(tmp_path):
    outcome = fuzz_receiver(tmp_path, requests=REQUESTS, seed=SEED)

    assert outcome.problems == []
    assert outcome.stored > REQUESTS / 10
    assert {200, 400, 401, 404, 405, 415, 431} <= set(outcome.statuses)


def test_no_body_breaks_a_parser():
    assert fuzz_parsers(calls=REQUESTS, seed=SEED) > REQUESTS / 10
