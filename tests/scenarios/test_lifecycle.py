"""Building up, restarting, taking over, dropping, commands."""
import datetime
import json
import os
import re
import time

from commands import start_by_hand
from formation import Daemon, Formation, Writer, expect, text_of, tool


def scenario_build_up():
    with Formation(nodes=2) as f:
        one, two = f.nodes
        names = one.sql("SHOW synchronous_standby_names")
        expect(names == "ANY 1 (pgvigil_standby_2)", f"names in force: {names}")
        # Each command can be run again: nothing changes.
        before = f.state()
        f.run(*f.create_args(one))
        f.run("create", "monitor", "--pgdata", f.monitor.pgdata)
        expect({n: r["node_id"] for n, r in f.state().items()} == {n: r["node_id"] for n, r in before.items()}, "create again changed the nodes")
        # A restart of a keeper does not restart PostgreSQL.
        for node in (one, two):
            pid = node.postmaster()
            node.kill()
            node.start()
            f.wait_healthy()
            expect(node.postmaster() == pid, f"{node.name}: another postmaster after a restart of its keeper")
        # HBA: exactly the registered nodes, and the user's own lines stay.
        hba = os.path.join(one.pgdata, "pg_hba.conf")
        with open(hba) as file:
            text = file.read()
        expect(text.count(f"pgvigil_replicator {two.host}/32") == 2, "HBA entries for one peer:\n" + text)
        expect([node.sql("SELECT pg_is_in_recovery()") for node in (one, two)] == ["f", "t"], "the restarts have changed who is the primary")
        rc = f.run("status", "--pgdata", one.pgdata, check=False).returncode
        expect(rc == 0, f"status of a running node: {rc}")


def scenario_stop_and_start():
    with Formation(nodes=2) as f:
        Writer(f)
        former = f.primary()
        f.run("stop", "--pgdata", former.pgdata)
        expect(not former.running() and former.postmaster() is None, "stop leaves something running")
        expect(f.run("status", "--pgdata", former.pgdata, check=False).returncode == 3, "status of a stopped node is 3")
        f.wait_takeover(former)

        def waits(node):
            return json.loads(f.run("show", "why", "--name", node.name, "--pgdata", f.monitor.pgdata, "--json").stdout)
        f.wait_until(lambda: any("does not report" in row["waiting_for"] for row in waits(former)), what="show why says what the stopped node waits for")
        other = f.primary()
        names = {row["nodename"] for node in (former, other) for row in waits(node)}
        expect(all({row["nodename"] for row in waits(node)} <= {node.name} for node in (former, other)), f"show why --name tells of others: {names}")
        row = waits(former)[0]
        expect("pgvigil run" in row["command"], f"show why of a stopped node: {row}")
        # Since when it waits for this; asked again, the same.
        age = (datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(row["since"])).total_seconds()
        expect(0 <= age < 300 and waits(former)[0]["since"] == row["since"], f"waits since {row['since']}, {age} s")
        whole = f.run("show", "why", "--name", other.name, "--pgdata", f.monitor.pgdata).stdout
        expect(other.name in whole and former.name not in whole, f"show why --name {other.name} says: {whole}")
        former.start()
        f.wait_healthy()
        expect(waits(former) == [], "nobody waits any more, and show why tells of it")
        whole = f.run("show", "why", "--name", former.name, "--pgdata", f.monitor.pgdata).stdout
        expect(whole == f"{former.name} is where it should be.\n", whole)
        f.check_acknowledged()


def scenario_third_node_and_drop():
    with Formation(nodes=2) as f:
        Writer(f)
        three = f.add_node()
        f.wait_healthy()
        names = f.primary().sql("SHOW synchronous_standby_names")
        expect(names == "ANY 1 (pgvigil_standby_2, pgvigil_standby_3)", names)
        f.run("drop", "node", "--monitor", f.monitor_uri, "--monitor-password-file", f.password_file, "--name", three.name)
        f.wait_until(lambda: three.name not in f.state(), what="the node is gone")
        three.process.wait(30)
        expect(three.process.returncode == 121, f"the dropped keeper ended with {three.process.returncode}")
        f.nodes.remove(three)
        f.wait_until(lambda: f.primary() and "standby_3" not in f.primary().sql("SHOW synchronous_standby_names"), what="names without the dropped node")

        def let_in():
            text = text_of(os.path.join(f.primary().pgdata, "pg_hba.conf"))
            return re.findall(r"pgvigil_replicator (\S+/32)", text)
        f.wait_until(lambda: let_in() == 2 * [f"{f.secondary().host}/32"], what=f"no HBA entries of the dropped node: {let_in()}")
        # Re-add with an empty PGDATA.
        f.run("drop", "node", "--pgdata", three.pgdata, "--destroy")
        again = f.add_node("node3")
        f.wait_healthy()
        expect(again.sql("SELECT pg_is_in_recovery()") == "t", "the node that was added again is no standby")
        f.check_acknowledged()


