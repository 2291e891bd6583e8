-- Version 7: how often keepers report is the formation's to say, and how long an election waits for whom an operator prefers.
ALTER TABLE pgvigil.formation
  ADD COLUMN heartbeat_ms integer NOT NULL DEFAULT 1000 CHECK (heartbeat_ms BETWEEN 100 AND 10000),
  ADD COLUMN vote_ms      integer NOT NULL DEFAULT 1000 CHECK (vote_ms BETWEEN 0 AND 60000),
  -- One late report is not a lost node.
  ADD CONSTRAINT two_heartbeats CHECK (2 * heartbeat_ms <= least(unhealthy_ms, standby_lost_ms));
