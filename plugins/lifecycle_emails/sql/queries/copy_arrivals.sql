COPY arrivals (user_id, address_hash) FROM STDIN
