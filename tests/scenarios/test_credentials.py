"""Credentials: each keeper has one of its own, with which nobody can speak for another node; what a thief of one can do."""
import json
import os
import random
import stat
import subprocess

from formation import Formation, Writer, expect
from test_memory import Backups, wait_learned
from test_sql import literal, run_script

HOSTS = "one"  # a thief is where the files are

OWN_FUNCTIONS = {"report", "tell", "get_peers", "step_down", "request_status", "open_session", "take_place", "leave_place",
                 "say_sslmode", "tell_moments"}

FUNCTIONS = """SELECT p.proname, coalesce(string_agg(format_type(t.type, NULL), ',' ORDER BY t.place), '')
FROM pg_proc p LEFT JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY AS t (type, place) ON true
WHERE p.pronamespace = 'pgvigil'::regnamespace AND p.prorettype <> 'trigger'::regtype GROUP BY p.oid, p.proname ORDER BY 1, 2;"""

# All that is not the thief's own node.
REST = """SELECT md5(string_agg(line, '|' ORDER BY line)) FROM (
  SELECT g::text AS line FROM pgvigil.grp g UNION ALL SELECT f::text FROM pgvigil.formation f UNION ALL SELECT r::text FROM pgvigil.request r
  UNION ALL SELECT n::text FROM pgvigil.node n WHERE n.id <> {own} UNION ALL SELECT x::text FROM pgvigil.removed_node x
  UNION ALL SELECT e::text FROM pgvigil.event e UNION ALL SELECT m::text FROM pgvigil.memory m
  UNION ALL SELECT a::text FROM pg_authid a WHERE a.rolname <> 'pgvigil_keeper_{own}'
  UNION ALL SELECT m::text FROM pg_auth_members m UNION ALL SELECT p.oid::text || p.proacl::text FROM pg_proc p) AS x;"""

# Every one of them has to be refused.
STATEMENTS = [f"SELECT * FROM pgvigil.{table}" for table in ("formation", "grp", "node", "node_report", "removed_node", "event", "request", "explanation", "meta",
                                                             "memory")] + [
    "SELECT * FROM pgvigil.heartbeat", "UPDATE pgvigil.heartbeat SET token = gen_random_uuid()", "UPDATE pgvigil.heartbeat SET node_id = 1",
    "DELETE FROM pgvigil.heartbeat", "INSERT INTO pgvigil.heartbeat (node_id) VALUES (1)", "UPDATE pgvigil.heartbeat SET lsn = '0/1' RETURNING lsn",
    "UPDATE pgvigil.node SET goal_state = 'dropped'", "DELETE FROM pgvigil.node", "INSERT INTO pgvigil.meta VALUES (99)",
    "SELECT setval('pgvigil.node_id_seq', 1)", "TRUNCATE pgvigil.event", "LOCK TABLE pgvigil.node", "DROP SCHEMA pgvigil CASCADE",
    "CREATE FUNCTION pgvigil.refuse(text) RETURNS void LANGUAGE sql AS ''", "ALTER FUNCTION pgvigil.is_operator() STRICT",
    "CREATE TEMPORARY TABLE t (x text)", "CREATE TABLE public.t (x text)", "CREATE SCHEMA s", "SELECT lo_create(0)", "SELECT lo_from_bytea(0, 'x')",
    "SELECT pg_advisory_lock(7367032)", "SELECT pg_try_advisory_lock_shared(7366518, 1)", "SELECT pg_advisory_xact_lock(7367031)",
    "SET ROLE pgvigil_node", "SET ROLE pgvigil_keeper_1", "SET SESSION AUTHORIZATION pgvigil_keeper_1", "CREATE ROLE r", "ALTER ROLE pgvigil_keeper_2 SUPERUSER",
    "ALTER ROLE pgvigil_keeper_1 PASSWORD 'x'", "DROP ROLE pgvigil_keeper_1", "GRANT pgvigil_node TO pgvigil_keeper_2", "ALTER SYSTEM SET port = 1",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> session_user", "SELECT pg_read_file('PG_VERSION')", "SELECT pg_reload_conf()",
    "COPY (SELECT 1) TO PROGRAM 'true'", "SELECT rolpassword FROM pg_authid", "CREATE DATABASE d", "CREATE EXTENSION dblink", "CHECKPOINT",
    "SET log_statement = 'none'", "DO LANGUAGE plpgsql $$ BEGIN PERFORM * FROM pgvigil.node; END $$"]


def own_credential(node):
    return os.path.join(node.state, "own-credential")


