UPDATE lifecycle.batches SET lease_holder = NULL, lease_until = NULL
WHERE campaign = %(campaign)s AND lease_holder = %(holder)s
