-- What the mirror tells about the work. Users build views on these: columns are only ever added.
CREATE SCHEMA insights;

CREATE TABLE insights.daily_activity (
    day date NOT NULL,
    dimension text NOT NULL,
    key text NOT NULL,
    name text,
    tasks_created integer NOT NULL,
    tasks_completed integer NOT NULL,
    tasks_reopened integer NOT NULL,
    mails_in integer NOT NULL,
    mails_out integer NOT NULL,
    PRIMARY KEY (day, dimension, key)
);

CREATE TABLE insights.response_times (
    thread_id text PRIMARY KEY,
    asked_at timestamptz NOT NULL,
    replied_at timestamptz,
    replied_by_id text,
    replied_by text,
    seconds double precision,
    business_seconds double precision
);

CREATE TABLE insights.task_flow (
    task_id bigint PRIMARY KEY,
    project_id bigint,
    project_name text,
    status text,
    created_at timestamptz,
    completed_at timestamptz,
    due_at date,
    age_days double precision,
    cycle_days double precision,
    overdue boolean NOT NULL,
    overdue_days integer
);

CREATE TABLE insights.plots (
    name text PRIMARY KEY,
    png bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);

-- Teamwork tells only whether a task is open now. When one was reopened is noted as the mirror sees it.
CREATE TABLE insights.reopenings (
    task_id bigint NOT NULL,
    reopened_at timestamptz NOT NULL,
    PRIMARY KEY (task_id, reopened_at)
);

CREATE FUNCTION twm.note_reopening() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO insights.reopenings (task_id, reopened_at) VALUES (NEW.id, NEW.updated_at) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

CREATE TRIGGER note_reopening_seen AFTER INSERT ON teamwork.tasks FOR EACH ROW
    WHEN (NEW.status = 'reopened' AND NEW.updated_at IS NOT NULL)
    EXECUTE FUNCTION twm.note_reopening();
CREATE TRIGGER note_reopening AFTER UPDATE ON teamwork.tasks FOR EACH ROW
    WHEN (NEW.updated_at IS NOT NULL AND NEW.status = 'reopened' AND OLD.status IS DISTINCT FROM 'reopened')
    EXECUTE FUNCTION twm.note_reopening();

INSERT INTO insights.reopenings (task_id, reopened_at)
    SELECT id, updated_at FROM teamwork.tasks WHERE status = 'reopened' AND updated_at IS NOT NULL;
