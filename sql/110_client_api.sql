-- What operators call, by way of the command line.
CREATE OR REPLACE FUNCTION pgvigil.find_node(formation_name text, node_name text) RETURNS pgvigil.node LANGUAGE plpgsql STABLE AS $$
DECLARE
  n pgvigil.node;
BEGIN
  SELECT * INTO n FROM pgvigil.node x WHERE x.formation = formation_name AND x.name = node_name;
  IF NOT FOUND THEN
    PERFORM pgvigil.refuse(format('there is no node "%s" in formation "%s"', node_name, formation_name), 'pgvigil show state lists them', 'PV404');
  END IF;
  RETURN n;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.check_formation(formation_name text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pgvigil.formation WHERE name = formation_name) THEN
    PERFORM pgvigil.refuse(format('there is no formation "%s"', formation_name), 'pgvigil create formation', 'PV404');
  END IF;
END $$;

-- NULL: all of the formation's groups. Each formation has a group 0, though nobody is in it yet.
CREATE OR REPLACE FUNCTION pgvigil.check_group(formation_name text, group_number integer) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
  PERFORM pgvigil.check_formation(formation_name);
  IF group_number <> 0 AND NOT EXISTS (SELECT FROM pgvigil.grp WHERE formation = formation_name AND group_id = group_number) THEN
    PERFORM pgvigil.refuse(format('formation "%s" has no group %s', formation_name, group_number), 'pgvigil show state lists the groups', 'PV404');
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.create_formation(formation_name text, database text, secondaries boolean, nss integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
BEGIN
  INSERT INTO pgvigil.formation (name, dbname, opt_secondary, number_sync_standbys, replication_password, probe_password)
  VALUES (formation_name, database, secondaries, nss, replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''),
          replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));
EXCEPTION WHEN unique_violation THEN PERFORM pgvigil.refuse(format('formation "%s" exists already', formation_name));
WHEN check_violation OR not_null_violation THEN
  PERFORM pgvigil.refuse(format('not a valid formation: "%s", database "%s", number_sync_standbys %s', formation_name, database, nss));
END $$;

