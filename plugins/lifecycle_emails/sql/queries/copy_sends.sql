COPY lifecycle.sends (user_id, campaign, cohort_date, batch, address_hash) FROM STDIN (FORMAT binary)
