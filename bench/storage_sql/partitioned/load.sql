WITH keys AS (
    INSERT INTO lifecycle.send_keys (user_id, campaign, occurrence, cohort_date)
    SELECT user_id, campaign, occurrence, cohort_date FROM history_chunk
)
INSERT INTO lifecycle.sends SELECT * FROM history_chunk
