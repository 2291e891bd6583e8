"""Single processes hang or die: of the daemons, of PostgreSQL, of a copy. Beside every node sits a client."""
import os
import signal
import time

from formation import Formation, alive, children, expect


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().replace("\0", " ").strip()
    except OSError:
        return ""


def part(daemon, title):
    """The pid of one of PostgreSQL's processes, by the title that it shows."""
    return next((pid for pid in children(daemon.postmaster() or -1) if title in command_line(pid)), None)


def wait_part(f, daemon, title):
    return f.wait_until(lambda: part(daemon, title), what=f"{daemon.name} has a {title}")


def hang(pids, seconds=10, meanwhile=None):
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        if meanwhile:
            meanwhile()
        time.sleep(seconds)
    finally:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass


def settle(f):
    f.wait_healthy(90)
    f.goes_on()


def scenario_hung_keepers():
    with Formation(nodes=2) as f:
        f.start_writers()
        primary = f.primary()
        for node in (primary, f.secondary()):
            hang([node.process.pid])
            settle(f)
            expect(f.primary() is primary, "a keeper that hung made a failover")
        f.check_acknowledged()


def scenario_hung_monitor():
    with Formation(nodes=2) as f:
        f.start_writers()
        primary = f.primary()
        hang([f.monitor.process.pid])
        settle(f)
        postmaster = f.monitor.postmaster()
        hang([postmaster] + children(postmaster))
        settle(f)
        expect(f.primary() is primary and not f.elections(), "a monitor that hung made a failover")
        f.check_acknowledged()


def scenario_hung_parts_of_the_primary():
    with Formation(nodes=2) as f:
        f.start_writers()
        hang([f.primary().postmaster()])
        settle(f)
        hang([wait_part(f, f.primary(), "checkpointer")])
        settle(f)
        expect(len(f.elections()) <= 1, f"a checkpointer that hung made a failover: {f.elections()}")

        # The hand-over begins with a checkpoint and ends with another.
        asked = []

        def switchover():
            asked.append(f.ask("perform", "switchover", "--pgdata", f.monitor.pgdata, "--wait", "60"))
        hang([wait_part(f, f.primary(), "checkpointer")], meanwhile=switchover)
        asked[0].wait(90)
        settle(f)
        f.check_acknowledged()


def scenario_hung_parts_of_the_standby():
    with Formation(nodes=2) as f:
        f.start_writers()
        primary = f.primary()
        for title in ("walreceiver", "startup"):
            hang([wait_part(f, f.secondary(), title)])
            settle(f)
        expect(f.primary() is primary, "a standby that hung made a failover")
        f.check_acknowledged()


def scenario_killed_parts_of_postgres():
    """Each makes the postmaster end all the others and begin anew."""
    with Formation(nodes=2) as f:
        f.start_writers()
        of_primary = ("checkpointer", "background writer", "walwriter", "autovacuum launcher",
                      "logical replication launcher", "walsender")
        of_standby = ("walreceiver", "startup", "checkpointer", "background writer")
        for which, titles in ((f.primary, of_primary), (f.secondary, of_standby)):
            for title in titles:
                node = f.wait_until(which, what="the node")
                pid = wait_part(f, node, title)
                os.kill(pid, signal.SIGKILL)
                f.wait_until(lambda: not alive(pid), what="it is dead")
                settle(f)
        f.check_acknowledged()


def running(name, under):
    """The pid of a program that works on a node's PGDATA."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            words = command_line(entry).split(" ")
            if os.path.basename(words[0]) == name and any(under in word for word in words[1:]):
                return int(entry)
    return None


def scenario_killed_base_backup():
    with Formation(nodes=1) as f:
        f.wait_state(f.nodes[0], "single")
        f.nodes[0].sql("CREATE TABLE bulk AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 60000)")
        two = f.add_node(options=("--maximum-backup-rate", "24M"))
        pid = f.wait_until(lambda: running("pg_basebackup", two.pgdata), what="the base backup has begun")
        f.wait_until(lambda: os.path.isdir(os.path.join(two.pgdata, "base")), what="and has copied something")
        os.kill(pid, signal.SIGKILL)
        f.wait_until(lambda: running("pg_basebackup", two.pgdata) not in (None, pid), what="another one has begun")
        time.sleep(0.5)
        two.kill()
        two.start()
        f.wait_healthy()
        expect(two.sql("SELECT count(*) FROM bulk") == "60000", "the copy is incomplete")


def diverge(f):
    """The primary changes what nobody else gets, and dies; the other node takes over. Returns the former primary. (With
    number_sync_standbys = 1: otherwise it may be told to go on alone meanwhile, and then nobody may take over.)"""
    former, survivor = f.primary(), f.secondary()
    former.kill(signal.SIGSTOP)
    survivor.kill(signal.SIGSTOP)
    survivor.kill_postmaster(signal.SIGSTOP)
    survivor.signal_postgres(signal.SIGSTOP)
    waiting = f.begin(former.psql("UPDATE bulk SET t = repeat('y', 1000)"))
    waiting_backend = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'UPDATE bulk%'"
    f.wait_until(lambda: former.sql(waiting_backend) == "1", what="the change is local")
    former.kill_postmaster()
    former.kill(signal.SIGKILL)
    waiting.wait(30)
    survivor.signal_postgres(signal.SIGCONT)
    survivor.kill(signal.SIGCONT)
    f.wait_takeover(former)
    return former


def scenario_killed_rewind():
    """The rewind itself, and the keeper while it goes on: PGDATA is neither what it was nor what it is to be."""
    with Formation(nodes=2, settings=[("set", "formation", "number-sync-standbys", "1")]) as f:
        f.primary().sql("CREATE TABLE bulk AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 60000)")
        f.start_writers()
        for whole in (False, True):
            former = diverge(f)
            former.start()
            pid = f.wait_until(lambda: running("pg_rewind", former.pgdata), what="the rewind has begun")
            time.sleep(0.15)
            expect(alive(pid), "the rewind was over before it could be killed")
            if whole:
                former.kill()
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                expect(whole, "the rewind was over before it could be killed")  # it dies with its keeper
            if whole:
                former.start()
            settle(f)
            expect(former.sql("SELECT count(*) FROM bulk WHERE t LIKE 'x%'") == "60000", "not what the primary has")
        f.check_acknowledged()
