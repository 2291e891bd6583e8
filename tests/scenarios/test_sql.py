"""Nonsense for every SQL function that a node's credential may call: refused with a clear error, and nothing has changed."""
import json
import os
import random
import signal
import subprocess

from formation import Formation, Writer, expect


FUNCTIONS = """SELECT p.proname, coalesce(string_agg(format_type(t.type, NULL), ',' ORDER BY t.place), '')
FROM pg_proc p LEFT JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY AS t (type, place) ON true
WHERE p.pronamespace = 'pgvigil'::regnamespace AND has_function_privilege('pgvigil_node', p.oid, 'EXECUTE') GROUP BY p.oid, p.proname ORDER BY 1, 2"""

# What a node's own truthful word would be is not nonsense: pgvigil_node may speak for each. So a forged report is one of these.
SNAPSHOT = """SELECT md5(string_agg(line, '|' ORDER BY line)) FROM (
  SELECT g::text AS line FROM pgvigil.grp g UNION ALL SELECT f::text FROM pgvigil.formation f UNION ALL SELECT r::text FROM pgvigil.request r
  UNION ALL SELECT (n.id, n.formation, n.name, n.host, n.port, n.candidate_priority, n.replication_quorum, n.goal_state, n.goal_seq, n.reported_state,
                    n.reported_term, n.reported_seq, n.names_version, n.sslmode)::text FROM pgvigil.node n) AS x"""

TEXTS = ["", "default", "node1", "node2", "nobody", "scratch", "x" * 5000, "'; DROP TABLE pgvigil.node; --", "pg_catalog", "primary", "secondary", "dropped",
         "maintenance", "unknown", "ok", "1:0/3000000", "1:0/3000000,", "{}", "\u00e4\u20ac", "127.0.0.1", "host with space", "lease_ms", "0/0", "-1"]
NUMBERS = [0, 1, 2, 3, -1, -2147483648, 2147483647, 5, 100, 101, 65536]
BIGS = NUMBERS + [-9223372036854775808, 9223372036854775807, 4611686018427387904]


def account(generator):
    """What a keeper tells a monitor without memory, with one thing wrong (or nothing)."""
    told = {"reported": "primary", "goal": "primary", "term": 3, "seq": 40, "names": {"required": 1, "members": [2]}, "names_version": 7,
            "names_confirmed": True, "copy_unfinished": False, "timeline": 2, "promised_timeline": 2, "number_sync_standbys": 0,
            "peers": [{"id": 2, "name": "node2", "host": "127.0.0.1", "port": 1, "is_primary": False}], "peers_version": 5}
    key = generator.choice(list(told) + ["nothing", "all"])
    if key == "all":
        return generator.choice(["{}", "[]", "null", "7", '"x"'])
    if key in told:
        told[key] = generator.choice([None, -7, "nonsense", [], {}, 10 ** 18, [{"id": -1}], {"required": -1, "members": ["x"]}, 1.5])
    return json.dumps(told)


def literal(generator, kind):
    if generator.random() < 0.12:
        return f"NULL::{kind}"
    if kind == "text":
        return "'" + generator.choice(TEXTS).replace("'", "''") + "'::text"
    if kind == "boolean":
        return generator.choice(["true", "false"])
    if kind == "integer":
        return f"({generator.choice(NUMBERS)})::integer"
    if kind == "bigint":
        return f"({generator.choice(BIGS)})::bigint"
    if kind == "pg_lsn":
        return "'" + generator.choice(["0/0", "0/3000000", "FFFFFFFF/FFFFFFFF"]) + "'::pg_lsn"
    if kind == "jsonb":
        return "'" + account(generator).replace("'", "''") + "'::jsonb"
    raise AssertionError(f"a function takes a {kind}: teach the test how to make one")


