"""A command does what it is told, for the node or the group that is meant, and says so in JSON when it is asked to."""
import json
import os
import signal
import stat
import subprocess

from commands import command
from formation import BIN, Daemon, Formation, expect, text_of
from test_locks import holding

HOSTS = "one"  # of one machine, and its configuration files


def in_json(result):
    expect(result.returncode == 0, f"{result}")
    return json.loads(result.stdout)


def refused(result, code, *words):
    expect(result.returncode == code and all(word in result.stderr for word in words), f"not refused with {code} and {words}: {result}")


def scenario_meant_for_one_group():
    """Of three nodes the first is a group of its own. Its monitor was made with a slash at the end of --pgdata."""
    f = Formation(nodes=1)
    f.monitor.pgdata += "/"
    with f:
        f.monitor.pgdata = f.monitor.pgdata.rstrip("/")
        alone = f.nodes[0]
        f.wait_state(alone, "single")
        for name in ("node2", "node3"):
            f.add_node(name, options=("--group", "1"))
        pair = f.nodes[1:]
        f.wait_until(lambda: f.in_state("primary") and f.in_state("secondary"), what="a second group of two")
        for daemon in (f.monitor, *f.nodes):
            expect(f.run("status", "--pgdata", daemon.pgdata + "/").returncode == 0, f"{daemon.name} is not found by its path with a slash")

        # The group: that of the node, the one that is said, else none.
        refused(command(f, "perform", "failover", check=False), 1, "2 groups", "--group")
        refused(command(f, "show", "standby-names", check=False), 1, "2 groups", "--group")
        for shown in (("standby-names",), ("state",), ("events",), ("events", "--failover"), ("why",)):
            refused(command(f, "show", *shown, "--group", 7, check=False), 1, "no group 7")
        refused(command(f, "show", "standby-names", "--formation", "none", check=False), 1, '"none"')
        expect(f.run("show", "standby-names", "--pgdata", alone.pgdata).stdout.strip() == "''", "one node waits for nobody")
        expect("pgvigil_standby_3" in f.run("show", "standby-names", "--pgdata", pair[0].pgdata).stdout, "of another group")

        def writes(node):
            return f.in_state("primary") == [node.name] and f.in_state("secondary")
        rows = in_json(f.run("perform", "failover", "--pgdata", pair[0].pgdata, "--json"))
        expect({row["nodename"] for row in rows} == {"node2", "node3"}, f"{rows}")
        f.wait_until(lambda: writes(pair[1]), what="handed over")
        rows = in_json(f.run("perform", "failover", "--pgdata", pair[0].pgdata, "--no-wait", "--json"))
        expect({row["nodename"] for row in rows} == {"node2", "node3"}, f"{rows}")
        f.wait_until(lambda: writes(pair[0]), what="handed back, without the command's waiting for it")
        expect(alone.name in f.in_state("single"), "the other group was touched")
        in_json(f.run("enable", "maintenance", "--pgdata", pair[1].pgdata, "--no-wait", "--json"))
        f.wait_state(pair[1], "maintenance")
        in_json(f.run("disable", "maintenance", "--pgdata", pair[1].pgdata, "--no-wait", "--json"))
        f.wait_until(lambda: writes(pair[0]), what="back from maintenance")
        drop_what_is_meant(f, pair)


def drop_what_is_meant(f, pair):
    standby, number = pair[1], len(f.state())
    for options in (("--name", ""), ("--name=",), ("--hostname", "")):
        refused(f.run("drop", "node", *options, "--pgdata", standby.pgdata, check=False), 1, "needs a value")
    # The same number, but another node's: as after a change of the monitor.
    f.run("config", "set", "node.hostname", "localhost", "--pgdata", standby.pgdata)
    refused(f.run("drop", "node", "--pgdata", standby.pgdata, "--destroy", check=False), 3, "not the local one", f"localhost:{standby.port}")
    expect(len(f.state()) == number and standby.running() and standby.postmaster(), "something was dropped")
    expect(os.path.exists(os.path.join(standby.state, "keeper.json")), "its state file was removed")
    f.run("config", "set", "node.hostname", standby.host, "--pgdata", standby.pgdata)
    refused(f.run("drop", "node", "--pgdata", standby.pgdata, "--destroy", "--no-wait", check=False), 1, "--no-wait")
    row = in_json(command(f, "drop", "node", "--name", standby.name, "--no-wait", "--json", check=False))
    expect(row == {"node_id": row["node_id"], "name": standby.name, "dropped": False}, f"{row}")
    f.wait_until(lambda: standby.name not in f.state(), what="it is dropped, without the command's waiting for it")
    f.wait_until(lambda: not standby.running(), what="its keeper ends")
    row = in_json(f.run("drop", "node", "--pgdata", standby.pgdata, "--destroy", "--json"))
    expect(row["name"] == standby.name and row["dropped"], f"{row}")
    command(f, "create", "formation", "--formation", "empty")
    expect(in_json(command(f, "drop", "formation", "--formation", "empty", "--json")) == {"formation": "empty", "dropped": True}, "what was dropped?")

    # As loud as it is told to be.
    again = Daemon(f, "node4")
    made = f.run(*f.create_args(again), "--group", "1", "-v")
    expect(made.returncode == 0, f"{made}")
    size = os.path.getsize(f.nodes[0].log)
    f.nodes[0].kill()
    f.nodes[0].start("-q")
    f.wait_until(lambda: f.run("status", "--pgdata", f.nodes[0].pgdata, check=False).returncode == 0, what="it runs")
    f.wait_state(f.nodes[0], "single")
    expect(" info " not in text_of(f.nodes[0].log)[size:], f"it was to be quiet:\n{text_of(f.nodes[0].log)[size:]}")


