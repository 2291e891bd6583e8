"""Today's monitor on the database of an older one: each version of the schema, with the rows of a formation that is at work."""
import json
import os
import re

from formation import Formation, Writer, expect, text_of

HOSTS = "one"  # the monitor alone

SQL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "sql")
VERSIONS = {int(name[:3]): name for name in sorted(os.listdir(SQL)) if re.match(r"0\d\d_.*\.sql$", name)}
NEWEST = max(VERSIONS)

# What the functions of older versions looked like, where today's differ: from version, to version, arguments, result. Their bodies play no part.
STATE = """formation_kind text, nodename text, nodehost text, nodeport integer, group_id integer, node_id bigint, current_group_state text,
  assigned_group_state text, candidate_priority integer, replication_quorum boolean, reported_tli integer, reported_lsn pg_lsn, health integer, nodecluster text,
  noderegion text, pg_running boolean, streaming boolean, term bigint, reason text, report_age_seconds double precision"""
REPORT = """reporter bigint, state text, promised_term bigint, seq bigint, running boolean, responding boolean, tli integer, wal_position pg_lsn,
  names_confirmed bigint, upstream_sight text, is_streaming boolean, why text, sysid text"""
PEERS = "TABLE (id bigint, name text, host text, port integer, is_primary boolean)"
OLD_FUNCTIONS = [
    (1, 1, f"report({REPORT})", "jsonb"),
    (1, 1, "ask(f text, g integer, request_kind text, node bigint, data_loss boolean)", "bigint"),
    (2, 2, f"report({REPORT}, tli_history text)", "jsonb"),
    (1, 4, "get_peers(self bigint)", PEERS),
    (5, 7, "get_peers(self bigint, at_least bigint)", PEERS),
    (1, 3, "formation_hosts(formation_name text)", "TABLE (host text, port integer, dbname text)"),
    (4, 7, "formation_hosts(formation_name text)", "TABLE (group_id integer, host text, port integer, dbname text)"),
    (1, 7, "current_state(formation_name text, group_number integer)", f"TABLE ({STATE})"),
]

# Every row goes over, as far as the older version had a place for it, and today's has it still.
COPY = """DO $$
DECLARE
  t text; columns text; numbered text;
BEGIN
  SET LOCAL session_replication_role = replica;
  DELETE FROM pgvigil.formation;
  IF to_regclass('pgvigil.memory') IS NOT NULL THEN DELETE FROM pgvigil.memory; END IF;
  FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'pgvigil' AND tablename <> 'meta' LOOP
    SELECT string_agg(quote_ident(o.attname), ', '), max(o.attname) FILTER (WHERE o.attidentity <> '') INTO columns, numbered
    FROM pg_attribute o JOIN pg_attribute n ON n.attrelid = ('newer.' || t)::regclass AND n.attname = o.attname AND NOT n.attisdropped
    WHERE o.attrelid = ('pgvigil.' || t)::regclass AND o.attnum > 0 AND NOT o.attisdropped;
    EXECUTE format('INSERT INTO pgvigil.%1$I (%2$s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM newer.%1$I', t, columns);
    IF numbered IS NOT NULL THEN
      EXECUTE format('SELECT setval(pg_get_serial_sequence(%1$L, %2$L), max(%2$I)) FROM %1$s', 'pgvigil.' || t, numbered);
    END IF;
  END LOOP;
END $$"""

FUNCTIONS = """SELECT string_agg(format('%s(%s) %s', proname, pg_get_function_arguments(oid), pg_get_function_result(oid)), E'\\n' ORDER BY oid::regprocedure::text)
FROM pg_proc WHERE pronamespace = 'pgvigil'::regnamespace"""

# What nobody but an operator changes, or nobody at all.
LASTING = {"formation": "true", "removed_node": "true", "event": "id <= {event}", "request": "status <> 'pending' AND id <= {request}",
           "moments": "event_id < {event}"}


def monitor_sql(f, text):
    return f.monitor.sql(text, database="pgvigil", seconds=60)


