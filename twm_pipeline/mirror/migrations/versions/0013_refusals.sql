-- What the vendor refuses to show: a stream, or one mailbox or feed of it. The row goes when it is read again.
CREATE TABLE twm.refusals (
    source text NOT NULL,
    stream text NOT NULL,
    feed text NOT NULL DEFAULT '',
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, stream, feed)
);

-- The files of messages that are hidden wait long (see mirror/attachments.py). They are due at once when the message, or
-- its conversation, is back. In order of ids, as in note_attachments.
CREATE FUNCTION twm.hurry_attachments() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owners text[];
    kind text := TG_TABLE_NAME;
BEGIN
    IF kind = 'emails' THEN
        SELECT array_agg(n.id) INTO owners FROM now_there n JOIN was_there o USING (id)
        WHERE (n.deleted, n.out_of_scope, n.conversation_id, n.attachments)
            IS DISTINCT FROM (o.deleted, o.out_of_scope, o.conversation_id, o.attachments)
            AND NOT n.deleted AND NOT n.out_of_scope;
    ELSIF kind = 'comments' THEN
        SELECT array_agg(n.id) INTO owners FROM now_there n JOIN was_there o USING (id)
        WHERE (n.deleted, n.conversation_id, n.attachment)
            IS DISTINCT FROM (o.deleted, o.conversation_id, o.attachment) AND NOT n.deleted;
    ELSE
        SELECT array_agg(n.id) INTO owners FROM now_there n JOIN was_there o USING (id)
        WHERE o.deleted AND NOT n.deleted;
    END IF;
    IF owners IS NULL THEN
        RETURN NULL;
    END IF;
    UPDATE twm.attachments SET next_try_at = now() WHERE (owner, owner_id, id) IN (
        SELECT a.owner, a.owner_id, a.id FROM twm.attachments a
        WHERE a.state IN ('pending', 'failed') AND a.next_try_at > now()
            AND CASE WHEN kind <> 'conversations' THEN a.owner = kind AND a.owner_id = ANY (owners)
                ELSE (a.owner, a.owner_id) IN (
                    SELECT 'emails', e.id FROM missive.emails e WHERE e.conversation_id = ANY (owners)
                    UNION ALL
                    SELECT 'comments', m.id FROM missive.comments m WHERE m.conversation_id = ANY (owners)
                ) END
        ORDER BY a.owner, a.owner_id, a.id FOR UPDATE
    );
    IF FOUND THEN
        PERFORM pg_notify('twm_attachments', '');
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER twm_attachments_hurry AFTER UPDATE ON missive.conversations
    REFERENCING OLD TABLE AS was_there NEW TABLE AS now_there
    FOR EACH STATEMENT EXECUTE FUNCTION twm.hurry_attachments();
CREATE TRIGGER twm_attachments_hurry AFTER UPDATE ON missive.emails
    REFERENCING OLD TABLE AS was_there NEW TABLE AS now_there
    FOR EACH STATEMENT EXECUTE FUNCTION twm.hurry_attachments();
CREATE TRIGGER twm_attachments_hurry AFTER UPDATE ON missive.comments
    REFERENCING OLD TABLE AS was_there NEW TABLE AS now_there
    FOR EACH STATEMENT EXECUTE FUNCTION twm.hurry_attachments();
