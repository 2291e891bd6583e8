"""What standbys keep for whoever takes over, and what they refuse."""
import os
import signal

from commands import command
from formation import Formation, Writer, expect, text_of

SLOTS = "SELECT coalesce(string_agg(slot_name, ' ' ORDER BY slot_name), '') FROM pg_replication_slots"


def scenario_slots_after_two_switchovers():
    """Every node has one slot for each of the others, and no more; none of them holds WAL for ever."""
    with Formation(nodes=3) as f:
        Writer(f)
        ids = {name: row["node_id"] for name, row in f.state().items()}

        def wanted(node):
            return " ".join(sorted(f"pgvigil_standby_{number}" for name, number in ids.items() if name != node.name))
        for _ in range(2):
            command(f, "perform", "switchover")
            f.wait_healthy()
        f.goes_on()
        for node in f.nodes:
            f.wait_until(lambda: node.sql(SLOTS) == wanted(node), what=f"{node.name} has the slots {wanted(node)}")
        primary = f.primary()
        end = primary.sql("SELECT pg_current_wal_lsn()")
        for node in f.nodes:
            held = f"SELECT count(*) FROM pg_replication_slots WHERE restart_lsn IS NULL OR restart_lsn < '{end}'"
            f.wait_until(lambda: node.sql(held) == "0", what=f"the slots of {node.name} have moved on to {end}")
        expect([node.sql(SLOTS) for node in f.nodes] == [wanted(node) for node in f.nodes], "other slots have come")
        f.check_acknowledged()


def files(*directories):
    """Name, size and time of the last change of everything there."""
    found = {}
    for directory in directories:
        for at, _, names in os.walk(directory):
            for path in [at] + [os.path.join(at, name) for name in names]:
                status = os.lstat(path)
                found[path] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def scenario_reads_only():
    """A standby refuses writes with SQLSTATE 25006; `show state --local` needs no monitor, and changes no file."""
    with Formation(nodes=2) as f:
        Writer(f)
        f.goes_on()
        standby = f.secondary()
        words = ["psql", "-X", "-v", "VERBOSITY=sqlstate", "-c", "INSERT INTO vigil_ids (id) VALUES (-1)", standby.socket_uri()]
        refused = f.program(words)
        expect(refused.returncode == 1 and refused.stderr.strip().endswith("25006"), f"a write on a standby: {refused}")
        f.check_acknowledged()
        for daemon in [f.monitor, *f.nodes]:
            f.run("stop", "--pgdata", daemon.pgdata)
        for node in f.nodes:
            before = files(f.work)
            shown = f.run("show", "state", "--local", "--pgdata", node.pgdata)
            expect(node.name in shown.stdout, f"it is not shown: {shown}")
            changed = {path for path, status in files(f.work).items() if before.get(path) != status}
            expect(not changed and len(files(f.work)) == len(before), f"show state --local has changed {changed}")


def scenario_a_timeline_that_nobody_goes_on_with():
    """A standby has gone over to the timeline of a node that was chosen and died before it wrote anything, so that its upstream has
    nothing for it. It streams again by itself, and is restarted no more often than that takes."""
    with Formation(nodes=2) as f:
        primary, standby = f.primary(), f.secondary()
        log = os.path.join(standby.state, "postgresql.log")
        history = os.path.join(standby.pgdata, "pg_wal", "00000002.history")

        def goes_over():
            # Not when it has replayed more in between.
            with open(history + ".tmp", "w") as file:
                file.write(f"1\t{standby.sql('SELECT pg_last_wal_replay_lsn()')}\tnobody goes on\n")
            os.rename(history + ".tmp", history)
            receiver = standby.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'")
            if receiver:
                os.kill(int(receiver), signal.SIGTERM)
            return "new target timeline is 2" in text_of(log)
        f.wait_until(goes_over, what="it has gone over")
        primary.sql("CREATE TABLE later AS SELECT 1 AS x")
        f.wait_state(standby, "catchingup")
        before = standby.postmaster()
        f.wait_until(lambda: standby.name in f.in_state("secondary"), what="it streams again")
        f.wait_until(lambda: standby.sql("SELECT to_regclass('later') IS NOT NULL") == "t", what="it has what the primary wrote meanwhile")
        expect(not os.path.exists(history), "the other timeline is there again")
        expect(text_of(standby.log).count("started again without 00000002.history") == 1, "it is not told, or more than once")
        expect(standby.postmaster() != before, "it was not restarted")
        f.wait_healthy()
        command(f, "perform", "switchover")
        f.wait_healthy()


