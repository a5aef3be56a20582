-- Attachments.
SELECT 1;
