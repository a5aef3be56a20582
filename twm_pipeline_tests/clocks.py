"""Moments in the mirror as a jump of PostgreSQL's clock leaves them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine, text

OF_THE_VENDORS = (
    "twm.checkpoints.last_event_time",
    "twm.sources.first_import_at",
    "twm.second_looks.due_at",
)
_COLUMNS = """
    SELECT format('%I.%I', table_schema, table_name), column_name FROM information_schema.columns
    WHERE data_type LIKE 'timestamp%' AND is_generated = 'NEVER'
        AND (table_schema, table_name) IN (SELECT schemaname, tablename FROM pg_tables)
        AND (table_schema = 'twm' OR (table_schema IN ('teamwork', 'missive') AND column_name = 'synced_at'))
    ORDER BY 1, 2
"""


def set_clock_back(engine: Engine, by: timedelta) -> None:
    """Date what PostgreSQL's clock has dated as if it was set back since, or forward (*by* < 0)."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # no trigger notes a change
        for table, column in connection.execute(text(_COLUMNS)).all():
            if f"{table}.{column}" not in OF_THE_VENDORS:
                connection.execute(text(f'UPDATE {table} SET "{column}" = "{column}" + :by'), {"by": by})
