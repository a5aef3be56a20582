-- More streams.
SELECT 1;