def scenario_readers_on_the_one_that_takes_over():
    """A query on the standby needs rows that VACUUM has removed, and the replay may wait for it for ever: writes do not."""
    with Formation(nodes=2) as f:
        primary, standby = f.primary(), f.secondary()
        standby.sql("ALTER SYSTEM SET max_standby_streaming_delay = -1")
        standby.sql("SELECT pg_reload_conf()")
        primary.sql("CREATE TABLE read_there AS SELECT generate_series(1, 1000) AS x")
        f.wait_until(lambda: standby.sql("SELECT to_regclass('read_there') IS NOT NULL") == "t", what="the table is on the standby")
        reader = f.begin(standby.psql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM read_there; SELECT pg_sleep(1000)"), standby.name)
        f.wait_until(lambda: standby.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1", what="it reads")
        primary.sql("DELETE FROM read_there WHERE x > 10")
        primary.sql("VACUUM read_there")
        f.wait_until(lambda: "RecoveryConflict" in standby.sql("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'"),
                     what="the replay waits for the reader")
        primary.crash()
        expect(f.wait_takeover(primary, seconds=30) is standby, "another took over")
        f.wait_until(lambda: reader.poll() is not None, what="the reader is told")
        expect("sessions with queries that held up the replay are ended" in text_of(standby.log), "nobody says whose session was ended")
        expect(standby.sql("SELECT count(*) FROM read_there") == "10", "not what was written")
        primary.start()
        f.wait_healthy()


def reason(f, node):
    return f.state()[node.name]["reason"]


def scenario_larger_limits():
    """One node is given more connections, and becomes the primary. PostgreSQL replays no further on a standby with fewer, cannot promote it, and does not
    start it again: the keeper starts it with as many, for as long as it is a standby."""
    with Formation(nodes=2) as f:
        f.start_writers()
        larger, other = f.secondary(), f.primary()
        usual = other.sql("SHOW max_connections")
        for setting, value in (("max_connections", int(usual) + 50), ("max_locks_per_transaction", 100)):
            larger.sql(f"ALTER SYSTEM SET {setting} = {value}")
        f.run("stop", "--pgdata", larger.pgdata)
        larger.start()
        f.wait_healthy()
        f.switchover()
        expect(f.primary() is larger and larger.sql("SHOW max_connections") == str(int(usual) + 50), "the node with more connections takes writes")
        f.wait_until(lambda: "max_connections" in text_of(other.log), what="the keeper of the standby says what is too small")
        f.wait_healthy()
        f.wait_until(lambda: other.sql("SHOW max_connections") == str(int(usual) + 50), what="the standby has as many")
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{larger.sql('SELECT pg_current_wal_lsn()')}'"
        f.wait_until(lambda: other.sql(replayed) == "t", what="the standby replays again")
        f.wait_until(lambda: not reason(f, other), what="nothing is said of it any more")
        # It starts again as a standby.
        f.run("stop", "--pgdata", other.pgdata)
        other.start()
        f.wait_healthy()
        larger.crash()
        f.wait_takeover(larger)
        larger.start()
        f.wait_healthy()
        f.check_acknowledged()


def scenario_paused_replay():
    """By somebody: its node says so, and it takes over all the same."""
    with Formation(nodes=2) as f:
        f.start_writers()
        standby, former = f.secondary(), f.primary()
        standby.sql("SELECT pg_wal_replay_pause()")
        f.wait_until(lambda: "pg_wal_replay_resume" in reason(f, standby), what="show state says that the replay is paused")
        standby.sql("SELECT pg_wal_replay_resume()")
        f.wait_until(lambda: not reason(f, standby), what="and that it is not")
        standby.sql("SELECT pg_wal_replay_pause()")
        f.wait_until(lambda: reason(f, standby), what="it is paused again")
        f.goes_on()
        former.crash()
        f.wait_takeover(former)
        former.start()
        f.wait_healthy()
        f.check_acknowledged()
