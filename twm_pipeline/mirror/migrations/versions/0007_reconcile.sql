-- The complete sweep of a source: where one that was interrupted goes on, and which conversations are next.
CREATE TABLE twm.sweeps (
    source text PRIMARY KEY,
    -- By this database's clock; NULL while none is under way or interrupted.
    began_at timestamptz,
    moved_at timestamptz,
    -- A number in the order of observation: rows seen since are not absent.
    first_seq bigint,
    place jsonb NOT NULL DEFAULT '{}',
    -- Up to this id the conversations have had their turn to be read in full; kept between sweeps.
    turn text NOT NULL DEFAULT '',
    finished_at timestamptz
);

-- What the lists of that sweep have shown so far; empty while there is none.
CREATE TABLE twm.sweep_seen (
    source text NOT NULL,
    stream text NOT NULL,
    object_id text NOT NULL,
    PRIMARY KEY (source, stream, object_id)
);

-- Every pass and every look at the status asks which rows are missing; hardly any ever is.
DO $$
DECLARE
    it record;
BEGIN
    FOR it IN SELECT table_schema, table_name FROM information_schema.columns
               WHERE column_name = 'missing_since' AND table_schema IN ('teamwork', 'missive') LOOP
        EXECUTE format('CREATE INDEX ON %I.%I (missing_since) WHERE missing_since IS NOT NULL',
                       it.table_schema, it.table_name);
    END LOOP;
END $$;
