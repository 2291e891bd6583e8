"""What operators and clients do unasked: another cluster in PGDATA, a slot dropped, a wait cancelled."""
import os
import shutil
import signal
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
