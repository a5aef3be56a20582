"""Rows of the samples of Missive's answers."""

from typing import Any

from twm_pipeline_tests.sources.fakes import sample

ANNA = "718c07f0-ff0b-4cd3-a086-09a55fdf65ea"
OFFER = "8ba94e5d-aae5-402d-a2a4-f0299d2c8453"


def messages(name: str) -> list[dict[str, Any]]:
    found = sample("missive", name)["messages"]
    return found if isinstance(found, list) else [found]


def conversation(name: str = "conversation.get", *, place: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = sample("missive", name)["conversations"][place]
    return found
