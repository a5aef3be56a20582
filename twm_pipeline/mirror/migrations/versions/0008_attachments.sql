-- Files of messages and comments: what became of each. What it is called and whose it is stays in the rows of its owner.
CREATE TABLE twm.attachments (
    owner text NOT NULL CHECK (owner IN ('emails', 'comments')),
    owner_id text NOT NULL,
    id text NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'stored', 'skipped', 'failed')),
    reason text,
    -- The settings by which it was skipped: with others it is looked at again.
    rule text,
    tries integer NOT NULL DEFAULT 0,
    -- Null: not tried again by itself.
    next_try_at timestamptz DEFAULT now(),
    store text,
    path text,
    size bigint,
    sha256 text,
    found_at timestamptz NOT NULL DEFAULT now(),
    stored_at timestamptz,
    PRIMARY KEY (owner, owner_id, id)
);
CREATE INDEX attachments_due ON twm.attachments (found_at DESC)
    WHERE state IN ('pending', 'failed') AND next_try_at IS NOT NULL;

-- A vendor's list that is none, an entry without an id or with an absurd one, is passed over: no file may hold up its
-- message. In order of ids: two processes that find the same files wait for each other in one direction.
CREATE FUNCTION twm.attachment_ids(attachments jsonb) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS $$
    SELECT DISTINCT a ->> 'id'
    FROM jsonb_array_elements(CASE jsonb_typeof(attachments)
        WHEN 'array' THEN attachments WHEN 'object' THEN jsonb_build_array(attachments) ELSE '[]' END) AS a
    WHERE length(a ->> 'id') BETWEEN 1 AND 200
$$;

CREATE FUNCTION twm.note_attachments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'comments' THEN
        INSERT INTO twm.attachments (owner, owner_id, id)
            SELECT 'comments', n.id, f.id FROM now_there n, twm.attachment_ids(n.attachment) AS f (id)
            WHERE n.attachment IS NOT NULL ORDER BY 2, 3
        ON CONFLICT DO NOTHING;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO twm.attachments (owner, owner_id, id)
            SELECT 'emails', n.id, f.id FROM now_there n, twm.attachment_ids(n.attachments) AS f (id)
            WHERE n.attachments <> '[]' ORDER BY 2, 3
        ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO twm.attachments (owner, owner_id, id)
            SELECT 'emails', n.id, f.id
            FROM now_there n JOIN was_there o USING (id), twm.attachment_ids(n.attachments) AS f (id)
            WHERE n.attachments IS DISTINCT FROM o.attachments ORDER BY 2, 3
        ON CONFLICT DO NOTHING;
    END IF;
    IF FOUND THEN
        PERFORM pg_notify('twm_attachments', '');
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER twm_attachments_insert AFTER INSERT ON missive.emails REFERENCING NEW TABLE AS now_there
    FOR EACH STATEMENT EXECUTE FUNCTION twm.note_attachments();
CREATE TRIGGER twm_attachments_update AFTER UPDATE ON missive.emails
    REFERENCING OLD TABLE AS was_there NEW TABLE AS now_there
    FOR EACH STATEMENT EXECUTE FUNCTION twm.note_attachments();
CREATE TRIGGER twm_attachments_insert AFTER INSERT ON missive.comments REFERENCING NEW TABLE AS now_there
    FOR EACH STATEMENT EXECUTE FUNCTION twm.note_attachments();
CREATE TRIGGER twm_attachments_update AFTER UPDATE ON missive.comments REFERENCING NEW TABLE AS now_there
    FOR EACH STATEMENT EXECUTE FUNCTION twm.note_attachments();

INSERT INTO twm.attachments (owner, owner_id, id, found_at)
    SELECT 'emails', e.id, f.id, coalesce(least(e.delivered_at, now()), now())
    FROM missive.emails e, twm.attachment_ids(e.attachments) AS f (id) WHERE e.attachments <> '[]'
    UNION ALL
    SELECT 'comments', m.id, f.id, coalesce(least(m.created_at, now()), now())
    FROM missive.comments m, twm.attachment_ids(m.attachment) AS f (id) WHERE m.attachment IS NOT NULL;

-- The entry with *id* in a vendor's list of attachments, or in the one attachment of a comment.
CREATE FUNCTION twm.attachment_entry(attachments jsonb, id text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT a FROM jsonb_array_elements(CASE jsonb_typeof(attachments)
        WHEN 'array' THEN attachments WHEN 'object' THEN jsonb_build_array(attachments) ELSE '[]' END) AS a
    WHERE a ->> 'id' = id LIMIT 1
$$;

-- Every file with what is known of it. Columns that are not asked for cost nothing.
CREATE VIEW twm.attachment_files AS
SELECT
    a.*,
    c.id AS conversation_id,
    coalesce(c.subject, c.latest_message_subject, e.subject) AS subject,
    f.entry ->> 'filename' AS filename,
    f.entry ->> 'extension' AS extension,
    concat_ws('/', f.entry ->> 'media_type', f.entry ->> 'sub_type') AS media_type,
    CASE jsonb_typeof(f.entry -> 'size') WHEN 'number' THEN
        CASE WHEN (f.entry ->> 'size')::numeric BETWEEN 0 AND 1e15 THEN trunc((f.entry ->> 'size')::numeric)::bigint END
    END AS announced_size,
    coalesce(e.delivered_at, e.created_at, m.created_at) AS sent_at,
    coalesce(position(a.id IN e.body_html) > 0, false) AS inline,
    twm.attachment_entry(coalesce(e.raw -> 'attachments', m.raw -> 'attachment'), a.id) ->> 'url' AS url,
    f.entry IS NULL OR coalesce(e.deleted, m.deleted, true) OR coalesce(c.deleted, false) AS deleted,
    coalesce(e.out_of_scope, false) AS out_of_scope
FROM twm.attachments a
LEFT JOIN missive.emails e ON a.owner = 'emails' AND e.id = a.owner_id
LEFT JOIN missive.comments m ON a.owner = 'comments' AND m.id = a.owner_id
LEFT JOIN missive.conversations c ON c.id = coalesce(e.conversation_id, m.conversation_id)
CROSS JOIN LATERAL (SELECT twm.attachment_entry(coalesce(e.attachments, m.attachment), a.id) AS entry) f;

-- The same for people: which file, of what, where it lies, whether its message still has it.
CREATE VIEW missive.attachments AS
SELECT
    id AS attachment_id,
    CASE owner WHEN 'emails' THEN owner_id END AS email_id,
    CASE owner WHEN 'comments' THEN owner_id END AS comment_id,
    conversation_id, subject, filename, media_type, announced_size, sent_at, state, reason, tries, next_try_at,
    store, path, size, sha256, stored_at, deleted, out_of_scope
FROM twm.attachment_files;
