ANALYZE arrivals
