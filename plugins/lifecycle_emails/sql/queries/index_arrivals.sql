-- For hold_departures, which looks up one user after the other.
CREATE INDEX ON arrivals (user_id)
