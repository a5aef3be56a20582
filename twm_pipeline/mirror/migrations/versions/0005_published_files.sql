-- Files of published e-mails: how often sending them failed silently, and when those sent were looked at.
ALTER TABLE twm.published ADD COLUMN attachments_tries integer NOT NULL DEFAULT 0;
CREATE INDEX published_files ON twm.published (base, attachments_sent_at) WHERE attachments_sent_at IS NOT NULL;
CREATE INDEX emails_with_attachments ON missive.emails (id) WHERE attachments <> '[]'::jsonb;

-- A digest of which files an e-mail has, null where it has none.
CREATE FUNCTION twm.file_set(attachments jsonb) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT decode(md5(string_agg(a ->> 'id', ',' ORDER BY a ->> 'id')), 'hex')
    FROM jsonb_array_elements(attachments) AS a
$$;
