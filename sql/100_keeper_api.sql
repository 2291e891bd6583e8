-- What keepers call. Loaded anew at each start of a monitor: a function has no version but the program's.
CREATE OR REPLACE FUNCTION pgvigil.refuse(message text, hint text DEFAULT '', code text DEFAULT 'PV002') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, HINT = hint;
END $$;

-- Who calls: an operator (pgvigil_node, or who is a member of it; the owner), or a keeper with its node's own credential (130_doors.sql).
CREATE OR REPLACE FUNCTION pgvigil.is_operator() RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT session_user = current_user OR pg_has_role(session_user, 'pgvigil_node', 'MEMBER')
$$;

CREATE OR REPLACE FUNCTION pgvigil.check_caller(self bigint) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF session_user IS DISTINCT FROM 'pgvigil_keeper_' || self AND NOT pgvigil.is_operator() THEN
    PERFORM pgvigil.refuse(format('%s may not speak for node %s', session_user, self), 'each keeper has a credential of its own', 'PV403');
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.known_state(state text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT state IN ('init', 'single', 'wait_primary', 'primary', 'draining', 'demote_timeout', 'demoted', 'wait_standby', 'catchingup',
                   'secondary', 'prepare_promotion', 'stop_replication', 'report_lsn', 'fast_forward', 'join_secondary', 'apply_settings',
                   'prepare_maintenance', 'wait_maintenance', 'maintenance', 'dropped')
$$;

CREATE OR REPLACE FUNCTION pgvigil.takes_writes(state text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT state IN ('single', 'wait_primary', 'primary', 'apply_settings')
$$;

CREATE OR REPLACE FUNCTION pgvigil.runs_as_standby(state text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT state IN ('catchingup', 'secondary', 'prepare_promotion', 'stop_replication', 'report_lsn', 'fast_forward', 'join_secondary', 'wait_maintenance')
$$;

-- An address in full, or a name: as config::is_host() (common/config/values.hpp).
CREATE OR REPLACE FUNCTION pgvigil.is_host(host text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  octet text := '(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';
BEGIN
  IF host ~ format('^(%s\.){3}%s$', octet, octet) THEN RETURN true; END IF;
  IF host ~ ':' AND host !~ '[/%]' THEN RETURN family(host::inet) = 6; END IF;
  IF host !~ '^[^[:space:][:cntrl:]''",/\\#:%.][^[:space:][:cntrl:]''",/\\#:%]*$' OR octet_length(host) > 255 THEN RETURN false; END IF;
  -- What getaddrinfo() takes for a number ends with one.
  RETURN host NOT IN ('all', 'samehost', 'samenet') AND regexp_replace(regexp_replace(host, '\.$', ''), '^.*\.', '') !~ '^([0-9]*|0[xX][0-9a-fA-F]*)$';
EXCEPTION WHEN invalid_text_representation THEN
  RETURN false;
END $$;

-- Of a host that comes to a group. One line of pg_hba.conf that PostgreSQL cannot read, and no node of the group starts any more.
CREATE OR REPLACE FUNCTION pgvigil.check_host(host text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF pgvigil.is_host(host) IS NOT TRUE THEN
    PERFORM pgvigil.refuse(format('"%s" is not a host name or address', left(host, 100)),
                           'give an address in full, or a name that is no number and no keyword of pg_hba.conf (all, samehost, samenet, .domain)');
  END IF;
END $$;

-- A group keeps its newest 20,000 events or some more (and what belongs to them), so that a node that flaps for weeks does not fill the monitor's disk. Few
-- at a time, but more than come: a decision waits for it, and is undone when it takes too long.
CREATE OR REPLACE FUNCTION pgvigil.record_event(f text, g integer, n pgvigil.node, event_term bigint, rule_no integer, rule_word text, words text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  row pgvigil.event;
BEGIN
  INSERT INTO pgvigil.event (formation, group_id, node_id, node_name, host, port, reported_state, goal_state, term, rule, rule_name, description)
  VALUES (f, g, n.id, n.name, n.host, n.port, n.reported_state, n.goal_state, event_term, rule_no, rule_word, words)
  RETURNING * INTO row;
  PERFORM pg_notify('pgvigil_events', left(to_json(row)::text, 7900));
  IF row.id % 100 = 0 THEN
    DELETE FROM pgvigil.event e WHERE e.id IN (
      SELECT o.id FROM pgvigil.event o WHERE (o.formation, o.group_id) = (f, g)
        AND o.id <= (SELECT k.id FROM pgvigil.event k WHERE (k.formation, k.group_id) = (f, g) ORDER BY k.id DESC OFFSET 20000 LIMIT 1)
      ORDER BY o.id LIMIT 2000);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.wake_keepers(f text, g integer) RETURNS void LANGUAGE sql AS $$
  SELECT pg_notify('pgvigil_node_' || id, goal_seq::text) FROM pgvigil.node WHERE formation = f AND group_id = g
$$;

-- The goal of one node, as the keeper reads it.
CREATE OR REPLACE FUNCTION pgvigil.goal_of(n pgvigil.node, gr pgvigil.grp) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  last_names jsonb := gr.names_in_force -> -1;
  own boolean := coalesce((last_names ->> 'by')::bigint = n.id, false);
  f pgvigil.formation;
  source bigint;
  floor pg_lsn;
BEGIN
  SELECT * INTO f FROM pgvigil.formation x WHERE x.name = n.formation;
  IF n.goal_state = 'fast_forward' THEN
    source := n.source_id;
  ELSIF n.goal_state IN ('wait_standby', 'catchingup', 'secondary', 'prepare_promotion', 'demoted', 'join_secondary', 'wait_maintenance') THEN
    SELECT p.id INTO source FROM pgvigil.node p
    WHERE p.formation = n.formation AND p.group_id = n.group_id AND p.id <> n.id
      AND (pgvigil.takes_writes(p.goal_state) OR p.goal_state IN ('draining', 'prepare_maintenance'))
    ORDER BY pgvigil.takes_writes(p.goal_state) DESC LIMIT 1;
  END IF;
  IF n.goal_state = 'secondary' THEN
    SELECT min(r.lsn) INTO floor FROM pgvigil.node p JOIN pgvigil.node_report r ON r.node_id = p.id
    WHERE p.formation = n.formation AND p.group_id = n.group_id AND p.id <> n.id AND r.lsn > '0/0' AND p.goal_state <> 'dropped';
  END IF;
  RETURN jsonb_build_object(
    'state', n.goal_state, 'term', gr.term, 'seq', n.goal_seq,
    -- Standbys of a group that never writes alone hold a list that nobody can satisfy (keeper/fsm/core.hpp, must_arm()).
    'names', CASE WHEN own THEN last_names - 'by'
                  WHEN pgvigil.runs_as_standby(n.goal_state) AND f.number_sync_standbys > 0
                  THEN '{"required": 1, "members": [0]}'::jsonb ELSE '{"required": 0, "members": []}'::jsonb END,
    'heartbeat_ms', f.heartbeat_ms,
    'names_version', CASE WHEN own THEN gr.names_version ELSE 0 END,
    'peers_version', gr.peers_version, 'upstream', source, 'promised_timeline', gr.timeline, 'wal_floor', coalesce(floor, '0/0'),
    'number_sync_standbys', f.number_sync_standbys,
    'lease_seconds', f.lease_ms / 1000);
END $$;

-- By the lock that each session of a keeper holds (open_session()).
CREATE OR REPLACE FUNCTION pgvigil.keeper_is_connected(self bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                 WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.classid = 7366518 AND l.objid::bigint = self AND l.objsubid = 2)
$$;

CREATE OR REPLACE FUNCTION pgvigil.register_node(
  formation_name text, group_number integer, node_name text, node_host text, node_port integer, node_dbname text, sysid text,
  priority integer, quorum boolean, known_id bigint,
  OUT node_id bigint, OUT name text, OUT group_id integer, OUT goal jsonb, OUT replication_password text, OUT probe_password text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  f pgvigil.formation;
  gr pgvigil.grp;
  n pgvigil.node;
BEGIN
  SELECT * INTO f FROM pgvigil.formation x WHERE x.name = formation_name;
  IF NOT FOUND THEN PERFORM pgvigil.refuse(format('there is no formation "%s"', formation_name), 'pgvigil create formation', 'PV404'); END IF;
  IF group_number IS NULL OR group_number < 0 THEN PERFORM pgvigil.refuse(format('a group number is 0 or more, not %s', group_number)); END IF;
  IF sysid <> '' AND sysid !~ '^[0-9]{1,20}$' THEN PERFORM pgvigil.refuse(format('"%s" is not a system identifier', sysid)); END IF;
  INSERT INTO pgvigil.grp (formation, group_id) VALUES (formation_name, group_number) ON CONFLICT DO NOTHING;
  SELECT * INTO gr FROM pgvigil.grp x WHERE x.formation = formation_name AND x.group_id = group_number FOR UPDATE;
  IF gr.learning THEN
    PERFORM pgvigil.refuse('this monitor has lost its memory, and learns the state of the group from its nodes first',
                           'pgvigil show why tells for whom it waits', 'PV001');
  END IF;
  SELECT * INTO n FROM pgvigil.node x WHERE (x.host = node_host AND x.port = node_port) OR x.id = known_id
    ORDER BY (x.id = known_id) DESC NULLS LAST LIMIT 1;
  IF FOUND THEN
    IF n.goal_state = 'dropped' THEN PERFORM pgvigil.refuse(format('%s is being dropped', n.name), 'try again when it has gone', 'PV001'); END IF;
    IF n.formation <> formation_name OR n.group_id <> group_number OR n.host <> node_host OR n.port <> node_port THEN
      PERFORM pgvigil.refuse(format('%s:%s is node %s of formation "%s", group %s, at %s:%s already', node_host, node_port, n.name, n.formation,
                                    n.group_id, n.host, n.port), 'drop it there first');
    END IF;
    IF node_name <> '' AND node_name <> n.name THEN
      PERFORM pgvigil.refuse(format('%s:%s is registered as %s already', node_host, node_port, n.name), 'use that name, or pgvigil set node metadata');
    END IF;
    -- By its address alone: whoever says that he is this node gets its credential. Not while it lives.
    IF n.id IS DISTINCT FROM known_id AND n.reported_state <> 'init' AND pgvigil.keeper_is_connected(n.id) THEN
      PERFORM pgvigil.refuse(format('%s:%s is node %s, and a keeper of it is connected', node_host, node_port, n.name),
                             'is --hostname right? When that host has just gone, try again in some seconds');
    END IF;
  ELSE
    n := pgvigil.add_node(f, gr, node_name, node_host, node_port, node_dbname, sysid, priority, quorum);
    SELECT * INTO gr FROM pgvigil.grp x WHERE x.formation = formation_name AND x.group_id = group_number;
  END IF;
  IF sysid <> '' AND gr.system_identifier IS NOT NULL AND gr.system_identifier <> sysid::numeric THEN
    PERFORM pgvigil.refuse(format('PGDATA is of system %s, but the group is of system %s', sysid, gr.system_identifier),
                           'use an empty PGDATA: it is filled by a base backup');
  END IF;
  node_id := n.id; name := n.name; group_id := n.group_id; goal := pgvigil.goal_of(n, gr);
  replication_password := f.replication_password; probe_password := f.probe_password;
END $$;

-- The first node's database is that of the applications, where nobody has said another one with the formation.
CREATE OR REPLACE FUNCTION pgvigil.name_database(formation_name text, of_node text) RETURNS void LANGUAGE sql AS $$
  UPDATE pgvigil.formation SET dbname = of_node WHERE name = formation_name AND dbname = 'postgres' AND of_node NOT IN ('', 'postgres')
$$;

CREATE OR REPLACE FUNCTION pgvigil.add_node(f pgvigil.formation, gr pgvigil.grp, node_name text, node_host text, node_port integer, node_dbname text,
                                            sysid text, priority integer, quorum boolean) RETURNS pgvigil.node
LANGUAGE plpgsql AS $$
DECLARE
  n pgvigil.node;
  others integer;
  leaders integer;
  first_goal text;
BEGIN
  PERFORM pgvigil.check_host(node_host);
  SELECT count(*), count(*) FILTER (WHERE pgvigil.takes_writes(goal_state)) INTO others, leaders
  FROM pgvigil.node WHERE formation = gr.formation AND group_id = gr.group_id;
  IF others = 0 THEN
    IF priority = 0 THEN PERFORM pgvigil.refuse('the first node of a group needs a candidate priority above 0'); END IF;
    first_goal := 'single';
  ELSE
    -- Read again: the group is locked now.
    IF NOT (SELECT opt_secondary FROM pgvigil.formation WHERE name = f.name) THEN
      PERFORM pgvigil.refuse(format('formation "%s" takes no secondaries', f.name), format('pgvigil enable secondary --formation %s', f.name));
    END IF;
    IF leaders = 0 THEN PERFORM pgvigil.refuse('there is no primary to copy from yet', 'try again in a moment', 'PV001'); END IF;
    first_goal := 'wait_standby';
  END IF;
  IF NOT EXISTS (SELECT FROM pgvigil.node WHERE formation = gr.formation) THEN PERFORM pgvigil.name_database(gr.formation, node_dbname); END IF;
  INSERT INTO pgvigil.node (formation, group_id, name, host, port, dbname, candidate_priority, replication_quorum, goal_state)
  VALUES (gr.formation, gr.group_id, coalesce(nullif(node_name, ''), 'new.' || gen_random_uuid()), node_host, node_port, node_dbname, priority,
          quorum, first_goal)
  RETURNING * INTO n;
  IF coalesce(node_name, '') = '' THEN UPDATE pgvigil.node SET name = 'node_' || n.id WHERE id = n.id RETURNING * INTO n; END IF;
  -- A group that starts afresh takes the identity of its first node.
  UPDATE pgvigil.grp SET peers_version = peers_version + 1,
                         term = CASE WHEN others = 0 THEN term + 1 ELSE term END,
                         timeline = CASE WHEN others = 0 THEN 0 ELSE timeline END,
                         names_in_force = CASE WHEN others = 0 THEN '[]' ELSE names_in_force END,
                         system_identifier = CASE WHEN others = 0 THEN nullif(sysid, '')::numeric ELSE system_identifier END
  WHERE formation = gr.formation AND group_id = gr.group_id RETURNING * INTO gr;
  PERFORM pgvigil.record_event(gr.formation, gr.group_id, n, gr.term, 1, 'register', format('%s is registered at %s:%s', n.name, n.host, n.port));
  PERFORM pg_notify('pgvigil_wake', gr.formation || '/' || gr.group_id);
  PERFORM pgvigil.wake_keepers(gr.formation, gr.group_id);
  RETURN n;
EXCEPTION WHEN unique_violation THEN
  PERFORM pgvigil.refuse(format('a node called %s or at %s:%s is registered already', node_name, node_host, node_port), 'choose another --name');
  RETURN NULL;
WHEN check_violation THEN
  PERFORM pgvigil.refuse(format('not a valid node: name "%s", %s:%s, priority %s', node_name, node_host, node_port, priority),
                         'a name has letters, digits, _ . -; a priority is 0 to 100');
  RETURN NULL;
END $$;

-- Whether the node of this number that was removed here is the one whose PGDATA is of `its_system`. One that had none when it was removed may have copied
-- its group's since. At the wrong monitor, or at a new one that was tried out before, somebody else's node has that number.
CREATE OR REPLACE FUNCTION pgvigil.is_the_removed(d pgvigil.removed_node, its_system numeric) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT its_system IS NULL OR coalesce(d.system_identifier = its_system, EXISTS (
    SELECT FROM pgvigil.grp g WHERE g.formation = d.formation AND g.system_identifier = its_system))
$$;

-- What a node hears that is not on record.
CREATE OR REPLACE FUNCTION pgvigil.answer_to_stranger(reporter bigint, promised_term bigint, seq bigint, sysid text) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
  gone pgvigil.removed_node;
BEGIN
  IF reporter IS NULL OR reporter < 1 THEN PERFORM pgvigil.refuse(format('there is no node %s', coalesce(reporter::text, 'NULL')), '', 'PV404'); END IF;
  SELECT * INTO gone FROM pgvigil.removed_node WHERE node_id = reporter;
  IF NOT FOUND THEN RETURN '{"tell": true}'; END IF;
  IF NOT pgvigil.is_the_removed(gone, nullif(sysid, '')::numeric) THEN RETURN '{"wait": true}'; END IF;
  -- Later than every order that it may have been given; and not the last number that there is, should it tell it to a monitor without memory.
  RETURN jsonb_build_object('state', 'dropped', 'term', promised_term, 'seq', seq + 1000000000000, 'names', '{"required": 0, "members": []}'::jsonb,
                            'names_version', 0, 'peers_version', 0, 'upstream', NULL,
                            -- How long the lease lasts that it still has; it is not prolonged by this (keeper/fsm/core.hpp).
                            'lease_seconds', coalesce((SELECT f.lease_ms / 1000 FROM pgvigil.formation f WHERE f.name = gone.formation), 2));
END $$;

-- What no keeper says.
CREATE OR REPLACE FUNCTION pgvigil.check_report(state text, promised_term bigint, seq bigint, tli integer, upstream_sight text, tli_history text)
RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF pgvigil.known_state(state) IS NOT TRUE THEN PERFORM pgvigil.refuse(format('"%s" is not a state', left(state, 100))); END IF;
  IF upstream_sight IN ('unknown', 'ok', 'refused', 'silent') IS NOT TRUE THEN
    PERFORM pgvigil.refuse(format('"%s" is not a sight of an upstream', left(upstream_sight, 100)), 'unknown, ok, refused or silent');
  END IF;
  IF tli_history IS NULL OR length(tli_history) > 100000 OR tli_history !~ '^([0-9]+:[0-9A-F]+/[0-9A-F]+(,|$))*$' THEN
    PERFORM pgvigil.refuse(format('"%s" is not a history of a timeline', left(tli_history, 100)));
  END IF;
  IF (tli >= 0 AND promised_term >= 0 AND seq >= 0) IS NOT TRUE THEN
    PERFORM pgvigil.refuse(format('not numbers from 0 on: timeline %s, term %s, order %s', tli, promised_term, seq));
  END IF;
END $$;

-- A keeper writes to the counter of its reports by itself, too (130_doors.sql): whatever it holds, it goes on, and is never 0, which stands for no report.
CREATE OR REPLACE FUNCTION pgvigil.next_count(counter bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT greatest(counter, 0) % 1000000000 + 1
$$;

-- Nothing of it is believed, and it does not count as heard: `show state` says why. It may come from a keeper that was sent to the wrong monitor, where a
-- healthy node has its number; what that one has said stays. Where PGDATA was replaced, the node of the group is gone: as silent as one whose host is.
CREATE OR REPLACE FUNCTION pgvigil.report_of_another_system(n pgvigil.node, gr pgvigil.grp, identity numeric, promised_term bigint, seq bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  refusal text := format('its PGDATA is of system %s, but the group is of system %s; nothing is overwritten', identity, gr.system_identifier);
  before text := (SELECT reason FROM pgvigil.node_report WHERE node_id = n.id);
BEGIN
  INSERT INTO pgvigil.node_report AS r (node_id, reason) VALUES (n.id, refusal)
  ON CONFLICT (node_id) DO UPDATE SET reason = excluded.reason, token = NULL
  WHERE (r.of_term, r.of_seq) <= (promised_term, seq) AND r.reason IS DISTINCT FROM excluded.reason;
  IF FOUND AND before IS DISTINCT FROM refusal THEN PERFORM pg_notify('pgvigil_wake', n.formation || '/' || n.group_id); END IF;
END $$;

-- A heartbeat that says nothing new but the progress of WAL: a keeper updates its own row here, by the token that was in the answer to its last report().
-- A thousand keepers do so a thousand times a second, at half of what a function around the UPDATE would cost. The row is not here, and the keeper has to
-- report in full, when the group's row has changed since that answer was made; and every 32nd time, for the answer also says which WAL the peers need.
CREATE OR REPLACE VIEW pgvigil.heartbeat WITH (security_barrier) AS
  SELECT r.node_id, r.token, r.report_count, r.reported_at, r.lsn FROM pgvigil.node_report r
  WHERE (session_user = 'pgvigil_keeper_' || r.node_id OR pg_has_role(session_user, 'pgvigil_node', 'MEMBER'))
    AND r.token IS NOT NULL AND r.report_count BETWEEN 1 AND 2000000000 AND r.report_count % 32 <> 0
    -- Not EXISTS, which PostgreSQL would answer by a hash of all groups.
    AND r.answer_version = (SELECT x.version FROM pgvigil.grp x WHERE x.formation = r.formation AND x.group_id = r.group_id);

-- A report. One small update of an unlogged table while nothing changes; a durable one, and a wake-up of the monitor, when something does.
CREATE OR REPLACE FUNCTION pgvigil.report(
  reporter bigint, state text, promised_term bigint, seq bigint, running boolean, responding boolean, tli integer, wal_position pg_lsn,
  names_confirmed bigint, upstream_sight text, is_streaming boolean, why text, sysid text, tli_history text DEFAULT '',
  no_space boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node;
  gr pgvigil.grp;
  before pgvigil.node_report;
  pair record;
  answer jsonb;
  identity numeric;
  news boolean := false;
  at_rest boolean;
  new_token uuid;
BEGIN
  IF session_user IS DISTINCT FROM 'pgvigil_keeper_' || reporter THEN PERFORM pgvigil.check_caller(reporter); END IF;
  -- A report that a crash takes back is told again by the next heartbeat. What was decided on it is flushed, and everything before it.
  SET LOCAL synchronous_commit = off;
  -- Together: a goal of one moment and a term of another would make an order that nobody has given.
  SELECT m AS node, x AS grp INTO pair FROM pgvigil.node m JOIN pgvigil.grp x ON x.formation = m.formation AND x.group_id = m.group_id
  WHERE m.id = reporter;
  IF NOT FOUND THEN RETURN pgvigil.answer_to_stranger(reporter, promised_term, seq, sysid); END IF;
  n := pair.node;
  gr := pair.grp;
  identity := nullif(sysid, '')::numeric;
  SELECT * INTO before FROM pgvigil.node_report WHERE node_id = reporter;
  PERFORM pgvigil.check_report(state, promised_term, seq, tli, upstream_sight, tli_history);
  -- What this monitor does not know it has forgotten (110_learning.sql): it asks for all that the node knows.
  IF (gr.learning AND n.account IS NULL)
     OR (NOT gr.learning AND (promised_term > gr.term OR seq > n.goal_seq OR names_confirmed > gr.names_version)) THEN
    RETURN '{"tell": true}';
  END IF;
  IF identity IS NOT NULL AND gr.system_identifier IS NOT NULL AND identity <> gr.system_identifier AND state <> 'dropped' THEN
    PERFORM pgvigil.report_of_another_system(n, gr, identity, promised_term, seq);
    -- No order of this group is meant for it, but to leave: a node is dropped whatever its PGDATA holds, which stays.
    RETURN CASE WHEN n.goal_state = 'dropped' AND NOT gr.learning THEN pgvigil.goal_of(n, gr) ELSE '{"wait": true}' END;
  END IF;
  -- Late news of an older order must undo nothing, neither the state nor the LSN that a vote has told.
  IF NOT gr.learning AND (promised_term, seq) < (n.reported_term, n.reported_seq) THEN RETURN pgvigil.goal_of(n, gr); END IF;
  -- An order is reached in the state that it names. Only a copy puts another in its place: what the node was is overwritten (keeper/fsm/core.cpp, copied()).
  IF NOT gr.learning AND seq = n.goal_seq AND state <> n.goal_state AND NOT (state = 'catchingup' AND n.goal_state IN ('join_secondary', 'fast_forward')) THEN
    -- A number of an older term was another monitor's, whose memory is lost: the node takes the order instead.
    IF promised_term < gr.term THEN RETURN pgvigil.goal_of(n, gr); END IF;
    PERFORM pgvigil.refuse(format('%s cannot be "%s" by order %s, which is "%s"', n.name, state, seq, n.goal_state));
  END IF;
  -- While the monitor learns, what was reached counts for no order.
  IF NOT gr.learning AND ((state, promised_term, seq, names_confirmed) IS DISTINCT FROM (n.reported_state, n.reported_term, n.reported_seq, n.names_version)
     OR (identity IS NOT NULL AND n.system_identifier IS DISTINCT FROM identity)) THEN
    -- The group's row before its nodes', as everybody locks them.
    IF identity IS NOT NULL AND gr.system_identifier IS NULL THEN
      UPDATE pgvigil.grp SET system_identifier = identity WHERE formation = n.formation AND group_id = n.group_id AND system_identifier IS NULL;
    END IF;
    UPDATE pgvigil.node SET reported_state = state, reported_term = promised_term, reported_seq = seq, names_version = names_confirmed,
                            system_identifier = coalesce(identity, system_identifier),
                            state_since = CASE WHEN reported_state <> state THEN now() ELSE state_since END
    WHERE id = reporter AND (reported_term, reported_seq) <= (promised_term, seq);
    news := FOUND;
  END IF;
  answer := CASE WHEN gr.learning THEN '{"wait": true}' ELSE pgvigil.goal_of(n, gr) END;
  at_rest := NOT gr.learning AND n.goal_state IN ('single', 'wait_primary', 'primary', 'secondary') AND n.goal_state = state;
  IF at_rest THEN new_token := gen_random_uuid(); END IF;
  INSERT INTO pgvigil.node_report AS r (node_id, report_count, pg_running, pg_responding, timeline, lsn, upstream, streaming, reason, history,
                                        disk_full, token, formation, group_id, answer_version, of_term, of_seq)
  VALUES (reporter, 1, running, responding, tli, wal_position, upstream_sight, is_streaming, left(why, 1000), tli_history, coalesce(no_space, false),
          new_token, n.formation, n.group_id, gr.version, promised_term, seq)
  ON CONFLICT (node_id) DO UPDATE SET report_count = pgvigil.next_count(r.report_count), reported_at = now(), pg_running = excluded.pg_running,
    pg_responding = excluded.pg_responding, timeline = excluded.timeline, lsn = excluded.lsn, upstream = excluded.upstream,
    streaming = excluded.streaming, reason = excluded.reason, history = excluded.history, disk_full = excluded.disk_full,
    token = excluded.token, formation = excluded.formation, group_id = excluded.group_id, answer_version = excluded.answer_version, of_term = excluded.of_term,
    of_seq = excluded.of_seq
  -- Another session of this keeper may have told of a later order since the node was read above; and the monitor may have learned, and asked for votes. A
  -- keeper's orders only grow: those of a monitor that has learned are above all that it was told, and what a lost memory knew has gone with it.
  WHERE (r.of_term, r.of_seq) <= (excluded.of_term, excluded.of_seq);
  IF NOT FOUND THEN
    -- Or its state file is an older one than before. Who waits, and is given no order, is heard all the same.
    IF gr.learning THEN UPDATE pgvigil.node_report SET report_count = pgvigil.next_count(report_count), reported_at = now() WHERE node_id = reporter; END IF;
    RETURN answer;
  END IF;
  -- The monitor decides by the picture that it has until it is woken: whatever a rule or an explanation can see is news.
  news := news OR (running, responding, tli, upstream_sight, is_streaming, coalesce(no_space, false), left(why, 1000), tli_history) IS DISTINCT FROM
                  (before.pg_running, before.pg_responding, before.timeline, before.upstream, before.streaming, before.disk_full, before.reason,
                   before.history)
       OR (wal_position IS DISTINCT FROM before.lsn AND NOT at_rest);
  IF news THEN PERFORM pg_notify('pgvigil_wake', n.formation || '/' || n.group_id); END IF;
  RETURN CASE WHEN at_rest THEN answer || jsonb_build_object('token', new_token) ELSE answer END;
END $$;

-- A primary that is to be stopped asks for another one in its place: the failover that an operator could ask for, and only from itself.
CREATE OR REPLACE FUNCTION pgvigil.step_down(self bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node;
BEGIN
  PERFORM pgvigil.check_caller(self);
  SELECT * INTO n FROM pgvigil.node WHERE id = self;
  IF NOT FOUND THEN PERFORM pgvigil.refuse(format('there is no node %s', self), '', 'PV404'); END IF;
  IF NOT pgvigil.takes_writes(n.goal_state) THEN PERFORM pgvigil.refuse(format('%s is not the primary', n.name)); END IF;
  RETURN pgvigil.ask(n.formation, n.group_id, 'failover', n.id, false);
END $$;

-- at_least: the version that the keeper was told of. A database that was restored between two questions must not take members from a node's memory.
DROP FUNCTION IF EXISTS pgvigil.get_peers(bigint), pgvigil.get_peers(bigint, bigint);
CREATE FUNCTION pgvigil.get_peers(self bigint, at_least bigint)
RETURNS TABLE (id bigint, name text, host text, port integer, is_primary boolean, sslmode text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  version bigint;
BEGIN
  PERFORM pgvigil.check_caller(self);
  SELECT g.peers_version INTO version FROM pgvigil.node n JOIN pgvigil.grp g ON g.formation = n.formation AND g.group_id = n.group_id WHERE n.id = self;
  IF NOT FOUND THEN PERFORM pgvigil.refuse(format('there is no node %s', self), '', 'PV404'); END IF;
  IF at_least IS NULL OR at_least > version THEN
    PERFORM pgvigil.refuse(format('version %s of the members is not known here', at_least), 'ask again', 'PV001');
  END IF;
  RETURN QUERY SELECT p.id, p.name, p.host, p.port, pgvigil.takes_writes(p.goal_state), p.sslmode
    FROM pgvigil.node n JOIN pgvigil.node p ON p.formation = n.formation AND p.group_id = n.group_id AND p.id <> n.id
    WHERE n.id = self AND p.goal_state <> 'dropped' ORDER BY p.id;
END $$;

-- How the others are to reach its PostgreSQL from now on. False: say it again, when the monitor knows the node.
CREATE OR REPLACE FUNCTION pgvigil.say_sslmode(self bigint, mode text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node;
  gr pgvigil.grp;
BEGIN
  PERFORM pgvigil.check_caller(self);
  IF mode IS NULL OR mode NOT IN ('prefer', 'require', 'verify-ca', 'verify-full') THEN PERFORM pgvigil.refuse(format('"%s" is not an sslmode', mode)); END IF;
  SELECT g.* INTO gr FROM pgvigil.grp g JOIN pgvigil.node x ON x.formation = g.formation AND x.group_id = g.group_id WHERE x.id = self FOR UPDATE OF g;
  IF NOT FOUND OR gr.learning THEN RETURN false; END IF;
  UPDATE pgvigil.node SET sslmode = mode WHERE id = self AND sslmode <> mode RETURNING * INTO n;
  IF NOT FOUND THEN RETURN true; END IF;
  UPDATE pgvigil.grp SET peers_version = peers_version + 1 WHERE formation = n.formation AND group_id = n.group_id;
  PERFORM pgvigil.wake_keepers(n.formation, n.group_id);
  PERFORM pgvigil.settings_changed(n, format('%s is reached by sslmode=%s', n.name, mode));
  RETURN true;
END $$;

-- A lock for the life of the session: that the keeper is there. Shared: one that comes back must not wait for the end of its old backend. Tells how
-- many keepers are there. A host that has vanished must not keep it for hours, also where the PostgreSQL is somebody else's (monitor/commands: write_files();
-- no session over a Unix socket is changed by these).
CREATE OR REPLACE FUNCTION pgvigil.open_session(self bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
BEGIN
  PERFORM pgvigil.check_caller(self);
  PERFORM set_config('tcp_keepalives_idle', '3', false), set_config('tcp_keepalives_interval', '1', false),
          set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '5000', false);
  PERFORM pg_advisory_lock_shared(7366518, self::integer);
  RETURN (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7366518);
END $$;

-- One of the few places of those who listen while they have something to tell (common/monitor_api): one a session.
CREATE OR REPLACE FUNCTION pgvigil.take_place(place integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
BEGIN
  IF place IS NULL OR place NOT BETWEEN 0 AND 63 OR NOT pg_try_advisory_lock(7366519, place) THEN RETURN false; END IF;
  -- Last, for it reads the locks of all: a thousand keepers that come at once ask for places that are taken.
  IF (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7366519 AND pid = pg_backend_pid()) = 1 THEN RETURN true; END IF;
  PERFORM pg_advisory_unlock(7366519, place);
  RETURN false;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.leave_place(place integer) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$ SELECT pg_advisory_unlock(7366519, place) $$;
