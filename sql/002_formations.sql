-- Version 2: histories of timelines, maintenance, explanations.
ALTER TABLE pgvigil.grp ADD timeline integer NOT NULL DEFAULT 0;  -- the highest that an ordered promotion may have begun
ALTER TABLE pgvigil.node ADD source_id bigint;                    -- fast_forward: the node that has the missing WAL
ALTER TABLE pgvigil.node_report ADD history text NOT NULL DEFAULT '';  -- of the timeline: "1:0/3000000,2:0/5000000"
ALTER TABLE pgvigil.node_report ADD disk_full boolean NOT NULL DEFAULT false;
ALTER TABLE pgvigil.request ADD allow_failover boolean NOT NULL DEFAULT false;
CREATE INDEX node_of_group ON pgvigil.node (formation, group_id);

-- Groups that were at work before: the timeline of their primary. (The table is unlogged: after a crash it is told again.)
UPDATE pgvigil.grp g SET timeline = coalesce((SELECT max(r.timeline) FROM pgvigil.node n JOIN pgvigil.node_report r ON r.node_id = n.id
                                              WHERE n.formation = g.formation AND n.group_id = g.group_id), 0);

-- Why a node, or (node_id 0) the group, is not where it should be. Kept by the monitor process.
CREATE TABLE pgvigil.explanation (
  formation   text NOT NULL,
  group_id    integer NOT NULL,
  node_id     bigint NOT NULL,
  since       timestamptz NOT NULL DEFAULT now(),
  rule        integer NOT NULL,
  waiting_for text NOT NULL,
  command     text NOT NULL,
  PRIMARY KEY (formation, group_id, node_id),
  FOREIGN KEY (formation, group_id) REFERENCES pgvigil.grp (formation, group_id) ON DELETE CASCADE
);

DROP FUNCTION IF EXISTS pgvigil.report(bigint, text, bigint, bigint, boolean, boolean, integer, pg_lsn, bigint, text, boolean, text, text);
DROP FUNCTION IF EXISTS pgvigil.ask(text, integer, text, bigint, boolean);
