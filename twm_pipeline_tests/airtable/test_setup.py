"""Set-up of a base: what is adopted, made, followed and refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.airtable.fields import FoundField, FoundTable, Key, Layout, fold, specs
from twm_pipeline.airtable.setup import ACCEPTED_TYPES, check_access, plan_setup, set_up
from twm_pipeline.errors import ConfigError, RequestRefusedError, UnansweredError
from twm_pipeline.settings import load_settings
from twm_pipeline_tests.airtable.fakes import ALL_SCOPES, FakeBase

SPECS = specs(load_settings(), {"tasks": {"Urgent": "Urgent"}, "emails": {"Urgent": "Urgent"}})
TASKS, EMAILS = SPECS["tasks"], SPECS["emails"]


def field(name, kind="singleLineText", id=None):
    return FoundField(id=id or f"fld{name}", name=name, type=kind)


def table(name, *fields, id=None):
    return FoundTable(id=id or f"tbl{name}", name=name, fields=fields)


def old_base() -> list[FoundTable]:
    """Return the tables of the old connector: without what came later, with fields of the user's own."""
    ours = {key: [field(it.name, it.type) for it in spec.fields] for key, spec in SPECS.items()}
    return [
        table("Emails", *ours["emails"][:22], field("Follow-up", "singleSelect")),
        table("Tasks", field("Summary", "formula"), *ours["tasks"][:28]),
        table("Projects", field("id"), field("name")),
    ]


def test_an_empty_base_gets_both_tables_with_the_key_first():
    base = FakeBase()

    layouts = set_up(base, SPECS, {})

    assert [found.name for found in base.tables] == ["Tasks", "Emails"]
    for key, found in zip(SPECS, base.tables, strict=True):
        assert [it.name for it in found.fields] == [it.name for it in SPECS[key].fields]
        assert layouts[key] == Layout(table_id=found.id, fields={it.name: it.id for it in found.fields})


def test_a_second_set_up_makes_nothing():
    base = FakeBase()
    layouts = set_up(base, SPECS, {})
    base.written.clear()

    assert set_up(base, SPECS, layouts) == set_up(base, SPECS, {}) == layouts
    assert base.written == []


def test_an_old_base_is_adopted_and_only_what_is_new_is_added():
    base = FakeBase(tables=old_base())

    layouts = set_up(base, SPECS, {})

    assert base.written == [
        *("url", "completedAt", "deleted", "inaccessible", "Urgent"),
        *("URL", "Assignees", "Team", "Inaccessible", "Urgent"),
    ]
    assert layouts["emails"].fields["Body HTML"] == "fldBody HTML"
    assert not {"Follow-up", "Summary"} & {*layouts["emails"].fields, *layouts["tasks"].fields}


def test_names_are_found_whatever_their_case():
    base = FakeBase(tables=[table("TASKS", *(field(it.name.upper(), it.type) for it in TASKS.fields))])

    layouts = set_up(base, {"tasks": TASKS}, {})

    assert base.written == []
    assert layouts["tasks"].fields["dueDate"] == "fldDUEDATE"


def test_renames_are_followed_by_id():
    base = FakeBase(tables=[table("Tasks", *(field(it.name, it.type) for it in TASKS.fields))])
    layouts = set_up(base, {"tasks": TASKS}, {})
    renamed = replace(
        base.tables[0],
        name="Aufgaben",
        fields=tuple(replace(it, name=f"Feld {n}") for n, it in enumerate(base.tables[0].fields)),
    )
    base.tables = [table("Tasks", field("id"), id="tblNewcomer"), renamed]

    assert set_up(base, {"tasks": TASKS}, layouts) == layouts
    assert base.written == []


def test_a_field_the_user_deleted_is_made_again():
    base = FakeBase()
    layouts = set_up(base, {"tasks": TASKS}, {})
    kept = tuple(it for it in base.tables[0].fields if it.name != "priority")
    base.tables[0] = replace(base.tables[0], fields=kept)
    base.written.clear()

    again = set_up(base, {"tasks": TASKS}, layouts)

    assert base.written == ["priority"]
    assert again["tasks"].fields["priority"] != layouts["tasks"].fields["priority"]


def test_a_wiped_base_gets_its_tables_again():
    base = FakeBase()
    layouts = set_up(base, SPECS, {})
    base.tables.clear()

    assert set_up(base, SPECS, layouts).keys() == SPECS.keys()
    assert [found.name for found in base.tables] == ["Tasks", "Emails"]


@pytest.mark.parametrize(
    "known", [{}, {"tasks": Layout(table_id="tblTasks", fields={"status": "fldstatus"})}]
)
def test_a_wrong_type_is_named_with_both_ways_out(known):
    base = FakeBase(tables=[table("Tasks", field("id"), field("status", "singleSelect"))])

    with pytest.raises(ConfigError) as caught:
        set_up(base, {"tasks": TASKS}, known)

    [line] = str(caught.value).splitlines()[1:]
    assert line.strip().startswith("table 'Tasks', field 'status': its type is singleSelect, expected is ")
    assert "either rename that field, then a new 'status' is made beside it" in line
    assert "or change its type to singleLineText" in line
    assert base.written == []


