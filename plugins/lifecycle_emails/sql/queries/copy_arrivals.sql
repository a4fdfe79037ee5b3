COPY arrivals (user_id, address_hash, address_mistake) FROM STDIN (FORMAT binary)
