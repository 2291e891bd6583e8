-- A monitor whose database was restored from a backup, or is new to nodes that are at work. Each node tells what it has written down
-- (common/model/account.hpp); rules 601 to 699 of monitor/fsm put it together.

-- From now on nothing on record is believed.
CREATE OR REPLACE FUNCTION pgvigil.lose_memory(f text, g integer, why text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- Of the lists only this stays: who was removed by force, and is waited for.
  UPDATE pgvigil.grp SET learning = true, names_in_force = coalesce((
    SELECT jsonb_agg(DISTINCT jsonb_build_object('required', 1, 'members', jsonb_build_array(gone.id), 'by', 0))
    FROM jsonb_array_elements(names_in_force) AS e (entry),
         LATERAL (SELECT (e.entry ->> 'by')::bigint AS id
                  UNION SELECT m::bigint FROM jsonb_array_elements_text(e.entry -> 'members') AS m WHERE e.entry ->> 'by' = '0') AS gone
    WHERE gone.id <> 0 AND NOT EXISTS (SELECT FROM pgvigil.node n WHERE n.id = gone.id AND n.formation = f AND n.group_id = g)), '[]')
  WHERE formation = f AND group_id = g;
  UPDATE pgvigil.node SET account = NULL WHERE formation = f AND group_id = g;
  DELETE FROM pgvigil.node_report r USING pgvigil.node n WHERE n.id = r.node_id AND n.formation = f AND n.group_id = g;
  UPDATE pgvigil.request SET status = 'refused', message = 'the monitor has lost its memory', decided_at = now()
  WHERE formation = f AND group_id = g AND status = 'pending';
  -- Numbers that were given to nodes which nobody tells of.
  PERFORM setval('pgvigil.node_id_seq', (SELECT last_value FROM pgvigil.node_id_seq) + 1000);
  PERFORM pgvigil.record_event(f, g, NULL, (SELECT term FROM pgvigil.grp WHERE formation = f AND group_id = g), 7, 'memory_lost',
                               why || '; the group is learned anew from its nodes');
  PERFORM pg_notify('pgvigil_wake', f || '/' || g);
  PERFORM pgvigil.wake_keepers(f, g);
END $$;

CREATE OR REPLACE FUNCTION pgvigil.check_account(account jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  key text;
  pattern text;
  item jsonb;
BEGIN
  IF jsonb_typeof(account) IS DISTINCT FROM 'object' THEN PERFORM pgvigil.refuse(format('an account is a JSON object, not %s', left(account::text, 100))); END IF;
  FOREACH key IN ARRAY ARRAY['reported', 'goal', 'term', 'seq', 'names', 'names_version', 'names_confirmed', 'copy_unfinished', 'timeline',
                             'promised_timeline', 'number_sync_standbys', 'peers', 'peers_version'] LOOP
    IF NOT account ? key THEN PERFORM pgvigil.refuse(format('account: there is no "%s" in %s', key, left(account::text, 100))); END IF;
  END LOOP;
  FOREACH key IN ARRAY ARRAY['reported', 'goal'] LOOP
    IF pgvigil.known_state(account ->> key) IS NOT TRUE THEN
      PERFORM pgvigil.refuse(format('account: "%s" is not a state', left(account ->> key, 100)));
    END IF;
  END LOOP;
  FOREACH key IN ARRAY ARRAY['term', 'seq', 'names_version', 'timeline', 'promised_timeline', 'number_sync_standbys', 'peers_version'] LOOP
    pattern := CASE key WHEN 'peers_version' THEN '^(-1|[0-9]{1,15})$' WHEN 'number_sync_standbys' THEN '^[0-9]{1,4}$'
                        WHEN 'timeline' THEN '^[0-9]{1,9}$' WHEN 'promised_timeline' THEN '^[0-9]{1,9}$' ELSE '^[0-9]{1,15}$' END;
    IF jsonb_typeof(account -> key) <> 'number' OR account ->> key !~ pattern THEN PERFORM pgvigil.refuse(format('account: "%s" is not a %s', left(account ->> key, 100), key)); END IF;
  END LOOP;
  -- Not told by older keepers. The limits are those of formation.lease_ms.
  IF account ? 'lease_seconds' AND (jsonb_typeof(account -> 'lease_seconds') <> 'number' OR account ->> 'lease_seconds' !~ '^[0-9]{1,3}$' OR (account ->> 'lease_seconds')::integer NOT BETWEEN 2 AND 600) THEN
    PERFORM pgvigil.refuse(format('account: "%s" is not a lease in seconds', left(account ->> 'lease_seconds', 100)), '2 to 600');
  END IF;
  FOREACH key IN ARRAY ARRAY['names_confirmed', 'copy_unfinished'] LOOP
    IF jsonb_typeof(account -> key) IS DISTINCT FROM 'boolean' THEN PERFORM pgvigil.refuse(format('account: %s is true or false, not %s', key, left((account -> key)::text, 100))); END IF;
  END LOOP;
  IF coalesce((account #> '{names,required}')::text, '') !~ '^[0-9]{1,4}$' OR jsonb_typeof(account #> '{names,members}') IS DISTINCT FROM 'array' THEN
    PERFORM pgvigil.refuse(format('account: not a list of names: %s', left((account -> 'names')::text, 100)));
  END IF;
  FOR item IN SELECT * FROM jsonb_array_elements(account #> '{names,members}') LOOP
    IF item::text !~ '^[0-9]{1,15}$' THEN PERFORM pgvigil.refuse(format('account: the members of names are node ids, not %s', left(item::text, 100))); END IF;
  END LOOP;
  IF jsonb_typeof(account -> 'peers') IS DISTINCT FROM 'array' THEN PERFORM pgvigil.refuse(format('account: peers is a list, not %s', left((account -> 'peers')::text, 100))); END IF;
  FOR item IN SELECT * FROM jsonb_array_elements(account -> 'peers') LOOP
    -- (sslmode: not told by older keepers.)
    IF coalesce((item -> 'id')::text, '') !~ '^[1-9][0-9]{0,14}$' OR coalesce((item -> 'port')::text, '') !~ '^[0-9]{1,5}$'
       OR jsonb_typeof(item -> 'name') IS DISTINCT FROM 'string' OR jsonb_typeof(item -> 'host') IS DISTINCT FROM 'string'
       OR jsonb_typeof(item -> 'is_primary') IS DISTINCT FROM 'boolean' OR jsonb_typeof(item -> 'sslmode') <> 'string' THEN
      PERFORM pgvigil.refuse(format('account: a peer has an id, a name, a host, a port, and is_primary, not %s', left(item::text, 100)));
    END IF;
  END LOOP;
END $$;

-- A member that is left out, because another node has or had its number here, would be waited for by nobody: nothing is believed then.
CREATE OR REPLACE FUNCTION pgvigil.insert_learned(f text, g integer, its_id bigint, its_name text, its_host text, its_port integer, its_system numeric)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n pgvigil.node;
  gone pgvigil.removed_node;
BEGIN
  SELECT * INTO n FROM pgvigil.node WHERE id = its_id;
  IF FOUND THEN
    IF (n.formation, n.group_id) = (f, g) THEN RETURN; END IF;
    PERFORM pgvigil.refuse(format('node %s of the group is %s at %s:%s; here that is the number of %s of formation "%s", group %s', its_id, its_name, its_host,
                                  its_port, n.name, n.formation, n.group_id),
                           'is this the right monitor? Use one to which no other node was ever registered');
  END IF;
  SELECT * INTO gone FROM pgvigil.removed_node WHERE node_id = its_id;
  IF FOUND THEN
    IF gone.formation = f AND its_system IS NOT NULL AND pgvigil.is_the_removed(gone, its_system) THEN RETURN; END IF;
    PERFORM pgvigil.refuse(format('node %s of the group is %s at %s:%s; here that was the number of %s of formation "%s", which was removed', its_id, its_name,
                                  its_host, its_port, gone.name, gone.formation),
                           'is this the right monitor? Use one to which no other node was ever registered');
  END IF;
  -- Order 0: nothing that this monitor has said. Its settings come with its own word.
  INSERT INTO pgvigil.node (id, formation, group_id, name, host, port, goal_state, goal_seq) OVERRIDING SYSTEM VALUE
  VALUES (its_id, f, g, its_name, its_host, its_port, 'wait_standby', 0);
  PERFORM setval('pgvigil.node_id_seq', greatest(its_id + 1000, (SELECT last_value FROM pgvigil.node_id_seq)));
EXCEPTION WHEN unique_violation THEN
  PERFORM pgvigil.refuse(format('node %s (%s at %s:%s) has the name or the address of another node', its_id, its_name, its_host, its_port),
                         'pgvigil show state lists them');
WHEN check_violation THEN
  PERFORM pgvigil.refuse(format('not a valid node: %s, "%s", %s:%s', its_id, its_name, its_host, its_port));
END $$;

-- Names and addresses of those who are on record already, by a newer list. In two steps: names may have been exchanged, and each is one node's at any time.
CREATE OR REPLACE FUNCTION pgvigil.rename_known(f text, g integer, members jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  changed bigint[];
BEGIN
  SELECT array_agg(n.id) INTO changed FROM pgvigil.node n JOIN jsonb_to_recordset(members) AS m (id bigint, name text, host text, port integer) ON m.id = n.id
  WHERE n.formation = f AND n.group_id = g AND (n.name, n.host, n.port) IS DISTINCT FROM (m.name, m.host, m.port);
  UPDATE pgvigil.node SET name = 'moved.' || gen_random_uuid(), host = 'moved.' || gen_random_uuid() WHERE id = ANY (changed);
  UPDATE pgvigil.node n SET name = m.name, host = m.host, port = m.port
  FROM jsonb_to_recordset(members) AS m (id bigint, name text, host text, port integer) WHERE m.id = n.id AND n.id = ANY (changed);
END $$;

-- The group as the teller's list has it, where that is newer than what is known here. The list has all members but the teller, whose keeper does not
-- know when it was renamed.
CREATE OR REPLACE FUNCTION pgvigil.take_members(f text, g integer, teller bigint, its_name text, its_host text, its_port integer, its_system numeric,
                                                members jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  peer jsonb;
  free_name text := its_name;
BEGIN
  members := coalesce((SELECT jsonb_agg(m) FROM jsonb_array_elements(members) AS m WHERE (m ->> 'id')::bigint <> teller), '[]');
  IF EXISTS (SELECT FROM jsonb_array_elements(members) AS m WHERE m ->> 'name' = its_name) THEN free_name := 'node_' || teller; END IF;
  -- Who is not in it, has told nothing, and whose name or address another node has now, was dropped after the backup.
  WITH holders AS (SELECT m ->> 'name' AS name, m ->> 'host' AS host, (m ->> 'port')::integer AS port FROM jsonb_array_elements(members) AS m
                   UNION ALL SELECT free_name, its_host, its_port),
  gone AS (
    DELETE FROM pgvigil.node n WHERE n.formation = f AND n.group_id = g AND n.account IS NULL AND n.id <> teller
      AND NOT EXISTS (SELECT FROM jsonb_array_elements(members) AS m WHERE (m ->> 'id')::bigint = n.id)
      AND EXISTS (SELECT FROM holders h WHERE n.name = h.name OR (n.host, n.port) = (h.host, h.port)) RETURNING n.id, n.formation, n.name, n.system_identifier)
  INSERT INTO pgvigil.removed_node (node_id, formation, name, system_identifier) SELECT id, formation, name, system_identifier FROM gone ON CONFLICT DO NOTHING;
  UPDATE pgvigil.node n SET name = 'node_' || n.id WHERE n.id = teller AND n.name IN (SELECT m ->> 'name' FROM jsonb_array_elements(members) AS m);
  PERFORM pgvigil.rename_known(f, g, members);
  PERFORM pgvigil.insert_learned(f, g, teller, free_name, its_host, its_port, its_system);
  FOR peer IN SELECT * FROM jsonb_array_elements(members) LOOP
    PERFORM pgvigil.insert_learned(f, g, (peer ->> 'id')::bigint, peer ->> 'name', peer ->> 'host', (peer ->> 'port')::integer, its_system);
  END LOOP;
EXCEPTION WHEN unique_violation THEN
  PERFORM pgvigil.refuse(format('a member has the name or the address of another node: %s', members), 'pgvigil show state lists them');
END $$;

-- The passwords that the nodes' roles have: a formation without nodes takes them over, another one has to have them already.
CREATE OR REPLACE FUNCTION pgvigil.adopt_formation(f pgvigil.formation, nss integer, of_replication text, of_probe text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF (f.replication_password, f.probe_password) IS NOT DISTINCT FROM (of_replication, of_probe) THEN RETURN; END IF;
  IF coalesce(of_replication, '') = '' OR coalesce(of_probe, '') = '' THEN PERFORM pgvigil.refuse('the passwords of the roles are missing'); END IF;
  IF EXISTS (SELECT FROM pgvigil.node WHERE formation = f.name) THEN
    PERFORM pgvigil.refuse(format('the node belongs to another formation "%s" than this monitor''s', f.name),
                           'is this the right monitor? Drop the node there, or use an empty monitor');
  END IF;
  UPDATE pgvigil.formation SET replication_password = of_replication, probe_password = of_probe, number_sync_standbys = nss WHERE name = f.name;
END $$;

-- By its own credential a node tells of itself alone. To make the monitor forget what it knows, or to bring it members that it does not know, it needs
-- the one that it was registered with.
CREATE OR REPLACE FUNCTION pgvigil.check_teller(reporter bigint, gr pgvigil.grp, account jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF pgvigil.is_operator() THEN RETURN; END IF;
  IF gr.learning IS NOT TRUE OR (account ->> 'peers_version')::bigint > gr.peers_version THEN
    PERFORM pgvigil.refuse(format('node %s knows what this monitor does not, and its own credential does not allow it to say so', reporter),
                           'pgvigil enable monitor --monitor-password-file, on the host of the node', 'PV403');
  END IF;
END $$;

-- A node that was added after the backup and has not copied anything yet, and knows nobody and no order that this monitor does not: it is like one that is
-- registered now. No memory is lost for it: what was learned, perhaps from a primary that is gone meanwhile, stays.
CREATE OR REPLACE FUNCTION pgvigil.brings_nothing(gr pgvigil.grp, told jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT told ->> 'reported' IN ('init', 'wait_standby') AND told ->> 'goal' IN ('init', 'wait_standby', 'catchingup')
     AND (told ->> 'term')::bigint <= gr.term AND (told ->> 'names_version')::bigint <= gr.names_version
     AND (told ->> 'peers_version')::bigint <= gr.peers_version
     AND EXISTS (SELECT FROM pgvigil.node n WHERE n.formation = gr.formation AND n.group_id = gr.group_id)
     AND NOT EXISTS (SELECT FROM jsonb_array_elements(told -> 'peers') AS p
                     WHERE NOT EXISTS (SELECT FROM pgvigil.node n WHERE n.id = (p ->> 'id')::bigint AND (n.formation, n.group_id) = (gr.formation, gr.group_id))
                       AND NOT EXISTS (SELECT FROM pgvigil.removed_node d WHERE d.node_id = (p ->> 'id')::bigint AND d.formation = gr.formation))
$$;

CREATE OR REPLACE FUNCTION pgvigil.enroll(
  gr pgvigil.grp, its_id bigint, its_name text, its_host text, its_port integer, its_dbname text, priority integer, quorum boolean, told jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n pgvigil.node;
BEGIN
  PERFORM pgvigil.insert_learned(gr.formation, gr.group_id, its_id, its_name, its_host, its_port, gr.system_identifier);
  -- Later than every order that it may have been given.
  UPDATE pgvigil.node SET goal_seq = (told ->> 'seq')::bigint + 100, reported_state = told ->> 'reported', candidate_priority = priority,
                          replication_quorum = quorum, dbname = its_dbname
  WHERE id = its_id RETURNING * INTO n;
  UPDATE pgvigil.grp SET peers_version = peers_version + 1 WHERE formation = gr.formation AND group_id = gr.group_id;
  PERFORM pgvigil.record_event(gr.formation, gr.group_id, n, gr.term, 1, 'register',
                               format('%s, which this monitor had forgotten, is registered at %s:%s', n.name, n.host, n.port));
  PERFORM pg_notify('pgvigil_wake', gr.formation || '/' || gr.group_id);
  PERFORM pgvigil.wake_keepers(gr.formation, gr.group_id);
END $$;

CREATE OR REPLACE FUNCTION pgvigil.tell(
  reporter bigint, formation_name text, group_number integer, node_name text, node_host text, node_port integer, node_dbname text,
  priority integer, quorum boolean, sysid text, of_replication text, of_probe text, account jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  f pgvigil.formation;
  gr pgvigil.grp;
  n pgvigil.node;
  its_system numeric;
BEGIN
  PERFORM pgvigil.check_caller(reporter);
  IF coalesce(reporter, 0) NOT BETWEEN 1 AND 999999999999999 THEN PERFORM pgvigil.refuse(format('%s is not a node''s id', reporter)); END IF;
  PERFORM pgvigil.check_account(account);
  IF coalesce(group_number, -1) < 0 THEN PERFORM pgvigil.refuse(format('a group number is 0 or more, not %s', group_number)); END IF;
  IF sysid IS NULL OR sysid !~ '^[0-9]{0,20}$' THEN PERFORM pgvigil.refuse(format('"%s" is not a system identifier', sysid)); END IF;
  its_system := nullif(sysid, '')::numeric;
  IF EXISTS (SELECT FROM pgvigil.removed_node d WHERE d.node_id = reporter AND pgvigil.is_the_removed(d, its_system)) THEN
    RETURN;  -- its next report is answered: dropped
  END IF;
  SELECT * INTO f FROM pgvigil.formation WHERE name = formation_name FOR UPDATE;
  IF NOT FOUND THEN PERFORM pgvigil.refuse(format('there is no formation "%s"', formation_name), 'pgvigil create formation', 'PV404'); END IF;
  SELECT * INTO n FROM pgvigil.node WHERE id = reporter;
  IF NOT FOUND THEN PERFORM pgvigil.check_teller(reporter, NULL, account); END IF;
  IF n.id IS NOT NULL AND (n.formation, n.group_id, n.host, n.port) IS DISTINCT FROM (formation_name, group_number, node_host, node_port) THEN
    PERFORM pgvigil.refuse(format('node %s is %s of formation "%s", group %s, at %s:%s here', reporter, n.name, n.formation, n.group_id, n.host, n.port),
                           'is this the right monitor? When only the address has changed: pgvigil set node metadata');
  END IF;
  PERFORM pgvigil.adopt_formation(f, (account ->> 'number_sync_standbys')::integer, of_replication, of_probe);
  INSERT INTO pgvigil.grp (formation, group_id) VALUES (formation_name, group_number) ON CONFLICT DO NOTHING;
  SELECT * INTO gr FROM pgvigil.grp x WHERE x.formation = formation_name AND x.group_id = group_number FOR UPDATE;
  SELECT * INTO n FROM pgvigil.node WHERE id = reporter;
  IF gr.system_identifier <> its_system THEN
    PERFORM pgvigil.refuse(format('its PGDATA is of system %s, but the group is of system %s; nothing is believed', sysid, gr.system_identifier),
                           'is this the right monitor?');
  END IF;
  IF NOT gr.learning AND n.id IS NOT NULL AND (account ->> 'term')::bigint <= gr.term AND (account ->> 'seq')::bigint <= n.goal_seq
     AND (account ->> 'names_version')::bigint <= gr.names_version THEN
    RETURN;  -- learned meanwhile
  END IF;
  PERFORM pgvigil.check_teller(reporter, gr, account);
  IF NOT gr.learning AND n.id IS NULL AND pgvigil.brings_nothing(gr, account) THEN
    PERFORM pgvigil.enroll(gr, reporter, node_name, node_host, node_port, node_dbname, priority, quorum, account);
    RETURN;
  END IF;
  its_system := coalesce(its_system, gr.system_identifier);
  IF NOT gr.learning THEN
    PERFORM pgvigil.lose_memory(formation_name, group_number, format('node %s knows more than this monitor does', reporter));
  END IF;
  IF (account ->> 'peers_version')::bigint > gr.peers_version THEN
    PERFORM pgvigil.take_members(formation_name, group_number, reporter, node_name, node_host, node_port, its_system, account -> 'peers');
  ELSE
    PERFORM pgvigil.insert_learned(formation_name, group_number, reporter, node_name, node_host, node_port, its_system);
  END IF;
  UPDATE pgvigil.node x SET account = tell.account, reported_state = tell.account ->> 'reported',
    candidate_priority = CASE WHEN goal_seq = 0 THEN priority ELSE candidate_priority END,
    replication_quorum = CASE WHEN goal_seq = 0 THEN quorum ELSE replication_quorum END,
    dbname = CASE WHEN goal_seq = 0 THEN node_dbname ELSE dbname END
  WHERE id = reporter;
  PERFORM pgvigil.name_database(formation_name, node_dbname);
  -- A primary that nobody has heard may hold a lease as long as any node was told of: a choice by force waits for its end.
  UPDATE pgvigil.formation SET lease_ms = (account ->> 'lease_seconds')::integer * 1000
  WHERE name = formation_name AND lease_ms < (account ->> 'lease_seconds')::integer * 1000;
  IF FOUND THEN PERFORM pgvigil.formation_changed(formation_name); END IF;
  UPDATE pgvigil.grp SET peers_version = greatest(peers_version, (account ->> 'peers_version')::bigint),
                         system_identifier = its_system
  WHERE formation = formation_name AND group_id = group_number;
  PERFORM pg_notify('pgvigil_wake', formation_name || '/' || group_number);
EXCEPTION WHEN check_violation OR not_null_violation THEN
  PERFORM pgvigil.refuse(format('not a valid node: %s, "%s", %s:%s, priority %s', reporter, node_name, node_host, node_port, priority));
END $$;
