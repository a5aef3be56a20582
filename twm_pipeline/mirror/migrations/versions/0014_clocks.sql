-- Whether a moment has come that was put at most `longest` ahead. One that lies further ahead was put there before this
-- server's clock was set back, and has come too. The minute is for transactions that began before others.
CREATE FUNCTION twm.is_due(due_at timestamptz, longest interval) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT due_at <= now() OR due_at > now() + longest + interval '1 minute'
$$;

-- As before, but what was noted before this server's clock was set back does not hold up requests for as long as that:
-- no pause is longer than 15 minutes (LONGEST_PAUSE_SECONDS), and what is dated ahead was sent a moment ago.
CREATE OR REPLACE FUNCTION twm.draw_attempt(
    the_account text, the_lease integer, limits integer[], windows double precision[], slots integer,
    OUT wait_seconds double precision, OUT seq bigint, OUT slot integer, OUT reason text
) LANGUAGE plpgsql AS $$
DECLARE
    budget twm.budgets;
    moment timestamptz;
    free_at timestamptz;
    oldest timestamptz;
    newest timestamptz;
BEGIN
    wait_seconds := 0; slot := 0;
    SELECT * INTO STRICT budget FROM twm.budgets WHERE account = the_account FOR UPDATE;
    moment := clock_timestamp();
    IF budget.paused_until > moment + interval '15 minutes' THEN
        UPDATE twm.budgets SET paused_until = NULL WHERE account = the_account;
    ELSIF budget.paused_until > moment THEN
        free_at := budget.paused_until; reason := coalesce(budget.paused_reason, 'the vendor asked for a pause');
    END IF;
    SELECT max(sent_at) INTO newest FROM twm.budget_requests WHERE account = the_account;
    IF newest > moment + interval '1 second' THEN
        UPDATE twm.budget_requests SET sent_at = sent_at - (newest - moment)
         WHERE account = the_account AND sent_at > moment;
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