def credential_of(f, number):
    return f.monitor.sql(f"SELECT rolpassword FROM pg_authid WHERE rolname = 'pgvigil_keeper_{number}'", database="pgvigil")


def scenario_made_only_where_it_is_meant():
    """The identity of a node that lives is not given away; and no superuser whom everybody may be."""
    with Formation(nodes=1) as f:
        one, other = f.nodes[0], Daemon(f, "other")
        f.wait_state(one, "single")
        # The line of node1 on another host, or one without --hostname on both.
        words = [one.name if word == other.name else word for word in f.create_args(other)]
        words[words.index("--pgport") + 1] = one.port
        credential, postmaster = credential_of(f, 1), one.postmaster()
        refused(f.run(*words, check=False), 1, one.name, "connected", "--hostname")
        expect(credential_of(f, 1) == credential, "node1 has another credential")
        expect(not os.path.exists(other.state) and not os.path.exists(other.pgdata), "something is left")
        f.run(*f.create_args(one))  # it may say so itself
        credential = credential_of(f, 1)  # the same password, another verifier of it
        one.kill()
        one.start()
        f.wait_until(lambda: f.run("status", "--pgdata", one.pgdata, check=False).returncode == 0, what="it runs again")
        f.wait_state(one, "single")
        expect(one.postmaster() == postmaster and credential_of(f, 1) == credential and f.term() == 1, "the node was disturbed")

        without = f.create_args(other)
        at = without.index("--hostname")
        del without[at:at + 2]
        far = [word.replace("127.0.0.1", "192.0.2.7") if word == f.monitor_uri else word for word in without]
        refused(f.run(*far, check=False), 1, "--hostname is missing", "192.0.2.7")
        both = [word.replace("127.0.0.1", "127.0.0.1,192.0.2.7") if word == f.monitor_uri else word for word in without]
        refused(f.run(*both, check=False), 1, "--hostname is missing", "192.0.2.7")

        # Local sessions of a superuser of another name are trusted for the sake of a directory that is closed.
        f.directory(other.state)
        refused(f.run(*without, "--group", "1", "--username", "boss", check=False), 1, "boss", "chmod 700")
        expect(list(f.state()) == [one.name] and os.listdir(other.state) == [], "something is left")
        f.run(*without, "--group", "1", "--username", f.owner())
        f.nodes.append(other)
        other.start()
        f.wait_state(other, "single")
        local = [line.split() for line in text_of(other.pgdata + "/pg_hba.conf").splitlines() if line.startswith("local")]
        expect(local and all(words[-1] == "peer" for words in local), f"{local}")
        boss = Daemon(f, "boss")
        f.directory(boss.state, mode=0o700)
        f.run(*f.create_args(boss), "--group", "2", "--username", "boss")
        f.nodes.append(boss)
        boss.start()
        f.wait_state(boss, "single")


