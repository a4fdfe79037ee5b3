-- A dot that may have been written is taken back only by the word of its own attempt, which record_outcomes passes on: no
-- other statement makes a row in flight ready again, or rejected, from where it can be released.
CREATE TRIGGER send_in_flight_waits_for_its_answer AFTER UPDATE ON lifecycle.sends FOR EACH ROW
WHEN (
    OLD.state = 'sending' AND NEW.state IN ('ready', 'rejected')
    AND current_setting('lifecycle.answer_was_read', true) IS DISTINCT FROM 'yes'
)
EXECUTE FUNCTION lifecycle.refuse('its mail may have been accepted; only the attempt in flight knows');
