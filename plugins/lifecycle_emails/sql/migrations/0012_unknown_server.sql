-- A ledger that does not know its server trusts nobody; a witness without a memory is told of.

-- How this server differs from the known one; NULL: in nothing that it tells. A row that is gone is a difference too:
-- without it nothing would ever differ.
CREATE OR REPLACE FUNCTION lifecycle.difference_of_server() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(concat_ws(', ',
        CASE WHEN known.only_row IS NULL
            THEN 'nothing is known of its server any more (lifecycle.known_server is empty)' END,
        CASE WHEN now_.system_identifier <> known.system_identifier
            THEN format('another cluster (system identifier %s, known %s)', now_.system_identifier, known.system_identifier) END,
        CASE WHEN now_.timeline <> known.timeline
            THEN format('another timeline (%s, known %s): a promoted standby or a recovery', now_.timeline, known.timeline) END,
        CASE WHEN now_.sends_oid <> known.sends_oid
            THEN format('another table of sends (oid %s, known %s): a restored dump', now_.sends_oid, known.sends_oid) END
    ), '')
    FROM lifecycle.server_identity() AS now_
    LEFT JOIN lifecycle.known_server AS known ON true
$$;

ALTER TABLE lifecycle.alerts
    DROP CONSTRAINT alert_kind_is_known,
    ADD CONSTRAINT alert_kind_is_known CHECK (
        kind IN (
            'limit_exceeded', 'in_doubt', 'expired', 'missing_cohorts', 'provider_stopped', 'ledger_went_back',
            'witness_forgot'
        )
    );
