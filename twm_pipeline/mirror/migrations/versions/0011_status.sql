-- How many rows each batch wrote, for charts and counters. Only ever appended to: batches that store rows at
-- the same time must not wait for one another here. After two days the rows of an hour become one.
CREATE TABLE twm.activity (
    source text NOT NULL,
    stream text NOT NULL,
    rows bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    folded boolean NOT NULL DEFAULT false
);
CREATE INDEX activity_recent ON twm.activity (at) WHERE NOT folded;
