-- Reconcile.
SELECT 1;