def make_older(f, version):
    """Turns the monitor's database into one of this version, and the keepers into those that know no credential where it knew none."""
    for daemon in [f.monitor, *f.nodes]:
        daemon.kill()  # its PostgreSQL goes on
    script = ["BEGIN", "SET LOCAL client_min_messages = warning", "ALTER SCHEMA pgvigil RENAME TO newer", "CREATE SCHEMA pgvigil",
              f"CREATE TABLE pgvigil.meta AS SELECT {version} AS schema_version"]
    script += [text_of(os.path.join(SQL, VERSIONS[number])) for number in range(1, version + 1)]
    for first, last, function, result in OLD_FUNCTIONS:
        if first <= version <= last:
            script.append(f"CREATE FUNCTION pgvigil.{function} RETURNS {result} LANGUAGE plpgsql SECURITY DEFINER AS "
                          "$$ BEGIN RAISE 'a function of an older version'; END $$")
    script += ["GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgvigil TO pgvigil_node", COPY, "DROP SCHEMA newer CASCADE"]
    if version < 5:
        script += [f"DROP ROLE IF EXISTS pgvigil_keeper_{number}" for number in range(1, 10)] + ["DROP OWNED BY pgvigil_keeper", "DROP ROLE pgvigil_keeper"]
        for node in f.nodes:
            os.remove(os.path.join(node.state, "own-credential"))
    if version < 4:
        os.remove(os.path.join(f.monitor.state, "witness"))
    monitor_sql(f, ";\n".join(script + ["COMMIT"]))


def lasting_rows(f, highest, columns=None):
    """By table; of these columns, or of all."""
    found = {}
    for table, condition in LASTING.items():
        if monitor_sql(f, f"SELECT to_regclass('pgvigil.{table}') IS NOT NULL") == "f" or (columns and table not in columns):
            continue
        rows = json.loads(monitor_sql(f, f"SELECT coalesce(json_agg(t ORDER BY t::text), '[]') FROM pgvigil.{table} t WHERE " + condition.format(**highest)))
        found[table] = [{key: row[key] for key in (columns[table] if columns else row)} for row in rows]
    return found


def scenario_older_databases():
    with Formation(nodes=2) as f:
        Writer(f, rate=100)
        f.goes_on()
        f.run("set", "node", "candidate-priority", "70", "--name", "node2", "--pgdata", f.monitor.pgdata)
        f.run("set", "formation", "settings", "drain_ms", "45000", "--pgdata", f.monitor.pgdata)
        f.run("create", "formation", "--formation", "other", "--dbname", "shop", "--number-sync-standbys", "1", "--pgdata", f.monitor.pgdata)
        monitor_sql(f, "INSERT INTO pgvigil.removed_node (node_id, formation, name) VALUES (900, 'other', 'gone')")
        functions = monitor_sql(f, FUNCTIONS)
        for version in range(1, NEWEST):
            f.switchover()
            f.wait_healthy()
            term, nodes = f.term(), {name: (row["node_id"], row["candidate_priority"]) for name, row in f.state().items()}
            make_older(f, version)
            highest = {table: int(monitor_sql(f, f"SELECT max(id) FROM pgvigil.{table}")) for table in ("event", "request")}
            before = lasting_rows(f, highest)
            expect(all(before[table] for table in before) and len(before) == (5 if version >= 6 else 4), f"version {version}: rows are missing: {before}")
            expect(version >= 5 or monitor_sql(f, "SELECT count(*) FROM pg_roles WHERE rolname ~ '^pgvigil_keeper'") == "0", "roles are left")
            for daemon in [f.monitor, *f.nodes]:
                daemon.start()
            f.wait_until(f.state, what="the monitor answers")
            f.wait_healthy()
            f.wait_encrypted()
            expect(monitor_sql(f, "SELECT schema_version FROM pgvigil.meta") == str(NEWEST), f"version {version} is not brought to {NEWEST}")
            expect(monitor_sql(f, FUNCTIONS) == functions, f"version {version}: other functions than those of a new database:\n{monitor_sql(f, FUNCTIONS)}")
            after = lasting_rows(f, highest, {table: list(rows[0]) for table, rows in before.items()})
            expect(after == before, f"version {version}: rows have changed: {before} became {after}")
            expect({name: (row["node_id"], row["candidate_priority"]) for name, row in f.state().items()} == nodes, f"version {version}: other nodes")
            expect(f.term() >= term, f"version {version}: the term has gone back")
            f.goes_on()
        f.switchover()
        f.wait_healthy()
        f.check_acknowledged()
