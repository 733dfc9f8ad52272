-- Verify healthmate:health_data on pg

SELECT 1;
