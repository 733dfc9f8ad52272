-- Verify healthmate:audit on pg

SELECT 1;
