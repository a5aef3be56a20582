CREATE SCHEMA teamwork;
CREATE SCHEMA missive;

-- Bookkeeping that every stream's table shares; DESIGN D4 and D5 say what each column decides.
CREATE TABLE twm.row_template (
    raw jsonb NOT NULL,
    content_hash bytea NOT NULL,
    version_at timestamptz,
    observed_seq bigint NOT NULL,
    deleted boolean NOT NULL DEFAULT false,
    deleted_at timestamptz,
    deleted_evidence text,
    missing_since timestamptz,
    inaccessible boolean NOT NULL DEFAULT false,
    synced_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE teamwork.tasks (
    id bigint PRIMARY KEY,
    title text, description text, description_type text, status text, priority text, progress integer,
    is_private boolean, tasklist_id bigint, parent_task_id bigint,
    assignee_ids bigint[] NOT NULL DEFAULT '{}', assignee_types text[] NOT NULL DEFAULT '{}',
    tag_ids bigint[] NOT NULL DEFAULT '{}',
    start_date date, due_date date, estimate_minutes integer, accumulated_estimate_minutes integer,
    created_at timestamptz, created_by_id bigint, updated_at timestamptz, updated_by_id bigint,
    completed_at timestamptz, completed_by_id bigint,
    out_of_scope boolean NOT NULL DEFAULT false,
    LIKE twm.row_template INCLUDING DEFAULTS
);
CREATE INDEX tasks_updated_at ON teamwork.tasks (updated_at);
CREATE INDEX tasks_tasklist ON teamwork.tasks (tasklist_id);

CREATE TABLE teamwork.projects (
    id bigint PRIMARY KEY,
    name text, description text, status text, type text, company_id bigint, owner_id bigint,
    tag_ids bigint[] NOT NULL DEFAULT '{}', start_at timestamptz, end_at timestamptz,
    created_at timestamptz, updated_at timestamptz, completed_at timestamptz, archived_at timestamptz,
    LIKE twm.row_template INCLUDING DEFAULTS
);

CREATE TABLE teamwork.tasklists (
    id bigint PRIMARY KEY,
    name text, description text, project_id bigint, status text, created_at timestamptz, updated_at timestamptz,
    LIKE twm.row_template INCLUDING DEFAULTS
);
CREATE INDEX tasklists_project ON teamwork.tasklists (project_id);

CREATE TABLE teamwork.people (
    id bigint PRIMARY KEY,
    first_name text, last_name text,
    name text GENERATED ALWAYS AS (
        btrim(coalesce(first_name, '') || ' ' || coalesce(last_name, ''))
    ) STORED,
    email text, title text, type text, company_id bigint, created_at timestamptz, updated_at timestamptz,
    LIKE twm.row_template INCLUDING DEFAULTS
);

CREATE TABLE teamwork.tags (
    id bigint PRIMARY KEY, name text, color text, project_id bigint,
    LIKE twm.row_template INCLUDING DEFAULTS
);

CREATE TABLE teamwork.companies (
    id bigint PRIMARY KEY, name text, status text, website text, created_at timestamptz, updated_at timestamptz,
    LIKE twm.row_template INCLUDING DEFAULTS
);

CREATE TABLE teamwork.teams (
    id bigint PRIMARY KEY, name text, handle text, description text, member_ids bigint[] NOT NULL DEFAULT '{}',
    LIKE twm.row_template INCLUDING DEFAULTS
);

CREATE TABLE missive.conversations (
    id text PRIMARY KEY,
    subject text, latest_message_subject text, organization_id text, organization_name text,
    team_id text, team_name text,
    assignee_ids text[] NOT NULL DEFAULT '{}', assignee_names text[] NOT NULL DEFAULT '{}',
    label_ids text[] NOT NULL DEFAULT '{}', label_names text[] NOT NULL DEFAULT '{}',
    closed boolean, archived boolean, trashed boolean, junked boolean, flagged boolean, snoozed boolean,
    messages_count integer, drafts_count integer, attachments_count integer,
    web_url text, app_url text, created_at timestamptz, last_activity_at timestamptz,
    -- The last_activity_at at which messages and comments were read; where it differs, they are due.
    children_read_at timestamptz,
    merged_into text,
    LIKE twm.row_template INCLUDING DEFAULTS
);
CREATE INDEX conversations_due ON missive.conversations (last_activity_at DESC)
    WHERE children_read_at IS DISTINCT FROM last_activity_at AND merged_into IS NULL;

CREATE TABLE missive.emails (
    id text PRIMARY KEY,
    conversation_id text, type text, subject text, preview text, email_message_id text,
    in_reply_to text[] NOT NULL DEFAULT '{}', "references" text[] NOT NULL DEFAULT '{}',
    from_address text, from_name text,
    to_addresses text[] NOT NULL DEFAULT '{}', to_names text[] NOT NULL DEFAULT '{}',
    cc_addresses text[] NOT NULL DEFAULT '{}', cc_names text[] NOT NULL DEFAULT '{}',
    bcc_addresses text[] NOT NULL DEFAULT '{}', bcc_names text[] NOT NULL DEFAULT '{}',
    reply_to_addresses text[] NOT NULL DEFAULT '{}',
    author_id text, author_name text, body_html text, body_text text,
    attachments jsonb NOT NULL DEFAULT '[]',
    delivered_at timestamptz, created_at timestamptz, updated_at timestamptz,
    stub_hash bytea,
    out_of_scope boolean NOT NULL DEFAULT false,
    LIKE twm.row_template INCLUDING DEFAULTS
);
CREATE INDEX emails_conversation ON missive.emails (conversation_id);
CREATE INDEX emails_delivered_at ON missive.emails (delivered_at);

CREATE TABLE missive.comments (
    id text PRIMARY KEY,
    conversation_id text, body text, author_id text, author_name text, author_email text,
    mentions jsonb NOT NULL DEFAULT '[]', attachment jsonb, task jsonb, created_at timestamptz,
    LIKE twm.row_template INCLUDING DEFAULTS
);
CREATE INDEX comments_conversation ON missive.comments (conversation_id);

CREATE TABLE missive.conversation_aliases (
    old_id text PRIMARY KEY,
    new_id text NOT NULL,
    observed_seq bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);

-- How far each stream has been read (DESIGN D3). last_event_time: below it nothing is missing.
CREATE TABLE twm.checkpoints (
    source text NOT NULL,
    stream text NOT NULL,
    feed text NOT NULL DEFAULT '',
    last_event_time timestamptz,
    last_cursor jsonb NOT NULL DEFAULT '{}',
    scope text,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, stream, feed)
);