def scenario_drop_the_primary():
    with Formation(nodes=2) as f:
        Writer(f)
        former = f.primary()
        f.run("drop", "node", "--monitor", f.monitor_uri, "--monitor-password-file", f.password_file, "--name", former.name)
        f.wait_until(lambda: list(f.state()) and former.name not in f.state(), what="the primary is gone")
        f.nodes.remove(former)
        f.wait_state(f.nodes[0], "single")
        former.process.wait(30)
        f.check_acknowledged()


def scenario_bad_input():
    with Formation(nodes=2) as f:
        before = f.state()
        one = f.nodes[0]
        for args, code in [
            (["perform", "promotion", "--name", "nobody", "--pgdata", f.monitor.pgdata], 1),
            (["set", "formation", "number-sync-standbys", "7", "--pgdata", f.monitor.pgdata], 1),
            (["set", "node", "candidate-priority", "101", "--name", one.name, "--pgdata", f.monitor.pgdata], 1),
            (["show", "state", "--formation", "none", "--pgdata", f.monitor.pgdata], 1),
            (["show", "state", "--no-such-option"], 1),
            (["show", "state", "--monitor", "postgres://127.0.0.1:1/pgvigil"], 6),
            (["config", "get", "no.such", "--pgdata", one.pgdata], 1),
            (["config", "set", "postgresql.port", "99999", "--pgdata", one.pgdata], 2),
            (["run", "--pgdata", f.work + "/nothing"], 2),
        ]:
            result = f.run(*args, check=False)
            expect(result.returncode == code, f"{args}: exit {result.returncode} instead of {code}: {result.stderr}")
            expect("error" in result.stderr, f"{args}: no error text: {result.stderr}")
        foreign = Daemon(f, "foreign")
        os.makedirs(foreign.pgdata)
        with open(os.path.join(foreign.pgdata, "precious"), "w") as file:
            file.write("not a cluster")
        result = f.run(*f.create_args(foreign), check=False)
        expect(result.returncode == 1 and os.listdir(foreign.pgdata) == ["precious"], "a foreign directory was touched: " + result.stderr)
        nowhere = Daemon(f, "nowhere")
        nowhere.pgdata = "/proc/nowhere"
        result = f.run(*f.create_args(nowhere), check=False)
        expect(result.returncode != 0 and "/proc/nowhere" in result.stderr, "a node without a PGDATA: " + result.stderr)
        expect({n: r["assigned_group_state"] for n, r in f.state().items()} == {n: r["assigned_group_state"] for n, r in before.items()}, "something changed")


def scenario_formation_without_secondaries():
    with Formation(nodes=0) as f:
        def of_lone(*words, check=True):
            return f.run(*words, "--formation", "lone", "--pgdata", f.monitor.pgdata, check=check)

        def create(name):
            node = Daemon(f, name)
            return f.run(*f.create_args(node), "--formation", "lone", check=False)
        of_lone("create", "formation", "--disable-secondary")
        expect(create("one").returncode == 0, "the first node is refused")
        refused = create("two")
        expect(refused.returncode == 1 and "pgvigil enable secondary --formation lone" in refused.stderr, f"a secondary all the same: {refused.stderr}")
        shown = of_lone("enable", "secondary", "--json").stdout
        expect(json.loads(shown) == {"formation": "lone", "opt_secondary": True}, shown)
        joined = create("two")
        expect(joined.returncode == 0, f"refused after enable secondary: {joined.stderr}")
        refused = of_lone("disable", "secondary", check=False)
        expect(refused.returncode == 1 and "has secondaries: two" in refused.stderr, f"disabled beside a secondary: {refused.stderr}")
        of_lone("drop", "node", "--name", "two", "--force")
        of_lone("disable", "secondary")
        settings = json.loads(of_lone("show", "settings", "--json").stdout)["formation"]
        expect({"secondaries": "false"}.items() <= {row["setting"]: row["value"] for row in settings}.items(), str(settings))
        again = create("three")
        expect(again.returncode == 1 and "takes no secondaries" in again.stderr, f"disable secondary changes nothing: {again.stderr}")


