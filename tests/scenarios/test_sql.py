"""Nonsense for every SQL function that a node's credential may call: refused with a clear error, and nothing has changed."""
import concurrent.futures
import json
import os
import random
import re
import signal
import subprocess

from formation import Formation, Writer, expect

HOSTS = "one"  # the monitor alone


FUNCTIONS = """SELECT p.proname, coalesce(string_agg(format_type(t.type, NULL), ',' ORDER BY t.place), '')
FROM pg_proc p LEFT JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY AS t (type, place) ON true
WHERE p.pronamespace = 'pgvigil'::regnamespace AND has_function_privilege('pgvigil_node', p.oid, 'EXECUTE') GROUP BY p.oid, p.proname ORDER BY 1, 2"""

# What a node's own truthful word would be is not nonsense: pgvigil_node may speak for each. So a forged report is one of these.
SNAPSHOT = """SELECT md5(string_agg(line, '|' ORDER BY line)) FROM (
  SELECT g::text AS line FROM pgvigil.grp g UNION ALL SELECT f::text FROM pgvigil.formation f UNION ALL SELECT r::text FROM pgvigil.request r
  UNION ALL SELECT (n.id, n.formation, n.name, n.host, n.port, n.candidate_priority, n.replication_quorum, n.goal_state, n.goal_seq, n.reported_state,
                    n.reported_term, n.reported_seq, n.names_version, n.sslmode, n.dbname, n.region, n.system_identifier, n.source_id, n.account)::text FROM pgvigil.node n
  UNION ALL SELECT e::text FROM pgvigil.event e UNION ALL SELECT d::text FROM pgvigil.removed_node d UNION ALL SELECT m::text FROM pgvigil.moments m
  UNION ALL SELECT a.rolname || coalesce(a.rolpassword, '') FROM pg_authid a) AS x"""

TEXTS = ["", "default", "node1", "node2", "nobody", "scratch", "x" * 5000, "'; DROP TABLE pgvigil.node; --", "pg_catalog", "primary", "secondary", "dropped",
         "maintenance", "unknown", "ok", "1:0/3000000", "1:0/3000000,", "{}", "\u00e4\u20ac", "127.0.0.1", "host with space", "lease_ms", "0/0", "-1"]
NUMBERS = [0, 1, 2, 3, -1, -2147483648, 2147483647, 5, 100, 101, 65536]
BIGS = NUMBERS + [-9223372036854775808, 9223372036854775807, 4611686018427387904]


def accounts():
    """What a keeper tells a monitor without memory, and whether that has to be refused: well-formed, and with every one thing missing or wrong."""
    told = {"reported": "primary", "goal": "primary", "term": 3, "seq": 40, "names": {"required": 1, "members": [2]}, "names_version": 7,
            "names_confirmed": True, "copy_unfinished": False, "timeline": 2, "promised_timeline": 2, "number_sync_standbys": 0,
            "lease_seconds": 30, "peers": [{"id": 2, "name": "node2", "host": "127.0.0.1", "port": 1, "is_primary": False}], "peers_version": 5}
    yield json.dumps(told), False
    yield from ((nothing, True) for nothing in ("{}", "[]", "null", "7", '"x"'))
    for key in told:
        yield json.dumps({other: value for other, value in told.items() if other != key}), key != "lease_seconds"  # which older keepers do not tell
        for wrong in (None, -7, "nonsense", [], {}, 10 ** 18, [{"id": -1}], {"required": -1, "members": ["x"]}, 1.5):
            yield json.dumps(told | {key: wrong}), (key, wrong) != ("peers", [])
        if type(told[key]) is int:
            yield json.dumps(told | {key: str(told[key])}), True
    for part, value in (("names", {"required": "1"}), ("names", {"members": ["2"]}), *(("peers", peer) for peer in (
            {"id": "2"}, {"port": "1"}, {"name": 5}, {"host": None}, {"is_primary": "yes"}, {"is_primary": None}, {"sslmode": 1}))):
        yield json.dumps(told | {part: told[part] | value if part == "names" else [told[part][0] | value]}), True
    for key in told["peers"][0]:
        yield json.dumps(told | {"peers": [{other: value for other, value in told["peers"][0].items() if other != key}]}), True


