"""Every setting of the product: name, meaning, default, and what a wrong value is told.

Values come from the environment and from ``.env`` in the project's folder (the environment wins). Secrets
are `SecretStr`: their text never appears in a repr, a log line or an error.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from twm_pipeline.errors import ConfigError

PROJECT_DIR = Path(__file__).resolve().parent.parent
"""The checkout (or the folder that holds the installed package): where ``.env`` and ``.twm/`` live."""
HTTP_URL = TypeAdapter(HttpUrl)
BASE_ID = re.compile(r"(?<![A-Za-z0-9])app[A-Za-z0-9]{3,}(?=[/?#]|$)")
"""Airtable's ids have 17 characters, which it does not promise."""
AIRTABLE_URL, AIRTABLE_UPLOAD_URL = "https://api.airtable.com", "https://content.airtable.com"
BUSINESS_HOURS = re.compile(r"(Mo|Tu|We|Th|Fr|Sa|Su)(?:-(Mo|Tu|We|Th|Fr|Sa|Su))? (\d\d):(\d\d)-(\d\d):(\d\d)")
LAST_MINUTE = 59
MIDNIGHT = (24, 0)
POLL_SECONDS = 60.0
POLL_SECONDS_WITHOUT_WEBHOOKS = 5.0
INHERITED = "TWM_INHERITED_SETTINGS"
"""The variable in which a process hands its settings down, as JSON; it is not meant for people."""


def _parse_date(value: object) -> object:
    """Return a date from ``DD.MM.YYYY`` or ISO 8601; anything else goes on to pydantic's own message."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    for parse in (date.fromisoformat, lambda t: datetime.strptime(t, "%d.%m.%Y").date()):  # noqa: DTZ007 - a bare date has no zone; it becomes midnight in TIMEZONE
        try:
            return parse(text)
        except ValueError:
            continue
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        msg = "expected a date such as 31.12.2024 or 2024-12-31, or an ISO 8601 time"
        raise ValueError(msg) from None


def _parse_ids(value: object) -> object:
    """Return ids from a comma-separated list; a word that is no number fails (exclusions fail closed)."""
    if not isinstance(value, str):
        return value
    words = [word.strip() for word in value.split(",") if word.strip()]
    if not all(word.isascii() and word.isdigit() for word in words):
        msg = "expected numeric ids separated by commas, such as 501001,501002"
        raise ValueError(msg)
    return tuple(int(word) for word in words)


def _parse_words(value: object) -> object:
    """Return words from a comma-separated list, in lower case."""
    if not isinstance(value, str):
        return value
    return tuple(word.strip().lower() for word in value.split(",") if word.strip())


def _check_store(value: str) -> str:
    """Return the place of a store: an address without credentials, or a folder below the project."""
    parts = urlsplit(value)
    if "://" not in value:
        return str(_anchor(Path(value)))
    if parts.username or parts.password:
        msg = "expected an address without credentials; the storage's own settings hold them (docs/attachments.md)"
        raise ValueError(msg)
    return value.rstrip("/")


def _check_hours(value: str) -> str:
    found = BUSINESS_HOURS.fullmatch(value.strip())
    times = found and [(int(found[n]), int(found[n + 1])) for n in (3, 5)]
    if not times or any(minute > LAST_MINUTE for _, minute in times) or not times[0] < times[1] <= MIDNIGHT:
        msg = "expected days and hours of one day, such as Mo-Fr 09:00-17:00 or Mo-Su 00:00-24:00"
        raise ValueError(msg)
    return value.strip()


def _check_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        msg = "expected the name of a time zone such as Europe/Berlin"
        raise ValueError(msg) from None
    return value


def _check_address(value: str) -> str:
    try:
        url = HTTP_URL.validate_python(value)
    except ValidationError:
        msg = "expected an address such as https://example.teamwork.com"
        raise ValueError(msg) from None
    if url.username or url.password:
        msg = "expected an address without a user and a password; it is shown in logs"
        raise ValueError(msg)
    return str(url).rstrip("/")


def _check_secret_address(value: SecretStr) -> SecretStr:
    _check_address(value.get_secret_value())
    return value


def _check_base_id(value: str) -> str:
    """Return the id of a base, also from the address that a browser shows."""
    found = BASE_ID.search(value.strip())
    if found is None:
        msg = "expected the id of a base, as in its address https://airtable.com/app0123456789abcd"
        raise ValueError(msg)
    return found[0]


def _anchor(path: Path) -> Path:
    """Return *path*, relative ones below the project and not below the current folder."""
    try:
        return PROJECT_DIR / path.expanduser()
    except RuntimeError:
        msg = "expected a folder; there is no user of that name"
        raise ValueError(msg) from None


Since = Annotated[date | datetime, BeforeValidator(_parse_date)]
Ids = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_parse_ids)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_words)]
StoreUrl = Annotated[str, AfterValidator(_check_store)]
BaseUrl = Annotated[str, AfterValidator(_check_address)]
AirtableUrl = Annotated[BaseUrl, AfterValidator(lambda url: url.removesuffix("/v0"))]
"""Without the version, which Airtable's documentation writes as part of it."""
ProjectPath = Annotated[Path, AfterValidator(_anchor)]