def test_every_wrong_type_of_both_tables_is_named_at_once():
    tables = [table("Tasks", field("tags", "multipleSelects")), table("Emails", field("DRAFT", "number"))]

    with pytest.raises(ConfigError, match=r"(?s)'tags'.*'DRAFT'"):
        plan_setup(SPECS, tables, {})


def test_renaming_the_field_of_a_wrong_type_is_a_way_out():
    known: dict[Key, Layout] = {"tasks": Layout(table_id="tblTasks", fields={"status": "fldstatus"})}
    renamed = field("status (mine)", "singleSelect", id="fldstatus")
    base = FakeBase(tables=[table("Tasks", field("id"), renamed)])

    layouts = set_up(base, {"tasks": TASKS}, known)

    assert "status" in base.written
    assert layouts["tasks"].fields["status"] != "fldstatus"
    assert renamed in base.tables[0].fields


def test_a_wider_text_type_is_taken():
    base = FakeBase(tables=[table("Tasks", field("id"), field("name", "multilineText"))])

    assert set_up(base, {"tasks": TASKS}, {})["tasks"].fields["name"] == "fldname"


def test_a_field_with_the_name_of_another_of_ours_is_pointed_out():
    known: dict[Key, Layout] = {
        "tasks": Layout(table_id="tblTasks", fields={"id": "fldid", "name": "fldname"})
    }
    base = FakeBase(tables=[table("Tasks", field("id"), field("status", id="fldname"))])

    with pytest.raises(ConfigError, match="field 'status': it holds 'name' and has been given the name of"):
        set_up(base, {"tasks": TASKS}, known)


def test_a_table_with_the_name_of_the_other_is_pointed_out():
    known: dict[Key, Layout] = {"tasks": Layout(table_id="tblTasks", fields={})}

    with pytest.raises(ConfigError, match="table 'emails': it holds tasks and has been given the name"):
        plan_setup(SPECS, [table("emails", id="tblTasks")], known)


def options_of(base: FakeBase, name: str, option: str) -> list[str]:
    return [it["options"][option] for it in base.sent if it["name"] == name]


def test_a_time_zone_that_airtable_has_no_name_for_becomes_utc_and_no_other_does():
    knows, knows_not = FakeBase(is_free=True), FakeBase(zones=frozenset({"utc"}))

    set_up(knows, SPECS, {})
    set_up(knows_not, SPECS, {})

    assert options_of(knows, "Sent At", "timeZone")[-1] == "Europe/Berlin"
    assert options_of(knows_not, "Sent At", "timeZone") == ["utc"]
    assert options_of(knows_not, "dueDate", "timeZone") == ["utc"]


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC"])
def test_utc_is_asked_for_by_the_name_it_has_at_airtable(zone):
    base = FakeBase(zones=frozenset({"utc"}))

    set_up(base, specs(load_settings(timezone=zone), {}), {})

    assert options_of(base, "Draft", "color") == ["yellowBright"]


def test_a_refusal_that_no_other_options_mend_is_told_in_its_first_words():
    base = FakeBase(zones=frozenset(), is_free=True)

    with pytest.raises(RequestRefusedError, match="timeZone"):
        set_up(base, {"tasks": TASKS}, {})


def test_colours_give_way_only_where_the_plan_refuses_them():
    paid, free = FakeBase(), FakeBase(is_free=True)

    set_up(paid, SPECS, {})
    set_up(free, SPECS, {})

    assert color_of(paid, "Draft") == "yellowBright"
    assert color_of(free, "Draft") == color_of(free, "Deleted") == color_of(paid, "Deleted") == "greenBright"


def test_a_single_field_gives_way_too():
    base = FakeBase(is_free=True, tables=[table("Emails", field("Email ID"))])

    set_up(base, {"emails": EMAILS}, {})

    assert color_of(base, "Draft") == "greenBright"


def color_of(base, name):
    return [it["options"]["color"] for it in base.sent if it["name"] == name][-1]


def test_a_retired_category_is_emptied_where_it_is_known_and_never_made():
    wanted = specs(load_settings(), {}, retired={"tasks": {"Old": "Old"}})["tasks"]
    base = FakeBase(tables=[table("Tasks", field("id"), field("Old", "multilineText"))])
    known: dict[Key, Layout] = {"tasks": Layout(table_id="tblTasks", fields={"Old": "fldOld"})}

    assert set_up(base, {"tasks": wanted}, known)["tasks"].fields["Old"] == "fldOld"
    stranger = set_up(base, {"tasks": wanted}, {})["tasks"]
    assert "Old" not in stranger.fields
    assert stranger.by_id({"id": "1", "Old": None}) == {"fldid": "1"}


@pytest.mark.parametrize("error", [UnansweredError("503"), RequestRefusedError("422 DUPLICATE")], ids=type)
def test_what_was_made_in_spite_of_a_failure_is_found_and_not_made_twice(error):
    base = FakeBase(failures=[error])

    layouts = set_up(base, SPECS, {})

    assert base.written == ["Tasks", "Emails"]
    assert layouts["tasks"].table_id == base.tables[0].id


