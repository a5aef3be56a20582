-- What people do on tasks: the time they log, and what they write.
CREATE TABLE teamwork.time_entries (
    id bigint PRIMARY KEY,
    description text, minutes integer, billable boolean, logged_at timestamptz, person_id bigint,
    task_id bigint, project_id bigint, tag_ids bigint[] NOT NULL DEFAULT '{}', logged_by_id bigint,
    created_at timestamptz, updated_at timestamptz, updated_by_id bigint,
    out_of_scope boolean NOT NULL DEFAULT false,
    LIKE twm.row_template INCLUDING DEFAULTS
);
CREATE INDEX time_entries_task ON teamwork.time_entries (task_id);
CREATE INDEX time_entries_logged_at ON teamwork.time_entries (logged_at);

CREATE TABLE teamwork.task_comments (
    id bigint PRIMARY KEY,
    body text, body_html text, object_type text, object_id bigint, task_id bigint, project_id bigint,
    author_id bigint, created_at timestamptz, updated_at timestamptz, updated_by_id bigint,
    out_of_scope boolean NOT NULL DEFAULT false,
    LIKE twm.row_template INCLUDING DEFAULTS
);
CREATE INDEX task_comments_task ON teamwork.task_comments (task_id);

-- Who and what Missive's conversations name, and what is written there but not sent.
CREATE TABLE missive.shared_labels (
    id text PRIMARY KEY,
    name text, full_name text, parent_id text, color text, organization_id text, visibility text,
    shared_with_organization boolean, shared_with_team_id text, shared_with_user_ids text[] NOT NULL DEFAULT '{}',
    LIKE twm.row_template INCLUDING DEFAULTS
);

CREATE TABLE missive.users (
    id text PRIMARY KEY, name text, email text, is_me boolean,
    LIKE twm.row_template INCLUDING DEFAULTS
);

CREATE TABLE missive.teams (
    id text PRIMARY KEY, name text, organization_id text,
    LIKE twm.row_template INCLUDING DEFAULTS
);

ALTER TABLE missive.emails ADD COLUMN draft boolean NOT NULL DEFAULT false;
CREATE INDEX emails_drafts ON missive.emails (conversation_id) WHERE draft AND NOT deleted;
