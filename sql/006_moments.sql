-- Version 6: what each failover consisted of. Told by the monitor and by the keepers, in milliseconds of the teller's own monotonic clock
-- (common/moments/moments.hpp). It goes with its event.
CREATE TABLE pgvigil.moments (
  event_id    bigint NOT NULL REFERENCES pgvigil.event (id) ON DELETE CASCADE,  -- the order to take over
  node_id     bigint NOT NULL,                                                   -- 0: the monitor
  node_name   text NOT NULL,
  former_name text NOT NULL DEFAULT '',  -- told by the monitor: whose place was taken
  told        jsonb NOT NULL,
  PRIMARY KEY (event_id, node_id)
);
CREATE INDEX takeover_of_term ON pgvigil.event (formation, group_id, term) WHERE goal_state = 'wait_primary';
