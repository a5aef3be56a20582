import json
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from twm_pipeline.errors import ConfigError
from twm_pipeline.settings import PROJECT_DIR, Settings, environment_of, load_settings, parse_since
from twm_pipeline.settings_pages import configuration_page, env_example, with_settings_table

DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}

WRONG = {
    "TEAMWORK_BASE_URL": (
        "example.teamwork.com",
        "'example.teamwork.com'",
        "an address such as https://example.teamwork.com",
    ),
    "TEAMWORK_REQUESTS_PER_MINUTE": ("many", "'many'", "expected a whole number"),
    "TEAMWORK_PROCESS_AFTER": ("31.02.2024", "'31.02.2024'", "31.12.2024 or 2024-12-31"),
    "INCLUDE_COMPLETED_TASKS_ON_INITIAL_SYNC": ("perhaps", "'perhaps'", "expected `true` or `false`"),
    "TEAMWORK_EXCLUDED_PROJECTS": ("501001,internal", "'501001,internal'", "numeric ids separated by commas"),
    "TEAMWORK_EXCLUDED_COMPANIES": ("-4", "'-4'", "numeric ids separated by commas"),
    "MISSIVE_REQUESTS_PER_MINUTE": ("0", "'0'", "greater than or equal to 1"),
    "DB_BACKEND": ("mysql", "'mysql'", "'postgres', 'airtable' or 'both'"),
    "AIRTABLE_BASE_ID": ("Company base", "'Company base'", "the id of a base, as in its address"),
    "AIRTABLE_UPLOAD_URL": ("content.airtable.com", "'content.airtable.com'", "an address such as"),
    "PERIODIC_BACKFILL_INTERVAL": ("60s", "'60s'", "expected a number"),
    "SYNC_WINDOW_SECONDS": ("-1", "'-1'", "greater than or equal to 0"),
    "TIMEZONE": ("Europa/Berlin", "'Europa/Berlin'", "a time zone such as Europe/Berlin"),
    "LOG_LEVEL": ("LOUD", "'LOUD'", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    "TWM_DATA_DIR": ("~nobody-of-this-name/twm", "nobody-of-this-name/twm", "no user of that name"),
}


@pytest.mark.parametrize(("name", "case"), WRONG.items(), ids=WRONG)
def test_a_wrong_value_is_named_shown_and_what_is_expected_is_said(name, case, monkeypatch):
    value, shown, expected = case
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError) as caught:
        load_settings()

    [line] = str(caught.value).splitlines()[1:]
    assert line.strip().startswith(f"{name}: read ")
    assert shown in line
    assert expected in line


def test_every_wrong_value_is_reported_at_once(monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    monkeypatch.setenv("TIMEZONE", "Mars")

    with pytest.raises(ConfigError, match=r"(?s)TIMEZONE.*LOG_LEVEL"):
        load_settings()


SECRETS = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
WORDS_OF_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "DSN", "PG_URL", "ALERT_WEBHOOK_URL")


def test_what_sounds_like_a_secret_is_one():
    sounding = [name for name in Settings.model_fields if any(it in name.upper() for it in WORDS_OF_SECRETS)]

    assert len(SECRETS) > 5
    assert set(sounding) <= set(SECRETS)


@pytest.mark.parametrize("name", ["public_url", "teamwork_base_url", "airtable_endpoint_url"])
def test_an_address_that_would_be_shown_with_a_password_is_refused_unseen(name):
    with pytest.raises(ConfigError, match="without a user and a password") as caught:
        load_settings(**{name: "https://me:s3cret@example.com/x"})

    assert "s3cret" not in str(caught.value)
    assert "//…@example.com" in str(caught.value)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_never_shown(name):
    with pytest.raises(ConfigError, match=f"{name.upper()}: read a value that is not shown") as caught:
        load_settings(**{name: ["s3cret"]})

    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(load_settings(**{name: "https://example.com/s3cret"}))


def test_a_store_with_a_password_in_its_address_is_refused_without_showing_it():
    with pytest.raises(ConfigError, match="without credentials") as caught:
        load_settings(attachments_url="sftp://me:s3cret@host/files")

    assert "s3cret" not in str(caught.value)


def test_files_are_kept_beside_the_other_files_of_a_deployment_unless_a_store_is_named(tmp_path):
    beside = load_settings(twm_data_dir=tmp_path)

    assert beside.attachments_store == str(tmp_path / "attachments")
    assert load_settings(attachments_url="files").attachments_store == str(PROJECT_DIR / "files")
    assert load_settings(attachments_url="s3://bucket/a/").attachments_store == "s3://bucket/a"
    assert load_settings(attachments_skip_types="Text/Calendar, image/*").attachments_skip_types == (
        "text/calendar",
        "image/*",
    )


