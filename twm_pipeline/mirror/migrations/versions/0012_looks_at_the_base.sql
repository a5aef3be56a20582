-- A look at the base: `sample` or `whole` while somebody waits for one, and what the last one found.
ALTER TABLE twm.publications
    DROP COLUMN table_id,
    ADD COLUMN check_wanted text,
    ADD COLUMN check_found jsonb;

-- Files that could not be sent wait longer each time.
ALTER TABLE twm.published ADD COLUMN attachments_due_at timestamptz;
