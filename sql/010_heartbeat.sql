-- Version 10: a heartbeat with nothing new names the report that stands by its token, and updates that row alone (the view `heartbeat`, 100_keeper_api.sql).
-- Nothing of the report is sent or compared again, and its answer need not be kept.
ALTER TABLE pgvigil.node_report ADD token uuid, DROP said, DROP answer;
