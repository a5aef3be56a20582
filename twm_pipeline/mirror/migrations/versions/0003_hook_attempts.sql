-- `proof`: keyed digest of the token or secret path a hook was made with; null where that is not known.
-- A row with the status 'asked' or 'refused' is no hook but a creation without a good end: asked for, never
-- answered, or refused with the words in `problem`; `attempts` of them, the last one at `checked_at`.
ALTER TABLE twm.hooks
    ADD COLUMN proof bytea,
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN problem text;
