-- Who may call what.
--   pgvigil_node         registers nodes and operates them: all functions for the outside
--   pgvigil_keeper_<id>  the keeper of that node: a few of them, and only for itself (check_caller())
-- Neither reads a table. Both update rows of the view `heartbeat`: a keeper its own, no more of it than that it is there, and how far its WAL is.

-- Gives a node its own role, or its role another password: of that only the verifier, which libpq makes of it (RFC 5803). The address says which node
-- the caller means: at another monitor its number is another node's.
CREATE OR REPLACE FUNCTION pgvigil.admit_keeper(self bigint, its_host text, its_port integer, verifier text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node;
  role text := 'pgvigil_keeper_' || self;
BEGIN
  IF verifier IS NULL OR verifier !~ '^SCRAM-SHA-256\$[1-9][0-9]{3,6}:[A-Za-z0-9+/=]{8,200}\$[A-Za-z0-9+/=]{44}:[A-Za-z0-9+/=]{44}$' THEN
    PERFORM pgvigil.refuse('not a SCRAM verifier');
  END IF;
  SELECT * INTO n FROM pgvigil.node WHERE id = self FOR UPDATE;
  IF NOT FOUND THEN PERFORM pgvigil.refuse(format('there is no node %s', self), '', 'PV404'); END IF;
  IF (n.host, n.port) IS DISTINCT FROM (its_host, its_port) THEN
    PERFORM pgvigil.refuse(format('node %s is %s at %s:%s here', self, n.name, n.host, n.port),
                           'is this the right monitor? When only the address has changed: pgvigil set node metadata');
  END IF;
  IF to_regrole(role) IS NULL THEN EXECUTE format('CREATE ROLE %I IN ROLE pgvigil_keeper', role); END IF;
  -- The limit leaves room for sessions whose end the server has not noticed yet.
  EXECUTE format('ALTER ROLE %I LOGIN CONNECTION LIMIT 16 PASSWORD %L', role, verifier);
  EXECUTE format('ALTER ROLE %I SET plan_cache_mode = ''force_generic_plan''', role);
  RETURN role;
END $$;

-- What PUBLIC may do in any database and no keeper needs: write to the disk of the monitor, hold the locks by which the monitor's processes and the
-- sessions of others are known. For a database that is the monitor's alone.
CREATE OR REPLACE FUNCTION pgvigil.close_doors() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  f regprocedure;
BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  REVOKE CREATE ON SCHEMA public FROM PUBLIC;
  FOR f IN SELECT p.oid::regprocedure FROM pg_proc p
           WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname ~ '^(pg_(try_)?advisory_.*|lo_creat|lo_create|lo_from_bytea)$'
             AND has_function_privilege('public', p.oid, 'EXECUTE') LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    -- Keepers of version 0.1.0 lock by themselves.
    IF f::text ~ 'advisory' THEN EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pgvigil_node', f); END IF;
  END LOOP;
END $$;

DO $$
DECLARE
  f regprocedure;
BEGIN
  -- Functions of an older version that no file has made anew in this transaction (those of triggers belong to the tables): left, they would be open to
  -- pgvigil_node, with another version's rules.
  FOR f IN SELECT p.oid::regprocedure FROM pg_proc p
           WHERE p.pronamespace = 'pgvigil'::regnamespace AND p.prorettype <> 'trigger'::regtype AND p.xmin <> pg_current_xact_id()::xid LOOP
    EXECUTE format('DROP FUNCTION %s', f);
  END LOOP;
  IF to_regrole('pgvigil_node') IS NULL THEN CREATE ROLE pgvigil_node LOGIN; END IF;
  IF to_regrole('pgvigil_keeper') IS NULL THEN CREATE ROLE pgvigil_keeper NOLOGIN; END IF;
  REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgvigil FROM PUBLIC, pgvigil_keeper;
  FOR f IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'pgvigil'::regnamespace AND p.prosecdef LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pgvigil_node', f);
  END LOOP;
  FOR f IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'pgvigil'::regnamespace
           AND p.proname IN ('report', 'tell', 'get_peers', 'step_down', 'request_status', 'open_session', 'take_place', 'leave_place',
                             'tell_moments', 'say_sslmode') LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pgvigil_keeper', f);
  END LOOP;
  REVOKE ALL ON pgvigil.heartbeat FROM pgvigil_node, pgvigil_keeper;
  GRANT SELECT (node_id, token, report_count), UPDATE (report_count, reported_at, lsn) ON pgvigil.heartbeat TO pgvigil_node, pgvigil_keeper;
  GRANT USAGE ON SCHEMA pgvigil TO pgvigil_node, pgvigil_keeper;
  -- Every statement of the functions looks up single rows: there is nothing to plan anew. (That of keepers: admit_keeper().)
  ALTER ROLE pgvigil_node SET plan_cache_mode = 'force_generic_plan';
END $$;
