"""What operators and clients do unasked: another cluster in PGDATA, a slot dropped, a wait cancelled, PostgreSQL started while its file was empty,
initdb killed, a standby written to, all slots taken."""
import os
import shutil
import signal
import stat
import subprocess
import time

from commands import start_by_hand
from formation import Daemon, Formation, Writer, expect, text_of, tool
from test_multi import Part
from test_standbys import files


def system_identifier(f, pgdata):
    shown = f.program([tool("pg_controldata"), pgdata], check=True).stdout
    return next(line.split(":")[1].strip() for line in shown.splitlines() if "system identifier" in line)


def scenario_another_cluster_in_pgdata():
    with Formation(nodes=2) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        f.run("stop", "--pgdata", standby.pgdata)
        aside = os.path.join(f.work, "aside")
        os.rename(standby.pgdata, aside)
        f.program([tool("initdb"), "-D", standby.pgdata, "--auth=trust"], check=True)
        foreign = system_identifier(f, standby.pgdata)
        standby.start()
        f.wait_until(lambda: "another system" in text_of(standby.log), what="the refusal")
        f.goes_on(primary)
        told = ""
        deadline = time.monotonic() + 10
        while "system" not in told and time.monotonic() < deadline:
            time.sleep(0.5)
            told = f.run("show", "state", "--pgdata", f.monitor.pgdata).stdout
        expect(system_identifier(f, standby.pgdata) == foreign, "the other cluster was overwritten")
        f.run("stop", "--pgdata", standby.pgdata)
        expect(system_identifier(f, standby.pgdata) == foreign, "the other cluster was overwritten")
        shutil.rmtree(standby.pgdata)
        os.rename(aside, standby.pgdata)
        standby.start()
        f.wait_healthy()
        f.check_acknowledged()
        expect("system" in told, "show state does not tell that the system is another one:\n" + told)


def scenario_wrong_monitor():
    """A node is told of another formation's monitor, where its number is another node's, and that of the primary: nothing happens there, and it goes on as
    it was."""
    with Part() as one, Part(prefix="other") as other:
        for f in (one, other):
            f.start_writers()
        there = other.primary()
        number = other.state()[there.name]["node_id"]
        lost = one.node(next(name for name, row in one.state().items() if row["node_id"] == number))
        primary, events = one.primary(), len(other.events())
        one.run("enable", "monitor", "--pgdata", lost.pgdata, "--monitor", other.monitor_uri, "--monitor-password-file", other.password_file)
        one.wait_until(lambda: "is this the right monitor?" in text_of(lost.log), what="the refusal, and what may be the matter")
        time.sleep(4)  # a primary that reports that its PostgreSQL has ended is replaced at once
        # The same by somebody who is let in: the other system shows.
        forged = "SELECT pgvigil.report({number}, 'secondary', 0, 0, false, false, 1, '0/0', 0, 'unknown', false, '', '1')"
        answer = other.monitor.sql(forged.format(number=number), "pgvigil")
        expect(answer == '{"wait": true}', f"an order that was meant for another node: {answer}")
        time.sleep(1)
        expect(other.primary() is there and len(other.events()) == events, f"the other formation has noticed: {other.events()[:5]}")
        other.goes_on(there)
        one.run("enable", "monitor", "--pgdata", lost.pgdata, "--monitor", one.monitor_uri, "--monitor-password-file", one.password_file)
        one.wait_healthy()
        expect(one.primary() is primary and not one.elections(), f"its own formation has noticed: {one.events()[:5]}")
        for f in (one, other):
            f.goes_on()
            f.check_acknowledged()


def scenario_slot_dropped():
    """The WAL that the standby needs is gone when it comes back."""
    with Formation(nodes=2) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        f.run("stop", "--pgdata", standby.pgdata)
        f.wait_state(primary, "wait_primary")
        stopped_at = primary.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
        deadline = time.monotonic() + 60
        while stopped_at in os.listdir(os.path.join(primary.pgdata, "pg_wal")) and time.monotonic() < deadline:
            primary.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
            primary.sql("ALTER SYSTEM SET wal_keep_size = 0")
            primary.sql("SELECT pg_reload_conf()")
            primary.sql("SELECT pg_switch_wal()")
            primary.sql("CHECKPOINT")
        kept = os.listdir(os.path.join(primary.pgdata, "pg_wal"))
        expect(stopped_at not in kept, "the WAL is still there: this proves nothing")
        standby.start()
        f.wait_healthy()
        expect(f.primary() is primary, "another primary")
        f.check_acknowledged()