def run_script(f, script, user, seconds=120, password_file=None):
    """All of it over one session; the lines that it printed, errors as their SQLSTATE."""
    env = dict(f.env)
    if user == "pgvigil_node":
        password_file = f.password_file
    if password_file:
        with open(password_file) as file:
            env["PGPASSWORD"] = file.read().strip()
    host = "127.0.0.1" if password_file else f.monitor.state
    result = subprocess.run(["psql", "-X", "-A", "-t", "-q", "-h", host, "-p", str(f.monitor.port), "-U", user, "-d", "pgvigil", "-v", "VERBOSITY=sqlstate"],
                            input=script, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
    return [line for line in result.stdout.splitlines() if line]


CLEAN = ("PV001", "PV002", "PV404", "22", "23")


def scenario_nonsense():
    seed = int(os.environ.get("PGVIGIL_SEED", random.SystemRandom().randrange(1 << 31)))
    generator = random.Random(seed)
    with Formation() as f:
        Writer(f, rate=200)
        primary = f.primary()
        owner = f.owner()
        f.run("create", "formation", "--formation", "scratch", "--pgdata", f.monitor.pgdata)
        functions = [line.split("|") for line in run_script(f, FUNCTIONS + ";", owner)]
        expect(len(functions) > 20, f"too few functions: {functions}")
        term, seq = (int(x) for x in run_script(f, "SELECT g.term, max(n.goal_seq) FROM pgvigil.grp g JOIN pgvigil.node n ON n.formation = g.formation "
                                                   "WHERE g.formation = 'default' GROUP BY g.term;", owner)[0].split("|"))
        script, calls = [], []
        for number in range(2500):
            name, kinds = generator.choice(functions)
            values = [literal(generator, kind) for kind in kinds.split(",") if kind]
            if name == "report":
                # A node that exists, and a lie: a term or an order that never was, a state that is none, a malformed history.
                lie = generator.randrange(4)
                values[0] = f"({generator.choice([1, 2])})::bigint"
                values[2], values[3] = f"({term})::bigint", f"({seq})::bigint"
                if lie == 0:
                    values[2] = f"({term - 1})::bigint"
                    values[3] = "0::bigint"
                elif lie == 1:
                    values[3] = f"({seq + 1 + generator.randrange(10)})::bigint"
                elif lie == 2:
                    values[1] = "'nonsense'::text"
                else:
                    values[13] = "'1:x'::text"
            calls.append(f"pgvigil.{name}({', '.join(values)})")
            # Each in a transaction that is undone: what legal arguments do is not the question here. An error must leave nothing behind by itself.
            script.append(f"\\echo call {number}\nBEGIN;\nSELECT FROM {calls[-1]};\nROLLBACK;\n")
        before = run_script(f, SNAPSHOT + ";", owner)
        lines = run_script(f, "".join(script), "pgvigil_node", seconds=300)
        call, refused = None, 0
        for line in lines:
            if line.startswith("call "):
                call = int(line[5:])
            elif "ERROR" in line:
                refused += 1
                state = line.split()[-1]
                expect(state.startswith(CLEAN), f"seed {seed}: {calls[call]} ends with {line}")
            else:
                expect("server closed" not in line and "FATAL" not in line, f"seed {seed}: {'before the first' if call is None else calls[call]}: {line}")
        expect(call == len(calls) - 1, f"seed {seed}: the session ended at {calls[call or 0]}")
        expect(refused > 300, f"seed {seed}: hardly anything was refused ({refused}): the arguments are too tame")
        # The same lies outside of any transaction: refused or without effect, the group stays as it is.
        lies = [call for call in calls if call.startswith("pgvigil.report(")]
        expect(len(lies) > 10, f"seed {seed}: no forged reports")
        run_script(f, "".join(f"SELECT FROM {call};\n" for call in lies), "pgvigil_node", seconds=120)
        after = run_script(f, SNAPSHOT + ";", owner)
        expect(before == after, f"seed {seed}: something has changed")
        f.wait_healthy()
        expect(f.primary() is primary, f"seed {seed}: a failover by nonsense")
        f.check_acknowledged()


REGISTER = "SELECT pgvigil.register_node('default', 0, 'one', '127.0.0.1', 7001, 'postgres', '7000000000000000001', 50, true, NULL);"
HEARTBEAT = """SELECT pgvigil.report(1, 'single', 1, 1, true, true, 1, '0/{lsn}', 0, 'unknown', false, '{why}', '{system}', '', false)
 -> 'lease_seconds';"""
STORED = "SELECT report_count, pg_running, lsn, reason, answer_version >= 0 FROM pgvigil.node_report;"


def heartbeat(lsn=3000000, why="", system="7000000000000000001"):
    return HEARTBEAT.format(lsn=lsn, why=why, system=system)


def scenario_kept_answers():
    """The short way of a heartbeat with nothing new: it counts, it carries the LSN, and no change of settings, no refusal hides behind it."""
    with Formation(nodes=0) as f:
        owner = f.owner()
        # The monitor process takes no part: its own updates would end what is kept.
        f.monitor.process.send_signal(signal.SIGSTOP)
        lines = run_script(f, REGISTER + heartbeat() + heartbeat() + heartbeat(lsn=3000100) + STORED, owner)
        expect(lines[-4:] == ["10", "10", "10", "3|t|0/3000100||t"], f"three heartbeats: {lines}")
        lines = run_script(f, "SELECT pgvigil.set_formation_timing('default', 'lease_ms', 20000);" + heartbeat(), owner)
        expect(lines[-1] == "20", f"a longer lease is not told: {lines}")
        lines = run_script(f, heartbeat() + heartbeat(system="7000000000000000002") + STORED + heartbeat() + STORED, owner)
        expect("|f|0/0|its PGDATA is of system" in lines[-3] and "|t|0/3000000||t" in lines[-1], f"a wrong system, and the right one again: {lines}")
        lines = run_script(f, "UPDATE pgvigil.grp SET term = 2;" + heartbeat().replace("-> 'lease_seconds'", "-> 'term'"), owner)
        expect(lines[-1] == "2", f"a new term is not told: {lines}")
        woken = run_script(f, "LISTEN pgvigil_wake;" + heartbeat(lsn=3000200) + "SELECT 'rest';" + heartbeat(why="a reason") + "SELECT 'end';", owner)
        told = ["Asynchronous notification" in line for line in woken]
        expect(True not in told[:woken.index("rest")] and True in told, f"only what is new wakes the monitor: {woken}")
        f.monitor.process.send_signal(signal.SIGCONT)
