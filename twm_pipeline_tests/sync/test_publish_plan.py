"""What is planned to be published: every row once, and nothing that Airtable shows already."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twm_pipeline.airtable.cells import Cells, digest
from twm_pipeline.mirror.published import Published
from twm_pipeline.sync.publish_plan import Plan, plan_publish

IDS = st.sampled_from("abcdef")
CELLS: st.SearchStrategy[Cells] = st.fixed_dictionaries(
    {"fld1": st.sampled_from(["x", "y", None]), "fld2": st.booleans()}
)
ROWS = st.dictionaries(IDS, CELLS)


@st.composite
def publications(draw: st.DrawFn) -> dict[str, Published]:
    """Return what may be known: a record or none, the digest of some cells or none."""
    return {
        row_id: Published(
            row_id=row_id,
            record_id=draw(st.sampled_from([None, f"rec{row_id}"])),
            cells_hash=draw(st.none() | CELLS.map(digest)),
        )
        for row_id in draw(st.sets(IDS))
    }


def applied(plan: Plan, known: dict[str, Published]) -> dict[str, Published]:
    """Return what is known when everything planned was done."""
    after = {row_id: item for row_id, item in known.items() if item not in plan.removals}
    for write in plan.writes:
        record_id = write.record_id or f"new{write.row_id}"
        after[write.row_id] = Published(row_id=write.row_id, record_id=record_id, cells_hash=write.cells_hash)
    return after


@given(ids=st.lists(IDS), rows=ROWS, known=publications())
def test_what_was_sent_is_not_sent_again(ids, rows, known):
    once = plan_publish(ids, rows, known)

    again = plan_publish(ids, rows, applied(once, known))

    assert not again.writes
    assert not again.removals
    assert set(again.unchanged) == set(ids)


@given(ids=st.lists(IDS), rows=ROWS, known=publications())
def test_every_row_is_written_removed_or_left_alone(ids, rows, known):
    plan = plan_publish(ids, rows, known)

    written = [write.row_id for write in plan.writes]
    removed = [item.row_id for item in plan.removals]
    assert sorted([*written, *removed, *plan.unchanged]) == sorted(set(ids))
    assert all(row_id in rows for row_id in written)
    assert all(row_id in known and row_id not in rows for row_id in removed)


@given(ids=st.lists(IDS), rows=ROWS, known=publications())
def test_only_what_differs_is_written_and_to_the_record_that_shows_it(ids, rows, known):
    for write in plan_publish(ids, rows, known).writes:
        before = known.get(write.row_id)
        assert write.cells == rows[write.row_id]
        assert write.record_id == (before.record_id if before else None)
        assert before is None or before.record_id is None or before.cells_hash != digest(write.cells)
