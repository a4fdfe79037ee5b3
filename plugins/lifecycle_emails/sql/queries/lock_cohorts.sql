-- Nobody plans while this is held: planning ends in an update of its cohort.
LOCK TABLE lifecycle.cohorts IN SHARE ROW EXCLUSIVE MODE