def scenario_scram_everywhere():
    with Formation(nodes=2, auth="scram-sha-256") as f:
        primary = f.primary()
        primary.sql("CREATE ROLE app LOGIN PASSWORD 'app-password'; GRANT ALL ON SCHEMA public TO app")
        f.env.update(PGPASSWORD="app-password", PGVIGIL_TEST_USER="app")
        os.environ["PGVIGIL_TEST_USER"] = "app"
        Writer(f)
        time.sleep(1)
        primary.crash()
        f.wait_takeover(primary)
        primary.start()
        f.wait_healthy()
        f.check_acknowledged()
        # No secret in a log or in an event.
        with open(f.password_file) as file:
            secrets = [file.read().strip()]
        with open(os.path.join(primary.state, "pgpass")) as file:
            secrets += [line.strip().rsplit(":", 1)[1] for line in file]
        events = f.run("show", "events", "--count", "1000", "--pgdata", f.monitor.pgdata, "--json").stdout
        expect(json.loads(events), "no events")
        texts = [events]
        for daemon in [f.monitor] + f.nodes:
            for log in (daemon.log, os.path.join(daemon.state, "postgresql.log")):
                with open(log, errors="replace") as file:
                    texts.append(file.read())
        for secret in secrets:
            expect(len(secret) > 20 and all(secret not in text for text in texts), "a secret stands in a log or an event")


class FormationInExistingDatabase(Formation):
    """The monitor keeps its schema in a PostgreSQL that is somebody else's."""

    def create_monitor(self):
        monitor = self.monitor
        self.database = Daemon(self, "database")
        self.directory(self.database.state, 0o700)
        self.program([tool("initdb"), "-D", self.database.pgdata, "--auth=trust"], check=True)
        with open(os.path.join(self.database.pgdata, "postgresql.conf"), "a") as conf:
            conf.write(f"port = {self.database.port}\nunix_socket_directories = '{self.database.state}'\nlisten_addresses = '{self.database.host}'\n")
        with open(os.path.join(self.database.pgdata, "pg_hba.conf"), "a") as hba:
            hba.write("host all all samenet trust\n")
        start_by_hand(self, self.database)
        self.database.sql("CREATE DATABASE somewhere")
        where = f"{self.database.host}:{self.database.port}/somewhere"
        uri = f"postgres://{self.owner()}@{where}"
        printed = self.run("create", "monitor", "--pgdata", monitor.pgdata, "--state-directory", monitor.state, "--database-uri", uri).stdout
        self.monitor_uri = f"postgres://pgvigil_node@{where}"
        expect(self.monitor_uri in printed, printed)
        self.password_file = os.path.join(monitor.state, "node-password")
        monitor.start()

    def close(self, failed=False):
        self.nodes.append(self.database)
        super().close(failed)


SESSIONS = """SELECT DISTINCT client_port FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory' AND client_port > 0
AND (classid = 7366518 OR objid = 7367032)"""


def scenario_monitor_in_existing_database():
    with FormationInExistingDatabase(nodes=2) as f:
        Writer(f)

        asked = set()

        def noticed():
            """The server asks every few seconds whether keepers and monitor are there: by its own settings it would after two hours."""
            ports = f.database.sql(SESSIONS, "somewhere").split()
            seen = f.program(["ss", "-tnoH", f"sport = :{f.database.port}"], "database", check=True).stdout
            # Of one that is waited for at this moment another timer is shown.
            asked.update(line.split()[4].rsplit(":", 1)[1] for line in seen.splitlines() if re.search(r"timer:\(keepalive,([0-3](\.\d+)?sec|\d+ms)", line))
            return len(ports) >= 3 and asked.issuperset(ports)
        f.wait_until(noticed, what="sessions that do not outlive their hosts")
        time.sleep(0.5)
        former = f.primary()
        former.crash()
        f.wait_takeover(former)
        former.start()
        f.wait_healthy()
        f.check_acknowledged()
        expect(f.monitor.postmaster() is None, "an embedded PostgreSQL runs as well")


def check_fsm(f):
    """Both tables, in all their forms."""
    keeper = f.run("show", "fsm", "--keeper").stdout
    expect(" wait_standby " in keeper and "prepare_standby, configure_standby, start" in keeper, keeper)
    plans = json.loads(f.run("show", "fsm", "--keeper", "--json").stdout)
    expect({"from": "primary", "to": "demoted", "steps": ["stop"]} in plans, str(plans[:3]))
    for whose, edge in (([], '"rule 603"'), (["--keeper"], '"primary" -> "demoted" [label="stop"]')):
        graph = f.run("show", "fsm", "--dot", *whose).stdout
        expect(graph.startswith("digraph ") and edge in graph and graph.endswith("}\n"), f"show fsm --dot {whose}: {graph}")
    expect(f.run("show", "fsm", "--dot", "--json", check=False).returncode == 1, "--dot and --json together")