DATES = {
    "german": ("31.12.2024", date(2024, 12, 31)),
    "german, short": ("1.2.2024", date(2024, 2, 1)),
    "iso": ("2024-12-31", date(2024, 12, 31)),
    "spaces": (" 31.12.2024 ", date(2024, 12, 31)),
    "time with zone": ("2024-12-31T08:00:00Z", datetime(2024, 12, 31, 8, tzinfo=UTC)),
}


@pytest.mark.parametrize(("text", "expected"), DATES.values(), ids=DATES)
def test_a_date_is_german_or_iso(text, expected, monkeypatch):
    monkeypatch.setenv("MISSIVE_PROCESS_AFTER", text)

    assert load_settings().missive_process_after == expected
    assert parse_since(text) == expected
    assert type(parse_since(text)) is type(expected)


@pytest.mark.parametrize("text", ["yesterday", "31/12/2024", "2024-13-01", ""])
def test_what_is_no_date_is_refused(text):
    with pytest.raises(ConfigError, match=r"is not a date: .*31\.12\.2024"):
        parse_since(text)


def test_a_bare_date_is_midnight_in_the_configured_zone():
    winter, summer = date(2024, 12, 31), date(2024, 7, 1)

    berlin, tokyo = load_settings(), load_settings(timezone="Asia/Tokyo")

    assert berlin.instant(winter) == datetime(2024, 12, 30, 23, tzinfo=UTC)
    assert berlin.instant(summer) == datetime(2024, 6, 30, 22, tzinfo=UTC)
    assert tokyo.instant(summer) == datetime(2024, 6, 30, 15, tzinfo=UTC)


def test_a_time_without_a_zone_is_in_the_configured_zone_and_one_with_a_zone_keeps_it():
    settings = load_settings()

    assert settings.instant(parse_since("2024-07-01T12:00:00")) == datetime(2024, 7, 1, 10, tzinfo=UTC)
    assert settings.instant(parse_since("2024-07-01T12:00:00+09:00")) == datetime(2024, 7, 1, 3, tzinfo=UTC)
    assert settings.instant(None) is None


