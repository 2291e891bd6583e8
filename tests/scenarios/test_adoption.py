"""Clusters that were there before: stopped, of another system, copied beforehand, with their configuration elsewhere."""
import hashlib
import os
import shutil

from commands import start_by_hand
from formation import Daemon, Formation, expect, major, text_of, tool

# What the formation needs when nobody writes it into pg_hba.conf.
USERS_HBA = """# the user's own
local all all trust
local replication all trust
host all all samenet trust
host replication pgvigil_replicator samenet trust
"""


def append(path, text):
    with open(path, "a") as file:
        file.write(text)


def picture(directory):
    """Every file below, with its mode and content."""
    seen = {}
    for folder, folders, files in os.walk(directory):
        for name in folders + files:
            path = os.path.join(folder, name)
            content = hashlib.sha256(open(path, "rb").read()).hexdigest() if os.path.isfile(path) else ""
            seen[path] = (os.lstat(path).st_mode, content)
    return seen


def made_by_hand(f, name):
    """A cluster that knows nothing of pgvigil; not running."""
    node = Daemon(f, name)
    os.makedirs(node.state, mode=0o700)
    f.program([tool("initdb"), "-D", node.pgdata, "-k", "--auth=trust"], check=True)
    append(os.path.join(node.pgdata, "postgresql.conf"),
           f"port = {node.port}\nunix_socket_directories = '{node.state}'\nlisten_addresses = '{node.host}'\n")
    append(os.path.join(node.pgdata, "pg_hba.conf"), "host all all samenet trust\n")
    return node


def fill(f, node, *statements):
    """Starts it by hand, runs the statements, stops it."""
    start_by_hand(f, node)
    for statement in statements:
        node.sql(statement)
    f.program([tool("pg_ctl"), "-D", node.pgdata, "-w", "stop"], check=True)


def without_port(f, node):
    words = f.create_args(node)
    at = words.index("--pgport")
    return words[:at] + words[at + 2:]


def join(f, node, *options, args=None):
    f.run(*(args or f.create_args(node)), *options)
    f.nodes.append(node)
    node.start()


def scenario_take_over_running_cluster():
    with Formation(nodes=0) as f:
        node = made_by_hand(f, "old")
        append(os.path.join(node.pgdata, "postgresql.conf"), "listen_addresses = 'localhost'\n# the user's last line\n")
        append(os.path.join(node.pgdata, "pg_hba.conf"), "host all the_users_own 10.1.2.3/32 reject\n")
        start_by_hand(f, node)
        node.sql("CREATE TABLE kept AS SELECT 42 AS x")
        args = f.create_args(node)
        refused = f.run(*[word if word != node.host else "192.0.2.1" for word in args], check=False)
        expect(refused.returncode == 1 and "needs listen_addresses" in refused.stderr and not f.state(),
               f"it listens on localhost, where no other host comes in: {refused}")
        node.sql("ALTER SYSTEM SET listen_addresses = '*'")
        start_by_hand(f, node, action="restart")
        pid = node.postmaster()
        f.nodes.append(node)
        f.run(*args)
        node.start()
        f.wait_state(node, "single")
        expect(node.postmaster() == pid, "the running cluster was restarted")
        f.add_node("new")
        f.wait_healthy()
        expect(f.node("new").sql("SELECT x FROM kept") == "42", "the copy lacks the data")
        with open(os.path.join(node.pgdata, "pg_hba.conf")) as hba:
            expect("host all the_users_own 10.1.2.3/32 reject\n" in hba.read(), "the user's own HBA line is gone")


