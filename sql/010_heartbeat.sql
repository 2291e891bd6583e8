-- Version 10: a heartbeat with nothing new names the report that stands by its token, and updates that row alone (the view `heartbeat`, 100_keeper_api.sql).
-- Nothing of the report is sent or compared again, and its answer need not be kept.
ALTER TABLE pgvigil.node_report ADD token uuid, DROP said, DROP answer;
-- What is looked up by its key needs no statistics, and after each ANALYZE (once a minute) every keeper's session would plan its statements anew.
ALTER TABLE pgvigil.node_report SET (autovacuum_analyze_threshold = 2000000000, autovacuum_analyze_scale_factor = 100);
