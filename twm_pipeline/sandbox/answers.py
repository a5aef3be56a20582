"""The questions the vendors' documentation leaves open, as switches.

The first value of each switch is its default. Every other value is something
a real account might do just as well; the product has to be right under each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from twm_pipeline.sandbox.options import Json

ALL_ANSWERS: dict[str, tuple[str | int | bool, ...]] = {
    # Teamwork: what lists hold and leave out.
    "teamwork.show_deleted": ("add", "replace"),
    "teamwork.deleted_after_needs_show_deleted": (False, True),
    "teamwork.deleted_get": ("404", "row"),
    "teamwork.deleted_list_tasks": ("kept", "deleted"),
    "teamwork.updated_after_inclusive": (True, False),
    "teamwork.sub_tasks_by_default": (True, False),
    "teamwork.tie_order": ("id", "id_desc"),
    "teamwork.activity_order": ("newest_first", "oldest_first"),
    "teamwork.feed_order": ("asked", "id", "newest_first"),
    "teamwork.feed_show_deleted": ("add", "replace", "ignored"),
    "teamwork.deleted_task_comments": ("hidden", "kept"),
    # Teamwork: what moves a task's updatedAt.
    "teamwork.delete_bumps_updated_at": (True, False),
    "teamwork.restore_bumps_updated_at": (True, False),
    "teamwork.tag_bumps_updated_at": (True, False),
    "teamwork.comment_bumps_updated_at": (False, True),
    "teamwork.archive_bumps_updated_at": (False, True),
    "teamwork.move_bumps_updated_at": (True, False),
    # Teamwork: paging.
    "teamwork.max_page_size": (500, 250, 100, 50),
    "teamwork.filter_after_paging": (False, True),
    "teamwork.page_meta": ("page_offset", "offset"),
    "teamwork.record_cap": (50_000, 500),
    "teamwork.beyond_cap": ("silent", "422"),
    # Teamwork: how the budget is told.
    "teamwork.rate_header": ("X-Rate-Limit", "x-ratelimit", "none"),
    "teamwork.rate_reset": ("seconds", "epoch"),
    "teamwork.retry_after": ("none", "seconds", "date"),
    "teamwork.requests_per_minute": (150, 300),
    "teamwork.window": ("sliding", "fixed"),
    # Teamwork: managing webhooks.
    "teamwork.webhooks_allowed": (True, False),
    "teamwork.webhooks_before_enabling": ("open", "403", "422"),
    "teamwork.webhook_doubles": ("refused", "accepted"),
    "teamwork.webhook_event_case": ("upper", "as_given", "strict"),
    "teamwork.webhook_page_size": (0, 50, 2),
    "teamwork.webhook_default_version": ("2", "1"),
    "teamwork.paused_status": ("PAUSED", "INACTIVE"),
    # Teamwork: what webhooks tell, and how.
    "teamwork.restore_fires": ("none", "UPDATED"),
    "teamwork.unarchive_fires": ("none", "UPDATED", "REOPENED"),
    "teamwork.updated_fires_too": (False, True),
    "teamwork.deletion_id": ("id", "ID", "object.id"),
    "teamwork.event_header": (True, False),
    "teamwork.webhook_retries": ("hourly", "minutes"),
    # Missive: paging.
    "missive.until_inclusive": (True, False),
    "missive.limit_over_max": ("cap", "400"),
    # Missive: what `all=true` holds.
    "missive.all_includes_trashed": (False, True),
    "missive.all_includes_junked": (False, True),
    "missive.all_includes_closed": (True, False),
    # Missive: what moves last_activity_at.
    "missive.label_bumps_activity": (False, True),
    "missive.assign_bumps_activity": (False, True),
    "missive.comment_bumps_activity": (True, False),
    "missive.close_bumps_activity": (False, True),
    "missive.trash_bumps_activity": (False, True),
    "missive.merge_bumps_activity": (True, False),
    # Missive: drafts.
    "missive.draft_bumps_activity": (False, True),
    "missive.draft_bodies": ("alone", "listed"),
    "missive.undated_drafts": ("by_creation", "first", "last"),
    "missive.sent_draft_keeps_id": (True, False),
    # Missive: reading several messages, guests, attachments.
    "missive.max_message_ids": (10, 50, 2),
    "missive.too_many_ids": ("400", "truncate"),
    "missive.missing_in_multi": ("omit", "404"),
    "missive.single_in_multi": ("array", "object"),
    "missive.guest_children": ("empty", "404"),
    "missive.attachment_seconds": (3600, 5),
    "missive.error_shape": ("error", "errors", "message"),
    # Missive: how the budget is told.
    "missive.rate_headers_on_200": (False, True),
    "missive.retry_after": ("seconds", "date"),
    "missive.window": ("sliding", "fixed"),
    # Missive: managing hooks.
    "missive.hook_created_status": (201, 200),
    "missive.hook_validation": (False, True),
    "missive.validation_body": ("rule", "empty_object", "empty"),
    "missive.hook_signature": ("none", "unknown_key"),
    # Airtable: how cells are taken.
    "airtable.text_unit": ("utf16", "characters"),
    "airtable.single_line_newlines": ("lost", "refused", "kept"),
    "airtable.control_characters": ("refused", "dropped"),
    "airtable.number_rounding": ("kept", "rounded"),
    # Airtable: upserts and batches.
    "airtable.equal_keys": ("duplicates", "refused"),
    "airtable.upsert_race_milliseconds": (0, 50),
    "airtable.several_matches": ("INVALID_REQUEST_UNKNOWN", "INVALID_RECORDS"),
    "airtable.missing_in_batch": ("422", "404", "403", "422_model"),
    "airtable.missing_record": ("MODEL_ID_NOT_FOUND", "NOT_FOUND"),
    "airtable.missing_table": ("403", "404"),
    "airtable.done_before_5xx": ("nothing", "all", "half"),
    # Airtable: lists.
    "airtable.record_order": ("created", "arbitrary"),
    "airtable.iterator_seconds": (600, 5),
    "airtable.bases_page": (1000, 1),
    # Airtable: attachments.
    "airtable.failed_attachment": ("disappears", "dead_url"),
    "airtable.upload_host": ("content", "both"),
    # Airtable: limits and refusals.
    "airtable.retry_after": ("none", "seconds", "date"),
    "airtable.quota_exhausted": ("stop", "slow"),
    "airtable.records_per_base": (0, 100),
    "airtable.largest_body": (10_000_000, 1_000_000),
    "airtable.too_large": ("json", "html", "empty"),
    "airtable.whoami_scopes": (True, False),
    "airtable.unauthorized": ("AUTHENTICATION_REQUIRED", "UNAUTHORIZED"),
    "airtable.error_shape": ("object", "type_only", "string"),
}


class Answers:
    """The answers one sandbox gives; they may change while it runs.

    Args:
        chosen: Switches that differ from their defaults.
    """

    def __init__(self, chosen: Mapping[str, Any]) -> None:
        self._values: dict[str, Any] = {name: values[0] for name, values in ALL_ANSWERS.items()}
        self.version = 0
        for name, value in chosen.items():
            self.set(name, value)

    def __getitem__(self, name: str) -> Json:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def set(self, name: str, value: Json) -> None:
        """Give another answer from now on.

        Numbers may be any non-negative integer, not only the listed ones.

        Raises:
            ValueError: If the switch is unknown or cannot have this value.
        """
        if name not in ALL_ANSWERS:
            raise ValueError(f"unknown switch {name!r}")
        known = ALL_ANSWERS[name]
        if type(known[0]) is int:
            fits = type(value) is int and value >= 0
        else:
            fits = any(type(value) is type(item) and value == item for item in known)
        if not fits:
            raise ValueError(f"{name} cannot be {value!r}; known values: {known}")
        self._values[name] = value
        self.version += 1

    def to_dict(self) -> dict[str, Any]:
        """Return every switch with its present value."""
        return dict(self._values)
