"""What operators and clients do unasked: another cluster in PGDATA, a slot dropped, a wait cancelled, PostgreSQL started while its file was empty."""
import os
import shutil
import signal
import stat
import subprocess
import time

from formation import Formation, expect, text_of, tool


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


def scenario_started_with_an_empty_file():
    """The same, started by the keeper itself, and found where it is expected to be."""
    with Formation(nodes=0) as f:
        programs = os.path.join(f.work, "programs")
        os.mkdir(programs)
        for name in os.listdir(os.path.dirname(tool("postgres"))):
            os.symlink(tool(name), os.path.join(programs, name))
        empty, once = os.path.join(f.work, "empty"), os.path.join(f.work, "once")
        open(empty, "w").close()
        wrapped = os.path.join(programs, "postgres")
        os.remove(wrapped)
        with open(wrapped, "w") as script:
            script.write(f'#!/bin/sh\nif mv {once} {once}.done 2>/dev/null; then set -- "$@" $(cat {once}.done); fi\nexec {tool("postgres")} "$@"\n')
        os.chmod(wrapped, stat.S_IRWXU)
        node = f.add_node(options=("--pgctl", os.path.join(programs, "pg_ctl")))
        f.wait_state(node, "single")
        with open(once, "w") as more:
            more.write(f"-c config_file={empty} -c hba_file={node.pgdata}/pg_hba.conf -c port={node.port} -c unix_socket_directories={node.state}")
        node.kill_postmaster()
        f.wait_until(lambda: "without pgvigil's settings" in text_of(node.log), what="it is said")
        wait_own_settings(f, node)