def scenario_stopped_cluster_and_copy():
    """A stopped cluster with data, settings and a port of its own becomes the first node, a copy of it that was made by
    hand the second; pg_hba.conf is the user's alone."""
    with Formation(nodes=0) as f:
        first = made_by_hand(f, "first")
        append(os.path.join(first.pgdata, "postgresql.conf"), "work_mem = '7MB'\n# the user's last line\n")
        with open(os.path.join(first.pgdata, "pg_hba.conf"), "w") as hba:
            hba.write(USERS_HBA)
        os.chmod(os.path.join(first.pgdata, "pg_hba.conf"), 0o640)
        fill(f, first, "CREATE TABLE kept AS SELECT 42 AS x", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
             "ALTER SYSTEM SET maintenance_work_mem = '77MB'")
        join(f, first, "--skip-pg-hba", args=without_port(f, first))
        f.wait_state(first, "single")
        expect(f.state()["first"]["nodeport"] == first.port, f"its own port is lost: {f.state()}")
        expect(first.sql("SELECT x FROM kept") == "42", "the data is lost")
        for name, value in (("work_mem", "7MB"), ("maintenance_work_mem", "77MB"), ("synchronous_standby_names", "")):
            expect(first.sql(f"SHOW {name}") == value, f"{name} is {first.sql('SHOW ' + name)}")
        expect("# the user's last line\n" in text_of(os.path.join(first.pgdata, "postgresql.conf")), "a line is gone")

        another = made_by_hand(f, "another")
        fill(f, another, "CREATE TABLE precious AS SELECT 1 AS x")
        before = picture(os.path.dirname(another.pgdata)), f.state().keys(), os.listdir(f.work + "/etc")
        refused = f.run(*f.create_args(another), check=False)
        after = picture(os.path.dirname(another.pgdata)), f.state().keys(), os.listdir(f.work + "/etc")
        expect(refused.returncode == 1 and "system" in refused.stderr and "hint" in refused.stderr, f"{refused}")
        expect(after == before, f"the refusal has left something: {refused}")
        shutil.rmtree(another.state)
        refused = f.run(*f.create_args(another), check=False)
        expect(refused.returncode == 1 and not os.path.exists(another.state), "a state directory was left")

        # -R: with another primary_conninfo in postgresql.auto.conf, which would win over ours.
        copy = Daemon(f, "copy")
        os.makedirs(copy.state, mode=0o700)
        f.program([tool("pg_basebackup"), "-D", copy.pgdata, "-d", first.socket_uri(), "-R", "-c", "fast"], check=True)
        append(os.path.join(copy.pgdata, "by-hand"), "this copy\n")
        append(os.path.join(copy.pgdata, "postgresql.conf"), f"unix_socket_directories = '{copy.state}'\nlisten_addresses = '{copy.host}'\n")
        first.sql("INSERT INTO kept VALUES (43)")
        join(f, copy, "--skip-pg-hba")
        f.wait_healthy()
        f.start_writers()
        expect(os.path.exists(os.path.join(copy.pgdata, "by-hand")), "the copy was thrown away and made anew")
        expect("base backup" not in text_of(copy.log), "a base backup was made")
        expect(copy.sql("SELECT array_agg(x ORDER BY x) FROM kept") == "{42,43}", "the copy lacks data")
        first.crash()
        f.wait_takeover(first)
        first.start()
        f.wait_healthy()
        f.goes_on()
        for node in (first, copy):
            file = os.path.join(node.pgdata, "pg_hba.conf")
            expect(text_of(file) == USERS_HBA and os.stat(file).st_mode & 0o777 == 0o640, f"{file} was touched")
        f.check_acknowledged()


def debian_cluster(f, name, root, filled):
    """As pg_createcluster makes it: configuration in root/MAJOR/NAME, PGDATA elsewhere."""
    node = made_by_hand(f, name)
    directory = os.path.join(root, major(), name)
    os.makedirs(directory)
    for file in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        shutil.move(os.path.join(node.pgdata, file), directory)
    append(os.path.join(directory, "postgresql.conf"),
           f"data_directory = '{node.pgdata}'\nhba_file = '{directory}/pg_hba.conf'\n"
           f"ident_file = '{directory}/pg_ident.conf'\ncluster_name = '15/{name}'\n")
    os.chmod(os.path.join(directory, "postgresql.conf"), 0o644)
    append(os.path.join(directory, "pg_hba.conf"), f"# the user's own, of {name}\n")
    append(os.path.join(directory, "start.conf"), "manual\n")
    if not filled:
        shutil.rmtree(node.pgdata)
        os.mkdir(node.pgdata, mode=0o700)
    return node, directory