ACCOUNTS = list(accounts())


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def literal(generator, kind):
    if generator.random() < 0.12:
        return f"NULL::{kind}"
    if kind == "text":
        return quoted(generator.choice(TEXTS)) + "::text"
    if kind == "boolean":
        return generator.choice(["true", "false"])
    if kind == "integer":
        return f"({generator.choice(NUMBERS)})::integer"
    if kind == "bigint":
        return f"({generator.choice(BIGS)})::bigint"
    if kind == "numeric":
        return f"({generator.choice([*BIGS, 10 ** 40, 'NULL'])})::numeric"
    if kind == "pg_lsn":
        return "'" + generator.choice(["0/0", "0/3000000", "FFFFFFFF/FFFFFFFF"]) + "'::pg_lsn"
    if kind == "jsonb":
        return quoted(generator.choice(ACCOUNTS)[0]) + "::jsonb"
    raise AssertionError(f"a function takes a {kind}: teach the test how to make one")


def unknown_places(functions):
    """Each function that is told a formation or a group, with one that there is not."""
    usual = {"text": "'default'::text", "integer": "(0)::integer", "bigint": "(1)::bigint", "boolean": "true", "jsonb": "'{}'::jsonb"}
    for name, kinds in functions:
        if name not in READS:
            continue
        values = [usual[kind] for kind in kinds.split(",")]
        yield name, ["'nobody'::text", *values[1:]], True
        if values[1:]:
            yield from ((name, [values[0], number, *values[2:]], True) for number in ("(7)::integer", "(-1)::integer"))


READS = ("current_state", "last_events", "why", "takeover", "synchronous_standby_names", "formation_settings", "formation_hosts")


