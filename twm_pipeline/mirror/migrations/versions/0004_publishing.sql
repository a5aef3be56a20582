-- Rows of the people's views that may have changed since they were compared with what is published.
-- Read and removed row by row: the order of ids is not the order of commits.
CREATE TABLE twm.change_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    view text NOT NULL,
    row_id text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX change_log_row ON twm.change_log (view, row_id);

-- What was last published of each row; a null hash: it has to be written again.
CREATE TABLE twm.published (
    base text NOT NULL,
    view text NOT NULL,
    row_id text NOT NULL,
    record_id text,
    cells_hash bytea,
    attachments_hash bytea,
    attachments_sent_at timestamptz,
    published_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (base, view, row_id)
);
CREATE UNIQUE INDEX published_record ON twm.published (base, record_id) WHERE record_id IS NOT NULL;

-- Tables and fields of a base by their ids, which survive renames; an empty field name is the table itself.
CREATE TABLE twm.published_fields (
    base text NOT NULL,
    view text NOT NULL,
    field text NOT NULL,
    field_id text NOT NULL,
    PRIMARY KEY (base, view, field)
);

-- One row a base and view: which fields it was set up for, and when everything was last compared.
CREATE TABLE twm.publications (
    base text NOT NULL,
    view text NOT NULL,
    table_id text,
    spec_hash bytea,
    compared_at timestamptz,
    checked_at timestamptz,
    check_cursor text,
    PRIMARY KEY (base, view)
);

-- Calls a month, for the workspace's quota.
CREATE TABLE twm.monthly_calls (
    account text NOT NULL,
    month date NOT NULL,
    calls bigint NOT NULL DEFAULT 0,
    exhausted_at timestamptz,
    PRIMARY KEY (account, month)
);

-- Each function notes the rows of the views that show what a statement changed, and wakes whoever publishes.
CREATE FUNCTION twm.note_changes(shown_in text, ids text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(array_length(ids, 1), 0) > 0 THEN
        INSERT INTO twm.change_log (view, row_id) SELECT shown_in, unnest(ids);
        PERFORM pg_notify('twm_changes', shown_in);
    END IF;
END $$;

CREATE FUNCTION twm.note_new_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM twm.note_changes(TG_TABLE_NAME, ARRAY(SELECT id::text FROM now_there));
    RETURN NULL;
END $$;

CREATE FUNCTION twm.note_changed_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM twm.note_changes('tasks', ARRAY(
        SELECT n.id::text FROM now_there n JOIN was_there o USING (id)
        WHERE (n.content_hash, n.deleted, n.deleted_at, n.inaccessible, n.out_of_scope)
            IS DISTINCT FROM (o.content_hash, o.deleted, o.deleted_at, o.inaccessible, o.out_of_scope)));
    RETURN NULL;
END $$;

CREATE FUNCTION twm.note_changed_emails() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM twm.note_changes('emails', ARRAY(
        SELECT n.id FROM now_there n JOIN was_there o USING (id)
        WHERE (n.content_hash, n.conversation_id, n.deleted, n.deleted_at, n.inaccessible, n.out_of_scope)
            IS DISTINCT FROM
            (o.content_hash, o.conversation_id, o.deleted, o.deleted_at, o.inaccessible, o.out_of_scope)));
    RETURN NULL;
END $$;

CREATE FUNCTION twm.note_conversations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM twm.note_changes('emails', ARRAY(
            SELECT e.id FROM missive.emails e JOIN now_there n ON n.id = e.conversation_id));
    ELSE
        PERFORM twm.note_changes('emails', ARRAY(
            SELECT e.id FROM now_there n JOIN was_there o USING (id)
            JOIN missive.emails e ON e.conversation_id = n.id
            WHERE (n.content_hash, n.deleted, n.deleted_at, n.inaccessible)
                IS DISTINCT FROM (o.content_hash, o.deleted, o.deleted_at, o.inaccessible)));
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION twm.note_tasklists() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM twm.note_changes('tasks', ARRAY(
            SELECT t.id::text FROM teamwork.tasks t JOIN now_there n ON n.id = t.tasklist_id));
    ELSE
        PERFORM twm.note_changes('tasks', ARRAY(
            SELECT t.id::text FROM now_there n JOIN was_there o USING (id)
            JOIN teamwork.tasks t ON t.tasklist_id = n.id
            WHERE (n.name, n.project_id) IS DISTINCT FROM (o.name, o.project_id)));
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION twm.note_projects() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE changed bigint[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        changed := ARRAY(SELECT id FROM now_there);
    ELSE
        changed := ARRAY(SELECT n.id FROM now_there n JOIN was_there o USING (id) WHERE n.name IS DISTINCT FROM o.name);
    END IF;
    IF coalesce(array_length(changed, 1), 0) > 0 THEN
        PERFORM twm.note_changes('tasks', ARRAY(
            SELECT t.id::text FROM teamwork.tasks t JOIN teamwork.tasklists l ON l.id = t.tasklist_id
            WHERE l.project_id = ANY (changed)));
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION twm.note_names() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE changed bigint[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        changed := ARRAY(SELECT id FROM now_there);
    ELSIF TG_TABLE_NAME = 'people' THEN
        changed := ARRAY(SELECT n.id FROM now_there n JOIN was_there o USING (id)
            WHERE to_jsonb(n) -> 'name' IS DISTINCT FROM to_jsonb(o) -> 'name'
                OR to_jsonb(n) -> 'email' IS DISTINCT FROM to_jsonb(o) -> 'email');
    ELSE
        changed := ARRAY(SELECT n.id FROM now_there n JOIN was_there o USING (id) WHERE n.name IS DISTINCT FROM o.name);
    END IF;
    IF coalesce(array_length(changed, 1), 0) = 0 THEN
        RETURN NULL;
    END IF;
    IF TG_TABLE_NAME = 'tags' THEN
        PERFORM twm.note_changes('tasks', ARRAY(SELECT id::text FROM teamwork.tasks WHERE tag_ids && changed));
    ELSE
        PERFORM twm.note_changes('tasks', ARRAY(
            SELECT id::text FROM teamwork.tasks
            WHERE assignee_ids && changed OR created_by_id = ANY (changed) OR updated_by_id = ANY (changed)));
    END IF;
    RETURN NULL;
END $$;
