from collections.abc import Iterator
from typing import Any

import pytest

from twm_pipeline.defs import places
from twm_pipeline.settings import INHERITED, environment_of, load_settings

REAL = {
    "teamwork_base_url": "https://example.teamwork.com",
    "missive_api_token": "missive_pat-word",
    "db_backend": "both",
    "airtable_api_key": "pat-word",
    "airtable_base_id": "app0123456789abcd",
    "status_port": 5009,
}


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    places._places.cache_clear()
    yield
    places._places.cache_clear()


def links(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> dict[str, str]:
    monkeypatch.setenv(INHERITED, environment_of(load_settings(**settings))[INHERITED])
    return {name: str(value.value) for name, value in places.links_of(*REAL_PLACES).items()}


REAL_PLACES = ("teamwork", "missive", "airtable", "insights")


def test_links_lead_to_the_vendors_and_the_status_page(monkeypatch):
    assert links(monkeypatch, **REAL) == {
        "Teamwork": "https://example.teamwork.com",
        "Missive": "https://mail.missiveapp.com",
        "Airtable": "https://airtable.com/app0123456789abcd",
        "Status page": "http://127.0.0.1:5009",
    }


def test_what_is_not_set_up_has_no_link(monkeypatch):
    assert set(links(monkeypatch)) == {"Status page"}


@pytest.mark.parametrize(
    ("host", "address"),
    [("::1", "http://[::1]:5001"), ("::", None), ("10.0.0.7", "http://10.0.0.7:5001")],
)
def test_a_status_page_that_listens_everywhere_has_no_address(monkeypatch, host, address):
    assert links(monkeypatch, status_host=host).get("Status page") == address