-- One row a vendor account: whose rows these are, since when, and how the last pass went.
CREATE TABLE twm.sources (
    source text PRIMARY KEY,
    account text NOT NULL,
    credentials_digest bytea,
    owner_id text,
    first_import_at timestamptz NOT NULL,
    link_base text,
    scope jsonb NOT NULL DEFAULT '{}',
    last_success_at timestamptz,
    last_error text,
    last_error_at timestamptz
);

-- Records parked with their reason; tried again when next_attempt_at has come.
CREATE TABLE twm.set_aside (
    source text NOT NULL,
    stream text NOT NULL,
    object_id text NOT NULL,
    reason text NOT NULL,
    raw jsonb,
    attempts integer NOT NULL DEFAULT 1,
    first_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, stream, object_id)
);

CREATE TABLE twm.counters (
    source text NOT NULL,
    name text NOT NULL,
    value bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (source, name)
);

-- What a running pass is doing, for people who wait: overwritten, never history.
CREATE TABLE twm.progress (
    source text NOT NULL,
    stream text NOT NULL,
    phase text NOT NULL,
    done bigint NOT NULL DEFAULT 0,
    total bigint,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, stream)
);

-- Which categories the views show, in the order of their columns (DESIGN 5: new columns last, never dropped).
CREATE TABLE twm.label_categories (
    category text PRIMARY KEY,
    patterns text[] NOT NULL,
    position serial
);

-- The vendors' request budgets (DESIGN D6), shared by every process.
CREATE SEQUENCE twm.observed_seq CACHE 1;

CREATE TABLE twm.budgets (
    account text PRIMARY KEY,
    lock_key integer GENERATED ALWAYS AS IDENTITY,
    observed_limit integer,
    paused_until timestamptz,
    paused_reason text,
    waiting_until timestamptz,
    requests bigint NOT NULL DEFAULT 0,
    throttled bigint NOT NULL DEFAULT 0
);