def scenario_reload_and_settings():
    with Formation(nodes=2) as f:
        primary = f.primary()
        pid = primary.postmaster()
        f.run("config", "set", "log.level", "debug", "--pgdata", primary.pgdata)
        f.run("reload", "--pgdata", primary.pgdata)
        f.wait_until(lambda: "configuration read again" in open(primary.log).read(), what="the configuration is read again")
        f.run("set", "node", "candidate-priority", "80", "--name", f.secondary().name, "--pgdata", f.monitor.pgdata)
        shown = json.loads(f.run("get", "node", "candidate-priority", "--name", f.secondary().name, "--pgdata", f.monitor.pgdata, "--json").stdout)
        expect(shown["candidate-priority"] == 80, str(shown))
        f.run("create", "formation", "--formation", "other", "--pgdata", f.monitor.pgdata)
        f.run("drop", "formation", "--formation", "other", "--pgdata", f.monitor.pgdata)
        for what in ("state", "events", "settings", "uri", "standby-names", "fsm"):
            for flag in ([], ["--json"]):
                whose = [] if what == "fsm" else ["--pgdata", f.monitor.pgdata]
                shown = f.run("show", what, *whose, *flag).stdout
                expect(shown.strip() and (not flag or json.loads(shown) is not None), f"show {what} {flag}: {shown}")
        check_fsm(f)
        unit = f.run("show", "systemd", "--pgdata", primary.pgdata).stdout
        started = re.search("^ExecStart=(.*)/pgvigil-keeper run --config (.*)$", unit, re.MULTILINE)
        expect(started and os.path.exists(started.group(2)) and f"\nUser={f.owner()}\n" in unit, f"show systemd: {unit}")
        f.run("show", "state", "--local", "--pgdata", primary.pgdata)
        # Only the monitor decides: a named promotion of a priority above the others is an operator's word.
        target = f.secondary()
        f.run("perform", "promotion", "--name", target.name, "--pgdata", f.monitor.pgdata)
        f.wait_healthy()
        expect(f.primary() is target and primary.postmaster() != pid, "the promotion did not take place")


def scenario_timings():
    """Sets of timings: keepers report as often as the formation wants, and nonsense is refused."""
    with Formation(nodes=2) as f:
        def settings():
            rows = json.loads(f.run("get", "formation", "settings", "--pgdata", f.monitor.pgdata, "--json").stdout)
            return {row["setting"]: row["value"] for row in rows["formation"]}

        def reports_in(seconds):
            count = "SELECT sum(report_count) FROM pgvigil.node_report"
            before = int(f.monitor.sql(count, database="pgvigil"))
            time.sleep(seconds)
            return int(f.monitor.sql(count, database="pgvigil")) - before

        def change(*words, check=True):
            return f.run("set", "formation", *words, "--pgdata", f.monitor.pgdata, check=check)
        expect(settings()["timings"] == "default", str(settings()))
        for words, complaint in ((("timings", "slow"), 'no set of timings "slow"'), (("settings", "heartbeat_ms", "2000"), "two heartbeats"),
                                 (("settings", "vote_ms", "60001"), "out of range"), (("settings", "drain_ms", "0"), "out of range"),
                                 (("settings", "lease_ms", "10500"), "whole seconds"), (("settings", "pulse_ms", "1"), 'no timing "pulse_ms"')):
            result = change(*words, check=False)
            expect(result.returncode != 0 and complaint in result.stderr, f"{words}: exit {result.returncode}: {result.stderr}")
        slow = reports_in(4)
        change("timings", "fast")
        expect(settings()["timings"] == "fast" and settings()["unhealthy_ms"] == "1200", str(settings()))
        f.wait_until(lambda: reports_in(4) > 2 * slow, what="the keepers report more often")
        f.wait_healthy()
        change("settings", "unhealthy_ms", "1500")
        expect(settings()["timings"] == "custom", str(settings()))
        change("settings", "vote_ms", "0")
        expect(settings()["vote_ms"] == "0", str(settings()))
        change("timings", "wan")
        change("timings", "default")
        expect(settings()["timings"] == "default" and settings()["lease_ms"] == "30000", str(settings()))  # a lease is never shortened


def scenario_newer_schema_is_refused():
    with Formation(nodes=1) as f:
        f.wait_state(f.nodes[0], "single")
        f.monitor.sql("UPDATE pgvigil.meta SET schema_version = 99", database="pgvigil")
        f.monitor.kill()
        result = f.run("run", "--pgdata", f.monitor.pgdata, check=False, seconds=60)
        expect(result.returncode == 6 and "newer than this program" in result.stderr, f"exit {result.returncode}: {result.stderr}")
        expect(f.monitor.postmaster() is None, "the monitor's PostgreSQL was left running")
        expect(f.nodes[0].sql("SELECT pg_is_in_recovery()") == "f", "the data node has stopped")
