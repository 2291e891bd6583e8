-- Version 1 of the monitor's schema. Wall-clock times are for people only: no decision reads them.
CREATE TABLE pgvigil.formation (
  name                 text PRIMARY KEY CHECK (name <> '' AND length(name) <= 63),
  kind                 text NOT NULL DEFAULT 'pgsql',
  dbname               text NOT NULL DEFAULT 'postgres' CHECK (dbname <> ''),
  opt_secondary        boolean NOT NULL DEFAULT true,
  number_sync_standbys integer NOT NULL DEFAULT 0 CHECK (number_sync_standbys >= 0),
  replication_password text NOT NULL,
  probe_password       text NOT NULL,
  unhealthy_ms         integer NOT NULL DEFAULT 3000  CHECK (unhealthy_ms BETWEEN 500 AND 600000),
  standby_lost_ms      integer NOT NULL DEFAULT 3000  CHECK (standby_lost_ms BETWEEN 500 AND 600000),
  lease_ms             integer NOT NULL DEFAULT 10000 CHECK (lease_ms BETWEEN 2000 AND 600000),
  drain_ms             integer NOT NULL DEFAULT 60000 CHECK (drain_ms BETWEEN 1000 AND 3600000)
);

CREATE TABLE pgvigil.grp (
  formation         text NOT NULL REFERENCES pgvigil.formation (name),
  group_id          integer NOT NULL CHECK (group_id >= 0),
  term              bigint NOT NULL DEFAULT 0,
  -- Every list of synchronous names that may be in force, oldest first: [{"required":1,"members":[2],"by":1}]. The last is the goal.
  names_in_force    jsonb NOT NULL DEFAULT '[]',
  names_version     bigint NOT NULL DEFAULT 0,
  peers_version     bigint NOT NULL DEFAULT 0,
  system_identifier numeric,
  PRIMARY KEY (formation, group_id)
);

CREATE TABLE pgvigil.node (
  id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  formation          text NOT NULL,
  group_id           integer NOT NULL,
  name               text NOT NULL CHECK (name ~ '^[A-Za-z0-9_.-]{1,63}$'),
  host               text NOT NULL CHECK (host ~ '^[^[:space:][:cntrl:]''",/\\#]{1,255}$'),
  port               integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
  dbname             text NOT NULL DEFAULT 'postgres',
  region             text NOT NULL DEFAULT 'default',
  candidate_priority integer NOT NULL DEFAULT 50 CHECK (candidate_priority BETWEEN 0 AND 100),
  replication_quorum boolean NOT NULL DEFAULT true,
  system_identifier  numeric,
  goal_state         text NOT NULL,
  goal_seq           bigint NOT NULL DEFAULT 1,
  goal_since         timestamptz NOT NULL DEFAULT now(),
  reported_state     text NOT NULL DEFAULT 'init',
  reported_term      bigint NOT NULL DEFAULT 0,
  reported_seq       bigint NOT NULL DEFAULT 0,
  state_since        timestamptz NOT NULL DEFAULT now(),
  names_version      bigint NOT NULL DEFAULT 0,
  FOREIGN KEY (formation, group_id) REFERENCES pgvigil.grp (formation, group_id),
  UNIQUE (formation, name),
  UNIQUE (host, port)
);

-- The part of a report that changes all the time. Lost in a crash of the monitor's PostgreSQL, and then told again by the next heartbeat.
CREATE UNLOGGED TABLE pgvigil.node_report (
  node_id       bigint PRIMARY KEY REFERENCES pgvigil.node (id) ON DELETE CASCADE,
  report_count  bigint NOT NULL DEFAULT 0,
  reported_at   timestamptz NOT NULL DEFAULT now(),
  pg_running    boolean NOT NULL DEFAULT false,
  pg_responding boolean NOT NULL DEFAULT false,
  timeline      integer NOT NULL DEFAULT 0,
  lsn           pg_lsn NOT NULL DEFAULT '0/0',
  upstream      text NOT NULL DEFAULT 'unknown',
  streaming     boolean NOT NULL DEFAULT false,
  reason        text NOT NULL DEFAULT ''
) WITH (fillfactor = 50);
ALTER TABLE pgvigil.node_report ALTER CONSTRAINT node_report_node_id_fkey DEFERRABLE INITIALLY IMMEDIATE;

-- Nodes that were removed for good: their keepers may stop for ever. An unknown node is something else (a monitor restored from an old backup).
CREATE TABLE pgvigil.removed_node (
  node_id    bigint PRIMARY KEY,
  formation  text NOT NULL,
  name       text NOT NULL,
  removed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE pgvigil.event (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at             timestamptz NOT NULL DEFAULT clock_timestamp(),
  formation      text NOT NULL,
  group_id       integer NOT NULL,
  node_id        bigint,
  node_name      text,
  host           text,
  port           integer,
  reported_state text,
  goal_state     text,
  term           bigint NOT NULL,
  rule           integer NOT NULL,
  rule_name      text NOT NULL,
  description    text NOT NULL
);
CREATE INDEX event_of_formation ON pgvigil.event (formation, group_id, id);

CREATE TABLE pgvigil.request (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at              timestamptz NOT NULL DEFAULT now(),
  formation       text NOT NULL,
  group_id        integer NOT NULL,
  kind            text NOT NULL,
  node_id         bigint,
  allow_data_loss boolean NOT NULL DEFAULT false,
  status          text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'accepted', 'refused')),
  message         text NOT NULL DEFAULT '',
  decided_at      timestamptz
);
CREATE UNIQUE INDEX one_pending_request ON pgvigil.request (formation, group_id) WHERE status = 'pending';

INSERT INTO pgvigil.formation (name, replication_password, probe_password)
VALUES ('default', replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''),
        replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));