def scenario_another_monitor():
    """The keeper gets in by what it is given, or nothing is changed."""
    with Formation(nodes=1) as f:
        node, first = f.nodes[0], f.monitor
        f.wait_state(node, "single")
        f.monitor = Daemon(f, "monitor2")
        f.create_monitor()
        file = json.loads(f.run("status", "--pgdata", node.pgdata, "--json").stdout)["pg_autoctl"]["config"]
        before = text_of(file)
        with open(f.password_file) as secret:
            password = secret.read().strip()

        def enable(*options, **environment):
            words = [f.pgvigil, "enable", "monitor", "--pgdata", node.pgdata, *options]
            return subprocess.run(words, env=dict(f.env, **environment), capture_output=True, text=True, timeout=60)

        def with_password(word):
            return f.monitor_uri.replace("pgvigil_node@", f"pgvigil_node:{word}@")
        for done, code, words in (
                (enable(PGVIGIL_MONITOR=f.monitor_uri), 6, "password"),  # it has that of the other one
                (enable("--monitor", f.monitor_uri, PGPASSWORD="a-wrong-word"), 6, "password authentication failed"),
                (enable("--monitor", with_password(password)), 1, "--monitor holds a password"),
                (enable(PGVIGIL_MONITOR=with_password("a-wrong-word")), 6, "password authentication failed"),
                (enable("--monitor", f.monitor_uri, "--monitor-password-file", f.work + "/none"), 6, "password file"),
                (enable("--monitor", "postgres://[::1"), 1, "connection string")):
            refused(done, code, words)
            expect("a-wrong-word" not in done.stderr and password not in done.stderr, f"the message shows the password: {done}")
            expect(text_of(file) == before and not os.path.exists(node.state + "/monitor-password"), f"something was changed by {done.args}")
        expect(f.run("show", "state", "--pgdata", first.pgdata).returncode == 0, "the first monitor has gone")

        # Also where it is the second address that answers, and nobody but the environment knows the password.
        several = with_password(password).replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:")
        done = enable(PGVIGIL_MONITOR=several)
        expect(done.returncode == 0 and password not in done.stderr, f"{done}")
        kept = os.path.join(node.state, "monitor-password")
        expect(text_of(kept).strip() == password and stat.S_IMODE(os.stat(kept).st_mode) == 0o600, "the keeper has no password")
        expect(password not in text_of(file), "the configuration has it")
        f.wait_state(node, "single")
        # By the credential of its own, when nothing else is left.
        f.wait_until(lambda: "SCRAM" in credential_of(f, 1), what="it was given its own credential")
        os.unlink(kept)
        done = enable("--monitor", f.monitor_uri)
        expect(done.returncode == 0, f"{done}")
        node.kill()
        node.start()
        f.wait_until(lambda: f.run("status", "--pgdata", node.pgdata, check=False).returncode == 0, what="it runs again")
        f.wait_state(node, "single")


def told_by_file(f, daemon):
    return json.loads(f.run("status", "--pgdata", daemon.pgdata, "--json", check=False).stdout)["pg_autoctl"]["config"]


def everything_below(*directories):
    """Each file, with what is in it."""
    found = {}
    for directory in directories:
        for path, _, names in os.walk(directory):
            for name in names:
                with open(os.path.join(path, name), "rb") as file:
                    found[os.path.join(path, name)] = file.read()
    return found


def scenario_of_another_role():
    """A daemon that is given the configuration of the other kind does nothing with it: a monitor would start a former primary unfenced, or empty it."""
    with Formation(nodes=1) as f:
        node, monitor = f.nodes[0], f.monitor
        f.wait_state(node, "single")

        def daemon(program, *words):
            return subprocess.run([os.path.join(BIN, program), *words], env=f.env, capture_output=True, text=True, timeout=30)

        def untouched(of, *commands):
            before = everything_below(of.pgdata, of.state, os.path.join(f.work, "etc"))
            for answer in (command() for command in commands):
                refused(answer, 1, "is the configuration of", of.pgdata)
                expect(of.postmaster() is None and everything_below(of.pgdata, of.state, os.path.join(f.work, "etc")) == before, f"changed by {answer.args}")

        file = told_by_file(f, node)
        f.run("stop", "--pgdata", node.pgdata)
        untouched(node,
                  lambda: f.run("drop", "monitor", "--destroy", "--pgdata", node.pgdata, check=False),
                  lambda: daemon("pgvigil-monitor", "drop", "--destroy", "--pgdata", node.pgdata),
                  lambda: daemon("pgvigil-monitor", "run", "--pgdata", node.pgdata),
                  lambda: daemon("pgvigil-monitor", "run", "--config", file),
                  lambda: daemon("pgvigil-monitor", "create", "--run", "--pgdata", node.pgdata),
                  lambda: daemon("pgvigil-monitor", "create", "--pgdata", monitor.pgdata + "2", "--config", file))
        refused(daemon("pgvigil-keeper", "drop", "--destroy", "--force", "--pgdata", monitor.pgdata), 1, "is the configuration of a monitor")
        expect(f.run("status", "--pgdata", monitor.pgdata).returncode == 0, "the monitor was stopped")
        node.start()
        f.wait_state(node, "single")
        # Its file becomes another's while it runs.
        own, monitors = text_of(file), told_by_file(f, monitor)
        with open(file, "w") as changed:
            changed.write(text_of(monitors))
        node.process.send_signal(signal.SIGHUP)
        f.wait_until(lambda: "configuration not changed" in text_of(node.log), what="the other one is refused")
        with open(file, "w") as changed:
            changed.write(own)
        f.run("stop", "--pgdata", monitor.pgdata)
        untouched(monitor,
                  lambda: daemon("pgvigil-keeper", "drop", "--destroy", "--force", "--pgdata", monitor.pgdata),
                  lambda: daemon("pgvigil-keeper", "run", "--pgdata", monitor.pgdata),
                  lambda: daemon("pgvigil-keeper", "run", "--config", monitors),
                  lambda: daemon("pgvigil-keeper", "create", "--pgdata", monitor.pgdata, "--monitor", f.monitor_uri))


