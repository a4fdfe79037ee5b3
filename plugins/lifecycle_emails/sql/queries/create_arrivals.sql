-- Who the source says is in the cohort; filled by COPY in order of user_id.
CREATE TEMPORARY TABLE arrivals (user_id text COLLATE "C" NOT NULL, address_hash bytea)
