-- Verify healthmate:accounts on pg

SELECT 1;