def test_blank_values_are_unset_values(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")

    assert load_settings(twm_data_dir=".twm") == load_settings(**DEFAULTS)


def test_relative_paths_are_below_the_project_and_not_below_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWM_DATA_DIR", "somewhere")
    monkeypatch.setenv("LABEL_CATEGORIES_FILE", "~/labels.json")

    settings = load_settings()

    assert settings.twm_data_dir == PROJECT_DIR / "somewhere"
    assert settings.label_categories_file == Path.home() / "labels.json"


def test_small_letters_and_slashes_are_no_matter(monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "debug ")
    monkeypatch.setenv("TEAMWORK_BASE_URL", "https://example.teamwork.com/")

    settings = load_settings()

    assert settings.log_level == "DEBUG"
    assert settings.teamwork_base_url == "https://example.teamwork.com"


def test_ids_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("TEAMWORK_EXCLUDED_PROJECTS", "501001, 501002,")

    assert load_settings().teamwork_excluded_projects == (501001, 501002)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig"], ids=["plain", "with the mark of Windows editors"]
)
def test_the_file_is_read_and_the_environment_wins(encoding, tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("LOG_LEVEL=ERROR\nTIMEZONE=Asia/Tokyo\n# Grüße\n", encoding=encoding)
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.setenv("TIMEZONE", "UTC")

    settings = load_settings()

    assert (settings.log_level, settings.timezone) == ("ERROR", "UTC")


def test_a_file_in_another_encoding_says_so(tmp_path, monkeypatch):
    (tmp_path / ".env").write_bytes("# Grüße\n".encode("latin-1"))
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")

    with pytest.raises(ConfigError, match="UTF-8"):
        load_settings()


class TestSettingsOfAChildProcess:
    CHOSEN = {  # noqa: RUF012 - a constant
        "teamwork_base_url": "https://example.teamwork.com",
        "teamwork_api_key": "s3cret",
        "teamwork_excluded_projects": (1, 2),
        "teamwork_process_after": date(2024, 12, 31),
        "missive_process_after": datetime(2024, 12, 31, 8, tzinfo=UTC),
        "sync_window_seconds": 0,
        "timezone": "UTC",
    }

    def inherit(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
        for name, value in environment_of(settings).items():
            monkeypatch.setenv(name, value)
        return load_settings()

    def test_are_those_of_its_parent(self, monkeypatch):
        settings = load_settings(**self.CHOSEN)

        inherited = self.inherit(settings, monkeypatch)

        assert inherited == settings
        assert inherited.teamwork_api_key == SecretStr("s3cret")

    def test_do_not_change_with_files_and_variables(self, monkeypatch, tmp_path):
        """`.env` names the real accounts while the parent runs against the sandbox."""
        settings = load_settings(sync_window_seconds=900)
        (tmp_path / ".env").write_text("PG_DSN=postgresql://real\nTEAMWORK_EXCLUDED_PROJECTS=7\n")
        monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
        monkeypatch.setenv("SYNC_WINDOW_SECONDS", "5")

        assert self.inherit(settings, monkeypatch) == settings

    def test_survive_dagster_which_writes_env_over_the_environment(self, tmp_path):
        (tmp_path / ".env").write_text("LOG_LEVEL=ERROR\nMISSIVE_API_TOKEN=real\n")
        (tmp_path / "definitions.py").write_text(SHOW_SETTINGS)
        command = [
            "-m",
            "dagster",
            "asset",
            "materialize",
            "--select",
            "shown",
            "--python-file",
            "definitions.py",
        ]
        settings = load_settings(log_level="DEBUG", twm_data_dir=tmp_path / ".twm")

        subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            env=environment_of(settings),
        )

        assert json.loads((tmp_path / "shown.json").read_text()) == ["DEBUG", None]


SHOW_SETTINGS = """
import json, pathlib, dagster as dg
from twm_pipeline.settings import load_settings

@dg.asset
def shown() -> None:
    settings = load_settings()
    pathlib.Path("shown.json").write_text(json.dumps([settings.log_level, settings.missive_api_token]))

defs = dg.Definitions([shown])
"""


def test_the_example_file_is_up_to_date():
    assert (PROJECT_DIR / ".env.example").read_text() == env_example(), "make format writes it anew"


def test_the_page_of_settings_is_up_to_date():
    page = (PROJECT_DIR / "docs" / "configuration.md").read_text()
    assert page == configuration_page(), "make format writes it anew"


def test_the_table_in_the_readme_is_up_to_date():
    page = (PROJECT_DIR / "README.md").read_text()
    assert page == with_settings_table(page), "make format writes it anew"
    assert "`TEAMWORK_API_KEY`" in page.partition("<summary>All settings</summary>")[2]


def test_the_example_file_changes_nothing_whether_its_settings_are_comments_or_not(tmp_path, monkeypatch):
    monkeypatch.delenv("TWM_DATA_DIR")
    example = tmp_path / "env"
    example.write_text(env_example())
    assert dotenv_values(example) == {}
    example.write_text(
        "\n".join(line.removeprefix("# ") for line in env_example().splitlines() if "=" in line)
    )

    monkeypatch.setitem(Settings.model_config, "env_file", example)

    assert set(dotenv_values(example)) == {name.upper() for name in Settings.model_fields}
    assert load_settings() == load_settings(**DEFAULTS)


@pytest.mark.parametrize(
    "value",
    [
        "app0DZ9rm8w2jR5qW",
        "https://airtable.com/app0DZ9rm8w2jR5qW/tblGXW8uViLVOHe6f/viwKyCnbMCFTjHhw5?blocks=hide",
        " https://airtable.com/app0DZ9rm8w2jR5qW?x=1",
    ],
    ids=["id", "address", "address without a table"],
)
def test_a_base_is_named_by_its_id_or_by_its_address(value):
    assert load_settings(airtable_base_id=value).airtable_base_id == "app0DZ9rm8w2jR5qW"


@pytest.mark.parametrize("value", ["https://airtable.com/", "app", "shrApp0123/x", "my app"])
def test_what_names_no_base_is_refused(value):
    with pytest.raises(ConfigError, match="expected the id of a base"):
        load_settings(airtable_base_id=value)


@pytest.mark.parametrize("name", ["airtable_endpoint_url", "airtable_upload_url"])
def test_airtables_addresses_are_taken_with_their_version_too(name):
    assert getattr(load_settings(**{name: "https://api.example.com/v0/"}), name) == "https://api.example.com"


def test_uploads_go_where_the_api_is():
    other = "http://127.0.0.1:8000"

    assert load_settings().airtable_uploads == "https://content.airtable.com"
    assert load_settings(airtable_endpoint_url=other).airtable_uploads == other
    chosen = load_settings(airtable_endpoint_url=other, airtable_upload_url=f"{other}/content")
    assert chosen.airtable_uploads == f"{other}/content"


def test_publishing_is_wanted_by_the_backend_and_possible_with_token_and_base():
    assert not load_settings().publishes
    wanted = load_settings(db_backend="Both")
    assert wanted.publishes
    assert not wanted.can_publish
    assert load_settings(airtable_api_key="pat", airtable_base_id="app0DZ9rm8w2jR5qW").can_publish
