-- What judge_cap leaves behind when the cap refuses nobody, so that reserving can be measured by itself.
CREATE TEMPORARY TABLE refused (user_id text COLLATE "C", cohort_date date, rule text, slots_taken integer)