def scenario_configuration_elsewhere():
    """The files stay where they are, through failover, rewind and drop. The first node runs already, the second has
    Debian's layout."""
    with Formation(nodes=0) as f:
        root = f.env["PG_CLUSTER_CONF_ROOT"] = os.path.join(f.work, "conf")
        places = {}
        for name in ("one", "two"):
            place = root if name == "two" else os.path.join(f.work, "elsewhere")
            node, places[name] = debian_cluster(f, name, place, filled=name == "one")
            if name == "one":
                start_by_hand(f, node, "-o", f"-c config_file={places[name]}/postgresql.conf")
                pid = node.postmaster()
            join(f, node, args=without_port(f, node))
            f.wait_state(node, "single" if name == "one" else "secondary")
        one, two = f.nodes
        expect(one.postmaster() == pid, "the running cluster was restarted")
        f.wait_healthy()
        plain = f.add_node("plain")  # the copy of PGDATA brings it no configuration
        f.wait_healthy()
        f.start_writers()

        def check():
            for node in (one, two):
                place = places[node.name]
                expect(not os.path.exists(os.path.join(node.pgdata, "postgresql.conf")), "a second configuration")
                expect(node.sql("SHOW config_file") == place + "/postgresql.conf", "another config_file")
                expect(node.sql("SHOW hba_file") == place + "/pg_hba.conf", "another hba_file")
                expect(node.sql("SHOW cluster_name") == "15/" + node.name, "another cluster_name")
                expect(f"# the user's own, of {node.name}\n" in text_of(place + "/pg_hba.conf"), "a line is gone")
                expect(os.stat(place + "/postgresql.conf").st_mode & 0o777 == 0o644, "another mode")

        check()
        former = f.primary()
        former.crash()
        f.wait_takeover(former)
        former.write_alone(places[former.name] + "/postgresql.conf")
        former.start()
        f.wait_healthy()
        f.goes_on()
        check()
        # Its own files, which the others do not have, outlive a rewind too.
        for file in ("postgresql.conf", "pg_hba.conf"):
            append(os.path.join(plain.pgdata, file), "# the user's own, of plain\n")
        f.run("perform", "promotion", "--name", plain.name, "--pgdata", f.monitor.pgdata)
        f.wait_healthy()
        plain.crash()
        f.wait_takeover(plain)
        plain.write_alone()
        plain.start()
        f.wait_healthy()
        expect("rewound" in text_of(plain.log), "nothing was rewound")
        for file in ("postgresql.conf", "pg_hba.conf"):
            expect("# the user's own, of plain\n" in text_of(os.path.join(plain.pgdata, file)), f"{file} is another one")
        expect(any("rewound" in text_of(node.log) for node in (one, two)), "nothing was rewound")
        f.check_acknowledged()
        # Dropped, it is as it was before.
        f.run("drop", "node", "--pgdata", one.pgdata)
        f.nodes.remove(one)
        text = text_of(places["one"] + "/postgresql.conf") + text_of(places["one"] + "/pg_hba.conf")
        expect("postgresql-pgvigil.conf" not in text and "BEGIN pgvigil" not in text, "lines of pgvigil are left")
        f.wait_healthy()
        expect(plain.postmaster(), "the third node does not run")


def scenario_tablespace_on_one_machine():
    """Two nodes of a machine share a tablespace that was made while the standby followed. It is not emptied for the
    standby's new copy: the primary's data is there."""
    with Formation(nodes=2) as f:
        primary, standby = f.primary(), f.secondary()
        location = os.path.join(f.work, "space")
        f.directory(location)
        primary.sql(f"CREATE TABLESPACE space LOCATION '{location}'")
        primary.sql("CREATE TABLE there TABLESPACE space AS SELECT generate_series(1, 1000) AS x")
        f.wait_until(lambda: os.listdir(standby.pgdata + "/pg_tblspc"), what="the standby has made it too")
        f.run("stop", "--pgdata", standby.pgdata)
        before = picture(location)
        append(os.path.join(standby.state, "copy-in-progress"), "rewind\n")
        standby.start()
        f.wait_until(lambda: "used by the PostgreSQL of " + primary.pgdata in f.state()[standby.name]["reason"],
                     what="show state says why it is not copied")
        destroyed = f.run("drop", "node", "--pgdata", standby.pgdata, "--destroy", check=False)
        expect(destroyed.returncode != 0 and "used by the PostgreSQL of" in destroyed.stderr, f"{destroyed}")
        expect(picture(location).keys() == before.keys(), "files of the primary are gone")
        primary.sql("CHECKPOINT")
        expect(primary.sql("SELECT count(*) FROM there") == "1000", "data of the primary is gone")


def scenario_programs_of_another_major():
    """What is found first may be another major version than the cluster is of: its own is taken when it is installed, and
    else said to be missing, before anything is registered."""
    with Formation(nodes=0) as f:
        other = os.path.join(f.work, "other")
        os.mkdir(other)
        for name in ("postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind"):
            append(os.path.join(other, name), "#!/bin/sh\necho 'postgres (PostgreSQL) 9.6.24'\n")
            os.chmod(os.path.join(other, name), 0o755)
        node = made_by_hand(f, "mine")
        f.env["PATH"] = other + ":" + f.env["PATH"]
        result = f.run(*f.create_args(node), check=False)
        installed = f"/usr/lib/postgresql/{major()}/bin"
        if os.path.exists(installed + "/postgres"):
            expect(result.returncode == 0, f"refused, though the right programs are there: {result}")
            found = f.run("config", "get", "postgresql.bindir", "--pgdata", node.pgdata).stdout
            expect(found.strip() == installed, f"taken are those in {found}")
        else:
            expect(result.returncode == 1 and f"PostgreSQL {major()}" in result.stderr and "9" in result.stderr, f"{result}")
        refused = f.run(*f.create_args(made_by_hand(f, "given")), "--pgctl", other, check=False)
        expect(refused.returncode == 1 and "--pgctl" in refused.stderr, f"another major was taken: {refused}")
        expect(list(f.state()) == ([node.name] if result.returncode == 0 else []), f"registered: {f.state()}")