def scenario_cancelled_wait():
    """A commit whose wait for the quorum was cancelled is in doubt, and the node is the same as before."""
    with Formation(nodes=2, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()

        standby.kill(signal.SIGSTOP)
        standby.signal_postgres(signal.SIGSTOP)
        waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT%'"
        cancelled = 0
        deadline = time.monotonic() + 60
        while cancelled < 20 and time.monotonic() < deadline:
            cancelled += int(primary.sql("SELECT count(pg_cancel_backend(pid)) " + waiting))
            time.sleep(0.05)
        primary.sql("SELECT count(pg_terminate_backend(pid)) " + waiting)
        standby.signal_postgres(signal.SIGCONT)
        standby.kill(signal.SIGCONT)
        f.wait_healthy()
        f.goes_on()
        expect(f.primary() is primary, "another primary")
        _, verdict = f.check_acknowledged()
        expect(cancelled >= 20 and verdict["in_doubt"] >= 10, f"{cancelled} waits were cancelled, and yet: {verdict}")


class Emptied:
    """A postgresql.conf in the moment after an editor has opened it for writing."""

    def __init__(self, node):
        self.file = os.path.join(node.pgdata, "postgresql.conf")

    def __enter__(self):
        self.text = text_of(self.file)
        open(self.file, "w").close()

    def __exit__(self, *_):
        with open(self.file, "w") as conf:
            conf.write(self.text)


def wait_own_settings(f, node):
    words = [tool("psql"), "-X", "-A", "-t", "-c", "SHOW primary_slot_name", node.socket_uri()]
    f.wait_until(lambda: f.program(words).stdout == "pgvigil_standby_1\n", what="PostgreSQL runs with pgvigil's settings")


def scenario_restarted_with_an_empty_file():
    """Without pgvigil's settings its commits would wait for nobody, and the keeper does not find it."""
    with Formation(nodes=1) as f:
        node = f.nodes[0]
        f.wait_state(node, "single")
        node.kill(signal.SIGSTOP)
        with Emptied(node):
            by_hand = [tool("pg_ctl"), "-D", node.pgdata, "-o", f"-p {node.port} -h {node.host} -k {f.work}", "-w", "-t", "5", "-m", "fast", "restart"]
            subprocess.run(f.command(by_hand, node.name), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        restarted = node.postmaster()
        expect(restarted is not None, "it does not run: this proves nothing")
        node.kill(signal.SIGCONT)
        f.wait_until(lambda: "without pgvigil's settings" in text_of(node.log), what="it is said")
        wait_own_settings(f, node)
        expect(node.postmaster() != restarted, "it runs on")


def wrapped_postgres(f, commands):
    """A directory of PostgreSQL's programs; these commands of a shell come before its server."""
    programs = os.path.join(f.work, "programs")
    os.mkdir(programs)
    for name in os.listdir(os.path.dirname(tool("postgres"))):
        os.symlink(tool(name), os.path.join(programs, name))
    wrapped = os.path.join(programs, "postgres")
    os.remove(wrapped)
    with open(wrapped, "w") as script:
        script.write(f'#!/bin/sh\n{commands}\nexec {tool("postgres")} "$@"\n')
    os.chmod(wrapped, stat.S_IRWXU)
    return programs


def scenario_started_with_an_empty_file():
    """The same, started by the keeper itself, and found where it is expected to be."""
    with Formation(nodes=0) as f:
        empty, once = os.path.join(f.work, "empty"), os.path.join(f.work, "once")
        open(empty, "w").close()
        programs = wrapped_postgres(f, f'if mv {once} {once}.done 2>/dev/null; then set -- "$@" $(cat {once}.done); fi')
        node = f.add_node(options=("--pgctl", os.path.join(programs, "pg_ctl")))
        f.wait_state(node, "single")
        with open(once, "w") as more:
            more.write(f"-c config_file={empty} -c hba_file={node.pgdata}/pg_hba.conf -c port={node.port} -c unix_socket_directories={node.state}")
        node.kill_postmaster()
        f.wait_until(lambda: "without pgvigil's settings" in text_of(node.log), what="it is said")
        wait_own_settings(f, node)


def scenario_linked_configuration_not_mounted():
    """What postgresql.conf and pg_hba.conf are links to is not there yet: nothing is put in their place, and the node waits."""
    with Formation(nodes=1) as f:
        node = f.nodes[0]
        f.wait_state(node, "single")
        disk = os.path.join(f.work, "disk")
        os.mkdir(disk)
        f.own(disk)
        f.run("stop", "--pgdata", node.pgdata)
        links = {name: os.path.join(node.pgdata, name) for name in ("postgresql.conf", "pg_hba.conf")}
        for name, link in links.items():
            os.rename(link, os.path.join(disk, name))
            os.symlink(os.path.join(disk, name), link)
        os.rename(disk, disk + ".away")
        node.start()
        f.wait_until(lambda: "is a link to" in f.state()[node.name]["reason"], what="show state says what is missing")
        for link in links.values():
            expect(os.path.islink(link) and not os.path.exists(link), f"{link} was replaced")
        os.rename(disk + ".away", disk)
        f.wait_until(lambda: f.state()[node.name]["pg_running"] and not f.state()[node.name]["reason"], what="it is well again")
        expect(all(os.path.islink(link) for link in links.values()), "a link was replaced by a file")


def scenario_words_in_another_encoding():
    """What keeps PostgreSQL from starting is in no UTF-8: it is said all the same, and the node goes on reporting."""
    with Formation(nodes=0) as f:
        broken = os.path.join(f.work, "broken")
        programs = wrapped_postgres(f, f"if test -e {broken}; then printf 'nicht m\\366glich: \\374\\n' >&2; exit 1; fi")
        node = f.add_node(options=("--pgctl", os.path.join(programs, "pg_ctl")))
        f.wait_state(node, "single")
        open(broken, "w").close()
        node.kill_postmaster()
        f.wait_until(lambda: "does not start" in f.state()[node.name]["reason"], what="show state says what is wrong")
        shown = f.state()[node.name]
        expect("nicht m?glich: ?" in shown["reason"], f"it says: {shown['reason']}")
        expect("no contact with the monitor" not in text_of(node.log), "a report was refused")
        os.remove(broken)
        f.wait_until(lambda: f.state()[node.name]["pg_running"] and not f.state()[node.name]["reason"], what="it is well again")


def kill_in_initdb(f, process, daemon):
    """As soon as PG_VERSION is there: the first that initdb writes."""
    version, deadline = os.path.join(daemon.pgdata, "PG_VERSION"), time.monotonic() + 60
    while not os.path.exists(version) and time.monotonic() < deadline:
        pass
    process.kill()
    process.wait()
    expect(os.path.exists(version), "initdb was not begun")
    expect(not os.path.exists(os.path.join(daemon.pgdata, "postgresql-pgvigil.conf")), "it was over before it could be killed")


def scenario_initdb_killed():
    """What it leaves looks like a cluster, and cannot start."""
    with Formation(nodes=0) as f:
        node = Daemon(f, "node1")
        f.nodes.append(node)
        f.run(*f.create_args(node))
        node.start()
        kill_in_initdb(f, node.process, node)
        node.start()
        f.wait_state(node, "single")
        expect(node.sql("SELECT 1") == "1", "no answer")
        other = Daemon(f, "monitor2")
        words = ["create", "monitor", "--pgdata", other.pgdata, "--pgport", other.port, "--hostname", other.host, "--state-directory", other.state]
        kill_in_initdb(f, f.ask(*words), other)
        f.run(*words)


def scenario_initdb_killed_and_data_put_there():
    """Somebody has put his own cluster where an initdb was killed: nothing of it is removed."""
    with Formation(nodes=1) as f:
        f.wait_state(f.nodes[0], "single")
        node = Daemon(f, "node2")
        f.nodes.append(node)
        f.directory(node.state, 0o700)
        f.program([tool("initdb"), "-D", node.pgdata, "--auth=trust"], check=True)
        start_by_hand(f, node, "-o", f"-k {node.state} -p {node.port}")
        node.sql("CREATE TABLE precious AS SELECT 1 AS x")
        start_by_hand(f, node, action="stop")
        os.remove(os.path.join(node.pgdata, "postmaster.opts"))  # a sign of its own
        open(os.path.join(node.state, "initdb-in-progress"), "w").close()
        before = files(node.pgdata)
        refused = f.run(*f.create_args(node), check=False)
        expect(refused.returncode == 1 and "initdb" in refused.stderr, f"it was not refused: {refused}")
        expect(files(node.pgdata) == before, "PGDATA was touched")
        os.rename(node.pgdata, node.pgdata + ".aside")
        f.run(*f.create_args(node))
        os.rmdir(node.pgdata)
        os.rename(node.pgdata + ".aside", node.pgdata)
        open(os.path.join(node.state, "initdb-in-progress"), "w").close()
        before = files(node.pgdata)
        node.start()
        f.wait_until(lambda: "initdb" in f.run("show", "state", "--pgdata", f.monitor.pgdata).stdout, what="the refusal")
        expect(files(node.pgdata) == before, "PGDATA was touched")


def come_back_parted(f, node, act):
    """A standby whose keeper is away gets WAL of its own by `act`. It comes back, its primary dies, and it takes over: with the group's history."""
    primary = f.primary()
    f.run("stop", "--pgdata", node.pgdata)
    f.wait_state(primary, "wait_primary")
    act()
    node.sql("SET synchronous_commit = local; CREATE TABLE only_here AS SELECT 1 AS x")
    end = node.sql("SELECT pg_current_wal_lsn()")
    start_by_hand(f, node, "-m", "fast", action="stop")
    f.wait_until(lambda: primary.sql(f"SELECT pg_current_wal_flush_lsn() > '{end}'") == "t", what="the primary has written more")
    node.start()
    f.wait_healthy()
    f.goes_on(primary)
    expect(os.path.isdir(os.path.join(node.state, "diverged")), "what it wrote was not kept aside")
    primary.crash()
    f.wait_takeover(primary)
    f.goes_on(node)
    expect(node.sql("SELECT to_regclass('only_here') IS NULL") == "t", "it has kept what only it has written")
    primary.start()
    f.wait_healthy()
    f.check_acknowledged()


def scenario_standby_written_to_without_its_keeper():
    """Started as if it were no standby: the same timeline, other WAL."""
    with Formation(nodes=2) as f:
        Writer(f)
        f.goes_on()
        node = f.secondary()

        def act():
            os.remove(os.path.join(node.pgdata, "standby.signal"))
            start_by_hand(f, node)
        come_back_parted(f, node, act)


def scenario_standby_promoted_without_its_keeper():
    with Formation(nodes=2) as f:
        Writer(f)
        f.goes_on()
        node = f.secondary()

        def act():
            start_by_hand(f, node)
            start_by_hand(f, node, action="promote")
        come_back_parted(f, node, act)


def scenario_all_slots_taken():
    """By somebody, on the node that takes over: it does without those of its peers, says so, and makes them when there is room."""
    with Formation(nodes=2) as f:
        Writer(f)
        f.goes_on()
        primary, standby = f.primary(), f.secondary()
        standby.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active; "
                    "SELECT pg_create_physical_replication_slot('taken_' || n) FROM generate_series(1, current_setting('max_replication_slots')::int) AS n")
        primary.crash()
        f.wait_takeover(primary)
        f.goes_on(standby)
        f.wait_until(lambda: "slots are in use" in f.state()[standby.name]["reason"], what="show state says that there is no slot")
        primary.start()
        standby.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'taken%'")
        f.wait_healthy()
        f.wait_until(lambda: "slots are in use" not in f.state()[standby.name]["reason"], 30, "it says so no more")
        f.check_acknowledged()
