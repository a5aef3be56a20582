-- Status.
SELECT 1;
