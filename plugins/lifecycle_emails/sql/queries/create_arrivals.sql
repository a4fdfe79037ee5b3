-- Who the source says is in the cohort; filled by COPY in order of user_id. Without an address_hash, address_mistake
-- says why the address is no usable one.
CREATE TEMPORARY TABLE arrivals (user_id text COLLATE "C" NOT NULL, address_hash bytea, address_mistake text)
