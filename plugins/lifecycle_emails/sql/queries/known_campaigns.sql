SELECT DISTINCT campaign FROM lifecycle.cohorts ORDER BY campaign
