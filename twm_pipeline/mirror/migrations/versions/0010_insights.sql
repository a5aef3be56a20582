-- Insights.
SELECT 1;