def sessions(f):
    """Who is connected as what: {application user: number}."""
    lines = run_script(f, "SELECT usename, count(*) FROM pg_stat_activity WHERE application_name = 'pgvigil-keeper' GROUP BY 1;", f.owner())
    return {user: int(number) for user, number in (line.split("|") for line in lines)}


def answers(run, statements):
    """What each of them is answered, one after the other over one session."""
    lines = run("".join(f"\\echo statement\n{statement};\n" for statement in statements))
    found = ["|".join(answer.split("\n")).strip("|") for answer in "\n".join(lines).split("statement")[1:]]
    expect(len(found) == len(statements), f"the session has ended: {lines[-1:]}")
    return found


def calls_of_a_thief(generator, functions):
    """Every function, with all kinds of arguments. Only its own node's plain report is left out: that is what the credential is for."""
    for name, kinds in functions:
        for _ in range(12):
            values = [f"NULL::{kind}" if kind.startswith("pgvigil.") else literal(generator, kind) for kind in kinds.split(",") if kind]
            if name in ("report", "open_session", "tell", "get_peers", "step_down", "say_sslmode", "tell_moments"):
                values[0] = f"({generator.choice([1, 3, 0, -1, 1000000])})::bigint"
            yield name, f"SELECT FROM pgvigil.{name}({', '.join(values)})"


def boast(own, **more):
    """An account that says more than the monitor knows: a reason to forget everything, and members nobody knows."""
    told = {"reported": "primary", "goal": "primary", "term": 99, "seq": 9999, "names": {"required": 0, "members": []}, "names_version": 99,
            "names_confirmed": True, "copy_unfinished": False, "timeline": 9, "promised_timeline": 9, "number_sync_standbys": 0,
            "peers": [{"id": 77, "name": "ghost", "host": "127.0.0.1", "port": 1, "is_primary": False}], "peers_version": 99}
    return json.dumps({**told, **more})


def check_heartbeats(f, node):
    """Its keeper says that nothing is new by a heartbeat: the report stands under its token while the counter goes on."""
    seen = {}

    def stands():
        token, count = run_script(f, f"SELECT coalesce(token::text, 'none'), report_count FROM pgvigil.node_report WHERE node_id = {node};", f.owner())[0].split("|")
        return int(count) - seen.setdefault(token, int(count)) >= 3 and token != "none"

    f.wait_until(stands, what="heartbeats instead of reports")


def scenario_stolen_keeper_credential():
    seed = int(os.environ.get("PGVIGIL_SEED", random.SystemRandom().randrange(1 << 31)))
    generator = random.Random(seed)
    with Formation(auth="scram-sha-256") as f:
        victim, thief = f.primary(), f.secondary()
        own = f.state()[thief.name]["node_id"]
        other = f.state()[victim.name]["node_id"]
        expect((other, own) == (1, 2), "the statements below name the roles of these")

        def steal(script):
            return run_script(f, script, f"pgvigil_keeper_{own}", password_file=own_credential(thief))

        f.run("set", "node", "candidate-priority", "60", "--name", victim.name, "--pgdata", f.monitor.pgdata)
        f.run("perform", "promotion", "--name", victim.name, "--pgdata", f.monitor.pgdata, check=False)
        request = run_script(f, "SELECT max(id) FROM pgvigil.request;", f.owner())[0]
        f.wait_healthy()
        functions = [line.split("|") for line in run_script(f, FUNCTIONS, f.owner())]
        expect(len(functions) > 40 and OWN_FUNCTIONS <= {name for name, _ in functions}, f"not all functions: {functions}")
        before = run_script(f, REST.format(own=own), f.owner())
        expect(len(before) == 1 and len(before[0]) == 32, f"nothing is compared: {before}")

        check_heartbeats(f, other)
        # That the credential is one: what it is for.
        expect(steal(f"SELECT name FROM pgvigil.get_peers({own}, 0);") == [victim.name], "the thief is not in")
        calls = list(calls_of_a_thief(generator, functions))
        for (name, call), answer in zip(calls, answers(steal, [call for _, call in calls])):
            if name not in OWN_FUNCTIONS:
                expect(answer.endswith("42501"), f"seed {seed}: {call} was allowed: {answer}")
            elif name not in ("take_place", "leave_place"):
                expect(answer.endswith(("PV403", "PV404")) or " 22" in answer, f"seed {seed}: {call} was not refused: {answer}")
        # In its own name, and more than it may say.
        where = f"'default', 0, '{thief.name}', '127.0.0.1', {thief.port}, 'postgres', 50, true, '', 'x', 'y'"
        for call, code in ((f"tell({own}, {where}, '{boast(own)}')", "PV002"), (f"request_status({request})", "PV404"), (f"step_down({own})", "PV002"),
                           (f"step_down({other})", "PV403"), (f"get_peers({other}, 0)", "PV403")):
            answer = steal(f"SELECT FROM pgvigil.{call};")
            expect(answer and answer[0].endswith(code), f"{call}: {answer}")
        # Who has this credential has the host, and with it the passwords of the formation's roles.
        with open(os.path.join(thief.state, "pgpass")) as file:
            secrets = {line.split(":")[3]: line.split(":")[4].strip() for line in file}
        where = where.replace("'x', 'y'", f"'{secrets['pgvigil_replicator']}', '{secrets['pgvigil_probe']}'")
        for call in (f"tell({own}, {where}, '{boast(own)}')", f"tell({other}, {where}, '{boast(other)}')", f"tell(77, {where}, '{boast(77)}')"):
            answer = steal(f"SELECT FROM pgvigil.{call};")
            expect(answer and answer[0].endswith("PV403"), f"{call}: {answer}")
        for statement, answer in zip(STATEMENTS, answers(steal, STATEMENTS)):
            expect("ERROR" in answer, f"{statement} was allowed: {answer}")
        expect(run_script(f, REST.format(own=own), f.owner()) == before, f"seed {seed}: more than its own row has changed")
        expect(f.primary() is victim, "a failover by a thief")
        # Its own row, whatever it writes there: nobody else sees it, and the keeper's next report puts it right.
        wild = "UPDATE pgvigil.heartbeat SET report_count = {count}, reported_at = '{at}', lsn = 'FFFFFFFF/FFFFFFFF' RETURNING node_id"
        for count, at in ((9223372036854775807, "infinity"), (-9223372036854775808, "-infinity"), (0, "now")):
            f.wait_until(lambda: steal(wild.format(count=count, at=at) + ";") == [str(own)], what="its row stands, and no other")
            f.state()
            heard = f"SELECT report_count BETWEEN 1 AND 2000000000 AND isfinite(reported_at) FROM pgvigil.node_report WHERE node_id = {own};"
            f.wait_until(lambda: run_script(f, heard, f.owner()) == ["t"], what="its keeper is heard again")
        elsewhere = run_script(f, "\\c postgres\nSELECT 'in';", f"pgvigil_keeper_{own}", password_file=own_credential(thief))
        expect("in" not in elsewhere, f"another database is open to it: {elsewhere}")
        f.wait_healthy()