def run_script(f, script, user, seconds=120, password_file=None, verbosity="sqlstate"):
    """All of it over one session; the lines that it printed, errors as their SQLSTATE."""
    env = dict(f.env)
    if user == "pgvigil_node":
        password_file = f.password_file
    if password_file:
        with open(password_file) as file:
            env["PGPASSWORD"] = file.read().strip()
    host = "127.0.0.1" if password_file else f.monitor.state
    result = subprocess.run(["psql", "-X", "-A", "-t", "-q", "-h", host, "-p", str(f.monitor.port), "-U", user, "-d", "pgvigil", "-v", f"VERBOSITY={verbosity}"],
                            input=script, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
    return [line for line in result.stdout.splitlines() if line]


CLEAN = ("PV001", "PV002", "PV404", "22", "23")
STATES = ("init", "single", "wait_primary", "draining", "demoted", "wait_standby", "catchingup", "prepare_promotion", "report_lsn", "maintenance", "dropped")


def lie_of(generator, values, nodes):
    """Makes a report a forged one: of a node that exists, with a term or an order that never was, a state that it cannot have, a malformed history; or of
    a node that never was. True: it has to be refused."""
    lie = generator.randrange(6)
    node = generator.choice(nodes)
    values[0], values[2], values[3] = (f"({node[key]})::bigint" for key in ("id", "term", "seq"))
    if lie == 0:
        values[2], values[3] = f"({int(node['term']) - 1})::bigint", "0::bigint"
    elif lie == 1:
        values[3] = f"({int(node['seq']) + 1 + generator.randrange(10)})::bigint"
    elif lie == 2:
        values[1] = "'nonsense'::text"
    elif lie == 3:
        values[13] = "'1:x'::text"
    elif lie == 4:  # all as it is, but a state that the order does not name
        values[1], values[6], values[8], values[9], values[12], values[13] = (f"'{generator.choice(STATES)}'::text", "1::integer", "0::bigint", "'ok'::text",
                                                                              "''::text", "''::text")
    else:
        values[0] = generator.choice(["(999)::bigint", "(4611686018427387904)::bigint", "(0)::bigint", "(-1)::bigint", "NULL::bigint"])
    return lie in (2, 3, 4)


def leaves(value):
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    yield json.dumps(value)[:80].strip('"')


def names_a_value(message, values):
    """The message shows one of the call's values. What is not there (NULL, '') cannot be shown, and a verifier is a secret."""
    plain = [re.sub(r"::\w+$", "", value).strip("()'").replace("''", "'") for value in values]
    for value, kind in zip(list(plain), values):
        plain += leaves(json.loads(value)) if kind.endswith("::jsonb") and value != "NULL" else []
    return "SCRAM" in message or not {"NULL", "null", ""}.isdisjoint(plain) or any(re.search(rf"(?<![\d-]){re.escape(value[:80])}", message)
                                                                                    for value in plain)


def check_refusals(seed, calls, lines):
    """Every error is a clear one. Returns the numbers of the calls that were refused."""
    call, refused = None, []
    for line in lines:
        if line.startswith("call "):
            call = int(line[5:])
        elif "ERROR: " in line:
            refused.append(call)
            name, values, _ = calls[call]
            state, message = line.split("ERROR: ")[1].strip().split(": ", 1)
            expect(state.startswith(CLEAN), f"seed {seed}: {name}({values}) ends with {line}")
            expect(name != "tell" or not calls[call][2] or "account" in message, f"seed {seed}: the account is believed, {message}: {values}")
            expect(not state.startswith("PV") or names_a_value(message, values), f"seed {seed}: {name}({values}): which value is bad? {message}")
        else:
            expect("server closed" not in line and "FATAL" not in line, f"seed {seed}: {'before the first' if call is None else calls[call]}: {line}")
    expect(call == len(calls) - 1, f"seed {seed}: the session ended at {calls[call or 0]}")
    forged = [number for number, (_, _, must) in enumerate(calls) if must]
    expect(len(forged) > 10 and set(forged) <= set(refused), f"seed {seed}: accepted: {[calls[n] for n in forged if n not in refused][:3]}")
    expect(len(refused) > 300, f"seed {seed}: hardly anything was refused ({len(refused)}): the arguments are too tame")
    return refused


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
        nodes = [dict(zip(("id", "term", "seq"), line.split("|"))) for line in run_script(
            f, "SELECT n.id, g.term, n.goal_seq FROM pgvigil.grp g JOIN pgvigil.node n USING (formation, group_id) WHERE g.formation = 'default';", owner)]
        calls = []
        for name, kinds in functions + generator.choices(functions, k=2500):
            values = [literal(generator, kind) for kind in kinds.split(",") if kind]
            calls.append((name, values, name == "report" and lie_of(generator, values, nodes)))
        told = next(kinds.split(",") for name, kinds in functions if name == "tell")
        for account, must in ACCOUNTS:
            values = [quoted(account) + "::jsonb" if kind == "jsonb" else literal(generator, kind) for kind in told]
            calls.append(("tell", ["(1)::bigint", *values[1:]], must))
        calls += unknown_places(functions)
        statements = [f"SELECT FROM pgvigil.{name}({', '.join(values)});\n" for name, values, _ in calls]
        before = run_script(f, SNAPSHOT + ";", owner)
        # Each in a transaction that is undone: what legal arguments do is not the question here.
        script = "".join(f"\\echo call {number}\nBEGIN;\n{statement}ROLLBACK;\n" for number, statement in enumerate(statements))
        refused = check_refusals(seed, calls, run_script(f, script, "pgvigil_node", seconds=300, verbosity="verbose"))
        # The same lies outside of any transaction, and a sample of the rest that was refused: without effect, the group stays as it is.
        again = {n for n, call in enumerate(calls) if call[0] == "report"} | set(generator.sample(refused, 200))
        run_script(f, "".join(statements[n] for n in sorted(again)), "pgvigil_node", seconds=120)
        expect(run_script(f, SNAPSHOT + ";", owner) == before, f"seed {seed}: something has changed")
        f.wait_healthy()
        expect(f.primary() is primary, f"seed {seed}: a failover by nonsense")
        f.check_acknowledged()


REGISTER = "SELECT pgvigil.register_node('default', 0, 'one', '127.0.0.1', 7001, 'postgres', '7000000000000000001', 50, true, NULL);"
REGISTER_EMPTY = REGISTER.replace("'7000000000000000001'", "''")
HOSTS_TAKEN = ("10.0.0.5", "2001:db8::1", "::1", "db-1", "db_1", "a.example.", "x1", "1x", "a.b.12c", "allan")
HOSTS_REFUSED = ("", "10.0.5", "167772165", "0x7f000001", "10.0.0.256", "fe80::1%eth0", ".example.com", "all", "samehost", "samenet", "a.b.12", "a.0x1f", ".",
                 "10.0.0.5/32", "a b", "a'b", 'a"b', "a,b", "a/b", "a\\b", "a#b", "1:2", ":", "x" * 256)


def scenario_hosts():
    """Those of tests/unit/files_test.cpp: what `create postgres` refuses the monitor refuses, too, whoever asks."""
    with Formation(nodes=0) as f:
        f.monitor.process.send_signal(signal.SIGSTOP)
        taken = [REGISTER.replace("'127.0.0.1'", quoted(host)).replace("'one'", f"'n{number}'") for number, host in enumerate(HOSTS_TAKEN)]
        moved = [f"SELECT 'moved' FROM pgvigil.set_node_metadata(1, NULL, {quoted(host)}, {8000 + number});" for number, host in enumerate(HOSTS_TAKEN)]
        # Each into an empty group: the others would wait for a primary.
        lines = run_script(f, "".join(line.replace("'default', 0", f"'default', {number}") for number, line in enumerate(taken)) + "".join(moved), f.owner())
        expect(len(lines) == 2 * len(taken) and not any("ERROR" in line for line in lines), f"not all are taken: {lines}")
        for host in HOSTS_REFUSED:
            new = REGISTER.replace("'127.0.0.1'", quoted(host)).replace("'one'", "'other'").replace("'default', 0", "'default', 99")
            lines = run_script(f, new + f"SELECT pgvigil.set_node_metadata(1, NULL, {quoted(host)}, NULL);", "pgvigil_node", verbosity="default")
            told = [line for line in lines if line.startswith("ERROR") and "is not a host name or address" in line]
            expect(len(told) == 2 and len([line for line in lines if line.startswith("HINT")]) == 2, f"{host!r} is not refused, or nobody is told why: {lines}")
        f.monitor.process.send_signal(signal.SIGCONT)


REPORT = """SELECT pgvigil.report(1, 'single', 1, 1, true, true, 1, '0/{lsn}', 0, 'unknown', false, '{why}', '{system}', '', false)
 -> '{what}';"""
TOKEN = "\\set token\n" + REPORT.replace("SELECT ", "SELECT coalesce(").replace("-> '{what}';", "->> 'token', '') AS token \\gset\n")
HEARTBEAT = """UPDATE pgvigil.heartbeat SET report_count = report_count + 1, reported_at = now(), lsn = '0/{lsn}'
WHERE node_id = 1 AND token = nullif(:'token', '')::uuid RETURNING 'stands';"""
STORED = "SELECT report_count, pg_running, lsn, reason FROM pgvigil.node_report;"


def report(lsn=3000000, why="", system="7000000000000000001", what="lease_seconds", node=1):
    return REPORT.format(lsn=lsn, why=why, system=system, what=what).replace("report(1,", f"report({node},")


def token_of(lsn=3000000, system="7000000000000000001"):
    return TOKEN.format(lsn=lsn, why="", system=system)


def heartbeat(lsn=3000000):
    return HEARTBEAT.format(lsn=lsn)


def scenario_heartbeats():
    """A heartbeat counts, it carries the LSN, and no order, no change of settings, no other report hides behind it."""
    with Formation(nodes=0) as f:
        owner = f.owner()
        # The monitor process takes no part: its own updates would end what stands.
        f.monitor.process.send_signal(signal.SIGSTOP)
        lines = run_script(f, REGISTER + report() + token_of() + heartbeat() + heartbeat(lsn=3000100) + STORED, owner)
        expect(lines[-4:] == ["10", "stands", "stands", "4|t|0/3000100|"], f"two reports and two heartbeats: {lines}")
        lines = run_script(f, token_of() + heartbeat() * 40 + STORED, owner)
        expect(lines == ["stands"] * 27 + ["32|t|0/3000000|"], f"until the 32nd of all: {lines}")
        lines = run_script(f, token_of() + "SELECT pgvigil.set_formation_timing('default', 'lease_ms', 20000);" + heartbeat() + report() + token_of() + heartbeat(),
                           owner)
        expect(lines == ["20", "stands"], f"a longer lease: {lines}")
        lines = run_script(f, token_of() + report(system="7000000000000000002") + heartbeat() + STORED + token_of() + heartbeat() + STORED, owner)
        expect("|t|0/3000000|its PGDATA is of system" in lines[-3] and lines[-2] == "stands" and lines[-1].endswith("|t|0/3000000|"),
               f"a wrong system, of which only that is kept, and the right one: {lines}")
        lines = run_script(f, token_of() + "UPDATE pgvigil.grp SET term = 2;" + heartbeat() + report(what="term"), owner)
        expect(lines == ["2"], f"a new term: {lines}")
        lines = run_script(f, token_of() + "UPDATE pgvigil.node SET goal_state = 'draining', goal_seq = 2; UPDATE pgvigil.grp SET term = 3;" + token_of() + heartbeat(),
                           owner)
        expect(lines == [], f"a node on its way: {lines}")
        run_script(f, "UPDATE pgvigil.node SET goal_state = 'single', goal_seq = 1; UPDATE pgvigil.grp SET term = 1;" + token_of(), owner)
        woken = run_script(f, "LISTEN pgvigil_wake;" + token_of() + heartbeat(lsn=3000200) + "SELECT 'rest';" + report(why="a reason") + "SELECT 'end';", owner)
        told = ["Asynchronous notification" in line for line in woken]
        expect(True not in told[:woken.index("rest")] and True in told, f"only what is new wakes the monitor: {woken}")
        f.monitor.process.send_signal(signal.SIGCONT)


AGES_AGO = """UPDATE pgvigil.node_report SET reported_at = now() - interval '{} s', pg_running = true;
SELECT health, heard FROM pgvigil.current_state('default', NULL);"""


def scenario_heard_of_late():
    """A keeper that reports as often as it was told to is not silent."""
    with Formation(nodes=0) as f:
        f.monitor.process.send_signal(signal.SIGSTOP)
        run_script(f, REGISTER + report(), f.owner())
        slow = "".join(f"SELECT FROM pgvigil.set_formation_timing('default', '{name}', {ms});"
                       for name, ms in (("unhealthy_ms", 20000), ("standby_lost_ms", 20000), ("heartbeat_ms", 10000)))
        for setting, ages in (("", {1: "1|t", 4: "1|t", 6: "0|f"}), (slow, {6: "1|t", 15: "1|t", 22: "1|t", 27: "0|f"})):
            run_script(f, setting, f.owner())
            for seconds, expected in ages.items():
                lines = run_script(f, AGES_AGO.format(seconds), f.owner())
                expect(lines == [expected], f"last heard {seconds} s ago: {lines}")
        # Its PostgreSQL is stopped on purpose: it is not healthy, and is heard.
        lines = run_script(f, AGES_AGO.format(1).replace("pg_running = true", "pg_running = false"), f.owner())
        expect(lines == ["0|t"], f"{lines}")
        f.monitor.process.send_signal(signal.SIGCONT)


FLAPPING = """SELECT count(pgvigil.record_event('default', 0, n, i, 105, 'flapping', 'for weeks')) FROM pgvigil.node n, generate_series(1, 25000) AS i WHERE n.id = 1;"""
AGES = """INSERT INTO pgvigil.event (formation, group_id, term, rule, rule_name, description)
SELECT 'default', 0, 1, 105, 'flapping', 'for years' FROM generate_series(1, 80000 - (SELECT count(*) FROM pgvigil.event WHERE formation = 'default'));"""
KEPT = "SELECT count(*), max(term), (SELECT count(*) FROM pgvigil.event WHERE formation = 'scratch') FROM pgvigil.event WHERE formation = 'default';"


def scenario_old_events():
    """A group's oldest events go when there are very many, those of others stay."""
    with Formation(nodes=0) as f:
        f.run("create", "formation", "--formation", "scratch", "--pgdata", f.monitor.pgdata)
        lines = run_script(f, REGISTER + REGISTER.replace("default", "scratch").replace("'one'", "'two'").replace("7001", "7002"), f.owner())
        expect([line[:3] for line in lines] == ["(1,", "(2,"], f"two nodes: {lines}")
        lines = run_script(f, FLAPPING + KEPT, f.owner())
        kept, newest, other = (int(number) for number in lines[1].split("|"))
        expect(20000 <= kept <= 20200 and newest == 25000 and other == 1, f"kept: {lines}")
        # Far more than may stand, of a version that kept them all: a decision does not wait until they have gone.
        run_script(f, AGES, f.owner())
        lines = run_script(f, FLAPPING.replace("25000", "100") + KEPT, f.owner())
        kept = int(lines[1].split("|")[0])
        expect(76000 <= kept <= 79000, f"kept after 100 more: {lines}")
        lines = run_script(f, FLAPPING.replace("25000", "4000") + KEPT, f.owner())
        kept, newest, other = (int(number) for number in lines[1].split("|"))
        expect(20000 <= kept <= 20200 and other == 1, f"kept in the end: {lines}")


FLEET = """INSERT INTO pgvigil.event (formation, group_id, term, rule, rule_name, description)
SELECT 'default', 0, i, 105, 'flapping', 'elsewhere' FROM generate_series(1, 200000) AS i;
INSERT INTO pgvigil.moments (event_id, node_id, node_name, former_name, told)
SELECT id, 1, 'one', '', '[]' FROM pgvigil.event WHERE term % 100 = 0; ANALYZE pgvigil.event; ANALYZE pgvigil.moments;"""
PAGES = "SET plan_cache_mode = force_generic_plan; EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM pgvigil.{};"


def scenario_events_of_a_quiet_formation():
    """Nobody looks through those of the whole fleet for them."""
    with Formation(nodes=0) as f:
        f.monitor.process.send_signal(signal.SIGSTOP)
        f.run("create", "formation", "--formation", "scratch", "--pgdata", f.monitor.pgdata)
        run_script(f, REGISTER.replace("default", "scratch") + REGISTER.replace("'one'", "'two'").replace("7001", "7002") + FLEET, f.owner())
        for call in ("last_events('scratch', NULL, 10)", "last_events('scratch', 0, 10)", "takeover('scratch', NULL, 1)", "takeover('scratch', 0, 1)",
                     "last_events('default', NULL, 10)", "last_events('default', 0, 1000)"):
            lines = run_script(f, PAGES.format(call), f.owner())
            pages = sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", next(line for line in lines if "Buffers" in line)))
            expect(0 < pages < 1000, f"{call}: {lines}")
        expect(run_script(f, "SELECT description FROM pgvigil.last_events('scratch', NULL, 10);", f.owner()) != [], "it has no event: this proves nothing")
        newest = run_script(f, "SELECT string_agg(term::text, ',') FROM pgvigil.last_events('default', NULL, 3);SELECT term FROM pgvigil.takeover('default', 0, 2);",
                            f.owner())
        expect(newest == ["199998,199999,200000", "199900"], f"{newest}")
        f.monitor.process.send_signal(signal.SIGCONT)


def scenario_number_of_a_removed_node():
    """At the wrong monitor a healthy node may have it: only the one that was removed hears so."""
    with Formation(nodes=0) as f:
        f.monitor.process.send_signal(signal.SIGSTOP)
        run_script(f, REGISTER + report() + "SELECT pgvigil.remove_node(1, true);", f.owner())
        for system, state, answer in (("7000000000000000001", '"dropped"', []), ("7000000000000000002", None, ["true"]), ("", '"dropped"', [])):
            told = run_script(f, report(system=system, what="state") + report(system=system, what="wait"), f.owner())
            expect(told == ([state] if state else []) + answer, f"system {system}: {told}")
        # One that was removed before it had any data: nobody of another system than its group's can be the same.
        run_script(f, REGISTER + REGISTER_EMPTY.replace("one", "two").replace("7001", "7002") + "SELECT pgvigil.remove_node(3, true);", f.owner())
        for system, state, answer in (("7000000000000000001", '"dropped"', []), ("7000000000000000002", None, ["true"]), ("", '"dropped"', [])):
            told = run_script(f, report(node=3, system=system, what="state") + report(node=3, system=system, what="wait"), f.owner())
            expect(told == ([state] if state else []) + answer, f"removed without data, system {system}: {told}")
        f.monitor.process.send_signal(signal.SIGCONT)


# One session is held between what report() reads and what it writes, until the test lets it go.
HOLD = """CREATE TABLE public.go ();
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('test.hold', true) = 'on' THEN
    WHILE NOT EXISTS (SELECT FROM public.go) LOOP PERFORM pg_sleep(0.01); END LOOP;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER hold BEFORE INSERT ON pgvigil.node_report FOR EACH ROW EXECUTE FUNCTION public.hold();"""
HELD = "SELECT 'held' FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query ~ 'report';"
VOTE = """UPDATE pgvigil.node SET goal_state = 'report_lsn', goal_seq = 2, account = NULL; UPDATE pgvigil.grp SET term = 2, learning = false;
SELECT FROM pgvigil.report(1, 'report_lsn', 2, 2, true, true, 1, '0/3000500', 0, 'unknown', false, '', '7000000000000000001');"""
STANDS = "SELECT n.reported_state, r.lsn, r.reason FROM pgvigil.node n JOIN pgvigil.node_report r ON r.node_id = n.id;"


def scenario_late_report():
    """Two backends of one keeper: what the older one says of an order before the vote must not stand after the vote."""
    with Formation(nodes=0) as f:
        owner = f.owner()
        f.monitor.process.send_signal(signal.SIGSTOP)
        ours, another = "7000000000000000001", "7000000000000000002"
        # Believed, and of another system than the group's; the last two were begun while the monitor learned, and the vote is what it asked for then.
        for system, learning in ((ours, False), (another, False), (ours, True), (another, True)):
            run_script(f, "DROP TABLE IF EXISTS public.go; DELETE FROM pgvigil.node; DELETE FROM pgvigil.grp;"
                          "ALTER TABLE pgvigil.node ALTER id RESTART;" + REGISTER + "DROP FUNCTION IF EXISTS public.hold CASCADE;" + report() + HOLD, owner)
            if learning:
                run_script(f, "UPDATE pgvigil.grp SET learning = true; UPDATE pgvigil.node SET account = '{}';", owner)
            late = f"SET test.hold = on; {report(lsn=3000100, why='late', system=system)}"
            with concurrent.futures.ThreadPoolExecutor() as pool:
                answer = pool.submit(run_script, f, late, owner)
                f.wait_until(lambda: run_script(f, HELD, owner) == ["held"], what="the late report is held up")
                run_script(f, VOTE, owner)
                run_script(f, "INSERT INTO public.go DEFAULT VALUES;", owner)
                expect(answer.result() == ([] if learning or system == another else ["10"]), f"the late report fails: {answer.result()}")
            lines = run_script(f, STANDS, owner)
            expect(lines == ["report_lsn|0/3000500|"], f"the late report stands (system {system}, {learning=}): {lines}")
        f.monitor.process.send_signal(signal.SIGCONT)


TELL = """SELECT FROM pgvigil.formation f, pgvigil.tell({node}, 'default', 0, '{name}', '127.0.0.1', {port}, 'postgres', 50, true, '{system}', f.replication_password,
f.probe_password, '{account}') WHERE f.name = 'default';"""
MEMBERS = """SELECT string_agg(id || ' ' || name || ' ' || port, ', ' ORDER BY id) FROM pgvigil.node;
SELECT string_agg(node_id::text, ',') FROM pgvigil.removed_node;"""


def tell(node, name, port, version, *peers, system="", **more):
    account = json.loads(ACCOUNTS[0][0]) | {"peers_version": version, "peers": [
        {"id": number, "name": called, "host": "127.0.0.1", "port": at, "is_primary": False} for number, called, at in peers]} | more
    return TELL.format(node=node, name=name, port=port, system=system, account=json.dumps(account))


def scenario_a_lease_that_a_node_tells_of():
    """Its primary, which may be out of reach, holds one as long: that of the formation is never shorter than what any node was told."""
    with Formation(nodes=0) as f:
        owner = f.owner()
        f.monitor.process.send_signal(signal.SIGSTOP)
        lease = "SELECT lease_ms FROM pgvigil.formation WHERE name = 'default';"
        told = tell(1, "one", 7001, 5, lease_seconds=20).replace('"lease_seconds": 20, ', "")
        expect("lease_seconds" not in told, told)
        run_script(f, REGISTER, owner)
        for words, expected in ((told, "10000"), (tell(1, "one", 7001, 5, lease_seconds=120), "120000"), (tell(1, "one", 7001, 5, lease_seconds=30), "120000")):
            version = run_script(f, "SELECT version FROM pgvigil.grp;", owner)
            lines = run_script(f, words + lease, owner)
            expect(lines == [expected], f"{words}: {lines}")
            expect(run_script(f, "SELECT version FROM pgvigil.grp;", owner) != version, "the answers that were given before are still good")
        f.monitor.process.send_signal(signal.SIGCONT)


def scenario_members_that_a_node_tells_of():
    """A monitor that was put back from a backup takes names and addresses from a newer list, and removes only who is neither in it nor tells it."""
    with Formation(nodes=0) as f:
        owner = f.owner()
        f.monitor.process.send_signal(signal.SIGSTOP)
        lines = run_script(f, REGISTER + "UPDATE pgvigil.node SET goal_state = 'primary';" + REGISTER.replace("'one'", "'two'").replace("7001", "7002"), owner)
        expect(len(lines) == 2, f"two nodes: {lines}")
        for script, expected in (
                # One has moved, and another node has its address since.
                (tell(2, "two", 7002, 50, (1, "one", 7101), (3, "three", 7001)), ["1 one 7101, 2 two 7002, 3 three 7001"]),
                # Names were exchanged.
                (tell(2, "two", 7002, 60, (1, "three", 7101), (3, "one", 7001)), ["1 three 7101, 2 two 7002, 3 one 7001"]),
                # The teller was renamed, which its own keeper does not know, and another has its name.
                (tell(2, "two", 7002, 70, (1, "three", 7101), (3, "two", 7001)), ["1 three 7101, 2 node_2 7002, 3 two 7001"]),
                # Not in the list, and another has its name: dropped since.
                (tell(2, "two", 7002, 80, (1, "three", 7101), (4, "two", 7001)), ["1 three 7101, 2 node_2 7002, 4 two 7001", "3"]),
                # A list that is no newer proves nothing.
                (tell(5, "three", 7005, 80), ["PV002", "1 three 7101, 2 node_2 7002, 4 two 7001", "3"]),
                # Whose address another has told of for itself is left alone.
                (tell(1, "three", 7101, 80) + tell(2, "two", 7002, 90, (4, "two", 7001), (6, "six", 7101)),
                 ["PV002", "1 three 7101, 2 node_2 7002, 4 two 7001", "3"])):
            lines = run_script(f, script + MEMBERS, owner)
            found = [line.replace("ERROR:  ", "") for line in lines]
            expect(found == expected, f"{script}: {found}, not {expected}")
        f.monitor.process.send_signal(signal.SIGCONT)


def scenario_numbers_of_other_nodes():
    """A monitor that was tried out before it came to its nodes: a member whose number another node has, or had, must not be left out of the group, where
    nobody would wait for it."""
    with Formation(nodes=0) as f:
        owner = f.owner()
        f.monitor.process.send_signal(signal.SIGSTOP)
        production = tell(3, "three", 7003, 50, (1, "primary", 7005), (2, "two", 7002), system="7000000000000000003")
        beside = "SELECT FROM pgvigil.create_formation('scratch', 'postgres', true, 0);" + REGISTER_EMPTY.replace("'default'", "'scratch'")
        anew = "DELETE FROM pgvigil.node; DELETE FROM pgvigil.removed_node; DELETE FROM pgvigil.grp; ALTER TABLE pgvigil.node ALTER id RESTART;"
        remove = "SELECT FROM pgvigil.remove_node(1, true);"
        for before in (beside, beside + remove, REGISTER_EMPTY + remove, beside + report() + remove):
            run_script(f, anew + before, owner)
            there = run_script(f, MEMBERS, owner)
            lines = run_script(f, production, owner)
            expect(lines == ["ERROR:  PV002"], f"after {before}: {lines}")
            expect(run_script(f, MEMBERS, owner) == there, f"after {before}: something of it was taken over")
        # One that was removed here from this very group stays away.
        run_script(f, anew + production, owner)
        run_script(f, remove, owner)
        lines = run_script(f, tell(2, "two", 7002, 60, (1, "primary", 7005), (3, "three", 7003), system="7000000000000000003") + MEMBERS, owner)
        expect(lines == ["2 two 7002, 3 three 7003", "1"], lines)
        f.monitor.process.send_signal(signal.SIGCONT)


# As the monitor does, with somebody who comes in between.
DECIDE = """BEGIN; SELECT FROM pgvigil.grp FOR UPDATE;
DO $$ BEGIN
  WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock') LOOP PERFORM pg_sleep(0.01), pg_stat_clear_snapshot(); END LOOP;
END $$;
SELECT FROM pgvigil.node FOR UPDATE; COMMIT; SELECT 'decided';"""
DECIDING = "SELECT 'it does' FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query ~ 'clear_snapshot';"


def scenario_order_of_locks():
    """The group's row, then those of its nodes: nobody who changes both is in the way of a decision for longer than it takes."""
    with Formation(nodes=0) as f:
        owner = f.owner()
        f.monitor.process.send_signal(signal.SIGSTOP)
        run_script(f, REGISTER + report() + "UPDATE pgvigil.grp SET system_identifier = NULL; UPDATE pgvigil.node SET system_identifier = NULL;", owner)
        for other in ("SELECT pgvigil.set_node_metadata(1, NULL, NULL, 7003);", report(), "SELECT pgvigil.say_sslmode(1, 'require');"):
            with concurrent.futures.ThreadPoolExecutor() as pool:
                decision = pool.submit(run_script, f, DECIDE, owner)
                f.wait_until(lambda: run_script(f, DECIDING, owner) == ["it does"], what="the decision is under way")
                answer = run_script(f, other, owner)
                expect(decision.result() == ["decided"] and not any("ERROR" in line for line in answer), f"{other}: {decision.result()}, {answer}")
        f.monitor.process.send_signal(signal.SIGCONT)