-- May its groups have more than one node?
CREATE OR REPLACE FUNCTION pgvigil.set_formation_secondary(formation_name text, allowed boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  there text;
  n pgvigil.node;
BEGIN
  PERFORM pgvigil.check_formation(formation_name);
  IF allowed IS NULL THEN PERFORM pgvigil.refuse('secondaries are allowed or not: true or false'); END IF;
  -- Nobody registers meanwhile.
  PERFORM FROM pgvigil.grp WHERE formation = formation_name ORDER BY group_id FOR UPDATE;
  SELECT string_agg(s.name, ', ' ORDER BY s.id) INTO there FROM pgvigil.node s
  WHERE s.formation = formation_name AND NOT pgvigil.takes_writes(s.goal_state)
    AND EXISTS (SELECT FROM pgvigil.node o WHERE o.formation = s.formation AND o.group_id = s.group_id AND o.id <> s.id);
  IF NOT allowed AND there IS NOT NULL THEN
    PERFORM pgvigil.refuse(format('formation "%s" has secondaries: %s', formation_name, there), 'drop them first: pgvigil drop node');
  END IF;
  UPDATE pgvigil.formation SET opt_secondary = allowed WHERE name = formation_name;
  FOR n IN SELECT DISTINCT ON (group_id) * FROM pgvigil.node WHERE formation = formation_name ORDER BY group_id, id LOOP
    PERFORM pgvigil.settings_changed(n, format('secondaries are now %s', CASE WHEN allowed THEN 'allowed' ELSE 'not allowed' END));
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.drop_formation(formation_name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
BEGIN
  PERFORM pgvigil.check_formation(formation_name);
  IF EXISTS (SELECT FROM pgvigil.node WHERE formation = formation_name) THEN
    PERFORM pgvigil.refuse(format('formation "%s" still has nodes', formation_name), 'drop them first');
  END IF;
  DELETE FROM pgvigil.grp WHERE formation = formation_name;
  DELETE FROM pgvigil.formation WHERE name = formation_name;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.ask(f text, g integer, request_kind text, node bigint, data_loss boolean, failover boolean DEFAULT false)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  request_id bigint;
BEGIN
  IF NOT EXISTS (SELECT FROM pgvigil.node WHERE formation = f AND group_id = g) THEN
    PERFORM pgvigil.refuse(format('there is no node in formation "%s", group %s', f, g), '', 'PV404');
  END IF;
  INSERT INTO pgvigil.request (formation, group_id, kind, node_id, allow_data_loss, allow_failover)
  VALUES (f, g, request_kind, node, data_loss, failover)
  RETURNING id INTO request_id;
  PERFORM pg_notify('pgvigil_wake', f || '/' || g);
  RETURN request_id;
EXCEPTION WHEN unique_violation THEN
  PERFORM pgvigil.refuse('another command is still being carried out for this group', 'wait for it; pgvigil show events', 'PV001');
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.perform_failover(formation_name text, group_number integer, allow_data_loss boolean) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
BEGIN
  PERFORM pgvigil.check_formation(formation_name);
  RETURN pgvigil.ask(formation_name, group_number, 'failover', NULL, coalesce(allow_data_loss, false));
END $$;

CREATE OR REPLACE FUNCTION pgvigil.perform_promotion(formation_name text, node_name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node := pgvigil.find_node(formation_name, node_name);
BEGIN
  RETURN pgvigil.ask(n.formation, n.group_id, 'promotion', n.id, false);
END $$;

CREATE OR REPLACE FUNCTION pgvigil.start_maintenance(formation_name text, node_name text, allow_failover boolean) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node := pgvigil.find_node(formation_name, node_name);
BEGIN
  RETURN pgvigil.ask(n.formation, n.group_id, 'start_maintenance', n.id, false, coalesce(allow_failover, false));
END $$;

CREATE OR REPLACE FUNCTION pgvigil.stop_maintenance(formation_name text, node_name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node := pgvigil.find_node(formation_name, node_name);
BEGIN
  RETURN pgvigil.ask(n.formation, n.group_id, 'stop_maintenance', n.id, false);
END $$;

-- NULL: removed at once (force), or gone already.
CREATE OR REPLACE FUNCTION pgvigil.remove_node(target bigint, force boolean) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node;
  gr pgvigil.grp;
BEGIN
  SELECT * INTO n FROM pgvigil.node WHERE id = target;
  IF NOT FOUND THEN PERFORM pgvigil.refuse(format('there is no node %s', target), 'pgvigil show state lists them', 'PV404'); END IF;
  IF NOT coalesce(force, false) THEN RETURN pgvigil.ask(n.formation, n.group_id, 'drop_node', n.id, false); END IF;
  PERFORM FROM pgvigil.grp WHERE formation = n.formation AND group_id = n.group_id FOR UPDATE;
  SELECT * INTO n FROM pgvigil.node WHERE id = target;
  IF NOT FOUND THEN RETURN NULL; END IF;
  -- While the monitor learns, nobody knows what the node has acknowledged: no election without it (monitor/fsm/decide.hpp, may_hold_commits()).
  UPDATE pgvigil.grp SET names_in_force = names_in_force || jsonb_build_object('required', 1, 'members', jsonb_build_array(target), 'by', 0)
  WHERE formation = n.formation AND group_id = n.group_id AND learning
    AND NOT coalesce(n.account ->> 'goal' = 'dropped' OR (n.account ->> 'copy_unfinished')::boolean
                     OR n.account ->> 'reported' IN ('init', 'wait_standby', 'catchingup'), false);
  -- What a removed node still does belongs to an older term than whatever follows. And what it has told to a monitor without memory does not go with
  -- it: of later terms and timelines nobody else may know.
  UPDATE pgvigil.grp SET peers_version = peers_version + 1, term = greatest(term, (n.account ->> 'term')::bigint) + 1,
                         timeline = greatest(timeline, (n.account ->> 'promised_timeline')::integer)
  WHERE formation = n.formation AND group_id = n.group_id RETURNING * INTO gr;
  PERFORM pgvigil.record_event(n.formation, n.group_id, n, gr.term, 3, 'removed_by_force', n.name || ' is removed by force');
  DELETE FROM pgvigil.node WHERE id = target;
  -- Nobody is left from whom it could be learned: it begins afresh (add_node()). Whoever is heard all the same is asked what it knows.
  UPDATE pgvigil.grp SET learning = false, names_in_force = '[]'
  WHERE formation = n.formation AND group_id = n.group_id AND learning AND NOT EXISTS (
    SELECT FROM pgvigil.node m WHERE m.formation = n.formation AND m.group_id = n.group_id);
  INSERT INTO pgvigil.removed_node (node_id, formation, name, system_identifier) VALUES (n.id, n.formation, n.name, n.system_identifier);
  PERFORM pg_notify('pgvigil_wake', n.formation || '/' || n.group_id);
  PERFORM pgvigil.wake_keepers(n.formation, n.group_id);
  PERFORM pg_notify('pgvigil_node_' || target, 'removed');
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.node_id(formation_name text, node_name text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
  SELECT (pgvigil.find_node(formation_name, node_name)).id
$$;

CREATE OR REPLACE FUNCTION pgvigil.request_status(request_id bigint, OUT status text, OUT message text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
BEGIN
  SELECT r.status, r.message INTO status, message FROM pgvigil.request r
  WHERE r.id = request_id AND (session_user = 'pgvigil_keeper_' || r.node_id OR pgvigil.is_operator());
  IF NOT FOUND THEN PERFORM pgvigil.refuse(format('there is no request %s', request_id), '', 'PV404'); END IF;
END $$;

-- Of a monitor that begins to decide. A command that nobody heard in its time is not carried out hours later, when whoever gave it has done something
-- else. By the wall clock, for no other goes on while the monitor is away: a wrong one refuses at most what can be asked for again. A drop that was begun
-- is brought to its end, or taken back, by the rules.
CREATE OR REPLACE FUNCTION pgvigil.refuse_forgotten_requests() RETURNS TABLE (asked text) LANGUAGE sql AS $$
  UPDATE pgvigil.request r SET status = 'refused', decided_at = now(),
    message = 'no monitor was there to decide it within ' || f.drain_ms / 1000 || ' s, and nothing was done; ask again'
  FROM pgvigil.formation f
  WHERE f.name = r.formation AND r.status = 'pending' AND r.at < now() - f.drain_ms * interval '1 millisecond'
    AND NOT (r.kind = 'drop_node' AND EXISTS (SELECT FROM pgvigil.node n WHERE n.id = r.node_id AND n.goal_state = 'wait_maintenance'))
  RETURNING format('%s of formation "%s", group %s, asked for at %s', r.kind, r.formation, r.group_id, date_trunc('second', r.at))
$$;

CREATE OR REPLACE FUNCTION pgvigil.settings_changed(n pgvigil.node, words text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pgvigil.record_event(n.formation, n.group_id, n, (SELECT term FROM pgvigil.grp WHERE formation = n.formation AND group_id = n.group_id), 5,
                               'settings', words);
  PERFORM pg_notify('pgvigil_wake', n.formation || '/' || n.group_id);
END $$;

-- The answers kept for its nodes are no longer good, and the monitor has a new picture to take.
CREATE OR REPLACE FUNCTION pgvigil.formation_changed(formation_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE pgvigil.grp SET version = version WHERE formation = formation_name;
  PERFORM pg_notify('pgvigil_wake', formation || '/' || group_id) FROM pgvigil.grp WHERE formation = formation_name;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.set_node_candidate_priority(formation_name text, node_name text, priority integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node := pgvigil.find_node(formation_name, node_name);
BEGIN
  IF priority IS NULL OR priority NOT BETWEEN 0 AND 100 THEN PERFORM pgvigil.refuse(format('a candidate priority is between 0 and 100, not %s', priority)); END IF;
  UPDATE pgvigil.node SET candidate_priority = priority WHERE id = n.id RETURNING * INTO n;
  PERFORM pgvigil.settings_changed(n, format('candidate priority of %s is now %s', n.name, priority));
END $$;

CREATE OR REPLACE FUNCTION pgvigil.set_node_replication_quorum(formation_name text, node_name text, quorum boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node := pgvigil.find_node(formation_name, node_name);
  nss integer := (SELECT number_sync_standbys FROM pgvigil.formation WHERE name = formation_name);
  left_over integer;
BEGIN
  IF quorum IS NULL THEN PERFORM pgvigil.refuse('replication quorum is true or false'); END IF;
  PERFORM FROM pgvigil.grp WHERE formation = n.formation AND group_id = n.group_id FOR UPDATE;
  SELECT count(*) - 1 INTO left_over FROM pgvigil.node
  WHERE formation = n.formation AND group_id = n.group_id AND (CASE WHEN id = n.id THEN quorum ELSE replication_quorum END);
  IF NOT quorum AND left_over < nss THEN
    PERFORM pgvigil.refuse(format('number_sync_standbys is %s: too few quorum standbys would be left', nss), 'lower number-sync-standbys first');
  END IF;
  UPDATE pgvigil.node SET replication_quorum = quorum WHERE id = n.id RETURNING * INTO n;
  PERFORM pgvigil.settings_changed(n, format('replication quorum of %s is now %s', n.name, quorum));
END $$;

CREATE OR REPLACE FUNCTION pgvigil.set_formation_number_sync_standbys(formation_name text, nss integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node;
BEGIN
  PERFORM pgvigil.check_formation(formation_name);
  IF nss IS NULL OR nss < 0 THEN PERFORM pgvigil.refuse(format('number_sync_standbys is 0 or more, not %s', nss)); END IF;
  IF EXISTS (SELECT FROM pgvigil.node WHERE formation = formation_name GROUP BY group_id
             HAVING count(*) > 1 AND count(*) FILTER (WHERE replication_quorum) - 1 < nss) THEN
    PERFORM pgvigil.refuse(format('there are too few standbys with replication quorum for number_sync_standbys = %s', nss), 'add a node first');
  END IF;
  UPDATE pgvigil.formation SET number_sync_standbys = nss WHERE name = formation_name;
  PERFORM pgvigil.formation_changed(formation_name);
  FOR n IN SELECT DISTINCT ON (group_id) * FROM pgvigil.node WHERE formation = formation_name ORDER BY group_id, id LOOP
    PERFORM pgvigil.settings_changed(n, format('number_sync_standbys is now %s', nss));
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.set_formation_timing(formation_name text, setting text, ms integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
BEGIN
  PERFORM pgvigil.check_formation(formation_name);
  IF setting IS NULL OR setting NOT IN ('heartbeat_ms', 'unhealthy_ms', 'standby_lost_ms', 'vote_ms', 'lease_ms', 'drain_ms') THEN
    PERFORM pgvigil.refuse(format('there is no timing "%s"', setting), 'heartbeat_ms, unhealthy_ms, standby_lost_ms, vote_ms, lease_ms, drain_ms');
  END IF;
  IF setting = 'lease_ms' AND ms % 1000 <> 0 THEN
    PERFORM pgvigil.refuse(format('a lease is of whole seconds, not %s ms', ms), 'its primary counts it in seconds');
  END IF;
  -- A primary may hold a longer lease than a lowered one for as long as it has not heard of it: the monitor never waits less than before.
  IF setting = 'lease_ms' AND ms < (SELECT lease_ms FROM pgvigil.formation WHERE name = formation_name)
     AND EXISTS (SELECT FROM pgvigil.node WHERE formation = formation_name) THEN
    PERFORM pgvigil.refuse(format('lease_ms = %s: a lease can be shortened only while the formation has no nodes', ms));
  END IF;
  EXECUTE format('UPDATE pgvigil.formation SET %I = $1 WHERE name = $2', setting) USING ms, formation_name;
  PERFORM pgvigil.formation_changed(formation_name);
EXCEPTION WHEN check_violation OR not_null_violation THEN
  PERFORM pgvigil.refuse(format('%s ms is out of range for %s', ms, setting),
                         'unhealthy_ms and standby_lost_ms are at least two heartbeats; pgvigil set formation settings --help shows the ranges');
END $$;

-- Named sets of timings. A lease is never shortened (above): a longer one stays.
CREATE OR REPLACE FUNCTION pgvigil.set_formation_timings(formation_name text, preset text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  p record;
BEGIN
  PERFORM pgvigil.check_formation(formation_name);
  SELECT * INTO p FROM pgvigil.timing_presets() x WHERE x.name = preset;
  IF NOT FOUND THEN
    PERFORM pgvigil.refuse(format('there is no set of timings "%s"', preset), (SELECT string_agg(x.name, ', ') FROM pgvigil.timing_presets() x));
  END IF;
  UPDATE pgvigil.formation SET heartbeat_ms = p.heartbeat, unhealthy_ms = p.unhealthy, standby_lost_ms = p.standby_lost, vote_ms = p.vote,
                               lease_ms = greatest(lease_ms, p.lease)
  WHERE name = formation_name;
  PERFORM pgvigil.formation_changed(formation_name);
END $$;

CREATE OR REPLACE FUNCTION pgvigil.timing_presets()
RETURNS TABLE (name text, heartbeat integer, unhealthy integer, standby_lost integer, vote integer, lease integer) LANGUAGE sql IMMUTABLE AS $$
  VALUES ('fast', 300, 1200, 1200, 500, 10000), ('default', 1000, 3000, 3000, 1000, 10000), ('wan', 2000, 10000, 10000, 3000, 30000)
$$;

CREATE OR REPLACE FUNCTION pgvigil.set_node_metadata(target bigint, new_name text, new_host text, new_port integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node;
BEGIN
  IF new_host IS NOT NULL THEN PERFORM pgvigil.check_host(new_host); END IF;
  PERFORM FROM pgvigil.grp g WHERE EXISTS (SELECT FROM pgvigil.node x WHERE x.id = target AND (x.formation, x.group_id) = (g.formation, g.group_id)) FOR UPDATE;
  UPDATE pgvigil.node SET name = coalesce(new_name, name), host = coalesce(new_host, host), port = coalesce(new_port, port)
  WHERE id = target RETURNING * INTO n;
  IF NOT FOUND THEN PERFORM pgvigil.refuse(format('there is no node %s', target), '', 'PV404'); END IF;
  UPDATE pgvigil.grp SET peers_version = peers_version + 1 WHERE formation = n.formation AND group_id = n.group_id;
  PERFORM pgvigil.wake_keepers(n.formation, n.group_id);
  PERFORM pgvigil.settings_changed(n, format('%s is now at %s:%s', n.name, n.host, n.port));
EXCEPTION WHEN unique_violation THEN 
  PERFORM pgvigil.refuse(format('another node has the name %s or the address %s:%s', new_name, new_host, new_port));
WHEN check_violation THEN 
  PERFORM pgvigil.refuse(format('not a valid name, host or port: "%s", %s:%s', left(new_name, 100), left(new_host, 100), new_port));
END $$;
