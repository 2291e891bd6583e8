"""What an operator does between failovers: secrets, settings, a broken configuration, dropping nodes and the monitor,
the URIs of many groups."""
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import tomllib

from formation import Daemon, Formation, alive, expect, text_of, tool

HOSTS = "one"  # of one machine, and its settings


def everything_below(directory):
    for folder, folders, files in os.walk(directory):
        for name in files:
            yield os.path.join(folder, name)


class Processes(threading.Thread):
    """The command lines of all processes, looked at again and again."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen = set()
        self.ended = False
        self.start()

    def run(self):
        while not self.ended:
            for process in os.listdir("/proc"):
                if process.isdigit():
                    try:
                        with open(f"/proc/{process}/cmdline") as file:
                            self.seen.add(file.read().replace("\0", " "))
                    except OSError:
                        pass
            time.sleep(0.005)

    def end(self):
        self.ended = True
        self.join()
        return self.seen


def open_to_others(path):
    """By its own mode and those of all directories above."""
    if not os.stat(path).st_mode & 0o044:
        return False
    while path != "/":
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 0o011:
            return False
    return True


def scenario_secrets():
    """With the default authentication: in no command line, no log, no event, no file that others can read."""
    with Formation(nodes=0, auth="scram-sha-256") as f:
        processes = Processes()
        f.add_node()
        f.wait_state(f.nodes[0], "single")
        with open(f.password_file) as file:
            password = file.read().strip()

        def create(node, monitor, *options, **environment):
            words = [f.pgvigil, "create", "postgres", "--pgdata", node.pgdata, "--pgport", str(node.port), "--name",
                     node.name, "--state-directory", node.state, "--monitor", monitor, *options]
            return subprocess.run(words, env=dict(f.env, **environment), capture_output=True, text=True, timeout=60)

        stranger = Daemon(f, "stranger")
        wrong = os.path.join(f.work, "wrong")
        with open(os.open(wrong, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write("a wrong one\n")
        with_password = f.monitor_uri.replace("pgvigil_node@", "pgvigil_node:a-wrong-word@")
        for options, environment, code, words in (
                ((f.monitor_uri, "--monitor-password-file", wrong), {}, 6, "password authentication failed"),
                ((f.monitor_uri,), {"PGPASSWORD": "a wrong one"}, 6, "password authentication failed"),
                ((f.monitor_uri,), {}, 6, "no password supplied"),
                ((f.monitor_uri, "--monitor-password-file", wrong + "er"), {}, 2, "password file"),
                ((with_password,), {}, 1, "--monitor holds a password")):
            refused = create(stranger, *options, **environment)
            expect(refused.returncode == code and words in refused.stderr and "hint: " in refused.stderr,
                   f"{options} {environment}: {refused}")
            expect("a-wrong-word" not in refused.stderr, "the message shows the password")
            expect(not os.path.exists(stranger.state) and not os.path.exists(stranger.pgdata), "something is left")
            shown = f.run("show", "state", "--monitor", options[0], *options[1:], check=False)
            expect(shown.returncode in (2, 6), f"show state with {options}: {shown}")
        expect(list(f.state()) == ["node1"], "a stranger was registered")

        # The password from the environment is kept for the keeper, in a file of its own.
        second = Daemon(f, "node2")
        made = create(second, f.monitor_uri, PGPASSWORD=password)
        expect(made.returncode == 0, f"{made}")
        f.nodes.append(second)
        second.start()
        f.wait_healthy()
        former = f.primary()
        former.crash()
        f.wait_takeover(former)
        former.write_alone()
        former.start()  # a rewind
        f.wait_healthy()

        seen = processes.end()
        secrets = [password]
        for node in f.nodes:
            secrets += [line.rsplit(":", 1)[1] for line in text_of(os.path.join(node.state, "pgpass")).split()]
            secrets.append(text_of(os.path.join(node.state, "own-credential")).strip())
        expect(len(set(secrets)) == 5 and all(len(secret) > 20 for secret in secrets), "which are the secrets?")
        expect(any("pg_basebackup" in line for line in seen) and any("pg_rewind" in line for line in seen),
               "no copying was seen: this proves nothing")
        events = f.run("show", "events", "--count", "1000", "--pgdata", f.monitor.pgdata, "--json").stdout
        texts = {"the events": events, "the states": json.dumps(f.state()),
                 **{f"the command line {line}": line for line in seen}}
        for path in everything_below(f.work):
            if path.endswith(".log") or open_to_others(path):
                texts[path] = text_of(path)
        for secret in secrets:
            for name, text in texts.items():
                expect(secret not in text, f"a secret stands in {name}")


BAD_VALUES = (
    ("postgresql.port", "0", 2, "between 1 and 65535"), ("postgresql.port", "many", 2, "integer"),
    ("log.level", "loud", 2, "one of"), ("postgresql.auth", "md5", 2, "one of"), ("timeouts.stop", "0", 2, "between"),
    ("node.hostname", "a b", 2, "host name"), ("postgresql.manage_hba", "perhaps", 2, "true or false"),
    ("log.format", "te\nxt", 2, "control"), ("node.role", "monitor", 1, "fixed"),
    ("postgresql.pgdata", "/elsewhere", 1, "fixed"), ("log.nothing", "x", 1, "no setting"),
    ("monitor.uri", "postgres://pgvigil_node:known-to-all@m/pgvigil", 2, "password"),
    ("monitor.uri", "host=m user=pgvigil_node password=known-to-all", 2, "password"),
    ("monitor.database_uri", "postgres://m/pgvigil?password=known-to-all", 2, "password"), ("monitor.uri", "postgres://[::1", 2, "connection string"),
    ("nothing", "x", 1, "no setting"))


def scenario_configuration():
    """config get and set, and what a running keeper makes of it."""
    with Formation(nodes=1) as f:
        node = f.nodes[0]
        f.wait_state(node, "single")

        def config(*words, check=True):
            return f.run("config", *words, "--pgdata", node.pgdata, check=check)

        everything = json.loads(config("get", "--json").stdout)
        file = json.loads(f.run("status", "--pgdata", node.pgdata, "--json").stdout)["pg_autoctl"]["config"]
        expect(everything["postgresql"]["port"] == node.port and everything["node"]["role"] == "keeper", everything)
        for daemon in (f.monitor, node):
            printed = f.run("config", "get", "--pgdata", daemon.pgdata).stdout
            typed = json.loads(f.run("config", "get", "--pgdata", daemon.pgdata, "--json").stdout)
            for section, values in tomllib.loads(printed).items():
                for key, value in values.items():
                    expect(typed[section][key] == value, f"{section}.{key} is {typed[section][key]!r} in JSON, {value!r} in TOML")
        before = text_of(file)
        for key, value, code, words in BAD_VALUES:
            refused = config("set", key, value, check=False)
            expect(refused.returncode == code and words in refused.stderr, f"{key} = {value}: {refused}")
            expect("known-to-all" not in refused.stdout + refused.stderr, f"the answer shows the password: {refused}")
        expect(text_of(file) == before, "a refused value was written")
        # Written by hand, it is not shown to everybody who looks over a shoulder.
        with open(file, "w") as spoilt:
            spoilt.write(before.replace("pgvigil_node@", "pgvigil_node:known-to-all@"))
        expect("known-to-all" in text_of(file), "this proves nothing")
        for words in (("get",), ("get", "--json"), ("get", "monitor.uri"), ("get", "monitor.uri", "--json"), ("check",), ("set", "log.level", "info")):
            told = config(*words, check=False)
            expect("known-to-all" not in told.stdout + told.stderr, f"{words}: {told}")
        with open(file, "w") as mended:
            mended.write(before)

        def log_after(action, words):
            size = os.path.getsize(node.log)
            action()
            f.wait_until(lambda: words in text_of(node.log)[size:], 10, f"'{words}' in the log")

        def reload():
            log_after(lambda: f.run("reload", "--pgdata", node.pgdata), "configuration read again")

        # At once, and for good.
        config("set", "log.level", "debug")
        log_after(reload, " debug ")
        config("set", "log.format", "json")
        log_after(reload, '"level":"info"')
        config("set", "log.level", "info")
        config("set", "log.format", "text")
        config("set", "timeouts.stop", "17")
        reload()
        expect(config("get", "timeouts.stop").stdout.strip() == "17", "a setting is lost")
        # What a running keeper cannot change counts later, and does no harm.
        pid = node.postmaster()
        config("set", "postgresql.port", str(node.port + 1))
        log_after(reload, "postgresql.port counts from the next start")
        time.sleep(3)
        expect(node.postmaster() == pid and node.sql("SHOW port") == str(node.port), "PostgreSQL is another one")
        expect(node.name in f.in_state("single"), f.describe())
        expect(f"port = '{node.port}'\n" in text_of(node.pgdata + "/postgresql-pgvigil.conf"), "another port is written")
        config("set", "postgresql.port", str(node.port))
        # A file that was spoilt by hand changes nothing, and says where.
        good = text_of(file)
        with open(file, "a") as spoilt:
            spoilt.write("\nnonsense = [\n")
        refused = f.run("reload", "--pgdata", node.pgdata, check=False)
        expect(refused.returncode == 2 and file + ":" in refused.stderr, f"{refused}")
        refused = config("check", check=False)
        expect(refused.returncode == 2, f"{refused}")
        log_after(lambda: os.kill(node.process.pid, 1), "configuration not changed")
        with open(file, "w") as mended:
            mended.write(good)
        node.kill()
        node.start()
        f.wait_state(node, "single")
        expect(node.postmaster() == pid and config("get", "timeouts.stop").stdout.strip() == "17", "not persistent")
        f.run("config", "set", "log.level", "debug", "--pgdata", f.monitor.pgdata)
        f.run("reload", "--pgdata", f.monitor.pgdata)
        f.wait_until(lambda: "configuration read again" in text_of(f.monitor.log), 10, "the monitor reads it again")


def restart_by_hand(node):
    """As an operator does it: the configuration is read anew, and is wrong."""
    subprocess.run([tool("pg_ctl"), "-D", node.pgdata, "-m", "fast", "-w", "restart"], capture_output=True)


def scenario_broken_configuration():
    """postgresql.conf has an error when PostgreSQL is restarted: alone, the node says why it does not start; of two,
    the other takes over; mended, all is well again."""
    with Formation(nodes=1) as f:
        one = f.nodes[0]
        f.wait_state(one, "single")
        file = os.path.join(one.pgdata, "postgresql.conf")

        def break_it():
            with open(file, "a") as conf:
                conf.write("this is no setting = = !\n")
            restart_by_hand(one)

        def mend():
            with open(file) as conf:
                kept = [line for line in conf if not line.startswith("this is no setting")]
            with open(file, "w") as conf:
                conf.writelines(kept)

        break_it()
        f.wait_until(lambda: "syntax error" in f.state()[one.name]["reason"], what="show state says why")
        why = f.run("show", "why", "--pgdata", f.monitor.pgdata).stdout
        expect("does not start" in why, f"show why: {why}")
        mend()
        f.wait_until(lambda: one.postmaster() and not f.state()[one.name]["reason"], what="it runs again")

        two = f.add_node()
        f.wait_healthy()
        f.start_writers()
        break_it()
        expect(f.wait_takeover(one) is two, "who else")
        f.goes_on()
        f.wait_until(lambda: "syntax error" in f.state()[one.name]["reason"] or f.in_state("primary"),
                     what="it is said why, or it is healed")
        mend()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_names_of_somebody_else():
    """Whom commits wait for is pgvigil's: set otherwise, it is set back. When PostgreSQL cannot read its configuration
    and so not go on without its standby, this is said, and ends with the error."""
    with Formation(nodes=2) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        file = os.path.join(primary.pgdata, "postgresql.conf")
        names = primary.sql("SHOW synchronous_standby_names")
        expect("pgvigil_standby" in names, names)

        def set_back(what):
            primary.sql("SELECT pg_reload_conf()")
            f.wait_until(lambda: primary.sql("SHOW synchronous_standby_names") != names, what=f"{what}: others in force")
            f.wait_until(lambda: primary.sql("SHOW synchronous_standby_names") == names, 15, f"{what}: set back")

        primary.sql("ALTER SYSTEM SET synchronous_standby_names = ''")
        set_back("ALTER SYSTEM")
        primary.sql("ALTER SYSTEM SET \"Synchronous_Standby_Names\" = ''")
        set_back("ALTER SYSTEM in capitals")
        with open(file, "a") as conf:
            conf.write("synchronous_standby_names = 'nobody'\n")
        set_back("a line behind")
        f.goes_on()

        with open(file, "a") as conf:
            conf.write("this is no setting = = !\n")
        standby.crash()
        f.wait_until(lambda: "line" in f.state()[primary.name]["reason"], what="show state says which line is wrong")
        f.wait_until(lambda: file in f.run("show", "why", "--pgdata", f.monitor.pgdata).stdout, 10, "so does show why")
        with open(file) as conf:
            kept = [line for line in conf if not line.startswith("this is no setting")]
        sessions = primary.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()").split()
        with open(file, "w") as conf:
            conf.writelines(kept)
        for pid in sessions:  # they read the file again, also the keeper's; the postmaster, which every new session comes from, does not
            if alive(int(pid)):
                os.kill(int(pid), signal.SIGHUP)
        f.goes_on(primary)
        f.wait_until(lambda: not f.state()[primary.name]["reason"], 15, "the reason is no more")
        standby.start()
        f.wait_healthy()
        f.check_acknowledged()


def dropped(f, node, *options):
    """By the command on its own host; what is left of it."""
    f.run("drop", "node", "--pgdata", node.pgdata, *options)
    f.nodes.remove(node)
    expect(node.name not in f.state() and node.postmaster() is None, f"{node.name} is still there")
    if node.running():
        expect(node.process.wait(20) == 121, f"the keeper ended with {node.process.returncode}")
    for name in ("keeper.json", "pgpass"):
        expect(not os.path.exists(os.path.join(node.state, name)), f"{name} of {node.name} is left")
    unknown = f.run("config", "get", "--pgdata", node.pgdata, check=False)
    expect(unknown.returncode == 2, f"its configuration is left: {unknown}")


def again(f, node):
    back = Daemon(f, node.name)
    back.port = node.port
    f.run(*f.create_args(back))
    f.nodes.append(back)
    size = os.path.getsize(back.log)
    back.start()
    f.wait_healthy()
    return text_of(back.log)[size:]


def scenario_drop_and_make_again():
    with Formation(nodes=3) as f:
        f.start_writers()
        one, _, three = f.nodes
        # A secondary that keeps its data: it is a plain PostgreSQL, and comes back without a copy.
        dropped(f, three)
        expect(os.path.exists(three.pgdata + "/PG_VERSION"), "without --destroy PGDATA is gone")
        texts = text_of(three.pgdata + "/postgresql.conf") + text_of(three.pgdata + "/pg_hba.conf")
        expect("pgvigil" not in texts, f"lines of pgvigil are left:\n{texts}")
        with open(three.pgdata + "/postgresql.conf", "a") as conf:
            conf.write(f"unix_socket_directories = '{three.state}'\n")  # where these tests look for it
        log = again(f, three)
        expect("base backup" not in log, f"it was copied anew:\n{log}")
        # The primary hands over first; with --destroy nothing is left but the directory.
        dropped(f, one, "--destroy")
        expect(os.listdir(one.pgdata) == [], "with --destroy something is left in PGDATA")
        f.wait_healthy()
        f.goes_on()
        log = again(f, one)
        expect("base backup" in log, f"it was not copied:\n{log}")

        # Gone for ever: only by force.
        lost = next(node for node in f.nodes if node is not f.primary())
        lost.crash()
        shutil.rmtree(lost.pgdata)
        words = ("drop", "node", "--name", lost.name, "--pgdata", f.monitor.pgdata)
        waiting = f.run(*words, "--wait", "2", check=False)
        expect(waiting.returncode == 12 and "--force" in waiting.stderr, f"{waiting}")
        f.run(*words, "--force")
        f.nodes.remove(lost)
        f.wait_until(lambda: lost.name not in f.state(), what="it is gone")
        f.wait_healthy()
        # On its own host: not in order while its keeper is away, by force all the same.
        stopped = next(node for node in f.nodes if node is not f.primary())
        f.run("stop", "--pgdata", stopped.pgdata)
        refused = f.run("drop", "node", "--pgdata", stopped.pgdata, check=False)
        expect(refused.returncode == 1 and "--force" in refused.stderr and stopped.name in f.state(), f"{refused}")
        dropped(f, stopped, "--force")
        f.wait_state(f.nodes[0], "single", "wait_primary")
        f.goes_on()
        again(f, stopped)
        f.goes_on()
        f.check_acknowledged()


def scenario_drop_the_monitor():
    """The nodes go on; made again on its data it knows them all; destroyed, it leaves nothing."""
    with Formation(nodes=2) as f:
        f.start_writers()
        monitor = f.monitor
        known = {name: row["node_id"] for name, row in f.state().items()}
        refused = f.run("drop", "monitor", "--pgdata", monitor.pgdata, check=False)
        expect(refused.returncode == 1 and "runs" in refused.stderr, f"a monitor that runs was dropped: {refused}")
        refused = f.run("drop", "node", "--pgdata", monitor.pgdata, check=False)
        expect(refused.returncode == 1 and "drop monitor" in refused.stderr, f"{refused}")
        primary = f.primary()
        password = text_of(f.password_file)
        f.run("stop", "--pgdata", monitor.pgdata)
        f.run("drop", "monitor", "--pgdata", monitor.pgdata)
        expect(f.run("run", "--pgdata", monitor.pgdata, check=False).returncode == 2, "its configuration is left")
        f.goes_on(primary)
        f.create_monitor()
        f.wait_healthy()
        expect(text_of(f.password_file) == password, "the nodes know another password")
        expect({name: row["node_id"] for name, row in f.state().items()} == known, "it knows other nodes")
        primary.crash()
        f.wait_takeover(primary)
        primary.start()
        f.wait_healthy()
        f.check_acknowledged()
        f.run("stop", "--pgdata", monitor.pgdata)
        f.run("drop", "monitor", "--pgdata", monitor.pgdata, "--destroy")
        expect(os.listdir(monitor.pgdata) == [] and not os.path.exists(f.password_file), "something is left")
        # Without a monitor a node can still be taken off its host.
        node = f.nodes[0]
        with open(os.open(f.password_file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(password)
        refused = f.run("drop", "node", "--pgdata", node.pgdata, "--destroy", check=False)
        expect(refused.returncode == 6 and os.listdir(node.pgdata), f"{refused}")
        os.unlink(f.password_file)
        f.run("stop", "--pgdata", node.pgdata)
        f.run("drop", "node", "--pgdata", node.pgdata, "--destroy", "--force")
        expect(os.listdir(node.pgdata) == [], "something is left in PGDATA")


TIMEOUTS = "&connect_timeout=2&tcp_user_timeout=5000&keepalives_idle=2&keepalives_interval=1&keepalives_count=3"


def scenario_uris():
    """One for each group: an application writes to one of them."""
    with Formation(nodes=1) as f:
        f.run("create", "formation", "--formation", "empty", "--pgdata", f.monitor.pgdata)

        def shown(*options, check=True):
            return f.run("show", "uri", *options, "--pgdata", f.monitor.pgdata, check=check)

        def uri(node):
            return f"postgres://127.0.0.1:{node.port}/postgres?target_session_attrs=read-write&sslmode=require" + TIMEOUTS

        one = f.nodes[0]
        f.wait_encrypted()
        expect(shown("--formation", "default").stdout == uri(one) + "\n", shown("--formation", "default"))
        expect(json.loads(shown("--formation", "default", "--json").stdout)["uri"] == uri(one), "another in JSON")
        plain = uri(one).removesuffix(TIMEOUTS)
        expect(shown("--formation", "default", "--plain").stdout == plain + "\n" and plain in shown("--plain").stdout, "not plain")
        two = f.add_node(options=("--group", "1"))
        f.wait_until(lambda: len(f.in_state("single")) == 2, what="two groups")
        f.wait_encrypted()

        rows = json.loads(shown("--json").stdout)
        expect([(row["name"], row.get("group_id"), row["uri"]) for row in rows] ==
               [("monitor", None, rows[0]["uri"]), ("default", 0, uri(one)), ("default", 1, uri(two)),
                ("empty", None, "")], f"{rows}")
        lines = [[word.strip() for word in line.split("|")] for line in shown().stdout.splitlines()]
        for group, node in ((0, one), (1, two)):
            expect(["formation", f"default/{group}", uri(node)] in lines, f"{lines}")
        expect(shown("--formation", "default").stdout.split() == [uri(one), uri(two)], shown("--formation", "default"))
        expect([row["uri"] for row in json.loads(shown("--formation", "default", "--json").stdout)] ==
               [uri(one), uri(two)], "another in JSON")
        for group, node in ((0, one), (1, two)):
            expect(shown("--group", group).stdout == uri(node) + "\n", f"group {group}: {shown('--group', group)}")
            row = json.loads(shown("--formation", "default", "--group", group, "--json").stdout)
            expect((row["group_id"], row["uri"]) == (group, uri(node)), f"group {group}: {row}")
        for options in (("--formation", "empty"), ("--group", 7), ("--formation", "none"), ("--group", "x")):
            refused = shown(*options, check=False)
            expect(refused.returncode == 1 and "error" in refused.stderr, f"{options}: {refused}")


def scenario_monitor_with_two_addresses():
    """libpq tries the hosts of a URI one after the other; the node's pg_hba.conf has a line for each."""
    with Formation(nodes=1) as f:
        f.wait_state(f.nodes[0], "single")
        address = f"{f.monitor.host}:{f.monitor.port}"
        expect(address in f.monitor_uri, f.monitor_uri)
        f.monitor_uri = f.monitor_uri.replace(address, f"localhost:{f.monitor.port},{address}")
        node = f.add_node()
        f.wait_healthy()
        with open(os.path.join(node.pgdata, "pg_hba.conf")) as file:
            lines = [line.split() for line in file if "pgvigil_probe" in line and "reject" not in line]
        expect({"localhost", "127.0.0.1/32"} <= {words[3] for words in lines}, str(lines))