def test_an_outage_that_lasts_is_raised():
    with pytest.raises(UnansweredError):
        set_up(FakeBase(tables=old_base(), failures=[UnansweredError("503")] * 40), SPECS, {})


def test_access_to_an_empty_base_says_what_would_be_made():
    base = FakeBase()

    access = check_access(base, SPECS, {})

    assert access.problems == ()
    assert list(map(str, access.actions)) == [
        f"make table 'Tasks' with {len(TASKS.fields)} fields",
        f"make table 'Emails' with {len(EMAILS.fields)} fields",
    ]
    assert base.written == []


ACCESS = {
    "no scope for the schema": (
        FakeBase(scopes=frozenset({"data.records:read"})),
        "data.records:write, schema.bases:read, schema.bases:write",
    ),
    "no scope to write": (FakeBase(scopes=ALL_SCOPES - {"data.records:write"}), "data.records:write"),
    "no scope to make fields": (FakeBase(scopes=ALL_SCOPES - {"schema.bases:write"}), "schema.bases:write"),
    "an editor": (FakeBase(level="edit"), "role Creator"),
    "another base": (FakeBase(level=None), "may not reach the base AIRTABLE_BASE_ID"),
    "a wrong type": (FakeBase(tables=[table("Tasks", field("id", "number"))]), "its type is number"),
}


@pytest.mark.parametrize(("base", "words"), ACCESS.values(), ids=ACCESS)
def test_what_stands_in_the_way_is_said_in_words(base, words):
    [problem] = check_access(base, SPECS, {}).problems

    assert words in problem
    assert base.written == []


@pytest.mark.parametrize("level", ["edit", "create", "owner", "something new"])
@pytest.mark.parametrize("scopes", [ALL_SCOPES - {"schema.bases:write"}, None], ids=["fewer", "untold"])
def test_an_editor_is_enough_where_nothing_has_to_be_made(level, scopes):
    base = FakeBase()
    set_up(base, SPECS, {})
    base.level, base.scopes = level, scopes

    access = check_access(base, SPECS, {})

    assert (access.problems, access.actions) == ((), ())


def test_a_reader_is_not_enough():
    base = FakeBase()
    layouts = set_up(base, SPECS, {})
    base.level = "comment"

    assert "role Editor" in check_access(base, SPECS, layouts).problems[0]


SMALL = {key: replace(spec, fields=(*spec.fields[:4], *spec.fields[-5:])) for key, spec in SPECS.items()}
NAMES = st.sampled_from(
    [variant for spec in SMALL.values() for it in spec.fields for variant in (it.name, f" {it.name.upper()}")]
    + ["Notes", "Straße", "STRASSE", "İd"]
)
TYPES = st.sampled_from([*{it.type for spec in SMALL.values() for it in spec.fields}, "formula", "unheardOf"])
TABLE_NAMES = st.sampled_from(["Tasks", "TASKS", " emails", "Emails", "Projects"])


@st.composite
def schemas(draw):
    names = draw(st.lists(TABLE_NAMES, unique_by=fold, max_size=4))
    return [
        table(
            name,
            *(
                field(it, draw(TYPES), id=f"fld{place}.{n}")
                for n, it in enumerate(draw(st.lists(NAMES, unique_by=fold, max_size=10)))
            ),
            id=f"tbl{place}",
        )
        for place, name in enumerate(names)
    ]


@st.composite
def bases(draw):
    """Draw a base, and what an earlier set-up may have known of it."""
    tables = draw(schemas())
    known = {}
    places = draw(st.permutations(tables)) if tables and draw(st.booleans()) else []
    for key, found in zip(SMALL, places, strict=False):
        ids = draw(st.permutations([it.id for it in found.fields] + ["fldGone"]))
        names = [it.name for it in SMALL[key].fields]
        known[key] = Layout(table_id=found.id, fields=dict(zip(names, ids, strict=False)))
    return tables, known


@given(bases())
def test_after_any_set_up_nothing_is_left_to_do_and_nothing_of_others_was_touched(drawn):
    tables, known = drawn
    base = FakeBase(tables=list(tables))
    try:
        plan_setup(SMALL, tables, known)
    except ConfigError:
        with pytest.raises(ConfigError):
            set_up(base, SMALL, known)
        assert base.tables == tables
        return

    layouts = set_up(base, SMALL, known)

    assert all(not plan.actions for plan in plan_setup(SMALL, base.tables, layouts).values())
    if not known:
        assert set_up(base, SMALL, {}) == layouts
    for before, after in zip(tables, base.tables, strict=False):
        assert after.fields[: len(before.fields)] == before.fields
        assert (after.id, after.name) == (before.id, before.name)
    for key, layout in layouts.items():
        [found] = [it for it in base.tables if it.id == layout.table_id]
        types = {it.id: it.type for it in found.fields}
        assert len({fold(it.name) for it in found.fields}) == len(found.fields)
        assert len(set(layout.fields.values())) == len(layout.fields) == len(SMALL[key].fields)
        for it in SMALL[key].fields:
            assert types[layout.fields[it.name]] in ACCEPTED_TYPES.get(it.type, (it.type,))
