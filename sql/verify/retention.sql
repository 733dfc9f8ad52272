-- Verify healthmate:retention on pg

SELECT 1;
