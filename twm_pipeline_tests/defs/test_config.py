from datetime import date

import pytest

from twm_pipeline.defs.config import MOST_IDS, ReconcileConfig, SyncConfig
from twm_pipeline.errors import ConfigError
from twm_pipeline.mirror.tables import STREAMS
from twm_pipeline.sync.engine import PassOptions


def test_everything_selected_and_nothing_asked_is_an_ordinary_pass():
    assert SyncConfig().to_options("teamwork", STREAMS["teamwork"]) == PassOptions()


def test_a_part_of_the_assets_is_a_part_of_the_streams():
    assert SyncConfig().to_options("teamwork", ["tags"]).streams == {"tags"}


@pytest.mark.parametrize("text", ["31.12.2024", "2024-12-31"])
def test_dates_are_written_in_two_ways(text):
    assert SyncConfig(since=text).to_options("missive", STREAMS["missive"]).since == date(2024, 12, 31)


@pytest.mark.parametrize(
    ("source", "config", "words"),
    [
        ("teamwork", {"since": "yesterday"}, "`since`: 'yesterday' is not a date"),
        ("teamwork", {"until": "2024-12-31"}, "`until` needs `since`"),
        ("teamwork", {"since": "2024-12-31", "full": True}, "exclude each other"),
        ("teamwork", {"ids": ["12", "../x"]}, "'../x' is no id of Teamwork"),
        ("teamwork", {"ids": ["0"]}, "'0' is no id"),
        ("missive", {"ids": ["a/b"]}, "'a/b' is no id of Missive"),
        ("teamwork", {"ids": [str(n + 1) for n in range(MOST_IDS + 1)]}, "too many at once"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_words(source, config, words):
    with pytest.raises(ConfigError, match=words):
        SyncConfig(**config).to_options(source, STREAMS[source])


def test_a_sweep_names_the_vendors_it_knows():
    assert ReconcileConfig().to_sources() == ("teamwork", "missive")
    assert ReconcileConfig(sources=["missive"]).to_sources() == ("missive",)
    with pytest.raises(ConfigError, match="gmail unknown; there are teamwork and missive"):
        ReconcileConfig(sources=["gmail"]).to_sources()
