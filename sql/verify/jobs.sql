-- Verify healthmate:jobs on pg

SELECT 1;