def scenario_run_by_name():
    """`pgvigil run --config NAME` is the daemon of that configuration, whatever PGDATA says."""
    with Formation(nodes=1) as f:
        node, monitor = f.nodes[0], f.monitor
        f.wait_state(node, "single")
        for daemon, other in ((node, monitor), (monitor, node)):
            name = os.path.basename(told_by_file(f, daemon)).removesuffix(".toml")
            for environment in ({}, {"PGDATA": other.pgdata}, {"PGDATA": daemon.pgdata}):
                for options in (("--config", name), (f"--config={name}",)):
                    f.run("stop", "--pgdata", daemon.pgdata)
                    with open(daemon.log, "ab") as log:
                        daemon.process = subprocess.Popen([f.pgvigil, "run", *options], env=dict(f.env, **environment), stdout=log, stderr=log,
                                                          start_new_session=True)
                    f.wait_until(lambda: daemon.process.poll() is not None or f.run("status", "--pgdata", daemon.pgdata, check=False).returncode == 0,
                                 what=f"{daemon.name} runs by {options} and {environment}")
                    expect(daemon.running(), f"{daemon.name} by {options} and {environment}: {text_of(daemon.log)[-500:]}")
        f.wait_state(node, "single")
        refused(f.run("run", "--config", "nobody", check=False), 2, "nobody.toml")
        refused(f.run("run", "--config", check=False), 1, "--config")
        refused(f.run("run", check=False), 1, "--pgdata", "--config")


EVENT = "INSERT INTO pgvigil.event (formation, group_id, term, rule, rule_name, description) VALUES ('default', 0, 1, 5, 'settings', '{}')"


def scenario_events_as_they_come():
    """`show events --watch` shows each event once: none from before that was not asked for, and none is left out that is written down late."""
    with Formation(nodes=1) as f:
        f.wait_state(f.nodes[0], "single")
        known = f.events()
        shown = os.path.join(f.work, "shown")
        with open(shown, "w") as out:
            watches = [subprocess.Popen([f.pgvigil, "show", "events", "--watch", "--json", "--count", count, "--pgdata", f.monitor.pgdata], env=f.env, stdout=out)
                       for count in ("0", "2")]
        try:
            f.wait_until(lambda: f.monitor.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgvigil' AND state = 'idle' AND query ~ 'last_events'",
                                               database="pgvigil") == "2", what="both watch")
            with holding(f, f.owner(), EVENT.format("of-before")) as late:
                f.monitor.sql(EVENT.format("of-now") + "; NOTIFY pgvigil_events", database="pgvigil")
                f.wait_until(lambda: text_of(shown).count("of-now") == 2, what="both show what is new")
                late.stdin.write("NOTIFY pgvigil_events; COMMIT;\n")
                late.stdin.flush()
                f.wait_until(lambda: text_of(shown).count("of-before") == 2, what="both show what was written before and comes later")
            f.run("set", "node", "candidate-priority", "70", "--name", f.nodes[0].name, "--pgdata", f.monitor.pgdata)
            f.wait_until(lambda: text_of(shown).count("is now 70") == 2, what="both show what comes then")
        finally:
            for watch in watches:
                watch.kill()
                watch.wait()
        ids = [json.loads(line)["eventid"] for line in text_of(shown).splitlines()]
        old = [event["eventid"] for event in known]
        expect(sorted(number for number in ids if number in old) == old[-2:], f"of those from before, {old}: {ids}")
        fresh = [number for number in ids if number not in old]
        expect(len(fresh) == 6 and len(set(fresh)) == 3, f"not each once for both: {fresh}")