def scenario_stolen_probe_credential():
    """The probe's is nothing to the monitor, and at a node no more than a role that nobody has given anything."""
    with Formation(auth="scram-sha-256") as f:
        node = f.primary()
        with open(os.path.join(node.state, "pgpass")) as file:
            password = {line.split(":")[3]: line.split(":")[4].strip() for line in file}["pgvigil_probe"]
        stolen = os.path.join(f.work, "stolen")
        with open(stolen, "w") as file:
            file.write(password)

        def steal(script):
            return run_script(f, script, "pgvigil_probe", password_file=stolen)

        answer = steal("SELECT 'in';")
        expect("in" not in answer and "FATAL" in answer[-1], f"the monitor lets it in: {answer}")
        # Somebody's role of that name in the monitor's database, let in by their own line.
        run_script(f, f"CREATE ROLE pgvigil_probe LOGIN PASSWORD '{password}';", f.owner())
        with open(os.path.join(f.monitor.pgdata, "pg_hba.conf"), "a") as file:
            file.write("host pgvigil pgvigil_probe all scram-sha-256\n")
        run_script(f, "SELECT pg_reload_conf();", f.owner())
        f.wait_until(lambda: steal("SELECT 'in';") == ["in"], what="the role comes in")
        functions = [line.split("|") for line in run_script(f, FUNCTIONS, f.owner())]
        expect(len(functions) > 40, f"not all functions: {functions}")
        statements = [f"SELECT FROM pgvigil.{name}({', '.join(f'NULL::{kind}' for kind in kinds.split(',') if kind)})" for name, kinds in functions]
        for statement, answer in zip(statements + STATEMENTS, answers(steal, statements + STATEMENTS)):
            expect("ERROR" in answer, f"{statement} was allowed: {answer}")
            expect(statement in STATEMENTS or answer.endswith(("42501", "3F000")), f"{statement}: {answer}")

        node.sql("CREATE DATABASE application")
        node.sql("CREATE ROLE nobody LOGIN")
        more = node.sql("""SELECT count(*) FROM (
          SELECT FROM pg_proc WHERE has_function_privilege('pgvigil_probe', oid, 'EXECUTE') <> has_function_privilege('nobody', oid, 'EXECUTE') UNION ALL
          SELECT FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'p', 'f') AND has_table_privilege('pgvigil_probe', oid, 'SELECT, INSERT, UPDATE, DELETE')
            <> has_table_privilege('nobody', oid, 'SELECT, INSERT, UPDATE, DELETE') UNION ALL
          SELECT FROM pg_auth_members WHERE member = 'pgvigil_probe'::regrole UNION ALL
          SELECT FROM pg_shdepend WHERE refobjid = 'pgvigil_probe'::regrole UNION ALL
          SELECT FROM pg_roles WHERE rolname = 'pgvigil_probe' AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)) AS x""")
        expect(more == "0", f"it has more rights than nobody: {more}")

        def enter(database):
            env = dict(f.env, PGPASSWORD=password)
            return subprocess.run(["psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", str(node.port), "-U", "pgvigil_probe", "-d", database, "-c", "SELECT 'in'"],
                                  env=env, capture_output=True, text=True, timeout=30)

        expect(enter("postgres").stdout == "in\n", "this is not its password")
        for database in ("application", "template1"):
            expect("rejects connection" in enter(database).stderr, f"it comes into {database}: {enter(database)}")
        f.wait_healthy()


