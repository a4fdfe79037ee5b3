-- Sweeps go by the open cohorts, so a user who is planned again must not stay in a closed one: nobody would look at the row.
-- A doubt does not keep its cohort open: most are never settled, and every round of maintenance reads the open cohorts.

-- Locked first: a round that is closing this cohort holds the lock, and the update sees what it has done. Long before its
-- deadline no round closes it, and a refusal need not wait for a plan or a dry run of it.
CREATE FUNCTION lifecycle.reopen_cohort() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM lifecycle.cohorts AS c
    WHERE c.campaign = NEW.campaign AND c.cohort_date = NEW.cohort_date AND c.not_after < now() + interval '1 hour'
    FOR NO KEY UPDATE;
    UPDATE lifecycle.cohorts AS c SET closed_at = NULL
    WHERE c.campaign = NEW.campaign AND c.cohort_date = NEW.cohort_date AND c.closed_at IS NOT NULL;
    RETURN NULL;
END $$;

-- A late refusal, a doubt settled to be sent again, a release. Nothing else puts a user back in a cohort that may be closed.
CREATE TRIGGER planned_again_opens_the_cohort AFTER UPDATE ON lifecycle.sends FOR EACH ROW
WHEN (NEW.state = 'planned' AND (OLD.state IN ('in_doubt', 'rejected') OR OLD.held_reason = 'capped'))
EXECUTE FUNCTION lifecycle.reopen_cohort();

-- Those who were left behind.
UPDATE lifecycle.cohorts AS c SET closed_at = NULL
WHERE c.closed_at IS NOT NULL
  AND EXISTS (
      SELECT FROM lifecycle.sends AS s
      WHERE s.campaign = c.campaign AND s.cohort_date = c.cohort_date AND s.state IN ('planned', 'ready', 'sending')
  );