class Settings(BaseSettings):
    """The settings of one deployment. Field names in upper case are the variables' names."""

    model_config = SettingsConfigDict(
        env_file=PROJECT_DIR / ".env",
        env_file_encoding="utf-8-sig",  # editors on Windows put a mark in front, which would hide the first name
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
        populate_by_name=True,
    )

    teamwork_base_url: BaseUrl | None = Field(
        None, description="Address of the site, such as `https://example.teamwork.com`"
    )
    teamwork_api_key: SecretStr | None = Field(
        None, description="API key of a person who sees every project that is to be mirrored"
    )
    teamwork_webhook_secret: SecretStr | None = Field(
        None, description="Token with which Teamwork signs its webhooks; unset: one is made and kept"
    )
    teamwork_requests_per_minute: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Upper bound of requests per minute; unset: 150, or what the site's headers say",
    )
    teamwork_process_after: Since | None = Field(None, description="Only tasks created on or after this date")
    include_completed_tasks_on_initial_sync: bool = Field(
        default=True, description="`false` hides tasks that were completed before the first import began"
    )
    teamwork_excluded_projects: Ids = Field(
        (), description="Ids of projects that are left out, separated by commas"
    )
    teamwork_excluded_companies: Ids = Field(
        (), description="Ids of companies whose projects are left out, separated by commas"
    )

    missive_base_url: BaseUrl = Field("https://public.missiveapp.com/v1", description="The API's address")
    missive_api_token: SecretStr | None = Field(
        None, description="Personal API token (Productive plan or higher)"
    )
    missive_webhook_secret: SecretStr | None = Field(
        None, description="Signature secret of the rules in Missive's settings; unset: one is made and kept"
    )
    missive_requests_per_minute: int = Field(
        300,
        ge=1,
        le=10_000,
        description="Upper bound of requests per minute; three times as many in 15 minutes",
    )
    missive_process_after: Since | None = Field(
        None, description="Only messages delivered on or after this date"
    )

    db_backend: Literal["postgres", "airtable", "both"] = Field(
        "postgres",
        description="`both` or `airtable`: the mirror is published to Airtable; `postgres`: it is not",
    )
    airtable_api_key: SecretStr | None = Field(
        None,
        description="Personal access token with the scopes `data.records:read`, `data.records:write`, `schema.bases:read`, `schema.bases:write`",
    )
    airtable_base_id: Annotated[str, AfterValidator(_check_base_id)] | None = Field(
        None, description="Id of the base, `app…`, or its address in the browser"
    )
    airtable_endpoint_url: AirtableUrl = Field(AIRTABLE_URL, description="The API's address")
    airtable_upload_url: AirtableUrl | None = Field(
        None,
        description="Address that takes uploads of attachments; unset: `https://content.airtable.com`, or"
        " `AIRTABLE_ENDPOINT_URL` where that is another address than Airtable's",
    )
    airtable_tasks_table: str = Field(
        "Tasks", min_length=1, description="Name of the table of tasks; once found it may be renamed"
    )
    airtable_emails_table: str = Field(
        "Emails", min_length=1, description="Name of the table of e-mails; once found it may be renamed"
    )
    airtable_monthly_calls: int | None = Field(
        None,
        ge=1,
        description="Calls a month that the workspace's plan allows; a warning comes at 80 %",
    )

    pg_dsn: SecretStr | None = Field(
        None,
        description="URL of the mirror's PostgreSQL database; unset: an embedded server under `TWM_DATA_DIR`",
    )
    dagster_pg_url: SecretStr | None = Field(
        None,
        description="URL of the database for Dagster's own storage; unset: a database on the embedded server",
    )

    disable_webhooks: bool = Field(
        default=False, description="`true`: no receiver and no hooks; the vendors are polled every 5 seconds"
    )
    public_url: BaseUrl | None = Field(
        None,
        description="Address under which the vendors reach the receiver, such as `https://sync.example.com`",
    )
    ngrok_authtoken: SecretStr | None = Field(
        None, description="Token of an ngrok account: `twm up` opens a tunnel where `PUBLIC_URL` is not set"
    )
    allow_unsigned_webhooks: bool = Field(
        default=False, description="`true` accepts deliveries without a signature on paths without a token"
    )
    app_host: str = Field("127.0.0.1", min_length=1, description="Address on which the receiver listens")
    app_port: int = Field(5000, ge=1, le=65_535, description="Port on which the receiver listens")

    status_host: str = Field(
        "127.0.0.1", min_length=1, description="Address on which the status page and `/metrics` listen"
    )
    status_port: int = Field(5001, ge=1, le=65_535, description="Port of the status page and `/metrics`")
    status_password: SecretStr | None = Field(
        None,
        description="Password of the status page (any user name); needed where `STATUS_HOST` is not loopback",
    )
    dagster_ui_url: BaseUrl | None = Field(
        None, description="Address of Dagster's UI for links to it; unset: where `twm up` serves it"
    )

    twm_data_dir: ProjectPath = Field(
        PROJECT_DIR / ".twm",
        description="Folder for the embedded server, logs and files; relative to the project",
    )
    spool_dir: ProjectPath | None = Field(
        None, description="Folder of accepted deliveries; unset: `spool` below `TWM_DATA_DIR`"
    )
    spool_retry_seconds: float = Field(
        60, gt=0, le=86_400, description="First wait of a delivery whose object is faulty; doubles each time"
    )
    spool_reserve_megabytes: int = Field(
        100, ge=0, description="Free space on the spool's disk below which deliveries are put off (503)"
    )
    max_queue_attempts: int = Field(
        3,
        ge=1,
        le=100,
        description="Tries of a delivery whose object is faulty before it is laid to rest in `dead`",
    )
    periodic_backfill_interval: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="Seconds between two polls of an open window; unset: 60, or 5 where no webhooks can arrive",
    )
    backfill_overlap_seconds: float = Field(
        120, ge=0, le=86_400, description="Seconds that every poll steps back behind its checkpoint"
    )
    sync_window_seconds: float = Field(
        900, ge=0, le=86_400, description="Seconds that one run goes on listening; 0: one pass"
    )
    directory_interval_seconds: float = Field(
        900,
        gt=0,
        description="Seconds between two complete reads of projects, task lists, people, tags, companies, teams",
    )
    reconcile_days: int = Field(
        7,
        ge=0,
        le=3650,
        description="Missive: every complete sweep reads messages and comments of conversations active in so"
        " many days again",
    )
    reconcile_conversations: int = Field(
        2000,
        ge=0,
        description="Missive: so many quieter conversations, by turns, are read again by each complete sweep"
        " (two requests and more for each)",
    )
    budget_time_scale: float = Field(
        1,
        gt=0,
        le=10_000,
        description="How many times faster than documented the request budgets refill; 1 for real accounts",
    )

    attachments_download: bool = Field(
        default=True, description="`false`: files of messages are not downloaded; those that were stay"
    )
    attachments_url: StoreUrl | None = Field(
        None,
        description="Where files of messages are kept: a folder, or an address such as `s3://bucket/folder`; unset: `attachments` below `TWM_DATA_DIR`",
    )
    attachments_max_megabytes: int = Field(
        1000, ge=1, le=1_000_000, description="Larger files are not downloaded"
    )
    attachments_skip_types: Words = Field(
        (),
        description="Media types that are not downloaded, separated by commas, such as `text/calendar,application/pgp-signature,image/*`",
    )
    attachments_skip_inline_kilobytes: int = Field(
        0,
        ge=0,
        description="Images that a message shows in its text, such as a signature's logo, are not downloaded below this size",
    )
    attachments_private_hosts: Words = Field(
        (),
        description="Names of hosts in a private network from which files may be downloaded, separated by commas; that of `MISSIVE_BASE_URL` is one of them",
    )
    attachments_reserve_megabytes: int = Field(
        500, ge=0, description="Free space on a disk below which downloads pause"
    )

    label_categories_file: ProjectPath = Field(
        PROJECT_DIR / "data" / "label_categories.json",
        description="Category name → label patterns, as JSON; relative to the project",
    )
    timezone: Annotated[str, AfterValidator(_check_zone)] = Field(
        "Europe/Berlin",
        description="Zone in which bare dates are midnight",
        validation_alias=AliasChoices("TIMEZONE", "timezone"),
    )
    business_hours: Annotated[str, AfterValidator(_check_hours)] = Field(
        "Mo-Fr 09:00-17:00", description="When replies are expected, in `TIMEZONE`: for response times"
    )
    alert_webhook_url: Annotated[SecretStr, AfterValidator(_check_secret_address)] | None = Field(
        None,
        description='Address that takes alerts as Slack does (`{"text": …}`): what fails, and when it is over',
    )
    run_retention_days: int = Field(
        14, ge=1, le=3650, description="Days for which finished runs and what they printed are kept"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe level of this project's lines in its logs"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Form of the logs: lines to read, or one JSON object a line"
    )

    @property
    def expects_webhooks(self) -> bool:
        """Whether the vendors can reach the receiver: hooks are wanted and there is a public address."""
        return not self.disable_webhooks and (self.public_url or self.ngrok_authtoken) is not None

    @property
    def poll_seconds(self) -> float:
        """Seconds between two polls of an open window."""
        if self.periodic_backfill_interval is not None:
            return self.periodic_backfill_interval
        return POLL_SECONDS if self.expects_webhooks else POLL_SECONDS_WITHOUT_WEBHOOKS

    @property
    def publishes(self) -> bool:
        """Whether publishing to Airtable is wanted; without `can_publish` it is switched off all the same."""
        return self.db_backend != "postgres"

    @property
    def can_publish(self) -> bool:
        """Whether the token and the base of Airtable are set."""
        return self.airtable_api_key is not None and self.airtable_base_id is not None

    @property
    def airtable_uploads(self) -> str:
        """The address that takes uploads; the token of another server than Airtable's is not sent there."""
        at_airtable = self.airtable_endpoint_url == AIRTABLE_URL
        return self.airtable_upload_url or (
            AIRTABLE_UPLOAD_URL if at_airtable else self.airtable_endpoint_url
        )

    @property
    def spool_folder(self) -> Path:
        """Where accepted deliveries are kept, a folder for each source below it."""
        return self.spool_dir or self.twm_data_dir / "spool"

    @property
    def attachments_store(self) -> str:
        """Where files of messages are kept: a folder, or an address with a scheme."""
        return self.attachments_url or str(self.twm_data_dir / "attachments")

    @model_validator(mode="before")
    @classmethod
    def _fold_case(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic hands over whatever the sources gave
        """Accept `LOG_LEVEL=info` and `DB_BACKEND=Both`: the intention is not in doubt."""
        for name, fold in (("log_level", str.upper), ("log_format", str.lower), ("db_backend", str.lower)):
            if isinstance(values, dict) and isinstance(values.get(name), str):
                values[name] = fold(values[name].strip())
        return values

    def instant(self, value: date | datetime | None) -> datetime | None:
        """Return *value* as an aware UTC instant; a bare date is midnight in `TIMEZONE`."""
        if value is None:
            return None
        if not isinstance(value, datetime):
            value = datetime.combine(value, time.min)
        if value.tzinfo is None:
            value = value.replace(tzinfo=ZoneInfo(self.timezone))
        return value.astimezone(UTC)


def parse_since(text: str) -> date | datetime:
    """Return the date or time that *text* names (`DD.MM.YYYY` or ISO 8601).

    Raises:
        ConfigError: If *text* is neither.
    """
    try:
        value = _parse_date(text)
    except ValueError as error:
        msg = f"{text!r} is not a date: {error}"
        raise ConfigError(msg) from None
    if not isinstance(value, date):
        msg = f"{text!r} is not a date"
        raise ConfigError(msg)
    return value


def load_settings(**overrides: Any) -> Settings:  # noqa: ANN401 - tests and commands override any field by name
    """Return the settings of the environment and `.env`, or those that `environment_of` handed down.

    Raises:
        ConfigError: Naming each wrong variable, what was read (secrets masked) and what is expected.
    """
    try:
        return Settings(**{**json.loads(os.environ.get(INHERITED) or "{}"), **overrides})
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    except UnicodeDecodeError:
        msg = f"{PROJECT_DIR / '.env'} cannot be read; save it with the encoding UTF-8"
        raise ConfigError(msg) from None


_EXPECTED = {
    "int_parsing": "expected a whole number",
    "float_parsing": "expected a number",
    "bool_parsing": "expected `true` or `false`",
}
"""What the library says of these in its own words."""


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        name = str(problem["loc"][0])
        read = "a value that is not shown" if _is_secret(name) else _without_user(repr(problem.get("input")))
        expected = _EXPECTED.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        lines.append(f"{name.upper()}: read {read}; {expected}")
    return "Settings cannot be used.\n" + "\n".join(f"  {line}" for line in dict.fromkeys(lines))


def _is_secret(name: str) -> bool:
    field = Settings.model_fields.get(name.lower())
    return field is not None and "SecretStr" in str(field.annotation)


def _without_user(text: str) -> str:
    """Return *text* without the user and the password of an address."""
    return re.sub(r"//[^/\s]*@", "//…@", text)


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment in which a child process has exactly these settings, secrets included.

    They travel in one variable of their own: Dagster's commands write `.env` of the current folder over the
    environment, and a setting that is unset here may be set there.
    """
    return {**os.environ, INHERITED: json.dumps(dict(settings), default=_plain)}


def _plain(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value.isoformat() if isinstance(value, date) else str(value)