def scenario_own_credentials():
    """Keepers come in by them, also where the registration's credential was taken away, after a restart and to hand over; a dropped node's ends."""
    with Formation(nodes=3) as f:
        Writer(f, rate=100)
        f.wait_until(lambda: sessions(f) == {f"pgvigil_keeper_{n}": 1 for n in (1, 2, 3)}, what="each keeper in its own name")
        texts = ""
        for node in f.nodes:
            expect(stat.S_IMODE(os.stat(own_credential(node)).st_mode) == 0o600, "others may read it")
        os.rename(f.password_file, f.password_file + ".away")
        primary = f.primary()
        f.run("stop", "--pgdata", primary.pgdata)
        f.wait_takeover(primary)
        expect("asks for another node to take over" in open(primary.log).read() and "stops without a successor" not in open(primary.log).read(),
               "there was no hand-over")
        primary.start()
        f.wait_healthy()
        secrets = [open(own_credential(node)).read().strip() for node in f.nodes]
        expect(len(set(secrets)) == 3 and min(map(len, secrets)) == 64, "which are the secrets?")
        gone = f.secondary()
        role = f"pgvigil_keeper_{f.state()[gone.name]['node_id']}"
        f.run("drop", "node", "--name", gone.name, "--pgdata", f.monitor.pgdata)
        gone.process.wait(60)
        expect(gone.process.returncode == 121, f"the dropped node's keeper ends with {gone.process.returncode}")
        expect(run_script(f, f"SELECT FROM pg_roles WHERE rolname = '{role}';", f.owner()) == [], "the role of a dropped node is left")
        f.nodes.remove(gone)
        f.wait_healthy()
        f.check_acknowledged()
        for daemon in [f.monitor, gone] + f.nodes:
            for log in (daemon.log, os.path.join(daemon.state, "postgresql.log")):
                texts += open(log, errors="replace").read()
        expect(not any(secret in texts for secret in secrets), "a secret stands in a log")


def scenario_registered_before():
    """A node without a credential of its own gets one. Where it cannot come in by it, it goes on with that of the registration."""
    with Formation() as f:
        node = f.secondary()
        own = f.state()[node.name]["node_id"]
        node.kill()
        os.unlink(own_credential(node))
        run_script(f, f"DROP ROLE pgvigil_keeper_{own};", f.owner())
        node.start()
        f.wait_until(lambda: f"pgvigil_keeper_{own}" in sessions(f), what="it has one")
        # An administrator's own pg_hba.conf that lets in only pgvigil_node.
        hba = os.path.join(f.monitor.pgdata, "pg_hba.conf")
        with open(hba) as file:
            lines = file.read()
        with open(hba, "w") as file:
            file.write("host all +pgvigil_keeper all reject\n" + lines)
        run_script(f, "SELECT pg_reload_conf();", f.owner())
        node.kill()
        node.start()
        f.wait_until(lambda: "pgvigil_node" in sessions(f), what="it goes on with the other one")
        f.wait_healthy()


def scenario_old_backup_by_own_credential():
    """A monitor that was put back from a backup learns from nodes whose only credential is their own: while it learns, they may tell of themselves."""
    with Formation() as f:
        f.start_writers()
        backups = Backups(f)
        old = backups.take()
        f.wait_healthy()
        os.rename(f.password_file, f.password_file + ".away")
        former = f.primary()
        former.crash()
        successor = f.wait_takeover(former)
        former.start()
        f.wait_healthy()
        backups.put_back(old)
        wait_learned(f)
        f.wait_healthy()
        expect(f.primary() is successor, "the former primary took over")
        f.goes_on(successor)
        f.check_acknowledged()
