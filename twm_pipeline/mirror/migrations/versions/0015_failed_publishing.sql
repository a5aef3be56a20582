-- Why publishing to a base failed last. The row goes when it works again.
CREATE TABLE twm.publishing_errors (
    base text PRIMARY KEY,
    reason text NOT NULL,
    last_at timestamptz NOT NULL DEFAULT now()
);
