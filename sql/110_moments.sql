-- What failovers consisted of: for people; no decision reads it. None of it is flushed by itself, for nothing hangs on it.

-- Every promotion raises the term, and gives wait_primary before anybody else can: the first such event of a term is the order to take over.
CREATE OR REPLACE FUNCTION pgvigil.store_moments(f text, g integer, of_term bigint, teller bigint, teller_name text, former text, words jsonb)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  SET LOCAL synchronous_commit = off;
  INSERT INTO pgvigil.moments (event_id, node_id, node_name, former_name, told)
  SELECT e.id, teller, teller_name, former, words FROM pgvigil.event e
  WHERE e.formation = f AND e.group_id = g AND e.term = of_term AND e.goal_state = 'wait_primary' ORDER BY e.id LIMIT 1
  ON CONFLICT (event_id, node_id) DO UPDATE SET told = excluded.told;
END $$;

CREATE OR REPLACE FUNCTION pgvigil.tell_moments(reporter bigint, of_term bigint, words jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
DECLARE
  n pgvigil.node;
BEGIN
  PERFORM pgvigil.check_caller(reporter);
  IF words IS NULL OR jsonb_typeof(words) <> 'array' OR length(words::text) > 8000 OR EXISTS (
       SELECT FROM jsonb_array_elements(words) AS m
       WHERE NOT coalesce((m ->> 'moment') ~ '^[a-z_]{1,30}$' AND (m ->> 'ms') ~ '^[0-9]{1,10}$' AND jsonb_typeof(m -> 'ms') = 'number'
                          AND jsonb_typeof(m -> 'detail') = 'string', false)) THEN
    PERFORM pgvigil.refuse(format('not a list of moments: %s', left(words::text, 100)));
  END IF;
  SELECT * INTO n FROM pgvigil.node WHERE id = reporter;
  IF FOUND THEN PERFORM pgvigil.store_moments(n.formation, n.group_id, of_term, n.id, n.name, '', words); END IF;
END $$;

-- One row for each that has told something of the takeover; the newest takeover is the first.
DROP FUNCTION IF EXISTS pgvigil.takeover(text, integer, integer);
CREATE FUNCTION pgvigil.takeover(formation_name text, group_number integer, newest integer)
RETURNS TABLE (eventid bigint, eventtime timestamptz, groupid integer, term bigint, nodeid bigint, nodename text, rule_pos integer, rule_name text,
               description text, teller_id bigint, teller_name text, former_name text, told jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pgvigil, pg_temp AS $$
#variable_conflict use_column
DECLARE
  max_id CONSTANT bigint := 9223372036854775807;
BEGIN
  PERFORM pgvigil.check_group(formation_name, group_number);
  RETURN QUERY
  SELECT e.id, e.at, e.group_id, e.term, e.node_id, e.node_name, e.rule, e.rule_name, e.description, m.node_id, m.node_name, m.former_name, m.told
  -- Group by group, as last_events() does.
  FROM (SELECT t.* FROM pgvigil.grp g, LATERAL (
          SELECT * FROM pgvigil.event o WHERE (o.formation, o.group_id, o.id) BETWEEN (g.formation, g.group_id, 0) AND (g.formation, g.group_id, max_id)
            AND EXISTS (SELECT FROM pgvigil.moments x WHERE x.event_id = o.id)
          ORDER BY o.formation DESC, o.group_id DESC, o.id DESC LIMIT greatest(newest, 1)) AS t
        WHERE g.formation = formation_name AND (group_number IS NULL OR g.group_id = group_number)
        ORDER BY t.id DESC OFFSET greatest(newest, 1) - 1 LIMIT 1) AS e
  JOIN pgvigil.moments m ON m.event_id = e.id ORDER BY m.node_id;
END $$;
