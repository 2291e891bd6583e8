"""Single processes hang or die: of the daemons, of PostgreSQL, of a copy. Beside every node sits a client."""
import os
import signal
import time

from commands import priority
from formation import Formation, Writer, alive, children, expect, text_of


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


def scenario_walreceiver_that_connects():
    """It shows nowhere but in the list of processes before it has its session, and could stream from the old primary once it goes on: no
    vote before it has ended."""
    with Formation(nodes=2) as f:
        Writer(f)
        f.goes_on()
        primary, standby = f.primary(), f.secondary()
        former = wait_part(f, standby, "walreceiver")
        primary.kill(signal.SIGSTOP)
        primary.signal_postgres(signal.SIGSTOP)  # a connection is made, and nothing is answered
        os.kill(former, signal.SIGTERM)
        f.wait_until(lambda: part(standby, "walreceiver") not in (None, former), what="another walreceiver")
        connecting = part(standby, "walreceiver")
        os.kill(connecting, signal.SIGSTOP)
        expect(standby.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "0", "it has a session already: this proves nothing")

        def told():
            row = f.state()[standby.name]
            voted = row["current_group_state"] == "report_lsn" or row["assigned_group_state"] == "wait_primary"
            return "it has voted" if voted else "walreceiver" in row["reason"] and row["reason"]
        expect(f.wait_until(told, what="the standby says why it does not vote") != "it has voted", "it has voted with a walreceiver on its way")
        os.kill(connecting, signal.SIGCONT)
        f.wait_takeover(primary)
        primary.signal_postgres(signal.SIGCONT)
        primary.kill(signal.SIGCONT)
        f.wait_healthy()
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


def scenario_standby_that_goes_on_hanging():
    """Its keeper lives and reports. Commits do not wait for it for ever, and it is taken back when it answers again."""
    with Formation(nodes=2) as f:
        f.start_writers()
        primary, standby = f.primary(), f.secondary()
        try:
            standby.signal_postgres(signal.SIGSTOP)
            f.wait_state(primary, "wait_primary")
            f.goes_on(primary)
            expect(any(event["rule_name"] == "standby_lost" for event in f.events()), "no event says that the standby is lost")
        finally:
            standby.signal_postgres(signal.SIGCONT)
        settle(f)
        expect(f.primary() is primary and not f.elections(), "a standby that hung made a failover")
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


def all_running(name, under):
    """The pids of all processes of a program that works on a node's PGDATA, oldest first."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            words = command_line(entry).split(" ")
            if os.path.basename(words[0]) == name and any(under in word for word in words[1:]):
                found.append(int(entry))
    return sorted(found)


def running(name, under):
    """The pid of a program that works on a node's PGDATA."""
    return next(iter(all_running(name, under)), None)


def base_backup(f, node):
    """The base backup that is being made: its main process, and the child that receives the WAL meanwhile."""
    def both():
        pids = all_running("pg_basebackup", node.pgdata)
        main = next((pid for pid in pids if any(child in pids for child in children(pid))), None)
        return main and (main, next(child for child in children(main) if child in pids))
    found = f.wait_until(both, what="a base backup has begun")
    f.wait_until(lambda: os.path.isdir(os.path.join(node.pgdata, "base")), what="and has copied something")
    return found


def backup_of_bulk(f, rate):
    """A second node that is being copied, slowly."""
    f.wait_state(f.nodes[0], "single")
    f.nodes[0].sql("CREATE TABLE bulk AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 60000)")
    return f.add_node(options=("--maximum-backup-rate", rate))


def scenario_killed_base_backup():
    """Its main process, as by the kernel when memory is short: the child that receives the WAL would fill the disk, and holds the slot. The keeper
    begins anew by itself."""
    with Formation(nodes=1) as f:
        two = backup_of_bulk(f, "12M")
        main, receiver = base_backup(f, two)
        os.kill(main, signal.SIGKILL)
        f.wait_until(lambda: not alive(receiver), what="its child has ended")
        f.wait_healthy()
        expect(two.sql("SELECT count(*) FROM bulk") == "60000", "the copy is incomplete")
        expect("pg_basebackup was ended by signal 9" in text_of(two.log), "the log does not tell why it was begun anew")


def scenario_base_backup_killed_with_its_keeper():
    """What is left of it is ended by the next keeper."""
    with Formation(nodes=1) as f:
        two = backup_of_bulk(f, "2M")
        main, receiver = base_backup(f, two)
        two.kill()
        f.wait_until(lambda: not alive(main), what="the base backup has ended")
        expect(alive(receiver), "its child has ended with it: this proves nothing")
        f.run("config", "set", "replication.maximum_backup_rate", "100M", "--pgdata", two.pgdata)
        two.start()
        f.wait_until(lambda: not alive(receiver), what="what was left has ended")
        f.wait_healthy()
        expect(two.sql("SELECT count(*) FROM bulk") == "60000", "the copy is incomplete")


def scenario_copy_from_a_primary_that_hangs():
    """It keeps its sockets, and another node takes over: the copy begins anew, from that one. Its order is the same as before."""
    with Formation(nodes=2) as f:
        Writer(f)
        f.goes_on()
        former = f.primary()
        three = f.add_node(options=("--maximum-backup-rate", "32k"))
        pid = f.wait_until(lambda: running("pg_basebackup", three.pgdata), what="the base backup has begun")
        f.wait_until(lambda: os.path.isdir(os.path.join(three.pgdata, "base")), what="and has copied something")
        f.run("config", "set", "replication.maximum_backup_rate", "100M", "--pgdata", three.pgdata)
        f.run("reload", "--pgdata", three.pgdata)
        former.kill(signal.SIGSTOP)
        former.signal_postgres(signal.SIGSTOP)
        successor = f.wait_takeover(former)
        f.wait_until(lambda: not alive(pid), what="the copy from the one that hangs is over")
        f.wait_state(three, "secondary")
        f.goes_on(successor)
        former.signal_postgres(signal.SIGCONT)
        former.kill(signal.SIGCONT)
        f.wait_healthy()
        expect(text_of(three.log).count("base backup from") >= 2, "it was copied once only: this proves nothing")
        f.check_acknowledged()


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


def scenario_start_that_is_called_off():
    """The primary's PostgreSQL is started again and has not even read its configuration when another node is chosen: it is ended, and
    does not come up as a second primary later."""
    with Formation(nodes=2) as f:
        f.wait_healthy()
        primary, standby = f.primary(), f.secondary()
        priority(f, standby, 0)
        f.wait_healthy()
        file, pipe = os.path.join(primary.pgdata, "postgresql.conf"), os.path.join(primary.pgdata, "pipe")
        before = text_of(file)
        os.mkfifo(pipe)
        with open(file, "w") as config:
            config.write("include 'pipe'\n" + before)
        crashed = primary.postmaster()
        primary.kill_postmaster()
        f.wait_until(lambda: running("postgres", primary.pgdata) not in (None, crashed), what="PostgreSQL is being started again")
        started = running("postgres", primary.pgdata)
        priority(f, standby, 50)
        f.wait_takeover(primary)
        f.wait_until(lambda: not alive(started), what="the start is ended")
        with open(file, "w") as config:
            config.write(before)
        os.unlink(pipe)
        f.wait_healthy()