def scenario_logical_replication():
    """A cluster with logical slots starts and keeps them; a second node is told to write WAL for them, too. From PostgreSQL 17
    on the slots that are meant to move to the next primary do."""
    with Formation(nodes=0) as f:
        moving = int(major()) >= 17
        first = made_by_hand(f, "first")
        append(os.path.join(first.pgdata, "postgresql.conf"), "wal_level = logical\n")
        fill(f, first, "SELECT pg_create_logical_replication_slot('stays', 'pgoutput')")
        join(f, first)
        f.wait_state(first, "single")
        second = Daemon(f, "second")
        f.run(*f.create_args(second))
        f.run("config", "set", "postgresql.wal_level", "logical", "--pgdata", second.pgdata)
        f.nodes.append(second)
        second.start()
        f.wait_healthy()
        slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = "
        expect(first.sql(slots + "'stays'") == "1", "the slot is gone")
        if moving:
            first.sql("SELECT pg_create_logical_replication_slot('moves', 'pgoutput', false, false, true)")
            for setting in ("hot_standby_feedback", "sync_replication_slots"):
                second.sql(f"ALTER SYSTEM SET {setting} = on")
            second.sql("SELECT pg_reload_conf()")

            def moved():  # nobody reads from it: a slot that lags behind what the standby has is not taken over
                first.sql("SELECT pg_replication_slot_advance('moves', pg_current_wal_lsn())")
                return second.sql(slots + "'moves' AND NOT temporary") == "1"
            f.wait_until(moved, what="the standby has the slot")
        f.start_writers()
        first.crash()
        f.wait_takeover(first)
        expect(second.sql("SHOW wal_level") == "logical", "the new primary writes no WAL for logical slots")
        expect(second.sql(slots + "'moves'") == str(int(moving)), "the slot has not moved")
        second.sql("SELECT pg_create_logical_replication_slot('new', 'pgoutput')")
        first.start()
        f.wait_healthy()
        expect(first.sql("SHOW wal_level") == "logical", "its wal_level is lost")
        f.check_acknowledged()


def scenario_generous_settings():
    """What pgvigil would lower stays as the cluster had it, on its copies too: with fewer walsenders than its primary a standby does not start."""
    with Formation(nodes=0) as f:
        first = made_by_hand(f, "first")
        own = {"max_wal_senders": "50", "max_replication_slots": "40", "wal_keep_size": "1GB", "wal_sender_timeout": "20s"}
        append(os.path.join(first.pgdata, "postgresql.conf"),
               f"listen_addresses = '{first.host}, ::1'\n" + "".join(f"{name} = {value}\n" for name, value in own.items()))
        start_by_hand(f, first)
        join(f, first)
        f.wait_state(first, "single")
        second = f.add_node("second")
        f.wait_healthy()
        f.switchover()
        f.wait_takeover(first)
        f.wait_healthy()  # the first one has been started anew
        for node in (first, second):
            shown = {name: node.sql(f"SHOW {name}") for name in own}
            expect(shown == own, f"{node.name} has {shown}")
        expect(first.sql("SHOW listen_addresses") == f"{first.host}, ::1", "listen_addresses is not as it was")


def scenario_slots_of_a_former_primary():
    """Its operator's slots stay, and somebody is told what they hold. Those that go over to the next primary by themselves are no use here."""
    with Formation(nodes=2) as f:
        first, second = f.primary(), f.secondary()
        first.sql("SELECT pg_create_physical_replication_slot('left_behind', true)")
        moving = int(major()) >= 17
        if moving:
            for node in f.nodes:
                f.run("config", "set", "postgresql.wal_level", "logical", "--pgdata", node.pgdata)
            for node in (second, first):
                f.run("stop", "--pgdata", node.pgdata)
                node.start()
                f.wait_healthy()
            if f.primary() is not first:
                f.switchover()
                f.wait_takeover(second)
                f.wait_healthy()
            first.sql("SELECT pg_create_logical_replication_slot('moves', 'pgoutput', false, false, true)")
        f.switchover()
        f.wait_takeover(first)
        f.wait_healthy()
        f.wait_until(lambda: "the slot left_behind, which nobody reads from, holds" in f.state()[first.name]["reason"], 30, "show state names the slot")
        expect("left_behind" in text_of(first.log), "the log does not name the slot")
        names = first.sql("SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE slot_name !~ '^pgvigil'")
        expect(names == "left_behind", f"slots on the former primary: {names}")
