-- Every field that a vendor was seen to send, with the kind of its values. What was there at the first look of a
-- stream is its baseline; what came later is news.
CREATE TABLE twm.vendor_fields (
    source text NOT NULL,
    stream text NOT NULL,
    field text NOT NULL,
    kind text NOT NULL,
    is_baseline boolean NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, stream, field, kind)
);

-- Where the checks go on: up to when the rows' fields were looked at, and behind which id the next sample begins.
CREATE TABLE twm.check_positions (
    source text NOT NULL,
    stream text NOT NULL,
    fields_seen_until timestamptz,
    sampled_until text,
    PRIMARY KEY (source, stream)
);

-- "What was written lately": a block range index costs writes nothing and is small at any size.
DO $$
DECLARE name text;
BEGIN
    FOR name IN
        SELECT format('%I.%I', table_schema, table_name) FROM information_schema.columns
         WHERE column_name = 'synced_at' AND table_schema IN ('teamwork', 'missive')
    LOOP
        EXECUTE format('CREATE INDEX ON %s USING brin (synced_at) WITH (pages_per_range = 32, autosummarize)', name);
    END LOOP;
END $$;
