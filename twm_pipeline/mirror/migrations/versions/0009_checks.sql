-- Checks.
SELECT 1;
