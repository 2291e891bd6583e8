-- What operators and dashboards read. Field names of current_state as pg_auto_failover's, so that scripts find them.
DROP FUNCTION IF EXISTS pgvigil.current_state(text, integer);
CREATE FUNCTION pgvigil.current_state(formation_name text, group_number integer)
RETURNS TABLE (formation_kind text, nodename text, nodehost text, nodeport integer, group_id integer, node_id bigint, current_group_state text,
               assigned_group_state text, candidate_priority integer, replication_quorum boolean, reported_tli integer, reported_lsn pg_lsn,
               health integer, nodecluster text, noderegion text, pg_running boolean, streaming boolean, term bigint, reason text,
               report_age_seconds double precision, sslmode text, heard boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
#variable_conflict use_column
DECLARE
  silent interval;
BEGIN
  PERFORM pgvigil.check_group(formation_name, group_number);
  -- One late report is not silence, however seldom they come.
  SELECT greatest(interval '5 s', 2.5 * f.heartbeat_ms * interval '1 ms') INTO silent FROM pgvigil.formation f WHERE f.name = formation_name;
  RETURN QUERY
  SELECT 'pgsql'::text, n.name, n.host, n.port, n.group_id, n.id, n.reported_state, n.goal_state, n.candidate_priority, n.replication_quorum,
         coalesce(r.timeline, 0), coalesce(r.lsn, '0/0'),
         CASE WHEN r.node_id IS NULL THEN -1 WHEN r.reported_at > now() - silent AND r.pg_running THEN 1 ELSE 0 END,
         'default'::text, n.region, coalesce(r.pg_running, false), coalesce(r.streaming, false), g.term, coalesce(r.reason, ''),
         -- A keeper writes it by itself: nonsense there must not be everybody's.
         extract(epoch FROM now() - least(greatest(r.reported_at, 'epoch'), now()))::double precision, n.sslmode,
         coalesce(r.reported_at > now() - silent, false)
  FROM pgvigil.node n JOIN pgvigil.grp g ON g.formation = n.formation AND g.group_id = n.group_id
  LEFT JOIN pgvigil.node_report r ON r.node_id = n.id
  WHERE n.formation = formation_name AND (group_number IS NULL OR n.group_id = group_number) ORDER BY n.group_id, n.id;
END $$;

DROP FUNCTION IF EXISTS pgvigil.last_events(text, integer, integer);
CREATE FUNCTION pgvigil.last_events(formation_name text, group_number integer, how_many integer)
RETURNS TABLE (eventid bigint, eventtime timestamptz, formationid text, nodeid bigint, groupid integer, nodename text, nodehost text, nodeport integer,
               reportedstate text, goalstate text, term bigint, rule_pos integer, rule_name text, description text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  max_id CONSTANT bigint := 9223372036854775807;
BEGIN
  PERFORM pgvigil.check_group(formation_name, group_number);
  RETURN QUERY
  -- Those of each group, by a range of the index of groups. With `=` and ORDER BY id the planner may take that of the ids, and look for a quiet
  -- formation's among all of a fleet.
  SELECT * FROM (
    SELECT e.id, e.at, e.formation, e.node_id, e.group_id, e.node_name, e.host, e.port, e.reported_state, e.goal_state, e.term, e.rule, e.rule_name,
           e.description
    FROM pgvigil.grp g, LATERAL (
      SELECT * FROM pgvigil.event o WHERE (o.formation, o.group_id, o.id) BETWEEN (g.formation, g.group_id, 0) AND (g.formation, g.group_id, max_id)
      ORDER BY o.formation DESC, o.group_id DESC, o.id DESC LIMIT greatest(0, how_many)) AS e
    WHERE g.formation = formation_name AND (group_number IS NULL OR g.group_id = group_number)
    ORDER BY e.id DESC LIMIT greatest(0, how_many)) AS newest ORDER BY 1;
END $$;

DROP FUNCTION IF EXISTS pgvigil.formation_settings(text);
CREATE FUNCTION pgvigil.formation_settings(formation_name text)
RETURNS TABLE (context text, group_id integer, node_id bigint, nodename text, setting text, value text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
#variable_conflict use_column
BEGIN
  PERFORM pgvigil.check_formation(formation_name);
  RETURN QUERY
  SELECT 'formation', NULL::integer, NULL::bigint, f.name, s.setting, s.value FROM pgvigil.formation f,
    LATERAL (VALUES ('number_sync_standbys', f.number_sync_standbys::text), ('secondaries', f.opt_secondary::text),
                    ('timings', coalesce((SELECT p.name FROM pgvigil.timing_presets() p WHERE (p.heartbeat, p.unhealthy, p.standby_lost, p.vote)
                                          = (f.heartbeat_ms, f.unhealthy_ms, f.standby_lost_ms, f.vote_ms)), 'custom')),
                    ('heartbeat_ms', f.heartbeat_ms::text), ('unhealthy_ms', f.unhealthy_ms::text),
                    ('standby_lost_ms', f.standby_lost_ms::text), ('vote_ms', f.vote_ms::text), ('lease_ms', f.lease_ms::text), ('drain_ms', f.drain_ms::text)) AS s (setting, value)
  WHERE f.name = formation_name
  UNION ALL
  SELECT 'primary', n.group_id, n.id, n.name, 'synchronous_standby_names', pgvigil.synchronous_standby_names(n.formation, n.group_id)
  FROM pgvigil.node n WHERE n.formation = formation_name AND pgvigil.takes_writes(n.goal_state)
  UNION ALL
  SELECT 'node', n.group_id, n.id, n.name, s.setting, s.value FROM pgvigil.node n,
    LATERAL (VALUES ('candidate priority', n.candidate_priority::text), ('replication quorum', n.replication_quorum::text)) AS s (setting, value)
  WHERE n.formation = formation_name;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.synchronous_standby_names(formation_name text, group_number integer) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  names jsonb;
BEGIN
  PERFORM pgvigil.check_formation(formation_name);
  SELECT names_in_force -> -1 INTO names FROM pgvigil.grp WHERE formation = formation_name AND group_id = group_number;
  IF NOT FOUND THEN
    PERFORM pgvigil.refuse(format('formation "%s" has no group %s', formation_name, group_number), 'pgvigil show state lists the groups', 'PV404');
  END IF;
  IF coalesce((names ->> 'required')::integer, 0) = 0 THEN
    RETURN '';  -- asynchronous
  END IF;
  RETURN format('ANY %s (%s)', names ->> 'required',
                (SELECT string_agg('pgvigil_standby_' || m, ', ' ORDER BY m::bigint) FROM jsonb_array_elements_text(names -> 'members') AS m));
END $$;

DROP FUNCTION IF EXISTS pgvigil.formation_hosts(text);
CREATE FUNCTION pgvigil.formation_hosts(formation_name text)
RETURNS TABLE (group_id integer, host text, port integer, dbname text, sslmode text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
#variable_conflict use_column
BEGIN
  PERFORM pgvigil.check_formation(formation_name);
  RETURN QUERY SELECT n.group_id, n.host, n.port, f.dbname, n.sslmode FROM pgvigil.node n JOIN pgvigil.formation f ON f.name = n.formation
  WHERE n.formation = formation_name AND n.goal_state <> 'dropped' ORDER BY n.group_id, n.id;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.formations() RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$ SELECT name FROM pgvigil.formation ORDER BY name $$;

-- What the monitor process knows of why something waits.
CREATE OR REPLACE FUNCTION pgvigil.store_explanations(f text, g integer, rows jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  item record;
BEGIN
  DELETE FROM pgvigil.explanation WHERE formation = f AND group_id = g
    AND node_id NOT IN (SELECT (r ->> 'node_id')::bigint FROM jsonb_array_elements(rows) AS r);
  FOR item IN SELECT (r ->> 'node_id')::bigint AS node, (r ->> 'rule')::integer AS rule_no, r ->> 'waiting_for' AS words, r ->> 'command' AS advice
              FROM jsonb_array_elements(rows) AS r LOOP
    CONTINUE WHEN EXISTS (SELECT FROM pgvigil.explanation e WHERE e.formation = f AND e.group_id = g AND e.node_id = item.node
                          AND (e.rule, e.waiting_for, e.command) = (item.rule_no, item.words, item.advice));
    -- What a keeper says of its progress, after the colon, changes all the time: it is the same wait.
    INSERT INTO pgvigil.explanation AS e (formation, group_id, node_id, rule, waiting_for, command)
    VALUES (f, g, item.node, item.rule_no, item.words, item.advice)
    ON CONFLICT (formation, group_id, node_id) DO UPDATE SET rule = excluded.rule, waiting_for = excluded.waiting_for, command = excluded.command,
      since = CASE WHEN e.rule = excluded.rule AND split_part(e.waiting_for, ': ', 1) = split_part(excluded.waiting_for, ': ', 1) THEN e.since ELSE now() END;
  END LOOP;
END $$;

-- It has waited for a person for some time. `node` is 0 for the group as a whole.
CREATE OR REPLACE FUNCTION pgvigil.tell_of_wait(f text, g integer, node bigint, rule_no integer, words text) RETURNS void LANGUAGE sql AS $$
  SELECT pgvigil.record_event(f, g, (SELECT n FROM pgvigil.node n WHERE n.id = node), (SELECT term FROM pgvigil.grp WHERE formation = f AND group_id = g),
                              rule_no, 'waiting', words)
$$;

DROP FUNCTION IF EXISTS pgvigil.why(text, integer);
CREATE FUNCTION pgvigil.why(formation_name text, group_number integer)
RETURNS TABLE (group_id integer, node_id bigint, nodename text, current_group_state text, assigned_group_state text, rule integer, waiting_for text,
               command text, since timestamptz, since_seconds double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
#variable_conflict use_column
BEGIN
  PERFORM pgvigil.check_group(formation_name, group_number);
  RETURN QUERY
  SELECT e.group_id, nullif(e.node_id, 0), n.name, n.reported_state, n.goal_state, e.rule, e.waiting_for, e.command, e.since,
         extract(epoch FROM now() - e.since)::double precision
  FROM pgvigil.explanation e LEFT JOIN pgvigil.node n ON n.id = e.node_id
  WHERE e.formation = formation_name AND (group_number IS NULL OR e.group_id = group_number) AND (e.node_id = 0 OR n.id IS NOT NULL)
  ORDER BY e.group_id, e.node_id;
END $$;
