"""The names that bases of the old connector have, and the columns that fill them."""

import pytest

from twm_pipeline.airtable.fields import KEYS, Key, fold, specs
from twm_pipeline.errors import ConfigError
from twm_pipeline.mirror import views
from twm_pipeline.settings import load_settings

OLD = {
    "tasks": {
        "singleLineText": "id name status priority projectId projectName tasklistId tasklistName parentTask"
        " updatedById updatedBy createdById createdBy",
        "multilineText": "description tagIds tags assigneeUserIds assignees attachments",
        "number": "progress estimateMinutes accumulatedEstimatedMinutes",
        "dateTime": "startDate dueDate updatedAt createdAt dateUpdated deletedAt",
    },
    "emails": {
        "singleLineText": "Email_ID Thread_ID Subject From From_Name",
        "multilineText": "To To_Names Cc Cc_Names Bcc Bcc_Names In_Reply_To Body_Text Body_HTML Labels_Text"
        " Source_Links",
        "dateTime": "Sent_At Received_At Deleted_At",
        "checkbox": "Draft Deleted",
        "multipleAttachments": "Attachments",
    },
}
COLUMNS = {"tasks": views._TASK_COLUMNS, "emails": views._EMAIL_COLUMNS}


@pytest.mark.parametrize("key", KEYS)
def test_an_old_base_has_the_fields_under_the_same_names_and_types(key):
    types = {field.name: field.type for field in specs(load_settings(), {})[key].fields}

    wanted = {name.replace("_", " "): kind for kind, names in OLD[key].items() for name in names.split()}
    assert {name: types[name] for name in wanted} == wanted


@pytest.mark.parametrize("key", KEYS)
def test_every_field_is_filled_by_a_column_of_the_view(key):
    columns = {field.column for field in specs(load_settings(), {})[key].fields}

    assert columns - COLUMNS[key].keys() <= {"attachments"}


def test_times_are_shown_in_the_zone_of_the_settings_and_have_all_three_options():
    fields = specs(load_settings(timezone="America/New_York"), {})["tasks"].fields

    [options] = [field.options for field in fields if field.name == "dueDate"]
    assert options == {
        "dateFormat": {"name": "iso"},
        "timeFormat": {"name": "24hour"},
        "timeZone": "America/New_York",
    }


def test_categories_come_last_and_keep_apart_from_fields_and_each_other_whatever_the_case():
    categories: dict[Key, dict[str, str]] = {
        "emails": {"Urgent": "Urgent", "SUBJECT ": "SUBJECT ", "urgent": "urgent"}
    }

    fields = specs(load_settings(), categories)["emails"].fields[-3:]

    assert [(field.name, field.column) for field in fields] == [
        ("Urgent", "Urgent"),
        ("SUBJECT (category)", "SUBJECT "),
        ("urgent (category)", "urgent"),
    ]
    assert {field.type for field in fields} == {"multilineText"}


def test_a_category_that_is_no_more_is_retired():
    fields = specs(load_settings(), {"tasks": {"a": "a"}}, retired={"tasks": {"b": "b"}})["tasks"].fields

    assert [(field.name, field.retired) for field in fields[-2:]] == [("a", False), ("b", True)]


def test_both_tables_cannot_be_one():
    with pytest.raises(ConfigError, match="AIRTABLE_TASKS_TABLE and AIRTABLE_EMAILS_TABLE"):
        specs(load_settings(airtable_tasks_table="Mirror", airtable_emails_table=" mirror"), {})


def test_no_two_fields_have_the_same_name():
    for spec in specs(load_settings(), {}).values():
        names = [fold(field.name) for field in spec.fields]
        assert len(set(names)) == len(names)
