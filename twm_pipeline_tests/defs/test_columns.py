import pytest
from sqlalchemy import text

from twm_pipeline.defs.columns import column_schema
from twm_pipeline.mirror.tables import TABLES

NAMES = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
    FROM pg_attribute a
    WHERE a.attrelid = to_regclass(:table) AND a.attnum > 0 AND NOT a.attisdropped
"""


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_columns_shown_are_those_of_the_table(engine, table):
    with engine.connect() as connection:
        real = {row.name: row.type for row in connection.execute(text(NAMES), {"table": table.name})}

    shown = {column.name: column.type for column in column_schema(table).columns}

    assert shown == real