-- sent_at becomes the time of the answer once there is one: the vendor counted the request before that.
CREATE TABLE twm.budget_requests (
    seq bigint PRIMARY KEY,
    account text NOT NULL,
    sent_at timestamptz NOT NULL
);
CREATE INDEX budget_requests_sent ON twm.budget_requests (account, sent_at);

-- One row a process that talks to a vendor; alive while its advisory lock (74_770_001, id) is held.
-- oldest_seq: the oldest request whose answer is not yet committed or given up (D4, A→B→A).
CREATE TABLE twm.leases (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL,
    oldest_seq bigint,
    opened_at timestamptz NOT NULL DEFAULT now()
);

-- Ask for leave to send one request. Returns wait_seconds > 0 when it must wait, else the sequence number that
-- the attempt carries and the concurrency slot it holds (0: unlimited). Serialised by the account's row, so a
-- number is never drawn before the lease that carries it can be seen.
CREATE FUNCTION twm.draw_attempt(
    the_account text, the_lease integer, limits integer[], windows double precision[], slots integer,
    OUT wait_seconds double precision, OUT seq bigint, OUT slot integer, OUT reason text
) LANGUAGE plpgsql AS $$
DECLARE
    budget twm.budgets;
    moment timestamptz;
    free_at timestamptz;
    oldest timestamptz;
BEGIN
    wait_seconds := 0; slot := 0;
    SELECT * INTO STRICT budget FROM twm.budgets WHERE account = the_account FOR UPDATE;
    moment := clock_timestamp();
    IF budget.paused_until > moment THEN
        free_at := budget.paused_until; reason := coalesce(budget.paused_reason, 'the vendor asked for a pause');
    END IF;
    FOR i IN 1 .. coalesce(array_length(limits, 1), 0) LOOP
        SELECT sent_at INTO oldest FROM twm.budget_requests
         WHERE account = the_account AND sent_at > moment - make_interval(secs => windows[i])
         ORDER BY sent_at DESC OFFSET limits[i] - 1 LIMIT 1;
        IF FOUND AND (free_at IS NULL OR oldest + make_interval(secs => windows[i]) > free_at) THEN
            free_at := oldest + make_interval(secs => windows[i]);
            reason := format('%s requests in %s s are used', limits[i], round(windows[i]::numeric, 1));
        END IF;
    END LOOP;
    IF free_at IS NULL AND slots > 0 THEN
        FOR i IN 1 .. slots LOOP
            IF pg_try_advisory_lock(budget.lock_key + 74770100, i) THEN slot := i; EXIT; END IF;
        END LOOP;
        IF slot = 0 THEN
            free_at := moment + interval '50 milliseconds';
            reason := format('%s requests are under way', slots);
        END IF;
    END IF;
    IF free_at IS NOT NULL THEN
        wait_seconds := greatest(extract(epoch FROM free_at - moment), 0.001);
        UPDATE twm.budgets SET waiting_until = free_at WHERE account = the_account;
        RETURN;
    END IF;
    seq := nextval('twm.observed_seq');
    INSERT INTO twm.budget_requests (seq, account, sent_at) VALUES (draw_attempt.seq, the_account, clock_timestamp());
    UPDATE twm.budgets SET requests = requests + 1, waiting_until = NULL WHERE account = the_account;
    UPDATE twm.leases SET oldest_seq = coalesce(oldest_seq, seq) WHERE id = the_lease;
    IF seq % 500 = 0 THEN
        DELETE FROM twm.budget_requests WHERE sent_at < clock_timestamp() - interval '1 hour';
    END IF;
END $$;

-- An attempt has been answered or given up: count it from now on, and give its concurrency slot back.
CREATE FUNCTION twm.finish_attempt(the_account text, the_seq bigint, the_slot integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE twm.budget_requests SET sent_at = clock_timestamp() WHERE seq = the_seq;
    IF the_slot > 0 THEN
        PERFORM pg_advisory_unlock(lock_key + 74770100, the_slot) FROM twm.budgets WHERE account = the_account;
    END IF;
END $$;
